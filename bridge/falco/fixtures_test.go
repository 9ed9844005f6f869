package falco_test

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The order in which the recorded files of append-* tell of records.
var recordFiles = []string{
	"aws.defense-evasion.cloudtrail-stop.json", "aws.defense-evasion.vpc-remove-flow-logs.json",
	"aws.exfiltration.ec2-security-group-open-port-22-ingress.json", "aws.exfiltration.rds-share-snapshot.json",
	"aws.persistence.iam-backdoor-role.json", "aws.persistence.lambda-overwrite-code.json",
}

func readFile(t testing.TB, elem ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// recorded gives the whole requests of a file, byte for byte.
func recorded(t testing.TB, name string) (requests [][]byte) {
	t.Helper()
	for _, part := range strings.SplitAfter(string(readFile(t, "testdata", name)), "\n") {
		switch {
		case strings.HasPrefix(part, "--- conn"):
			requests = append(requests, nil)
		case len(requests) > 0:
			requests[len(requests)-1] = append(requests[len(requests)-1], part...)
		}
	}
	for i, r := range requests { // the recorder added a line break to each
		_, body := split(t, r)
		requests[i] = r[:bytes.Index(r, []byte("\r\n\r\n"))+4+len(body)]
	}
	if len(requests) == 0 {
		t.Fatalf("%s has no requests", name)
	}
	return requests
}

// split gives a request's header and exactly its body.
func split(t testing.TB, request []byte) (http.Header, []byte) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.Header, body
}

// fromHTTP decodes every request of a recorded file.
func fromHTTP(t testing.TB, name string) (alerts []journal.Alert) {
	t.Helper()
	for _, request := range recorded(t, name) {
		header, body := split(t, request)
		a, err := falco.FromHTTP(body, header.Get("Content-Type"))
		if err != nil && a.Key == "" {
			t.Fatal(err)
		}
		alerts = append(alerts, a)
	}
	return alerts
}

// responses gives the gRPC messages of a recorded file.
func responses(t testing.TB, name string) (all []*outputs.Response) {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, "testdata", name))) {
		wire, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		r := &outputs.Response{}
		if err := proto.Unmarshal(wire, r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func fromGRPC(t testing.TB, name string) (alerts []journal.Alert) {
	t.Helper()
	for _, r := range responses(t, name) {
		a, err := falco.FromGRPC(r)
		if err != nil && a.Key == "" {
			t.Fatal(err)
		}
		alerts = append(alerts, a)
	}
	return alerts
}

// shared is a folder of recordings beside the project; false where a user's clone does not have it.
func shared(t testing.TB, elem ...string) (string, bool) {
	t.Helper()
	path := filepath.Join(append([]string{"..", "..", "..", "shared", "data"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Logf("nothing to check here: %v", err)
		return "", false
	}
	return path, true
}

// book is a real journal, and the means to make it refuse.
type book struct {
	*journal.Journal
	t    testing.TB
	path string
}

func newBook(t testing.TB) book {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return book{j, t, filepath.Join(dir, "journal.db")}
}

// refuse has the journal's disk refuse every alert, until accept.
func (b book) refuse() {
	b.exec(`CREATE TRIGGER refuse BEFORE INSERT ON inbox BEGIN SELECT RAISE(ABORT, 'no space left'); END`)
}
func (b book) accept() { b.exec(`DROP TRIGGER refuse`) }

func (b book) exec(statement string) {
	b.t.Helper()
	db, err := sql.Open("sqlite", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		b.t.Fatal(err)
	}
}

// alerts is what the inbox holds.
func (b book) alerts() (all []journal.Alert) {
	b.t.Helper()
	entries, err := b.Pending(b.t.Context(), 0, 1_000_000)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Alert)
	}
	return all
}

func (b book) wait(n int) (all []journal.Alert) {
	b.t.Helper()
	eventually(b.t, "alerts in the inbox", func() bool { all = b.alerts(); return len(all) >= n })
	return all
}

// eventually polls: real files and sockets are involved.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not after 30 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// figure is the sum of a metric's samples with these labels; for a histogram the number of observations.
func figure(t testing.TB, reg *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			has := map[string]bool{}
			for _, l := range m.GetLabel() {
				has[l.GetValue()] = true
			}
			for _, l := range labels {
				if !has[l] {
					has[""] = true
				}
			}
			if f.GetName() == name && !has[""] {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// degree names how an intake is.
func degree(c wire.Check) string {
	switch {
	case c.OK && !c.Degraded:
		return "well"
	case c.Degraded && !c.OK:
		return "degraded"
	case !c.OK:
		return "unusable"
	}
	return "both well and degraded"
}

// logged is a log to look into.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) log() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
