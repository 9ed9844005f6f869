package e2e_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// block is one code block of the protocol document.
type block struct{ heading, language, text string }

func document(t *testing.T) (text string, blocks []block) {
	t.Helper()
	raw, err := os.ReadFile("../bridge/wire/testdata/websocket-api.md")
	if err != nil {
		t.Fatal(err)
	}
	text = string(raw)
	for _, m := range regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```").FindAllStringSubmatchIndex(text, -1) {
		headings := regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text[:m[0]], -1)
		blocks = append(blocks, block{headings[len(headings)-1][1], text[m[2]:m[3]], text[m[4]:m[5]]})
	}
	return text, blocks
}

// TestTheDocumentIsTheOnePublished: the copy that stands in the project is the document itself.
func TestTheDocumentIsTheOnePublished(t *testing.T) {
	published, err := filepath.Glob("../../shared/seeds/001_*.txt")
	if err != nil || len(published) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("the published document is not at hand")
		}
		t.Log("the published document is not at hand")
		return
	}
	want, err := os.ReadFile(published[0])
	if err != nil {
		t.Fatal(err)
	}
	got, _ := document(t)
	if d := cmp.Diff(strings.TrimSpace(string(want)), strings.TrimSpace(got)); d != "" {
		t.Error(d)
	}
}

// TestEveryMessageOfTheDocument goes through all JSON blocks of the document, and against a bridge that has seen a change by
// hand, an alert and an apply, sends what clients send, byte for byte, and compares what the server sends. A block that this
// test does not understand fails it.
func TestEveryMessageOfTheDocument(t *testing.T) {
	_, blocks := document(t)
	b, received := everyMessage(t)
	c := b.watch()
	fromClient := []string{"subscribe", "unsubscribe", "ping", "query"}
	seen := map[string]int{}
	for _, block := range blocks {
		if block.language != "json" {
			continue
		}
		if strings.Contains(block.text, " | ") {
			grammar(t, c, block, fromClient, received)
			seen["grammar"]++
			continue
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(block.text), &m); err != nil {
			t.Fatalf("%s: %v\n%s", block.heading, err, block.text)
		}
		kind, _ := m["type"].(string)
		seen[kind]++
		if slices.Contains(fromClient, kind) {
			topic, _ := m["topic"].(string)
			answered(t, c, block.text, kind, topic)
			continue
		}
		got, have := received[kind]
		if !have {
			t.Errorf("%s: no message of type %q was received", block.heading, kind)
			continue
		}
		sameKeys(t, kind, m, got)
		for _, literal := range []string{"type", "topic"} {
			if m[literal] != nil && got[literal] != m[literal] {
				t.Errorf("%s: %s is %v, the document has %v", kind, literal, got[literal], m[literal])
			}
		}
	}
	want := map[string]int{
		"grammar": 2, "subscribe": 1, "unsubscribe": 1, "ping": 2, "pong": 1, "welcome": 1, "drift": 1, "falco": 1, "state_change": 1,
	}
	if d := cmp.Diff(want, seen); d != "" {
		t.Errorf("JSON blocks by type: %s", d)
	}
	if got := received["welcome"]["payload"].(map[string]any)["message"]; got != "Connected to TFDrift-Falco WebSocket" {
		t.Errorf("welcome: got %q", got)
	}
}

// everyMessage starts a bridge and has it send each type of message once: they are given as a client on topic all got them.
func everyMessage(t *testing.T) (b *bridge, received map[string]map[string]any) {
	t.Helper()
	b, trail, states := watched(t, "--falco-http", "127.0.0.1:0")
	c := b.watch("all")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "document-1", now(), nil))
	c.await("drift", func(message) bool { return true })
	putRecords(t, filepath.Join(trail, "2.json"), record(t, "policy-denied", "document-2", now(), nil))
	c.await("event", func(message) bool { return true })
	alert := `{"time":"2025-01-15T10:15:30.000000000Z","rule":"Unauthorized Process Execution","priority":"Critical",
	 "source":"syscall","hostname":"node-1","output":"a shell","output_fields":{"container.id":"abc123"}}`
	answer, err := http.Post("http://"+b.intake, "application/json", strings.NewReader(alert))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	c.await("falco", func(message) bool { return true })
	after := bytes.ReplaceAll(fixture(t, "network/network-before.tfstate"), []byte(`"serial": 41`), []byte(`"serial": 43`))
	after = bytes.ReplaceAll(after, []byte(`"block_public_acls": true`), []byte(`"block_public_acls": false`))
	put(t, filepath.Join(states, "network.tfstate"), after, time.Time{})
	c.await("state_change", func(message) bool { return true })
	c.send(`{"type":"ping"}`)
	c.await("pong", func(message) bool { return true })
	received = map[string]map[string]any{}
	for _, m := range c.seen {
		received[m.Type] = asMap(t, m)
	}
	if p := received["falco"]["payload"].(map[string]any); p["container_id"] != "abc123" || p["severity"] != "critical" {
		t.Errorf("falco: got %v", p)
	}
	return b, received
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// answered sends a client's message and awaits what belongs to it.
func answered(t *testing.T, c *client, text, kind, topic string) {
	t.Helper()
	c.send(text)
	answers := map[string]string{"subscribe": "subscribed", "unsubscribe": "unsubscribed", "ping": "pong", "query": "query_result"}
	m := c.await("", func(m message) bool { return m.Type == answers[kind] || m.Type == "error" })
	if m.Type == "error" || m.Topic != topic {
		t.Errorf("%s: got %+v", text, m)
	}
}

var alternatives = regexp.MustCompile(`"(type|topic)": ((?:"[a-z_]+" \| )+"[a-z_]+")`)

// grammar holds the two blocks that list alternatives: a client may send every type and topic, and the server every type.
func grammar(t *testing.T, c *client, b block, fromClient []string, received map[string]map[string]any) {
	t.Helper()
	lists := map[string][]string{}
	for _, m := range alternatives.FindAllStringSubmatch(b.text, -1) {
		for word := range strings.SplitSeq(m[2], " | ") {
			lists[m[1]] = append(lists[m[1]], strings.Trim(word, `"`))
		}
	}
	switch b.heading {
	case "Client → Server":
		if d := cmp.Diff(fromClient, lists["type"]); d != "" {
			t.Errorf("types of clients: %s", d)
		}
		for _, topic := range lists["topic"] {
			answered(t, c, `{"type":"subscribe","topic":"`+topic+`"}`, "subscribe", topic)
			answered(t, c, `{"type":"unsubscribe","topic":"`+topic+`","payload":{}}`, "unsubscribe", topic)
		}
		for _, topic := range lists["topic"][1:] { // all is four kinds of things
			answered(t, c, `{"type":"query","payload":{"what":"`+topic+`","filter":{},"limit":10}}`, "query", "")
			answered(t, c, `{"type":"query","topic":"`+topic+`","payload":{}}`, "query", "")
		}
	case "Server → Client":
		if len(lists["type"]) == 0 {
			t.Errorf("no types in %s", b.text)
		}
		for _, kind := range lists["type"] {
			if received[kind] == nil {
				t.Errorf("no message of type %q was received", kind)
			}
		}
	default:
		t.Errorf("%s: a grammar this test knows nothing of", b.heading)
	}
}

// TestTheDocumentsWords holds what the document says outside its blocks: the address, the topics, the heartbeat, and a
// close code for each of its list.
func TestTheDocumentsWords(t *testing.T) {
	text, _ := document(t)
	help, err := exec.Command(binary(t), "run", "--help").CombinedOutput()
	if err != nil || !bytes.Contains(help, []byte("127.0.0.1:8080")) ||
		!strings.Contains(text, "**Endpoint:** `ws://localhost:8080/ws`") {
		t.Errorf("the document's endpoint is another than the bridge's own: %v", err)
	}
	var topics []string
	_, list, _ := strings.Cut(text, "**Available Topics:**")
	list, _, _ = strings.Cut(list, "#")
	for _, m := range regexp.MustCompile("- `([a-z]+)`").FindAllStringSubmatch(list, -1) {
		topics = append(topics, m[1])
	}
	var ours []string
	for _, topic := range wire.Topics {
		ours = append(ours, string(topic))
	}
	if d := cmp.Diff(topics, ours); d != "" {
		t.Errorf("topics: %s", d)
	}
	heartbeat(t)
}

// heartbeat is what the document says of it: a ping every so often, which is to be answered within a time.
func heartbeat(t *testing.T) (every, within time.Duration) {
	t.Helper()
	text, _ := document(t)
	m := regexp.MustCompile(`ping messages every (\d+) seconds. Clients should respond with pong within (\d+) seconds`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("the document says nothing of the heartbeat")
	}
	seconds, _ := strconv.Atoi(m[1])
	more, _ := strconv.Atoi(m[2])
	return time.Duration(seconds) * time.Second, time.Duration(more) * time.Second
}

// TestTheDocumentsCloseCodes brings about each close code that the document lists.
func TestTheDocumentsCloseCodes(t *testing.T) {
	t.Parallel()
	text, _ := document(t)
	_, list, _ := strings.Cut(text, "Standard WebSocket close codes:")
	list, _, _ = strings.Cut(list, "---")
	cases := map[string]func(*bridge, *client){
		"1000": func(_ *bridge, c *client) {
			closing := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
			_ = c.conn.WriteControl(websocket.CloseMessage, closing, time.Now().Add(patience))
		},
		"1001": func(b *bridge, _ *client) { _ = b.command.Process.Signal(syscall.SIGTERM) },
		"1002": func(_ *bridge, c *client) { c.raw([]byte{0x83, 0x80, 0, 0, 0, 0}) }, // opcode 3 is reserved
		"1003": func(_ *bridge, c *client) {
			_ = c.conn.WriteMessage(websocket.BinaryMessage, []byte(`{"type":"ping"}`))
		},
		"1006": func(b *bridge, _ *client) { _ = b.command.Process.Kill() }, // never sent: what a client makes of a lost peer
		"1008": func(_ *bridge, c *client) {
			for range 20_000 { // the limit lets a slow sender go on for a while
				if c.conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"subscribe","topic":"drifts"}`)) != nil {
					return
				}
			}
		},
	}
	listed := regexp.MustCompile("- `(\\d+)`").FindAllStringSubmatch(list, -1)
	if len(listed) != len(cases) {
		t.Errorf("the document lists %d codes, want %d", len(listed), len(cases))
	}
	for _, m := range listed {
		end, have := cases[m[1]]
		if !have {
			t.Errorf("no test for close code %s", m[1])
			continue
		}
		b := start(t, "--falco-http", "127.0.0.1:0")
		c := b.watch()
		end(b, c)
		if want, _ := strconv.Atoi(m[1]); c.closeCode() != want {
			t.Errorf("want close code %d, got another", want)
		}
	}
}

func (c *client) raw(frame []byte) {
	c.t.Helper()
	if _, err := c.conn.NetConn().Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// closeCode reads to the end and gives the code, 1006 for an end without one.
func (c *client) closeCode() int {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, _, err := c.conn.ReadMessage()
		if err == nil {
			continue
		}
		if e, ok := err.(*websocket.CloseError); ok { //nolint:errorlint // gorilla gives it bare
			return e.Code
		}
		if e, ok := err.(net.Error); ok && e.Timeout() { //nolint:errorlint // as is
			c.t.Errorf("the connection does not end: %v", err)
			return 0
		}
		return websocket.CloseAbnormalClosure
	}
}
