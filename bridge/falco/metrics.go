package falco

import (
	"errors"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// metrics are an intake's figures; the label intake tells them apart. What senders choose is in no label but source, of
// which there are at most maxSources.
type metrics struct {
	received               *prometheus.CounterVec // by source
	sources                *sources
	stored, repeated       prometheus.Counter
	lost, refused, faults  *prometheus.CounterVec // by cause, by cause, by kind
	bytes, reconnects      prometheus.Counter
	inFlight, connections  prometheus.Gauge
	held, heldBytes        prometheus.Gauge
	latency, sinceHappened prometheus.Observer
}

// newMetrics registers the figures of one intake, or takes those that another of its kind registered.
func newMetrics(reg prometheus.Registerer, intake string) metrics {
	label := prometheus.Labels{"intake": intake}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(more, "intake"))).MustCurryWith(label)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"intake"})).With(label)
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Observer {
		return register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"intake"})).With(label)
	}
	m := metrics{
		received:    counter("tfdrift_alerts_received_total", "Alerts and mutating records that arrived and could be read, by Falco's event source.", "source"),
		sources:     &sources{},
		stored:      counter("tfdrift_alerts_stored_total", "Alerts and records put into the inbox.").With(nil),
		repeated:    counter("tfdrift_alerts_repeated_total", "Alerts and records that were in the inbox already.").With(nil),
		lost:        counter("tfdrift_alerts_lost_total", "Alerts that were received and never stored, by cause. Nobody sends them again.", "cause"),
		refused:     counter("tfdrift_intake_refused_total", "Requests that were not answered with 200, by cause. Those refused for the journal may be stored later.", "cause"),
		faults:      counter("tfdrift_intake_faults_total", "What could not be taken in, or only in part, by kind.", "kind"),
		bytes:       counter("tfdrift_intake_bytes_total", "Bytes of alerts and records that were read, unpacked.").With(nil),
		reconnects:  counter("tfdrift_intake_reconnects_total", "Connections tried after the first.").With(nil),
		inFlight:    gauge("tfdrift_intake_in_flight", "Requests that are being read or wait for the disk."),
		connections: gauge("tfdrift_intake_connections", "Connections that are open: of senders by HTTP, or the one stream of alerts by gRPC."),
		held:        gauge("tfdrift_intake_held_alerts", "Alerts and records in memory that are not yet on disk."),
		heldBytes:   gauge("tfdrift_intake_held_bytes", "About what these take in memory."),
		latency: histogram("tfdrift_intake_seconds", "From an alert's arrival to its being on disk.",
			.0005, .001, .0025, .005, .01, .02, .05, .1, .5, 1, 5),
		sinceHappened: histogram("tfdrift_alert_age_seconds", "From what an alert or record tells of to its being on disk, as its own time says.",
			.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600),
	}
	for _, cause := range []string{"full", "stopped", "not_encodable"} {
		m.lost.WithLabelValues(cause) // an alarm on it needs a 0 to grow from
	}
	return m
}

func (m metrics) fault(kind string) { m.faults.WithLabelValues(kind).Inc() }

// receive counts one alert that could be read.
func (m metrics) receive(source string, bytes int) {
	m.received.WithLabelValues(m.sources.label(source)).Inc()
	m.bytes.Add(float64(bytes))
}

// store counts what is on disk now, of which stored was not there before.
func (m metrics) store(alerts []journal.Alert, stored int, arrived time.Time) {
	now := time.Now()
	m.stored.Add(float64(stored))
	m.repeated.Add(float64(len(alerts) - stored))
	m.latency.Observe(now.Sub(arrived).Seconds())
	for _, a := range alerts {
		if !a.Time.IsZero() {
			m.sinceHappened.Observe(max(now.Sub(a.Time), 0).Seconds())
		}
	}
}

// maxSources is how many event sources have a label of their own; there are about a dozen plugins with one.
const maxSources = 24

// sources are the event sources that were seen. It is safe for concurrent use.
type sources struct {
	mu   sync.Mutex
	seen map[string]bool
}

// sourceName is what Falco accepts as a plugin's event source.
var sourceName = regexp.MustCompile(`^[a-z]+[a-z0-9_]{0,63}$`)

// label is the source, "unknown" without one, and "other" for what is not a source's name or too many.
func (s *sources) label(source string) string {
	if source == "" {
		return "unknown"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[source] {
		return source
	}
	if len(s.seen) >= maxSources || !sourceName.MatchString(source) {
		return "other"
	}
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.seen[source] = true
	return source
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](reg.Register(c)); ok {
		return already.ExistingCollector.(C)
	}
	return c
}
