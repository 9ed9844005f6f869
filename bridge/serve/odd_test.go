package serve_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/serve"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// HEAD has no body: its answer is complete with the header, and the connection is free for the next request.
func TestHeadOfTheStreamEnds(t *testing.T) {
	r := start(t, serve.Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReader(conn)
	for _, line := range []string{"HEAD /api/v1/stream", "GET /healthz"} {
		method, path, _ := strings.Cut(line, " ")
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\n\r\n", method, path)
		answer, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: %v, %d subscribers", line, err, r.hub.Figures().Cursors)
		}
		_ = answer.Body.Close()
	}
}

// A client that has gone leaves nothing behind.
func TestHeadOfTheStreamLeavesNothing(t *testing.T) {
	r := start(t, serve.Options{})
	const n = 20
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		// A byte of a next request keeps net/http from noticing that the client has gone.
		_, _ = fmt.Fprint(conn, "HEAD /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodHead}); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprint(conn, "G")
		time.Sleep(20 * time.Millisecond) // until it is there
		conn.Close()
	}
	end := time.Now().Add(40 * time.Second) // two and a half keep-alives
	for r.hub.Figures().Cursors > 0 && time.Now().Before(end) {
		time.Sleep(50 * time.Millisecond)
	}
	if got := r.hub.Figures().Cursors; got > 0 {
		t.Errorf("%d of %d clients that have gone are still subscribed", got, n)
	}
}

// What cannot be read counts as a message.
func TestTheLimitHoldsForWhatCannotBeRead(t *testing.T) {
	r := start(t, serve.Options{MessagesPerMinute: 5})
	s := r.session()
	s.read()
	handled := 0
	for range 10 {
		s.send(`nonsense`)
		if m := s.read(); !strings.Contains(m["message"].(string), "too many messages") {
			handled++
		}
	}
	if handled > 5 {
		t.Errorf("%d messages of 10 were handled, want 5", handled)
	}
}

func TestManyTextsOfAFilter(t *testing.T) {
	r := start(t, serve.Options{})
	status, _, body := r.get("/api/v1/drifts?" + strings.Repeat("user&", 190000))
	if status == http.StatusInternalServerError {
		t.Errorf("got %d %s", status, body)
	}
}

// One deeply nested value must not end all filtered queries.
func TestAFilterBesideADeepValue(t *testing.T) {
	for _, depth := range []int{500, 990, 1100, 3000} {
		r := start(t, serve.Options{})
		d := wire.Drift{DriftID: "deep", Severity: "low", Status: "open", Change: &wire.Change{Old: []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))}}
		e := wire.Drift{DriftID: "plain", Severity: "high", Status: "open"}
		r.commit(journal.Commit{
			Drifts: []journal.DriftRow{{ID: "deep", Drift: d, Status: "open"}, {ID: "plain", Drift: e, Status: "open"}},
			Messages: []wire.Message{{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: d},
				{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: e}},
		})
		if status, _, body := r.get("/api/v1/drifts?severity=high"); status != http.StatusOK {
			t.Errorf("depth %d: got %d %s", depth, status, body)
		}
	}
}

// A filter compares whole texts, a NUL within them too.
func TestAFilterComparesWholeTexts(t *testing.T) {
	r := start(t, serve.Options{})
	d := wire.Drift{DriftID: "1", User: "dana\x00evil", Status: "open"}
	r.commit(journal.Commit{
		Drifts:   []journal.DriftRow{{ID: "1", Drift: d, Status: "open"}},
		Messages: []wire.Message{{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: d}},
	})
	if _, _, body := r.get("/api/v1/drifts?user=dana"); strings.Contains(body, "drift_id") {
		t.Errorf("dana: got %s", body)
	}
	if _, _, body := r.get("/api/v1/drifts?user=dana%00evil"); !strings.Contains(body, "drift_id") {
		t.Errorf("the whole text: got %s", body)
	}
}

// An error of the upgrade has the one form of all errors.
func TestAKeyThatIsNoBase64(t *testing.T) {
	r := start(t, serve.Options{})
	_, header, body := r.get("/ws", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", strings.Repeat("!", 24))
	wantError(t, header, body, "WebSocket")
}
