package journal_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// model is what a journal must be like: the alerts by place, and the messages followers saw.
type model struct {
	keys []string
	done map[int64]bool
	told []journal.Stored
}

func (m *model) pending() (seqs []int64) {
	for i := range m.keys {
		if seq := int64(i + 1); !m.done[seq] {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// Whatever is put, committed and reopened in whatever order, under a clock that jumps, the journal is like its model.
func TestJournalIsLikeItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		m := &model{done: map[int64]bool{}}
		now := time.UnixMilli(1_000_000)
		var j *journal.Journal
		reopen := func() {
			if j != nil {
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
			}
			var err error
			if j, err = journal.Open(t.Context(), dir, journal.Options{Now: func() time.Time { return now }}); err != nil {
				rt.Fatal(err)
			}
			j.Follow(func(s []journal.Stored) { m.told = append(m.told, s...) })
		}
		reopen()
		defer func() { j.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				key := fmt.Sprint(rapid.IntRange(0, 20).Draw(rt, "key"))
				want := 0
				if !slices.Contains(m.keys, key) {
					m.keys, want = append(m.keys, key), 1
				}
				if n, err := j.Put(t.Context(), journal.Alert{Key: key}); n != want || err != nil {
					rt.Fatalf("Put(%q): got %d, %v, want %d", key, n, err, want)
				}
			},
			"commit": func(rt *rapid.T) {
				c := journal.Commit{}
				for range rapid.IntRange(0, 3).Draw(rt, "messages") {
					c.Messages = append(c.Messages, falco("r"))
				}
				if p := m.pending(); len(p) > 0 {
					seq := rapid.SampledFrom(p).Draw(rt, "done")
					c.Done, m.done[seq] = []int64{seq}, true
				}
				if err := j.Commit(t.Context(), c); err != nil {
					rt.Fatal(err)
				}
			},
			"clock": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-5, 5).Draw(rt, "ms")) * time.Millisecond)
			},
			"reopen": func(*rapid.T) { reopen() },
			"": func(rt *rapid.T) {
				entries, err := j.Pending(t.Context(), 0, 100)
				if err != nil {
					rt.Fatal(err)
				}
				var seqs []int64
				for _, e := range entries {
					seqs = append(seqs, e.Seq)
				}
				if d := cmp.Diff(m.pending(), seqs); d != "" {
					rt.Fatalf("pending: %s", d)
				}
				stored, err := j.After(t.Context(), wire.ID{}, nil, 1<<20)
				if err != nil {
					rt.Fatal(err)
				}
				if d := cmp.Diff(m.told, stored); d != "" {
					rt.Fatalf("messages: %s", d)
				}
				ordered := slices.IsSortedFunc(stored, func(a, b journal.Stored) int { return a.ID.Compare(b.ID) })
				if !ordered {
					rt.Fatal("ids do not grow")
				}
			},
		})
	})
}
