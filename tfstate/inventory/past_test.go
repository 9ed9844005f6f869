package inventory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// shelf stores what inventories keep, as a store must.
type shelf struct {
	heads map[string][]inventory.Head
	rows  map[string][]inventory.Row
	err   error
}

func newShelf() *shelf {
	return &shelf{heads: map[string][]inventory.Head{}, rows: map[string][]inventory.Row{}}
}

func (s *shelf) put(k *inventory.Keep) {
	if k == nil {
		return
	}
	if k.Fresh {
		s.heads[k.State], s.rows[k.State] = nil, nil
	}
	heads := slices.DeleteFunc(s.heads[k.State], func(h inventory.Head) bool { return h.N < k.Oldest || h.N == k.Head.N })
	s.heads[k.State] = append(heads, k.Head)
	rows, given := s.rows[k.State], 0
	for key, body := range k.Rows {
		given++
		rows = slices.DeleteFunc(rows, func(r inventory.Row) bool { return r.Last == 0 && r.First == k.Head.N && bytes.Equal(r.Key, key) })
		for i := range rows {
			if rows[i].Last == 0 && bytes.Equal(rows[i].Key, key) {
				rows[i].Last = k.Head.N - 1
			}
		}
		if body != nil {
			rows = append(rows, inventory.Row{First: k.Head.N, Key: key, Body: body})
		}
	}
	for _, o := range k.Older {
		for i := range rows {
			if r := &rows[i]; bytes.Equal(r.Key, o.Key) && r.First <= o.First && r.Last != 0 && o.First <= r.Last {
				r.Body = o.Body
			}
		}
	}
	if given != k.Changed {
		panic(fmt.Sprintf("%d rows, said %d", given, k.Changed))
	}
	s.rows[k.State] = slices.DeleteFunc(rows, func(r inventory.Row) bool { return r.Last != 0 && r.Last < k.Oldest })
}

func (s *shelf) past(_ context.Context, state string) (inventory.Past, error) {
	return inventory.Past{Heads: s.heads[state], Rows: func(yield func(inventory.Row, error) bool) {
		for _, r := range s.rows[state] {
			if !yield(r, nil) {
				return
			}
		}
	}}, s.err
}

var red = tfstate.NewRedactor(nil).Keeping([]byte("the key of a store"))

// kept makes an inventory over a shelf, which is given each serial before it is told.
func (s *shelf) kept(history int, told *[]inventory.Serial) *inventory.Inventory {
	return inventory.New(inventory.Options{History: history, Redactor: red, Past: s.past, OnSerial: func(n inventory.Serial) {
		s.put(n.Keep)
		if told != nil {
			*told = append(*told, n)
		}
	}})
}

// view is one instance as an answer shows it, without the values that are sensitive.
func view(i *tfstate.Instance) string {
	if i == nil {
		return "none"
	}
	key, body := red.Store(i)
	return string(key) + string(body)
}

// answers are what an inventory says of the state at uri, asked for every address, moment and identifier.
func answers(v *inventory.Inventory, addresses map[tfstate.Address]bool, moments []time.Time, identifiers map[string]bool) map[string]string {
	all := map[string]string{}
	newest, ok := v.Newest(uri)
	all["newest"] = fmt.Sprint(newest, ok)
	info, ok := v.State(uri)
	all["state"] = fmt.Sprint(info.Snapshot, info.Terraform, info.Instances, ok)
	types := map[string]bool{}
	for a := range addresses {
		types[a.Type] = true
		for _, m := range moments {
			i, s, ok := v.At(uri, a, m)
			all[fmt.Sprint("at ", a, m)] = fmt.Sprint(view(i), s, ok)
		}
	}
	for typ := range types {
		var lines []string
		for _, i := range v.SameType(uri, typ) {
			lines = append(lines, view(i))
		}
		all["type "+typ] = strings.Join(lines, "\n")
	}
	for id := range identifiers {
		var lines []string
		for _, c := range v.Lookup("", "", id) {
			lines = append(lines, fmt.Sprint(c.State, c.Role, c.Path, c.Account, c.Region, c.Current, view(c.Instance)))
		}
		slices.Sort(lines)
		all["lookup "+id] = strings.Join(lines, "\n")
	}
	return all
}

// series gives contents to a live inventory and after each compares it with one that knows the shelf alone.
type series struct {
	shelf       *shelf
	live        *inventory.Inventory
	told        []inventory.Serial
	addresses   map[tfstate.Address]bool
	identifiers map[string]bool
	moments     []time.Time
}

func newSeries(history int) *series {
	s := &series{shelf: newShelf(), addresses: map[tfstate.Address]bool{}, identifiers: map[string]bool{}}
	s.live = s.shelf.kept(history, &s.told)
	return s
}

// note takes from a content what to ask for.
func (s *series) note(text string) error {
	_, err := tfstate.Read(strings.NewReader(text), func(i *tfstate.Instance) error {
		s.addresses[i.Address] = true
		i.Strings(func(_, value string) {
			if len(value) > 2 && len(value) < 200 {
				s.identifiers[value] = true
			}
		})
		return nil
	})
	return err
}

func (s *series) give(t rapid.TB, history int, written time.Time, text string) {
	if err := take(s.live, uri, written, text); err != nil {
		t.Fatal(err)
	}
	if err := s.note(text); err != nil {
		t.Fatal(err)
	}
	info, _ := s.live.State(uri)
	s.moments = append(s.moments, info.Written, info.Written.Add(time.Second))
	want := answers(s.live, s.addresses, s.moments, s.identifiers)

	var told []inventory.Serial
	restored := s.shelf.kept(history, &told)
	restored.Fault(uri, errors.New("not read yet"))
	if d := cmp.Diff(want, answers(restored, s.addresses, s.moments, s.identifiers)); d != "" {
		t.Fatalf("restored (-live +restored):\n%s", d)
	}
	if err := take(restored, uri, time.Now(), text); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !told[0].Again || len(told[0].Changes)+len(told[0].Findings) > 0 || told[0].Keep != nil {
		t.Fatalf("read again: told %+v", told)
	}
	if d := cmp.Diff(want, answers(restored, s.addresses, s.moments, s.identifiers)); d != "" {
		t.Fatalf("read again (-live +restored):\n%s", d)
	}
}

// TestRestoredAnswersAsLive follows real states; TFDRIFT_SERIES names a folder with more of them.
func TestRestoredAnswersAsLive(t *testing.T) {
	var names []string
	for _, root := range []string{"testdata", os.Getenv("TFDRIFT_SERIES")} {
		if root == "" {
			continue
		}
		_ = filepath.WalkDir(root, func(path string, _ os.DirEntry, _ error) error {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && strings.HasSuffix(path, ".tfstate") {
				names = append(names, path)
			}
			return nil
		})
	}
	byDir := map[string][]string{}
	for _, n := range names {
		byDir[filepath.Dir(n)] = append(byDir[filepath.Dir(n)], n)
	}
	if len(byDir["testdata/techchallenge"]) != 9 {
		t.Fatalf("fixtures: %v", byDir)
	}
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			s := newSeries(4)
			for n, path := range byDir[dir] {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tfstate.Read(bytes.NewReader(text), func(*tfstate.Instance) error { return nil }); err != nil {
					t.Log(err) // an older format
					continue
				}
				s.give(t, 4, minute(n), string(text))
			}
		})
	}
}

// drawn is a state made by chance: few names and ids, so that instances move, are replaced, go and come back.
// Ids are sensitive in all of a series or in nothing.
func drawn(t *rapid.T, lineage string, serial int, hidden bool) string {
	var all []resource
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID[string]).Draw(t, "names") {
		id := rapid.SampledFrom([]string{"id-1", "id-2", "id-3", "id-4", ""}).Draw(t, "id")
		secret := rapid.SampledFrom([]string{"hunter2", "hunter3", ""}).Draw(t, "secret")
		r := resource{typ: "aws_thing", name: name, attributes: fmt.Sprintf(
			`{"id":%q,"arn":"arn:aws:thing:eu-west-1:111111111111:thing/%s","name":"name-%s","secret":%q,"nested":{"x":[%q,1]}}`, id, id, secret, secret, secret)}
		r.marks = rapid.SampledFrom([]string{"", `[{"type":"get_attr","value":"secret"}],[{"type":"get_attr","value":"nested"}]`}).Draw(t, "marks")
		if hidden {
			r.marks += `,[{"type":"get_attr","value":"id"}],[{"type":"get_attr","value":"name"}]`
		}
		r.marks = "[" + strings.Trim(r.marks, ",") + "]"
		all = append(all, r)
	}
	return state(lineage, serial, all...)
}

func TestRestoredAnswersAsLiveAtRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSeries(3)
		lineage, serial, hidden := "l", 5, rapid.Bool().Draw(t, "hidden ids")
		for n := range rapid.IntRange(1, 8).Draw(t, "serials") {
			serial = max(serial+rapid.SampledFrom([]int{1, 1, 1, 2, 0, -1}).Draw(t, "step"), 1)
			if rapid.IntRange(0, 9).Draw(t, "lineage") == 0 {
				lineage += "x"
			}
			s.give(t, 3, minute(n), drawn(t, lineage, serial, hidden))
		}
	})
}

// TestToldOverARestart: the same contents tell and answer the same, whether the process ends between any two of them or not.
func TestToldOverARestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		through, cut, asked := newShelf(), newShelf(), newSeries(3)
		var want, got []inventory.Serial
		live := through.kept(3, &want)
		restarted := cut.kept(3, &got)
		serial, hidden := 5, rapid.Bool().Draw(t, "hidden ids")
		for n := range rapid.IntRange(2, 8).Draw(t, "serials") {
			serial = max(serial+rapid.SampledFrom([]int{1, 1, 2, 0, -1}).Draw(t, "step"), 1)
			text := drawn(t, "l", serial, hidden)
			if err := asked.note(text); err != nil {
				t.Fatal(err)
			}
			asked.moments = append(asked.moments, minute(n), minute(n).Add(time.Second))
			for _, v := range []*inventory.Inventory{live, restarted} {
				if err := take(v, uri, minute(n), text); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.Bool().Draw(t, "restart") {
				restarted = cut.kept(3, &got)
			}
		}
		told := func(all []inventory.Serial) (lines []string) {
			for _, s := range all {
				if !s.Again {
					s.Keep = nil
					lines = append(lines, fmt.Sprintf("%+v", s))
				}
			}
			return lines
		}
		if d := cmp.Diff(told(want), told(got)); d != "" {
			t.Fatalf("(-through +restarted):\n%s", d)
		}
		restarted.Fault(uri, errors.New("asks for what was stored"))
		ask := func(v *inventory.Inventory) map[string]string {
			return answers(v, asked.addresses, asked.moments, asked.identifiers)
		}
		if d := cmp.Diff(ask(live), ask(restarted)); d != "" {
			t.Fatalf("answers (-through +restarted):\n%s", d)
		}
	})
}

// noSecret looks for the secrets of these tests in what is kept of the state.
func noSecret(t *testing.T, s *shelf) {
	t.Helper()
	for _, row := range s.rows[uri] {
		if bytes.Contains(row.Body, []byte("hunter")) {
			t.Errorf("kept: %s", row.Body)
		}
	}
}

// TestNoSecretIsKept looks for a secret in all that an inventory gives away to be stored.
func TestNoSecretIsKept(t *testing.T) {
	s := newShelf()
	v := s.kept(3, nil)
	r := resource{typ: "aws_thing", name: "a", attributes: `{"id":"i","secret":"hunter2"}`, marks: `[[{"type":"get_attr","value":"secret"}]]`}
	give(t, v, uri, minute(0), state("l", 1, r))
	r.attributes = `{"id":"i","secret":"hunter3"}`
	give(t, v, uri, minute(1), state("l", 2, r))
	if len(s.rows[uri]) != 2 {
		t.Fatalf("%d rows", len(s.rows[uri]))
	}
	noSecret(t, s)
}

// TestMarksAreKept: an instance that comes to be marked is stored anew under its serial, and so is what it was before.
func TestMarksAreKept(t *testing.T) {
	s := newShelf()
	var told []inventory.Serial
	v := s.kept(3, &told)
	r := resource{typ: "aws_thing", name: "a", attributes: `{"id":"i","secret":"hunter2"}`}
	give(t, v, uri, minute(0), state("l", 1, r))
	r.marks = `[[{"type":"get_attr","value":"secret"}]]`
	give(t, v, uri, minute(0), state("l", 1, r))
	if len(told) != 2 || !told[1].Again || told[1].Keep == nil || len(s.rows[uri]) != 1 {
		t.Errorf("told %d, %d rows", len(told), len(s.rows[uri]))
	}
	give(t, v, uri, minute(1), state("l", 2, resource{typ: "aws_thing", name: "b", attributes: `{"id":"j","secret":"hunter4"}`}))
	r.name, r.attributes = "b", `{"id":"j","secret":"hunter5"}`
	give(t, v, uri, minute(2), state("l", 3, r))
	if len(s.rows[uri]) != 3 {
		t.Fatalf("%d rows", len(s.rows[uri]))
	}
	noSecret(t, s)
}

// TestMarksAreKeptOfWhatMoved: what an instance was at another address is hidden too.
func TestMarksAreKeptOfWhatMoved(t *testing.T) {
	s := newShelf()
	v := s.kept(5, nil)
	was := resource{typ: "aws_thing", name: "a", attributes: `{"id":"i","secret":"hunter2"}`}
	is := resource{typ: "aws_thing", name: "b", attributes: `{"id":"i","secret":"hunter3"}`}
	other := resource{typ: "aws_thing", name: "c", attributes: `{"id":"k","secret":"plain"}`}
	give(t, v, uri, minute(0), state("l", 1, was, other))
	give(t, v, uri, minute(1), state("l", 2, is, other))
	is.marks = `[[{"type":"get_attr","value":"secret"}]]`
	give(t, v, uri, minute(2), state("l", 3, is, other))
	plain := 0
	for _, row := range s.rows[uri] {
		if bytes.Contains(row.Body, []byte("hunter")) {
			t.Errorf("kept: %s", row.Body)
		}
		if bytes.Contains(row.Body, []byte("plain")) {
			plain++
		}
	}
	if len(s.rows[uri]) != 4 || plain != 1 {
		t.Errorf("%d rows, %d of another instance, want 4 and 1", len(s.rows[uri]), plain)
	}
}

// TestOnlyWhatChangedIsKept counts rows.
func TestOnlyWhatChangedIsKept(t *testing.T) {
	s := newShelf()
	var told []inventory.Serial
	v := s.kept(10, &told)
	give(t, v, uri, minute(0), large(1000, 0))
	v = s.kept(10, &told)
	text := strings.Replace(large(1000, 3), `"serial":1`, `"serial":2`, 1)
	give(t, v, uri, minute(1), text)
	if got := told[len(told)-1].Keep.Changed; got != 3 {
		t.Errorf("%d rows for 3 changes", got)
	}
}

// TestPastThatCannotBeUsed: the state's history starts anew, with a word in the log.
func TestPastThatCannotBeUsed(t *testing.T) {
	for name, spoil := range map[string]func(*shelf){
		"an error":   func(s *shelf) { s.err = errors.New("disk") },
		"a body":     func(s *shelf) { s.rows[uri][0].Body[30] ^= 1 },
		"newer body": func(s *shelf) { s.rows[uri][0].Body[0] = '9' },
		"a head":     func(s *shelf) { s.heads[uri][0].Text = []byte("{") },
		"newer head": func(s *shelf) { s.heads[uri][0].Text = []byte(`{"format":9}`) },
		"a lost row": func(s *shelf) { s.rows[uri] = s.rows[uri][1:] },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf()
			v := s.kept(3, nil)
			give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1"), vpc("b", "vpc-2")))
			give(t, v, uri, minute(1), state("l", 2, vpc("a", "vpc-1"), vpc("b", "vpc-3")))
			spoil(s)
			var log bytes.Buffer
			var told []inventory.Serial
			v = inventory.New(inventory.Options{Redactor: red, Past: s.past, Log: slog.New(slog.NewTextHandler(&log, nil)), OnSerial: func(n inventory.Serial) {
				s.err = nil
				s.put(n.Keep)
				told = append(told, n)
			}})
			give(t, v, uri, minute(2), state("l", 3, vpc("a", "vpc-1")))
			if len(told) != 1 || !told[0].First || !told[0].Keep.Fresh || !strings.Contains(log.String(), "starts anew") {
				t.Errorf("told %+v, log %s", told, log.String())
			}
			if len(s.heads[uri]) != 1 || len(s.rows[uri]) != 1 {
				t.Errorf("kept: %d heads, %d rows", len(s.heads[uri]), len(s.rows[uri]))
			}
			again := s.kept(3, &told)
			give(t, again, uri, minute(2), state("l", 3, vpc("a", "vpc-1")))
			if got := told[len(told)-1]; !got.Again {
				t.Errorf("after the new start: %+v", got)
			}
		})
	}
}

// TestShorterHistory keeps fewer serials than were stored.
func TestShorterHistory(t *testing.T) {
	s := newShelf()
	v := s.kept(10, nil)
	for n := range 6 {
		give(t, v, uri, minute(n), state("l", n+1, vpc("a", fmt.Sprint("vpc-", n))))
	}
	v = s.kept(2, nil)
	give(t, v, uri, minute(6), state("l", 7, vpc("a", "vpc-6")))
	if len(s.heads[uri]) != 2 || len(s.rows[uri]) != 2 || v.Figures().Snapshots != 2 {
		t.Errorf("kept: %d heads, %d rows", len(s.heads[uri]), len(s.rows[uri]))
	}
}

// TestPastEndsWithItsContext: a stop while the past is read spoils nothing.
func TestPastEndsWithItsContext(t *testing.T) {
	s := newShelf()
	give(t, s.kept(3, nil), uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
	ctx, stop := context.WithCancel(t.Context())
	var told []inventory.Serial
	v := inventory.New(inventory.Options{Redactor: red, OnSerial: func(n inventory.Serial) { told = append(told, n) },
		Past: func(_ context.Context, state string) (inventory.Past, error) {
			stop()
			past, _ := s.past(ctx, state)
			if len(told) == 0 && ctx.Err() != nil {
				return past, ctx.Err()
			}
			return past, nil
		}})
	if err := v.Version(ctx, version(uri, minute(0), state("l", 1, vpc("a", "vpc-1")))); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if len(told) > 0 {
		t.Errorf("told %+v", told)
	}
}

// TestPastThatCannotBeReadNow: the state is not read without it, and has it when it is read.
func TestPastThatCannotBeReadNow(t *testing.T) {
	s := newShelf()
	give(t, s.kept(3, nil), uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
	var told []inventory.Serial
	v := s.kept(3, &told)
	s.err = fmt.Errorf("disk: %w", inventory.ErrLater)
	if err := take(v, uri, minute(1), state("l", 2, vpc("a", "vpc-2"))); !errors.Is(err, inventory.ErrLater) {
		t.Fatalf("got %v", err)
	}
	s.err = nil
	give(t, v, uri, minute(1), state("l", 2, vpc("a", "vpc-2")))
	if len(told) != 1 || told[0].Previous != 1 || len(told[0].Changes) != 1 {
		t.Errorf("told %+v", told)
	}
}

// TestReadersOfAPast asks while what was stored comes back and gives way to what is read, by two sources at once.
func TestReadersOfAPast(t *testing.T) {
	s := newShelf()
	secret := func(serial int) string {
		return state("l", serial, resource{typ: "aws_thing", name: "a", marks: `[[{"type":"get_attr","value":"secret"}]]`,
			attributes: fmt.Sprintf(`{"id":"thing-1","name":"n","secret":"hunter%d"}`, serial%2)})
	}
	v := s.kept(3, nil)
	for n := 1; n <= 3; n++ {
		give(t, v, uri, minute(n), secret(n))
	}
	for range 20 {
		var told atomic.Int32
		v := inventory.New(inventory.Options{Redactor: red, Past: s.past, OnSerial: func(n inventory.Serial) {
			if told.Add(1); !n.Again {
				t.Errorf("told %+v", n)
			}
		}})
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if err := take(v, uri, minute(3), secret(3)); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				for range 200 {
					v.Lookup("", "", "thing-1")
					v.SameType(uri, "aws_thing")
					if i, _, ok := v.At(uri, tfstate.Address{Type: "aws_thing", Name: "a"}, minute(100)); ok && i.ID() != "thing-1" {
						t.Errorf("id %q", i.ID())
					}
					v.Figures()
				}
			})
		}
		all.Wait()
		if told.Load() != 1 || v.Figures().Snapshots != 3 {
			t.Errorf("told %d times, %d snapshots", told.Load(), v.Figures().Snapshots)
		}
	}
}

func TestFigures(t *testing.T) {
	v := inventory.New(inventory.Options{History: 2})
	for n := range 3 {
		give(t, v, uri, minute(n), state("l", n+1, vpc("a", "vpc-1"), vpc("b", fmt.Sprint("vpc-b", n))))
	}
	give(t, v, uri, minute(3), state("l", 3, vpc("a", "vpc-1"), vpc("b", "vpc-b2")))
	v.Fault("file:///x", &tfstate.VersionError{Version: 9})
	v.Fault("file:///y", fmt.Errorf("read: %w", os.ErrPermission))
	f := v.Figures()
	if f.Read.IsZero() || f.ParseTime <= 0 || f.ParseSize == 0 {
		t.Errorf("got %+v", f)
	}
	f.Read, f.ParseTime, f.ParseSize = time.Time{}, 0, 0
	want := inventory.Figures{
		States: 3, Instances: 2, Snapshots: 2, Identifiers: f.Identifiers, Written: minute(2), Serials: 3, Parses: 4,
		Faults: map[string]int{"format": 0, "incomplete": 0, "missing": 0, "other": 0, "permission": 1, "version": 1},
	}
	if d := cmp.Diff(want, f); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	give(t, v, uri, minute(4), state("m", 1))
	if got := v.Figures().Identifiers; got != 0 || f.Identifiers == 0 {
		t.Errorf("identifiers: %d of no instance, %d of three", got, f.Identifiers)
	}
}
