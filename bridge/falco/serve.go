package falco

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// A body may take bodyGrace, and as much longer as it takes at slowest bytes a second: what is honest and slow comes
	// through, what only holds a connection open does not.
	bodyGrace = 10 * time.Second
	slowest   = 4 << 10
	// answerWithin is how long a sender may take to receive its answer. Before that the server reads on, for bodyGrace at most,
	// behind a body that was refused.
	answerWithin = bodyGrace + 10*time.Second
	// finishWithin is how long requests that are under way when the intake ends may take.
	finishWithin = 3 * time.Second
)

// Serve is the intake's server on l, and Run: it answers until ctx ends, lets what is under way finish, and stores what is
// held. It closes l. An error is the listener's, or Run's.
func (h *HTTP) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug), ConnState: h.connection,
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	stored := make(chan error, 1)
	go func() { stored <- h.Run(work) }()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var failed error
	select {
	case failed = <-served:
		failed = fmt.Errorf("serve the HTTP intake: %w", failed)
	case err := <-stored: // before it was told to: the journal is closed
		stored <- err
	case <-ctx.Done():
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWithin)
	defer cancel()
	if server.Shutdown(finish) != nil {
		_ = server.Close() // those that do not finish
	}
	if failed == nil {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			failed = err
		}
	}
	stop()
	return errors.Join(failed, <-stored)
}

// connection counts those that are open.
func (h *HTTP) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		h.metrics.connections.Inc()
	case http.StateClosed, http.StateHijacked:
		h.metrics.connections.Dec()
	case http.StateActive, http.StateIdle:
	}
}

// paced reads a body and gives it more time as it comes.
type paced struct {
	from    io.Reader
	control *http.ResponseController
	start   time.Time
	read    int64
}

// Read implements io.Reader.
func (p *paced) Read(to []byte) (int, error) {
	due := p.start.Add(bodyGrace + time.Duration(p.read)*time.Second/slowest)
	_ = p.control.SetReadDeadline(due) // a writer that is no connection has none
	n, err := p.from.Read(to)
	p.read += int64(n)
	return n, err
}
