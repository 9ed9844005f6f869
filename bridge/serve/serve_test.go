package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/serve"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

// rig is the handler over a real hub and journal, on a socket.
type rig struct {
	t       *testing.T
	journal *journal.Journal
	hub     *hub.Hub
	url     string // http://127.0.0.1:port
	stopHub func()
}

func start(t *testing.T, o serve.Options) *rig {
	t.Helper()
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{Replayed: o.Demo})
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(j, hub.Options{StatsEvery: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	server := httptest.NewServer(serve.New(h, h, o))
	r := &rig{t: t, journal: j, hub: h, url: server.URL}
	r.stopHub = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		r.stopHub()
		http.DefaultClient.CloseIdleConnections()
		server.Close()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) commit(c journal.Commit) {
	r.t.Helper()
	if err := r.journal.Commit(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
}

func event(n int) wire.Message {
	return wire.Message{Type: wire.TypeEvent, Topic: wire.TopicEvents, Payload: wire.Event{ResourceID: fmt.Sprint(n)}}
}

// get requests a path with headers; Host among them is the request's.
func (r *rig) get(path string, headers ...string) (status int, header http.Header, body string) {
	r.t.Helper()
	return r.request(http.MethodGet, path, headers...)
}

func (r *rig) request(method, path string, headers ...string) (status int, header http.Header, body string) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			q.Host = headers[i+1]
		} else {
			q.Header.Add(headers[i], headers[i+1])
		}
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

// wantError checks the one form of all errors and gives the message.
func wantError(t *testing.T, header http.Header, body, mention string) {
	t.Helper()
	if got := header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type of an error: got %q", got)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if got["type"] != "error" || len(got) != 2 || !strings.Contains(got["message"], mention) {
		t.Errorf("got %v, want an error that says %q", got, mention)
	}
}

func TestHostAndOrigin(t *testing.T) {
	guarded, open := start(t, serve.Options{}), start(t, serve.Options{AnyHost: true})
	const ok, no = http.StatusOK, http.StatusForbidden
	for _, c := range []struct {
		host, origin string
		guarded, any int
	}{
		{"localhost", "", ok, ok},
		{"LOCALHOST:8080", "", ok, ok},
		{"localhost:8080", "http://localhost:8080", ok, ok},
		{"localhost", "http://localhost", ok, ok},
		{"127.0.0.1:9", "", ok, ok},
		{"127.9.8.7", "", ok, ok},
		{"[::1]:8080", "http://[::1]:8080", ok, ok},
		{"[::1]", "", ok, ok},
		{"localhost:8080", "http://localhost:8081", no, no},
		{"localhost:8080", "http://127.0.0.1:8080", no, no},
		{"localhost:8080", "null", no, no},
		{"localhost:8080", "https://evil.example", no, no},
		{"localhost:8080", "http://localhost:8080.evil.example", no, no},
		{"localhost:8080", "file://localhost:8080", no, no},
		{"evil.example:8080", "http://evil.example:8080", no, ok},
		{"localhost.evil.example", "", no, ok},
		{"localhost.", "", no, ok},
		{"127.0.0.1.evil.example", "", no, ok},
		{"0.0.0.0:8080", "", no, ok},
		{"10.0.0.1:8080", "", no, ok},
		{"192.168.1.5", "", no, ok},
		{"[::]:80", "", no, ok},
	} {
		headers := []string{"Host", c.host}
		if c.origin != "" {
			headers = append(headers, "Origin", c.origin)
		}
		for _, path := range []string{"/healthz", "/api/v1/drifts", "/", "/nothing"} {
			status, header, body := guarded.get(path, headers...)
			want := c.guarded
			if path == "/nothing" && want == ok {
				want = http.StatusNotFound
			}
			if status != want {
				t.Errorf("host %q, origin %q, %s: got %d, want %d", c.host, c.origin, path, status, want)
			}
			if status == no {
				wantError(t, header, body, "")
			}
		}
		if status, _, _ := open.get("/healthz", headers...); status != c.any {
			t.Errorf("any host: host %q, origin %q: got %d, want %d", c.host, c.origin, status, c.any)
		}
		if _, ok := dial(t, guarded, headers); ok != (c.guarded == http.StatusOK) {
			t.Errorf("WebSocket with host %q, origin %q: connected %v", c.host, c.origin, ok)
		}
	}
	if status, _, body := guarded.get("/", "Origin", guarded.url, "Origin", "http://evil.example"); status != no {
		t.Errorf("two origins: got %d %s", status, body)
	}
}

func dial(t *testing.T, r *rig, headers []string) (*websocket.Conn, bool) {
	t.Helper()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	c, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(r.url, "http")+"/ws", h)
	if err != nil {
		return nil, false
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c, true
}

func TestRESTPages(t *testing.T) {
	r := start(t, serve.Options{})
	var c journal.Commit
	for i := range 250 {
		c.Messages = append(c.Messages, event(i))
	}
	d := wire.Drift{DriftID: "d1", Status: "open", OldValue: "<script>"}
	c.Messages = append(c.Messages, wire.Message{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: d})
	c.Drifts = []journal.DriftRow{{ID: "d1", Drift: d, Status: "open"}}
	c.States = []wire.State{{URI: "file:///a", Resources: 2}}
	r.commit(c)

	var got []string
	pages := 0
	for after := ""; pages < 10; pages++ {
		status, header, body := r.get("/api/v1/events?limit=60" + after)
		var list struct {
			Items []struct {
				ID      wire.ID    `json:"id"`
				Payload wire.Event `json:"payload"`
			} `json:"items"`
			Next string `json:"next"`
		}
		if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || header.Get("Content-Type") != "application/json" {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		for _, item := range list.Items {
			got = append(got, item.Payload.ResourceID)
		}
		if list.Next == "" {
			break
		}
		after = "&after=" + list.Next
	}
	var want []string
	for i := 249; i >= 0; i-- {
		want = append(want, fmt.Sprint(i))
	}
	if d := cmp.Diff(want, got); d != "" || pages != 4 {
		t.Errorf("%d pages: %s", pages, d)
	}
	for path, mention := range map[string]string{
		"/api/v1/drifts": `"drift_id":"d1"`, "/api/v1/state": `"uri":"file:///a"`, "/api/v1/stats": `"open_drifts":1`,
	} {
		if status, _, body := r.get(path); status != 200 || !strings.Contains(body, mention) {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
	if _, _, body := r.get("/api/v1/events"); strings.Count(body, `"type":"event"`) != 100 {
		t.Error("without limit: want 100 items")
	}
}

// An empty journal answers empty lists, not null.
func TestRESTOfAnEmptyJournal(t *testing.T) {
	r := start(t, serve.Options{})
	for _, path := range []string{"/api/v1/drifts", "/api/v1/events", "/api/v1/state"} {
		if status, _, body := r.get(path); status != 200 || body != "{\"items\":[]}\n" {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
}

func TestRESTRefusals(t *testing.T) {
	r := start(t, serve.Options{})
	for path, mention := range map[string]string{
		"/api/v1/drifts?severe=high":      `unknown parameter "severe": want limit, after, account, address`,
		"/api/v1/stats?limit=1":           `unknown parameter "limit": none is known here`,
		"/api/v1/state?x":                 `unknown parameter "x"`,
		"/api/v1/drifts?limit=0":          `from 1 to 1000`,
		"/api/v1/drifts?limit=1001":       `from 1 to 1000`,
		"/api/v1/drifts?limit=ten":        `limit "ten": want a number`,
		"/api/v1/events?after=x":          `after "x": want the next of an earlier page`,
		"/api/v1/events?limit=1&limit=2":  `given 2 times`,
		"/api/v1/events?limit=%zz":        `malformed`,
		"/api/v1/events?after=1-0;rm=all": `malformed`,
	} {
		status, header, body := r.get(path)
		if status != http.StatusBadRequest {
			t.Errorf("%s: got %d", path, status)
		}
		wantError(t, header, body, mention)
	}
	for _, c := range []struct {
		method, path, mention string
		status                int
	}{
		{"GET", "/api/v1", "want /, /ws", 404},
		{"GET", "/page/index.html", "want /, /ws", 404},
		{"GET", "/../serve.go", "want /, /ws", 404},
		{"GET", "/ws", "connect with a WebSocket client", 426},
		{"POST", "/api/v1/drifts", "want GET", 405},
		{"POST", "/ws", "want GET", 405},
	} {
		status, header, body := r.request(c.method, c.path)
		if status != c.status {
			t.Errorf("%s %s: got %d, want %d", c.method, c.path, status, c.status)
		}
		wantError(t, header, body, c.mention)
	}
	if err := r.journal.Close(); err != nil {
		t.Fatal(err)
	}
	status, header, body := r.get("/api/v1/stats")
	if status != http.StatusServiceUnavailable {
		t.Errorf("closed journal: got %d", status)
	}
	wantError(t, header, body, "shutting down")
}

// brokenReader fails as a disk would.
type brokenReader struct{ serve.Reader }

func (brokenReader) Stats(context.Context) (wire.Stats, error) {
	return wire.Stats{}, errors.New("secret detail")
}

func TestInternalErrorsStayInside(t *testing.T) {
	r := start(t, serve.Options{})
	w := httptest.NewRecorder()
	q := httptest.NewRequest(http.MethodGet, "http://localhost/api/v1/stats", nil)
	serve.New(brokenReader{r.hub}, r.hub, serve.Options{}).ServeHTTP(w, q)
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	wantError(t, w.Header(), w.Body.String(), "internal error")
}

func TestHealthAndReadiness(t *testing.T) {
	var falco wire.Check
	r := start(t, serve.Options{Checks: map[string]serve.Check{
		"journal": func() wire.Check { return wire.Check{OK: true, Degraded: true, Reason: "ignored"} },
		"falco":   func() wire.Check { return falco },
	}})
	for _, c := range []struct {
		falco  wire.Check
		status int
		want   string
	}{
		{wire.Check{OK: true}, 200, `{"ready":true,"checks":{"falco":{"ok":true},"journal":{"ok":true}}}`},
		{wire.Check{Degraded: true, Reason: "not connected"}, 200, `{"ready":true,"checks":{"falco":{"ok":false,"degraded":true,"reason":"not connected"},"journal":{"ok":true}}}`},
		{wire.Check{Reason: "no space left"}, 503, `{"ready":false,"checks":{"falco":{"ok":false,"reason":"no space left"},"journal":{"ok":true}}}`},
	} {
		falco = c.falco
		if status, _, body := r.get("/readyz"); status != c.status || body != c.want+"\n" {
			t.Errorf("%+v: got %d %s", c.falco, status, body)
		}
	}
	if status, _, body := r.get("/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("got %d %s", status, body)
	}
}

func TestMetrics(t *testing.T) {
	r := start(t, serve.Options{})
	if _, err := r.journal.Put(t.Context(), journal.Alert{Key: "a"}); err != nil {
		t.Fatal(err)
	}
	r.commit(journal.Commit{Messages: []wire.Message{event(1)}, Blind: []string{"a:b", "c:d"}})
	dial(t, r, nil)
	r.get("/healthz")
	r.get("/made-up")
	status, _, body := r.get("/metrics")
	for _, want := range []string{
		"tfdrift_sessions 1\n", "tfdrift_subscribers 1\n", "tfdrift_slowest_subscriber_seconds 0\n", "tfdrift_inbox_alerts_total 1\n", "tfdrift_inbox_pending 1\n", "tfdrift_blind_spots_total 2\n",
		`tfdrift_journal_messages_total{type="event"} 1`, `tfdrift_http_requests_total{code="200",path="/healthz"} 1`,
		`tfdrift_http_requests_total{code="404",path="other"} 1`, "tfdrift_frames_dropped_total 0\n", "go_goroutines ",
		"process_open_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("status %d: %q is missing", status, want)
		}
	}
}

func TestThePage(t *testing.T) {
	r := start(t, serve.Options{})
	for path, contentType := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css"} {
		status, header, body := r.get(path)
		if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), contentType) || len(body) < 500 {
			t.Errorf("%s: got %d %s, %d bytes", path, status, header.Get("Content-Type"), len(body))
		}
		policy := header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q lacks %q", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: policy %q", path, policy)
		}
		// What the policy forbids must not be in the page, and nothing may be parsed as HTML.
		for _, never := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick=", "http://", "<style"} {
			if strings.Contains(body, never) {
				t.Errorf("%s contains %q", path, never)
			}
		}
	}
}

// session is a WebSocket client of the protocol.
type session struct {
	t *testing.T
	*websocket.Conn
}

func (r *rig) session() session {
	r.t.Helper()
	c, ok := dial(r.t, r, nil)
	if !ok {
		r.t.Fatal("not connected")
	}
	return session{r.t, c}
}

func (s session) send(text string) {
	s.t.Helper()
	if err := s.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s session) read() map[string]any {
	s.t.Helper()
	kind, body, err := s.ReadMessage()
	if err != nil {
		s.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil || kind != websocket.TextMessage {
		s.t.Fatalf("%s: %v", body, err)
	}
	return m
}

// golden is a message as package wire's golden file has it.
func golden(t *testing.T, name string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "wire", "testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// sameMembers compares names and JSON types, all the way down.
func sameMembers(t *testing.T, path string, want, got any) {
	t.Helper()
	w, isObject := want.(map[string]any)
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
		t.Errorf("%s: got %T, want %T", path, got, want)
		return
	}
	if !isObject {
		return
	}
	g := got.(map[string]any)
	for name := range g {
		if _, have := w[name]; !have {
			t.Errorf("%s.%s is not in the golden file", path, name)
		}
	}
	for name, member := range w {
		if _, have := g[name]; !have {
			t.Errorf("%s.%s is missing", path, name)
			continue
		}
		sameMembers(t, path+"."+name, member, g[name])
	}
}

func TestTheProtocol(t *testing.T) {
	r := start(t, serve.Options{})
	r.commit(journal.Commit{Messages: []wire.Message{event(0)}})
	s := r.session()
	welcome := s.read()
	sameMembers(t, "welcome", golden(t, "welcome"), welcome)
	payload := welcome["payload"].(map[string]any)
	_, newest := r.journal.Bounds()
	if payload["message"] != wire.WelcomeMessage || payload["epoch"] != r.journal.Epoch() || payload["cursor"] != newest.String() {
		t.Errorf("welcome: got %v", payload)
	}

	for _, c := range []struct{ send, kind, topic string }{
		{`{"type":"ping"}`, "pong", ""},
		{`{"type":"subscribe","topic":"drifts"}`, "subscribed", "drifts"},
		{`{"type":"subscribe","payload":{"topic":"events"}}`, "subscribed", "events"},
		{` { "type" : "subscribe", "topic": "all", "payload": {}, "further": 1 } `, "subscribed", "all"},
		{`{"type":"unsubscribe","topic":"stats"}`, "unsubscribed", "stats"},
	} {
		s.send(c.send)
		m := s.read()
		for m["type"] == "stats" {
			m = s.read()
		}
		topic, _ := m["topic"].(string)
		if m["type"] != c.kind || topic != c.topic {
			t.Errorf("%s: got %v", c.send, m)
		}
		sameMembers(t, c.kind, golden(t, c.kind), m)
	}
	// Both drifts and all are subscribed to: each message comes once.
	r.commit(journal.Commit{Messages: []wire.Message{
		{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: wire.Drift{DriftID: "d"}}, event(1),
		{Type: wire.TypeStateChange, Topic: wire.TopicState, Payload: wire.StateChange{}},
	}})
	s.send(`{"type":"ping"}`)
	var got []string
	for len(got) < 4 {
		m := s.read()
		got = append(got, m["type"].(string))
	}
	// The pong may overtake messages: replies come first.
	count := map[string]int{}
	for _, kind := range got {
		count[kind]++
	}
	if d := cmp.Diff(map[string]int{"drift": 1, "event": 1, "state_change": 1, "pong": 1}, count); d != "" {
		t.Error(d)
	}
}

func TestWhatIsWrongIsAnsweredAndTheSessionGoesOn(t *testing.T) {
	r := start(t, serve.Options{})
	s := r.session()
	s.read()
	for text, mention := range map[string]string{
		`{`:                                 `want one JSON object such as {"type":"subscribe"`,
		``:                                  `want one JSON object`,
		`null`:                              `no type`,
		`[]`:                                `want one JSON object`,
		`{"type":"ping"}{"type":"ping"}`:    `want one JSON object`,
		`{"type":1}`:                        `want one JSON object`,
		`{}`:                                `no type: want subscribe, unsubscribe, ping or query`,
		`{"type":"dance"}`:                  `unknown type "dance": want subscribe`,
		`{"type":"subscribe"}`:              `no topic: want one of all, drifts, events, state, stats`,
		`{"type":"subscribe","topic":"x"}`:  `unknown topic "x": want one of all`,
		`{"type":"unsubscribe","topic":""}`: `no topic`,
		`{"type":"subscribe","payload":1}`:  `want since and epoch, or nothing, as in {"type":"subscribe"`,
		`{"type":"subscribe","topic":"all","payload":{"from":"1-0"}}`:              `want since and epoch`,
		`{"type":"subscribe","topic":"all","payload":{"since":"yesterday"}}`:       `since "yesterday": want the id of the last message seen`,
		`{"type":"subscribe","topic":"all","payload":{"epoch":"E"}}`:               `since "": want the id`,
		`{"type":"unsubscribe","topic":"all","payload":{"since":"1-0"}}`:           `unsubscribe knows no since`,
		`{"type":"query","payload":{"what":"drifts","filter":{"sever":"high"}}}`:   `unknown filter "sever" for drifts: want account, address`,
		`{"type":"query","payload":{"what":"drifts","filter":{"severity":[]}}}`:    `filter "severity" has no text`,
		`{"type":"query","payload":{"what":"drifts","filter":{"severity":1}}}`:     `want what, filter, limit and after`,
		`{"type":"query","payload":{"what":"stats","filter":{"severity":"high"}}}`: `unknown filter "severity": stats has none`,
		`{"type":"query"}`:                                             `{"type":"query","payload":{"what":"drifts"`,
		`{"type":"query","payload":{"what":"all"}}`:                    `unknown what "all"`,
		`{"type":"query","payload":{"what":"drifts","limit":0}}`:       `from 1 to 1000`,
		`{"type":"query","payload":{"what":"drifts","filter":"x"}}`:    `want what, filter, limit and after`,
		`{"type":"query","payload":{"what":"drifts","after":"later"}}`: `after "later"`,
		`{"type":"` + strings.Repeat("é", 500) + `"}`:                  `...`,
	} {
		s.send(text)
		m := s.read()
		sameMembers(t, "error", golden(t, "error"), m)
		if message, _ := m["message"].(string); m["type"] != "error" || !strings.Contains(message, mention) || len(message) > 500 {
			t.Errorf("%s: got %v, want an error that says %q", text, m, mention)
		}
	}
	s.send(`{"type":"ping"}`)
	if m := s.read(); m["type"] != "pong" {
		t.Errorf("got %v", m)
	}
}

func TestQuery(t *testing.T) {
	r := start(t, serve.Options{})
	r.commit(journal.Commit{
		Messages: []wire.Message{event(0), event(1), event(2)}, States: []wire.State{{URI: "file:///a"}},
	})
	s := r.session()
	s.read()
	result := func(payload string) (items []any, next string) {
		s.send(`{"type":"query","payload":` + payload + `}`)
		m := s.read()
		if m["type"] != "query_result" {
			t.Fatalf("got %v", m)
		}
		p := m["payload"].(map[string]any)
		next, _ = p["next"].(string)
		return p["items"].([]any), next
	}
	items, next := result(`{"what":"events","limit":2}`)
	if len(items) != 2 || next == "" {
		t.Fatalf("got %v, next %q", items, next)
	}
	if items, next = result(`{"what":"events","limit":2,"after":"` + next + `"}`); len(items) != 1 || next != "" {
		t.Errorf("second page: got %v, next %q", items, next)
	}
	for what, n := range map[string]int{"drifts": 0, "state": 1, "stats": 1} {
		if items, _ := result(`{"what":"` + what + `"}`); len(items) != n {
			t.Errorf("%s: got %v", what, items)
		}
	}
}

func (s session) closeCode() int {
	s.t.Helper()
	for {
		_, _, err := s.ReadMessage()
		if e, ok := errors.AsType[*websocket.CloseError](err); ok {
			return e.Code
		}
		if err != nil {
			s.t.Errorf("no close code: %v", err)
			return 0
		}
	}
}

func TestCloseCodes(t *testing.T) {
	r := start(t, serve.Options{})
	for _, c := range []struct {
		kind    int
		content string
		code    int
	}{
		{websocket.BinaryMessage, `{"type":"ping"}`, 1003},
		{websocket.TextMessage, "{\"type\":\"\xff\"}", 1007},
		{websocket.TextMessage, strings.Repeat(" ", 64<<10+1), 1009},
	} {
		s := r.session()
		if err := s.WriteMessage(c.kind, []byte(c.content)); err != nil {
			t.Fatal(err)
		}
		if got := s.closeCode(); got != c.code {
			t.Errorf("got %d, want %d", got, c.code)
		}
	}
	s := r.session()
	r.stopHub()
	if got := s.closeCode(); got != 1001 {
		t.Errorf("shutdown: got %d, want 1001", got)
	}
	status, header, body := r.get("/ws", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if status != http.StatusServiceUnavailable {
		t.Errorf("connecting later: got %d", status)
	}
	wantError(t, header, body, "shutting down")
}

func TestTheDemoIsMarked(t *testing.T) {
	r := start(t, serve.Options{Demo: true})
	if m := r.session().read(); m["replayed"] != true {
		t.Errorf("welcome: got %v", m)
	}
}
