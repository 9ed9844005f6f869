package serve

import (
	"net/http"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// healthz says that requests are answered, and no more.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n")) // a client that has gone away needs no answer
}

// readyz says how each stage is: 503 when one is unusable, else 200, also when some are degraded. What is degraded still
// serves, and to take it out of service would mend nothing: a Falco that is set wrongly, or that starts after the bridge,
// is no reason to hide the feed and what it holds, or to turn away the Falcos that are well.
func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	ready, status := wire.Ready{Ready: true, Checks: map[string]wire.Check{}}, http.StatusOK
	for name, check := range s.o.Checks {
		c := check()
		if c.OK {
			c = wire.Check{OK: true}
		}
		if !c.OK && !c.Degraded {
			ready.Ready, status = false, http.StatusServiceUnavailable
		}
		ready.Checks[name] = c
	}
	s.answer(w, status, ready)
}
