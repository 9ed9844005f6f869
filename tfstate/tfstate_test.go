package tfstate_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// shared is the folder of recorded states, "" in a clone that lacks it.
func shared(t testing.TB) string {
	t.Helper()
	dir := filepath.Join("..", "..", "shared", "data", "tfstate")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("the recorded states are not here")
		return ""
	}
	return dir
}

// read reads a whole state.
func read(text string) (tfstate.Header, []*tfstate.Instance, error) {
	var all []*tfstate.Instance
	header, err := tfstate.Read(strings.NewReader(text), func(i *tfstate.Instance) error {
		all = append(all, i)
		return nil
	})
	return header, all, err
}

func mustRead(t testing.TB, text string) []*tfstate.Instance {
	t.Helper()
	_, all, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mustReadFile(t testing.TB, path string) []*tfstate.Instance {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return mustRead(t, string(text))
}

// one is a state of one resource with the given instances.
func one(instances string) string {
	return `{"version":4,"terraform_version":"1.11.4","serial":3,"lineage":"l","resources":[{"mode":"managed","type":"t","name":"n","provider":"p","instances":[` +
		instances + `]}]}`
}

func TestReadOrder(t *testing.T) {
	// As jq -S writes it: instances before the type, resources before the version.
	text := `{"lineage":"l","outputs":{},"resources":[{"instances":[{"attributes":{"id":"x"},"index_key":"a b"}],"mode":"data","module":"module.m[0]",
		"name":"n","provider":"p","type":"t"},{"instances":[],"mode":"managed","name":"none","type":"t"},{"instances":null,"mode":"managed","name":"n","type":"t"}],
		"serial":18446744073709551615,"terraform_version":"1.5.0","version":4}`
	header, all, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := (tfstate.Header{Format: 4, TerraformVersion: "1.5.0", Serial: 1<<64 - 1, Lineage: "l"}); header != want {
		t.Errorf("header %+v, want %+v", header, want)
	}
	if len(all) != 1 || all[0].Address.String() != `module.m[0].data.t.n["a b"]` || all[0].Provider != "p" {
		t.Errorf("instances %+v", all)
	}
}

func TestReadInstance(t *testing.T) {
	all := mustRead(t, one(`
		{"index_key":0,"status":"tainted","schema_version":7,"attributes":{"id":"i", "big": 9007199254740993 ,"text":"a \"b\" { c"},"provider":"own"},
		{"index_key":0,"deposed":"0a1b2c3d","attributes":null,"attributes_flat":{"id":"f","tags.%":"1","tags.Name":"n"}},
		{"index_key":null,"attributes":{}}`))
	want := []string{`t.n[0]`, `t.n[0] (deposed 0a1b2c3d)`, `t.n`}
	for i, in := range all {
		if got := in.Address.String(); got != want[i] {
			t.Errorf("address %s, want %s", got, want[i])
		}
	}
	if i := all[0]; !i.Tainted || i.SchemaVersion != 7 || i.Provider != "own" || i.ID() != "i" {
		t.Errorf("instance %+v", i)
	}
	if got, want := string(all[0].Attributes), `{"id":"i","big":9007199254740993,"text":"a \"b\" { c"}`; got != want {
		t.Errorf("attributes %s, want %s", got, want)
	}
	if v, ok := all[1].Get(`["tags.Name"]`); !ok || string(v) != `"n"` || all[1].ID() != "f" {
		t.Errorf("flat attributes: %s, %v", v, ok)
	}
}

func TestReadRefuses(t *testing.T) {
	good := one(`{"attributes":{"id":"x"}}`)
	for name, c := range map[string]struct {
		text string
		want string // "empty", "incomplete", "version", "format"
	}{
		"nothing":            {"", "empty"},
		"white space":        {" \n", "empty"},
		"cut in a value":     {good[:len(good)/2], "incomplete"},
		"cut at the end":     {good[:len(good)-1], "incomplete"},
		"cut in a literal":   {`{"version":4,"resources":nul`, "incomplete"},
		"one brace":          {`{`, "incomplete"},
		"version 1":          {`{"version":1,"serial":1,"modules":[]}`, "version"},
		"version 2":          {`{"version":2,"serial":1,"modules":[]}`, "version"},
		"version 3, last":    {`{"modules":[{"path":["root"],"resources":{"aws_vpc.a":{}}}],"serial":1,"version":3}`, "version"},
		"version 5":          {`{"version":5}`, "version"},
		"plan":               {`{"format_version":"1.2","planned_values":{},"resource_changes":[]}`, "format"},
		"show -json":         {`{"format_version":"1.0","terraform_version":"1.11.4","values":{}}`, "format"},
		"encrypted":          {`{"serial":9,"lineage":"l","meta":{},"encrypted_data":"x","encryption_version":"v0"}`, "format"},
		"more text":          {good + "}", "format"},
		"two documents":      {good + good, "format"},
		"other JSON":         {`{"name":"npm","version":"1.0.0"}`, "format"},
		"another version 4":  {`{"version":4}`, "format"},
		"no version":         {`{"serial":1,"resources":[]}`, "format"},
		"a list":             {`[]`, "format"},
		"a text":             {`"version"`, "format"},
		"binary":             {"\x00GITCRYPT\x00", "format"},
		"HTML":               {"<html>", "format"},
		"resources no list":  {`{"version":4,"serial":1,"resources":{}}`, "format"},
		"a resource's kind":  {`{"version":4,"serial":1,"resources":[1]}`, "format"},
		"no type":            {`{"version":4,"serial":1,"resources":[{"name":"n","instances":[{}]}]}`, "format"},
		"odd index key":      {one(`{"index_key":true,"attributes":{}}`), "format"},
		"odd attributes":     {one(`{"attributes":[]}`), "format"},
		"odd serial":         {`{"version":4,"serial":-1,"resources":[]}`, "format"},
		"NULs after the end": {good + "\x00\x00", "format"},
	} {
		header, _, err := read(c.text)
		if got := kindOf(err); got != c.want {
			t.Errorf("%s: %v (%s), want %s", name, err, got, c.want)
		}
		if name == "encrypted" && (header.Serial != 9 || header.Lineage != "l") {
			t.Errorf("%s: header %+v, want serial and lineage", name, header)
		}
		if strings.Contains(name, "version 3") && header.Format != 3 {
			t.Errorf("%s: header %+v", name, header)
		}
	}
}

// TestFaultsSayWhatToDo: each fault names its place, or the member, and the way out.
func TestFaultsSayWhatToDo(t *testing.T) {
	const raw = "give the raw state, as terraform state pull prints it"
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for name, c := range map[string]struct{ text, says, way string }{
		"nothing":           {"", "it is empty", ""},
		"cut off":           {`{"version":4,"serial":`, "cut off after 2", ""},
		"binary":            {"\x80\x04tfstate", "invalid character '\\x80'", raw},
		"HTML":              {"<html>", "invalid character '<' at start of value", raw},
		"UTF-16":            {"\xff\xfe{\x00", "invalid character", raw},
		"broken half-way":   {`{"version":4,"serial":1,"resources":[oops]}`, "(at byte 37)", raw},
		"foreign":           {`{"name":"npm","lockfileVersion":3}`, "no version", raw},
		"foreign, version":  {`{"version":"1.0.0","name":"npm"}`, "version is a JSON string, want a whole number", raw},
		"too new":           {`{"version":5}`, "format 5 is newer than this program", "update it"},
		"too old":           {`{"version":1,"modules":[]}`, "format 1 is not read", "terraform apply -refresh-only"},
		"serial, a text":    {`{"version":4,"serial":"7"}`, "serial is a JSON string, want a whole number", raw},
		"serial, negative":  {`{"version":4,"serial":-7}`, "serial is a JSON number, want a whole number", raw},
		"serial, huge":      {`{"version":4,"serial":1e400}`, "serial is a JSON number, want a whole number", raw},
		"lineage, a list":   {`{"version":4,"lineage":["hush"]}`, "lineage is a JSON [, want a text", raw},
		"resources":         {`{"version":4,"resources":{"hush":1}}`, "resources is a JSON {, want a list", raw},
		"a resource":        {`{"version":4,"resources":["hush"]}`, "resources holds a JSON string, want objects", raw},
		"a resource's type": {`{"version":4,"resources":[{"type":7}]}`, "a resource's type is a JSON number, want a text", raw},
		"an index key":      {one(`{"index_key":{"hush":1}}`), "the index key is a JSON {, want a text or a number", raw},
		"a schema version":  {one(`{"schema_version":"hush"}`), "the schema version is a JSON string, want a whole number", raw},
		"attributes":        {one(`{"attributes":"hush"}`), "the attributes are a JSON string, want an object", raw},
		"20,000 levels":     {one(`{"attributes":` + deep(20000) + `}`), "exceeded max depth", raw},
	} {
		_, _, err := read(c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.HasSuffix(err.Error(), c.way) && c.way == raw || !strings.Contains(err.Error(), c.way) {
			t.Errorf("%s: got %v, want %s ... %s", name, err, c.says, c.way)
		}
		if kindOf(err) == "" || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: not a typed error, or it shows a value: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"1,000 levels":       one(`{"attributes":` + deep(1000) + `}`),
		"no lineage":         `{"version":4,"serial":1,"resources":[]}`,
		"unknown members":    `{"version":4,"serial":1,"x":{"y":[1]},"resources":[{"type":"t","name":"n","z":1,"instances":[{"w":1}]}]}`,
		"repeated addresses": one(`{"attributes":{"id":"a"}},{"attributes":{"id":"b"}}`),
		"a serial of 2^63":   `{"version":4,"serial":9223372036854775808,"resources":[]}`,
	} {
		if _, _, err := read(text); err != nil {
			t.Errorf("%s: %v, want that it is read", name, err)
		}
	}
}

// TestGarbageIsGivenUp: 100 MB that are no state cost neither time nor memory, whatever they begin like.
func TestGarbageIsGivenUp(t *testing.T) {
	for name, start := range map[string]string{
		"no JSON": "x", "a text": `"`, "a name": `{"`, "a member": `{"version":4,"lineage":"`,
		"an attribute": `{"version":4,"serial":1,"resources":[{"type":"t","name":"n","instances":[{"attributes":{"a":"`,
	} {
		before := allocated()
		_, err := tfstate.Read(io.MultiReader(strings.NewReader(start), io.LimitReader(letters{}, 100<<20)), func(*tfstate.Instance) error { return nil })
		if got := kindOf(err); got != "format" || !strings.Contains(err.Error(), "give the raw state") {
			t.Errorf("%s: %v (%s)", name, err, got)
		}
		if made := allocated() - before; made > 300<<20 {
			t.Errorf("%s: %d MB were allocated", name, made>>20)
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// kindOf names the typed errors of Read; "" for any other.
func kindOf(err error) string {
	var version *tfstate.VersionError
	var format *tfstate.FormatError
	switch {
	case errors.Is(err, tfstate.ErrEmpty) && errors.Is(err, tfstate.ErrIncomplete):
		return "empty"
	case errors.Is(err, tfstate.ErrIncomplete):
		return "incomplete"
	case errors.As(err, &version):
		return "version"
	case errors.As(err, &format):
		return "format"
	}
	return ""
}

// TestReadCut cuts a recorded state at every byte: each time it is incomplete, and at none read.
func TestReadCut(t *testing.T) {
	text := one(`{"index_key":"a","attributes":{"id":"x","n":1.5e3,"l":[null,true,"\u00e9"]},"sensitive_attributes":[[{"type":"get_attr","value":"id"}]]}`)
	for n := range len(text) {
		if _, _, err := read(text[:n]); !errors.Is(err, tfstate.ErrIncomplete) {
			t.Errorf("%d bytes of %d: %v, want incomplete", n, len(text), err)
		}
	}
	if _, _, err := read(text + "\n"); err != nil {
		t.Error(err)
	}
}

// TestReadFaults gives back what the reader and each return, also at the very end of the text.
func TestReadFaults(t *testing.T) {
	text := one(`{"attributes":{"id":"x"}}`)
	fault := errors.New("the network went away")
	for _, n := range []int{0, len(text) / 2, len(text)} {
		_, err := tfstate.Read(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(fault)), func(*tfstate.Instance) error { return nil })
		if !errors.Is(err, fault) {
			t.Errorf("after %d bytes: %v, want the reader's own", n, err)
		}
	}
	if _, err := tfstate.Read(iotest.OneByteReader(strings.NewReader(text)), func(*tfstate.Instance) error { return fault }); !errors.Is(err, fault) {
		t.Errorf("%v, want what each returned", err)
	}
}

func TestSensitive(t *testing.T) {
	for name, c := range map[string]struct{ marks, want string }{
		"paths":        {`[[{"type":"get_attr","value":"password"}],[{"type":"get_attr","value":"tags"},{"type":"index","value":{"value":"a b","type":"string"}}]]`, `password tags["a b"]`},
		"index":        {`[[{"type":"get_attr","value":"l"},{"type":"index","value":{"value":2,"type":"number"}},{"type":"get_attr","value":"x"}]]`, `l[2].x`},
		"one path":     {`[{"type":"get_attr","value":"password"}]`, `password`},
		"set element":  {`[[{"type":"get_attr","value":"s"},{"type":"index","value":{"value":{"a":1},"type":["object",{"a":"number"}]}},{"type":"get_attr","value":"x"}]]`, `s`},
		"twice":        {`[[{"type":"get_attr","value":"b"}],[{"type":"get_attr","value":"a"}],[{"type":"get_attr","value":"b"}]]`, `a b`},
		"all":          {`[[]]`, `(all)`},
		"not read":     {`[[{"type":"later","value":true}]]`, `(all)`},
		"no list":      {`{"type":"get_attr"}`, `(all)`},
		"none":         {`[]`, ``},
		"null":         {`null`, ``},
		"odd index":    {`[[{"type":"get_attr","value":"l"},{"type":"index","value":{"value":1.5,"type":"number"}}]]`, `l`},
		"odd name":     {`[[{"type":"get_attr","value":"t"},{"type":"index","value":{"value":"${x}\"","type":"string"}}]]`, `t["$${x}\""]`},
		"quoted index": {`[[{"type":"get_attr","value":"t"},{"type":"index","value":{"value":"0","type":"string"}}]]`, `t["0"]`},
	} {
		in := mustRead(t, one(`{"attributes":{"id":"x"},"sensitive_attributes":`+c.marks+`}`))[0]
		var got []string
		for _, p := range in.Sensitive {
			if p == "" {
				p = "(all)"
			}
			got = append(got, string(p))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	in := mustRead(t, one(`{"attributes":{},"sensitive_attributes":[[{"type":"get_attr","value":"a"},{"type":"get_attr","value":"b"}]]}`))[0]
	for p, want := range map[tfstate.Path]bool{"a.b": true, "a.b.c[0]": true, "a": true, "a.c": false, "ab": false, "b": false, "": true} {
		if got := in.IsSensitive(p); got != want {
			t.Errorf("IsSensitive(%q) is %v", p, got)
		}
	}
}

// TestOpenTypes takes values out of {"value","type"}, and only those.
func TestOpenTypes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`{"value":"v","type":"string"}`, `"v"`},
		{`{"type":"number","value":12345678901234567890}`, `12345678901234567890`},
		{`{"value":null,"type":"string"}`, `null`},
		{`{"value":[1,"b",null],"type":["tuple",["number","string","bool"]]}`, `[1,"b",null]`},
		{`{"value":{"a":{"b":["x"]}},"type":["object",{"a":["map",["list","string"]]}]}`, `{"a":{"b":["x"]}}`},
		{`{"value":{"a":{"value":true,"type":"bool"}},"type":["object",{"a":"dynamic"}]}`, `{"a":true}`},
		{`{"value":{"a":{"value":"v","type":"string"}},"type":["object",{"a":["object",{"value":"string","type":"string"}]}]}`, `{"a":{"value":"v","type":"string"}}`},
		// Not wrapped: another member, another type than it says, blocks.
		{`{"value":"v","type":"string","name":"n"}`, ``},
		{`{"value":"v","type":"number"}`, ``},
		{`{"value":"v","type":"forward"}`, ``},
		{`{"value":["a"],"type":["list","number"]}`, ``},
		{`{"value":["a"],"type":[]}`, ``},
		{`[{"value":"v","type":"string"}]`, ``},
		{`{"value":"v"}`, ``},
	} {
		if c.want == "" {
			c.want = c.in
		}
		in := mustRead(t, one(`{"attributes":{"id":"x","before":{"k":"v"},"open":`+c.in+`,"z":1}}`))[0]
		if got, _ := in.Get("open"); string(got) != c.want {
			t.Errorf("%s became %s, want %s", c.in, got, c.want)
		}
		if z, _ := in.Get("z"); string(z) != "1" {
			t.Errorf("%s: what follows is lost: %s", c.in, in.Attributes)
		}
	}
}

func TestGet(t *testing.T) {
	in := &tfstate.Instance{Attributes: jsontext.Value(`{ "id" : "x", "tags": {"a b":"1","${x}":"2","c":{"d":[10,[20]]},"é":3,"x\ny":4}, "l":[{"n":null}] }`)}
	for p, want := range map[tfstate.Path]string{
		"id": `"x"`, `tags["a b"]`: `"1"`, `tags["$${x}"]`: `"2"`, "tags.c.d[0]": "10", "tags.c.d[1][0]": "20", `tags["é"]`: "3", "tags.é": "3",
		`tags["x\ny"]`: "4", "l[0].n": "null", `["id"]`: `"x"`,
		"no": "", "id.x": "", "l[1]": "", "l[-1]": "", "l.n": "", "tags[0]": "", "l[": "", "..": "", "a..b": "", `tags["a b`: "", "l[x]": "", `tags["\q"]`: "",
	} {
		if got, ok := in.Get(p); string(got) != want || ok != (want != "") {
			t.Errorf("Get(%q) gave %s, %v, want %s", p, got, ok, want)
		}
	}
	if got, ok := in.Get(""); !ok || !bytes.Equal(got, in.Attributes) {
		t.Errorf("Get of no path gave %s", got)
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"1", "1.0", true}, {"100", "1e2", true}, {"0.010", "1E-2", true}, {"-0", "0.0e5", true}, {"1", "-1", false},
		{"9007199254740993", "9007199254740992", false}, {"1e999999999", "1e999999999", true}, {"1e999999999", "1e999999998", false},
		{"1e99999999999999999999", "1e99999999999999999999", true}, {"10e1", "1e2", true},
		{`{"a":1,"b":[true]}`, `{"b":[true],"a":1.0}`, true}, {`{"a":null}`, `{}`, false}, {`{"a":1}`, `{"b":1}`, false},
		{`[1,2]`, `[2,1]`, false}, {`[1]`, `[1,1]`, false}, {`"\u003c"`, `"<"`, true}, {`"1"`, `1`, false}, {`null`, `false`, false}, {`""`, `null`, false},
		{` {"a" : [ ] } `, `{"a":[]}`, true},
	} {
		if got := tfstate.Equal(jsontext.Value(c.a), jsontext.Value(c.b)); got != c.want {
			t.Errorf("Equal(%s, %s) is %v", c.a, c.b, got)
		}
		if got := tfstate.Equal(jsontext.Value(c.b), jsontext.Value(c.a)); got != c.want {
			t.Errorf("Equal(%s, %s) is %v", c.b, c.a, got)
		}
	}
	if !tfstate.Equal(nil, nil) || tfstate.Equal(nil, jsontext.Value("null")) {
		t.Error("absent is not null")
	}
}

func TestRedactor(t *testing.T) {
	var none *tfstate.Redactor
	for _, r := range []*tfstate.Redactor{none, tfstate.NewRedactor(nil), tfstate.NewRedactor([]byte{})} {
		if got := string(r.Value(jsontext.Value(`"s"`))); got != `"(sensitive)"` {
			t.Errorf("without a key: %s", got)
		}
	}
	r := tfstate.NewRedactor([]byte("key"))
	if got, want := string(r.Value(jsontext.Value(`"hush"`))), `"(sensitive) hmac:`; !strings.HasPrefix(got, want) || len(got) != len(want)+13 {
		t.Errorf("with a key: %s", got)
	}
	same := func(a, b string) bool {
		return bytes.Equal(r.Value(jsontext.Value(a)), r.Value(jsontext.Value(b)))
	}
	if !same(`{"a":1,"b":2}`, `{ "b":2, "a":1.0 }`) || same(`"1"`, `1`) || same("9007199254740993", "9007199254740992") {
		t.Error("equal values have to look equal, others not")
	}
	if string(r.Value(jsontext.Value(`"x"`))) == string(tfstate.NewRedactor([]byte("other")).Value(jsontext.Value(`"x"`))) {
		t.Error("the key does not matter")
	}
}

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]tfstate.Address{
		`aws_vpc.a`:                              {Type: "aws_vpc", Name: "a"},
		`data.aws_vpc.a[0]`:                      {Data: true, Type: "aws_vpc", Name: "a", Key: "0"},
		`module.x["a.b\"]"].module.y.aws_vpc.a`:  {Module: `module.x["a.b\"]"].module.y`, Type: "aws_vpc", Name: "a"},
		`aws_vpc.a["x"] (deposed 0a1b2c3d)`:      {Type: "aws_vpc", Name: "a", Key: `"x"`, Deposed: "0a1b2c3d"},
		`module.data.data.aws_vpc.data`:          {Module: "module.data", Data: true, Type: "aws_vpc", Name: "data"},
		`module.module.aws_vpc.module["module"]`: {Module: "module.module", Type: "aws_vpc", Name: "module", Key: `"module"`},
	} {
		got, err := tfstate.ParseAddress(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("%s: %+v, %v, printed %s", s, got, err, got)
		}
	}
	for _, s := range []string{"", "aws_vpc", "a.b.c", "module.a", "a.b[", `a.b["x`, `a.b["x"`, "a..b", "a.b]", `a["x"].b`, "a.b[]", `a.b["x"]y`} {
		if got, err := tfstate.ParseAddress(s); err == nil || !strings.Contains(err.Error(), "parse address") {
			t.Errorf("%q: %+v, %v, want an error", s, got, err)
		}
	}
}

func TestCompareAddress(t *testing.T) {
	sorted := []tfstate.Address{
		{Type: "a", Name: "a"}, {Type: "a", Name: "a", Deposed: "1"}, {Type: "a", Name: "a", Key: "0"}, {Type: "a", Name: "b"},
		{Type: "b", Name: "a"}, {Module: "module.m", Type: "a", Name: "a"}, {Data: true, Type: "a", Name: "a"},
	}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := a.Compare(b); got != cmpInt(i, j) {
				t.Errorf("%s with %s: %d", a, b, got)
			}
		}
	}
}

func cmpInt(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// TestTerraform holds addresses and marks against what Terraform itself prints of recorded states.
func TestTerraform(t *testing.T) {
	for _, name := range []string{"first", "edited", "second"} {
		againstTerraform(t, filepath.Join("testdata", "odd"), name)
	}
	againstMarks(t, mustReadFile(t, filepath.Join("testdata", "odd", "second.tfstate")))
}

// TestTerraformAnew records the states anew where there is a terraform, so that a newer one's habits are seen.
func TestTerraformAnew(t *testing.T) {
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Log("no terraform here")
		return
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), filepath.Join("testdata", "record.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"first", "edited", "second"} {
		againstTerraform(t, dir, name)
	}
	againstMarks(t, mustReadFile(t, filepath.Join(dir, "second.tfstate")))
	againstHistory(t, dir)
}

func againstTerraform(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadFile(filepath.Join(dir, name+".list"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(list), "\n"), "\n")
	var got []string
	for _, i := range mustReadFile(t, filepath.Join(dir, name+".tfstate")) {
		s := i.Address.String()
		got = append(got, s)
		if back, err := tfstate.ParseAddress(s); err != nil || back != i.Address {
			t.Errorf("%s is read back as %+v, %v", s, back, err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: addresses as Terraform prints them (-) and as we do (+):\n%s", name, d)
	}
}

// againstMarks checks that paths of sensitive values find them in values of open type, and that large numbers live.
func againstMarks(t *testing.T, all []*tfstate.Instance) {
	t.Helper()
	for _, i := range all {
		switch i.Address.Name {
		case "secret":
			for p, want := range map[tfstate.Path]string{
				"input.token": `"hush-2"`, `input["a b"].deep[0]`: `"hush-2"`, `input["a b"].deep[1]`: `"open"`, "input.public": `"round 2"`,
			} {
				v, _ := i.Get(p)
				if secret := strings.Contains(want, "hush"); string(v) != want || i.IsSensitive(p) != secret {
					t.Errorf("%s of %s is %s, sensitive %v, marks %q", p, i.Address, v, i.IsSensitive(p), i.Sensitive)
				}
			}
		case "all_secret":
			if !i.IsSensitive("input") {
				t.Errorf("%s: marks %q", i.Address, i.Sensitive)
			}
		case "open":
			for p, want := range map[tfstate.Path]string{
				"input.number": "9007199254740995", "input.huge": "123456789012345678901234567890", `input.nested["a key"].type`: `"string"`, "input.list[1]": `"b"`,
			} {
				if v, _ := i.Get(p); string(v) != want {
					t.Errorf("%s of %s is %s, want %s", p, i.Address, v, want)
				}
			}
		}
	}
}

// TestRecorded reads every recorded file: each is read, or refused with a typed error.
func TestRecorded(t *testing.T) {
	dir := shared(t)
	if dir == "" {
		return
	}
	counts := map[string]map[string]int{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		kind := "read"
		if _, err := tfstate.Read(f, func(i *tfstate.Instance) error { return sound(i) }); err != nil {
			if kind = kindOf(err); kind == "" {
				t.Errorf("%s: %v, which is of no known type", path, err)
			}
		}
		rest, _ := filepath.Rel(dir, path)
		folder, _, _ := strings.Cut(filepath.ToSlash(rest), "/")
		if counts[folder] == nil {
			counts[folder] = map[string]int{}
		}
		counts[folder][kind]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := map[string]int{}
	for folder, kinds := range counts {
		t.Logf("%-22s %v", folder, kinds)
		for kind, n := range kinds {
			sum[kind] += n
		}
	}
	t.Logf("%-22s %v", "all", sum)
	if sum["read"] < 300 || sum["version"] == 0 || sum["format"] == 0 || sum["empty"] == 0 {
		t.Errorf("%v: not what is recorded", sum)
	}
}

var errUnsound = errors.New("unsound instance")

// sound checks what holds for every instance.
func sound(i *tfstate.Instance) error {
	back, err := tfstate.ParseAddress(i.Address.String())
	if err != nil || back != i.Address || !i.Attributes.IsValid(jsontext.AllowDuplicateNames(true)) || i.Hash == 0 {
		return errors.Join(errUnsound, err)
	}
	compact := i.Attributes.Clone()
	if err := compact.Compact(jsontext.AllowDuplicateNames(true)); err != nil || !bytes.Equal(compact, i.Attributes) {
		return errors.Join(errUnsound, err)
	}
	return nil
}
