package falco

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// hold has the alerts that have arrived and are not on disk, in their order. Its limits are in count and in bytes; what
// would exceed them is refused. One goroutine takes from it, any number put in.
type hold struct {
	maxCount int
	maxBytes int64
	came     chan struct{} // holds one value while there may be something to take
	metrics  metrics

	mu      sync.Mutex
	queue   []*held
	count   int   // with those taken and not yet let go
	bytes   int64 // likewise
	stalled bool  // the journal is slow or refuses: nobody should wait for it
	closed  bool
}

// held is one alert that waits for the disk.
type held struct {
	alert   journal.Alert
	size    int64
	arrived time.Time
	told    chan error // gets the outcome of the first try; has room for one
	gone    bool       // no longer held; guarded by hold.mu
}

var (
	errFull    = errors.New("the memory for alerts that wait for the disk is full")
	errStopped = errors.New("the intake has stopped")
)

func newHold(count int, bytes int64, m metrics) *hold {
	return &hold{maxCount: count, maxBytes: bytes, came: make(chan struct{}, 1), metrics: m}
}

// put adds an alert; wait is false when the outcome is not worth waiting for.
func (h *hold) put(a journal.Alert, arrived time.Time) (one *held, wait bool, err error) {
	one = &held{alert: a, size: size(&a), arrived: arrived, told: make(chan error, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, false, errStopped
	case h.count >= h.maxCount || h.bytes+one.size > h.maxBytes:
		return nil, false, errFull
	}
	h.queue = append(h.queue, one)
	h.add(1, one.size)
	select {
	case h.came <- struct{}{}:
	default:
	}
	return one, !h.stalled, nil
}

// add is called with mu held.
func (h *hold) add(count int, bytes int64) {
	h.count, h.bytes = h.count+count, h.bytes+bytes
	h.metrics.held.Set(float64(h.count))
	h.metrics.heldBytes.Set(float64(h.bytes))
}

// take waits for alerts and gives up to most of them. When ctx has ended it gives what there is, and then none for good.
func (h *hold) take(ctx context.Context, most int) []*held {
	for {
		ending := ctx.Err() != nil
		if batch := h.next(most, ending); len(batch) > 0 || ending {
			return batch
		}
		select {
		case <-h.came:
		case <-ctx.Done():
		}
	}
}

// next gives up to most alerts; with ending, an empty hold is closed, so that none comes in unseen.
func (h *hold) next(most int, ending bool) []*held {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(most, len(h.queue))
	batch := h.queue[:n:n]
	if h.queue = h.queue[n:]; len(h.queue) == 0 {
		h.queue = nil // lets go of the array
	}
	h.closed = h.closed || ending && n == 0
	return batch
}

// letGo frees the room of alerts that are on disk, or given up. What is stored shows that the journal works.
func (h *hold) letGo(batch []*held, stored bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalled = h.stalled && !stored
	for _, one := range batch {
		one.gone = true
		h.add(-1, -one.size)
	}
}

// stall notes that waiting for the disk is of no use while one is held, until something is stored; it reports whether that
// is news.
func (h *hold) stall(one *held) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	news = !h.stalled && !one.gone
	h.stalled = h.stalled || news
	return news
}

// size is about what an alert takes in memory.
func size(a *journal.Alert) int64 {
	const overhead = 512
	n := overhead + len(a.Output) + len(a.Record)
	for name, value := range a.Fields {
		n += len(name) + len(value)
	}
	return int64(n)
}
