package hub_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// BenchmarkFanout commits 500-byte messages to sessions over loopback, clients in the same process. burst=1 waits for
// everybody behind each message and tells how long the last one took; burst=100 tells the throughput.
func BenchmarkFanout(b *testing.B) {
	for _, sessions := range []int{200, 1000} {
		for _, burst := range []int{1, 100} {
			b.Run(fmt.Sprintf("sessions=%d/burst=%d", sessions, burst), func(b *testing.B) { fanout(b, sessions, burst) })
		}
	}
}

func fanout(b *testing.B, sessions, burst int) {
	j, err := journal.Open(b.Context(), b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	h := hub.New(j, hub.Options{})
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { _ = h.Run(ctx) })
	endpoint := h.Endpoint(newPlain)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _ = endpoint.Connect(w, q) }))
	defer server.Close()
	defer func() { cancel(); running.Wait() }()

	received := make(chan struct{}, sessions*burst)
	for range sessions {
		c, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(server.URL, "http"), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		err = errors.Join(discard(c), c.WriteMessage(websocket.TextMessage, []byte("events")), discard(c))
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for discard(c) == nil {
				received <- struct{}{}
			}
		}()
	}
	var c journal.Commit
	for range burst {
		c.Messages = append(c.Messages, wire.Message{
			Type: wire.TypeEvent, Topic: wire.TopicEvents, Payload: wire.Event{User: strings.Repeat("x", 250)},
		})
	}
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		if err := j.Commit(b.Context(), c); err != nil {
			b.Fatal(err)
		}
		for range sessions * burst {
			<-received
		}
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N*sessions*burst)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

func discard(c *websocket.Conn) error {
	_, r, err := c.NextReader()
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	return err
}
