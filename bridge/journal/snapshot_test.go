package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// row is a key from a snapshot on; no body is its end.
func row(key, body string) journal.SnapshotRow {
	if body == "" {
		return journal.SnapshotRow{Key: []byte(key)}
	}
	return journal.SnapshotRow{Key: []byte(key), Body: []byte(body)}
}

// histories gives what a state had at each snapshot: by number, the head and then key and body.
func histories(t rapid.TB, j *journal.Journal, state string) map[int64]map[string]string {
	h, err := j.History(context.Background(), state)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int64]map[string]string{}
	for _, head := range h.Heads {
		all[head.N] = map[string]string{"": string(head.Head)}
	}
	for r, err := range h.Rows {
		if err != nil {
			t.Fatal(err)
		}
		for n, has := range all {
			if r.First <= n && (r.Last == 0 || n <= r.Last) {
				if _, twice := has[string(r.Key)]; twice {
					t.Fatalf("%q is there twice in snapshot %d", r.Key, n)
				}
				has[string(r.Key)] = string(r.Body)
			}
		}
	}
	return all
}

func snapshot(n, oldest int64, rows ...journal.SnapshotRow) journal.Commit {
	return journal.Commit{Snapshots: []journal.Snapshot{{State: "s", N: n, Oldest: oldest, Head: fmt.Append(nil, "head ", n), Rows: rows}}}
}

func TestHistory(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	if got := histories(t, j, "s"); len(got) != 0 {
		t.Errorf("of a state never stored: %v", got)
	}
	commit(t, j, snapshot(1, 1, row("a", "1"), row("b", "1"), row("c", "1")))
	commit(t, j, snapshot(2, 1, row("a", "2"), row("b", "")))
	commit(t, j, snapshot(3, 2, row("b", "3"), row("c", "")))
	want := map[int64]map[string]string{2: {"": "head 2", "a": "2", "c": "1"}, 3: {"": "head 3", "a": "2", "b": "3"}}
	if d := cmp.Diff(want, histories(t, j, "s")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	commit(t, j, snapshot(3, 2, row("a", "3"), row("b", ""))) // again, with other marks
	want[3] = map[string]string{"": "head 3", "a": "3"}
	older := snapshot(3, 2)
	older.Snapshots[0].Older = []journal.HistoryRow{{First: 2, Key: []byte("c"), Body: []byte("hidden")}, {First: 2, Key: []byte("none"), Body: []byte("x")}}
	commit(t, j, older)
	want[2]["c"] = "hidden"
	if err := j.PruneHistory(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, journal.Options{})
	if d := cmp.Diff(want, histories(t, j, "s")); d != "" {
		t.Errorf("reopened (-want +got):\n%s", d)
	}
	commit(t, j, journal.Commit{Snapshots: []journal.Snapshot{{State: "s", N: 1, Oldest: 1, Fresh: true, Rows: []journal.SnapshotRow{row("z", "1")}}}})
	if d := cmp.Diff(map[int64]map[string]string{1: {"": "", "z": "1"}}, histories(t, j, "s")); d != "" {
		t.Errorf("anew (-want +got):\n%s", d)
	}
}

// TestHistoryIsLikeItsModel: snapshots in pieces or whole, ends of the process at any place, pruning: what is there is
// what was committed.
func TestHistoryIsLikeItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		var j *journal.Journal
		reopen := func() {
			if j != nil {
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
			}
			var err error
			if j, err = journal.Open(t.Context(), dir, journal.Options{}); err != nil {
				rt.Fatal(err)
			}
		}
		reopen()
		defer func() { j.Close() }()
		want, now, n := map[int64]map[string]string{}, map[string]string{}, int64(0)
		for range rapid.IntRange(1, 8).Draw(rt, "snapshots") {
			next, rows := maps.Clone(now), []journal.SnapshotRow(nil)
			for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID[string]).Draw(rt, "keys") {
				body := rapid.SampledFrom([]string{"", "1", "2"}).Draw(rt, "body")
				rows = append(rows, row(key, body))
				if next[key] = body; body == "" {
					delete(next, key)
				}
			}
			c := snapshot(n+1, max(1, n-1), rows...)
			if staged := rapid.IntRange(0, len(rows)).Draw(rt, "staged"); staged > 0 {
				ahead := c.Snapshots[0]
				ahead.Rows, c.Snapshots[0].Rows = rows[:staged], rows[staged:]
				if err := j.Stage(t.Context(), ahead); err != nil {
					rt.Fatal(err)
				}
				if rapid.IntRange(0, 3).Draw(rt, "cut off") == 0 {
					reopen()
					continue
				}
			}
			if err := j.Commit(t.Context(), c); err != nil {
				rt.Fatal(err)
			}
			n++
			now = maps.Clone(next)
			delete(want, n-3)
			want[n] = maps.Clone(next)
			want[n][""] = fmt.Sprint("head ", n)
			if rapid.Bool().Draw(rt, "prune") {
				if err := j.PruneHistory(t.Context(), "s"); err != nil {
					rt.Fatal(err)
				}
			}
			if rapid.Bool().Draw(rt, "reopen") {
				reopen()
			}
			if d := cmp.Diff(want, histories(rt, j, "s")); d != "" {
				rt.Fatalf("(-want +got):\n%s", d)
			}
		}
	})
}

// TestAHistoryWithoutItsState is kept for a while and then forgotten; one that comes back is not.
func TestAHistoryWithoutItsState(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	j := open(t, t.TempDir(), journal.Options{Now: func() time.Time { return now }})
	for _, state := range []string{"stays", "goes", "comes back", "comes late"} {
		commit(t, j, journal.Commit{Snapshots: []journal.Snapshot{{State: state, N: 1, Oldest: 1, Rows: []journal.SnapshotRow{row("a", "1")}}}})
	}
	keep := func(days int, states ...string) {
		t.Helper()
		now = now.Add(time.Duration(days) * 24 * time.Hour)
		if err := j.KeepHistories(t.Context(), states, 30*24*time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	keep(0, "stays")
	keep(29, "stays", "comes back")
	commit(t, j, journal.Commit{States: []wire.State{{URI: "comes late"}}}) // after the states were read once, as on a slow mount
	keep(2, "stays")
	for state, want := range map[string]int{"stays": 1, "goes": 0, "comes back": 1, "comes late": 1} {
		if got := len(histories(t, j, state)); got != want {
			t.Errorf("%s: %d snapshots, want %d", state, got, want)
		}
	}
}

// TestVersion1 opens a file that the version before histories made: nothing is lost, and histories can be stored.
func TestVersion1(t *testing.T) {
	dir := t.TempDir()
	old, err := os.ReadFile("testdata/version1.db")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal.db"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	var key []byte
	for range 2 {
		j := open(t, dir, journal.Options{})
		counts, err := j.Counts(t.Context())
		if err != nil || counts.OpenDrifts != 1 || counts.Pending != 1 || counts.Alerts != 2 || counts.Resources != 3 || counts.BlindSpots["s3.amazonaws.com:X"] != 1 {
			t.Errorf("counts: %+v, %v", counts, err)
		}
		if told, err := j.Told(t.Context(), "1"); !told || err != nil {
			t.Errorf("told %v, %v", told, err)
		}
		if messages := after(t, j, wire.ID{}); len(messages) != 2 {
			t.Errorf("%d messages", len(messages))
		}
		if put(t, j, "told") != 0 {
			t.Error("an alert of before is stored again")
		}
		commit(t, j, snapshot(1, 1, row("a", "1")))
		if len(histories(t, j, "s")) != 1 || len(j.Key()) != 32 || key != nil && !bytes.Equal(key, j.Key()) {
			t.Error("no history, or another key")
		}
		key = j.Key()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHistoryOfAClosedJournal says so.
func TestHistoryOfAClosedJournal(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	commit(t, j, snapshot(1, 1, row("a", "1")))
	h, err := j.History(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range h.Rows {
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("rows: %v", err)
		}
	}
	if _, err := j.History(t.Context(), "s"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("history: %v", err)
	}
	if err := j.Stage(t.Context(), journal.Snapshot{}); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("stage: %v", err)
	}
}

// TestWhatIsHiddenLaterIsHiddenFirst: what was stored as it was is hidden with the first rows of the snapshot that hides it,
// also when the process ends before the last.
func TestWhatIsHiddenLaterIsHiddenFirst(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	commit(t, j, snapshot(1, 1, row("a", "1"), row("b", "1"), row("c", "1")))
	commit(t, j, snapshot(2, 1, row("a", "2")))
	commit(t, j, snapshot(3, 1, row("a", "3"), row("b", "3")))
	ahead := snapshot(3, 1, row("a", "hidden"))
	ahead.Snapshots[0].Older = []journal.HistoryRow{
		{First: 1, Key: []byte("a"), Body: []byte("hidden 1")}, {First: 2, Key: []byte("a"), Body: []byte("hidden 2")},
		{First: 2, Key: []byte("b"), Body: []byte("hidden 1")}, {First: 1, Key: []byte("c"), Body: []byte("hidden 1")},
	}
	if err := j.Stage(t.Context(), ahead.Snapshots[0]); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, journal.Options{})
	want := map[int64]map[string]string{
		1: {"": "head 1", "a": "hidden 1", "b": "hidden 1", "c": "hidden 1"},
		2: {"": "head 2", "a": "hidden 2", "b": "hidden 1", "c": "hidden 1"},
		3: {"": "head 3", "a": "hidden", "b": "3", "c": "hidden 1"},
	}
	if d := cmp.Diff(want, histories(t, j, "s")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestManyRowsAreHiddenLater takes a moment and not one that grows with the square of their number, for which all alerts
// would wait.
func TestManyRowsAreHiddenLater(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	const many = 8000
	var one, two []journal.SnapshotRow
	var hidden []journal.HistoryRow
	for i := range many {
		key := fmt.Sprint("a long enough key ", i)
		one, two = append(one, row(key, "1")), append(two, row(key, "2"))
		hidden = append(hidden, journal.HistoryRow{First: 1, Key: []byte(key), Body: []byte("hidden")})
	}
	commit(t, j, snapshot(1, 1, one...))
	commit(t, j, snapshot(2, 1, two...))
	again := snapshot(2, 1)
	again.Snapshots[0].Older = hidden
	start := time.Now()
	commit(t, j, again)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%d rows took %v", many, took)
	}
	for key, body := range histories(t, j, "s")[1] {
		if key != "" && body != "hidden" {
			t.Fatalf("%s: %s", key, body)
		}
	}
}
