//go:build race

// The suite runs with the race detector and without; these two minutes are spent once.

package e2e_test

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// TestTheHeartbeat lets real time pass over real sockets: a peer that answers pings stays, one that answers with the
// document's JSON ping stays, one that is silent is let go, each when the document says.
func TestTheHeartbeat(t *testing.T) {
	t.Parallel()
	b := start(t, "--falco-http", "127.0.0.1:0")
	every, within := heartbeat(t)
	watchFor := 2*every + 5*time.Second
	const slack = 4 * time.Second // a busy machine
	begin := time.Now()
	dial := func(onPing func(c *websocket.Conn) error) (ended chan time.Duration, pings chan time.Duration) {
		c := b.watch().conn
		ended, pings = make(chan time.Duration, 1), make(chan time.Duration, 8)
		c.SetPingHandler(func(string) error { pings <- time.Since(begin); return onPing(c) })
		_ = c.SetReadDeadline(time.Time{})
		go func() {
			for {
				if _, _, err := c.ReadMessage(); err != nil {
					ended <- time.Since(begin)
					return
				}
			}
		}()
		return ended, pings
	}
	answersEnd, pings := dial(func(c *websocket.Conn) error {
		return c.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
	})
	jsonEnd, _ := dial(func(c *websocket.Conn) error {
		return c.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping"}`))
	})
	silentEnd, _ := dial(func(*websocket.Conn) error { return nil })

	for n := range 2 {
		at, want := <-pings, time.Duration(n+1)*every
		if at < want-slack || at > want+slack {
			t.Errorf("ping %d came after %s, want %s", n+1, at, want)
		}
	}
	select {
	case at := <-silentEnd:
		if want := every + within; at < want-slack || at > want+slack {
			t.Errorf("the silent peer was let go after %s, want %s", at, want)
		}
	case <-time.After(watchFor - time.Since(begin)):
		t.Error("the silent peer is still there")
	}
	select {
	case at := <-answersEnd:
		t.Errorf("the peer that answers was let go after %s", at)
	case at := <-jsonEnd:
		t.Errorf("the peer that sends JSON pings was let go after %s", at)
	case <-time.After(watchFor - time.Since(begin)):
	}
}
