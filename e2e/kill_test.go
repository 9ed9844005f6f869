package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	_ "modernc.org/sqlite" // to look into the journal
)

// TestKilledAtAnyMoment kills the bridge 50 times at random moments while alerts come in by HTTP and two clients follow the
// feed, one by WebSocket and one by server-sent events. A sender repeats what was not answered with 200, as nobody can know
// whether it was stored. In the end every event stands in the journal once, and the clients, which resumed behind the last
// message they saw, have seen each message once, in the journal's order.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const kills = 50
	data, states := t.TempDir(), t.TempDir()
	put(t, filepath.Join(states, "network.tfstate"), fixture(t, "network/network-before.tfstate"), time.Now().Add(-time.Hour))
	intake, feed := freeAddress(t), freeAddress(t)
	args := []string{"--data", data, "--state", states, "--falco-http", intake, "--listen", feed}
	random := rand.New(rand.NewPCG(20261121, uint64(time.Now().UnixNano())))

	b := start(t, args...)
	done, sent := make(chan struct{}), make(chan int, 1)
	var parts sync.WaitGroup
	sample := record(t, "open-port-22", "", time.Time{}, nil)
	parts.Go(func() { sent <- sendAlerts(t, "http://"+intake, sample, done) })
	bySocket, byStream := newFollower(t, feed), newFollower(t, feed)
	parts.Go(func() { bySocket.run(bySocket.socket) })
	parts.Go(func() { byStream.run(byStream.stream) })
	for range kills {
		time.Sleep(time.Duration(10+random.IntN(300)) * time.Millisecond) // the moment is what is random
		_ = b.command.Process.Kill()
		<-b.ended
		b = start(t, args...)
	}
	close(done)
	alerts := <-sent
	want := everything(t, feed, 2*alerts) // an alert and its drift
	for name, f := range map[string]*follower{"socket": bySocket, "stream": byStream} {
		f.await(want[len(want)-1].ID)
		if d := cmp.Diff(idsOf(want), idsOf(f.seen)); d != "" {
			t.Errorf("the %s gave other messages than the journal has: %s", name, d)
		}
	}
	parts.Wait()
	told := map[string]int{}
	for _, m := range want {
		p := m.payload(t)
		if m.Type == "falco" {
			told["falco "+fmt.Sprint(p["event_id"])]++
		} else {
			told[m.Type+" "+fmt.Sprint(p["event"].(map[string]any)["id"])]++
		}
	}
	for i := range alerts {
		for _, kind := range []string{"falco", "drift"} {
			if n := told[kind+" "+eventName(i)]; n != 1 {
				t.Errorf("event %d is told by %d messages of type %s, want 1", i, n, kind)
			}
		}
	}
	b.stop()
	if all, different := eventsIn(t, filepath.Join(data, "journal.db")); all != alerts || different != alerts {
		t.Errorf("the journal holds %d event ids, %d different ones, want %d", all, different, alerts)
	}
	t.Logf("%d kills, %d alerts, %d messages, %d connections of the client", kills, alerts, len(want), bySocket.connections)
}

// freeAddress is an address nobody listens on, so that a bridge that starts again has the one from before.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func eventName(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// sendAlerts posts alert after alert until done, each until it is answered with 200, and gives how many there were.
func sendAlerts(t *testing.T, url string, sample map[string]any, done chan struct{}) (n int) {
	client := &http.Client{Timeout: 5 * time.Second}
	for ; ; n++ {
		body := postedAlert(t, sample, n)
		for !posted(client, url, body) {
			time.Sleep(5 * time.Millisecond) // until the bridge is back
		}
		select {
		case <-done:
			return n + 1
		default:
		}
	}
}

func posted(client *http.Client, url string, body []byte) bool {
	answer, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// postedAlert is the alert of one change by hand, as the drop-in has Falco send it: the sample with an id and a time of its own.
func postedAlert(t *testing.T, sample map[string]any, i int) []byte {
	at := time.Unix(1763640000+int64(i), 0).UTC().Format(time.RFC3339)
	request, err := json.Marshal(sample["requestParameters"])
	if err != nil {
		t.Error(err)
	}
	body, err := json.Marshal(map[string]any{
		"time": at, "rule": "Security Group Opened to the World", "priority": "Critical", "source": "tfdrift", "hostname": "n",
		"output": fmt.Sprint("opened ", i),
		"output_fields": map[string]any{
			"ct.id": eventName(i), "ct.time": at, "ct.name": sample["eventName"], "ct.src": sample["eventSource"], "ct.region": sample["awsRegion"],
			"ct.recipientaccountid": sample["recipientAccountId"], "ct.readonly": "false", "ct.user": "christophe", "ct.request": string(request),
		},
	})
	if err != nil {
		t.Error(err)
	}
	return body
}

// follower is a client that connects again whenever it is cut off, and goes on behind the last message it saw.
type follower struct {
	t           *testing.T
	feed        string             // host:port
	stop        context.CancelFunc // of what is under way
	ctx         context.Context
	connections int
	last        string // the cursor; "" before the first connection

	mu   sync.Mutex
	seen []message
}

func newFollower(t *testing.T, feed string) *follower {
	f := &follower{t: t, feed: feed}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// run connects until the follower is let go; connect reads one connection to its end.
func (f *follower) run(connect func()) {
	for f.ctx.Err() == nil {
		connect()
		time.Sleep(2 * time.Millisecond) // until the bridge is back
	}
}

func (f *follower) socket() {
	conn, _, err := websocket.DefaultDialer.DialContext(f.ctx, "ws://"+f.feed+"/ws", nil)
	if err != nil {
		return
	}
	defer context.AfterFunc(f.ctx, func() { _ = conn.Close() })()
	defer func() { _ = conn.Close() }()
	f.connections++
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		m := f.take(text)
		if m.Type != "welcome" {
			if m.ID != "" {
				epoch, _, _ := strings.Cut(f.last, "/")
				f.last = epoch + "/" + m.ID
			}
			continue
		}
		if f.last == "" {
			f.last = fmt.Sprint(m.payload(f.t)["epoch"], "/0-0")
		}
		_ = conn.WriteJSON(map[string]any{"type": "subscribe", "topic": "all", "payload": map[string]any{"since": f.last}})
	}
}

func (f *follower) stream() {
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, "http://"+f.feed+"/api/v1/stream?since=0-0", nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	if f.last != "" {
		request.Header.Set("Last-Event-ID", f.last)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	defer func() { _ = answer.Body.Close() }()
	f.connections++
	lines := bufio.NewScanner(answer.Body)
	id, data := "", ""
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case name == "" && data != "": // an event counts once its empty line is there
			f.take([]byte(data))
			f.last, data = id, ""
		}
	}
}

// take keeps one message.
func (f *follower) take(text []byte) message {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		f.t.Errorf("%v: %q", err, text)
	}
	if m.Type == "gap" || m.Type == "error" {
		f.t.Errorf("got %s", text)
	}
	if m.ID != "" {
		f.mu.Lock()
		f.seen = append(f.seen, m)
		f.mu.Unlock()
	}
	return m
}

// await waits until the follower has seen a message, and lets it go.
func (f *follower) await(id string) {
	f.t.Helper()
	defer f.stop()
	seen := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.seen) > 0 && f.seen[len(f.seen)-1].ID == id
	}
	for end := time.Now().Add(patience); !seen(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Errorf("message %s was never seen", id)
			return
		}
	}
}

// everything is all that the journal has, as a new client gets it from the start; n is how many messages there are to be.
func everything(t *testing.T, feed string, n int) (all []message) {
	t.Helper()
	f := newFollower(t, feed)
	var ran sync.WaitGroup
	ran.Go(func() { f.run(f.socket) })
	have := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.seen)
	}
	for end := time.Now().Add(patience); have() < n && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	f.stop()
	ran.Wait()
	if len(f.seen) != n {
		t.Errorf("the journal has %d messages, want %d", len(f.seen), n)
	}
	return f.seen
}

func idsOf(all []message) (ids []string) {
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	return ids
}

// eventsIn counts the CloudTrail event ids in a journal that nobody has open.
func eventsIn(t *testing.T, path string) (all, different int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.ReplaceAll(path, "?", "%3f")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.QueryRowContext(context.Background(), `SELECT count(*), count(DISTINCT event_id) FROM event`).Scan(&all, &different)
	if err != nil {
		t.Fatal(err)
	}
	return all, different
}
