package journal_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// BenchmarkPut tells the throughput of one alert a Put and the p50 and p99 of its latency.
func BenchmarkPut(b *testing.B) {
	for _, senders := range []int{1, 64} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) { benchmarkPut(b, senders) })
	}
}

func benchmarkPut(b *testing.B, senders int) {
	j, err := journal.Open(b.Context(), b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	record := jsontext.Value(`{"eventName":"x","pad":"` + string(make1k()) + `"}`)
	took := make([]time.Duration, b.N)
	var wg sync.WaitGroup
	b.ResetTimer()
	for s := range senders {
		wg.Go(func() {
			for i := s; i < b.N; i += senders {
				start := time.Now()
				_, err := j.Put(b.Context(), journal.Alert{Key: fmt.Sprint("key-", i), Intake: "cloudtrail", Record: record})
				if err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

func make1k() []byte { return []byte(fmt.Sprintf("%01000d", 0)) }
