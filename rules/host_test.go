package rules_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
)

var update = flag.Bool("update", false, "write the outputs of testdata/*.txtar anew")

// fixture is one of testdata/*.txtar: a rule, the states it is asked beside, and the events that match it or do not.
type fixture struct {
	path    string
	archive *txtar.Archive
	rule    string
	match   []byte
	miss    []byte
	output  string
	records string // folder with both, the matching first
	states  string // folder, "" without states
	init    string
}

func readFixture(t *testing.T, path string) fixture {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := fixture{path: path, archive: a, records: filepath.Join(dir, "records"), init: "{}"}
	keyFile := ""
	for _, file := range a.Files {
		switch name, isState := strings.CutPrefix(file.Name, "states/"); {
		case isState:
			f.states = filepath.Join(dir, "states")
			put(t, filepath.Join(f.states, name), file.Data)
			// Written before any of the records: only then the old values are known.
			if err := os.Chtimes(filepath.Join(f.states, name), time.Time{}, time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
				t.Fatal(err)
			}
		case file.Name == "rule":
			f.rule = strings.TrimSpace(string(file.Data))
		case file.Name == "match.jsonl":
			f.match = file.Data
		case file.Name == "miss.jsonl":
			f.miss = file.Data
		case file.Name == "key":
			keyFile = filepath.Join(dir, "key")
			put(t, keyFile, file.Data)
		case file.Name == "output":
			f.output = string(file.Data)
		default:
			t.Fatalf("%s has a file %q", path, file.Name)
		}
	}
	if f.states != "" {
		f.init = initConfigWith(t, keyFile, f.states)
	}
	put(t, filepath.Join(f.records, "1-match.jsonl"), f.match)
	put(t, filepath.Join(f.records, "2-miss.jsonl"), f.miss)
	return f
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func initConfig(t *testing.T, states ...string) string {
	t.Helper()
	return initConfigWith(t, "", states...)
}

// initConfigWith has sensitive values hashed under the key in a file; "" masks them without a hash.
func initConfigWith(t *testing.T, keyFile string, states ...string) string {
	t.Helper()
	config := map[string]any{"states": states}
	if keyFile != "" {
		config["sensitive_key_file"] = keyFile
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func ruleNamed(t *testing.T, f *host.RulesFile, name string) host.Rule {
	t.Helper()
	i := slices.IndexFunc(f.Rules, func(r host.Rule) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("no rule %q", name)
	}
	return f.Rules[i]
}

// numbers asks the host which events the filter lets through, by their place in the feed, which starts at 1.
func numbers(t *testing.T, h *host.Host, q host.Query) []int {
	t.Helper()
	q.Format = "%evt.num"
	lines, err := h.Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	places := make([]int, len(lines))
	for i, line := range lines {
		if places[i], err = strconv.Atoi(line); err != nil {
			t.Fatalf("filter %q: the host printed %q", q.Filter, line)
		}
	}
	return places
}

func upTo(n int) []int {
	var all []int
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// TestRulesMatch runs each rule over events that must match and events that must not, and compares its output.
func TestRulesMatch(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	file, tested := ours(t), map[string]bool{"Terraform State Rewound": true, "Terraform State Change": true} // by TestStateRules
	for _, path := range paths {
		f := readFixture(t, path)
		tested[f.rule] = true
		t.Run(f.rule, func(t *testing.T) {
			checkFixture(t, h, f, ruleNamed(t, file, f.rule))
			checkOrder(t, h, f, file)
		})
	}
	for _, r := range file.Rules {
		if !tested[r.Name] {
			t.Errorf("rule %q has no fixture", r.Name)
		}
	}
}

func checkFixture(t *testing.T, h *host.Host, f fixture, r host.Rule) {
	query := host.Query{Init: f.init, Records: f.records, Filter: r.Filter}
	hits, misses := bytes.Count(f.match, []byte("\n")), bytes.Count(f.miss, []byte("\n"))
	if hits == 0 || misses == 0 {
		t.Fatalf("%s: %d events match and %d do not: want some of each", f.path, hits, misses)
	}
	everything := query
	everything.Filter = ""
	if got := numbers(t, h, everything); len(got) != hits+misses {
		t.Fatalf("%s has %d events, the host saw %d", f.path, hits+misses, len(got))
	}
	if diff := cmp.Diff(upTo(hits), numbers(t, h, query)); diff != "" {
		t.Errorf("%s: events that match (-want +got):\n%s", f.path, diff)
	}
	query.Format = strings.TrimSpace(r.Output)
	lines, err := h.Run(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(lines, "\n") + "\n"
	if f.states != "" {
		got = strings.ReplaceAll(got, f.states, "/states")
	}
	if *update {
		f.write(t, got)
		return
	}
	if diff := cmp.Diff(f.output, got); diff != "" {
		t.Errorf("%s: output (-want +got):\n%s", f.path, diff)
	}
}

// checkOrder: under rule_matching first, a rule does not get what a rule before it matches. The last one takes the rest, and
// its fixture is of all kinds.
func checkOrder(t *testing.T, h *host.Host, f fixture, file *host.RulesFile) {
	t.Helper()
	place := slices.IndexFunc(file.Rules, func(r host.Rule) bool { return r.Name == f.rule })
	if place == 0 || place == len(file.Rules)-1 {
		return
	}
	var before []string
	for _, r := range file.Rules[:place] {
		before = append(before, "("+r.Filter+")")
	}
	hits := bytes.Count(f.match, []byte("\n"))
	for _, n := range numbers(t, h, host.Query{Init: f.init, Records: f.records, Filter: strings.Join(before, " or ")}) {
		if n <= hits {
			t.Errorf("%s: a rule that stands before takes event %d", f.path, n)
		}
	}
}

func (f fixture) write(t *testing.T, output string) {
	t.Helper()
	for i := range f.archive.Files {
		if f.archive.Files[i].Name == "output" {
			f.archive.Files[i].Data = []byte(output)
		}
	}
	if err := os.WriteFile(f.path, txtar.Format(f.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

// state is a small state of format 4 with one resource for each name and value.
func state(lineage string, serial int, values ...string) []byte {
	var resources []string
	for _, v := range values {
		name, value, _ := strings.Cut(v, "=")
		resources = append(resources, fmt.Sprintf(`{"mode":"managed","type":"terraform_data","name":%q,
"provider":"provider[\"terraform.io/builtin/terraform\"]","instances":[{"schema_version":0,"attributes":{"id":"id-%s","input":%q}}]}`, name, name, value))
	}
	return fmt.Appendf(nil, `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"outputs":{},"resources":[%s]}`,
		serial, lineage, strings.Join(resources, ","))
}

// TestStateRules changes a state under the running host and asks for the first event that one rule matches and no other
// rule of the file does: so the event proves both.
func TestStateRules(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	before := state("11111111-0000-4000-8000-000000000001", 7, "a=1", "b=1")
	for _, c := range []struct {
		name, rule, action string
		after              []byte
		want               string
	}{
		{"changed", "Terraform State Change", "modified", state("11111111-0000-4000-8000-000000000001", 8, "a=2", "b=1"),
			"Terraform state changed (action=modified resource=terraform_data.a previous_address=<NA> attributes=(input) state=STATE serial=8 previous=7)"},
		{"deleted", "Terraform State Change", "deleted", state("11111111-0000-4000-8000-000000000001", 8, "a=1"), ""},
		{"created", "Terraform State Change", "created", state("11111111-0000-4000-8000-000000000001", 8, "a=1", "b=1", "c=1"), ""},
		{"backwards", "Terraform State Rewound", "serial_backwards", state("11111111-0000-4000-8000-000000000001", 6, "a=0", "b=1"), ""},
		{"other lineage", "Terraform State Rewound", "lineage_changed", state("22222222-0000-4000-8000-000000000002", 9, "a=1", "b=1"), ""},
		{"same serial", "Terraform State Rewound", "same_serial", state("11111111-0000-4000-8000-000000000001", 7, "a=3", "b=1"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			filter := only(t, ours(t), c.rule) + " and tf.action = " + c.action
			got, uri := firstAfter(t, h, filter, ruleNamed(t, ours(t), c.rule).Output, before, c.after)
			if !strings.Contains(got, "="+c.action+" ") {
				t.Errorf("got %q, want the action %s", got, c.action)
			}
			if want := strings.ReplaceAll(c.want, "STATE", uri); want != "" && got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// only is a filter for what one rule matches and no other does.
func only(t *testing.T, file *host.RulesFile, rule string) string {
	t.Helper()
	filter := "(" + ruleNamed(t, file, rule).Filter + ")"
	for _, r := range file.Rules {
		if r.Name != rule {
			filter += " and not (" + r.Filter + ")"
		}
	}
	return filter
}

// patience bounds the wait for something that must happen.
const patience = 60 * time.Second

// firstAfter starts the host over a state and, once it has read that, writes the state anew: a record shows that it has, as
// records come after the states. It gives the first line printed then, and the state's URI.
func firstAfter(t *testing.T, h *host.Host, filter, format string, before, after []byte) (line, uri string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "prod.tfstate")
	put(t, path, before)
	put(t, filepath.Join(dir, "records", "ready.json"), []byte(`{"eventName":"Ready","eventType":"AwsApiCall","eventSource":"ready"}`))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ready := false
	err := h.Watch(ctx, host.Query{
		Init: initConfig(t, path), Records: "file://" + filepath.Join(dir, "records") + "?watch=true",
		Filter: "ct.src = ready or (" + filter + ")", Format: strings.TrimSpace(format),
	}, func(printed string) bool {
		if !ready {
			ready = true
			put(t, path, after)
			return true
		}
		line = printed
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	return line, "file://" + path
}
