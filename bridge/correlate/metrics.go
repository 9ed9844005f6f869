package correlate

import "github.com/prometheus/client_golang/prometheus"

// metrics are the stage's figures.
type metrics struct {
	verdicts      *prometheus.CounterVec
	serials       prometheus.Counter
	latency       prometheus.Histogram
	age           prometheus.Histogram
	serialsQueued prometheus.GaugeFunc
}

// newMetrics registers the figures; queued gives the length of the queue of serials.
func newMetrics(reg prometheus.Registerer, queued func() float64) metrics {
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
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tfdrift_event_age_seconds", Help: "How old a CloudTrail event is when it is judged: its own time to ours.",
			Buckets: []float64{1, 5, 15, 60, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600},
		}),
		serialsQueued: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tfdrift_serials_waiting", Help: "New serials that wait to be told; a full queue (64) holds back the reading of states.",
		}, queued),
	}
	if reg != nil {
		reg.MustRegister(m.verdicts, m.serials, m.latency, m.age, m.serialsQueued)
	}
	return m
}
