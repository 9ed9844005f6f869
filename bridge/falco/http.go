package falco

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
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
	// HoldAlerts and HoldBytes bound the alerts in memory that are not yet on disk; 0 is 10,000 alerts and 64 MiB. At a few
	// hundred alerts a second that bridges half a minute of a journal that stores nothing, at a few a minute days.
	HoldAlerts int
	HoldBytes  int64
	// Wait is how long an answer waits for the disk, 1 s if 0. Falco sends from one thread for all its outputs, and calls an
	// output that takes more than 2 s blocked (https://falco.org/docs/reference/daemon/config-options/, output_timeout).
	Wait time.Duration
}

// HTTP takes the requests of Falco's http_output. Falco ignores the answer's status, sends no alert twice, and sends from one
// thread for all its outputs. So an answer does not wait long for the disk, and 200 says that the alert is on it. An alert
// that is answered with 503 for a journal that is slow or refuses is held in memory all the same, and stored as soon as the
// journal takes it; while that lasts, further answers do not wait at all. When the memory for held alerts is full, the newest is
// lost, counted and told. It may serve many connections at once.
type HTTP struct {
	*intake
	path    string
	maxBody int64
	wait    time.Duration
	hold    *hold
}

// NewHTTP makes the intake. Serve is its server; as an http.Handler it works while Run does.
func NewHTTP(j *journal.Journal, o HTTPOptions) *HTTP {
	if o.MaxBody <= 0 {
		o.MaxBody = 1 << 20
	}
	if o.HoldAlerts <= 0 {
		o.HoldAlerts = 10_000
	}
	if o.HoldBytes <= 0 {
		o.HoldBytes = 64 << 20
	}
	if o.Wait <= 0 {
		o.Wait = prompt
	}
	h := &HTTP{
		intake: newIntake(intakeHTTP, j, o.Log, o.Metrics),
		path:   "/" + strings.TrimPrefix(o.Path, "/"), maxBody: o.MaxBody, wait: o.Wait,
	}
	h.hold = newHold(o.HoldAlerts, o.HoldBytes, h.metrics)
	return h
}

// Status is unusable while the journal stores nothing: until it does again, also when no further alert comes. It is degraded
// while the journal is slow, and while a Falco sends alerts without what correlation needs: until it sends better ones, or
// none for an hour. The reason says which and how to mend it. Alerts are taken all the same. That no Falco has sent anything
// yet is no fault: one with nothing to tell is silent.
func (h *HTTP) Status() wire.Check { return h.status.get() }

// Run stores what comes in, in its order, until ctx has ended and nothing is held any more. An error says that alerts are
// lost: the journal was closed, or did not take the last ones when ctx had ended.
func (h *HTTP) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var failed error
	for {
		batch := h.hold.take(ctx, httpBatch)
		if len(batch) == 0 {
			return failed
		}
		if failed == nil {
			failed = h.store(ctx, batch)
		} else { // no further tries: the time to end is short
			h.done(batch, failed)
		}
		if failed != nil {
			end() // also for a journal that was closed
			h.lose(len(batch), "stopped", failed)
		}
	}
}

// httpBatch is how many alerts share a put.
const httpBatch = 256

// store puts one batch and tells those who wait for its outcome.
func (h *HTTP) store(ctx context.Context, batch []*held) error {
	alerts := make([]journal.Alert, len(batch))
	for i, one := range batch {
		alerts[i] = one.alert
	}
	err := h.persist(ctx, batch[0].arrived, alerts, func(err error) {
		h.hold.stall(batch[0])
		tell(batch, err)
	})
	h.done(batch, err)
	return err
}

// done lets go of a batch, which is on disk if err is nil.
func (h *HTTP) done(batch []*held, err error) {
	h.hold.letGo(batch, err == nil)
	tell(batch, err)
}

// tell gives the outcome to those who wait for it, the first time only.
func tell(batch []*held, err error) {
	for _, one := range batch {
		select {
		case one.told <- err:
		default:
		}
	}
}

// refusal is why a request is not answered with 200.
type refusal struct {
	status int
	cause  string // of few
	says   string // to the sender
	logged bool   // once an hour for each sender; else it is told in another way
	err    error
}

// ServeHTTP takes one alert: 200 says that it is on disk. Any other answer is JSON, {"error": "…"}.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(arrived.Add(bodyGrace)) // the server reads on behind a body that was refused
	no := h.expected(r)
	if no == nil {
		no = h.take(w, r, arrived)
	}
	_ = control.SetWriteDeadline(time.Now().Add(answerWithin))
	if no == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	h.metrics.refused.WithLabelValues(no.cause).Inc()
	if no.logged && h.said.first(no.cause+" "+sender(r)) {
		h.log.Warn("request refused", "why", no.cause, "status", no.status, "sender", sender(r), "cause", no.err, "way_out", no.says)
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
		return &refusal{http.StatusNotFound, "path", "no alerts are taken at this path: set http_output.url in falco.yaml to the bridge's intake with its path", true, errPath}
	}
	if r.Header.Get("Origin") != "" { // a page in a browser on this machine, which could invent alerts
		return &refusal{http.StatusForbidden, "origin", "alerts are not taken from web pages", true, errOrigin}
	}
	if r.Method != http.MethodPost {
		return &refusal{http.StatusMethodNotAllowed, "method", "alerts are taken by POST, as Falco's http_output sends them", true, errMethod}
	}
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case "", "application/json", "text/plain":
	default:
		return &refusal{http.StatusUnsupportedMediaType, "content_type", "alerts are taken as application/json, which Falco sends with json_output: true in falco.yaml", true, fmt.Errorf("content type %q", kind)}
	}
	if r.ContentLength > h.maxBody {
		return h.tooLarge()
	}
	return nil
}

func (h *HTTP) tooLarge() *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes, packed or unpacked", h.maxBody), true, errTooLarge}
}

// take reads, decodes and stores the alert of one request.
func (h *HTTP) take(w http.ResponseWriter, r *http.Request, arrived time.Time) *refusal {
	body, err := h.read(w, r)
	if err != nil {
		return h.unread(err)
	}
	alert, err := FromHTTP(body, r.Header.Get("Content-Type"))
	if _, usable := complaint(err); !usable {
		return &refusal{http.StatusBadRequest, "not_an_alert", "this is not the JSON of one Falco alert: set json_output: true in falco.yaml and let http_output.url name the bridge", true, err}
	}
	h.metrics.receive(alert.Source, len(body))
	h.complain(sender(r), &alert, err)
	return h.keep(alert, arrived)
}

// unread tells why a body was not read.
func (h *HTTP) unread(err error) *refusal {
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large || errors.Is(err, errTooLarge):
		return h.tooLarge()
	case errors.Is(err, errEncoding):
		return &refusal{http.StatusUnsupportedMediaType, "encoding", "the body may come as it is or with Content-Encoding: gzip", true, err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{http.StatusRequestTimeout, "slow", fmt.Sprintf("the body came slower than %d bytes a second", slowest), true, err}
	}
	return &refusal{http.StatusBadRequest, "body", "the body cannot be read whole", true, err}
}

// keep holds the alert and waits for the disk, though not long.
func (h *HTTP) keep(alert journal.Alert, arrived time.Time) *refusal {
	one, wait, err := h.hold.put(alert, arrived)
	if err != nil {
		cause := map[error]string{errFull: "full", errStopped: "stopped"}[err]
		h.lose(1, cause, err)
		return &refusal{http.StatusServiceUnavailable, cause, "the alert is lost: " + err.Error() + ": the bridge's log says why", false, err}
	}
	later := &refusal{http.StatusServiceUnavailable, "journal", "the alert is not on disk yet: it is held in memory and stored as soon as that can be done; the bridge's log says why", false, nil}
	if !wait {
		return later
	}
	enough := time.NewTimer(h.wait)
	defer enough.Stop()
	select {
	case err = <-one.told:
		if err == nil {
			return nil
		}
	case <-enough.C:
		h.slow(one)
	}
	return later
}

// slowFor is how long a slow journal is told of at most after it was last seen to be slow; a prompt put ends that at once.
const slowFor = time.Minute

// slow notes that the journal takes longer than a sender should wait: until it has stored what is held, none waits.
func (h *HTTP) slow(one *held) {
	reason := fmt.Sprintf("the journal takes more than %s to store an alert: its disk is slow, or something has it locked", h.wait)
	h.status.set(aboutSlow, reason, slowFor)
	if h.hold.stall(one) && h.said.first(reason) {
		h.log.Warn("alerts are held in memory, the journal is slow", "waited", h.wait, "way_out", wayOut)
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
	errPath     = errors.New("another path than the intake's")
	errOrigin   = errors.New("a header Origin, as browsers send it")
	errMethod   = errors.New("another method than POST")
	errTooLarge = errors.New("larger than allowed")
	errEncoding = errors.New("unknown content encoding")
)

// read is the whole body, unpacked. Falco's compress_uploads only asks for packed answers, but a proxy may pack bodies.
func (h *HTTP) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	var from io.Reader = &paced{from: http.MaxBytesReader(w, r.Body, h.maxBody), control: control, start: time.Now()}
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
	body.Grow(int(min(max(r.ContentLength, 0), h.maxBody)) + bytes.MinRead)
	if _, err := io.Copy(&body, io.LimitReader(from, h.maxBody+1)); err != nil {
		return nil, err
	}
	if int64(body.Len()) > h.maxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}
