package journal

import (
	"os"

	"github.com/prometheus/client_golang/prometheus"
	sqlite3 "modernc.org/sqlite/lib"
)

// metrics are the writer's figures; what is in the journal counts itself, see Counts.
type metrics struct {
	seconds prometheus.Histogram
	batch   prometheus.Histogram
	waiting prometheus.Gauge
	refused *prometheus.CounterVec
	pruned  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, path string) metrics {
	m := metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tfdrift_journal_transaction_seconds", Help: "Time of one transaction of the journal, its wait for the disk included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tfdrift_journal_transaction_requests", Help: "Alerts and commits that shared one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tfdrift_journal_waiting", Help: "Callers that wait for the journal's writer: the length of its queue.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tfdrift_journal_refused_total", Help: "Transactions that the disk or a lock refused, by cause; none of their content is stored.",
		}, []string{"cause"}),
		pruned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tfdrift_journal_pruned_total", Help: "Rows deleted because they lay beyond the retention, by table.",
		}, []string{"table"}),
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tfdrift_journal_bytes", Help: "Size of the journal's files on disk.",
	}, func() float64 { return sizeOf(path, path+"-wal") })
	if reg != nil {
		reg.MustRegister(m.seconds, m.batch, m.waiting, m.refused, m.pruned, size)
	}
	return m
}

func sizeOf(paths ...string) (bytes float64) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			bytes += float64(info.Size())
		}
	}
	return bytes
}

// causeOf names why a transaction was refused, in a word.
func causeOf(err error) string {
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return "disk_full"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return "locked"
	case sqlite3.SQLITE_IOERR:
		return "disk"
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return "read_only"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "corrupt"
	}
	return "other"
}
