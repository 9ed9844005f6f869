package journal_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// TestTheFiguresTellTransactions: what was written, how much shared a transaction, what was refused and what pruned.
func TestTheFiguresTellTransactions(t *testing.T) {
	registry := prometheus.NewRegistry()
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{Metrics: registry, Retain: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	for i := range 200 {
		commit(t, j, journal.Commit{Messages: []wire.Message{{Type: wire.TypeEvent, Topic: wire.TopicEvents, Payload: wire.Event{ResourceID: fmt.Sprint(i)}}}})
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if got["tfdrift_journal_transaction_seconds"] != 200 || got["tfdrift_journal_transaction_requests"] != 200 ||
		got["tfdrift_journal_pruned_total"] < 100 || got["tfdrift_journal_bytes"] < 4096 || got["tfdrift_journal_waiting"] != 0 {
		t.Errorf("got %v", got)
	}
}
