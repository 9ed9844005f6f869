package wire_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Every filter compares a member that an item has, as its golden message shows.
func TestFiltersCompareMembersThatAre(t *testing.T) {
	state, err := json.Marshal(documents["state"])
	if err != nil {
		t.Fatal(err)
	}
	items := map[wire.Topic][][]byte{wire.TopicState: {state}}
	for topic, kinds := range map[wire.Topic][]string{
		wire.TopicDrifts: {"drift"}, wire.TopicEvents: {"falco", "event"},
	} {
		for _, kind := range kinds {
			body, err := wire.Encode(messages[kind])
			if err != nil {
				t.Fatal(err)
			}
			items[topic] = append(items[topic], body)
		}
	}
	for topic, bodies := range items {
		names := wire.FilterNames(topic)
		if len(names) == 0 || !slices.IsSorted(names) {
			t.Errorf("%s: names %v", topic, names)
		}
		for _, name := range names {
			place := wire.FilterPlace(topic, name)
			if !slices.ContainsFunc(bodies, func(body []byte) bool { return hasText(t, body, place) }) {
				t.Errorf("%s: no item has a text at %q, which %q compares", topic, place, name)
			}
		}
	}
}

func hasText(t *testing.T, body []byte, place string) bool {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(place, ".") {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	_, is := v.(string)
	return is
}

func TestParseCursor(t *testing.T) {
	id := wire.ID{Millis: 12, N: 3}
	for text, want := range map[string]wire.Cursor{"12-3": {ID: id}, "EPOCH/12-3": {Epoch: "EPOCH", ID: id}} {
		got, err := wire.ParseCursor(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/", "/12-3", "E/", "E/12", "E/F/12-3", "12"} {
		if got, err := wire.ParseCursor(text); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

// TestTheReadmeNamesTheFilters: what people read is what there is.
func TestTheReadmeNamesTheFilters(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []wire.Topic{wire.TopicDrifts, wire.TopicEvents, wire.TopicState} {
		if want := fmt.Sprintf("| `%s` | `%s` |", what, strings.Join(wire.FilterNames(what), " ")); !strings.Contains(string(text), want) {
			t.Errorf("the README lacks the line %s", want)
		}
	}
}
