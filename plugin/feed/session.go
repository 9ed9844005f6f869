package feed

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// Companion has events of its own beside the records: the Terraform states.
type Companion interface {
	// Load brings the companion up to date. No record is handed out before it returns. It stops early when ctx ends.
	Load(ctx context.Context)
	// Watch hands out events until ctx ends. emit blocks when the taker is slow; after its error nothing more is taken.
	Watch(ctx context.Context, emit func(payload []byte) error) error
}

// Event is what a Session hands out.
type Event struct {
	Payload []byte // owned by the taker
	// Time is when the event happened: a record's eventTime, zero for anything without one.
	Time time.Time
}

// SessionOptions are what a Session may be told.
type SessionOptions struct {
	Log *slog.Logger
	// MaxEvent is the most bytes that an event may have; 0: no limit. A larger record is trimmed to fit, and what does not fit
	// then either is dropped; both are counted and logged.
	MaxEvent int
}

// The limits of what waits for a slow taker: then reading stops.
const (
	maxQueued      = 4096
	maxQueuedBytes = 8 << 20
)

// Session joins the records of a Feed and the events of a Companion into batches. What waits is bounded in number and in
// bytes; when that is reached, the sources block. A panic in a source is logged, counted and ends that source alone, which
// a watching session starts again.
type Session struct {
	options SessionOptions
	cancel  context.CancelFunc
	running sync.WaitGroup
	arrived chan struct{} // holds one when there is something to take, or when all has ended
	trimmed atomic.Uint64
	dropped atomic.Uint64
	panics  atomic.Uint64

	mu    sync.Mutex // guards what follows
	room  *sync.Cond
	queue []Event
	bytes int
	ended bool // the sources have
}

// Start begins to read. records may be nil: then there are only the companion's events, which never end. companion
// may be nil too. With records that are not watched the session ends after the last of them, and the companion is only
// loaded. The caller must call Close.
func Start(ctx context.Context, records *Feed, companion Companion, options SessionOptions) *Session {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.Log = options.Log.With("component", "feed")
	ctx, cancel := context.WithCancel(ctx)
	s := &Session{options: options, cancel: cancel, arrived: make(chan struct{}, 1)}
	s.room = sync.NewCond(&s.mu)
	s.running.Go(func() {
		defer context.AfterFunc(ctx, s.wake)()
		s.run(ctx, records, companion)
	})
	return s
}

// wake lets blocked sources see that the session is over.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room.Broadcast()
}

// run loads the companion, then runs both sources, and ends when they have.
func (s *Session) run(ctx context.Context, records *Feed, companion Companion) {
	if companion != nil {
		s.guard("states", func() error { companion.Load(ctx); return nil })
	}
	var sources sync.WaitGroup
	if companion != nil && (records == nil || records.Watching()) {
		sources.Go(func() {
			s.keep(ctx, "states", true, func() error {
				return companion.Watch(ctx, func(payload []byte) error { return s.push(ctx, Event{Payload: payload}) })
			})
		})
	}
	if records != nil {
		sources.Go(func() {
			s.keep(ctx, "records", records.Watching(), func() error {
				return records.run(ctx, func(it item) error { return s.push(ctx, Event{it.record, it.time}) })
			})
		})
	} else {
		<-ctx.Done()
	}
	sources.Wait()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.signal()
}

// retry is the pause before a source that broke down is started again.
const retry = time.Second

// keep runs a source, again and again while again is set and the session lasts.
func (s *Session) keep(ctx context.Context, name string, again bool, source func() error) {
	for {
		s.guard(name, source)
		if !again || ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// guard runs a source and logs how it broke down, if it did.
func (s *Session) guard(name string, source func() error) {
	defer func() {
		if p := recover(); p != nil {
			s.panics.Add(1)
			s.options.Log.Error("source broke down", "source", name, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := source(); err != nil && !errors.Is(err, context.Canceled) {
		s.options.Log.Error("source ended", "source", name, "err", err)
	}
}

// push queues an event, waiting for room. Its error is that of ctx.
func (s *Session) push(ctx context.Context, e Event) error {
	if s.options.MaxEvent > 0 && len(e.Payload) > s.options.MaxEvent {
		if e.Payload = s.fit(e.Payload); e.Payload == nil {
			return nil
		}
	}
	s.mu.Lock()
	for (len(s.queue) >= maxQueued || s.bytes >= maxQueuedBytes) && ctx.Err() == nil {
		s.room.Wait()
	}
	if err := ctx.Err(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.queue = append(s.queue, e)
	s.bytes += len(e.Payload)
	first := len(s.queue) == 1
	s.mu.Unlock()
	if first {
		s.signal()
	}
	return nil
}

// fit trims an event that is too large, nil where that does not help, and tells which it was: nothing else will.
func (s *Session) fit(payload []byte) []byte {
	rec, err := trail.Decode(payload)
	if err != nil {
		rec = &trail.Record{}
	}
	log := s.options.Log.With("bytes", len(payload), "limit", s.options.MaxEvent, "event_id", rec.EventID, "event_name", rec.EventName)
	if err == nil {
		if fitting, cut := trim(payload, s.options.MaxEvent); fitting != nil {
			s.trimmed.Add(1)
			log.Warn("record larger than an event may be: members left out", "omitted", cut)
			return fitting
		}
	}
	s.dropped.Add(1)
	log.Warn("event dropped, larger than an event may be")
	return nil
}

func (s *Session) signal() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

// Next hands out what waits, at most limit events, as soon as there is one. It returns none when wait has passed without
// any, and io.EOF when everything is handed out and nothing will follow. One goroutine may call it at a time.
func (s *Session) Next(limit int, wait time.Duration) ([]Event, error) {
	if batch, err := s.take(limit); len(batch) > 0 || err != nil {
		return batch, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-s.arrived:
			if batch, err := s.take(limit); len(batch) > 0 || err != nil {
				return batch, err
			}
		case <-timer.C:
			return nil, nil
		}
	}
}

func (s *Session) take(limit int) ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(limit, len(s.queue))
	if n == 0 {
		if s.ended {
			return nil, io.EOF
		}
		return nil, nil
	}
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	for _, e := range batch {
		s.bytes -= len(e.Payload)
	}
	s.room.Broadcast()
	return batch, nil
}

// Trimmed counts the records of which members were left out because they were too large.
func (s *Session) Trimmed() uint64 { return s.trimmed.Load() }

// Dropped counts the events that were too large, trimmed or not.
func (s *Session) Dropped() uint64 { return s.dropped.Load() }

// Panics counts the sources that broke down.
func (s *Session) Panics() uint64 { return s.panics.Load() }

// Close ends the session and returns when nothing of it runs any more. What still waits is not handed out.
func (s *Session) Close() {
	s.cancel()
	s.running.Wait()
}
