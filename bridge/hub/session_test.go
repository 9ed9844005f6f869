package hub_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// plain is a protocol for these tests: a text names a topic to subscribe to, "ping" is answered, "close" closes.
type plain struct{}

func newPlain() hub.Protocol { return plain{} }

func (plain) Welcome(*hub.Session, wire.ID) []byte { return []byte(`{"type":"welcome"}`) }

func (plain) Text(s *hub.Session, text []byte) {
	switch string(text) {
	case "ping":
		s.Alive()
		_ = s.Reply([]byte(`{"type":"pong"}`))
	case "close":
		s.Close(websocket.ClosePolicyViolation, "as asked", "asked")
	default:
		_ = s.Subscribe(wire.Topic(text), nil, []byte(`{"type":"subscribed"}`))
	}
}

func (plain) Binary(s *hub.Session) { s.Close(websocket.CloseUnsupportedData, "", "unsupported") }

// listen serves the rig's hub by WebSocket.
func (r *rig) listen() (url string) {
	endpoint := r.hub.Endpoint(newPlain)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if err := endpoint.Connect(w, q); errors.Is(err, hub.ErrShutdown) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	r.t.Cleanup(func() { r.stop(); server.Close() })
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func dial(t *testing.T, url string, topics ...wire.Topic) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.DefaultDialer.DialContext(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if f := read(t, c); f.Type != wire.TypeWelcome {
		t.Fatalf("first frame: got %+v, want welcome", f)
	}
	for _, topic := range topics {
		send(t, c, string(topic))
		if f := read(t, c); f.Type != wire.TypeSubscribed {
			t.Fatalf("got %+v, want subscribed", f)
		}
	}
	return c
}

func send(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *websocket.Conn) frame {
	t.Helper()
	_, body, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, body)
}

// closed reads until the session ends and gives its close code, 0 for none.
func closed(t *testing.T, c *websocket.Conn) (code int, frames []frame) {
	t.Helper()
	for {
		_, body, err := c.ReadMessage()
		if e, ok := errors.AsType[*websocket.CloseError](err); ok {
			return e.Code, frames
		}
		if err != nil {
			t.Logf("ended with %v", err)
			return 0, frames
		}
		frames = append(frames, decode(t, body))
	}
}

// eventually polls the hub's figures.
func (r *rig) eventually(what string, ok func(hub.Figures) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f := r.hub.Figures()
		if ok(f) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: figures are %+v", what, f)
		}
	}
}

func big(n int) wire.Message {
	return wire.Message{
		Type: wire.TypeEvent, Topic: wire.TopicEvents,
		Payload: wire.Event{ResourceID: fmt.Sprint(n), User: strings.Repeat("x", 4000)},
	}
}

// One reader stands still until all others have everything; then it gets everything too.
func TestASlowReaderSlowsNobodyAndLosesNothing(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{RingMessages: 50, WriteWait: time.Minute})
	url := r.listen()
	slow := dial(t, url, wire.TopicEvents)
	const n = 3000 // 12 MB: more than sockets and melody hold
	want := count(0, n, 1)
	var wg sync.WaitGroup
	for range 10 {
		c := dial(t, url, wire.TopicEvents)
		wg.Go(func() {
			var got []string
			for len(got) < n {
				_, body, err := c.ReadMessage()
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, decode(t, body).number())
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
	for i := 0; i < n; i += 10 {
		var c journal.Commit
		for k := range 10 {
			c.Messages = append(c.Messages, big(i+k))
		}
		if err := r.journal.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	var got []string
	for len(got) < n {
		got = append(got, read(t, slow).number())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	f := r.hub.Figures()
	if f.Dropped != 0 || f.FromJournal == 0 || f.Sessions != 11 {
		t.Errorf("figures: %+v", f)
	}
}

func TestAReaderThatNeverReadsIsLetGo(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{WriteWait: 50 * time.Millisecond})
	c := dial(t, r.listen(), wire.TopicEvents)
	for i := range 300 {
		var batch journal.Commit
		for k := range 10 {
			batch.Messages = append(batch.Messages, big(i*10+k))
		}
		if err := r.journal.Commit(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("slow reader", func(f hub.Figures) bool { return f.Closed["slow"] == 1 && f.Sessions == 0 })
	c.Close()
}

// A client that asks and asks, and never reads, is not read any further, and let go like any slow reader.
func TestAClientThatOnlyAsksIsLetGo(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{WriteWait: 50 * time.Millisecond})
	c := dial(t, r.listen())
	for c.WriteMessage(websocket.TextMessage, []byte("ping")) == nil {
	}
	r.eventually("asking client", func(f hub.Figures) bool { return f.Closed["slow"] == 1 && f.Sessions == 0 })
}

func TestASilentPeerIsLetGo(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{PingPeriod: 20 * time.Millisecond, PongWait: 200 * time.Millisecond})
	c := dial(t, r.listen())
	c.SetPingHandler(func(string) error { return nil })
	go closedQuietly(c)
	r.eventually("silent peer", func(f hub.Figures) bool { return f.Closed["silent"] == 1 && f.Sessions == 0 })
}

func closedQuietly(c *websocket.Conn) {
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			return
		}
	}
}

// A text "ping" keeps a session for longer than PongWait, without any ping frame of the server.
func TestAliveExtendsTheDeadline(t *testing.T) {
	const pongWait = time.Second
	r := start(t, journal.Options{}, hub.Options{PingPeriod: time.Hour, PongWait: pongWait})
	c := dial(t, r.listen())
	for end := time.Now().Add(5 * pongWait / 2); time.Now().Before(end); {
		send(t, c, "ping")
		if f := read(t, c); f.Type != wire.TypePong {
			t.Fatalf("got %+v", f)
		}
	}
	if f := r.hub.Figures(); f.Sessions != 1 {
		t.Errorf("figures: %+v", f)
	}
}

func TestCloseCodesArrive(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	url := r.listen()
	for _, c := range []struct {
		cause   string
		kind    int
		content string
		code    int
	}{
		{"asked", websocket.TextMessage, "close", websocket.ClosePolicyViolation},
		{"unsupported", websocket.BinaryMessage, "x", websocket.CloseUnsupportedData},
		{"too_large", websocket.TextMessage, strings.Repeat("x", hub.MaxMessage+1), websocket.CloseMessageTooBig},
		{"too_large", websocket.TextMessage, strings.Repeat("x", 10*hub.MaxMessage), websocket.CloseMessageTooBig},
	} {
		before := r.hub.Figures().Closed[c.cause]
		conn := dial(t, url)
		if err := conn.WriteMessage(c.kind, []byte(c.content)); err != nil {
			t.Fatal(err)
		}
		// More is under way when the server closes; the code must arrive nevertheless.
		for range 20 {
			_ = conn.WriteMessage(websocket.TextMessage, []byte("ping"))
		}
		if code, frames := closed(t, conn); code != c.code || len(frames) != 0 {
			t.Errorf("%s: got code %d behind %v, want %d", c.cause, code, frames, c.code)
		}
		r.eventually(c.cause, func(f hub.Figures) bool { return f.Closed[c.cause] == before+1 && f.Sessions == 0 })
	}
	conn := dial(t, url)
	if err := conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if code, _ := closed(t, conn); code != websocket.CloseNormalClosure {
		t.Errorf("closing by oneself: got code %d", code)
	}
	r.eventually("client", func(f hub.Figures) bool { return f.Closed["client"] == 1 })
}

func TestShutdownDrainsSessions(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{DrainWait: time.Minute})
	url := r.listen()
	const n = 500
	conns := []*websocket.Conn{dial(t, url, wire.TopicEvents), dial(t, url, wire.TopicEvents)}
	idle := dial(t, url)
	r.publish(0, n, wire.TopicEvents)
	var wg sync.WaitGroup
	wg.Go(r.stop)
	for _, c := range conns {
		code, frames := closed(t, c)
		if d := cmp.Diff(count(0, n, 1), numbers(frames)); d != "" || code != websocket.CloseGoingAway {
			t.Errorf("code %d: %s", code, d)
		}
	}
	if code, _ := closed(t, idle); code != websocket.CloseGoingAway {
		t.Errorf("idle session: got code %d", code)
	}
	wg.Wait()
	if f := r.hub.Figures(); f.Sessions != 0 || f.Closed["shutdown"] != 3 {
		t.Errorf("figures: %+v", f)
	}
	if _, answer, err := websocket.DefaultDialer.Dial(url, nil); err == nil || answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("connecting later: got %v", err)
	}
}

// Who does not read cannot hold the shutdown up.
func TestShutdownCutsOffWhoDoesNotRead(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{DrainWait: 20 * time.Millisecond, WriteWait: time.Second})
	dial(t, r.listen(), wire.TopicEvents)
	for i := range 3000 {
		if i%100 == 0 {
			var c journal.Commit
			for k := range 100 {
				c.Messages = append(c.Messages, big(i+k))
			}
			if err := r.journal.Commit(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.stop()
	if f := r.hub.Figures(); f.Sessions != 0 || f.Opened != 1 {
		t.Errorf("figures: %+v", f)
	}
}

func TestTheEndpointRefusesOtherOrigins(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	_, answer, err := websocket.DefaultDialer.Dial(r.listen(), http.Header{"Origin": {"http://elsewhere.example"}})
	if err == nil || answer.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, %v", answer, err)
	}
}
