package falco

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// intake is what the three ways in share: the journal, the figures, and what is said of troubles. It is safe for
// concurrent use.
type intake struct {
	journal *journal.Journal
	log     *slog.Logger
	metrics metrics
	status  status
	said    said
}

func newIntake(name string, j *journal.Journal, log *slog.Logger, reg prometheus.Registerer) *intake {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &intake{journal: j, log: log.With("component", "falco", "intake", name), metrics: newMetrics(reg, name)}
}

// putWithin bounds the wait for the journal's writer; a put that runs out of it is not stored.
const putWithin = 10 * time.Second

// persist stores alerts that nobody sends a second time, whatever becomes of who sent them: it tries until the journal takes
// them or is closed, or ctx has ended and one last try is refused. It is the back pressure: meanwhile nothing more is taken
// from the sender. Each refusal is told to refused, if that is not nil.
func (i *intake) persist(ctx context.Context, arrived time.Time, alerts []journal.Alert, refused func(error)) error {
	pause := newPause(100*time.Millisecond, 5*time.Second)
	for len(alerts) > 0 {
		last, start := ctx.Err() != nil, time.Now()
		err := i.put(ctx, arrived, alerts)
		if err == nil {
			return nil
		}
		if good := i.encodable(alerts); len(good) < len(alerts) { // that was not the journal's fault
			alerts = good
			continue
		}
		i.refused(len(alerts), err)
		if refused != nil {
			refused(err)
		}
		if ctx.Err() != nil && time.Since(start) > prompt { // that was long enough a try
			last = true
		}
		if last || errors.Is(err, journal.ErrClosed) {
			return fmt.Errorf("store %d alerts: %w", len(alerts), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
	return nil
}

// prompt is how long an answer should wait for the disk at most.
const prompt = time.Second

// put is one try.
func (i *intake) put(ctx context.Context, arrived time.Time, alerts []journal.Alert) error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), putWithin)
	defer cancel()
	start := time.Now()
	stored, err := i.journal.Put(within, alerts...)
	if err != nil {
		return err
	}
	if time.Since(start) < prompt {
		i.status.set(aboutSlow, "", 0)
	}
	if i.status.set(aboutJournal, "", 0) {
		i.log.Info("the journal stores alerts again")
	}
	i.metrics.store(alerts, stored, arrived)
	return nil
}

// wayOut is what an operator can do when the journal stores nothing.
const wayOut = "make room on the disk of the journal's folder (--data), see that the bridge may write there, and end what else has the journal open; the bridge needs no restart"

// refused notes and tells that the journal stores nothing.
func (i *intake) refused(count int, err error) {
	i.metrics.fault("journal")
	if i.status.unusable("the journal cannot store alerts: " + err.Error()) {
		i.log.Error("alerts cannot be stored, tried again until they can", "count", count, "cause", err, "way_out", wayOut)
	}
}

// lose counts alerts that were received and are given up, and says so, once an hour for each cause.
func (i *intake) lose(count int, cause string, err error) {
	i.metrics.lost.WithLabelValues(cause).Add(float64(count))
	if i.said.first("lost " + cause) {
		i.log.Error("alerts are lost: Falco does not send them again", "count", count, "cause", err, "metric", "tfdrift_alerts_lost_total", "way_out", wayOut)
	}
}

// encodable leaves out what the journal will never take, so that one such alert does not stop all others for good.
func (i *intake) encodable(alerts []journal.Alert) []journal.Alert {
	return slices.DeleteFunc(slices.Clone(alerts), func(a journal.Alert) bool {
		_, err := json.Marshal(a, lenient)
		if err != nil {
			i.metrics.fault("not_an_alert")
			i.metrics.lost.WithLabelValues("not_encodable").Inc()
			i.log.Error("alert cannot be encoded and is left out", "rule", a.Rule, "cause", err)
		}
		return err != nil
	})
}

// pause grows from one try to the next, with jitter, up to a limit.
type pause struct {
	*backoff.ExponentialBackOff
	limit time.Duration
}

func newPause(first, limit time.Duration) pause {
	p := backoff.NewExponentialBackOff()
	p.InitialInterval, p.MaxInterval, p.Multiplier = first, limit, 2
	p.Reset()
	return pause{p, limit}
}

// NextBackOff keeps to the limit, which the jitter of the library may exceed.
func (p pause) NextBackOff() time.Duration { return min(p.ExponentialBackOff.NextBackOff(), p.limit) }

// What a status can be about.
const (
	aboutSender     = "sender " // and which: any number
	aboutConnection = "connection"
	aboutJournal    = "journal"
	aboutSlow       = "slow journal"
)

// status is what is wrong now, by what it is about. With maxTroubles kept, no more of single senders are noted.
type status struct {
	mu       sync.Mutex
	troubles map[string]trouble
}

type trouble struct {
	reason   string
	until    time.Time // zero: until it is told to be over
	unusable bool      // nothing can be taken in
}

const maxTroubles = 256

// set notes the reason, or with "" that the trouble is over, and reports whether that is news. A trouble with a duration
// ends by itself when it was not noted again for so long.
func (s *status) set(about, reason string, lasts time.Duration) (news bool) {
	return s.note(about, trouble{reason: reason}, lasts)
}

// unusable notes that the journal stores nothing, until set says that this is over.
func (s *status) unusable(reason string) (news bool) {
	return s.note(aboutJournal, trouble{reason: reason, unusable: true}, 0)
}

func (s *status) note(about string, t trouble, lasts time.Duration) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, was := s.troubles[about]
	if t.reason == "" {
		delete(s.troubles, about)
		return was
	}
	if !was && len(s.troubles) >= maxTroubles && strings.HasPrefix(about, aboutSender) {
		return false
	}
	if s.troubles == nil {
		s.troubles = map[string]trouble{}
	}
	if lasts > 0 {
		t.until = time.Now().Add(lasts)
	}
	s.troubles[about] = t
	return before.reason != t.reason
}

// get joins what is wrong, naming the first few reasons. All but a journal that stores nothing leaves the intake degraded.
func (s *status) get() wire.Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.troubles, func(_ string, t trouble) bool { return !t.until.IsZero() && now.After(t.until) })
	var reasons []string
	unusable := false
	for _, about := range slices.Sorted(maps.Keys(s.troubles)) {
		t := s.troubles[about]
		if t.unusable { // named first
			unusable, reasons = true, slices.Insert(reasons, 0, t.reason)
			continue
		}
		reasons = append(reasons, t.reason)
	}
	const most = 3
	if more := len(reasons) - most; more > 0 {
		reasons = append(reasons[:most], fmt.Sprintf("and %d more", more))
	}
	well := len(reasons) == 0
	return wire.Check{OK: well, Degraded: !well && !unusable, Reason: strings.Join(reasons, "; ")}
}

// said keeps the log from repeating itself.
type said struct {
	mu   sync.Mutex
	when map[string]time.Time
}

const (
	sayAgain = time.Hour
	maxSaid  = 1024
)

// first reports whether the cause was not logged within the last hour, and takes it as logged.
func (s *said) first(cause string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if when, known := s.when[cause]; known && now.Sub(when) < sayAgain {
		return false
	}
	if s.when == nil || len(s.when) >= maxSaid {
		s.when = map[string]time.Time{}
	}
	s.when[cause] = now
	return true
}
