package e2e_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDemo is what `make run` promises: a client subscribed to all sees a drift, an alert and a state change, each marked
// as replayed, and each with the document's keys.
func TestDemo(t *testing.T) {
	b := start(t, "--demo")
	c := b.watch("all")
	want := seedMessages(t)
	for _, kind := range []string{"drift", "falco", "state_change"} {
		seen := func(m message) bool { return true }
		m, known := c.find(kind)
		if !known {
			m = c.await(kind, seen)
		}
		sameKeys(t, kind, want[kind], asMap(t, m))
	}
	sameKeys(t, "welcome", want["welcome"], asMap(t, c.seen[0]))
	for _, m := range c.seen {
		if journalled := m.ID != ""; journalled && !m.Replayed {
			t.Errorf("%s %s is not marked as replayed", m.Type, m.ID)
		}
	}
	c.once()
	if page := string(b.get("/")); !strings.Contains(strings.ToLower(page), "demo") {
		t.Error("the page does not speak of the demo")
	}
}

func (c *client) find(kind string) (message, bool) {
	for _, m := range c.seen {
		if m.Type == kind {
			return m, true
		}
	}
	return message{}, false
}

func asMap(t *testing.T, m message) map[string]any {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// seedMessages are the server's messages in the protocol document, by type.
func seedMessages(t *testing.T) map[string]map[string]any {
	t.Helper()
	_, blocks := document(t)
	all := map[string]map[string]any{}
	for _, block := range blocks {
		var m map[string]any
		if block.language != "json" || json.Unmarshal([]byte(block.text), &m) != nil { // the two grammars are no JSON
			continue
		}
		if kind, ok := m["type"].(string); ok {
			all[kind] = m
		}
	}
	for _, kind := range []string{"welcome", "pong", "drift", "falco", "state_change"} {
		if all[kind] == nil {
			t.Fatalf("the document has no example of %q", kind)
		}
	}
	return all
}

// sameKeys fails for every key of the document's example that the message lacks or has with another type.
func sameKeys(t *testing.T, at string, want, got map[string]any) {
	t.Helper()
	for key, example := range want {
		value, there := got[key]
		if !there {
			t.Errorf("%s: no %q in %v", at, key, got)
			continue
		}
		switch example := example.(type) {
		case map[string]any:
			inner, ok := value.(map[string]any)
			if !ok {
				t.Errorf("%s.%s: got %T, want an object", at, key, value)
				continue
			}
			sameKeys(t, at+"."+key, example, inner)
		case string:
			if _, ok := value.(string); !ok {
				t.Errorf("%s.%s: got %T, want a string", at, key, value)
			}
		case float64:
			if _, ok := value.(float64); !ok {
				t.Errorf("%s.%s: got %T, want a number", at, key, value)
			}
		}
	}
}

// TestDocumentsJavaScript runs the document's own JavaScript, unchanged, with the npm package ws against the demo.
func TestDocumentsJavaScript(t *testing.T) {
	b := start(t, "--demo")
	node := exec.Command("node", "sample.mjs")
	node.Dir, node.Env = "ws", append(os.Environ(), "TFDRIFT_WS=ws://"+b.feed+"/ws")
	out, err := node.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
