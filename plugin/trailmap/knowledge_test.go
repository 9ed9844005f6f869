package trailmap_test

import (
	"bufio"
	"compress/gzip"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// entries are the knowledge files' own lines, read without the package under test.
func entries(t *testing.T) map[string][]map[string]any {
	t.Helper()
	files, err := filepath.Glob("aws/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no knowledge: %v", err)
	}
	all := map[string][]map[string]any{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var document struct{ Entries []map[string]any }
		if err := json.Unmarshal(text, &document, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all[path] = document.Entries
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, `"source":`) && !jsontext.Value(strings.TrimSuffix(line, ",")).IsValid() {
				t.Errorf("%s: a line is not one entry: %.80s", path, line)
			}
		}
	}
	return all
}

// TestEntriesAreSortedAndSaid: one entry a line, sorted by source and event, each with where its facts come from.
func TestEntriesAreSortedAndSaid(t *testing.T) {
	for path, list := range entries(t) {
		var keys []string
		for _, e := range list {
			source, _ := e["source"].(string)
			event, _ := e["event"].(string)
			keys = append(keys, source+" "+event)
			if evidence, _ := e["evidence"].(string); !strings.HasPrefix(evidence, "https://") {
				t.Errorf("%s: %s %s has no evidence", path, source, event)
			}
			if r := (trail.Record{EventName: event}); r.Action() != event {
				t.Errorf("%s: %s is not an operation's name: %s", path, event, r.Action())
			}
		}
		if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
			t.Errorf("%s: not sorted, or twice: %v", path, keys)
		}
	}
}

// TestAttributesAreTheProviders: every type and attribute named stands in the provider's schema.
func TestAttributesAreTheProviders(t *testing.T) {
	schema := providerSchema(t)
	if schema == nil {
		return
	}
	for path, list := range entries(t) {
		for _, e := range list {
			shapes, _ := e["shapes"].([]any)
			for _, s := range shapes {
				shape, _ := s.(map[string]any)
				typ, _ := shape["type"].(string)
				if typ == "" {
					if shape["effect"] == "delete" {
						t.Errorf("%s: %s deletes whatever has the name", path, e["event"])
					}
					continue // whatever the identifier names
				}
				attributes, known := schema[typ]
				if !known {
					t.Errorf("%s: %s: the provider has no type %q", path, e["event"], typ)
					continue
				}
				for _, name := range named(shape) {
					if !attributes[index.ReplaceAllString(name, "")] {
						t.Errorf("%s: %s: %s has no attribute %q", path, e["event"], typ, name)
					}
				}
				for _, block := range blocks(shape) {
					within := func(path string) bool {
						return strings.HasPrefix(path, block[0]+".") && strings.HasSuffix(path, "."+block[1])
					}
					if !slices.ContainsFunc(slices.Collect(maps.Keys(attributes)), within) {
						t.Errorf("%s: %s: %s has no attribute %q within %q", path, e["event"], typ, block[1], block[0])
					}
				}
			}
		}
	}
}

// index is a place in a list.
var index = regexp.MustCompile(`\[\d+\]`)

// named are the attributes that a shape speaks of.
func named(shape map[string]any) []string {
	var names []string
	list, _ := shape["list"].(string)
	if list != "" {
		names, list = append(names, list), list+"."
	}
	for _, member := range []string{"columns", "self"} {
		columns, _ := shape[member].(map[string]any)
		for _, attribute := range columns {
			names = append(names, list+attribute.(string))
		}
	}
	for _, member := range []string{"where", "match"} {
		conditions, _ := shape[member].(map[string]any)
		for attribute := range conditions {
			names = append(names, attribute)
		}
	}
	if parent, ok := shape["parent"].(string); ok {
		names = append(names, parent)
	}
	set, _ := shape["set"].([]any)
	for _, assignment := range set {
		members := assignment.(map[string]any)
		names = append(names, members["attribute"].(string))
		if further, ok := members["all"].(string); ok {
			names = append(names, further)
		}
	}
	return names
}

// blocks are the attributes that a shape speaks of within blocks, each with the block's name before it.
func blocks(shape map[string]any) [][2]string {
	var all [][2]string
	set, _ := shape["set"].([]any)
	for _, assignment := range set {
		members := assignment.(map[string]any)
		within, _ := members["blocks"].(map[string]any)
		for _, attribute := range within {
			all = append(all, [2]string{members["attribute"].(string), attribute.(string)})
		}
	}
	return all
}

// documented are attributes of types that the table has by name alone
// (https://registry.terraform.io/providers/hashicorp/aws/latest/docs/resources/kms_key_policy).
var documented = map[string][]string{"aws_kms_key_policy": {"policy"}}

// providerSchema has the provider's types and attribute paths, of some types only the id; nil where the tables are not at hand. The inline rules of
// security groups are attributes that are blocks as well, which the table spells either way.
func providerSchema(t *testing.T) map[string]map[string]bool {
	t.Helper()
	schema := map[string]map[string]bool{}
	for _, name := range []string{"type-operations", "terraform-types"} {
		at := table(t, name, func(line []byte) error {
			var row struct {
				Type       string                    `json:"type"`
				Attributes map[string]jsontext.Value `json:"attributes"`
			}
			err := json.Unmarshal(line, &row)
			attributes := map[string]bool{"id": true}
			for path := range row.Attributes {
				attributes[path] = true
			}
			schema[row.Type] = attributes
			return err
		})
		if !at {
			return nil
		}
	}
	for typ, names := range documented {
		for _, name := range names {
			schema[typ][name] = true
		}
	}
	if len(schema) < 1000 {
		t.Fatalf("%d types", len(schema))
	}
	return schema
}

// table reads the lines of one of the tables of facts; false where it is not at hand.
func table(t *testing.T, name string, each func(line []byte) error) bool {
	t.Helper()
	file, err := os.Open("../../../shared/data/aws/" + name + ".jsonl.gz")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Logf("the table %s is not at hand", name)
		return false
	}
	defer func() { _ = file.Close() }()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return true
}

// FuzzResolve: no record, however odd its request, makes Resolve panic, name a resource of another account, or call exact
// what is not known.
func FuzzResolve(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	inv := inventory.New(inventory.Options{})
	for i, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "-- a.tfstate --\n")
		state, _, _ := strings.Cut(rest, "\n-- ")
		take(f, inv, string(rune('a'+i%26))+strings.Repeat("x", i/26)+".tfstate", state, written)
		_, rest, _ = strings.Cut(string(text), "-- record.json --\n")
		record, _, _ := strings.Cut(rest, "\n-- ")
		f.Add([]byte(record))
	}
	r, err := trailmap.New(inv, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		rec, err := trail.Decode(text)
		if err != nil {
			return
		}
		for _, target := range r.Resolve(rec).Targets {
			arn, _ := target.Instance.Get("arn")
			parts := strings.Split(trail.Text(arn), ":")
			if rec.Account() != "" && len(parts) > 5 && len(parts[4]) == 12 && parts[4] != rec.Account() {
				t.Errorf("%s of another account: %s", target.Instance.Address, text)
			}
			unknown := slices.ContainsFunc(target.Attributes, func(a trailmap.Attribute) bool { return !a.OldKnown || !a.NewKnown })
			if target.Precision == trailmap.Exact && unknown || target.Unchanged && len(target.Attributes) > 0 {
				t.Errorf("%s is %s, unchanged %v, with %v: %s", target.Instance.Address, target.Precision, target.Unchanged, target.Attributes, text)
			}
		}
	})
}
