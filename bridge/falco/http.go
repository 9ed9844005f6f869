package falco

import (
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// HTTPOptions of the HTTP intake.
type HTTPOptions struct {
	Log     *slog.Logger          // nil logs nothing
	Path    string                // where alerts are posted to, a secret if need be; "" is "/"
	MaxBody int64                 // bytes of one body, unpacked; 0 is 1 MiB
	Metrics prometheus.Registerer // nil keeps the figures unregistered
}

// HTTP takes the requests of Falco's http_output. Falco ignores the answer's status and sends from one thread for all its
// outputs: the alert is stored first and answered at once.
type HTTP struct {
	status
	journal *journal.Journal
	o       HTTPOptions
	log     *slog.Logger
	metrics metrics
}

// NewHTTP makes the intake; it is an http.Handler for a listener of its own.
func NewHTTP(j *journal.Journal, o HTTPOptions) *HTTP {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	return &HTTP{journal: j, o: o, log: o.Log.With("component", "falco", "intake", intakeHTTP), metrics: newMetrics(o.Metrics, intakeHTTP)}
}

// ServeHTTP takes one alert.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.URL.Path != h.o.Path {
		h.refuse(w, http.StatusNotFound, "path", "no alerts are taken at this path", nil)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.refuse(w, http.StatusMethodNotAllowed, "method", "want POST, as Falco's http_output sends", nil)
		return
	}
	text, err := h.read(w, r)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) || errors.Is(err, errTooLarge) {
			h.refuse(w, http.StatusRequestEntityTooLarge, "too_large", "the body is too large", err)
			return
		}
		h.refuse(w, http.StatusBadRequest, "body", "the body cannot be read", err)
		return
	}
	alert, err := FromHTTP(text, r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, ErrText) && !errors.Is(err, ErrBlind) {
		h.refuse(w, http.StatusBadRequest, "not_an_alert", "want the JSON of one Falco alert (json_output: true)", err)
		return
	}
	h.degraded(err)
	stored, err := h.journal.Put(r.Context(), alert)
	if err != nil {
		h.log.Error("alert not stored", "rule", alert.Rule, "cause", err)
		h.refuse(w, http.StatusServiceUnavailable, "journal", "the alert could not be stored", nil)
		return
	}
	h.metrics.stored.Add(float64(stored))
	h.metrics.repeated.Add(float64(1 - stored))
	h.metrics.latency.Observe(time.Since(start).Seconds())
	w.WriteHeader(http.StatusOK)
}

// degraded keeps in the status how Falco is set, and logs when that changes.
func (h *HTTP) degraded(err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if h.set(reason) && err != nil {
		h.log.Warn("alerts lack what correlation needs", "cause", err)
	}
}

var errTooLarge = errors.New("larger than allowed when unpacked")

func (h *HTTP) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(w, r.Body, h.o.MaxBody)
	if !strings.EqualFold(r.Header.Get("Content-Encoding"), "gzip") {
		return io.ReadAll(limited)
	}
	unpacked, err := gzip.NewReader(limited)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(unpacked, h.o.MaxBody+1))
	if err == nil && int64(len(text)) > h.o.MaxBody {
		return nil, errTooLarge
	}
	return text, err
}

func (h *HTTP) refuse(w http.ResponseWriter, status int, kind, says string, err error) {
	h.metrics.faults.WithLabelValues(kind).Inc()
	if err != nil {
		h.log.Warn("request refused", "kind", kind, "cause", err)
	}
	http.Error(w, says, status)
}
