package correlate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// states gives the inventory's figures whenever they are asked for.
type states struct{ inventory *inventory.Inventory }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tfdrift_"+name, help, labels, nil)
}

var (
	statesDesc      = desc("states", "Terraform states heard of, read or not.")
	faultsDesc      = desc("state_faults", "States that cannot be read now, by cause.", "cause")
	instancesDesc   = desc("state_instances", "Resource instances in the newest serials, data sources included.")
	snapshotsDesc   = desc("state_snapshots", "Serials kept of all states, to compare late records with.")
	identifiersDesc = desc("state_identifiers", "Identifiers of instances in the index, those of older serials included.")
	ageDesc         = desc("state_newest_age_seconds", "Time since the newest serial of all states was written, and since a state was last read whole; absent before the first.", "since")
	readsDesc       = desc("state_reads_total", "Contents of states read, unchanged and broken ones included.")
	readTimeDesc    = desc("state_read_seconds_total", "Time spent on reading contents of states.")
	readSizeDesc    = desc("state_read_bytes_total", "Bytes of states read.")
)

// Describe is prometheus.Collector's.
func (s states) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		statesDesc, faultsDesc, instancesDesc, snapshotsDesc, identifiersDesc, ageDesc, readsDesc, readTimeDesc, readSizeDesc,
	} {
		to <- d
	}
}

// Collect is prometheus.Collector's.
func (s states) Collect(to chan<- prometheus.Metric) {
	f := s.inventory.Figures()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(statesDesc, float64(f.States))
	gauge(instancesDesc, float64(f.Instances))
	gauge(snapshotsDesc, float64(f.Snapshots))
	gauge(identifiersDesc, float64(f.Identifiers))
	for cause, n := range f.Faults {
		gauge(faultsDesc, float64(n), cause)
	}
	for since, at := range map[string]time.Time{"written": f.Written, "read": f.Read} {
		if !at.IsZero() {
			gauge(ageDesc, time.Since(at).Seconds(), since)
		}
	}
	counter(readsDesc, float64(f.Parses))
	counter(readTimeDesc, f.ParseTime.Seconds())
	counter(readSizeDesc, float64(f.ParseSize))
}
