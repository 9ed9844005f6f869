package correlate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// Past gives an inventory what the journal stores of a state (inventory.Options.Past). With it, each serial is stored in
// the transaction that holds its messages: after a crash it was told and is known, or is read and told again.
func Past(book *journal.Journal) func(context.Context, string) (inventory.Past, error) {
	return func(ctx context.Context, state string) (inventory.Past, error) {
		stored, err := book.History(ctx, state)
		if err != nil {
			return inventory.Past{}, later(err)
		}
		past := inventory.Past{Rows: func(yield func(inventory.Row, error) bool) {
			for r, err := range stored.Rows {
				if !yield(inventory.Row{First: r.First, Last: r.Last, Key: r.Key, Body: r.Body}, later(err)) {
					return
				}
			}
		}}
		for _, h := range stored.Heads {
			past.Heads = append(past.Heads, inventory.Head{N: h.N, Text: h.Head})
		}
		return past, nil
	}
}

// later marks an error that says nothing about what is stored.
func later(err error) error {
	if journal.Temporary(err) || errors.Is(err, journal.ErrClosed) {
		return fmt.Errorf("%w: %w", inventory.ErrLater, err)
	}
	return err
}

// stageRows is how many rows of a serial go with its messages; those of a larger one go ahead, that many at a time.
const stageRows = 500

// snapshot is what a commit stores of a serial, after what had to go ahead of it.
func (c *Correlator) snapshot(ctx context.Context, k *inventory.Keep) (journal.Snapshot, error) {
	s := journal.Snapshot{State: k.State, N: k.Head.N, Head: k.Head.Text, Oldest: k.Oldest, Fresh: k.Fresh}
	ahead := func() error {
		if len(s.Rows)+len(s.Older) < stageRows {
			return nil
		}
		err := c.again(ctx, func(ctx context.Context) error { return c.journal.Stage(ctx, s) })
		s.Rows, s.Older, s.Fresh = nil, nil, false
		return err
	}
	// Hidden before the new rows are there: those tell, after a crash, that nothing is left to hide.
	for _, r := range k.Older {
		if err := ahead(); err != nil {
			return s, err
		}
		s.Older = append(s.Older, journal.HistoryRow{First: r.First, Key: r.Key, Body: r.Body})
	}
	for key, body := range k.Rows {
		if err := ahead(); err != nil {
			return s, err
		}
		s.Rows = append(s.Rows, journal.SnapshotRow{Key: key, Body: body})
	}
	return s, nil
}

// forgetAfter is for how long a history is kept whose state no source has: a state that is moved back, or a mount that is
// put right, goes on where it was.
const forgetAfter = 30 * 24 * time.Hour

// keepHistories tells the journal which states there are, once the sources have been read.
func (c *Correlator) keepHistories(ctx context.Context) error {
	var states []string
	for _, info := range c.inventory.States() {
		states = append(states, info.State)
	}
	return c.again(ctx, func(ctx context.Context) error { return c.journal.KeepHistories(ctx, states, forgetAfter) })
}
