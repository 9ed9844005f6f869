package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// stages are the running parts of the bridge, in the order in which data flows. They stop in that order, so that each
// still takes what the one before it has: intake, states, correlate, subscribers, server.
type stages struct {
	ctx  context.Context // ends when the bridge is to stop; its cause is the first stage's error, if one failed
	fail context.CancelCauseFunc
	log  *slog.Logger
	all  []stage

	stopped bool // by wait
	mu      sync.Mutex
	failed  error // the first stage's that failed, also while stopping
}

type stage struct {
	name  string
	stop  context.CancelFunc
	ended chan struct{}
}

func newStages(ctx context.Context, log *slog.Logger) *stages {
	s := &stages{log: log}
	s.ctx, s.fail = context.WithCancelCause(ctx)
	return s
}

// start runs one stage. A stage that ends without an error has done its work; one that fails ends the bridge.
func (s *stages) start(name string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	ended := make(chan struct{})
	s.all = append(s.all, stage{name, stop, ended})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			s.failing(fmt.Errorf("%s: %w", name, err))
		}
	}()
}

func (s *stages) failing(err error) {
	s.mu.Lock()
	if s.failed == nil {
		s.failed = err
	}
	s.mu.Unlock()
	s.fail(err)
}

// stopWithin bounds the whole of a stop.
const stopWithin = 10 * time.Second

// wait returns when the bridge is to stop and every stage has ended, with the first error of a stage, also one that
// failed to stop well. Later calls do not wait again.
func (s *stages) wait() error {
	<-s.ctx.Done()
	if !s.stopped {
		s.stopped = true
		s.stop(time.After(stopWithin))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *stages) stop(deadline <-chan time.Time) {
	late := false
	for _, st := range s.all {
		st.stop()
		if late {
			continue // all are told; none is waited for any more
		}
		select {
		case <-st.ended:
		case <-deadline:
			s.failing(fmt.Errorf("%s: does not stop within %s, left behind", st.name, stopWithin))
			late = true
		}
	}
}

// listen opens an address at once, so that a port in use is told before anything runs.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w: %s", flag, address, err, listenHint(err))
	}
	return l, nil
}

// listenHint is the way out of an address that cannot be listened on.
func listenHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "name another address, or end the process that has it"
	case errors.Is(err, syscall.EACCES):
		return "name a port from 1024 on, or give the program the capability CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "name an address that this machine has, such as 127.0.0.1"
	}
	return "name an address as in 127.0.0.1:8080"
}

// serveHTTP is a stage that serves handler until its context ends, and then lets requests under way finish.
func serveHTTP(l net.Listener, handler http.Handler, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		server := &http.Server{
			Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		}
		failed := make(chan error, 1)
		go func() { failed <- server.Serve(l) }()
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin/2)
		defer cancel()
		if err := server.Shutdown(stop); err != nil {
			_ = server.Close()
		}
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
