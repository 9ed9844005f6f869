package serve

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"

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
		r.Header.Get("Sec-WebSocket-Version") == "13" && len(r.Header.Get("Sec-WebSocket-Key")) == 24
}

func (s *server) protocol() hub.Protocol {
	return hub.Protocol{
		Welcome: s.welcome,
		Text:    s.text,
		Binary: func(session *hub.Session) {
			session.Close(closeUnsupported, "binary frames are not understood: want JSON text", "unsupported")
		},
	}
}

func (s *server) welcome(session *hub.Session, start wire.ID) []byte {
	return s.encode(wire.Message{
		Type: wire.TypeWelcome, Timestamp: wire.At(s.hub.Now()), Replayed: s.o.Demo || s.hub.Replayed(),
		Payload: wire.Welcome{
			Message: wire.WelcomeMessage, ClientID: session.ID(), Epoch: s.hub.Epoch(), Cursor: start, Version: wire.Version,
		},
	})
}

// encode gives the frame of a message that is not journalled.
func (s *server) encode(m wire.Message) []byte {
	frame, err := wire.Encode(m)
	if err != nil { // all payloads here are wire's own
		s.log.Error("frame not encoded", "error", err, "type", m.Type)
	}
	return frame
}

// input is what a client sends. A topic in the payload counts where there is none beside it.
type input struct {
	Type    string         `json:"type"`
	Topic   string         `json:"topic"`
	Payload jsontext.Value `json:"payload"`
}

const example = `{"type":"subscribe","topic":"drifts"}`

// text handles one frame. Whatever is wrong with it is answered, except bytes that are not text at all.
func (s *server) text(session *hub.Session, frame []byte) {
	if !utf8.Valid(frame) {
		session.Close(closeInvalidText, "a text frame must be UTF-8", "invalid_text")
		return
	}
	if err := s.dispatch(session, frame); err != nil {
		s.reply(session, wire.Message{Type: wire.TypeError, Message: s.faultOf(err).message})
	}
}

// reply sends one frame; a session that has ended needs none.
func (s *server) reply(session *hub.Session, m wire.Message) {
	m.Timestamp = wire.At(s.hub.Now())
	_ = session.Reply(s.encode(m))
}

func (s *server) dispatch(session *hub.Session, frame []byte) error {
	var in input
	if err := json.Unmarshal(frame, &in); err != nil {
		return faultf(0, "cannot read %s: want one JSON object such as %s", quoted(string(frame)), example)
	}
	switch in.Type {
	case "subscribe", "unsubscribe":
		return s.subscription(session, in)
	case "ping":
		session.Alive()
		s.reply(session, wire.Message{Type: wire.TypePong})
		return nil
	case "query":
		return s.query(session, in)
	case "":
		return faultf(0, "no type: want subscribe, unsubscribe, ping or query, as in %s", example)
	}
	return faultf(0, "unknown type %s: want subscribe, unsubscribe, ping or query, as in %s", quoted(in.Type), example)
}

func (s *server) subscription(session *hub.Session, in input) error {
	topic, err := topicOf(in)
	if err != nil {
		return err
	}
	reply := wire.Message{Type: wire.TypeSubscribed, Topic: topic, Timestamp: wire.At(s.hub.Now())}
	if in.Type == "subscribe" {
		err = session.Subscribe(topic, s.encode(reply))
	} else {
		reply.Type = wire.TypeUnsubscribed
		err = session.Unsubscribe(topic, s.encode(reply))
	}
	return err
}

func topicOf(in input) (wire.Topic, error) {
	topic := in.Topic
	if topic == "" && len(in.Payload) > 0 {
		var payload struct {
			Topic string `json:"topic"`
		}
		if err := json.Unmarshal(in.Payload, &payload); err != nil {
			return "", faultf(0, "cannot read the payload: want the topic beside the type, as in %s", example)
		}
		topic = payload.Topic
	}
	known := make([]string, len(wire.Topics))
	for i, t := range wire.Topics {
		if string(t) == topic {
			return t, nil
		}
		known[i] = string(t)
	}
	if topic == "" {
		return "", faultf(0, "no topic: want one of %s, as in %s", strings.Join(known, ", "), example)
	}
	return "", faultf(0, "unknown topic %s: want one of %s", quoted(topic), strings.Join(known, ", "))
}

const queryExample = `{"type":"query","payload":{"what":"drifts","limit":100}}`

// query answers what REST answers, in a frame.
func (s *server) query(session *hub.Session, in input) error {
	var payload struct {
		What  wire.Topic `json:"what"`
		Limit *int       `json:"limit"`
		After string     `json:"after"`
	}
	err := json.Unmarshal(in.Payload, &payload, json.RejectUnknownMembers(true))
	if err != nil {
		return faultf(0, "cannot read the query's payload: want what, limit and after, as in %s", queryExample)
	}
	limit := ""
	if payload.Limit != nil {
		limit = strconv.Itoa(*payload.Limit)
	}
	n, after, err := page(limit, payload.After)
	if err != nil {
		return err
	}
	result := wire.QueryResult{What: payload.What}
	switch payload.What {
	case wire.TopicDrifts, wire.TopicEvents, wire.TopicState:
		list, err := s.reader.List(session.Context(), payload.What, after, n)
		if err != nil {
			return err
		}
		result.Items, result.Next = list.Items, list.Next
	case wire.TopicStats:
		item, err := s.statsItem(session)
		if err != nil {
			return err
		}
		result.Items = []jsontext.Value{item}
	default:
		return faultf(0, "unknown what %s: want drifts, events, state or stats, as in %s", quoted(string(payload.What)), queryExample)
	}
	s.reply(session, wire.Message{Type: wire.TypeQueryResult, Payload: result})
	return nil
}

func (s *server) statsItem(session *hub.Session) (jsontext.Value, error) {
	stats, err := s.reader.Stats(session.Context())
	if err != nil {
		return nil, err
	}
	return json.Marshal(stats, json.Deterministic(true))
}
