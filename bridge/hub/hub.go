// Package hub brings the journal's messages to whoever listens.
//
// In come the messages that the journal publishes and, every few seconds, its figures. Out they go to cursors: a Cursor is
// a place in the journal's order, a set of topics and a few replies that wait. A Session is a Cursor with a WebSocket
// behind it; both end when the hub shuts down.
//
// Guarantees:
//   - Order: a cursor gives messages in the order of their ids, each once, whatever topics were named how often. Only a
//     topic that joins from an earlier place steps back to it, for that topic alone. all is the four others: subscribing to
//     it is subscribing to each, unsubscribing from it is unsubscribing from each.
//   - From then on: a topic gives messages that were published after Subscribe, or behind the cursor it names, none from
//     before, and none is lost in between, because the newest id is read and the topic added under one lock. After
//     Unsubscribe nothing more of the topic comes. The reply to either stands in the stream just where the change took
//     effect.
//   - Resuming: a client that names the last message it saw, and the epoch it was of, gets what came behind it, each
//     message once, over restarts of the bridge too. Where that cannot be, a gap message comes first.
//   - Slow readers: nobody waits for a cursor. What it has not read stands in the ring of the newest messages, or else in
//     the journal; where the journal no longer has it, a gap message says so. There is no queue of messages to overflow.
//   - Statistics are a single value that the next one overwrites: a slow reader gets fewer, and they are counted.
//   - Replies of one session are limited: when a client asks faster than it reads, it is not read any further.
//
// A session has one goroutine, the pump, which hands frames to melody. melody 1.4 drops what does not fit its queue and
// tells nobody who writes; so at most window frames are under way, counted back when each is written, and the queue has
// room for more than those. A frame that cannot be written within WriteWait ends the session. melody's own Close is not
// used: it shuts the socket right behind the close frame, and a peer with something still under way would see a reset
// instead of the code.
//
// Start reading at Hub and Cursor; session.go is the WebSocket side, ring.go the newest messages.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Options of a hub. Zero durations and sizes mean the default named with them.
type Options struct {
	Log *slog.Logger     // nil discards
	Now func() time.Time // nil is time.Now
	// Metrics gets the time that deliveries take; nil keeps it unregistered.
	Metrics prometheus.Registerer
	// Replayed marks welcome and stats messages as the demo's.
	Replayed bool
	// RingMessages and RingBytes limit the newest messages held in memory: 4,096 and 32 MiB.
	RingMessages, RingBytes int
	// StatsEvery is how often stats are made: 5 s.
	StatsEvery time.Duration
	// PingPeriod is how often a session is pinged: 60 s. A peer silent for PongWait, 114 s, is let go.
	PingPeriod, PongWait time.Duration
	// WriteWait is how long one frame may take to be written: 10 s.
	WriteWait time.Duration
	// DrainWait is how long Shutdown lets sessions read what is already there: 2 s.
	DrainWait time.Duration
}

// The heartbeat of the protocol: a ping every 60 s, which the peer answers within 54 s, or it is let go.
const (
	pingPeriod = 60 * time.Second
	pongWithin = 54 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{
		{&o.StatsEvery, 5 * time.Second}, {&o.PingPeriod, pingPeriod}, {&o.PongWait, pingPeriod + pongWithin},
		{&o.WriteWait, 10 * time.Second}, {&o.DrainWait, 2 * time.Second},
	} {
		if *d.at == 0 {
			*d.at = d.is
		}
	}
	if o.RingMessages == 0 {
		o.RingMessages = 4096
	}
	if o.RingBytes == 0 {
		o.RingBytes = 32 << 20
	}
	return o
}

// ErrShutdown is what cursors and new sessions get once the hub has shut down.
var ErrShutdown = errors.New("the hub has shut down")

// Hub is the one distributor over a journal. All methods may be called from many goroutines at once.
type Hub struct {
	journal *journal.Journal
	o       Options
	log     *slog.Logger
	started time.Time
	arrived chan struct{} // cap 1: the ring has grown

	ringMu sync.RWMutex // taken after a Cursor's mu, never before
	ring   ring

	stats atomic.Pointer[statsFrame]

	mu       sync.Mutex
	closing  bool
	cursors  map[*Cursor]struct{}
	sessions map[*Session]struct{}
	live     sync.WaitGroup // one for each session; Add under mu while not closing

	figures  figures
	delivery prometheus.Histogram
}

// statsFrame is the newest stats message; n counts them from 1.
type statsFrame struct {
	n    uint64
	body []byte
}

// New makes a hub over j. It delivers while Run runs.
func New(j *journal.Journal, o Options) *Hub {
	h := &Hub{
		journal: j, o: o.withDefaults(), arrived: make(chan struct{}, 1),
		cursors: map[*Cursor]struct{}{}, sessions: map[*Session]struct{}{},
	}
	h.log = h.o.Log.With("component", "hub")
	h.started = h.o.Now()
	h.figures.closed = map[string]int64{}
	h.delivery = newDelivery(h.o.Metrics)
	h.ring = newRing(h.o.RingMessages, h.o.RingBytes)
	newest := j.Follow(h.append)
	h.ringMu.Lock()
	h.ring.startAfter(newest)
	h.ringMu.Unlock()
	return h
}

// append is called by the journal's writer, which it must not hold up.
func (h *Hub) append(messages []journal.Stored) {
	h.ringMu.Lock()
	for _, m := range messages {
		h.ring.add(m)
	}
	h.ringMu.Unlock()
	signal(h.arrived)
}

// Run delivers until ctx ends, and then shuts the hub down.
func (h *Hub) Run(ctx context.Context) error {
	ticker := time.NewTicker(h.o.StatsEvery)
	defer ticker.Stop()
	h.makeStats(ctx)
	for {
		select {
		case <-h.arrived:
			h.wake(func(c *Cursor) bool { return c.wantsMessages.Load() })
		case <-ticker.C:
			h.makeStats(ctx)
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.o.DrainWait+h.o.WriteWait)
			defer cancel()
			return h.Shutdown(stop)
		}
	}
}

// wake wakes the cursors that want it.
func (h *Hub) wake(wants func(*Cursor) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.cursors {
		if wants(c) {
			signal(c.awake)
		}
	}
}

// makeStats replaces the stats message; where the journal cannot be read, the earlier one stands.
func (h *Hub) makeStats(ctx context.Context) {
	s, err := h.Stats(ctx)
	var body []byte
	if err == nil {
		body, err = wire.Encode(wire.Message{
			Type: wire.TypeStats, Topic: wire.TopicStats, Timestamp: wire.At(h.o.Now()), Payload: s, Replayed: h.o.Replayed,
		})
	}
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("stats not made", "error", err)
		}
		return
	}
	next := &statsFrame{n: 1, body: body}
	if before := h.stats.Load(); before != nil {
		next.n = before.n + 1
	}
	h.stats.Store(next)
	h.wake(func(c *Cursor) bool { return c.wantsStats.Load() })
}

// Shutdown refuses new sessions and cursors, lets those there are read what has been published for DrainWait, and closes
// sessions with 1001. It returns when all have ended; at ctx's end it cuts the remaining ones off and returns its error.
// Later calls wait likewise.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	for s := range h.sessions {
		s.goAway() // before its cursor ends, so that the pump finds the close code
	}
	for c := range h.cursors {
		c.drain()
	}
	h.mu.Unlock()

	ended := make(chan struct{})
	go func() { h.live.Wait(); close(ended) }()
	drained := time.NewTimer(h.o.DrainWait)
	defer drained.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-drained.C:
			h.each((*Session).stopSending)
		case <-ctx.Done():
			h.each((*Session).cut)
			<-ended
			return fmt.Errorf("shut down the hub: %w", ctx.Err())
		}
	}
}

func (h *Hub) each(do func(*Session)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.sessions {
		do(s)
	}
}

// Epoch is the journal's.
func (h *Hub) Epoch() string { return h.journal.Epoch() }

// Replayed reports that this is the demo.
func (h *Hub) Replayed() bool { return h.o.Replayed }

// Now is the time by the hub's clock.
func (h *Hub) Now() time.Time { return h.o.Now() }

// List answers a query for drifts, each once and as the newest message about it, or events, both the newest first; or for
// states by URI. The query has passed its Check; Limit is 1 or more, and After the Next of an earlier answer.
func (h *Hub) List(ctx context.Context, q wire.Query) (list wire.List, err error) {
	if q.What == wire.TopicState {
		list, err = h.states(ctx, q)
		return list, stopped(err)
	}
	var after wire.ID
	if q.After != "" {
		if after, err = wire.ParseID(q.After); err != nil {
			return wire.List{}, err
		}
	}
	switch q.What {
	case wire.TopicDrifts:
		list, err = h.journal.Drifts(ctx, q.Filter, after, q.Limit)
	case wire.TopicEvents:
		list, err = h.journal.Events(ctx, q.Filter, after, q.Limit)
	default:
		err = fmt.Errorf("list %q: want drifts, events or state", q.What)
	}
	return list, stopped(err)
}

func (h *Hub) states(ctx context.Context, q wire.Query) (list wire.List, err error) {
	states, err := h.journal.States(ctx)
	last := ""
	for _, s := range states {
		if s.URI <= q.After || !passes(s, q.Filter) {
			continue
		}
		if len(list.Items) == q.Limit {
			list.Next = last
			break
		}
		item, err := json.Marshal(s, json.Deterministic(true))
		if err != nil {
			return wire.List{}, fmt.Errorf("encode state %q: %w", s.URI, err)
		}
		list.Items, last = append(list.Items, item), s.URI
	}
	return list, err
}

// passes reports whether a state has, for each name of a filter, one of its texts.
func passes(s wire.State, filter wire.Filter) bool {
	has := map[string]string{"uri": s.URI, "lineage": s.Lineage, "terraform_version": s.Terraform}
	for name, texts := range filter {
		if text, known := has[name]; !known || !slices.Contains(texts, text) {
			return false
		}
	}
	return true
}

// stopped tells the end of the bridge from a fault.
func stopped(err error) error {
	if errors.Is(err, journal.ErrClosed) {
		return ErrShutdown
	}
	return err
}

// Stats gives the figures of this moment.
func (h *Hub) Stats(ctx context.Context) (wire.Stats, error) {
	s, err := h.journal.Counts(ctx)
	if err != nil {
		return wire.Stats{}, stopped(err)
	}
	h.mu.Lock()
	s.Clients = len(h.cursors)
	h.mu.Unlock()
	s.UptimeSeconds = int64(h.o.Now().Sub(h.started) / time.Second)
	return s, nil
}

// signal leaves one value in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
