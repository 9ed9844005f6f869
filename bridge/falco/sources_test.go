package falco_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// TestAlertsOfEverySource: documents as the rules of each source make them.
func TestAlertsOfEverySource(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 1, time.UTC)
	for name, c := range map[string]struct {
		body string
		want journal.Alert
	}{
		"syscall": {`{"hostname":"node-1","output":"10:00:00.000000001: Notice A shell was spawned in a container","output_fields":{"container.id":"3f2a","container.name":"web","evt.time":1795168800000000001,"k8s.ns.name":null,"proc.pid":4711},"priority":"Notice","rule":"Terminal shell in container","source":"syscall","tags":["container","shell"],"time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "notice", Source: "syscall", Rule: "Terminal shell in container", Hostname: "node-1", ContainerID: "3f2a", Tags: []string{"container", "shell"},
				Output: "10:00:00.000000001: Notice A shell was spawned in a container",
				Fields: map[string]string{"container.id": "3f2a", "container.name": "web", "evt.time": "1795168800000000001", "proc.pid": "4711"}}},
		"k8s_audit": {`{"hostname":"m","output":"o","output_fields":{"ka.target.name":"p","ka.user.name":"alice","ka.req.pod.containers.image":["nginx"]},"priority":"WARNING","rule":"Create Privileged Pod","source":"k8s_audit","tags":["k8s"],"time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "warning", Source: "k8s_audit", Rule: "Create Privileged Pod", Hostname: "m", Tags: []string{"k8s"}, Output: "o",
				Fields: map[string]string{"ka.target.name": "p", "ka.user.name": "alice", "ka.req.pod.containers.image": `["nginx"]`}}},
		"okta": {`{"output":"o","output_fields":{"okta.actor.name":"Alice","okta.target.user.name":null},"priority":"Informational","rule":"User Creation in OKTA","source":"okta","time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "informational", Source: "okta", Rule: "User Creation in OKTA", Output: "o", Fields: map[string]string{"okta.actor.name": "Alice"}}},
		"github, priority as in rules": {`{"output":"o","output_fields":{"github.repo":"r"},"priority":"info","rule":"New secret pushed","source":"github","time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "informational", Source: "github", Rule: "New secret pushed", Output: "o", Fields: map[string]string{"github.repo": "r"}}},
		"docker's way to name a container": {`{"output":"o","output_fields":{"container_id":"3f2a"},"priority":"CRITICAL","rule":"R","source":"docker","time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "critical", Source: "docker", Rule: "R", Output: "o", ContainerID: "3f2a", Fields: map[string]string{"container_id": "3f2a"}}},
		"Falco's own, without tags": {`{"hostname":"h","output":"o","output_fields":{"n_drops":"3"},"priority":"Debug","rule":"Falco internal: syscall event drop","source":"internal","time":"2026-11-20T10:00:00.000000001Z"}`,
			journal.Alert{Priority: "debug", Source: "internal", Rule: "Falco internal: syscall event drop", Hostname: "h", Output: "o", Fields: map[string]string{"n_drops": "3"}}},
		"time in nanoseconds": {`{"output":"o","output_fields":{},"priority":"Emergency","rule":"R","source":"syscall","time":1795168800000000001}`,
			journal.Alert{Priority: "emergency", Source: "syscall", Rule: "R", Output: "o", Fields: map[string]string{}}},
		"time in nanoseconds as text": {`{"output":"o","output_fields":{},"priority":"Alert","rule":"R","source":"syscall","time":"1795168800000000001"}`,
			journal.Alert{Priority: "alert", Source: "syscall", Rule: "R", Output: "o", Fields: map[string]string{}}},
		"no rule": {`{"output":"o","output_fields":{},"priority":"Error","source":"syscall","time":"2026-11-20T11:00:00.000000001+01:00"}`,
			journal.Alert{Priority: "error", Source: "syscall", Rule: "unknown", Output: "o", Fields: map[string]string{}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := falco.FromHTTP([]byte(c.body), "application/json")
			if err != nil {
				t.Fatal(err)
			}
			c.want.Intake, c.want.Time = "falco_http", at
			if diff := cmp.Diff(c.want, got, withoutKey); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrioritiesInEverySpelling(t *testing.T) {
	for want, spellings := range map[string]string{
		"emergency": "Emergency EMERGENCY emerg", "alert": "Alert ALERT", "critical": "Critical CRITICAL crit", "error": "Error ERROR err",
		"warning": "Warning WARNING warn", "notice": "Notice notice", "informational": "Informational INFORMATIONAL info INFO Info",
		"debug": "Debug DEBUG", "": "loud 5 true",
	} {
		for _, spelling := range strings.Fields(spellings) {
			a, err := falco.FromHTTP(fmt.Appendf(nil, `{"rule":"R","priority":%q,"output_fields":{}}`, spelling), "")
			if err != nil || a.Priority != want {
				t.Errorf("%q: got %q, %v, want %q", spelling, a.Priority, err, want)
			}
		}
	}
}

// TestTheMendNamesWhatTheDropInNames: the lines in the log are those that are shipped.
func TestTheMendNamesWhatTheDropInNames(t *testing.T) {
	var dropIn struct {
		AppendOutput any `yaml:"append_output"`
	}
	if err := yaml.Unmarshal(readFile(t, "..", "..", "rules", "config.d", "tfdrift.yaml"), &dropIn); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	for _, source := range []string{"tfdrift", "aws_cloudtrail"} {
		l.send(post("/", "", fmt.Appendf(nil, `{"rule":"R","source":%q,"output_fields":{}}`, source)))
		if status, _ := l.answer(); status != http.StatusOK {
			t.Fatal(status)
		}
	}
	mends := map[string]any{}
	for line := range strings.Lines(s.log.String()) {
		_, text, _ := strings.Cut(line, `mend="`)
		text, _, _ = strings.Cut(text, `"`)
		var mend struct {
			AppendOutput any `yaml:"append_output"`
		}
		if err := yaml.Unmarshal([]byte(text), &mend); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		source, _, _ := strings.Cut(strings.TrimPrefix(line[strings.Index(line, "source "):], "source "), ":")
		mends[source] = mend.AppendOutput
	}
	if diff := cmp.Diff(dropIn.AppendOutput, mends["tfdrift"]); diff != "" {
		t.Errorf("tfdrift (-shipped +told):\n%s", diff)
	}
	// For the official plugin: exactly the fields whose record came back whole, see TestRecordComesBack. Falco adds evt.*.
	_, body := split(t, recorded(t, "append-http044.txt")[0])
	var proven struct {
		Fields map[string]any `json:"output_fields"`
	}
	if err := json.Unmarshal(body, &proven); err != nil {
		t.Fatal(err)
	}
	entry, _ := mends["aws_cloudtrail"].([]any)[0].(map[string]any)
	told := map[string]any{}
	for _, name := range entry["extra_fields"].([]any) {
		told[name.(string)] = true
	}
	for name := range proven.Fields {
		if strings.HasPrefix(name, "ct.") && told[name] == nil {
			t.Errorf("%s is not told of", name)
		}
		delete(told, name)
	}
	if len(told) > 0 {
		t.Errorf("told, and never tried: %v", told)
	}
}

// TestFiguresOfAnAlert: what is counted of one alert, by intake and source.
func TestFiguresOfAnAlert(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	body := fmt.Appendf(nil, `{"rule":"R","time":%q,"source":"okta","output_fields":{}}`, time.Now().Add(-time.Minute).Format(time.RFC3339Nano))
	l.send(post("/", "", body))
	if status, _ := l.answer(); status != http.StatusOK {
		t.Fatal(status)
	}
	s.wantFigure(t, 1, "tfdrift_alerts_received_total", "falco_http", "okta")
	s.wantFigure(t, float64(len(body)), "tfdrift_intake_bytes_total", "falco_http")
	s.wantFigure(t, 1, "tfdrift_intake_seconds", "falco_http")
	s.wantFigure(t, 1, "tfdrift_alert_age_seconds", "falco_http")
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "tfdrift_alert_age_seconds" {
			if age := f.GetMetric()[0].GetHistogram().GetSampleSum(); age < 60 || age > 90 {
				t.Errorf("an alert of a minute ago is %v s old", age)
			}
		}
	}
}

// TestSourcesAreBounded: whoever posts may name any source, and the metrics keep only so many.
func TestSourcesAreBounded(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	for n := range 100 {
		for _, source := range []string{fmt.Sprintf("source%d", n), fmt.Sprintf("No Source! %d", n), ""} {
			l.send(post("/", "", fmt.Appendf(nil, `{"rule":"R","source":%q,"output":"%d","output_fields":{}}`, source, n)))
			l.answer()
		}
	}
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); f.GetName() == "tfdrift_alerts_received_total" && n != 24+len([]string{"other", "unknown"}) {
			t.Errorf("%d sources have a label", n)
		}
	}
	s.wantFigure(t, 100, "tfdrift_alerts_received_total", "unknown")
	s.wantFigure(t, 176, "tfdrift_alerts_received_total", "other")
}
