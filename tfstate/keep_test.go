package tfstate_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// marked is one instance with values of every kind under marks.
const marked = `{"version":4,"serial":1,"lineage":"l","resources":[{"mode":"managed","type":"aws_db_instance","name":"d","module":"module.a[\"x y\"]","provider":"p","instances":[
 {"index_key":"k","status":"tainted","schema_version":2,"attributes":{"id":"db-1","password":"hunter2","port":5432,"none":null,"empty":"","list":["open","s3cret"],
 "env":{"A":"one","B":{"c":true}},"escaped":"\u0041\/b","set":[{"x":"deep"}]},
 "sensitive_attributes":[[{"type":"get_attr","value":"password"}],[{"type":"get_attr","value":"port"}],[{"type":"get_attr","value":"none"}],[{"type":"get_attr","value":"empty"}],
 [{"type":"get_attr","value":"list"},{"type":"index","value":{"value":1,"type":"number"}}],[{"type":"get_attr","value":"env"}],
 [{"type":"get_attr","value":"set"},{"type":"get_attr","value":"x"}]]}]}]}`

func keeping(key, own string) *tfstate.Redactor {
	return tfstate.NewRedactor([]byte(key)).Keeping([]byte(own))
}

func only(t *testing.T, text string) *tfstate.Instance {
	t.Helper()
	var one *tfstate.Instance
	if _, err := tfstate.Read(strings.NewReader(text), func(i *tfstate.Instance) error { one = i; return nil }); err != nil || one == nil {
		t.Fatal(err)
	}
	return one
}

// again stores an instance and makes it anew.
func again(t *testing.T, red *tfstate.Redactor, i *tfstate.Instance) *tfstate.Instance {
	t.Helper()
	key, body := red.Store(i)
	var u tfstate.Unstorer
	got, err := u.Unstore(key, body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestStoredValuesAreHashed(t *testing.T) {
	i := only(t, marked)
	_, body := keeping("", "own key").Store(i)
	for _, secret := range []string{"hunter2", "5432", "s3cret", `"one"`, "deep", `"c":true`} {
		if bytes.Contains(body[17:], []byte(secret)) {
			t.Errorf("%q is stored: %s", secret, body)
		}
	}
	for _, open := range []string{`"db-1"`, `"open"`, `"none":null`, `"empty":""`, `"escaped":"\u0041\/b"`} {
		if !bytes.Contains(body, []byte(open)) {
			t.Errorf("%q is not stored: %s", open, body)
		}
	}
}

func TestStoreAndUnstore(t *testing.T) {
	red := keeping("", "own key")
	i := only(t, marked)
	got := again(t, red, i)
	if got.Address != i.Address || got.Provider != i.Provider || !got.Tainted || got.SchemaVersion != 2 || !cmp.Equal(got.Sensitive, i.Sensitive) {
		t.Errorf("got %+v, want %+v", got, i)
	}
	if got.Hash == i.Hash || !red.Alike(got, i) {
		t.Error("a stored instance is not like the one it was made from")
	}
	twice := again(t, red, got)
	if twice.Hash != got.Hash || !bytes.Equal(twice.Attributes, got.Attributes) {
		t.Errorf("stored again: %s, want %s", twice.Attributes, got.Attributes)
	}
	plain := only(t, strings.Replace(marked, "sensitive_attributes", "other", 1))
	if got := again(t, red, plain); got.Hash != plain.Hash || !bytes.Equal(got.Attributes, plain.Attributes) {
		t.Errorf("without marks: %s, want %s", got.Attributes, plain.Attributes)
	}
}

// TestDiffOfStored compares a stored instance with what is read later: no false change, and every true one.
func TestDiffOfStored(t *testing.T) {
	i := only(t, marked)
	for name, red := range map[string]*tfstate.Redactor{"own": keeping("", "own key"), "shared": keeping("a shared key", "own key")} {
		stored := again(t, red, i)
		if d := tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{i}, red); len(d) > 0 {
			t.Errorf("%s: a change of nothing: %+v", name, d)
		}
		for change, path := range map[[2]string]tfstate.Path{
			{"hunter2", "hunter3"}: "password", {"5432", "5433"}: "port", {`"s3cret"`, `"other"`}: "list[1]",
			{`"c":true`, `"c":false`}: "env.B.c", {`"one"`, "null"}: "env.A", {`"none":null`, `"none":"now"`}: "none",
		} {
			next := only(t, strings.Replace(marked, change[0], change[1], 1))
			live := tfstate.Diff([]*tfstate.Instance{i}, []*tfstate.Instance{next}, red)
			if len(live) != 1 || len(live[0].Attributes) != 1 || live[0].Attributes[0].Path != path {
				t.Fatalf("%s: want a change of %s: %+v", name, path, live)
			}
			for kind, got := range map[string][]tfstate.Change{
				"stored and read":   tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{next}, red),
				"stored and stored": tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{again(t, red, next)}, red),
			} {
				if d := cmp.Diff(live, got); d != "" {
					t.Errorf("%s, %s, %s (-live +stored):\n%s", name, kind, path, d)
				}
			}
		}
	}
}

// TestOtherKey: what was hashed under another key cannot be compared, and is not said to have changed.
func TestOtherKey(t *testing.T) {
	i := only(t, marked)
	stored, red := again(t, keeping("", "own key"), i), keeping("a shared key", "own key")
	next := only(t, strings.Replace(marked, "hunter2", "hunter3", 1))
	if d := tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{next}, red); len(d) > 0 {
		t.Errorf("told as changed: %+v", d)
	}
	v, _ := stored.Get("password")
	if red.Comparable(v) || string(red.Value(v)) != `"(sensitive)"` {
		t.Errorf("shown as %s", red.Value(v))
	}
	emptied := only(t, strings.Replace(marked, `"hunter2"`, `""`, 1))
	if d := tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{emptied}, red); len(d) != 1 || d[0].Attributes[0].Path != "password" {
		t.Errorf("a password that went: %+v", d)
	}
}

// TestReveal: what is read shows the values that it has in common with what was stored, and no others.
func TestReveal(t *testing.T) {
	red := keeping("", "own key")
	i := only(t, marked)
	stored := again(t, red, i)
	if got := red.Reveal(stored, i); got != i {
		t.Errorf("of the same: %s", got.Attributes)
	}
	next := only(t, strings.NewReplacer("hunter2", "hunter3", `"db-1"`, `"db-9"`).Replace(marked))
	got := red.Reveal(stored, next)
	for path, want := range map[tfstate.Path]string{"port": "5432", "env.A": `"one"`, "list[1]": `"s3cret"`, "set[0].x": `"deep"`, "id": `"db-1"`} {
		if v, _ := got.Get(path); string(v) != want {
			t.Errorf("%s: %s, want %s", path, v, want)
		}
	}
	if v, _ := got.Get("password"); !tfstate.Kept(v) {
		t.Errorf("password: %s", v)
	}
	if red.Reveal(i, next) != nil || keeping("", "another").Reveal(stored, i) != nil {
		t.Error("revealed without a hash, or under another key")
	}
}

// TestValueOfStored: a stored hash is shown as the value's own.
func TestValueOfStored(t *testing.T) {
	i := only(t, marked)
	for name, c := range map[string]struct {
		red  *tfstate.Redactor
		want string
	}{
		"shared": {keeping("a shared key", "own"), string(tfstate.NewRedactor([]byte("a shared key")).Value(jsontext.Value(`"hunter2"`)))},
		"own":    {keeping("", "own"), `"(sensitive)"`},
	} {
		v, _ := again(t, c.red, i).Get("password")
		if got := string(c.red.Value(v)); got != c.want || !tfstate.Kept(v) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if env, _ := again(t, c.red, i).Get("env"); string(c.red.Value(env)) != `"(sensitive)"` {
			t.Errorf("%s: a hash over hashes is shown: %s", name, c.red.Value(env))
		}
	}
}

// TestSensitiveID: an id that is hashed still tells moved and replaced instances apart.
func TestSensitiveID(t *testing.T) {
	red := keeping("", "own key")
	text := strings.Replace(marked, `"value":"password"`, `"value":"id"`, 1)
	i := only(t, text)
	stored := again(t, red, i)
	if stored.ID() == i.ID() || !red.SameID(stored, i) || red.ID(stored) != red.ID(i) {
		t.Errorf("ids %q and %q", red.ID(stored), red.ID(i))
	}
	for change, want := range map[[2]string]tfstate.Action{
		{`"name":"d"`, `"name":"e"`}: tfstate.Moved, {`"db-1"`, `"db-2"`}: tfstate.Replaced, {`"open"`, `"shut"`}: tfstate.Modified,
	} {
		next := only(t, strings.Replace(text, change[0], change[1], 1))
		if d := tfstate.Diff([]*tfstate.Instance{stored}, []*tfstate.Instance{next}, red); len(d) != 1 || d[0].Action != want {
			t.Errorf("want %s: %+v", want, d)
		}
	}
}

func TestUnstoreErrors(t *testing.T) {
	key, body := keeping("", "own").Store(only(t, marked))
	changed := bytes.Replace(body, []byte("db-1"), []byte("db-2"), 1)
	newer := append([]byte{'2'}, body[1:]...)
	var u tfstate.Unstorer
	for name, c := range map[string]struct {
		key, body []byte
		want      error
	}{
		"nothing": {key, nil, tfstate.ErrDamaged}, "cut off": {key, body[:len(body)-2], tfstate.ErrDamaged},
		"changed": {key, changed, tfstate.ErrDamaged}, "another key": {[]byte(`["managed","","a","b","",""]`), body, tfstate.ErrDamaged},
		"newer": {key, newer, tfstate.ErrNewer},
	} {
		if _, err := u.Unstore(c.key, c.body); !errors.Is(err, c.want) || strings.Contains(err.Error(), "db-") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzUnstore: whatever lies in the file is an instance or an error, and an instance can be asked and stored again.
func FuzzUnstore(f *testing.F) {
	red := keeping("", "own")
	var one *tfstate.Instance
	if _, err := tfstate.Read(strings.NewReader(marked), func(i *tfstate.Instance) error { one = i; return nil }); err != nil {
		f.Fatal(err)
	}
	key, body := red.Store(one)
	f.Add(key, body[17:])
	f.Add([]byte(`["data","","a","b","0","d"]`), []byte("{}\n{\"a\":[1,{}]}"))
	f.Add([]byte(`[]`), []byte("null\n[]"))
	f.Fuzz(func(t *testing.T, key, text []byte) {
		var u tfstate.Unstorer
		_, _ = u.Unstore(key, text)
		i, err := u.Unstore(key, tfstate.Sealed(key, text))
		if err != nil {
			if !errors.Is(err, tfstate.ErrDamaged) {
				t.Errorf("error %v", err)
			}
			return
		}
		i.Strings(func(string, string) {})
		k, b := red.Store(i)
		again, err := u.Unstore(k, b)
		if err != nil || again.Address != i.Address || !red.Alike(again, i) {
			t.Errorf("stored again: %v, %+v of %+v", err, again, i)
		}
	})
}
