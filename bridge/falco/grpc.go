package falco

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/falcosecurity/client-go/pkg/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// GRPCOptions of the gRPC intake.
type GRPCOptions struct {
	// Address is unix:///PATH or, with the three files, HOST:PORT: Falco's network output asks for mTLS.
	Address                   string
	CertFile, KeyFile, CAFile string
	Log                       *slog.Logger          // nil logs nothing
	Metrics                   prometheus.Registerer // nil keeps the figures unregistered
	// Idle is how long to wait for alerts before asking for more, 250 ms if 0; MaxBackoff the longest pause between two
	// connections, 30 s if 0.
	Idle, MaxBackoff time.Duration
}

// GRPC takes alerts from the gRPC output of Falco 0.43 and older. Falco hands each alert to one client only and forgets it:
// what was received is stored before more is asked for, and nothing received is given up when the intake ends.
type GRPC struct {
	status
	journal *journal.Journal
	o       GRPCOptions
	config  client.Config
	log     *slog.Logger
	metrics metrics
}

// NewGRPC checks the address; Run connects.
func NewGRPC(j *journal.Journal, o GRPCOptions) (*GRPC, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Idle == 0 {
		o.Idle = 250 * time.Millisecond
	}
	if o.MaxBackoff == 0 {
		o.MaxBackoff = 30 * time.Second
	}
	g := &GRPC{journal: j, o: o, log: o.Log.With("component", "falco", "intake", intakeGRPC), metrics: newMetrics(o.Metrics, intakeGRPC)}
	if strings.HasPrefix(o.Address, "unix://") {
		g.config.UnixSocketPath = o.Address
		return g, nil
	}
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("falco gRPC address %q: want unix:///run/falco/falco.sock or HOST:PORT: %w", o.Address, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("falco gRPC address %q: %w", o.Address, err)
	}
	if o.CertFile == "" {
		return nil, fmt.Errorf("falco gRPC address %q: Falco's network output asks for mTLS: name a certificate, its key and the CA", o.Address)
	}
	g.config.Hostname, g.config.Port = host, uint16(number)
	g.config.CertFile, g.config.KeyFile, g.config.CARootFile = o.CertFile, o.KeyFile, o.CAFile
	return g, nil
}

// Run takes alerts until ctx ends, and then returns nil; it connects anew as long as it takes. An error is the journal's.
func (g *GRPC) Run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, g.o.MaxBackoff
	g.set("falco gRPC output: not yet connected")
	for {
		received, err := g.session(ctx)
		var broken *journalError
		switch {
		case errors.As(err, &broken):
			return broken.err
		case ctx.Err() != nil:
			return nil
		case received:
			pause.Reset()
		}
		reason := g.reason(err)
		if g.set(reason) {
			g.log.Warn("no alerts by gRPC, connecting anew", "cause", reason)
		}
		g.metrics.faults.WithLabelValues("disconnected").Inc()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

type journalError struct{ err error }

func (e *journalError) Error() string { return e.err.Error() }

// reason names what is wrong in words that help.
func (g *GRPC) reason(err error) string {
	if path := strings.TrimPrefix(g.config.UnixSocketPath, "unix://"); path != "" {
		if _, stat := os.Stat(path); errors.Is(stat, fs.ErrNotExist) {
			return fmt.Sprintf("falco gRPC socket %q does not exist: Falco 0.44 removed gRPC output, use http_output there; before, set grpc and grpc_output enabled", path)
		}
	}
	return fmt.Sprintf("falco gRPC output %q: %v", g.o.Address, err)
}

// session is one connection; received says whether it worked at all. It ends with an error, or with nil when ctx ended.
//
// client-go's OutputsWatch is not used: it asks for the first alerts only after an idle time, reports the server's end as
// success, and loses a received alert when it is cancelled.
func (g *GRPC) session(ctx context.Context) (received bool, err error) {
	conn, err := client.NewForConfig(ctx, &g.config)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	service, err := conn.Outputs()
	if err != nil {
		return false, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stream, err := service.Sub(life)
	if err != nil {
		return false, err
	}
	g.set("") // a stream is only made over a connection that stands
	responses, ended := make(chan *outputs.Response), make(chan error, 1)
	go func() {
		defer close(responses)
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			responses <- r
		}
	}()
	err = g.exchange(ctx, stream, responses, &received)
	// Whatever has been received meanwhile is stored too, before and after the connection is cut.
	end()
	for r := range responses {
		if put := g.take(life, r); put != nil {
			err = put
		}
	}
	if gone := <-ended; err == nil && ctx.Err() == nil {
		err = gone
	}
	return received, err
}

// exchange asks for alerts and takes them: Falco sends what it has, and then waits to be asked again.
func (g *GRPC) exchange(ctx context.Context, stream outputs.Service_SubClient, responses <-chan *outputs.Response, received *bool) error {
	idle := time.NewTimer(0)
	defer idle.Stop()
	for {
		select {
		case r, open := <-responses:
			if !open {
				return nil
			}
			*received = true
			if err := g.take(ctx, r); err != nil {
				return err
			}
			idle.Reset(g.o.Idle)
		case <-idle.C:
			if err := stream.Send(&outputs.Request{}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			idle.Reset(g.o.Idle)
		case <-ctx.Done():
			return nil
		}
	}
}

// take stores one alert.
func (g *GRPC) take(ctx context.Context, r *outputs.Response) error {
	start := time.Now()
	a, err := FromGRPC(r)
	if err != nil && !errors.Is(err, ErrBlind) {
		g.metrics.faults.WithLabelValues("not_an_alert").Inc()
		g.log.Warn("response is no alert", "cause", err)
		return nil
	}
	stored, err := g.journal.Put(context.WithoutCancel(ctx), a)
	if err != nil {
		return &journalError{err}
	}
	g.metrics.stored.Add(float64(stored))
	g.metrics.repeated.Add(float64(1 - stored))
	g.metrics.latency.Observe(time.Since(start).Seconds())
	return nil
}
