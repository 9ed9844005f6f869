package falco

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/falcosecurity/client-go/pkg/client"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// GRPCOptions of the gRPC intake.
type GRPCOptions struct {
	// Address is unix:///PATH or, with the three files, HOST:PORT: Falco's network output asks for mTLS.
	Address                   string
	CertFile, KeyFile, CAFile string                // read anew at each connection
	Log                       *slog.Logger          // nil logs nothing
	Metrics                   prometheus.Registerer // nil keeps the figures unregistered
	// Idle is how long to wait for alerts before asking for more, and so about the longest an alert waits in Falco; 100 ms
	// if 0.
	Idle time.Duration
	// MaxBackoff is the longest pause between two connections, 30 s if 0.
	MaxBackoff time.Duration
}

// GRPC takes alerts from the gRPC output of Falco 0.43 and older. Falco hands each alert to one client only and forgets it:
// what was received is stored before more is asked for, and when the intake ends it asks for no more, takes what is under
// way and stores that too. At most two batches of 64 alerts wait here.
type GRPC struct {
	*intake
	address          string
	config           client.Config
	idle, maxBackoff time.Duration
}

// NewGRPC checks the address; Run connects. The error quotes the address.
func NewGRPC(j *journal.Journal, o GRPCOptions) (*GRPC, error) {
	if o.Idle <= 0 {
		o.Idle = 100 * time.Millisecond
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 30 * time.Second
	}
	config, err := target(o)
	if err != nil {
		return nil, fmt.Errorf("falco gRPC address %q: %w", o.Address, err)
	}
	g := &GRPC{
		intake: newIntake(intakeGRPC, j, o.Log, o.Metrics), address: o.Address, config: config,
		idle: o.Idle, maxBackoff: o.MaxBackoff,
	}
	g.status.set(aboutConnection, "falco gRPC output: not yet connected", 0)
	return g, nil
}

// Messages may be larger than gRPC's usual 4 MiB: with json_output every field comes three times, and a stream does not
// survive a message that is too large.
const maxMessage = 64 << 20

// target makes client-go's configuration of an address.
func target(o GRPCOptions) (client.Config, error) {
	config := client.Config{DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))}}
	if path, socket := strings.CutPrefix(o.Address, "unix://"); socket || strings.HasPrefix(o.Address, "/") {
		config.UnixSocketPath = "unix://" + path
		return config, nil
	}
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return config, fmt.Errorf("want unix:///run/falco/falco.sock or HOST:PORT: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return config, fmt.Errorf("port %q: want a number up to 65535", port)
	}
	if o.CertFile == "" || o.KeyFile == "" || o.CAFile == "" {
		return config, errors.New("over the network Falco asks for mTLS: name a certificate, its key and the CA")
	}
	if strings.Contains(host, ":") { // client-go puts host and port together as they are
		host = "[" + host + "]"
	}
	config.Hostname, config.Port = host, uint16(number)
	config.CertFile, config.KeyFile, config.CARootFile = o.CertFile, o.KeyFile, o.CAFile
	// Finds a peer that is gone without a word. Falco's server takes pings more often than every five minutes for abuse.
	config.DialOptions = append(config.DialOptions, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 20 * time.Second}))
	return config, nil
}

// Status is unusable while the journal stores nothing. It is degraded, with the reason and what to do, while there is no
// stream of alerts, from the very start on, since Falco may well start after the bridge; and while Falco sends alerts
// without fields.
func (g *GRPC) Status() wire.Check { return g.status.get() }

// Run takes alerts until ctx ends, and then returns nil; it connects anew as long as it takes. An error is that of a journal
// which was closed, or did not take the last alerts when ctx had ended.
func (g *GRPC) Run(ctx context.Context) error {
	pause := newPause(200*time.Millisecond, g.maxBackoff)
	defer g.metrics.connections.Set(0)
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			g.metrics.reconnects.Inc()
		}
		s := &session{GRPC: g, received: make(chan *outputs.Response, grpcBatch)}
		err := s.run(ctx)
		if refused, ok := errors.AsType[*storeError](err); ok {
			return refused.error
		}
		if s.worked {
			pause.Reset()
		}
		if ctx.Err() == nil {
			g.disconnected(ctx, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.NextBackOff()):
		}
	}
	return nil
}

func (g *GRPC) connected() {
	if g.status.set(aboutConnection, "", 0) {
		g.metrics.connections.Set(1)
		g.log.Info("receiving Falco's alerts by gRPC", "address", g.address)
	}
}

func (g *GRPC) disconnected(ctx context.Context, err error) {
	g.metrics.connections.Set(0)
	g.metrics.fault("disconnected")
	reason := g.reason(ctx, err)
	g.status.set(aboutConnection, reason, 0)
	if g.said.first(reason) {
		g.log.Warn("no alerts by gRPC, connecting anew", "cause", reason)
	}
}

const (
	grpcBatch = 64
	// drainQuiet is how long nothing must come before the last alerts count as taken, drainMost how long that may take.
	drainQuiet = 250 * time.Millisecond
	drainMost  = 3 * time.Second
)

// storeError tells the journal's errors from the connection's.
type storeError struct{ error }

// session is one connection. Three goroutines work on it, so that Falco's sending never waits for ours: one receives, one
// asks, and the caller of run stores.
type session struct {
	*GRPC
	stream   outputs.Service_SubClient
	received chan *outputs.Response
	gone     error // why the stream ended; to be read when received is closed
	worked   bool  // Falco answered, or at least listened for a while
}

// run ends with the stream's error, with a *storeError, or when ctx has ended.
//
// client-go's OutputsWatch is not used: it asks for the first alerts only after an idle time, reports the server's end as
// success, and loses a received alert when it is cancelled.
func (s *session) run(ctx context.Context) error {
	conn, err := client.NewForConfig(ctx, &s.config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	service, err := conn.Outputs()
	if err != nil {
		return err
	}
	// The stream outlives ctx, until what is under way has been taken.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	connecting := context.AfterFunc(ctx, end)
	defer connecting()
	if s.stream, err = service.Sub(life); err != nil {
		return err
	}
	if !connecting() {
		return ctx.Err()
	}
	go s.receive()
	asks, asked := make(chan struct{}, 1), make(chan struct{})
	go s.ask(asks, asked)

	err = s.exchange(ctx, asks)
	close(asks)
	if err == nil && ctx.Err() != nil {
		err = s.drain(ctx, end, asked)
	}
	end()
	<-asked
	for r := range s.received { // on an error too: whatever has been received is stored
		err = errors.Join(err, s.store(ctx, r))
	}
	if err != nil {
		return err
	}
	return s.gone
}

func (s *session) receive() {
	defer close(s.received)
	for {
		r, err := s.stream.Recv()
		if err != nil {
			s.gone = err
			return
		}
		s.received <- r
	}
}

// ask sends a request for each value. An error needs no telling: it ends the stream, which receive sees.
func (s *session) ask(asks <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	for range asks {
		_ = s.stream.Send(&outputs.Request{})
	}
}

// exchange asks for alerts and stores them: Falco sends what it has, and then waits to be asked again. It returns nil when
// ctx or the stream has ended.
func (s *session) exchange(ctx context.Context, asks chan<- struct{}) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for times := 0; ; {
		select {
		case r, open := <-s.received:
			if !open {
				return nil
			}
			s.worked = true
			s.connected()
			if err := s.store(ctx, r); err != nil {
				return err
			}
		case <-next.C:
			if times++; times > 1 { // Falco did not refuse the first request
				s.worked = true
				s.connected()
			}
			select {
			case asks <- struct{}{}:
			default: // the one before is not even sent
			}
		case <-ctx.Done():
			return nil
		}
		next.Reset(s.idle)
	}
}

// drain tells Falco that nothing more will be asked for, and stores what still comes.
func (s *session) drain(ctx context.Context, end context.CancelFunc, asked <-chan struct{}) error {
	most := time.AfterFunc(drainMost, end)
	defer most.Stop()
	<-asked // a request and the end must not be sent at once
	_ = s.stream.CloseSend()
	quiet := time.NewTimer(drainQuiet)
	defer quiet.Stop()
	for {
		select {
		case r, open := <-s.received:
			if !open {
				return nil
			}
			if err := s.store(ctx, r); err != nil {
				return err
			}
			quiet.Reset(drainQuiet)
		case <-quiet.C:
			return nil
		}
	}
}

// store puts an alert, together with what came right after it, into the journal.
func (s *session) store(ctx context.Context, r *outputs.Response) error {
	arrived := time.Now()
	var alerts []journal.Alert
	for taken, more := 1, true; more; taken++ {
		if a, ok := s.decode(r); ok {
			alerts = append(alerts, a)
		}
		if taken == grpcBatch {
			break
		}
		select {
		case r, more = <-s.received:
		default:
			more = false
		}
	}
	if len(alerts) == 0 {
		return nil
	}
	if err := s.persist(ctx, arrived, alerts, nil); err != nil {
		s.lose(len(alerts), "stopped", err)
		return &storeError{err}
	}
	return nil
}

// decode makes an alert of a response and tells of what is wrong with it.
func (s *session) decode(r *outputs.Response) (journal.Alert, bool) {
	a, err := FromGRPC(r)
	if kind, usable := complaint(err); !usable {
		s.metrics.fault(kind)
		if s.said.first(kind + " " + r.GetRule()) {
			s.log.Warn("response is no alert and is left out", "rule", r.GetRule(), "cause", err)
		}
		return a, false
	}
	s.metrics.receive(a.Source, proto.Size(r))
	s.complain("gRPC", &a, err)
	return a, true
}
