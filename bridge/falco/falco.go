// Package falco takes in what happened: Falco's alerts by http_output and by gRPC, and CloudTrail records read without
// Falco.
//
// In come requests, gRPC responses and records; out go journal.Alerts, all of one form whichever way they came, into the
// journal's inbox. An alert is on disk before it is acknowledged. One that comes again, by the same way or another, has the
// same key and is stored once. What cannot be read is counted and logged without its content, and the rest goes on. A
// slow journal slows the sender: there is no queue here.
//
// Start reading at NewHTTP, NewGRPC and NewDirect; decode.go makes one alert of either form, record.go gives it back the
// CloudTrail record it is about.
package falco

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// status is what an intake says of itself; it is safe for concurrent use.
type status struct {
	mu     sync.Mutex
	reason string // "" is well
}

func (s *status) set(reason string) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.reason != reason
	s.reason = reason
	return changed
}

// Status is false, with the reason and what to do, while the intake does not get what it should.
func (s *status) Status() (ok bool, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason == "", s.reason
}

// metrics are an intake's figures; the label intake tells them apart.
type metrics struct {
	stored, repeated prometheus.Counter
	faults           *prometheus.CounterVec
	latency          prometheus.Observer
}

var (
	storedOpts   = prometheus.CounterOpts{Name: "tfdrift_alerts_stored_total", Help: "Alerts and records put into the inbox."}
	repeatedOpts = prometheus.CounterOpts{Name: "tfdrift_alerts_repeated_total", Help: "Alerts and records that were in the inbox already."}
	faultOpts    = prometheus.CounterOpts{Name: "tfdrift_intake_faults_total", Help: "What could not be taken in, by kind."}
	latencyOpts  = prometheus.HistogramOpts{
		Name: "tfdrift_intake_seconds", Help: "From an alert's arrival to its being on disk.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .02, .05, .1, .5, 1},
	}
)

// newMetrics registers the figures of one intake, or takes those that another of its kind registered.
func newMetrics(reg prometheus.Registerer, intake string) metrics {
	label := prometheus.Labels{"intake": intake}
	stored := prometheus.NewCounterVec(storedOpts, []string{"intake"})
	repeated := prometheus.NewCounterVec(repeatedOpts, []string{"intake"})
	faults := prometheus.NewCounterVec(faultOpts, []string{"intake", "kind"})
	latency := prometheus.NewHistogramVec(latencyOpts, []string{"intake"})
	if reg != nil {
		stored, repeated = register(reg, stored), register(reg, repeated)
		faults, latency = register(reg, faults), register(reg, latency)
	}
	return metrics{
		stored: stored.With(label), repeated: repeated.With(label),
		faults: faults.MustCurryWith(label), latency: latency.With(label),
	}
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	if already, ok := err.(prometheus.AlreadyRegisteredError); ok { //nolint:errorlint // Register returns it bare
		return already.ExistingCollector.(C)
	}
	return c
}
