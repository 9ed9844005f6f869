package tfstate_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// seeds are the recorded states of testdata and, where they are, some of the shared ones.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "odd", "*.tfstate"))
	if err != nil || len(paths) == 0 {
		f.Fatal("no recorded states", err)
	}
	if dir := shared(f); dir != "" {
		more, _ := filepath.Glob(filepath.Join(dir, "inframap", "*.json"))
		paths = append(paths, more...)
	}
	all := [][]byte{
		[]byte(one(`{"index_key":"a","attributes":{"id":"x","n":1.5e3,"o":{"value":[1],"type":["list","number"]}},"sensitive_attributes":[[{"type":"get_attr","value":"n"}]]}`)),
		[]byte(`{"format_version":"1.0"}`),
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

// FuzzRead reads anything: whatever comes is sound, or the error is a typed one.
func FuzzRead(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var all []*tfstate.Instance
		_, err := tfstate.Read(bytes.NewReader(text), func(i *tfstate.Instance) error {
			all = append(all, i)
			return nil
		})
		if err != nil && kindOf(err) == "" {
			t.Errorf("%v is of no known type", err)
		}
		for _, i := range all {
			if !i.Attributes.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
				t.Errorf("attributes %q", i.Attributes)
			}
			for _, p := range i.Sensitive {
				if !i.IsSensitive(p) {
					t.Errorf("%q is marked, but not sensitive", p)
				}
			}
			if changes := tfstate.Diff([]*tfstate.Instance{i}, []*tfstate.Instance{i}, nil); len(changes) > 0 {
				t.Errorf("changes of nothing: %v", lines(changes))
			}
		}
	})
}

// FuzzParseAddress: what is read as an address is printed the same, and read back the same.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range seeds(f)[2:5] {
		for _, i := range mustRead(f, string(seed)) {
			f.Add(i.Address.String())
		}
	}
	f.Add(`a.b (deposed 0a1b2c3d)`)
	f.Fuzz(func(t *testing.T, s string) {
		a, err := tfstate.ParseAddress(s)
		if err != nil {
			return
		}
		if got := a.String(); got != s {
			t.Errorf("%q is printed as %q", s, got)
		}
		if back, err := tfstate.ParseAddress(a.String()); err != nil || back != a {
			t.Errorf("%q: %+v is read back as %+v, %v", s, a, back, err)
		}
	})
}

// FuzzDiff compares attributes: what changed is found under its path on both sides, and putting nothing else right is
// needed for the two to be equal.
func FuzzDiff(f *testing.F) {
	f.Add([]byte(`{"id":"1","a":{"b c":[1,{"d":null}]}}`), []byte(`{"id":"1","a":{"b c":[2,{"d":0}],"${x}":"y"}}`), "a")
	f.Add([]byte(`{"id":"1"}`), []byte(`{"id":"2","n":12345678901234567890}`), "n")
	f.Add([]byte(`{"a.b":1,"":{"\n":[[]]}}`), []byte(`{"a.b":1.0,"":{"\n":[[1]]}}`), `["a.b"]`)
	f.Fuzz(func(t *testing.T, a, b []byte, marked string) {
		for _, v := range [][]byte{a, b} {
			if kind := jsontext.Value(v).Kind(); kind != '{' || !jsontext.Value(v).IsValid() || !utf8.Valid(v) {
				return
			}
		}
		address := tfstate.Address{Type: "t", Name: "n"}
		old := &tfstate.Instance{Address: address, Attributes: a, Hash: 1}
		new := &tfstate.Instance{Address: address, Attributes: b, Hash: 2, Sensitive: []tfstate.Path{tfstate.Path(marked)}}
		changes := tfstate.Diff([]*tfstate.Instance{old}, []*tfstate.Instance{new}, nil)
		if tfstate.Equal(a, b) != (len(changes) == 0) {
			t.Errorf("equal %v, changes %v", tfstate.Equal(a, b), lines(changes))
		}
		for _, c := range changes {
			for _, at := range c.Attributes {
				if secret := new.IsSensitive(at.Path); secret != at.Sensitive {
					t.Errorf("%s sensitive %v, want %v", at.Path, at.Sensitive, secret)
				}
				was, had := old.Get(at.Path)
				is, has := new.Get(at.Path)
				if had != (at.Old != nil) || has != (at.New != nil) || !at.Sensitive && (!tfstate.Equal(was, at.Old) || !tfstate.Equal(is, at.New)) {
					t.Errorf("%s: %s -> %s, but Get gives %s and %s", at.Path, at.Old, at.New, was, is)
				}
			}
		}
	})
}
