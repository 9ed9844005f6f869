package falco_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// site is an intake on a real port.
type site struct {
	*falco.HTTP
	book     book
	log      logged
	registry *prometheus.Registry
	address  string
	stop     func() error // ends the intake and gives what Serve returned
	ended    chan error
}

func newSite(t testing.TB, o falco.HTTPOptions) *site {
	t.Helper()
	s := &site{book: newBook(t), registry: prometheus.NewRegistry()}
	o.Log, o.Metrics = s.log.log(), s.registry
	s.HTTP = falco.NewHTTP(s.book.Journal, o)
	l := listen(t, "tcp", "127.0.0.1:0")
	s.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-s.ended })
	t.Cleanup(func() { _ = s.stop() })
	return s
}

// line is one connection, as Falco keeps one.
type line struct {
	t testing.TB
	net.Conn
	answers *bufio.Reader
}

func (s *site) dial(t testing.TB) *line {
	t.Helper()
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &line{t, conn, bufio.NewReader(conn)}
}

func (l *line) send(request []byte) {
	l.t.Helper()
	if _, err := l.Write(request); err != nil {
		l.t.Fatal(err)
	}
}

// answer reads one answer: its status, and the text for people.
func (l *line) answer() (status int, says string) {
	l.t.Helper()
	r, err := http.ReadResponse(l.answers, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	if len(body) == 0 {
		return r.StatusCode, ""
	}
	var text struct{ Error string }
	if err := json.Unmarshal(body, &text, json.MatchCaseInsensitiveNames(true)); err != nil || r.Header.Get("Content-Type") != "application/json" {
		l.t.Errorf("answer %d is not JSON: %q, %v", r.StatusCode, body, err)
	}
	return r.StatusCode, text.Error
}

func (s *site) wantStatus(t testing.TB, is, says string) {
	t.Helper()
	got := s.Status()
	if degree(got) != is || !strings.Contains(got.Reason, says) || got.OK && got.Reason != "" {
		t.Errorf("status %+v, want %s with %q", got, is, says)
	}
}

// TestRecordedRequests posts what Falco sent, byte for byte, several requests on one connection: each is in the inbox
// when its answer comes.
func TestRecordedRequests(t *testing.T) {
	for _, name := range []string{"append-http044.txt", "http-all.txt", "http043.txt", "http044.txt", "http-text.txt"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, falco.HTTPOptions{})
			l := s.dial(t)
			requests := recorded(t, name)
			for i, request := range requests {
				l.send(request)
				if status, says := l.answer(); status != http.StatusOK || says != "" {
					t.Fatalf("request %d: %d %q", i, status, says)
				}
				if n := len(s.book.alerts()); n != i+1 {
					t.Fatalf("%d alerts in the inbox after answer %d", n, i+1)
				}
			}
			want := fromHTTP(t, name)
			got := s.book.alerts()
			if name == "http-text.txt" {
				got[0].Time = want[0].Time // of its arrival
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-decoded +stored):\n%s", diff)
			}

			// Sent again, all at once as HTTP allows, they are answered alike and not stored again.
			l.send(slices.Concat(requests...))
			for range requests {
				if status, _ := l.answer(); status != http.StatusOK {
					t.Fatalf("repeated: %d", status)
				}
			}
			if n := len(s.book.alerts()); n != len(requests) {
				t.Errorf("%d alerts in the inbox, want %d", n, len(requests))
			}
			figures := map[string]float64{}
			for _, name := range []string{"tfdrift_alerts_received_total", "tfdrift_alerts_stored_total", "tfdrift_alerts_repeated_total", "tfdrift_intake_seconds"} {
				figures[name] = figure(t, s.registry, name, "falco_http")
			}
			n := float64(len(requests))
			if diff := cmp.Diff(map[string]float64{
				"tfdrift_alerts_received_total": 2 * n, "tfdrift_alerts_stored_total": n, "tfdrift_alerts_repeated_total": n, "tfdrift_intake_seconds": 2 * n,
			}, figures); diff != "" {
				t.Errorf("figures (-want +got):\n%s", diff)
			}
		})
	}
}

func zipped(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func post(path, headers string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
}

func chunked(body []byte) []byte {
	return fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
}

func TestRequests(t *testing.T) {
	const gzipped = "Content-Encoding: gzip\r\n"
	good := []byte(`{"rule":"R","output":"secret-content","output_fields":{}}`)
	big := bytes.Replace(good, []byte("secret-content"), bytes.Repeat([]byte("secret-content"), 300), 1)
	for name, c := range map[string]struct {
		request    []byte
		path       string
		status     int
		says, kind string
	}{
		"good":                      {post("/", "", good), "", 200, "", ""},
		"good, chunked":             {chunked(good), "", 200, "", ""},
		"good, packed":              {post("/", gzipped, zipped(t, good)), "", 200, "", ""},
		"secret path":               {post("/s3cret/a", "", good), "/s3cret/a", 200, "", ""},
		"secret path without slash": {post("/s3cret", "", good), "s3cret", 200, "", ""},
		"query behind the path":     {post("/s3cret?x=y", "", good), "s3cret", 200, "", ""},
		"another path":              {post("/", "", good), "/s3cret", 404, "http_output.url", "path"},
		"a longer path":             {post("/s3cret/a", "", good), "/s3cret", 404, "http_output.url", "path"},
		"another method":            {[]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "", 405, "POST", "method"},
		"another method elsewhere":  {[]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), "/s3cret", 404, "", "path"},
		"no JSON":                   {post("/", "", []byte("secret-content")), "", 400, "json_output", "not_an_alert"},
		"no alert":                  {post("/", "", []byte(`{"a":"secret-content"}`)), "", 400, "json_output", "not_an_alert"},
		"empty":                     {post("/", "", nil), "", 400, "json_output", "not_an_alert"},
		"large, declared":           {post("/", "", big), "", 413, "1024 bytes", "too_large"},
		"large, chunked":            {chunked(big), "", 413, "1024 bytes", "too_large"},
		"large when unpacked":       {post("/", gzipped, zipped(t, big)), "", 413, "1024 bytes", "too_large"},
		"exactly too large":         {post("/", "", append(good, bytes.Repeat([]byte(" "), 1025-len(good))...)), "", 413, "1024 bytes", "too_large"},
		"exactly as large":          {post("/", "", append(good, bytes.Repeat([]byte(" "), 1024-len(good))...)), "", 200, "", ""},
		"not packed":                {post("/", gzipped, good), "", 400, "cannot be read", "body"},
		"packed and cut":            {post("/", gzipped, zipped(t, good)[:40]), "", 400, "cannot be read", "body"},
		"packed otherwise":          {post("/", "Content-Encoding: br\r\n", good), "", 415, "gzip", "encoding"},
		"packed twice":              {post("/", "Content-Encoding: gzip, gzip\r\n", zipped(t, zipped(t, good))), "", 415, "gzip", "encoding"},
		"packed, then more":         {post("/", gzipped, append(zipped(t, good), "tail"...)), "", 400, "cannot be read", "body"},
		"a form":                    {post("/", "Content-Type: application/x-www-form-urlencoded\r\n", good), "", 415, "application/json", "content_type"},
		"with a character set":      {post("/", "Content-Type: application/json; charset=utf-8\r\n", good), "", 200, "", ""},
		"a web page":                {post("/", "Origin: http://example.com\r\n", good), "", 403, "web pages", "origin"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, falco.HTTPOptions{Path: c.path, MaxBody: 1024})
			l := s.dial(t)
			l.send(c.request)
			if status, says := l.answer(); status != c.status || !strings.Contains(says, c.says) || (says == "") != (status == 200) {
				t.Errorf("%d %q, want %d with %q", status, says, c.status, c.says)
			}
			if n := len(s.book.alerts()); n != map[bool]int{true: 1}[c.status == 200] {
				t.Errorf("%d alerts in the inbox", n)
			}
			if c.kind != "" && figure(t, s.registry, "tfdrift_intake_refused_total", c.kind) != 1 {
				t.Errorf("refusal %q is not counted", c.kind)
			}
			if text := s.log.String(); strings.Contains(text, "secret-content") || (text == "") != (c.kind == "") {
				t.Errorf("log: %q", text)
			}
			s.wantStatus(t, "well", "")
		})
	}
}

// TestPackedBomb: a body that unpacks to far more than it is.
func TestPackedBomb(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	l.send(post("/", "Content-Encoding: gzip\r\n", zipped(t, make([]byte, 20<<20))))
	if status, _ := l.answer(); status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d, want 413", status)
	}
}

// TestFaultsAreLoggedOnce: a sender of garbage does not fill the log.
func TestFaultsAreLoggedOnce(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	for range 50 {
		l.send(post("/", "", []byte("garbage")))
		if status, _ := l.answer(); status != http.StatusBadRequest {
			t.Fatal(status)
		}
	}
	if n := strings.Count(s.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", n, &s.log)
	}
	if n := figure(t, s.registry, "tfdrift_intake_refused_total", "not_an_alert"); n != 50 {
		t.Errorf("%v refusals counted, want 50", n)
	}
}

// TestWronglySetFalco: its alerts are kept, and the status says how to mend it until it is mended.
func TestWronglySetFalco(t *testing.T) {
	good := `{"rule":"R","output":"o","output_fields":{}}`
	for name, c := range map[string]struct{ bad, kind, fault, says string }{
		"text":  {"10:00:02.000000000: Notice a change", "text/plain", "text", "json_output: true"},
		"blind": {`{"rule":"R","output":"o"}`, "application/json", "blind", "json_include_output_fields_property: true"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, falco.HTTPOptions{})
			l := s.dial(t)
			send := func(kind, body string) {
				l.send(post("/", "Content-Type: "+kind+"\r\n", []byte(body)))
				if status, says := l.answer(); status != http.StatusOK {
					t.Fatal(status, says)
				}
			}
			send(c.kind, c.bad)
			s.wantStatus(t, "degraded", c.says)
			s.wantStatus(t, "degraded", "127.0.0.1")
			if n := len(s.book.alerts()); n != 1 {
				t.Errorf("%d alerts in the inbox: the bad one is lost", n)
			}
			send("application/json", `{"rule":"Falco internal","source":"internal","output_fields":{}}`)
			s.wantStatus(t, "degraded", c.says) // Falco's own messages prove nothing
			send("application/json", good)
			s.wantStatus(t, "well", "")
			if figure(t, s.registry, "tfdrift_intake_faults_total", c.fault) != 1 || !strings.Contains(s.log.String(), c.says) {
				t.Errorf("not counted or logged: %s", &s.log)
			}
		})
	}
}

// TestRecordsThatLackFields: a source without append_output, or with half of it, shows until one of its alerts is whole.
func TestRecordsThatLackFields(t *testing.T) {
	const some = `"ct.id":"e","ct.name":"RunInstances","ct.src":"ec2.amazonaws.com","ct.request":null`
	const whole = some + `,"ct.response":"null","ct.error":null,"ct.region":"us-east-1","ct.recipientaccountid":"1","ct.user.arn":"a"`
	for fields, c := range map[string]struct{ fault, says string }{
		`"ct.name":"RunInstances"`: {"no_record", "no ct.id and ct.name"},
		some:                       {"part_record", "the CloudTrail record lacks ct.region, ct.recipientaccountid, ct.user.arn, ct.error, ct.response"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			s := newSite(t, falco.HTTPOptions{})
			l := s.dial(t)
			send := func(source, fields string, n int) {
				t.Helper()
				l.send(post("/", "", fmt.Appendf(nil, `{"rule":"R","source":%q,"hostname":"node-1","output":"%d","output_fields":{%s}}`, source, n, fields)))
				if status, says := l.answer(); status != http.StatusOK {
					t.Fatal(status, says)
				}
			}
			for i := range 10 {
				send("aws_cloudtrail", fields, i)
			}
			s.wantStatus(t, "degraded", "alerts from node-1 (127.0.0.1) are degraded: source aws_cloudtrail: "+c.says)
			const mend = "append_output: [{match: {source: aws_cloudtrail}, extra_fields: [ct.id, "
			if n := strings.Count(s.log.String(), mend); n != 1 || figure(t, s.registry, "tfdrift_intake_faults_total", c.fault) != 10 {
				t.Errorf("the way out is logged %d times: %s", n, &s.log)
			}
			send("syscall", `"proc.name":"sh"`, 0) // another source tells nothing of this one
			s.wantStatus(t, "degraded", "append_output")
			send("aws_cloudtrail", whole, 11)
			s.wantStatus(t, "well", "")
		})
	}
}

// TestSenders: each is judged by its own alerts, the first few are named, and one that is gone is forgotten.
func TestSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := journal.Open(context.Background(), t.TempDir(), journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		h := falco.NewHTTP(j, falco.HTTPOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		send := func(from int, body string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
			r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:4711", from/256, from%256)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Fatal(w.Code)
			}
		}
		for from := range 5 {
			send(from, `{"rule":"R"}`)
		}
		send(9, `{"rule":"R","output_fields":{}}`)
		if got := h.Status(); !got.Degraded || !strings.Contains(got.Reason, "10.0.0.0 ") || !strings.Contains(got.Reason, "and 2 more") {
			t.Errorf("status %+v", got)
		}
		time.Sleep(40 * time.Minute)
		send(4, `{"rule":"R"}`)
		time.Sleep(40 * time.Minute)
		if got := h.Status(); !got.Degraded || !strings.Contains(got.Reason, "10.0.0.4 ") || strings.Contains(got.Reason, "10.0.0.0") {
			t.Errorf("status %+v; want only the sender of 40 minutes ago", got)
		}
		time.Sleep(40 * time.Minute)
		if got := h.Status(); !got.OK {
			t.Errorf("status %+v an hour after the last alert", got)
		}
		for from := range 1000 { // more than are kept
			send(from, `{"rule":"R"}`)
		}
		if got := h.Status(); !got.Degraded || !strings.Contains(got.Reason, "and 253 more") {
			t.Errorf("status %+v; want 256 senders", got)
		}
	})
}

// TestSenderHangsUp: an alert that has arrived whole is stored, whether or not anybody waits for the answer.
func TestSenderHangsUp(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	requests := recorded(t, "append-http044.txt")
	for _, request := range requests {
		l := s.dial(t)
		l.send(request)
		l.Close()
	}
	s.book.wait(len(requests))

	l := s.dial(t)
	l.send(requests[0][:len(requests[0])-10])
	l.Close()
	eventually(t, "a refusal of the cut body", func() bool { return figure(t, s.registry, "tfdrift_intake_refused_total", "body") == 1 })
}

// TestManySenders: Falcos of many nodes at once, all with the same alerts.
func TestManySenders(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	requests := recorded(t, "append-http044.txt")
	done := make(chan error)
	const senders = 16
	for range senders {
		go func() {
			conn, err := net.Dial("tcp", s.address)
			if err != nil {
				done <- err
				return
			}
			defer conn.Close()
			answers := bufio.NewReader(conn)
			for _, request := range requests {
				if _, err = conn.Write(request); err == nil {
					var r *http.Response
					if r, err = http.ReadResponse(answers, nil); err == nil && r.StatusCode != http.StatusOK {
						err = fmt.Errorf("answer %s", r.Status)
					}
				}
				if err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range senders {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(s.book.alerts()); n != len(requests) {
		t.Errorf("%d alerts in the inbox, want %d", n, len(requests))
	}
}

// BenchmarkHTTP is one Falco: one connection, the next alert after the answer to the one before.
func BenchmarkHTTP(b *testing.B) {
	s := newSite(b, falco.HTTPOptions{})
	l := s.dial(b)
	request := recorded(b, "append-http044.txt")[2]
	at := bytes.Index(request, []byte("9fd68588"))
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for i := range b.N {
		copy(request[at:], fmt.Sprintf("%08x", i))
		start := time.Now()
		l.send(request)
		if status, _ := l.answer(); status != http.StatusOK {
			b.Fatal(status)
		}
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "alerts/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkFromHTTP is decoding alone.
func BenchmarkFromHTTP(b *testing.B) {
	header, body := split(b, recorded(b, "append-http044.txt")[2])
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := falco.FromHTTP(body, header.Get("Content-Type")); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWebPagesCannotPost: a page that a browser on this machine shows may send text anywhere, with its Origin.
func TestWebPagesCannotPost(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	l.send(post("/", "Origin: http://example.com\r\nContent-Type: text/plain\r\n", []byte("10:00:02.000000000: Critical all is well")))
	if status, says := l.answer(); status != http.StatusForbidden {
		t.Errorf("got %d %s", status, says)
	}
	if n := len(s.book.alerts()); n != 0 {
		t.Errorf("%d alerts in the inbox", n)
	}
}
