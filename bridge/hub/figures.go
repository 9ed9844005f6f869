package hub

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Figures are the hub's counts since it was made.
type Figures struct {
	Sessions int   // open now
	Opened   int64 // sessions ever
	Sent     int64 // frames written to sockets
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
	sessions := len(h.sessions)
	h.mu.Unlock()
	f := &h.figures
	f.mu.Lock()
	defer f.mu.Unlock()
	return Figures{
		Sessions: sessions, Opened: f.opened.Load(), Sent: f.sent.Load(), Closed: maps.Clone(f.closed),
		StatsDropped: f.statsDropped.Load(), Gaps: f.gaps.Load(), FromJournal: f.fromJournal.Load(),
		Dropped: f.dropped.Load(),
	}
}
