package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Close codes of RFC 6455 that the protocol uses; gorilla sends 1002 and, for a message too large, 1009 by itself, and the
// hub 1001 when it shuts down.
const (
	closeUnsupported = websocket.CloseUnsupportedData
	closeInvalidText = websocket.CloseInvalidFramePayloadData
	closePolicy      = websocket.ClosePolicyViolation
)

// fault is an error whose text is for the client.
type fault struct {
	status  int
	message string
}

// Error is the text for the client.
func (f *fault) Error() string { return f.message }

func faultf(status int, format string, args ...any) *fault {
	return &fault{status, fmt.Sprintf(format, args...)}
}

// badRequest is a fault in what the client sent, by whichever way.
func badRequest(format string, args ...any) *fault {
	return faultf(http.StatusBadRequest, format, args...)
}

var (
	errMethod   = &fault{http.StatusMethodNotAllowed, "this method is not allowed here: want GET"}
	errUpgrade  = &fault{http.StatusUpgradeRequired, "this is the WebSocket endpoint: connect with a WebSocket client, as in new WebSocket(\"ws://localhost:8080/ws\")"}
	errShutdown = &fault{http.StatusServiceUnavailable, "the bridge is shutting down: connect again in a moment"}
	errInternal = &fault{http.StatusInternalServerError, "internal error: the bridge's log says more"}
)

func notFound(path string) *fault {
	return faultf(http.StatusNotFound,
		"nothing at %s: want /, /ws, /api/v1/drifts, /api/v1/events, /api/v1/state, /api/v1/stats, /api/v1/stream, /healthz, /readyz or /metrics",
		quoted(path))
}

// faultOf gives what the client may know of an error; what it may not is logged here.
func (s *server) faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if errors.Is(err, hub.ErrShutdown) {
		return errShutdown
	}
	if !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", "error", err)
	}
	return errInternal
}

// refuse answers a request with an error.
func (s *server) refuse(w http.ResponseWriter, err error) {
	f := s.faultOf(err)
	s.answer(w, f.status, wire.Message{Type: wire.TypeError, Message: f.message})
}

// answer writes one JSON document.
func (s *server) answer(w http.ResponseWriter, status int, document any) {
	// As wire.Encode: the values of others in a message may repeat names.
	body, err := json.Marshal(document, json.Deterministic(true), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		s.log.Error("answer not encoded", "error", err)
		status, body = http.StatusInternalServerError, []byte(`{"type":"error","message":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, and never sniffed for HTML; a client that has gone away needs no answer
}

// quoted is what a client sent, short enough to be sent back.
func quoted(text string) string {
	const most = 64
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}
