package tfstate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// lines writes changes for people: one a line.
func lines(changes []tfstate.Change) []string {
	var all []string
	for _, c := range changes {
		line := fmt.Sprintf("%s %s %s", c.Action, c.Address, c.ID)
		if c.Previous != (tfstate.Address{}) {
			line += " from " + c.Previous.String()
		}
		for _, a := range c.Attributes {
			line += fmt.Sprintf(" | %s: %s -> %s", a.Path, orAbsent(a.Old), orAbsent(a.New))
		}
		all = append(all, line)
	}
	return all
}

func orAbsent(v jsontext.Value) string {
	if v == nil {
		return "absent"
	}
	return string(v)
}

func TestDiff(t *testing.T) {
	at := func(key, rest string) string { return fmt.Sprintf(`{"index_key":%q,%s}`, key, rest) }
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"same":      {at("a", `"attributes":{"id":"1"}`), at("a", `"attributes":{ "id" : "1" }`), nil},
		"created":   {``, at("a", `"attributes":{"id":"1"}`), []string{`created t.n["a"] 1`}},
		"deleted":   {at("a", `"attributes":{"id":"1"}`), ``, []string{`deleted t.n["a"] 1`}},
		"modified":  {at("a", `"attributes":{"id":"1","x":1}`), at("a", `"attributes":{"id":"1","x":2}`), []string{`modified t.n["a"] 1 | x: 1 -> 2`}},
		"replaced":  {at("a", `"attributes":{"id":"1"}`), at("a", `"attributes":{"id":"2"}`), []string{`replaced t.n["a"] 2 | id: "1" -> "2"`}},
		"moved":     {at("a", `"attributes":{"id":"1"}`), at("b", `"attributes":{"id":"1"}`), []string{`moved t.n["b"] 1 from t.n["a"]`}},
		"tainted":   {at("a", `"attributes":{"id":"1"}`), at("a", `"status":"tainted","attributes":{"id":"1"}`), []string{`tainted t.n["a"] 1`}},
		"untainted": {at("a", `"status":"tainted","attributes":{"id":"1"}`), at("a", `"attributes":{"id":"1"}`), []string{`untainted t.n["a"] 1`}},
		"tainted and changed": {at("a", `"attributes":{"id":"1"}`), at("a", `"status":"tainted","attributes":{"id":"1","x":1}`),
			[]string{`modified t.n["a"] 1 | x: absent -> 1`}},
		"moved and changed": {at("a", `"attributes":{"id":"1","x":1}`), at("b", `"attributes":{"id":"1","x":2}`),
			[]string{`moved t.n["b"] 1 from t.n["a"] | x: 1 -> 2`}},
		"swapped": {at("a", `"attributes":{"id":"1"}`) + "," + at("b", `"attributes":{"id":"2"}`), at("a", `"attributes":{"id":"2"}`) + "," + at("b", `"attributes":{"id":"1"}`),
			[]string{`replaced t.n["a"] 2 | id: "1" -> "2"`, `replaced t.n["b"] 1 | id: "2" -> "1"`}},
		"no id is no move": {at("a", `"attributes":{"x":1}`), at("b", `"attributes":{"x":1}`), []string{`deleted t.n["a"] `, `created t.n["b"] `}},
		"two of one id": {at("a", `"attributes":{"id":"1"}`) + "," + at("b", `"attributes":{"id":"1"}`), at("c", `"attributes":{"id":"1"}`) + "," + at("d", `"attributes":{"id":"1"}`),
			[]string{`moved t.n["c"] 1 from t.n["a"]`, `moved t.n["d"] 1 from t.n["b"]`}},
		"one of two of one id": {at("a", `"attributes":{"id":"1"}`) + "," + at("b", `"attributes":{"id":"1"}`), at("c", `"attributes":{"id":"1"}`),
			[]string{`deleted t.n["b"] 1`, `moved t.n["c"] 1 from t.n["a"]`}},
		"deposed": {at("a", `"attributes":{"id":"1"}`), at("a", `"attributes":{"id":"2"}`) + "," + at("a", `"deposed":"0a1b2c3d","attributes":{"id":"1"}`),
			[]string{`replaced t.n["a"] 2 | id: "1" -> "2"`, `moved t.n["a"] (deposed 0a1b2c3d) 1 from t.n["a"]`}},
		"deposed, destroyed": {at("a", `"attributes":{"id":"2"}`) + "," + at("a", `"deposed":"0a1b2c3d","attributes":{"id":"1"}`), at("a", `"attributes":{"id":"2"}`),
			[]string{`deleted t.n["a"] (deposed 0a1b2c3d) 1`}},
		"deposed, put back": {at("a", `"deposed":"0a1b2c3d","attributes":{"id":"1"}`), at("a", `"attributes":{"id":"1"}`),
			[]string{`moved t.n["a"] 1 from t.n["a"] (deposed 0a1b2c3d)`}},
		"nested": {at("a", `"attributes":{"id":"1","l":[{"x":1,"y":[1]}],"tags":{"a b":"1"}}`), at("a", `"attributes":{"id":"1","l":[{"x":2,"y":[1,2]}],"tags":{"a b":"2","c":null}}`),
			[]string{`modified t.n["a"] 1 | l[0].x: 1 -> 2 | l[0].y[1]: absent -> 2 | tags.c: absent -> null | tags["a b"]: "1" -> "2"`}},
		"other kind":    {at("a", `"attributes":{"id":"1","x":{"y":1}}`), at("a", `"attributes":{"id":"1","x":[1]}`), []string{`modified t.n["a"] 1 | x: {"y":1} -> [1]`}},
		"number's form": {at("a", `"attributes":{"id":"1","x":1}`), at("a", `"attributes":{"x":1.0,"id":"1"}`), nil},
		"large number":  {at("a", `"attributes":{"id":"1","x":9007199254740993}`), at("a", `"attributes":{"id":"1","x":9007199254740992}`), []string{`modified t.n["a"] 1 | x: 9007199254740993 -> 9007199254740992`}},
		"provider":      {at("a", `"attributes":{"id":"1"}`), at("a", `"provider":"q","attributes":{"id":"1"}`), nil},
		"marks in another order": {
			at("a", `"attributes":{"id":"1"},"sensitive_attributes":[[{"type":"get_attr","value":"a"}],[{"type":"get_attr","value":"b"}]]`),
			at("a", `"attributes":{"id":"1"},"sensitive_attributes":[[{"type":"get_attr","value":"b"}],[{"type":"get_attr","value":"a"}]]`), nil},
	} {
		old, new := mustRead(t, one(c.old)), mustRead(t, one(c.new))
		if d := cmp.Diff(c.want, lines(tfstate.Diff(old, new, nil))); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestDiffData(t *testing.T) {
	data := func(x string) string {
		return `{"version":4,"serial":1,"lineage":"l","resources":[{"mode":"data","type":"t","name":"n","instances":[{"attributes":{"id":"` + x + `"}}]}]}`
	}
	if got := tfstate.Diff(mustRead(t, data("1")), mustRead(t, data("2")), nil); len(got) > 0 {
		t.Errorf("a data source changed: %v", lines(got))
	}
	if got := tfstate.Diff(mustRead(t, data("1")), nil, nil); len(got) > 0 {
		t.Errorf("a data source went: %v", lines(got))
	}
}

// TestDiffRedacts looks for secrets in all that a diff says of values that either side marks, in whole or in part.
func TestDiffRedacts(t *testing.T) {
	mark := func(steps ...string) string {
		for i, s := range steps {
			steps[i] = `{"type":"get_attr","value":"` + s + `"}`
		}
		return `,"sensitive_attributes":[[` + strings.Join(steps, ",") + `]]`
	}
	for name, c := range map[string][2]string{
		"old marks":     {`"attributes":{"id":"1","p":"hush-1"}` + mark("p"), `"attributes":{"id":"1","p":"hush-2"}`},
		"new marks":     {`"attributes":{"id":"1","p":"hush-1"}`, `"attributes":{"id":"1","p":"hush-2"}` + mark("p")},
		"deeper":        {`"attributes":{"id":"1","p":{"q":["hush-1"]}}` + mark("p"), `"attributes":{"id":"1","p":{"q":["hush-2","hush-3"]}}` + mark("p")},
		"above":         {`"attributes":{"id":"1","p":{"q":"hush-1"}}` + mark("p", "q"), `"attributes":{"id":"1","p":"hush-2"}`},
		"appears":       {`"attributes":{"id":"1"}`, `"attributes":{"id":"1","p":{"q":"hush-1"}}` + mark("p", "q")},
		"open type":     {`"attributes":{"id":"1","p":{"value":{"q":"hush-1"},"type":["object",{"q":"string"}]}}` + mark("p", "q"), `"attributes":{"id":"1","p":{"value":{"q":"hush-2"},"type":["object",{"q":"string"}]}}` + mark("p", "q")},
		"not readable":  {`"attributes":{"id":"1","p":"hush-1"},"sensitive_attributes":[[{"type":"x"}]]`, `"attributes":{"id":"1","p":"hush-2"}`},
		"moved":         {`"attributes":{"id":"1","p":"hush-1"}` + mark("p"), `"index_key":0,"attributes":{"id":"1","p":"hush-2"}` + mark("p")},
		"both replaced": {`"attributes":{"id":"1","p":"hush-1"}` + mark("p"), `"attributes":{"id":"2","p":"hush-2"}` + mark("p")},
	} {
		changes := tfstate.Diff(mustRead(t, one("{"+c[0]+"}")), mustRead(t, one("{"+c[1]+"}")), tfstate.NewRedactor([]byte("k")))
		text := strings.Join(lines(changes), "\n")
		if strings.Contains(text, "hush") || !strings.Contains(text, "(sensitive) hmac:") {
			t.Errorf("%s: %s", name, text)
		}
		for _, ch := range changes {
			for _, a := range ch.Attributes {
				if hidden := strings.Contains(string(a.New)+string(a.Old), "(sensitive)"); hidden != a.Sensitive {
					t.Errorf("%s: %s sensitive %v: %s -> %s", name, a.Path, a.Sensitive, a.Old, a.New)
				}
			}
		}
	}
}

// TestTerraformHistory is the recorded history of one state: a move and a taint, then an apply.
func TestTerraformHistory(t *testing.T) { againstHistory(t, filepath.Join("testdata", "odd")) }

func againstHistory(t *testing.T, dir string) {
	t.Helper()
	first, edited, second := mustReadFile(t, filepath.Join(dir, "first.tfstate")), mustReadFile(t, filepath.Join(dir, "edited.tfstate")), mustReadFile(t, filepath.Join(dir, "second.tfstate"))
	var got []string
	for _, c := range tfstate.Diff(first, edited, nil) {
		got = append(got, fmt.Sprintf("%s %s %s", c.Action, c.Address, c.Previous))
	}
	if d := cmp.Diff([]string{`tainted module.one.terraform_data.this["x"] .`, `moved terraform_data.moved terraform_data.counted[10]`}, got); d != "" {
		t.Errorf("after state mv and taint (-want +got):\n%s", d)
	}
	var paths []string
	for _, c := range tfstate.Diff(edited, second, nil) {
		line := fmt.Sprintf("%s %s", c.Action, c.Address)
		for _, a := range c.Attributes {
			if strings.HasPrefix(string(a.Path), "input") || strings.HasPrefix(string(a.Path), "trigger") { // Terraform 1.11 does not mark output
				line += fmt.Sprintf(" %s: %s -> %s", a.Path, orAbsent(a.Old), orAbsent(a.New))
			}
		}
		paths = append(paths, line)
	}
	want := []string{
		`modified terraform_data.all_secret input: "(sensitive)" -> "(sensitive)"`,
		`deleted terraform_data.leaving[0]`,
		`modified terraform_data.open input.number: 9007199254740994 -> 9007199254740995`,
		`replaced terraform_data.replaced triggers_replace[0]: 1 -> 2`,
		`modified terraform_data.secret input.public: "round 1" -> "round 2" input.token: "(sensitive)" -> "(sensitive)" input["a b"].deep[0]: "(sensitive)" -> "(sensitive)"`,
		`modified terraform_data.single input: "round 1" -> "round 2"`,
	}
	if d := cmp.Diff(want, paths); d != "" {
		t.Errorf("after the apply (-want +got):\n%s", d)
	}
}

// naive is what changed between two states, found in another way: both decoded whole, every leaf listed by its place.
func naive(t *testing.T, old, new []byte) map[string]string {
	t.Helper()
	was, is := objects(t, old), objects(t, new)
	changes := map[string]string{}
	for address, o := range was {
		n, stays := is[address]
		switch {
		case !stays:
			changes[address] = "deleted"
		case o.id != n.id:
			changes[address] = "replaced"
		case !reflect.DeepEqual(o.attributes, n.attributes):
			changes[address] = "modified"
		case o.tainted != n.tainted:
			changes[address] = map[bool]string{true: "tainted", false: "untainted"}[n.tainted]
		}
	}
	var created []string
	for address := range is {
		if _, had := was[address]; !had {
			created = append(created, address)
		}
	}
	slices.Sort(created)
	for _, address := range created {
		changes[address] = "created"
		n := is[address]
		var from []string
		for other, o := range was {
			if c := changes[other]; o.typ == n.typ && o.id == n.id && o.id != "" && (c == "deleted" || c == "replaced") {
				from = append(from, other)
			}
		}
		if len(from) > 0 {
			slices.Sort(from)
			changes[address] = "moved"
			if changes[from[0]] == "deleted" {
				delete(changes, from[0])
			}
		}
	}
	return changes
}

type naiveObject struct {
	typ, id    string
	tainted    bool
	attributes any
}

// objects are the managed instances of a state by what stands in it, not by how an address is printed.
func objects(t *testing.T, text []byte) map[string]naiveObject {
	t.Helper()
	var state struct {
		Resources []struct {
			Module, Mode, Type, Name string
			Instances                []struct {
				IndexKey       any `json:"index_key"`
				Status         string
				Deposed        string
				Attributes     any
				AttributesFlat any `json:"attributes_flat"`
			}
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&state); err != nil {
		t.Fatal(err)
	}
	all := map[string]naiveObject{}
	for _, r := range state.Resources {
		for _, i := range r.Instances {
			if r.Mode == "data" {
				continue
			}
			if i.Attributes == nil {
				i.Attributes = i.AttributesFlat
			}
			o := naiveObject{typ: r.Type, tainted: i.Status == "tainted", attributes: i.Attributes}
			if m, ok := i.Attributes.(map[string]any); ok {
				o.id, _ = m["id"].(string)
			}
			all[strings.Join([]string{r.Module, r.Type, r.Name, fmt.Sprintf("%#v", i.IndexKey), i.Deposed}, "|")] = o
		}
	}
	return all
}

// TestDiffSeries diffs every two recorded serials of a state that follow each other, in both directions, against naive.
func TestDiffSeries(t *testing.T) {
	dir := shared(t)
	if dir == "" {
		return
	}
	files := map[string][]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "series-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		for _, pattern := range []string{path, filepath.Join(path, "*"), filepath.Join(path, "*", "*")} {
			found, _ := filepath.Glob(pattern)
			for _, f := range found {
				if strings.Contains(filepath.Base(f), "tfstate") || filepath.Ext(f) == ".json" {
					files[filepath.Dir(f)] = append(files[filepath.Dir(f)], f)
				}
			}
		}
	}
	pairs, told := 0, map[string]int{}
	for _, series := range files {
		slices.Sort(series)
		var states [][]byte
		for _, path := range series {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // a directory
			}
			if _, _, err := read(string(text)); err == nil {
				states = append(states, text)
			}
		}
		for i := 1; i < len(states); i++ {
			for _, pair := range [][2][]byte{{states[i-1], states[i]}, {states[i], states[i-1]}} {
				pairs++
				want := map[string]int{}
				for _, action := range naive(t, pair[0], pair[1]) {
					want[action]++
				}
				got := map[string]int{}
				for _, c := range tfstate.Diff(mustRead(t, string(pair[0])), mustRead(t, string(pair[1])), nil) {
					got[string(c.Action)]++
					told[string(c.Action)]++
					checkLeaves(t, c)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s and the one before (-naive +Diff):\n%s", series[i], d)
				}
			}
		}
	}
	t.Logf("%d pairs: %v", pairs, told)
	if pairs < 100 {
		t.Errorf("only %d pairs of serials: the recorded series are not what they were", pairs)
	}
}

func checkLeaves(t *testing.T, c tfstate.Change) {
	t.Helper()
	if c.Action == tfstate.Modified && len(c.Attributes) == 0 {
		t.Errorf("%s is modified in nothing", c.Address)
	}
	for _, a := range c.Attributes {
		if tfstate.Equal(a.Old, a.New) && !a.Sensitive {
			t.Errorf("%s of %s did not change: %s", a.Path, c.Address, a.Old)
		}
	}
}

// TestDiffMany moves and changes many instances at once: what it costs grows as they do.
func TestDiffMany(t *testing.T) {
	const n = 20_000
	var old, new []*tfstate.Instance
	for i := range n {
		a := jsontext.Value(fmt.Sprintf(`{"id":"%d"}`, i))
		old = append(old, &tfstate.Instance{Address: tfstate.Address{Module: "module.a", Type: "t", Name: fmt.Sprint(i)}, Attributes: a})
		new = append(new, &tfstate.Instance{Address: tfstate.Address{Module: "module.b", Type: "t", Name: fmt.Sprint(i)}, Attributes: a})
	}
	changes := tfstate.Diff(old, new, nil)
	for _, c := range changes {
		if c.Action != tfstate.Moved || c.Previous.Name != c.Address.Name {
			t.Fatalf("%+v, want a move", c)
		}
	}
	if len(changes) != n {
		t.Errorf("%d changes, want %d", len(changes), n)
	}
	if got := tfstate.Diff(old, old, nil); len(got) > 0 {
		t.Errorf("%d changes of nothing", len(got))
	}
}
