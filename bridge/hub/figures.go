package hub

import (
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Figures are the hub's counts since it was made.
type Figures struct {
	Sessions int // open now
	Cursors  int // subscribers of all kinds now: sessions, and streams
	// Behind is how much older what the slowest subscriber reads is than the newest message.
	Behind time.Duration
	Opened int64 // sessions ever
	Sent   int64 // frames written to sockets
	// Closed counts ended sessions by cause: client, shutdown, slow (did not read for WriteWait), silent (nothing heard
	// for PongWait), too_large, protocol, lost, internal, and what the protocol names.
	Closed       map[string]int64
	StatsDropped int64 // stats messages that a subscriber was too slow for
	Gaps         int64 // gap messages made
	FromJournal  int64 // messages served from the journal rather than the ring
	Dropped      int64 // frames lost in melody's queue: always 0, or there is a fault here
}

type figures struct {
	opened, sent, statsDropped, gaps, fromJournal, dropped atomic.Int64

	mu     sync.Mutex
	closed map[string]int64
}

func (f *figures) countClosed(cause string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed[cause]++
}

// Figures gives the counts of this moment.
func (h *Hub) Figures() Figures {
	h.mu.Lock()
	sessions, cursors, slowest := len(h.sessions), len(h.cursors), uint64(math.MaxUint64)
	for c := range h.cursors {
		if c.wantsMessages.Load() {
			slowest = min(slowest, c.read.Load())
		}
	}
	h.mu.Unlock()
	newest := h.newest().Millis
	behind := newest - min(slowest, newest)
	f := &h.figures
	f.mu.Lock()
	defer f.mu.Unlock()
	return Figures{
		Sessions: sessions, Cursors: cursors, Behind: time.Duration(behind) * time.Millisecond, Opened: f.opened.Load(), Sent: f.sent.Load(), Closed: maps.Clone(f.closed),
		StatsDropped: f.statsDropped.Load(), Gaps: f.gaps.Load(), FromJournal: f.fromJournal.Load(),
		Dropped: f.dropped.Load(),
	}
}

// newDelivery is the time from a message's place in the journal to its hand-over to a subscriber that keeps up; who reads
// from the journal asks for the past, which says nothing of the hub.
func newDelivery(reg prometheus.Registerer) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "tfdrift_delivery_seconds", Help: "From a message's place in the journal to its hand-over to a subscriber that keeps up.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
	})
	if reg != nil {
		reg.MustRegister(h)
	}
	return h
}
