package falco

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// DirectOptions of the intake without Falco.
type DirectOptions struct {
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps the figures unregistered
}

// Direct takes CloudTrail records from a feed. Records that change nothing are left out. A full journal holds up the
// reading; nothing is dropped.
type Direct struct {
	journal *journal.Journal
	feed    *feed.Feed
	log     *slog.Logger
	metrics metrics
}

// NewDirect makes the intake of one feed.
func NewDirect(j *journal.Journal, f *feed.Feed, o DirectOptions) *Direct {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Direct{journal: j, feed: f, log: o.Log.With("component", "falco", "intake", intakeDirect), metrics: newMetrics(o.Metrics, intakeDirect)}
}

const (
	directBatch  = 256
	directLinger = 50 * time.Millisecond // how long a record waits for others to be stored with
)

// Run reads until the feed ends or ctx does, and then returns nil. An error is the journal's.
func (d *Direct) Run(ctx context.Context) error {
	alerts := make(chan journal.Alert)
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		defer close(alerts)
		err := d.feed.Run(ctx, func(text []byte) error {
			a, ok := d.alert(text)
			if !ok {
				return nil
			}
			select {
			case alerts <- a:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	work.Go(func() error { return d.store(ctx, alerts) })
	return work.Wait()
}

func (d *Direct) alert(text []byte) (journal.Alert, bool) {
	rec, err := trail.Decode(text)
	if err != nil {
		d.metrics.faults.WithLabelValues("not_a_record").Inc()
		d.log.Debug("record cannot be read", "cause", err)
		return journal.Alert{}, false
	}
	if !rec.Mutating() {
		return journal.Alert{}, false
	}
	id := rec.EventID
	if id == "" {
		sum := sha256.Sum256(text)
		id = hex.EncodeToString(sum[:])
	}
	return journal.Alert{Key: key("record", id), Intake: intakeDirect, Time: rec.EventTime, Record: text}, true
}

// store puts what has gathered, at the latest directLinger after its first.
func (d *Direct) store(ctx context.Context, alerts <-chan journal.Alert) error {
	var batch []journal.Alert
	var due <-chan time.Time
	put := func() error {
		if len(batch) == 0 {
			return nil
		}
		start := time.Now()
		stored, err := d.journal.Put(context.WithoutCancel(ctx), batch...)
		if err != nil {
			return err
		}
		d.metrics.stored.Add(float64(stored))
		d.metrics.repeated.Add(float64(len(batch) - stored))
		d.metrics.latency.Observe(time.Since(start).Seconds())
		batch, due = nil, nil
		return nil
	}
	for {
		select {
		case a, more := <-alerts:
			if !more {
				return put()
			}
			batch = append(batch, a)
			if due == nil {
				due = time.After(directLinger)
			}
			if len(batch) < directBatch {
				continue
			}
		case <-due:
		}
		if err := put(); err != nil {
			return err
		}
	}
}
