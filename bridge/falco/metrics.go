package falco

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are an intake's figures; the label intake tells them apart.
type metrics struct {
	received, stored, repeated prometheus.Counter
	faults                     *prometheus.CounterVec
	latency                    prometheus.Observer
}

// newMetrics registers the figures of one intake, or takes those that another of its kind registered.
func newMetrics(reg prometheus.Registerer, intake string) metrics {
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(more, "intake")))
	}
	latency := register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "tfdrift_intake_seconds", Help: "From an alert's arrival to its being on disk.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .02, .05, .1, .5, 1, 5},
	}, []string{"intake"}))
	label := prometheus.Labels{"intake": intake}
	return metrics{
		received: counter("tfdrift_alerts_received_total", "Alerts and mutating records that arrived and could be read.").With(label),
		stored:   counter("tfdrift_alerts_stored_total", "Alerts and records put into the inbox.").With(label),
		repeated: counter("tfdrift_alerts_repeated_total", "Alerts and records that were in the inbox already.").With(label),
		faults:   counter("tfdrift_intake_faults_total", "What could not be taken in, or only in part, by kind.", "kind").MustCurryWith(label),
		latency:  latency.With(label),
	}
}

func (m metrics) fault(kind string) { m.faults.WithLabelValues(kind).Inc() }

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](reg.Register(c)); ok {
		return already.ExistingCollector.(C)
	}
	return c
}
