package falco

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// DirectOptions of the intake without Falco.
type DirectOptions struct {
	Log     *slog.Logger          // nil logs nothing
	Metrics prometheus.Registerer // nil keeps the figures unregistered
}

// Direct takes CloudTrail records from a feed. Records that change nothing are left out. At most two batches of 256 records
// wait; then a journal that cannot keep up, or refuses, holds up the reading. Nothing is dropped.
type Direct struct {
	*intake
	feed *feed.Feed
}

// NewDirect makes the intake of one feed.
func NewDirect(j *journal.Journal, f *feed.Feed, o DirectOptions) *Direct {
	register(o.Metrics, newFeedMetrics(f))
	return &Direct{intake: newIntake(intakeDirect, j, o.Log, o.Metrics), feed: f}
}

// Status is unusable while the journal stores nothing. What the feed cannot read is in the feed's own figures and log.
func (d *Direct) Status() wire.Check { return d.status.get() }

const (
	directBatch  = 256
	directLinger = 50 * time.Millisecond // how long a record waits for others to be stored with
)

// Run reads until the feed ends or ctx does, and then returns nil. What was read by then is stored. An error is that of a
// journal which was closed, or did not take the last records when ctx had ended; or the feed's.
func (d *Direct) Run(ctx context.Context) error {
	alerts := make(chan journal.Alert, directBatch)
	work, reading := errgroup.WithContext(ctx)
	work.Go(func() error {
		defer close(alerts)
		err := d.feed.Run(reading, func(text []byte) error {
			a, ok := d.alert(text)
			if !ok {
				return nil
			}
			select {
			case alerts <- a:
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		})
		if reading.Err() != nil {
			return nil
		}
		return err
	})
	work.Go(func() error { return d.store(ctx, alerts) })
	return work.Wait()
}

// alert makes an alert of a record; false for one that changes nothing, or is none.
func (d *Direct) alert(text []byte) (journal.Alert, bool) {
	rec, err := trail.Decode(text)
	if err != nil {
		d.metrics.fault("not_a_record")
		if d.said.first("not_a_record") {
			d.log.Warn("record cannot be read", "bytes", len(text), "cause", err)
		}
		return journal.Alert{}, false
	}
	if !rec.Mutating() {
		return journal.Alert{}, false
	}
	d.metrics.receive("cloudtrail", len(text))
	return journal.Alert{Key: recordKey(rec.EventID, text), Intake: intakeDirect, Time: rec.EventTime, Record: text}, true
}

// store puts what has gathered, a full batch at once and a part of one directLinger after its first record.
func (d *Direct) store(ctx context.Context, alerts <-chan journal.Alert) error {
	var batch []journal.Alert
	var first time.Time
	var due <-chan time.Time
	for more := true; more; {
		var a journal.Alert
		select {
		case a, more = <-alerts:
			if more {
				batch = append(batch, a)
			}
			if len(batch) == 1 && due == nil {
				first, due = time.Now(), time.After(directLinger)
			}
			if more && len(batch) < directBatch {
				continue
			}
		case <-due:
		}
		if len(batch) == 0 {
			continue
		}
		if err := d.persist(ctx, first, batch, nil); err != nil {
			return err
		}
		batch, due = nil, nil
	}
	return nil
}
