package correlate

import "github.com/prometheus/client_golang/prometheus"

// metrics are the stage's figures.
type metrics struct {
	verdicts *prometheus.CounterVec
	serials  prometheus.Counter
	latency  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tfdrift_verdicts_total", Help: "Verdicts on mutating CloudTrail events, one for each changed instance or attribute.",
		}, []string{"verdict", "precision"}),
		serials: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tfdrift_serials_total", Help: "State serials taken in, first ones included.",
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tfdrift_correlate_seconds", Help: "From an alert's arrival in the inbox to its messages in the journal.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.verdicts, m.serials, m.latency)
	}
	return m
}
