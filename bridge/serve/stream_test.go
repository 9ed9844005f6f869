package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/serve"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// stream is a client of server-sent events, which keeps the id of the last one as a browser does.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
	last  string
	stop  func()
}

func (r *rig) stream(path string, headers ...string) *stream {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	stop := func() { cancel(); _ = answer.Body.Close() }
	r.t.Cleanup(stop)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("got %s %v", answer.Status, answer.Header)
	}
	return &stream{t: r.t, lines: bufio.NewScanner(answer.Body), stop: stop}
}

// read gives the next message; ok is false at the stream's end.
func (s *stream) read() (m map[string]any, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "id":
			s.last = value
		case "data":
			if err := json.Unmarshal([]byte(value), &m); err != nil {
				s.t.Fatalf("%s: %v", value, err)
			}
			return m, true
		case "", "retry", ":":
		default:
			s.t.Fatalf("unexpected line %q", s.lines.Text())
		}
	}
	return nil, false
}

// events reads as many messages, stats aside, and gives what tells them apart.
func (s *stream) events(n int) (got []string) {
	s.t.Helper()
	for len(got) < n {
		m, ok := s.read()
		if !ok {
			s.t.Fatalf("the stream ended behind %v", got)
		}
		p, _ := m["payload"].(map[string]any)
		switch m["type"] {
		case "event":
			got = append(got, p["resource_id"].(string))
		case "gap":
			got = append(got, "gap "+p["reason"].(string))
		case "stats":
		default:
			got = append(got, m["type"].(string))
		}
	}
	return got
}

func numbered(first, n int) (messages []wire.Message, numbers []string) {
	for i := first; i < first+n; i++ {
		messages, numbers = append(messages, event(i)), append(numbers, fmt.Sprint(i))
	}
	return messages, numbers
}

func TestAStreamGoesOnWhereItWasCut(t *testing.T) {
	r := start(t, serve.Options{})
	s := r.stream("/api/v1/stream")
	if got := s.events(1); got[0] != "welcome" {
		t.Fatalf("got %v first", got)
	}
	first, want := numbered(0, 3)
	r.commit(journal.Commit{Messages: first})
	got := s.events(2) // the third is lost with the connection
	s.stop()
	more, further := numbered(3, 200)
	r.commit(journal.Commit{Messages: more})
	s = r.stream("/api/v1/stream?since=1-0", "Last-Event-ID", s.last)
	got = append(got, s.events(202)[1:]...)
	if d := cmp.Diff(append(want, further...), got); d != "" {
		t.Error(d)
	}
}

// A client that was cut before any message has a place to go on from all the same.
func TestAStreamWithoutMessagesHasAPlace(t *testing.T) {
	r := start(t, serve.Options{})
	s := r.stream("/api/v1/stream?topics=events")
	s.events(1)
	s.stop()
	messages, want := numbered(0, 5)
	r.commit(journal.Commit{Messages: messages})
	got := r.stream("/api/v1/stream?topics=events", "Last-Event-ID", s.last).events(6)
	if d := cmp.Diff(append([]string{"welcome"}, want...), got); d != "" {
		t.Error(d)
	}
}

func TestAStreamHasTheSameBytesAsTheSocket(t *testing.T) {
	r := start(t, serve.Options{})
	socket, s := r.session(), r.stream("/api/v1/stream?topics=drifts,state")
	socket.read()
	socket.send(`{"type":"subscribe","topic":"all"}`)
	socket.read()
	s.events(1)
	r.commit(journal.Commit{Messages: []wire.Message{
		event(0), {Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: wire.Drift{DriftID: "d"}},
		{Type: wire.TypeStateChange, Topic: wire.TopicState, Payload: wire.StateChange{Resource: "a"}},
	}})
	for _, kind := range []string{"drift", "state_change"} {
		want := socket.read()
		for want["type"] != kind {
			want = socket.read()
		}
		got, _ := s.read()
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestAStreamTellsAForeignPlace(t *testing.T) {
	r := start(t, serve.Options{})
	messages, want := numbered(0, 3)
	r.commit(journal.Commit{Messages: messages})
	want = append([]string{"welcome", "gap other_journal"}, want...)
	s := r.stream("/api/v1/stream?topics=drifts,events", "Last-Event-ID", "ANOTHER/9-0")
	place := func() string { got := s.events(1); return got[0] + " " + s.last }
	if got := place(); got != "welcome "+r.journal.Epoch()+"/0-0" {
		t.Errorf("got %q", got)
	}
	if d := cmp.Diff(want[1:], s.events(4)); d != "" {
		t.Error(d)
	}
}

func TestStreamRefusals(t *testing.T) {
	r := start(t, serve.Options{})
	for path, mention := range map[string]string{
		"?topics=drift":         `unknown topic "drift": want one of all, drifts`,
		"?topic=drifts":         `unknown parameter "topic": want topics, since, epoch`,
		"?since=now":            `since "now": want the id`,
		"?topics=drifts,,state": `no topic`,
	} {
		status, header, body := r.get("/api/v1/stream" + path)
		if status != http.StatusBadRequest {
			t.Errorf("%s: got %d", path, status)
		}
		wantError(t, header, body, mention)
	}
	status, header, body := r.get("/api/v1/stream", "Last-Event-ID", "x")
	if status != http.StatusBadRequest {
		t.Errorf("got %d", status)
	}
	wantError(t, header, body, `since "x"`)
	if status, _, _ := r.get("/api/v1/stream", "Origin", "https://example.com"); status != http.StatusForbidden {
		t.Errorf("another origin: got %d", status)
	}
}

// A stream ends with the bridge, once what is there is sent; a later one is told to come again.
func TestAStreamEndsWithTheHub(t *testing.T) {
	r := start(t, serve.Options{})
	s := r.stream("/api/v1/stream?topics=events")
	s.events(1)
	messages, want := numbered(0, 100)
	r.commit(journal.Commit{Messages: messages})
	r.stopHub()
	if d := cmp.Diff(want, s.events(100)); d != "" {
		t.Error(d)
	}
	if m, ok := s.read(); ok {
		t.Errorf("got %v behind the end", m)
	}
	status, header, body := r.get("/api/v1/stream")
	if status != http.StatusServiceUnavailable {
		t.Errorf("later: got %d", status)
	}
	wantError(t, header, body, "shutting down")
}

func TestSinceOnTheSocket(t *testing.T) {
	r := start(t, serve.Options{})
	messages, want := numbered(0, 5)
	r.commit(journal.Commit{Messages: messages})
	s := r.session()
	epoch := s.read()["payload"].(map[string]any)["epoch"].(string)
	s.send(`{"type":"subscribe","topic":"events","payload":{"since":"0-0","epoch":"` + epoch + `"}}`)
	var got []string
	var last string
	for len(got) < 3 {
		if m := s.read(); m["type"] == "event" {
			got = append(got, m["payload"].(map[string]any)["resource_id"].(string))
			last = m["id"].(string)
		}
	}
	_ = s.Close()
	s = r.session()
	s.read()
	s.send(`{"type":"subscribe","topic":"all","payload":{"since":"` + epoch + "/" + last + `"}}`)
	for len(got) < 5 {
		if m := s.read(); m["type"] == "event" {
			got = append(got, m["payload"].(map[string]any)["resource_id"].(string))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	s.send(`{"type":"unsubscribe","topic":"all"}`)
	for s.read()["type"] != "unsubscribed" {
	}
	s.send(`{"type":"subscribe","topic":"drifts","payload":{"since":"1-0","epoch":"ANOTHER"}}`)
	if m := s.read(); m["type"] != "subscribed" {
		t.Errorf("got %v", m)
	}
	m := s.read()
	sameMembers(t, "gap", map[string]any{"type": "", "timestamp": "", "payload": map[string]any{"reason": "", "from": "", "lost": 0.0}}, m)
	if m["type"] != "gap" || m["payload"].(map[string]any)["reason"] != "other_journal" {
		t.Errorf("got %v", m)
	}
}

func TestFilters(t *testing.T) {
	r := start(t, serve.Options{})
	var c journal.Commit
	for i, severity := range []string{"low", "high", "critical", "high"} {
		d := wire.Drift{
			DriftID: fmt.Sprint(i), Severity: severity, User: "dana's \"id\"", Status: "open", Address: `a["x"].b`,
			Event: wire.Source{Region: fmt.Sprintf("eu-%d", i%2)}, State: wire.StateRef{URI: "file:///a"},
		}
		c.Drifts = append(c.Drifts, journal.DriftRow{ID: d.DriftID, Drift: d, Status: "open"})
		c.Messages = append(c.Messages, wire.Message{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: d},
			wire.Message{Type: wire.TypeFalco, Topic: wire.TopicEvents, Payload: wire.Falco{Severity: severity, Rule: fmt.Sprint("rule ", i)}}, event(i))
		c.States = append(c.States, wire.State{URI: fmt.Sprintf("file:///%d", i), Terraform: fmt.Sprintf("1.%d", i%2)})
	}
	r.commit(c)
	s := r.session()
	s.read()
	for _, q := range []struct {
		path, payload string // the same query in either way
		n             int
		more          bool
	}{
		{"drifts?severity=high", `{"what":"drifts","filter":{"severity":"high"}}`, 2, false},
		{"drifts?severity=high&severity=low", `{"what":"drifts","filter":{"severity":["high","low"]}}`, 3, false},
		{"drifts?severity=high&region=eu-0", `{"what":"drifts","filter":{"severity":["high"],"region":"eu-0"}}`, 0, false},
		{"drifts?user=dana%27s+%22id%22&limit=3", `{"what":"drifts","limit":3,"filter":{"user":"dana's \"id\""}}`, 3, true},
		{"drifts?address=a%5B%22x%22%5D.b&state=file:///a", `{"what":"drifts","filter":{"address":"a[\"x\"].b","state":"file:///a"}}`, 4, false},
		{"drifts?user=%27+OR+1=1", `{"what":"drifts","filter":{"user":"' OR 1=1"}}`, 0, false},
		{"drifts?severity=", `{"what":"drifts","filter":{"severity":""}}`, 0, false},
		{"events?type=falco&severity=critical", `{"what":"events","filter":{"type":"falco","severity":"critical"}}`, 1, false},
		{"events?rule=rule+0&rule=rule+3", `{"what":"events","filter":{"rule":["rule 0","rule 3"]}}`, 2, false},
		{"state?terraform_version=1.1", `{"what":"state","filter":{"terraform_version":"1.1"}}`, 2, false},
		{"state?limit=3", `{"what":"state","limit":3}`, 3, true},
		{"state?limit=3&after=file:///2", `{"what":"state","limit":3,"after":"file:///2"}`, 1, false},
	} {
		status, _, body := r.get("/api/v1/" + q.path)
		var byREST struct {
			Items []any  `json:"items"`
			Next  string `json:"next"`
		}
		if err := json.Unmarshal([]byte(body), &byREST); err != nil || status != 200 {
			t.Errorf("%s: %d %s", q.path, status, body)
			continue
		}
		if len(byREST.Items) != q.n || (byREST.Next != "") != q.more {
			t.Errorf("%s: got %d, next %q, want %d", q.path, len(byREST.Items), byREST.Next, q.n)
		}
		s.send(`{"type":"query","payload":` + q.payload + `}`)
		m := s.read()
		p, _ := m["payload"].(map[string]any)
		if d := cmp.Diff(byREST.Items, p["items"]); d != "" && q.n > 0 {
			t.Errorf("%s: %s", q.payload, d)
		}
		if next, _ := p["next"].(string); next != byREST.Next {
			t.Errorf("%s: got next %q, want %q", q.payload, next, byREST.Next)
		}
	}
}

func TestTooManyMessages(t *testing.T) {
	r := start(t, serve.Options{MessagesPerMinute: 5})
	s := r.session()
	s.read()
	for range 20 {
		s.send(`{"type":"ping"}`) // not counted
		if m := s.read(); m["type"] != "pong" {
			t.Fatalf("got %v", m)
		}
	}
	var got []string
	for range 10 {
		s.send(`{"type":"subscribe","topic":"events"}`)
		m := s.read()
		got = append(got, m["type"].(string))
		if message, _ := m["message"].(string); m["type"] == "error" && !strings.Contains(message, "at most 5 a minute") {
			t.Errorf("got %v", m)
		}
	}
	want := slices.Concat(slices.Repeat([]string{"subscribed"}, 5), slices.Repeat([]string{"error"}, 5))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	s.send(`{"type":"subscribe","topic":"events"}`)
	if code := s.closeCode(); code != 1008 {
		t.Errorf("got %d, want 1008", code)
	}
}
