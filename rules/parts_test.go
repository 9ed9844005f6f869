package rules_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
	"github.com/tfdrift/tfdrift-falco/rules"
)

var (
	comparison = regexp.MustCompile(`[a-z0-9_.]+ (?:exists|in \([^)]*\)|(?:=|contains|icontains|startswith|endswith|regex) (?:'[^']*'|val\([^)]*\)|[^ ()\n]+))`)
	listed     = regexp.MustCompile(`(?m)(?:\[|, |^    - )([A-Z][A-Za-z]+)\b`)
)

// idle are parts that no fixture needs, with the reason.
var idle = map[string]string{
	"tf.kind exists":             "stands for never, as no record is without it",
	"tf.kind = record":           "keeps state changes away, which TestStateRules has",
	"ct.user in (known_callers)": "an empty list, which TestTuning fills",
}

// mutant is the rules file with one part of it changed.
type mutant struct{ what, text string }

// mutants takes each comparison for true and for false, and each event of a list for another. The names that only read are
// left to TestReadingNames.
func mutants(text string) []mutant {
	var all []mutant
	from := strings.Index(text, "- macro: mutating")
	for _, at := range comparison.FindAllStringIndex(text, -1) {
		part := text[at[0]:at[1]]
		if at[0] < from || idle[part] != "" {
			continue
		}
		for _, truth := range []string{"tf.kind exists", "not tf.kind exists"} {
			what := fmt.Sprintf("line %d, %s, taken for %s", strings.Count(text[:at[0]], "\n")+1, part, truth)
			all = append(all, mutant{what, text[:at[0]] + "(" + truth + ")" + text[at[1]:]})
		}
	}
	for _, at := range listed.FindAllStringSubmatchIndex(text, -1) {
		if line := strings.LastIndexByte(text[:at[0]], '\n') + 1; text[line] == '#' {
			continue
		}
		all = append(all, mutant{"without " + text[at[2]:at[3]], text[:at[2]] + "Nothing" + text[at[3]:]})
	}
	return all
}

// TestEveryPartCounts changes the rules part by part: some fixture must then not hold any more. A part that nothing needs is
// either a mistake or lacks a record that shows what it is for.
func TestEveryPartCounts(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	fixtures := map[string][]fixture{}
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		f := readFixture(t, path)
		fixtures[f.rule] = append(fixtures[f.rule], f)
	}
	shipped := ours(t)
	for _, m := range mutants(string(rules.File)) {
		if !noticed(t, h, shipped, read(t, []byte(m.text)), fixtures) {
			t.Errorf("%s: every fixture still holds", m.what)
		}
	}
}

// noticed reports whether a fixture of a rule that the mutant changes no longer holds, or the rule has no fixture.
func noticed(t *testing.T, h *host.Host, shipped, changed *host.RulesFile, fixtures map[string][]fixture) bool {
	t.Helper()
	for i, r := range changed.Rules {
		if r.Filter == shipped.Rules[i].Filter {
			continue
		}
		if len(fixtures[r.Name]) == 0 {
			return true
		}
		for _, f := range fixtures[r.Name] {
			want := upTo(bytes.Count(f.match, []byte("\n")))
			if !slices.Equal(numbers(t, h, host.Query{Init: f.init, Records: f.records, Filter: r.Filter}), want) {
				return true
			}
		}
	}
	return false
}
