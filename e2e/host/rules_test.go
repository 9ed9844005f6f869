package host_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
)

func TestReadRules(t *testing.T) {
	f, err := host.ReadRules([]byte(`
- required_engine_version: 0.50.0
- required_plugin_versions: [{name: tfdrift, version: 0.1.0}]
- list: writers
  items: [Put, "two words", 'say "so"', 443]
- list: nothing
  items: []
- macro: small
  condition: ct.name in (writers, Delete) or not ct.error exists
- macro: large
  condition: small and ct.request contains 'a "small" (and) or, not'
- rule: Any
  desc: A rule.
  condition: >
    large and
    (ct.src = small or tf.attribute[tags.a] != "" or ct.user = val( ct.request.username ))
  output: Text (a=%ct.name)
  priority: INFORMATIONAL
  source: tfdrift
  tags: [a]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &host.RulesFile{
		Engine: "0.50.0", Plugins: map[string]string{"tfdrift": "0.1.0"},
		Lists: map[string][]string{"writers": {"Put", "two words", `say "so"`, "443"}, "nothing": {}},
		Macros: map[string]string{
			"small": "ct.name in (writers, Delete) or not ct.error exists",
			"large": `small and ct.request contains 'a "small" (and) or, not'`,
		},
		Rules: []host.Rule{{
			Name: "Any", Desc: "A rule.", Condition: "large and (ct.src = small or tf.attribute[tags.a] != \"\" or ct.user = val( ct.request.username ))\n", Output: "Text (a=%ct.name)",
			Priority: "INFORMATIONAL", Source: "tfdrift", Tags: []string{"a"},
			// The value small is no macro, and quoted text stays as it is.
			Filter: `( ( ct.name in ( Put, "two words", "say \"so\"", 443 , Delete ) or not ct.error exists ) and ` +
				`ct.request contains 'a "small" (and) or, not' ) and ( ct.src = small or tf.attribute[tags.a] != "" or ct.user = val(ct.request.username) )`,
		}},
		Unused: []string{"nothing"},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadRulesRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"- macro: a\n  condition: b and ct.name exists", `item 1: macro "a": no macro "b" is defined before`},
		{"- macro: a\n  condition: b\n- macro: b\n  condition: ct.name exists", `no macro "b"`},
		{"- macro: a\n  condition: a or ct.name exists", `no macro "a"`},
		{"- rule: A\n  condition: ct.name =", "want a value after ="},
		{"- rule: A\n  condition: ct.name = and ct.src exists", `want a value after =, not "and"`},
		{"- rule: A\n  condition: ct.name = val(ct.src", `want ")", not ""`},
		{"- rule: A\n  condition: ct.name in Put", `want "(", not "Put"`},
		{"- rule: A\n  condition: (ct.name exists", `want ")", not ""`},
		{"- rule: A\n  condition: ct.name exists)", `want and, or or the end, not ")"`},
		{"- rule: A\n  condition: ct.name exists ct.src exists", `not "ct.src"`},
		{"- rule: A\n  condition: ct.name in (", "ends too early"},
		{"- rule: A\n  konditie: ct.name exists", "field konditie not found"},
		{"- source: tfdrift", "neither a rule, a macro, a list nor a requirement"},
		{"rule: A", "cannot unmarshal"},
	} {
		if _, err := host.ReadRules([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadRules(%q) = %v, want an error with %q", c.text, err, c.want)
		}
	}
}
