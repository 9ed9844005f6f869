package falco_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// server does what Falco's gRPC server was seen to do: one queue for the whole process, which Get and Sub pop from; a
// popped alert that cannot be written is lost; Sub sends all there is and then waits for the client's next request; a
// stop ends every stream without an error.
type server struct {
	outputs.UnimplementedServiceServer
	rpc     *grpc.Server
	served  chan struct{}
	stopped chan struct{}
	// deaf has it go on when the client says that it will send no more.
	deaf bool

	mu       sync.Mutex
	queue    []*outputs.Response
	requests int
	sent     []*outputs.Response
	lost     int
}

// serve starts a Falco on a listener.
func serve(t testing.TB, l net.Listener, alerts []*outputs.Response, options ...grpc.ServerOption) *server {
	t.Helper()
	s := &server{rpc: grpc.NewServer(options...), served: make(chan struct{}), stopped: make(chan struct{}), queue: alerts}
	outputs.RegisterServiceServer(s.rpc, s)
	go func() {
		defer close(s.served)
		_ = s.rpc.Serve(l)
	}()
	t.Cleanup(s.stop)
	return s
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *server) stop() {
	select {
	case <-s.stopped:
		return
	default:
	}
	close(s.stopped)
	s.rpc.GracefulStop()
	<-s.served
}

// kill ends the process without a word to anybody.
func (s *server) kill() {
	s.rpc.Stop()
	<-s.served
}

func (s *server) push(alerts ...*outputs.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, alerts...)
}

func (s *server) pop() *outputs.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	r := s.queue[0]
	s.queue = s.queue[1:]
	return r
}

// drain sends all there is; false when the client is gone.
func (s *server) drain(send func(*outputs.Response) error) bool {
	for r := s.pop(); r != nil; r = s.pop() {
		if send(r) != nil {
			s.mu.Lock()
			s.lost++
			s.mu.Unlock()
			return false
		}
		s.mu.Lock()
		s.sent = append(s.sent, r)
		s.mu.Unlock()
	}
	return true
}

func (s *server) counts() (requests, queued, sent, lost int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, len(s.queue), len(s.sent), s.lost
}

func (s *server) Get(_ *outputs.Request, stream outputs.Service_GetServer) error {
	s.drain(stream.Send)
	return nil
}

func (s *server) Sub(stream outputs.Service_SubServer) error {
	requests := make(chan bool)
	go func() {
		defer close(requests)
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
			select {
			case requests <- true:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case <-s.stopped:
			return nil
		case _, more := <-requests:
			if !more && s.deaf {
				<-stream.Context().Done()
			}
			if !more {
				return nil
			}
			s.mu.Lock()
			s.requests++
			s.mu.Unlock()
			if !s.drain(stream.Send) {
				return stream.Context().Err()
			}
		}
	}
}

// numbered makes alerts of a recorded one, each of its own event.
func numbered(t testing.TB, from, n int) (all []*outputs.Response) {
	t.Helper()
	first := responses(t, "append-grpc043.hex")[0]
	const id = "10163ed2-2253-469d-a5ee-cbc6651f8934"
	for i := from; i < from+n; i++ {
		r := proto.CloneOf(first)
		r.Output = strings.ReplaceAll(r.Output, id, fmt.Sprintf("event-%06d", i))
		r.OutputFields["ct.id"] = fmt.Sprintf("event-%06d", i)
		all = append(all, r)
	}
	return all
}

func eventIDs(alerts []journal.Alert) (ids []string) {
	for _, a := range alerts {
		ids = append(ids, a.Fields["ct.id"])
	}
	return ids
}

// wantEvents: the inbox holds the first n events, each once, in order.
func wantEvents(t testing.TB, alerts []journal.Alert, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("event-%06d", i))
	}
	if diff := cmp.Diff(want, eventIDs(alerts)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// client is a running intake.
type client struct {
	*falco.GRPC
	t        testing.TB
	book     book
	log      logged
	registry *prometheus.Registry
	cancel   context.CancelFunc
	result   chan error
}

func run(t testing.TB, o falco.GRPCOptions) *client {
	t.Helper()
	c := &client{t: t, book: newBook(t), registry: prometheus.NewRegistry(), result: make(chan error, 1)}
	o.Log, o.Metrics = c.log.log(), c.registry
	if o.Idle == 0 {
		o.Idle = 5 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 20 * time.Millisecond
	}
	var err error
	if c.GRPC, err = falco.NewGRPC(c.book.Journal, o); err != nil {
		t.Fatal(err)
	}
	c.wantStatus("degraded", "not yet connected")
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go func() { c.result <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = c.ended()
	})
	return c
}

// stop ends the intake and gives Run's result.
func (c *client) stop() error {
	c.t.Helper()
	c.cancel()
	return c.ended()
}

func (c *client) ended() error {
	c.t.Helper()
	select {
	case err := <-c.result:
		c.result <- err // for the clean-up
		return err
	case <-time.After(30 * time.Second):
		c.t.Fatal("Run does not return")
		return nil
	}
}

func (c *client) wantStatus(is, says string) {
	c.t.Helper()
	if got := c.Status(); degree(got) != is || !strings.Contains(got.Reason, says) {
		c.t.Errorf("status %+v, want %s with %q", got, is, says)
	}
}

func (c *client) awaitStatus(is, says string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("status %s with %q", is, says), func() bool {
		got := c.Status()
		return degree(got) == is && strings.Contains(got.Reason, says)
	})
}

func socket(t testing.TB) string { return filepath.Join(t.TempDir(), "falco.sock") }

func TestGRPCDelivers(t *testing.T) {
	path := socket(t)
	recorded := slices.Concat(responses(t, "append-grpc043.hex"), responses(t, "grpc-default-time.hex"), responses(t, "grpc-list-field.hex"))
	s := serve(t, listen(t, "unix", path), recorded[:4])
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	c.book.wait(4) // the queue is there before the client
	c.awaitStatus("well", "")
	for i := 4; i < len(recorded); i++ { // and now they come one by one
		s.push(recorded[i])
		c.book.wait(i + 1)
	}
	var want []journal.Alert
	for _, r := range recorded {
		a, err := falco.FromGRPC(r)
		if err != nil && !errors.Is(err, falco.ErrNoRecord) {
			t.Fatal(err)
		}
		want = append(want, a)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, c.book.alerts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := figure(t, c.registry, "tfdrift_alerts_stored_total", "falco_grpc"); n != float64(len(recorded)) {
		t.Errorf("%v alerts counted, want %d", n, len(recorded))
	}
	requests, queued, _, lost := s.counts()
	if queued != 0 || lost != 0 || requests < 2 {
		t.Errorf("%d requests; %d alerts are left with Falco, %d lost", requests, queued, lost)
	}
}

// TestGRPCReconnects: Falco stops and starts, twice, in both ways. Nothing that it sent is missing, nothing is there twice.
func TestGRPCReconnects(t *testing.T) {
	path := socket(t)
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	c.awaitStatus("degraded", `falco.sock" does not exist: Falco 0.44 removed gRPC output, use http_output`)
	const each = 100
	for round := range 4 {
		s := serve(t, listen(t, "unix", path), numbered(t, round*each, each))
		c.book.wait((round + 1) * each)
		c.awaitStatus("well", "")
		if round%2 == 0 {
			s.stop()
		} else {
			s.kill()
		}
		c.awaitStatus("degraded", "")
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	wantEvents(t, c.book.alerts(), 4*each)
	if n := figure(t, c.registry, "tfdrift_alerts_repeated_total"); n != 0 {
		t.Errorf("%v alerts came twice", n)
	}
	if n := strings.Count(c.log.String(), "does not exist"); n != 1 {
		t.Errorf("one cause is logged %d times:\n%s", n, &c.log)
	}
}

// TestGRPCStopsWithAlertsUnderWay: what Falco has taken off its queue when the intake is told to end is stored.
func TestGRPCStopsWithAlertsUnderWay(t *testing.T) {
	for name, deaf := range map[string]bool{"Falco ends the stream": false, "Falco does not": true} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			const n = 500
			l := listen(t, "unix", path)
			s := serve(t, l, nil)
			s.deaf = deaf
			s.push(numbered(t, 0, n)...)
			c := run(t, falco.GRPCOptions{Address: "unix://" + path})
			c.book.wait(1)
			start := time.Now()
			if err := c.stop(); err != nil {
				t.Error(err)
			}
			took := time.Since(start)
			_, queued, sent, lost := s.counts()
			if sent+queued+lost != n || lost > 0 {
				t.Errorf("Falco had %d alerts, sent %d, lost %d, keeps %d", n, sent, lost, queued)
			}
			wantEvents(t, c.book.alerts(), sent)
			t.Logf("stopped within %v, %d of %d alerts taken", took, sent, n)
		})
	}
}

// TestGRPCBackPressure: while the journal refuses, no more is asked for, and nothing is lost.
func TestGRPCBackPressure(t *testing.T) {
	path := socket(t)
	s := serve(t, listen(t, "unix", path), nil)
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	c.awaitStatus("well", "")
	c.book.refuse()
	s.push(numbered(t, 0, 500)...)
	c.awaitStatus("unusable", "no space left")
	requests, _, _, _ := s.counts()
	s.push(numbered(t, 500, 500)...)
	eventually(t, "a second try", func() bool { return figure(t, c.registry, "tfdrift_intake_faults_total", "journal") > 1 })
	if later, _, _, _ := s.counts(); later > requests+1 { // one may have been under way
		t.Errorf("%d requests while alerts cannot be stored", later-requests)
	}
	c.book.accept()
	c.awaitStatus("well", "")
	wantEvents(t, c.book.wait(1000), 1000)
}

// TestGRPCWhenTheJournalIsGone: Run says so, at once.
func TestGRPCWhenTheJournalIsGone(t *testing.T) {
	path := socket(t)
	s := serve(t, listen(t, "unix", path), nil)
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	c.awaitStatus("well", "")
	c.book.Close()
	s.push(numbered(t, 0, 1)...)
	if err := c.ended(); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestGRPCStopsWhileItCannotStore(t *testing.T) {
	path := socket(t)
	s := serve(t, listen(t, "unix", path), numbered(t, 0, 10))
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	c.book.wait(10)
	c.book.refuse()
	s.push(numbered(t, 10, 10)...)
	c.awaitStatus("unusable", "no space left")
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Run: %v, want that alerts are lost", err)
	}
}

// TestGRPCStopsWhileConnecting: a peer that accepts and says nothing.
func TestGRPCStopsWhileConnecting(t *testing.T) {
	path := socket(t)
	l := listen(t, "unix", path)
	defer l.Close()
	c := run(t, falco.GRPCOptions{Address: "unix://" + path})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if err := c.stop(); err != nil || time.Since(start) > 10*time.Second {
		t.Errorf("Run: %v after %v", err, time.Since(start))
	}
}

func TestGRPCSaysWhatIsWrong(t *testing.T) {
	t.Run("blind", func(t *testing.T) {
		path := socket(t)
		blind := numbered(t, 0, 1)[0]
		blind.OutputFields, blind.Output = nil, `{"rule":"R","output":"o"}`
		s := serve(t, listen(t, "unix", path), []*outputs.Response{blind, {}})
		c := run(t, falco.GRPCOptions{Address: path})
		c.awaitStatus("degraded", "json_include_output_fields_property: true")
		c.book.wait(1)
		eventually(t, "a fault for the empty response", func() bool {
			return figure(t, c.registry, "tfdrift_intake_faults_total", "not_an_alert") == 1
		})
		s.push(numbered(t, 1, 1)...)
		c.awaitStatus("well", "")
	})
}

func TestGRPCAddress(t *testing.T) {
	book := newBook(t)
	for address, says := range map[string]string{
		"": "want unix:///run/falco/falco.sock or HOST:PORT", "falco": "want unix", "falco:5060": "mTLS", "falco:x": `port "x"`, "falco:70000": "up to 65535",
	} {
		if _, err := falco.NewGRPC(book.Journal, falco.GRPCOptions{Address: address, CertFile: "c"}); err == nil ||
			!strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), fmt.Sprintf("%q", address)) {
			t.Errorf("%q: %v, want %q", address, err, says)
		}
	}
	for _, address := range []string{"unix:///run/falco/falco.sock", "/run/falco/falco.sock"} {
		if _, err := falco.NewGRPC(book.Journal, falco.GRPCOptions{Address: address}); err != nil {
			t.Error(err)
		}
	}
}

// TestGRPCOverTheNetwork: mTLS, as Falco demands it there.
func TestGRPCOverTheNetwork(t *testing.T) {
	hosts := []string{"127.0.0.1"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // not every machine has it
		l.Close()
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			ca := newAuthority(t, "ca")
			creds := ca.server(t, ca.leaf(t, "falco", valid), ca)
			l := listen(t, "tcp", net.JoinHostPort(host, "0"))
			serve(t, l, numbered(t, 0, 20), grpc.Creds(creds))
			own := ca.leaf(t, "bridge", valid)
			c := run(t, falco.GRPCOptions{Address: l.Addr().String(), CertFile: own.cert, KeyFile: own.key, CAFile: ca.cert})
			wantEvents(t, c.book.wait(20), 20)
		})
	}
}

// BenchmarkGRPC is Falco's backlog taken off its queue.
func BenchmarkGRPC(b *testing.B) {
	path := socket(b)
	alerts := numbered(b, 0, b.N)
	b.ResetTimer()
	serve(b, listen(b, "unix", path), alerts)
	c := run(b, falco.GRPCOptions{Address: "unix://" + path})
	eventually(b, "all alerts", func() bool { return figure(b, c.registry, "tfdrift_alerts_stored_total") == float64(b.N) })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "alerts/s")
}
