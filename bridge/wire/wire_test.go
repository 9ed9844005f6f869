package wire_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var (
	happened = wire.At(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC))
	sent     = wire.At(time.Date(2026, 11, 20, 10, 0, 1, 234e6, time.FixedZone("CET", 3600)))
)

var (
	actor = wire.Actor{
		Name: "john.doe@example.com", Type: "AssumedRole", ARN: "arn:aws:sts::123456789012:assumed-role/admin/john.doe@example.com",
		Account: "123456789012", Principal: "AROAEXAMPLE:john.doe@example.com", Role: "arn:aws:iam::123456789012:role/admin",
		SourceIdentity: "john", Tool: "console", UserAgent: "Mozilla/5.0", InvokedBy: "cloudformation.amazonaws.com",
	}
	source = wire.Source{
		ID: "3038ebd2-c98a-4c65-9b6e-e22506292313", Name: "CreatePolicyVersion", Source: "iam.amazonaws.com", Time: happened,
		Region: "us-east-1", Account: "123456789012", Address: "192.0.2.7", Error: "",
	}
	state = wire.StateRef{URI: "file:///srv/states/prod.tfstate", Serial: 42, Lineage: "0f9c1a", Written: happened}
)

// messages has each kind of message once, with every member set.
var messages = map[string]wire.Message{
	"drift": {
		ID: wire.ID{Millis: 1763632801234}, Type: wire.TypeDrift, Topic: wire.TopicDrifts, Timestamp: happened,
		Payload: wire.Drift{
			Severity: "critical", ResourceType: "aws_iam_policy", ResourceID: "ANPAI23HZ27SI6FQMGNQ2",
			OldValue: "arn:old", NewValue: `{"a":[1,"<&>"]}`, User: "john.doe@example.com",
			DriftID: "5d1c0ffee", Status: "open", Verdict: wire.VerdictDrift, Precision: wire.Exact,
			Address: `module.iam["x"].aws_iam_policy.example`, Attribute: "policy",
			Change: &wire.Change{
				Attribute: "policy", Old: jsontext.Value(`"arn:old"`), New: jsontext.Value(`{"a":[1,"<&>"]}`),
				OldKnown: true, NewKnown: true, Sensitive: true,
			},
			Actor: actor, Event: source, State: state, Rule: "IAM Policy Changed", Also: []string{"file:///srv/states/copy.tfstate"},
		},
	},
	"falco": {
		ID: wire.ID{Millis: 1763632801234, N: 1}, Type: wire.TypeFalco, Topic: wire.TopicEvents, Timestamp: happened,
		Payload: wire.Falco{
			Severity: "critical", Rule: "Unauthorized Process Execution", Output: "10:00:00 a process", ContainerID: "abc123",
			Priority: "critical", Source: "syscall", Hostname: "node-1", Tags: []string{"process"}, EventID: "3038ebd2",
		},
	},
	"event": {
		ID: wire.ID{Millis: 1763632801234, N: 2}, Type: wire.TypeEvent, Topic: wire.TopicEvents, Timestamp: happened,
		Payload: wire.Event{
			Verdict: wire.VerdictAttempted, Severity: "medium", Precision: wire.Touched, Address: "aws_iam_policy.example",
			ResourceType: "aws_iam_policy", ResourceID: "ANPAI23HZ27SI6FQMGNQ2", User: "john.doe@example.com", Actor: actor,
			Event: wire.Source{ID: "x", Name: "DeletePolicy", Source: "iam.amazonaws.com", Region: "us-east-1", Account: "123456789012", Error: "AccessDenied"},
			State: &state, Rule: "IAM Policy Changed",
		},
	},
	"state_change": {
		ID: wire.ID{Millis: 1763632801235}, Type: wire.TypeStateChange, Topic: wire.TopicState, Timestamp: happened,
		Payload: wire.StateChange{
			Resource: "aws_iam_policy.example", Action: "modified", Serial: 43, Previous: 42, ChangeID: "c0ffee",
			State: state.URI, Lineage: state.Lineage, ResourceType: "aws_iam_policy", ResourceID: "ANPAI23HZ27SI6FQMGNQ2",
			PreviousAddress: "aws_iam_policy.before", Written: happened,
			Attributes: []wire.Change{{Attribute: "path", Old: jsontext.Value("null"), New: jsontext.Value(`"/"`), OldKnown: true, NewKnown: true}},
		},
	},
	"stats": {
		Type: wire.TypeStats, Topic: wire.TopicStats, Timestamp: sent,
		Payload: wire.Stats{
			Epoch: "EPOCH", UptimeSeconds: 60, Clients: 2, OpenDrifts: 3, Messages: map[string]int64{"drift": 3, "falco": 1},
			Alerts: 4, Pending: 1, States: 1, Resources: 17, BlindSpots: map[string]int64{"ec2.amazonaws.com:X": 2},
		},
	},
	"welcome": {
		Type: wire.TypeWelcome, Timestamp: sent,
		Payload: wire.Welcome{
			Message: wire.WelcomeMessage, ClientID: "2f1a5c52-6a8f-4d5c-8a3e-3f1a0e7f9d11", Epoch: "EPOCH",
			Cursor: wire.ID{Millis: 1763632801235}, Version: wire.Version,
		},
	},
	"pong":         {Type: wire.TypePong, Timestamp: sent},
	"subscribed":   {Type: wire.TypeSubscribed, Topic: wire.TopicAll, Timestamp: sent},
	"unsubscribed": {Type: wire.TypeUnsubscribed, Topic: wire.TopicDrifts, Timestamp: sent},
	"gap": {
		Type: wire.TypeGap, Timestamp: sent,
		Payload: wire.Gap{Reason: "retention", From: wire.ID{Millis: 1}, To: wire.ID{Millis: 2, N: 7}, Lost: -1},
	},
	"error": {Type: wire.TypeError, Timestamp: sent, Message: `unknown topic "x": want one of all, drifts, events, state, stats`},
	"query_result": {
		Type: wire.TypeQueryResult, Timestamp: sent,
		Payload: wire.QueryResult{
			What: wire.TopicState, Items: []jsontext.Value{jsontext.Value(`{"uri":"file:///a"}`)}, Next: "file:///a",
		},
	},
	"replayed": {
		ID: wire.ID{Millis: 1}, Type: wire.TypeFalco, Topic: wire.TopicEvents, Payload: wire.Falco{}, Replayed: true,
	},
}

// documents are what REST answers beside messages.
var documents = map[string]any{
	"list":  wire.List{Items: []jsontext.Value{jsontext.Value(`{"type":"drift"}`)}, Next: "5-1"},
	"state": wire.State{URI: state.URI, Serial: 42, Lineage: "0f9c1a", Terraform: "1.14.0", Resources: 17, Written: happened, Read: sent, Fault: "gone"},
	"ready": wire.Ready{Checks: map[string]wire.Check{
		"falco": {Degraded: true, Reason: "not connected"}, "journal": {Reason: "no space left"}, "states": {OK: true},
	}},
}

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		text := jsontext.Value(append([]byte(nil), got...))
		if err := text.Indent(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// compact is the text without its white space, for which alone a golden may differ.
func compact(t *testing.T, text []byte) string {
	t.Helper()
	v := jsontext.Value(append([]byte(nil), text...))
	if err := v.Compact(); err != nil {
		t.Fatal(err)
	}
	return string(v)
}

func TestEncodeIsAsInTheGoldenFiles(t *testing.T) {
	for name, m := range messages {
		got, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(string(got), "\n\r") {
			t.Errorf("%s: more than one line: %s", name, got)
		}
		if d := cmp.Diff(compact(t, golden(t, name, got)), string(got)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for name, document := range documents {
		got, err := json.Marshal(document, json.Deterministic(true))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(compact(t, golden(t, name, got)), string(got)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Every type has a golden file, so that a new one cannot be forgotten.
func TestEveryTypeHasAGoldenFile(t *testing.T) {
	text, err := os.ReadFile("wire.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[1] != "Type" || fields[2] != "=" {
			continue
		}
		found++
		if _, have := messages[strings.Trim(fields[3], `"`)]; !have {
			t.Errorf("no golden message of type %s", fields[3])
		}
	}
	if found < 12 {
		t.Errorf("found %d types in wire.go", found)
	}
}

// What the protocol's document shows of the server, the golden messages have: the same members, of the same JSON types.
func TestGoldensHaveWhatTheDocumentShows(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "websocket-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for i, block := range strings.Split(string(text), "```") {
		example, isJSON := strings.CutPrefix(block, "json\n")
		if i%2 == 0 || !isJSON {
			continue
		}
		var want map[string]any
		if json.Unmarshal([]byte(example), &want) != nil {
			continue // the two that describe a grammar
		}
		name, _ := want["type"].(string)
		m, ours := messages[name]
		if !ours {
			continue // what a client sends
		}
		shown[name] = true
		encoded, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatal(err)
		}
		same(t, name, want, got)
	}
	want := map[string]bool{"pong": true, "welcome": true, "drift": true, "falco": true, "state_change": true}
	if d := cmp.Diff(want, shown); d != "" {
		t.Errorf("examples of the document: %s", d)
	}
}

// literal names the members whose value is part of the protocol.
var literal = map[string]bool{"type": true, "topic": true, "message": true}

func same(t *testing.T, path string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s: got %T, want an object", path, got)
			return
		}
		for name, w := range want {
			g, have := object[name]
			if !have {
				t.Errorf("%s.%s is missing", path, name)
				continue
			}
			if literal[name] && g != w {
				t.Errorf("%s.%s: got %v, want %v", path, name, g, w)
			}
			same(t, path+"."+name, w, g)
		}
	case string:
		if _, ok := got.(string); !ok {
			t.Errorf("%s: got %T, want a string", path, got)
		}
		if _, err := time.Parse(time.RFC3339, want); err == nil {
			if _, err := time.Parse(time.RFC3339, got.(string)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	case float64:
		if _, ok := got.(float64); !ok {
			t.Errorf("%s: got %T, want a number", path, got)
		}
	default:
		t.Errorf("%s: the example has a %T, of which this test knows nothing", path, want)
	}
}

func TestEncodeRefusesWhatIsNoPayload(t *testing.T) {
	if got, err := wire.Encode(wire.Message{Type: wire.TypeDrift, Payload: make(chan int)}); err == nil {
		t.Errorf("got %s", got)
	}
}

func TestIDsCompareAsNumbers(t *testing.T) {
	ordered := []string{"0-0", "0-1", "9-0", "10-0", "10-9", "10-10", "18446744073709551615-18446744073709551615"}
	for i, a := range ordered {
		for k, b := range ordered {
			x, err := wire.ParseID(a)
			if err != nil {
				t.Fatal(err)
			}
			y, err := wire.ParseID(b)
			if err != nil {
				t.Fatal(err)
			}
			want := min(max(i-k, -1), 1)
			if got := x.Compare(y); got != want {
				t.Errorf("%s against %s: got %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestTimeIsUTCWithMilliseconds(t *testing.T) {
	text, err := sent.MarshalText()
	if err != nil || string(text) != "2026-11-20T09:00:01.234Z" {
		t.Errorf("got %s, %v", text, err)
	}
	var back wire.Time
	if err := back.UnmarshalText([]byte("2026-11-20T10:00:01.2349+01:00")); err != nil || back != sent {
		t.Errorf("got %v, %v, want %v", back, err, sent)
	}
	if !wire.At(time.Time{}).IsZero() {
		t.Error("the zero time does not stay zero")
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{"0-0", "1763640000000-12", "-", "1-", "+1-0", "01-1", "18446744073709551616-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := wire.ParseID(text)
		if err != nil {
			return
		}
		if again, err := wire.ParseID(id.String()); err != nil || again != id {
			t.Errorf("%q: %v becomes %v, %v", text, id, again, err)
		}
	})
}
