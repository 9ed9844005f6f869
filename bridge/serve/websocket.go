package serve

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// websocket serves one session until it ends.
func (s *server) websocket(w http.ResponseWriter, r *http.Request) {
	if !isUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Sec-WebSocket-Version", "13")
		s.refuse(w, errUpgrade)
		return
	}
	err := s.endpoint.Connect(w, r)
	if errors.Is(err, hub.ErrShutdown) {
		s.refuse(w, err)
	} else if err != nil {
		s.log.Debug("upgrade refused", "error", err)
	}
}

// isUpgrade looks at all that gorilla would refuse in plain text.
func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && websocket.IsWebSocketUpgrade(r) &&
		r.Header.Get("Sec-WebSocket-Version") == "13" && isKey(r.Header.Get("Sec-WebSocket-Key"))
}

// isKey reports 16 bytes in base64 (https://www.rfc-editor.org/rfc/rfc6455#section-4.1).
func isKey(s string) bool {
	key, err := base64.StdEncoding.DecodeString(s)
	return err == nil && len(key) == 16
}

// conversation is one session's side of the protocol.
type conversation struct {
	*server
	limit   *rate.Limiter
	ignored int // messages beyond the limit since the last one that was handled
}

func (s *server) conversation() hub.Protocol {
	c := &conversation{server: s, limit: rate.NewLimiter(rate.Inf, 0)}
	if n := s.o.MessagesPerMinute; n > 0 {
		c.limit = rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)), n)
	}
	return c
}

// Welcome gives a session's first frame.
func (c *conversation) Welcome(session *hub.Session, start wire.ID) []byte {
	return c.encode(c.welcome(session.ID(), start))
}

// Binary ends the session: no client sends these by mistake.
func (c *conversation) Binary(session *hub.Session) {
	session.Close(closeUnsupported, "binary frames are not understood: want JSON text", "unsupported")
}

// Text handles one frame. Whatever is wrong with it is answered, except bytes that are not text at all.
func (c *conversation) Text(session *hub.Session, frame []byte) {
	if !utf8.Valid(frame) {
		session.Close(closeInvalidText, "a text frame must be UTF-8", "invalid_text")
		return
	}
	if err := c.dispatch(session, frame); err != nil {
		c.reply(session, wire.Message{Type: wire.TypeError, Message: c.faultOf(err).message})
	}
}

// allow holds a client to the limit. Pings are exempt, so a client over the limit stays connected; one that goes on and on
// is let go.
func (c *conversation) allow(session *hub.Session) error {
	if c.limit.Allow() {
		c.ignored = 0
		return nil
	}
	if c.ignored++; c.ignored > c.limit.Burst() {
		session.Close(closePolicy, fmt.Sprintf("too many messages: at most %d a minute", c.limit.Burst()), "too_many")
	}
	return badRequest("too many messages: at most %d a minute are handled, pings aside; this one was not", c.limit.Burst())
}

func (s *server) welcome(client string, start wire.ID) wire.Message {
	return wire.Message{
		Type: wire.TypeWelcome, Timestamp: wire.At(s.hub.Now()), Replayed: s.o.Demo || s.hub.Replayed(),
		Payload: wire.Welcome{
			Message: wire.WelcomeMessage, ClientID: client, Epoch: s.hub.Epoch(), Cursor: start, Version: wire.Version,
		},
	}
}

// encode gives the frame of a message that is not journalled.
func (s *server) encode(m wire.Message) []byte {
	frame, err := wire.Encode(m)
	if err != nil { // all payloads here are wire's own
		s.log.Error("frame not encoded", "error", err, "type", m.Type)
	}
	return frame
}

// input is what a client sends.
type input struct {
	Type    string         `json:"type"`
	Topic   string         `json:"topic"`
	Payload jsontext.Value `json:"payload"`
}

const example = `{"type":"subscribe","topic":"drifts"}`

// reply sends one frame; a session that has ended needs none.
func (s *server) reply(session *hub.Session, m wire.Message) {
	m.Timestamp = wire.At(s.hub.Now())
	_ = session.Reply(s.encode(m))
}

func (c *conversation) dispatch(session *hub.Session, frame []byte) error {
	var in input
	unread := json.Unmarshal(frame, &in)
	if unread == nil && in.Type == "ping" {
		session.Alive()
		c.reply(session, wire.Message{Type: wire.TypePong})
		return nil
	}
	if err := c.allow(session); err != nil {
		return err
	}
	if unread != nil {
		return badRequest("cannot read %s: want one JSON object such as %s", quoted(string(frame)), example)
	}
	switch in.Type {
	case "subscribe":
		return c.subscribe(session, in)
	case "unsubscribe":
		return c.unsubscribe(session, in)
	case "query":
		return c.query(session, in)
	case "":
		return badRequest("no type: want subscribe, unsubscribe, ping or query, as in %s", example)
	}
	return badRequest("unknown type %s: want subscribe, unsubscribe, ping or query, as in %s", quoted(in.Type), example)
}

// subscription is the payload of subscribe and unsubscribe. A topic here counts where there is none beside the type.
type subscription struct {
	Topic string `json:"topic"`
	Since string `json:"since"` // the cursor to go on behind; unknown to unsubscribe
	Epoch string `json:"epoch"` // of since, unless that says
}

func (c *conversation) subscribe(session *hub.Session, in input) error {
	topic, since, err := in.subscription()
	if err != nil {
		return err
	}
	return session.Subscribe(topic, since, c.encode(wire.Message{
		Type: wire.TypeSubscribed, Topic: topic, Timestamp: wire.At(c.hub.Now()),
	}))
}

func (c *conversation) unsubscribe(session *hub.Session, in input) error {
	topic, since, err := in.subscription()
	if err != nil {
		return err
	}
	if since != nil {
		return badRequest("unsubscribe knows no since: it belongs to subscribe, as in %s", sinceExample)
	}
	return session.Unsubscribe(topic, c.encode(wire.Message{
		Type: wire.TypeUnsubscribed, Topic: topic, Timestamp: wire.At(c.hub.Now()),
	}))
}

const sinceExample = `{"type":"subscribe","topic":"drifts","payload":{"since":"1763640000000-0","epoch":"EPOCH"}}`

func (in input) subscription() (topic wire.Topic, since *wire.Cursor, err error) {
	var p subscription
	if len(in.Payload) > 0 {
		if err := json.Unmarshal(in.Payload, &p, json.RejectUnknownMembers(true)); err != nil {
			return "", nil, badRequest("cannot read the payload: want since and epoch, or nothing, as in %s", sinceExample)
		}
	}
	if in.Topic == "" {
		in.Topic = p.Topic
	}
	if topic, err = topicOf(in.Topic); err != nil {
		return "", nil, err
	}
	since, err = sinceOf(p.Since, p.Epoch)
	return topic, since, err
}

// sinceOf reads a client's cursor; nil without one.
func sinceOf(text, epoch string) (*wire.Cursor, error) {
	if text == "" && epoch == "" {
		return nil, nil
	}
	cursor, err := wire.ParseCursor(text)
	if err != nil {
		return nil, badRequest("since %s: want the id of the last message seen, as in 1763640000000-0, or EPOCH/1763640000000-0", quoted(text))
	}
	if cursor.Epoch == "" {
		cursor.Epoch = epoch
	}
	return &cursor, nil
}

func topicOf(text string) (wire.Topic, error) {
	known := make([]string, len(wire.Topics))
	for i, t := range wire.Topics {
		if string(t) == text {
			return t, nil
		}
		known[i] = string(t)
	}
	if text == "" {
		return "", badRequest("no topic: want one of %s, as in %s", strings.Join(known, ", "), example)
	}
	return "", badRequest("unknown topic %s: want one of %s", quoted(text), strings.Join(known, ", "))
}

const queryExample = `{"type":"query","payload":{"what":"drifts","filter":{"severity":["critical"]},"limit":100}}`

// query answers what REST answers, in a frame.
func (c *conversation) query(session *hub.Session, in input) error {
	var asked struct {
		What   wire.Topic       `json:"what"`
		Filter map[string]texts `json:"filter"`
		Limit  *int             `json:"limit"`
		After  string           `json:"after"`
	}
	if err := json.Unmarshal(in.Payload, &asked, json.RejectUnknownMembers(true)); err != nil {
		return badRequest("cannot read the query's payload: want what, filter, limit and after, as in %s", queryExample)
	}
	if asked.What == "" {
		asked.What = wire.Topic(in.Topic) // where subscribe has it
	}
	q := wire.Query{What: asked.What, Limit: limitDefault, After: asked.After, Filter: wire.Filter{}}
	if asked.Limit != nil {
		q.Limit = *asked.Limit
	}
	for name, t := range asked.Filter {
		q.Filter[name] = t
	}
	if err := checkQuery(q); err != nil {
		return err
	}
	result := wire.QueryResult{What: q.What}
	if q.What == wire.TopicStats {
		item, err := c.statsItem(session)
		if err != nil {
			return err
		}
		result.Items = []jsontext.Value{item}
	} else {
		list, err := c.reader.List(session.Context(), q)
		if err != nil {
			return err
		}
		result.Items, result.Next = list.Items, list.Next
	}
	c.reply(session, wire.Message{Type: wire.TypeQueryResult, Payload: result})
	return nil
}

// texts is one text or a list of them.
type texts []string

// UnmarshalJSON reads either form.
func (t *texts) UnmarshalJSON(text []byte) error {
	if jsontext.Value(text).Kind() != '"' {
		return json.Unmarshal(text, (*[]string)(t))
	}
	*t = texts{""}
	return json.Unmarshal(text, &(*t)[0])
}

func (s *server) statsItem(session *hub.Session) (jsontext.Value, error) {
	stats, err := s.reader.Stats(session.Context())
	if err != nil {
		return nil, err
	}
	return json.Marshal(stats, json.Deterministic(true))
}
