package falco

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

// feedMetrics shows the figures of one feed, which counts by itself: it is part of the plugin too, where there is no
// Prometheus. The label feed is the path; two feeds of one path show one.
type feedMetrics struct {
	feed                                  *feed.Feed
	records, bytes, files, faults, asides *prometheus.Desc
}

func newFeedMetrics(f *feed.Feed) *feedMetrics {
	desc := func(name, help string, more ...string) *prometheus.Desc {
		return prometheus.NewDesc("tfdrift_feed_"+name+"_total", help, more, prometheus.Labels{"feed": f.Path()})
	}
	return &feedMetrics{
		feed:    f,
		records: desc("records", "CloudTrail records read without Falco, also those that change nothing."),
		bytes:   desc("bytes", "Bytes of these records."),
		files:   desc("files", "Files read at least in part."),
		faults:  desc("faults", "What could not be read, by kind; too_large are records beyond all measure.", "kind"),
		asides:  desc("aside", "JSON that was passed over, by kind: not CloudTrail records, or records of a file that was copied.", "kind"),
	}
}

// Describe implements prometheus.Collector.
func (m *feedMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.records, m.bytes, m.files, m.faults, m.asides} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *feedMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.feed.Stats()
	show := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	show(m.records, s.Records)
	show(m.bytes, s.Bytes)
	show(m.files, s.Files)
	for _, kind := range slices.Sorted(maps.Keys(s.Faults)) {
		show(m.faults, s.Faults[kind], kind)
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Aside)) {
		show(m.asides, s.Aside[kind], kind)
	}
}
