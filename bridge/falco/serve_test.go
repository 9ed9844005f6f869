package falco_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// pipes is a listener within one process, for the time of a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowSenders: who sends slowly but steadily is heard, who holds the connection open with a byte now and then is not.
func TestSlowSenders(t *testing.T) {
	padded := func(size int) []byte {
		return append([]byte(`{"rule":"R","output_fields":{}}`), bytes.Repeat([]byte(" "), size)...)
	}
	large := padded(300 << 10)
	for name, c := range map[string]struct {
		path   string
		body   []byte
		chunk  int
		every  time.Duration
		status int
		within time.Duration
	}{
		"honest, 5 KiB a second":   {"/", large, 5 << 10, time.Second, http.StatusOK, 70 * time.Second},
		"one byte a second":        {"/", large, 1, time.Second, http.StatusRequestTimeout, 12 * time.Second},
		"a good start, then never": {"/", large, 100 << 10, 2 * time.Minute, http.StatusRequestTimeout, 40 * time.Second},
		"nothing but a wrong path": {"/x", padded(200 << 10), 100 << 10, 2 * time.Minute, http.StatusNotFound, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, err := journal.Open(context.Background(), t.TempDir(), journal.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer j.Close()
				l := pipes{make(chan net.Conn), make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- falco.NewHTTP(j, falco.HTTPOptions{}).Serve(ctx, l) }()
				client, server := net.Pipe()
				l.conns <- server
				start := time.Now()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					_, _ = fmt.Fprintf(client, "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", c.path, len(c.body))
					for at := 0; at < len(c.body); at += c.chunk {
						if _, err := client.Write(c.body[at:min(at+c.chunk, len(c.body))]); err != nil {
							return
						}
						time.Sleep(c.every)
					}
				}()
				answer, err := http.ReadResponse(bufio.NewReader(client), nil)
				took := time.Since(start)
				if err != nil {
					t.Errorf("%v after %v, want %d", err, took, c.status)
				} else if text, _ := io.ReadAll(answer.Body); answer.StatusCode != c.status || took > c.within {
					t.Errorf("%d %s after %v, want %d", answer.StatusCode, text, took, c.status)
				}
				client.Close()
				<-sent
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestExpectContinue: curl asks before it sends a large body, and is told at once when it is not wanted.
func TestExpectContinue(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{MaxBody: 4096})
	body := append([]byte(`{"rule":"R","output_fields":{}}`), bytes.Repeat([]byte(" "), 4000)...)
	l := s.dial(t)
	l.send(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)))
	if first, err := http.ReadResponse(l.answers, nil); err != nil || first.StatusCode != http.StatusContinue {
		t.Fatalf("got %+v, %v, want 100", first, err)
	}
	l.send(body)
	if status, says := l.answer(); status != http.StatusOK {
		t.Errorf("%d %s", status, says)
	}
	l = s.dial(t)
	l.send([]byte("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"))
	if status, says := l.answer(); status != http.StatusRequestEntityTooLarge || !strings.Contains(says, "4096 bytes") {
		t.Errorf("%d %s, want 413 before the body", status, says)
	}
}

// TestConnectionsAreCounted, and a request under way when the intake is told to end is answered.
func TestConnectionsAreCounted(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	first, second := s.dial(t), s.dial(t)
	if status, _ := first.post(0); status != http.StatusOK {
		t.Error(status)
	}
	body := []byte(`{"rule":"R","output":"x","output_fields":{}}`)
	second.send(fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:10]))
	eventually(t, "a request in flight", func() bool { return figure(t, s.registry, "tfdrift_intake_in_flight") == 1 })
	s.wantFigure(t, 2, "tfdrift_intake_connections")
	ended := make(chan error)
	go func() { ended <- s.stop() }()
	eventually(t, "an address that is closed", func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	second.send(body[10:])
	if status, says := second.answer(); status != http.StatusOK {
		t.Errorf("%d %s", status, says)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually(t, "no connection", func() bool { return figure(t, s.registry, "tfdrift_intake_connections") == 0 })
	s.wantFigure(t, 0, "tfdrift_intake_in_flight")
}

// TestAListenerThatFails ends the intake with its error.
func TestAListenerThatFails(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	l.Close()
	if err := falco.NewHTTP(newBook(t).Journal, falco.HTTPOptions{}).Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}
