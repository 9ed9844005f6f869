package hub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// resume makes a cursor with some topics behind a place.
func (r *rig) resume(since wire.Cursor, topics ...wire.Topic) *hub.Cursor {
	r.t.Helper()
	c, _, err := r.hub.NewCursor()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, topic := range topics {
		if err := c.Subscribe(topic, &since, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	return c
}

// drain gives what the cursor has until it has nothing for a moment.
func drain(t *testing.T, c *hub.Cursor) (frames []frame) {
	t.Helper()
	for {
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		got, err := c.Next(ctx)
		stop()
		for _, f := range got {
			frames = append(frames, decode(t, f.Body))
		}
		if err != nil {
			return frames
		}
	}
}

// A client that is cut off again and again, while messages come and the bridge starts anew, sees each message once.
func TestResumingLosesNothingAndRepeatsNothing(t *testing.T) {
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	var at wire.Cursor
	var got []string
	published := 0
	for range 4 { // bridges
		r := startIn(t, dir, journal.Options{}, hub.Options{RingMessages: 20})
		at.Epoch = r.hub.Epoch()
		for range 15 { // connections
			c := r.resume(at, wire.TopicAll)
			n := random.IntN(40)
			r.publish(published, n, journalled...)
			published += n
			for range random.IntN(3) {
				ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
				frames, err := c.Next(ctx)
				stop()
				if err != nil {
					break
				}
				for _, f := range frames {
					if !f.ID.IsZero() {
						got, at.ID = append(got, decode(t, f.Body).number()), f.ID
					}
				}
			}
			c.Close()
		}
		r.end()
	}
	r := startIn(t, dir, journal.Options{}, hub.Options{})
	for _, f := range drain(t, r.resume(at, wire.TopicAll)) {
		if f.Type != wire.TypeStats {
			got = append(got, f.number())
		}
	}
	if d := cmp.Diff(count(0, published, 1), got); d != "" {
		t.Errorf("of %d messages: %s", published, d)
	}
}

// A topic that joins from an earlier place does not repeat the others, and keeps its own order.
func TestATopicFromEarlierRepeatsNoOther(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{RingMessages: 10})
	c := r.cursor(wire.TopicDrifts)
	r.publish(0, 30, journalled...)
	first := numbers(drain(t, c))
	if err := c.Subscribe(wire.TopicEvents, &wire.Cursor{Epoch: r.hub.Epoch()}, nil); err != nil {
		t.Fatal(err)
	}
	then := numbers(drain(t, c))
	if err := c.Subscribe(wire.TopicEvents, &wire.Cursor{}, nil); err != nil { // is there already
		t.Fatal(err)
	}
	r.publish(30, 3, journalled...)
	last := numbers(drain(t, c))
	want := [][]string{count(0, 10, 3), count(1, 10, 3), {"30", "31"}}
	if d := cmp.Diff(want, [][]string{first, then, last}); d != "" {
		t.Error(d)
	}
}

func TestACursorOfAnotherJournal(t *testing.T) {
	for name, c := range map[string]struct {
		since    wire.Cursor
		messages int
	}{
		"another epoch":             {wire.Cursor{Epoch: "ANOTHER", ID: wire.ID{Millis: 1}}, 5},
		"ahead of all":              {wire.Cursor{ID: wire.ID{Millis: 1 << 43}}, 5},
		"another epoch, and pruned": {wire.Cursor{Epoch: "ANOTHER", ID: wire.ID{Millis: 1}}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
			for i := range c.messages {
				r.publish(i, 1, wire.TopicEvents)
			}
			frames := drain(t, r.resume(c.since, wire.TopicEvents))
			if len(frames) == 0 || frames[0].Type != wire.TypeGap || frames[0].Payload.Reason != "other_journal" {
				t.Fatalf("got %v, want a gap first", frames)
			}
			got := numbers(frames[1:])
			if d := cmp.Diff(count(c.messages-len(got), len(got), 1), got); d != "" || len(got) < min(c.messages, 50) {
				t.Errorf("got the last %d: %s", len(got), d)
			}
		})
	}
}

// What is told of one foreign cursor does not hide a later gap.
func TestASecondGapIsTold(t *testing.T) {
	r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
	r.publish(0, 5, wire.TopicEvents)
	c := r.resume(wire.Cursor{Epoch: "ANOTHER"}, wire.TopicEvents)
	drain(t, c)
	for i := range 300 {
		r.publish(5+i, 1, wire.TopicEvents)
	}
	gaps := slices.DeleteFunc(drain(t, c), func(f frame) bool { return f.Type != wire.TypeGap })
	if len(gaps) != 1 || gaps[0].Payload.Reason != "retention" {
		t.Errorf("got %v", gaps)
	}
}

// A cursor behind the retention is told so, and one at its edge is not.
func TestSinceTheEdgeOfTheRetention(t *testing.T) {
	r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
	var ids []wire.ID
	live := r.cursor(wire.TopicEvents)
	for i := range 300 {
		r.publish(i, 1, wire.TopicEvents)
		ids = append(ids, next(t, live, 1)[0].ID)
	}
	oldest, _ := r.journal.Bounds()
	first := slices.Index(ids, oldest)
	for _, c := range []struct {
		since wire.ID
		gap   bool
	}{{ids[first-2], true}, {ids[first-1], false}, {oldest, false}} {
		frames := drain(t, r.resume(wire.Cursor{ID: c.since}, wire.TopicEvents))
		if got := frames[0].Type == wire.TypeGap; got != c.gap {
			t.Errorf("since %v, the oldest is %v: got %v first", c.since, oldest, fmt.Sprint(frames[0]))
		}
	}
}

// The figures tell how far behind the slowest subscriber is.
func TestFiguresTellTheSlowest(t *testing.T) {
	clock := time.UnixMilli(1_700_000_000_000)
	r := start(t, journal.Options{Now: func() time.Time { clock = clock.Add(time.Second); return clock }}, hub.Options{})
	slow, quick := r.cursor(wire.TopicDrifts), r.cursor(wire.TopicDrifts)
	for i := range 5 {
		r.publish(i, 1, wire.TopicDrifts)
	}
	next(t, quick, 5)
	if got := r.hub.Figures(); got.Behind < 4*time.Second || got.Cursors != 2 {
		t.Errorf("got %+v, want the slow one some seconds behind", got)
	}
	next(t, slow, 5)
	if got := r.hub.Figures(); got.Behind != 0 {
		t.Errorf("got %s behind, want none", got.Behind)
	}
}
