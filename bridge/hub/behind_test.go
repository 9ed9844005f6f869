package hub_test

import (
	"context"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// behind is a cursor that the ring has left behind, at the moment when the journal has five messages, four drifts with an
// event before the last, of which the last two are on disk and not yet published; publish lets them go.
func behind(t *testing.T) (c *hub.Cursor, publish func()) {
	t.Helper()
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	hold, published := make(chan struct{}, 4), make(chan struct{}, 4)
	for range 3 {
		hold <- struct{}{}
	}
	j.Follow(func([]journal.Stored) { <-hold }) // comes before the hub, as a slow follower would
	h := hub.New(j, hub.Options{RingMessages: 1})
	j.Follow(func([]journal.Stored) { published <- struct{}{} })
	if c, _, err = h.NewCursor(); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe(wire.TopicDrifts, nil, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := j.Commit(t.Context(), journal.Commit{Messages: []wire.Message{message(wire.TopicDrifts, i)}}); err != nil {
			t.Fatal(err)
		}
		<-published
	}
	committed := make(chan error, 1)
	go func() {
		committed <- j.Commit(context.Background(), journal.Commit{Messages: []wire.Message{message(wire.TopicEvents, 3), message(wire.TopicDrifts, 4)}})
	}()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if m, err := j.After(t.Context(), wire.ID{}, nil, 10); err != nil || time.Now().After(deadline) {
			t.Fatal(len(m), err)
		} else if len(m) == 5 {
			break
		}
	}
	return c, func() {
		hold <- struct{}{}
		<-published
		if err := <-committed; err != nil {
			t.Error(err)
		}
	}
}

// rest gives all that the cursor gives without waiting for more than is published.
func rest(t *testing.T, c *hub.Cursor) (got []string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	for {
		frames, err := c.Next(ctx)
		for _, f := range frames {
			got = append(got, string(f.Body))
		}
		if err != nil {
			return got
		}
	}
}

// TestNothingIsLostBetweenDiskAndPublishing: what is published after Subscribe is given.
func TestNothingIsLostBetweenDiskAndPublishing(t *testing.T) {
	c, publish := behind(t)
	got := rest(t, c)
	if err := c.Subscribe(wire.TopicEvents, nil, nil); err != nil {
		t.Fatal(err)
	}
	publish()
	if got = append(got, rest(t, c)...); len(got) != 5 {
		t.Errorf("got %d messages, want the 4 drifts and the event: %v", len(got), got)
	}
}

// TestNothingComesTwiceBetweenDiskAndPublishing: leaving a topic and coming back repeats nothing.
func TestNothingComesTwiceBetweenDiskAndPublishing(t *testing.T) {
	c, publish := behind(t)
	got := rest(t, c)
	if err := c.Unsubscribe(wire.TopicDrifts, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Subscribe(wire.TopicDrifts, nil, nil); err != nil {
		t.Fatal(err)
	}
	publish()
	seen := map[string]bool{}
	for _, m := range append(got, rest(t, c)...) {
		if seen[m] {
			t.Errorf("twice: %s", m)
		}
		seen[m] = true
	}
}
