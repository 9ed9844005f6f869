package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a running hub over a real journal.
type rig struct {
	t       *testing.T
	journal *journal.Journal
	hub     *hub.Hub
	stop    func() // ends Run and waits for it
	end     func() // and closes the journal
}

func start(t *testing.T, jo journal.Options, ho hub.Options) *rig {
	t.Helper()
	return startIn(t, t.TempDir(), jo, ho)
}

// startIn starts over the journal in a folder.
func startIn(t *testing.T, dir string, jo journal.Options, ho hub.Options) *rig {
	t.Helper()
	j, err := journal.Open(t.Context(), dir, jo)
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(j, ho)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	r := &rig{t: t, journal: j, hub: h}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.end = sync.OnceFunc(func() {
		r.stop()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.end)
	return r
}

// message is a message whose topic and number can be told.
func message(topic wire.Topic, n int) wire.Message {
	switch topic {
	case wire.TopicDrifts:
		return wire.Message{Type: wire.TypeDrift, Topic: topic, Payload: wire.Drift{DriftID: fmt.Sprint(n)}}
	case wire.TopicState:
		return wire.Message{Type: wire.TypeStateChange, Topic: topic, Payload: wire.StateChange{ChangeID: fmt.Sprint(n)}}
	}
	return wire.Message{Type: wire.TypeEvent, Topic: topic, Payload: wire.Event{ResourceID: fmt.Sprint(n)}}
}

var journalled = []wire.Topic{wire.TopicDrifts, wire.TopicEvents, wire.TopicState}

// publish commits messages from number first on, turning through the topics.
func (r *rig) publish(first, n int, topics ...wire.Topic) {
	r.t.Helper()
	var c journal.Commit
	for i := range n {
		c.Messages = append(c.Messages, message(topics[(first+i)%len(topics)], first+i))
	}
	if err := r.journal.Commit(r.t.Context(), c); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) cursor(topics ...wire.Topic) *hub.Cursor {
	r.t.Helper()
	c, _, err := r.hub.NewCursor()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, topic := range topics {
		if err := c.Subscribe(topic, nil, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	return c
}

type frame struct {
	ID      wire.ID    `json:"id"`
	Type    wire.Type  `json:"type"`
	Topic   wire.Topic `json:"topic"`
	Payload struct {
		DriftID    string `json:"drift_id"`
		ChangeID   string `json:"change_id"`
		ResourceID string `json:"resource_id"`
		Reason     string `json:"reason"`
	} `json:"payload"`
}

func (f frame) number() string {
	return f.Payload.DriftID + f.Payload.ChangeID + f.Payload.ResourceID
}

func decode(t *testing.T, body []byte) frame {
	t.Helper()
	var f frame
	if err := json.Unmarshal(body, &f); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return f
}

// next reads n frames.
func next(t *testing.T, c *hub.Cursor, n int) (frames []frame) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(frames) < n {
		got, err := c.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d frames: %v", len(frames), n, err)
		}
		for _, f := range got {
			frames = append(frames, decode(t, f.Body))
		}
	}
	if len(frames) > n {
		t.Fatalf("got %d frames, want %d", len(frames), n)
	}
	return frames
}

func numbers(frames []frame) (got []string) {
	for _, f := range frames {
		got = append(got, f.number())
	}
	return got
}

func count(first, n, step int) (want []string) {
	for i := first; len(want) < n; i += step {
		want = append(want, fmt.Sprint(i))
	}
	return want
}

// Two hundred cursors, each with topics of its own, some from the ring and some from the journal, while messages come.
func TestEveryCursorGetsItsTopicsInOrder(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{RingMessages: 100})
	r.publish(0, 30, journalled...)
	choices := [][]wire.Topic{
		{wire.TopicAll}, {wire.TopicDrifts}, {wire.TopicEvents, wire.TopicState}, {wire.TopicAll, wire.TopicDrifts},
		{wire.TopicState, wire.TopicDrifts, wire.TopicEvents},
	}
	wants := []int{1, 0, 2, 1, 1} // all, one topic, two of three
	const rounds = 30
	var wg sync.WaitGroup
	for i := range 200 {
		c := r.cursor(choices[i%5]...)
		wg.Go(func() {
			defer c.Close()
			var got []string
			for want := expected(wants[i%5], 30, rounds*30); len(got) < len(want); {
				frames, err := c.Next(t.Context())
				if err != nil {
					t.Errorf("cursor %d: %v", i, err)
					return
				}
				for _, f := range frames {
					if f := decode(t, f.Body); f.Type != wire.TypeStats {
						got = append(got, f.number())
					}
				}
				if len(got) >= len(want) {
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("cursor %d: %s", i, d)
					}
				}
			}
		})
	}
	for round := range rounds {
		r.publish(30+round*30, 30, journalled...)
	}
	wg.Wait()
}

func expected(choice, first, n int) (want []string) {
	for i := first; i < first+n; i++ {
		drift := journalled[i%3] == wire.TopicDrifts
		if choice == 1 || choice == 0 && drift || choice == 2 && !drift {
			want = append(want, fmt.Sprint(i))
		}
	}
	return want
}

func TestATopicGivesMessagesFromThenOn(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{RingMessages: 10})
	c := r.cursor(wire.TopicEvents)
	r.publish(0, 60, journalled...) // far more than the ring holds: the cursor is behind
	if err := c.Subscribe(wire.TopicDrifts, nil, []byte(`{"type":"subscribed"}`)); err != nil {
		t.Fatal(err)
	}
	r.publish(60, 6, journalled...)
	got := next(t, c, 1+20+2+2)
	if got[0].Type != wire.TypeSubscribed {
		t.Errorf("the reply comes first: got %q", got[0].Type)
	}
	want := append(count(1, 20, 3), "60", "61", "63", "64")
	if d := cmp.Diff(want, numbers(got[1:])); d != "" {
		t.Error(d)
	}
}

func TestUnsubscribingStopsAtOnce(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{StatsEvery: time.Hour}) // one stats message, at the start
	c := r.cursor(wire.TopicAll)
	r.publish(0, 9, journalled...)
	if err := c.Unsubscribe(wire.TopicDrifts, []byte(`{"type":"unsubscribed"}`)); err != nil {
		t.Fatal(err)
	}
	var got []frame
	for _, f := range next(t, c, 1+6+1) {
		if f.Type != wire.TypeStats {
			got = append(got, f)
		}
	}
	if got[0].Type != wire.TypeUnsubscribed {
		t.Errorf("the reply comes first: got %q", got[0].Type)
	}
	if d := cmp.Diff([]string{"1", "2", "4", "5", "7", "8"}, numbers(got[1:])); d != "" {
		t.Error(d)
	}
	if err := c.Unsubscribe(wire.TopicAll, nil); err != nil {
		t.Fatal(err)
	}
	r.publish(9, 9, journalled...)
	if err := c.Subscribe(wire.TopicState, nil, nil); err != nil {
		t.Fatal(err)
	}
	r.publish(18, 3, journalled...)
	if d := cmp.Diff([]string{"20"}, numbers(next(t, c, 1))); d != "" {
		t.Error(d)
	}
}

// Whatever is published while a cursor subscribes, it gets a tail of it without holes.
func TestNothingIsLostBetweenSnapshotAndSubscription(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	const n = 300
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range n {
			r.publish(i, 1, wire.TopicEvents)
		}
	})
	for range 20 {
		c, at, err := r.hub.NewCursor()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Subscribe(wire.TopicEvents, nil, nil); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			var got []string
			for !slices.Contains(got, fmt.Sprint(n-1)) {
				frames, err := c.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range frames {
					got = append(got, decode(t, f.Body).number())
				}
			}
			if d := cmp.Diff(count(n-len(got), len(got), 1), got); d != "" {
				t.Errorf("behind %v: %s", at, d)
			}
		})
	}
}

func TestACursorBehindTheRetentionGetsAGap(t *testing.T) {
	r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
	c := r.cursor(wire.TopicEvents)
	for i := range 300 {
		r.publish(i, 1, wire.TopicEvents)
	}
	frames, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gap := decode(t, frames[0].Body)
	if gap.Type != wire.TypeGap || gap.Payload.Reason != "retention" {
		t.Fatalf("got %s", frames[0].Body)
	}
	got := []string{}
	for _, f := range frames[1:] {
		got = append(got, decode(t, f.Body).number())
	}
	for len(got) == 0 || got[len(got)-1] != "299" {
		got = append(got, numbers(nextAny(t, c))...)
	}
	if d := cmp.Diff(count(300-len(got), len(got), 1), got); d != "" || len(got) < 50 {
		t.Errorf("got the last %d: %s", len(got), d)
	}
	if f := r.hub.Figures(); f.Gaps != 1 || f.FromJournal == 0 {
		t.Errorf("figures: %+v", f)
	}
}

func nextAny(t *testing.T, c *hub.Cursor) (frames []frame) {
	t.Helper()
	got, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got {
		frames = append(frames, decode(t, f.Body))
	}
	return frames
}

func TestUnknownTopics(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	c := r.cursor()
	if c.Subscribe("x", nil, nil) == nil || c.Unsubscribe("", nil) == nil {
		t.Error("got no error")
	}
	if _, err := r.hub.List(t.Context(), wire.Query{What: "x", Limit: 1}); err == nil {
		t.Error("List: got no error")
	}
}

// Stats come every five seconds to those who want them; who does not read finds the newest only.
func TestStatsAreCoalesced(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(t.Context(), dir, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		h := hub.New(j, hub.Options{Replayed: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}()

		uptime := func(c *hub.Cursor) int64 {
			frames, err := c.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var m struct {
				Type     wire.Type  `json:"type"`
				Replayed bool       `json:"replayed"`
				Payload  wire.Stats `json:"payload"`
			}
			if err := json.Unmarshal(frames[0].Body, &m); err != nil {
				t.Fatal(err)
			}
			if len(frames) != 1 || m.Type != wire.TypeStats || !m.Replayed {
				t.Fatalf("got %q", frames)
			}
			return m.Payload.UptimeSeconds
		}
		synctest.Wait()
		c, _, _ := h.NewCursor()
		if err := c.Subscribe(wire.TopicStats, nil, nil); err != nil {
			t.Fatal(err)
		}
		other, _, _ := h.NewCursor()
		if err := other.Subscribe(wire.TopicDrifts, nil, nil); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int64{0, 5, 10} {
			if got := uptime(c); got != want {
				t.Errorf("uptime: got %d s, want %d", got, want)
			}
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got := uptime(c); got != 70 {
			t.Errorf("after a minute without reading: got %d s, want 70", got)
		}
		if got := h.Figures().StatsDropped; got != 11 {
			t.Errorf("dropped: got %d, want 11", got)
		}
		short, cancelShort := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancelShort()
		if frames, err := other.Next(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a cursor without stats got %q, %v", frames, err)
		}
	})
}

func TestShutdownDrainsCursors(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	c := r.cursor(wire.TopicEvents)
	r.publish(0, 100, wire.TopicEvents)
	r.stop()
	if d := cmp.Diff(count(0, 100, 1), numbers(next(t, c, 100))); d != "" {
		t.Error(d)
	}
	if frames, err := c.Next(t.Context()); !errors.Is(err, hub.ErrShutdown) {
		t.Errorf("got %q, %v", frames, err)
	}
	if _, _, err := r.hub.NewCursor(); !errors.Is(err, hub.ErrShutdown) {
		t.Errorf("new cursor: got %v", err)
	}
}

func TestRepliesWaitForRoom(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{})
	c := r.cursor()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; n < 1000 && c.Reply(ctx, []byte("{}")) == nil; n++ {
		}
	})
	got := 0
	for got < 500 {
		frames, err := c.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got += len(frames)
	}
	cancel()
	wg.Wait()
	if n == 1000 || n < got {
		t.Errorf("%d replies accepted, %d read", n, got)
	}
}

// A batch that replies have half filled must not make the cursor jump over what had no room in it.
func TestRepliesAndMessagesOfTheJournalShareABatch(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{RingMessages: 10})
	c := r.cursor(wire.TopicEvents)
	r.publish(0, 30, wire.TopicEvents)
	for range 50 {
		if err := c.Reply(t.Context(), []byte(`{"type":"pong"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(count(0, 30, 1), numbers(next(t, c, 80)[50:])); d != "" {
		t.Error(d)
	}
}
