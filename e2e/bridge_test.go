package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience bounds every wait for something that must happen; a test that meets it has failed.
const patience = 60 * time.Second

// binary gives the built program: from TFDRIFT_BIN, where make puts it, else built here.
func binary(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("TFDRIFT_BIN"); dir != "" {
		return filepath.Join(dir, "tfdrift-bridge")
	}
	buildOnce.Do(func() {
		var dir string
		if dir, buildErr = os.MkdirTemp("", "tfdrift-e2e"); buildErr != nil {
			return
		}
		built = filepath.Join(dir, "tfdrift-bridge")
		build := exec.Command("go", "build", "-o", built, "./bridge")
		build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		var out []byte
		if out, buildErr = build.CombinedOutput(); buildErr != nil {
			buildErr = fmt.Errorf("%w: %s", buildErr, out)
		}
	})
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	return built
}

var (
	buildOnce sync.Once
	built     string
	buildErr  error
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(filepath.Dir(built))
	}
	os.Exit(code)
}

// bridge is one running tfdrift-bridge.
type bridge struct {
	t       *testing.T
	command *exec.Cmd
	feed    string // host:port
	intake  string // host:port, "" without --falco-http
	ended   chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// start runs the bridge on a free port with a journal of its own and waits until it serves.
func start(t *testing.T, args ...string) *bridge {
	t.Helper()
	if !strings.Contains(strings.Join(args, " "), "--data") {
		args = append(args, "--data", t.TempDir())
	}
	args = append([]string{"run", "--listen", "127.0.0.1:0", "--log-format", "json"}, args...)
	b := &bridge{t: t, command: exec.Command(binary(t), args...), ended: make(chan struct{})}
	stderr, err := b.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.command.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan struct{})
	go b.follow(stderr, serving)
	t.Cleanup(b.stop)
	select {
	case <-serving:
	case <-b.ended:
		t.Fatalf("the bridge ended at its start:\n%s", b.logged())
	case <-time.After(patience):
		t.Fatalf("the bridge does not serve:\n%s", b.logged())
	}
	return b
}

// follow keeps the log and takes the addresses from it.
func (b *bridge) follow(stderr io.Reader, serving chan struct{}) {
	defer close(b.ended)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		b.mu.Lock()
		b.log.Write(lines.Bytes())
		b.log.WriteByte('\n')
		b.mu.Unlock()
		var line struct{ Msg, Address, Component string }
		if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Component == "" {
			b.t.Errorf("a line of the log says not which component it is of: %s", lines.Text())
		}
		switch line.Msg {
		case "receiving Falco's alerts by HTTP":
			b.intake = line.Address
		case "serving the feed":
			b.feed = line.Address
			close(serving)
		}
	}
	_ = b.command.Wait()
}

func (b *bridge) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// stop ends the bridge as an operator does, and again harder when it does not heed that within its ten seconds.
func (b *bridge) stop() {
	_ = b.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(15 * time.Second):
		_ = b.command.Process.Kill()
		<-b.ended
		b.t.Errorf("the bridge did not stop:\n%s", b.logged())
	}
}

func (b *bridge) get(path string) []byte {
	b.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.feed+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		b.t.Fatalf("GET %s: %s %v\n%s", path, answer.Status, err, body)
	}
	return body
}

// message is what a client receives.
type message struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Topic     string          `json:"topic"`
	Timestamp string          `json:"timestamp"`
	Payload   json.RawMessage `json:"payload"`
	Replayed  bool            `json:"replayed"`
}

func (m message) payload(t *testing.T) map[string]any {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		t.Fatalf("payload of %s: %v", m.Type, err)
	}
	return p
}

// client is one WebSocket session.
type client struct {
	t    *testing.T
	conn *websocket.Conn
	seen []message
}

// watch connects and subscribes; the answer to the subscription is awaited, so that nothing from then on is missed.
func (b *bridge) watch(topics ...string) *client {
	b.t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial("ws://"+b.feed+"/ws", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	c := &client{t: b.t, conn: conn}
	b.t.Cleanup(func() { _ = conn.Close() })
	c.await("welcome", func(message) bool { return true })
	for _, topic := range topics {
		if err := conn.WriteJSON(map[string]string{"type": "subscribe", "topic": topic}); err != nil {
			b.t.Fatal(err)
		}
		c.await("subscribed", func(m message) bool { return m.Topic == topic })
	}
	return c
}

// await reads until a message of the type ("" is any) is what is wanted.
func (c *client) await(kind string, wanted func(message) bool) message {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			c.t.Fatalf("await %s: %v; seen: %s", kind, err, c.summary())
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			c.t.Fatalf("a frame is not one JSON document: %v: %q", err, text)
		}
		c.seen = append(c.seen, m)
		if (kind == "" || m.Type == kind) && wanted(m) {
			return m
		}
	}
}

func (c *client) summary() string {
	var all []string
	for _, m := range c.seen {
		all = append(all, m.Type+" "+string(m.Payload))
	}
	return strings.Join(all, "\n")
}

// once fails when two journalled messages carry one id.
func (c *client) once() {
	c.t.Helper()
	ids := map[string]bool{}
	for _, m := range c.seen {
		if m.ID != "" && ids[m.ID] {
			c.t.Errorf("message %s came twice", m.ID)
		}
		ids[m.ID] = true
	}
}

// put writes a file whole, with a time in the past where one is given.
func put(t *testing.T, path string, text []byte, written time.Time) {
	t.Helper()
	if err := os.WriteFile(path+".part", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if !written.IsZero() {
		if err := os.Chtimes(path+".part", written, written); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
