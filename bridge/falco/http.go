package falco

import (
	"bytes"
	"compress/gzip"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// HTTPOptions of the HTTP intake.
type HTTPOptions struct {
	Log     *slog.Logger          // nil logs nothing
	Path    string                // where alerts are posted to, a secret if need be; "" is "/"
	MaxBody int64                 // bytes of one body, packed and unpacked; 0 is 1 MiB
	Metrics prometheus.Registerer // nil keeps the figures unregistered
}

// HTTP takes the requests of Falco's http_output. Falco ignores the answer's status and sends from one thread for all its
// outputs: the alert is stored first and answered at once, and what is wrong is told to people, in the status, the log and
// the answer's text. It may serve many connections at once.
type HTTP struct {
	*intake
	path    string
	maxBody int64
}

// NewHTTP makes the intake; it is an http.Handler for a listener of its own.
func NewHTTP(j *journal.Journal, o HTTPOptions) *HTTP {
	if o.MaxBody <= 0 {
		o.MaxBody = 1 << 20
	}
	return &HTTP{
		intake: newIntake(intakeHTTP, j, o.Log, o.Metrics),
		path:   "/" + strings.TrimPrefix(o.Path, "/"), maxBody: o.MaxBody,
	}
}

// Status is unusable while the journal stores nothing, and degraded while a Falco sends alerts without what correlation
// needs: until it sends better ones, or none for an hour. The reason says which and how to mend it. Alerts are taken all
// the same. That no Falco has sent anything yet is no fault: one with nothing to tell is silent.
func (h *HTTP) Status() wire.Check { return h.status.get() }

// refusal is why a request is not taken.
type refusal struct {
	status     int
	kind, says string // no kind: counted and logged already
	cause      error
}

// ServeHTTP takes one alert: 200 says that it is on disk. Any other answer is JSON, {"error": "…"}.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	no := h.expected(r)
	if no == nil {
		no = h.take(w, r, arrived)
	}
	if no == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	if no.kind != "" {
		h.metrics.fault(no.kind)
	}
	if no.kind != "" && h.said.first(no.kind+" "+sender(r)) {
		h.log.Warn("request refused", "kind", no.kind, "status", no.status, "sender", sender(r), "cause", no.cause)
	}
	if no.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	text, _ := json.Marshal(map[string]string{"error": no.says})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(no.status)
	_, _ = w.Write(text)
}

// expected looks at everything but the body. The path may be a secret: how long looking at it takes must not tell it.
func (h *HTTP) expected(r *http.Request) *refusal {
	if subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(h.path)) != 1 {
		return &refusal{http.StatusNotFound, "path", "no alerts are taken at this path: set http_output.url in falco.yaml to the bridge's intake with its path", nil}
	}
	if r.Header.Get("Origin") != "" { // a page in a browser on this machine, which could invent alerts
		return &refusal{http.StatusForbidden, "origin", "alerts are not taken from web pages", nil}
	}
	if r.Method != http.MethodPost {
		return &refusal{http.StatusMethodNotAllowed, "method", "alerts are taken by POST, as Falco's http_output sends them", nil}
	}
	return nil
}

// take reads, decodes and stores the alert of one request.
func (h *HTTP) take(w http.ResponseWriter, r *http.Request, arrived time.Time) *refusal {
	body, err := h.read(w, r)
	if _, large := errors.AsType[*http.MaxBytesError](err); large || errors.Is(err, errTooLarge) {
		return &refusal{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", h.maxBody), errTooLarge}
	}
	if errors.Is(err, errEncoding) {
		return &refusal{http.StatusUnsupportedMediaType, "encoding", "the body may come as it is or with Content-Encoding: gzip", err}
	}
	if err != nil {
		return &refusal{http.StatusBadRequest, "body", "the body cannot be read whole", err}
	}
	alert, err := FromHTTP(body, r.Header.Get("Content-Type"))
	kind, usable := complaint(err)
	if !usable {
		return &refusal{http.StatusBadRequest, kind, "this is not the JSON of one Falco alert: set json_output: true in falco.yaml and let http_output.url name the bridge", err}
	}
	h.metrics.received.Inc()
	h.complain(sender(r), alert, kind, err)
	if err := h.put(r.Context(), arrived, alert); err != nil {
		return &refusal{http.StatusServiceUnavailable, "", "the alert could not be stored: the bridge's log says why", err}
	}
	return nil
}

// blindFor is how long a sender counts as wrongly set after its last bad alert.
const blindFor = time.Hour

// complain keeps in the status which Falco is set wrongly, and tells of a single alert's faults in the log.
func (h *HTTP) complain(from string, a journal.Alert, kind string, err error) {
	if kind != "" {
		h.metrics.fault(kind)
	}
	reason := ""
	switch {
	case kind == "text" || kind == "blind":
		reason = fmt.Sprintf("alerts from %s are degraded: %v", from, err)
	case a.Source == "internal": // always has fields, whatever the settings are
		return
	case kind != "" && h.said.first(kind+" "+a.Rule):
		h.log.Warn("alert lacks what correlation needs", "rule", a.Rule, "cause", err)
	}
	if h.status.set("sender "+from, reason, blindFor) && h.said.first(reason+" "+from) {
		if reason == "" {
			h.log.Info("alerts are complete again", "sender", from)
			return
		}
		h.log.Warn("alerts lack what correlation needs", "sender", from, "cause", err)
	}
}

// sender is the machine a request comes from.
func sender(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

var (
	errTooLarge = errors.New("larger than allowed")
	errEncoding = errors.New("unknown content encoding")
)

// read is the whole body, unpacked. Falco's compress_uploads only asks for packed answers, but a proxy may pack bodies.
func (h *HTTP) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > h.maxBody {
		return nil, errTooLarge
	}
	var from io.Reader = http.MaxBytesReader(w, r.Body, h.maxBody)
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		unpacked, err := gzip.NewReader(from)
		if err != nil {
			return nil, err
		}
		from = unpacked
	default:
		return nil, fmt.Errorf("%w %q", errEncoding, encoding)
	}
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead)
	if _, err := io.Copy(&body, io.LimitReader(from, h.maxBody+1)); err != nil {
		return nil, err
	}
	if int64(body.Len()) > h.maxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}
