package rules_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// shared is a folder of recorded data beside the project, which a user's clone does not have.
const shared = "../../shared/data"

func hasShared(t *testing.T) bool {
	t.Helper()
	_, err := os.Stat(shared)
	switch {
	case err == nil:
		return true
	case os.Getenv("CI") != "":
		t.Fatal(err)
	}
	t.Logf("no recorded data here: %v", err)
	return false
}

// placed is a record with the folder it lies in.
type placed struct {
	*trail.Record
	folder string
}

// recorded reads all records in the order in which the plugin reads the folder: by path, so folder by folder.
func recorded(t *testing.T, dir string) []placed {
	t.Helper()
	folders, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []placed
	for _, folder := range folders {
		records, err := feed.Open(filepath.Join(dir, folder.Name()), feed.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := records.Run(t.Context(), func(text []byte) error {
			rec, err := trail.Decode(slices.Clone(text))
			all = append(all, placed{rec, folder.Name()})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestEachRecordGivesOneAlert runs every rule over every recorded event: under rule_matching first a record gives exactly
// one alert if at least one rule matches it. Events are told by their place in the feed, as ids repeat in the data.
func TestEachRecordGivesOneAlert(t *testing.T) {
	h, ok := host.Find(t)
	if !ok || !hasShared(t) {
		return
	}
	dir := filepath.Join(shared, "cloudtrail")
	records := recorded(t, dir)
	state := filepath.Join(t.TempDir(), "made.tfstate")
	put(t, state, managing(t, records))
	query := host.Query{Records: dir, Init: initConfig(t, filepath.Join(shared, "tfstate"), state)}
	samePlaces(t, h, query, records)
	for path, want := range map[string]int{"tfdrift_rules.yaml": 17, official: 1} {
		t.Run(path, func(t *testing.T) { checkAlerts(t, h, query, records, read(t, readFile(t, path)), want) })
	}
}

// managing makes a state that holds resources which the recorded calls name, so that the rules about managed resources have
// something to say beside the others.
func managing(t *testing.T, records []placed) []byte {
	t.Helper()
	types := []struct{ member, resource, attribute string }{
		{"bucketName", "aws_s3_bucket", "bucket"}, {"groupId", "aws_security_group", "name"}, {"userName", "aws_iam_user", "name"},
	}
	var resources []map[string]any
	known := map[string]bool{}
	for _, rec := range records {
		for _, ty := range types {
			v, _ := trail.Member(rec.Request, ty.member)
			id := trail.Text(v)
			if id == "" || known[ty.resource+id] || !rec.Mutating() {
				continue
			}
			known[ty.resource+id] = true
			resources = append(resources, map[string]any{
				"mode": "managed", "type": ty.resource, "name": "r" + strconv.Itoa(len(resources)),
				"provider":  `provider["registry.terraform.io/hashicorp/aws"]`,
				"instances": []any{map[string]any{"schema_version": 0, "attributes": map[string]any{"id": id, ty.attribute: id}}},
			})
		}
	}
	text, err := json.Marshal(map[string]any{
		"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "33333333-0000-4000-8000-000000000003",
		"outputs": map[string]any{}, "resources": resources,
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// samePlaces makes sure that the host sees the same events in the same order.
func samePlaces(t *testing.T, h *host.Host, q host.Query, records []placed) {
	t.Helper()
	q.Format = "%evt.num %ct.id %ct.src"
	lines, err := h.Run(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != len(records) {
		t.Fatalf("the host saw %d events of %d records", len(lines), len(records))
	}
	for i, line := range lines {
		id, source := orNA(records[i].EventID), orNA(records[i].EventSource)
		if want := strings.Join([]string{strconv.Itoa(i + 1), id, source}, " "); line != want {
			t.Fatalf("event %d is %q, want %q", i+1, line, want)
		}
	}
}

// orNA is how the host prints a field without a value.
func orNA(s string) string {
	if s == "" {
		return "<NA>"
	}
	return s
}

// checkAlerts asks the host for each rule's events. reached is how many rules should give an alert at least.
func checkAlerts(t *testing.T, h *host.Host, q host.Query, records []placed, file *host.RulesFile, reached int) {
	first := make([]int, len(records)) // which rule alerts, 0 none, else its number from 1
	for i, r := range file.Rules {
		q.Filter = r.Filter
		for _, place := range numbers(t, h, q) {
			if first[place-1] == 0 {
				first[place-1] = i + 1
			}
		}
	}
	counts := map[string]map[string]int{}
	for i, rec := range records {
		switch alerts := first[i] > 0; {
		case rec.Mutating() && !alerts:
			t.Errorf("event %d of %s, %s %s, changes something and no rule matches it", i+1, rec.folder, rec.EventSource, rec.EventName)
		case !rec.Mutating() && alerts:
			t.Errorf("event %d of %s, %s %s, only reads, and rule %q matches it", i+1, rec.folder, rec.EventSource, rec.EventName, file.Rules[first[i]-1].Name)
		}
		name := "(none)"
		if first[i] > 0 {
			name = file.Rules[first[i]-1].Name
		}
		if counts[rec.folder] == nil {
			counts[rec.folder] = map[string]int{}
		}
		counts[rec.folder][name]++
	}
	logCounts(t, counts)
	rules := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(first))), func(n int) bool { return n == 0 })
	if len(rules) < reached {
		t.Errorf("the recorded events reach %d rules, want %d", len(rules), reached)
	}
}

func logCounts(t *testing.T, counts map[string]map[string]int) {
	t.Helper()
	for _, folder := range slices.Sorted(maps.Keys(counts)) {
		var parts []string
		for _, rule := range slices.Sorted(maps.Keys(counts[folder])) {
			parts = append(parts, rule+" "+strconv.Itoa(counts[folder][rule]))
		}
		t.Logf("%s: %s", folder, strings.Join(parts, ", "))
	}
}

// harmless calls are marked as changes and change nothing that Terraform could manage.
var harmless = map[call]string{
	{"signin.amazonaws.com", "GetSigninToken"}: "makes a token for the console",
}

// call is an API operation as records name it.
type call struct{ source, name string }

// TestUnmarkedCalls asks others about the records that do not say whether they change something: the table of AWS's
// mutating operations, and records of the same call that do say. What they know as a change must not be taken for
// reading, as it would be lost. The other way round is only counted: it costs an alert too many.
func TestUnmarkedCalls(t *testing.T) {
	if !hasShared(t) {
		return
	}
	records, mutating := recorded(t, filepath.Join(shared, "cloudtrail")), mutatingOperations(t)
	marked := map[call]map[bool]bool{}
	for _, rec := range records {
		if rec.ReadOnly != nil {
			c := call{rec.EventSource, rec.Action()}
			if marked[c] == nil {
				marked[c] = map[bool]bool{}
			}
			marked[c][*rec.ReadOnly] = true
		}
	}
	unmarked, checked, cautious := 0, 0, map[call]bool{}
	for _, rec := range records {
		if rec.ReadOnly != nil {
			continue
		}
		unmarked++
		c := call{rec.EventSource, rec.Action()}
		changes, reads := mutating[c] || marked[c][false], marked[c][true] && !marked[c][false]
		if changes || reads {
			checked++
		}
		if changes && !rec.Mutating() && harmless[c] == "" {
			t.Errorf("%s %s is a change elsewhere and is taken for reading", c.source, c.name)
		}
		if reads && !mutating[c] && rec.Mutating() {
			cautious[c] = true
		}
	}
	if unmarked == 0 || checked == 0 {
		t.Errorf("%d records do not say, %d of them are known elsewhere: want some of both", unmarked, checked)
	}
	t.Logf("%d records of %d do not say whether they change something, %d of these calls are known elsewhere; taken for changes although they read: %v",
		unmarked, len(records), checked, slices.Collect(maps.Keys(cautious)))
}

func mutatingOperations(t *testing.T) map[call]bool {
	t.Helper()
	file, err := os.Open(filepath.Join(shared, "aws", "api-operations.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines, all := bufio.NewScanner(text), map[call]bool{}
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row struct {
			Source    string   `json:"event_source"`
			Operation string   `json:"operation"`
			Aliases   []string `json:"event_aliases"`
			Mutating  bool     `json:"mutating"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		for _, name := range append(row.Aliases, row.Operation) {
			all[call{row.Source, name}] = row.Mutating
		}
	}
	if err := lines.Err(); err != nil || len(all) == 0 {
		t.Fatalf("read operations: %d, %v", len(all), err)
	}
	return all
}
