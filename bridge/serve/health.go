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

// readyz says which stage is not ready and why: 200 when all are, else 503.
func (s *server) readyz(w http.ResponseWriter, _ *http.Request) {
	ready, status := wire.Ready{Ready: true, Checks: map[string]wire.Check{}}, http.StatusOK
	for name, check := range s.o.Checks {
		ok, reason := check()
		if ok {
			reason = ""
		} else {
			ready.Ready, status = false, http.StatusServiceUnavailable
		}
		ready.Checks[name] = wire.Check{OK: ok, Reason: reason}
	}
	s.answer(w, status, ready)
}
