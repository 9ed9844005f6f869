// Package serve is the bridge's face to people and programs: the WebSocket, REST, health, metrics and a page.
//
// In come HTTP requests and WebSocket frames; out go the messages of package wire, which the hub and the Reader give. It
// decides nothing about drifts; it alone turns errors into HTTP statuses, error messages and close codes (errors.go).
//
// Guarantees: without authentication only a browser page of this very address, or a program on this machine, gets an
// answer (guard.go). Every error is {"type":"error","message":...} and says what was expected. A frame is one JSON
// document. What is in error in a client's frame never ends the session, except what is not text.
//
//	/ws                      the feed (websocket.go)
//	/api/v1/stream           the feed as server-sent events (stream.go)
//	/api/v1/drifts, events   newest first; filters, limit and after (rest.go)
//	/api/v1/state, stats
//	/healthz, /readyz        alive; ready, with reasons (health.go)
//	/metrics                 for Prometheus (metrics.go)
//	/                        the page (page.go)
//
// Start reading at New.
package serve

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Reader gives what is kept; *hub.Hub is one.
type Reader interface {
	// List answers a query that has passed its Check for drifts, events (both the newest first) or state.
	List(ctx context.Context, q wire.Query) (wire.List, error)
	Stats(ctx context.Context) (wire.Stats, error)
}

// Options of the handler.
type Options struct {
	Log *slog.Logger // nil discards
	// AnyHost accepts any Host header: only for a set-up where clients authenticate. Origin must be the same host still.
	AnyHost bool
	// Checks are asked by /readyz, each under its name, also by several requests at once. They must not block.
	Checks map[string]Check
	// Registry receives the metrics; nil makes one. The collectors for Go and the process are added unless it has them.
	Registry *prometheus.Registry
	// MessagesPerMinute is how many messages of one WebSocket client are handled in a minute, pings aside; 0 is no limit.
	MessagesPerMinute int
	// Demo marks the welcome message, as everything else of the demo is.
	Demo bool
}

// Check tells how a stage is, and if it is not well, why.
type Check func() wire.Check

// server holds what the handlers share. It does not change after New.
type server struct {
	reader   Reader
	hub      *hub.Hub
	endpoint *hub.Endpoint
	o        Options
	log      *slog.Logger
	metrics  *metrics
	routes   map[string]http.HandlerFunc
}

// New makes the handler of everything. Sessions of its WebSocket end with h.
func New(reader Reader, h *hub.Hub, o Options) http.Handler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	s := &server{reader: reader, hub: h, o: o, log: o.Log.With("component", "serve")}
	s.metrics = newMetrics(o.Registry, reader, h, s.log)
	s.endpoint = h.Endpoint(s.conversation)
	s.routes = map[string]http.HandlerFunc{
		"/ws":            s.websocket,
		"/api/v1/drifts": s.list(wire.TopicDrifts),
		"/api/v1/events": s.list(wire.TopicEvents),
		"/api/v1/state":  s.list(wire.TopicState),
		"/api/v1/stats":  s.stats,
		"/api/v1/stream": s.stream,
		"/healthz":       s.healthz,
		"/readyz":        s.readyz,
		"/metrics":       s.metrics.handler(o.Registry).ServeHTTP,
	}
	for path, file := range pageFiles() {
		s.routes[path] = file
	}
	return http.HandlerFunc(s.serve)
}

// serve is every request's way: headers, guard, route, figures.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	route, known := s.routes[r.URL.Path]
	path := r.URL.Path
	if !known {
		path = "other" // of what clients make up, metrics must not keep a list
	}
	if path == "/ws" || path == "/api/v1/stream" {
		s.handle(w, r, route) // the connection itself, for as long as it lasts
		return
	}
	start := time.Now()
	counted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	s.handle(counted, r, route)
	s.metrics.request(path, strconv.Itoa(counted.status), time.Since(start))
}

func (s *server) handle(w http.ResponseWriter, r *http.Request, route http.HandlerFunc) {
	securityHeaders(w.Header())
	if err := s.guard(r); err != nil {
		s.refuse(w, err)
		return
	}
	switch {
	case route == nil:
		s.refuse(w, notFound(r.URL.Path))
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		s.refuse(w, errMethod)
	default:
		route(w, r)
	}
}

// statusWriter remembers the status for the metrics.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status on its way.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
