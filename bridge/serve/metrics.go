package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
)

// metrics collects the bridge's figures when they are asked for, and counts requests itself.
type metrics struct {
	reader   Reader
	hub      *hub.Hub
	log      *slog.Logger
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// scrapeWait is how long a scrape waits for the journal.
const scrapeWait = 5 * time.Second

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tfdrift_"+name, help, labels, nil)
}

var (
	descSessions     = describe("sessions", "WebSocket sessions that are open.")
	descSubscribers  = describe("subscribers", "Subscribers of the feed: WebSocket sessions and streams of server-sent events.")
	descBehind       = describe("slowest_subscriber_seconds", "How much older what the slowest subscriber reads is than the newest message.")
	descOpened       = describe("sessions_opened_total", "WebSocket sessions opened.")
	descClosed       = describe("sessions_closed_total", "WebSocket sessions that ended, by cause.", "cause")
	descSent         = describe("messages_sent_total", "Frames written to WebSocket sessions.")
	descStatsDropped = describe("stats_dropped_total", "Stats messages that a newer one replaced before a slow subscriber took them.")
	descGaps         = describe("gaps_total", "Gap messages made for subscribers that fell behind the retention.")
	descFromJournal  = describe("messages_from_journal_total", "Messages that subscribers behind the ring read from the journal.")
	descDropped      = describe("frames_dropped_total", "Frames lost on their way to a session. Anything but 0 is a fault of the bridge.")
	descAlerts       = describe("inbox_alerts_total", "Alerts stored in the inbox.")
	descPending      = describe("inbox_pending", "Alerts in the inbox that are not yet correlated.")
	descMessages     = describe("journal_messages_total", "Messages journalled, by type.", "type")
	descOpenDrifts   = describe("drifts_open", "Drifts that are open.")
	descBlind        = describe("blind_spots_total", "Mutating events that no state explained.")
)

// newMetrics registers everything; what the registry has already is left as it is.
func newMetrics(registry *prometheus.Registry, reader Reader, h *hub.Hub, log *slog.Logger) *metrics {
	m := &metrics{
		reader: reader, hub: h, log: log,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tfdrift_http_requests_total", Help: "HTTP requests answered, without WebSocket sessions.",
		}, []string{"path", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tfdrift_http_request_seconds", Help: "Time to answer HTTP requests, without WebSocket sessions.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 7),
		}, []string{"path"}),
	}
	for _, c := range []prometheus.Collector{
		m, m.requests, m.seconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		err := registry.Register(c)
		if _, have := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !have {
			log.Error("metrics not registered", "error", err)
		}
	}
	return m
}

func (m *metrics) handler(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

func (m *metrics) request(path, code string, took time.Duration) {
	m.requests.WithLabelValues(path, code).Inc()
	m.seconds.WithLabelValues(path).Observe(took.Seconds())
}

// Describe tells what Collect gives. It implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descSessions, descSubscribers, descBehind, descOpened, descClosed, descSent, descStatsDropped, descGaps, descFromJournal, descDropped,
		descAlerts, descPending, descMessages, descOpenDrifts, descBlind,
	} {
		to <- d
	}
}

// Collect gives the figures of this moment. Where the journal cannot be read, the hub's are given alone.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	f := m.hub.Figures()
	gauge(descSessions, int64(f.Sessions))
	gauge(descSubscribers, int64(f.Cursors))
	to <- prometheus.MustNewConstMetric(descBehind, prometheus.GaugeValue, f.Behind.Seconds())
	count(descOpened, f.Opened)
	for cause, n := range f.Closed {
		count(descClosed, n, cause)
	}
	count(descSent, f.Sent)
	count(descStatsDropped, f.StatsDropped)
	count(descGaps, f.Gaps)
	count(descFromJournal, f.FromJournal)
	count(descDropped, f.Dropped)

	ctx, cancel := context.WithTimeout(context.Background(), scrapeWait)
	defer cancel()
	s, err := m.reader.Stats(ctx)
	if err != nil {
		m.log.Warn("metrics without the journal", "error", err)
		return
	}
	count(descAlerts, s.Alerts)
	gauge(descPending, s.Pending)
	for kind, n := range s.Messages {
		count(descMessages, n, kind)
	}
	gauge(descOpenDrifts, s.OpenDrifts)
	var blind int64
	for _, n := range s.BlindSpots {
		blind += n
	}
	count(descBlind, blind)
}
