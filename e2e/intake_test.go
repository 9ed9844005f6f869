package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"
)

// numberedAlert is an alert of its own, by turns of several sources; pad is how much of it no client sees.
func numberedAlert(n, pad int) []byte {
	alert := map[string]any{
		"time": "2026-11-20T10:00:00.000000000Z", "priority": "Notice", "hostname": "node-1", "rule": "Numbered",
		"output": fmt.Sprintf("10:00:00.000000000: Notice alert number %d", n),
	}
	fields := map[string]any{"pad": strings.Repeat("x", pad), "evt.time": 1795168800000000000}
	switch n % 3 {
	case 0:
		alert["source"], alert["tags"] = "syscall", []string{"process"}
		fields["container.id"], fields["proc.name"] = "3f2a", "sh"
	case 1:
		alert["source"] = "k8s_audit"
		fields["ka.verb"], fields["ka.target.name"] = "create", nil
	case 2:
		alert["source"] = "aws_cloudtrail"
		for _, name := range []string{"ct.src", "ct.region", "ct.recipientaccountid", "ct.user.arn", "ct.error", "ct.request", "ct.response"} {
			fields[name] = nil
		}
		fields["ct.id"], fields["ct.name"] = fmt.Sprintf("numbered-%d", n), "RunInstances"
	}
	alert["output_fields"] = fields
	body, _ := json.Marshal(alert)
	return body
}

// poster is one sender on one connection.
type poster struct {
	http.Client
	url string
}

func newPoster(b *bridge) *poster {
	return &poster{url: "http://" + b.intake + "/", Client: http.Client{
		Timeout: patience, Transport: &http.Transport{MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, DisableCompression: true},
	}}
}

// post sends one body and gives the answer with the time it took.
func (p *poster) post(body []byte, headers ...string) (status int, says string, took time.Duration, err error) {
	request, err := http.NewRequest(http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return 0, "", 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	start := time.Now()
	answer, err := p.Do(request)
	if err != nil {
		return 0, "", 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), time.Since(start), err
}

// distinct reads the feed until so many different alerts have come.
func (c *client) distinct(n int) {
	c.t.Helper()
	seen := map[string]bool{}
	for len(seen) < n {
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			c.t.Errorf("%d of %d alerts in the feed: %v", len(seen), n, err)
			return
		}
		var m struct {
			Type    string
			Payload struct{ Output string }
		}
		if err := json.Unmarshal(text, &m); err != nil {
			c.t.Errorf("%v: %q", err, text)
			return
		}
		if m.Type != "falco" {
			continue
		}
		if seen[m.Payload.Output] {
			c.t.Errorf("%q came twice", m.Payload.Output)
		}
		seen[m.Payload.Output] = true
	}
}

func quantiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, longest %v", at(50), at(90), at(99), at(100))
}

// wantMetric compares the sum of the samples whose line matches.
func (b *bridge) wantMetric(want float64, pattern string) {
	b.t.Helper()
	if got := b.metric(pattern); got != want {
		b.t.Errorf("%s is %v, want %v", pattern, got, want)
	}
}

func (b *bridge) metric(pattern string) (sum float64) {
	b.t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` (\S+)$`).FindAllSubmatch(b.get("/metrics"), -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// TestTenThousandAlerts: one Falco as fast as it can, the next alert after the answer to the one before. The goal for an answer
// on an idle machine is 20 ms at p99; the figures are logged.
func TestTenThousandAlerts(t *testing.T) {
	const alerts = 10_000
	b := start(t, "--falco-http", "127.0.0.1:0")
	c := b.watch("all")
	begin := time.Now()
	var told time.Duration
	var feed sync.WaitGroup
	feed.Go(func() {
		c.distinct(alerts)
		told = time.Since(begin)
	})
	p := newPoster(b)
	took := make([]time.Duration, 0, alerts)
	for n := range alerts {
		status, says, t1, err := p.post(numberedAlert(n, 500))
		if err != nil || status != http.StatusOK {
			t.Fatalf("alert %d: %d %s, %v", n, status, says, err)
		}
		took = append(took, t1)
	}
	posted := time.Since(begin)
	feed.Wait()
	b.wantMetric(0, `tfdrift_intake_refused_total\{.*\}`)
	b.wantMetric(0, `tfdrift_alerts_lost_total\{.*\}`)
	b.wantMetric(alerts, `tfdrift_alerts_received_total\{intake="falco_http",source="[a-z0-9_]+"\}`)
	b.wantMetric(alerts, `tfdrift_alerts_stored_total\{intake="falco_http"\}`)
	t.Logf("one sender: %d alerts in %v, %.0f a second, answers %s; all in the feed %v after the first", alerts, posted.Round(time.Millisecond),
		alerts/posted.Seconds(), quantiles(took), told.Round(time.Millisecond))
}

// TestSixtyFourSenders: Falcos of many nodes at once, with alerts of all sizes, each second one packed.
func TestSixtyFourSenders(t *testing.T) {
	const senders, each = 64, 150
	b := start(t, "--falco-http", "127.0.0.1:0")
	c := b.watch("all")
	begin := time.Now()
	var all sync.WaitGroup
	all.Go(func() { c.distinct(senders * each) })
	var mu sync.Mutex
	var took []time.Duration
	for s := range senders {
		all.Go(func() {
			sizes := rand.New(rand.NewPCG(1, uint64(s)))
			p := newPoster(b)
			for i := range each {
				pad := sizes.IntN(2000)
				if i%25 == 0 {
					pad = sizes.IntN(500_000)
				}
				body, headers := numberedAlert(s*each+i, pad), []string{}
				if i%2 == 0 {
					body, headers = packed(body), []string{"Content-Encoding", "gzip"}
				}
				status, says, t1, err := p.post(body, headers...)
				if err != nil || status != http.StatusOK {
					t.Errorf("sender %d, alert %d: %d %s, %v", s, i, status, says, err)
				}
				mu.Lock()
				took = append(took, t1)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	b.wantMetric(0, `tfdrift_intake_refused_total\{.*\}`)
	b.wantMetric(0, `tfdrift_alerts_lost_total\{.*\}`)
	b.wantMetric(senders*each, `tfdrift_alerts_stored_total\{intake="falco_http"\}`)
	took2 := time.Since(begin)
	t.Logf("%d senders: %d alerts in %v, %.0f a second, answers %s", senders, senders*each, took2.Round(time.Millisecond),
		senders*each/took2.Seconds(), quantiles(took))
}

func packed(body []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(body)
	_ = w.Close()
	return out.Bytes()
}

// ready asks for the readiness: its status and what it says of one check.
func (b *bridge) ready(check string) (status int, is, reason string) {
	b.t.Helper()
	answer, err := http.Get("http://" + b.feed + "/readyz")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var got struct {
		Checks map[string]struct {
			OK, Degraded bool
			Reason       string
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		b.t.Fatal(err)
	}
	c, known := got.Checks[check]
	switch {
	case !known:
		b.t.Fatalf("no check %q: %+v", check, got)
	case c.OK:
		return answer.StatusCode, "well", ""
	case c.Degraded:
		return answer.StatusCode, "degraded", c.Reason
	}
	return answer.StatusCode, "unusable", c.Reason
}

// awaitReady polls until the check is so, with this in its reason.
func (b *bridge) awaitReady(check string, status int, is, says string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		gotStatus, gotIs, reason := b.ready(check)
		if gotStatus == status && gotIs == is && strings.Contains(reason, says) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("ready: %d %s %q, want %d %s with %q", gotStatus, gotIs, reason, status, is, says)
		}
	}
}

func (b *bridge) wantLogged(says string) {
	b.t.Helper()
	if !strings.Contains(b.logged(), says) {
		b.t.Errorf("%q is not in the log:\n%s", says, b.logged())
	}
}

// TestWrongSettingsShow: what an operator sees of a Falco that is set wrongly, and that it is over when it is mended.
func TestWrongSettingsShow(t *testing.T) {
	for name, c := range map[string]struct {
		body, kind        string
		says, mend, fault string
	}{
		"text": {"10:00:02.000000000: Notice a change", "text/plain", "json_output: true", `"mend":"json_output: true"`, "text"},
		"blind": {`{"rule":"R","priority":"Notice","source":"syscall","output":"o"}`, "application/json",
			"json_include_output_fields_property: true", `"mend":"json_include_output_fields_property: true"`, "blind"},
		"no append_output": {`{"rule":"R","priority":"Notice","source":"aws_cloudtrail","hostname":"node-1","output":"o","output_fields":{"ct.name":"RunInstances"}}`, "application/json",
			"add append_output to falco.yaml", `"mend":"append_output: [{match: {source: aws_cloudtrail}, extra_fields: [ct.id, ct.time`, "no_record"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, "--falco-http", "127.0.0.1:0")
			p := newPoster(b)
			for range 3 {
				if status, says, _, err := p.post([]byte(c.body), "Content-Type", c.kind); err != nil || status != http.StatusOK {
					t.Fatal(status, says, err)
				}
			}
			b.awaitReady("falco_http", http.StatusOK, "degraded", c.says)
			b.wantLogged(c.mend)
			if n := strings.Count(b.logged(), `"mend":`); n != 1 {
				t.Errorf("logged %d times", n)
			}
			b.wantMetric(3, `tfdrift_intake_faults_total\{intake="falco_http",kind="`+c.fault+`"\}`)
			if status, says, _, err := p.post(numberedAlert(2, 0)); err != nil || status != http.StatusOK { // of aws_cloudtrail, and whole
				t.Fatal(status, says, err)
			}
			b.awaitReady("falco_http", http.StatusOK, "well", "")
		})
	}
}

// TestAlertsOfEverySourceAreInTheFeed: whatever Falco tells of, a client receives it as a falco message.
func TestAlertsOfEverySourceAreInTheFeed(t *testing.T) {
	b := start(t, "--falco-http", "127.0.0.1:0")
	c, p := b.watch("events"), newPoster(b)
	for _, alert := range []struct{ body, want string }{
		{`{"rule":"Terminal shell in container","priority":"Notice","source":"syscall","hostname":"node-1","output":"shell","tags":["shell"],"time":"2026-11-20T10:00:00.5Z","output_fields":{"container.id":"3f2a","evt.time":1795168800500000000}}`,
			`{"container_id":"3f2a","hostname":"node-1","output":"shell","priority":"notice","rule":"Terminal shell in container","severity":"low","source":"syscall","tags":["shell"]}`},
		{`{"rule":"Create Privileged Pod","priority":"WARNING","source":"k8s_audit","output":"pod","time":1795168800500000000,"output_fields":{"ka.user.name":"alice"}}`,
			`{"container_id":"","output":"pod","priority":"warning","rule":"Create Privileged Pod","severity":"medium","source":"k8s_audit"}`},
		{`{"rule":"Admin","priority":"critical","source":"okta","output":"okta","time":"2026-11-20T10:00:00.5Z","output_fields":{"okta.actor.name":"a"}}`,
			`{"container_id":"","output":"okta","priority":"critical","rule":"Admin","severity":"critical","source":"okta"}`},
		{`{"rule":"Secret pushed","priority":"info","source":"github","output":"github","time":"2026-11-20T11:00:00.5+01:00","output_fields":{"github.repo":"r"}}`,
			`{"container_id":"","output":"github","priority":"informational","rule":"Secret pushed","severity":"info","source":"github"}`},
		{`{"rule":"Falco internal: syscall event drop","priority":"Debug","source":"internal","output":"drops","time":"2026-11-20T10:00:00.5Z","output_fields":{"n_drops":"3"}}`,
			`{"container_id":"","output":"drops","priority":"debug","rule":"Falco internal: syscall event drop","severity":"info","source":"internal"}`},
		{`{"priority":"Error","source":"docker","output":"no rule","time":"2026-11-20T10:00:00.5Z","output_fields":{"container_id":"77aa"}}`,
			`{"container_id":"77aa","output":"no rule","priority":"error","rule":"unknown","severity":"high","source":"docker"}`},
	} {
		if status, says, _, err := p.post([]byte(alert.body)); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s, %v: %s", status, says, err, alert.body)
		}
		m := c.await("falco", func(message) bool { return true })
		var want map[string]any
		if err := json.Unmarshal([]byte(alert.want), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, m.payload(t)); diff != "" || m.Timestamp != "2026-11-20T10:00:00.500Z" {
			t.Errorf("at %s (-want +got):\n%s", m.Timestamp, diff)
		}
	}
}

// TestJournalLockedByAnother: alerts wait in memory, the answers do not; when the lock is gone they are in the feed and the
// readiness is well, without a further alert.
func TestJournalLockedByAnother(t *testing.T) {
	data := t.TempDir()
	b := start(t, "--falco-http", "127.0.0.1:0", "--data", data)
	c := b.watch("all")
	other, err := sql.Open("sqlite", "file:"+filepath.Join(data, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	const alerts = 500
	p := newPoster(b)
	var took []time.Duration
	for n := range alerts {
		status, says, t1, err := p.post(numberedAlert(n, 0))
		if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(says, "held in memory") {
			t.Fatalf("alert %d: %d %s, %v", n, status, says, err)
		}
		took = append(took, t1)
	}
	b.wantMetric(alerts, `tfdrift_intake_held_alerts\{intake="falco_http"\}`)
	b.awaitReady("falco_http", http.StatusServiceUnavailable, "unusable", "the journal cannot store alerts")
	b.wantLogged("alerts cannot be stored, tried again until they can")
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	c.distinct(alerts)
	b.awaitReady("falco_http", http.StatusOK, "well", "")
	b.wantLogged("the journal stores alerts again")
	b.wantMetric(0, `tfdrift_alerts_lost_total\{.*\}`)
	b.wantMetric(alerts, `tfdrift_intake_refused_total\{cause="journal",intake="falco_http"\}`)
	t.Logf("answers while the journal is locked: %s", quantiles(took))
}

// TestFalcoStartsAfterTheBridge: the pod is in service before its Falco is there, and says what it waits for.
func TestFalcoStartsAfterTheBridge(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "falco.sock")
	b := start(t, "--falco-grpc", "unix://"+socket)
	b.awaitReady("falco_grpc", http.StatusOK, "degraded", "does not exist: Falco 0.44 removed gRPC output, use http_output")
	b.wantMetric(0, `tfdrift_intake_connections\{intake="falco_grpc"\}`)
	falco := &falcoOutputs{}
	defer falco.serve(t, socket)()
	b.awaitReady("falco_grpc", http.StatusOK, "well", "")
	b.wantMetric(1, `tfdrift_intake_connections\{intake="falco_grpc"\}`)
	if b.metric(`tfdrift_intake_reconnects_total\{intake="falco_grpc"\}`) == 0 {
		t.Error("no reconnect is counted")
	}
}

// TestSocketOfAnotherUser: a bridge that may not write to Falco's socket says so.
func TestSocketOfAnotherUser(t *testing.T) {
	dir := t.TempDir()
	for _, open := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket, data, program := filepath.Join(dir, "falco.sock"), filepath.Join(dir, "data"), filepath.Join(dir, "bridge")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	text, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(socket, 0), os.Mkdir(data, 0o700), os.WriteFile(program, text, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, program, "run", "--listen", "127.0.0.1:0", "--data", data, "--falco-grpc", "unix://"+socket)
	if os.Geteuid() == 0 { // whom no socket keeps out
		const nobody = 65534
		if err := os.Chown(data, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	b := &bridge{t: t, command: command, ended: make(chan struct{})}
	stderr, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	go b.follow(stderr, make(chan struct{}))
	defer b.stop()
	for deadline := time.Now().Add(patience); !strings.Contains(b.logged(), "permission denied: run the bridge as a user"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not said:\n%s", b.logged())
		}
	}
}
