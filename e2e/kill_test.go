package e2e_test

import (
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

// TestKilledAtAnyMoment kills the bridge 50 times at random moments while alerts come in by HTTP and a client follows the
// feed. A sender repeats what was not answered with 200, as nobody can know whether it was stored. In the end every event
// stands in the journal once, and the client, which resumed behind the last message it saw, has seen each message once, in the
// journal's order.
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
	follower := &follower{t: t, url: "ws://" + feed + "/ws", done: make(chan struct{})}
	parts.Go(follower.run)
	for range kills {
		time.Sleep(time.Duration(10+random.IntN(300)) * time.Millisecond) // the moment is what is random
		_ = b.command.Process.Kill()
		<-b.ended
		b = start(t, args...)
	}
	close(done)
	alerts := <-sent
	want := everything(t, "ws://"+feed+"/ws", 2*alerts) // an alert and its drift
	follower.await(want[len(want)-1].ID)
	parts.Wait()

	if d := cmp.Diff(idsOf(want), idsOf(follower.seen)); d != "" {
		t.Errorf("the client saw other messages than the journal has: %s", d)
	}
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
	t.Logf("%d kills, %d alerts, %d messages, %d connections of the client", kills, alerts, len(want), follower.connections)
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
	url         string
	done        chan struct{}
	connections int
	epoch, last string

	mu   sync.Mutex
	seen []message
}

func (f *follower) run() {
	for {
		select {
		case <-f.done:
			return
		default:
			f.follow()
		}
	}
}

// follow reads one connection to its end.
func (f *follower) follow() {
	conn, _, err := websocket.DefaultDialer.Dial(f.url, nil)
	if err != nil {
		time.Sleep(5 * time.Millisecond) // until the bridge is back
		return
	}
	defer func() { _ = conn.Close() }()
	f.connections++
	for {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			f.t.Errorf("%v: %q", err, text)
			return
		}
		if !f.take(conn, m) {
			return
		}
	}
}

// take handles one message; it is false when all that was awaited has been seen.
func (f *follower) take(conn *websocket.Conn, m message) bool {
	switch {
	case m.Type == "welcome":
		p := m.payload(f.t)
		if f.epoch == "" {
			f.epoch, f.last = p["epoch"].(string), "0-0"
		}
		subscribe := map[string]any{"type": "subscribe", "topic": "all", "payload": map[string]any{"since": f.last, "epoch": f.epoch}}
		if err := conn.WriteJSON(subscribe); err != nil {
			return true
		}
	case m.Type == "gap" || m.Type == "error":
		f.t.Errorf("got %s %s", m.Type, m.Payload)
	case m.ID != "":
		f.mu.Lock()
		f.seen, f.last = append(f.seen, m), m.ID
		f.mu.Unlock()
	}
	select {
	case <-f.done:
		return false
	default:
		return true
	}
}

// await lets the follower go once it has seen a message.
func (f *follower) await(id string) {
	f.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		seen := len(f.seen) > 0 && f.seen[len(f.seen)-1].ID == id
		f.mu.Unlock()
		if seen || time.Now().After(end) {
			close(f.done)
			if !seen {
				f.t.Errorf("the client never saw message %s", id)
			}
			return
		}
	}
}

// everything is all that the journal has, as a new client gets it from the start; n is how many messages there are to be.
func everything(t *testing.T, url string, n int) (all []message) {
	t.Helper()
	f := &follower{t: t, url: url, done: make(chan struct{})}
	var ran sync.WaitGroup
	ran.Go(f.run)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		have := len(f.seen)
		f.mu.Unlock()
		if have >= n || time.Now().After(end) {
			break
		}
	}
	close(f.done)
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
