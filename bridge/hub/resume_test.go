package hub_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// A foreign place that was given up before anything was read must not hide the gap of a later place.
func TestAForeignPlaceGivenUpHidesNoLaterGap(t *testing.T) {
	r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
	for i := range 300 {
		r.publish(i, 1, wire.TopicEvents)
	}
	for name, later := range map[string]struct {
		since  wire.Cursor
		reason string
	}{
		"pruned":  {wire.Cursor{Epoch: r.hub.Epoch(), ID: wire.ID{Millis: 1}}, "retention"},
		"foreign": {wire.Cursor{Epoch: "THIRD", ID: wire.ID{Millis: 7}}, "other_journal"},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.resume(wire.Cursor{Epoch: "ANOTHER", ID: wire.ID{Millis: 1}}, wire.TopicEvents)
			defer c.Close()
			if err := c.Unsubscribe(wire.TopicEvents, nil); err != nil {
				t.Fatal(err)
			}
			drain(t, c) // the gap of the first place
			if err := c.Subscribe(wire.TopicEvents, &later.since, nil); err != nil {
				t.Fatal(err)
			}
			frames := drain(t, c)
			if frames[0].Type != wire.TypeGap || frames[0].Payload.Reason != later.reason {
				t.Errorf("got %v first of %d, want a gap %s", frames[0], len(frames), later.reason)
			}
		})
	}
}

// A topic with a place of this journal that is pruned is told its gap, though another topic of the same cursor had a foreign one.
func TestAForeignTopicHidesNoGapOfAnother(t *testing.T) {
	r := start(t, journal.Options{Retain: 50}, hub.Options{RingMessages: 10})
	r.publish(1000, 1, wire.TopicDrifts)
	slow := r.cursor(wire.TopicDrifts) // reads nothing
	for i := range 300 {
		r.publish(i, 1, wire.TopicDrifts, wire.TopicEvents)
	}
	place := slow.Place()
	if err := slow.Subscribe(wire.TopicEvents, &wire.Cursor{Epoch: "ANOTHER", ID: wire.ID{Millis: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, f := range drain(t, slow) {
		if f.Type == wire.TypeGap {
			reasons = append(reasons, f.Payload.Reason)
		}
	}
	if len(reasons) != 2 {
		t.Errorf("drifts behind %v are lost, gaps told: %v", place, reasons)
	}
}

// Resuming inside the ring asks for the past too.
func TestResumingIsNoSlowDelivery(t *testing.T) {
	reg := prometheus.NewRegistry()
	var late atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	r := start(t, journal.Options{}, hub.Options{Now: now, Metrics: reg, StatsEvery: time.Hour})
	r.publish(0, 5, wire.TopicEvents)
	late.Store(int64(3 * time.Hour))
	c := r.resume(wire.Cursor{}, wire.TopicEvents)
	defer c.Close()
	next(t, c, 5)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if sum := f.GetMetric()[0].GetHistogram().GetSampleSum(); sum > 3600 {
			t.Errorf("%s: a sum of %.0f s for a client that asked for what is three hours old", f.GetName(), sum)
		}
	}
}

// An id that the journal has given and not yet published is no foreign one: REST shows it before a subscriber can.
func TestAPlaceJustAhead(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{StatsEvery: time.Hour})
	r.publish(0, 3, wire.TopicEvents)
	_, newest := r.journal.Bounds()
	c := r.resume(wire.Cursor{Epoch: r.hub.Epoch(), ID: wire.ID{Millis: newest.Millis, N: newest.N + 5}}, wire.TopicEvents)
	defer c.Close()
	if frames := drain(t, c); len(frames) != 0 {
		t.Fatalf("got %v", frames)
	}
	time.Sleep(2 * time.Millisecond) // the next id has another millisecond
	r.publish(3, 1, wire.TopicEvents)
	if got := next(t, c, 1)[0].number(); got != "3" {
		t.Errorf("got %s", got)
	}
}

// A client that asks for everything that is kept is not decades behind.
func TestEverythingKeptIsNotDecadesBehind(t *testing.T) {
	r := start(t, journal.Options{}, hub.Options{StatsEvery: time.Hour})
	r.publish(0, 5, wire.TopicEvents)
	c := r.resume(wire.Cursor{}, wire.TopicEvents)
	defer c.Close()
	if got := r.hub.Figures().Behind; got > time.Hour {
		t.Errorf("got %s behind", got)
	}
}
