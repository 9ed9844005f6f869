package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// now is the time of the events in a test: whole seconds, as CloudTrail has them.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// record gives a sample record an id and a time, and the changes asked for.
func record(t *testing.T, name, id string, at time.Time, change func(map[string]any)) map[string]any {
	t.Helper()
	var all map[string]map[string]any
	if err := json.Unmarshal(fixture(t, "network/records.json"), &all); err != nil {
		t.Fatal(err)
	}
	r, ok := all[name]
	if !ok {
		t.Fatalf("no sample record %q", name)
	}
	r["eventID"], r["eventTime"] = id, at.Format(time.RFC3339)
	if change != nil {
		change(r)
	}
	return r
}

func putRecords(t *testing.T, path string, records ...map[string]any) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, text, time.Time{})
}

// watched is a bridge over a folder of records and one of states, the network state in it written an hour ago.
func watched(t *testing.T, args ...string) (b *bridge, trail, states string) {
	t.Helper()
	trail, states = t.TempDir(), t.TempDir()
	put(t, filepath.Join(states, "network.tfstate"), fixture(t, "network/network-before.tfstate"), time.Now().Add(-time.Hour))
	args = append([]string{"--cloudtrail", trail + "?watch=true", "--state", states}, args...)
	return start(t, args...), trail, states
}

func TestRecordsToDrift(t *testing.T) {
	b, trail, states := watched(t)
	c := b.watch("drifts")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "e2e-drift-1", now(), nil))
	got := c.await("drift", func(message) bool { return true })
	p := got.payload(t)
	for key, want := range map[string]any{
		"address": "module.network.aws_security_group.bastion", "attribute": "ingress", "resource_type": "aws_security_group",
		"resource_id": "sg-003dc7f1f1c686164", "old_value": "", "user": "christophe", "verdict": "drift", "precision": "exact",
		"new_value": `{"cidr_blocks":["0.0.0.0/0"],"from_port":22,"protocol":"tcp","to_port":22}`,
	} {
		if p[key] != want {
			t.Errorf("%s: got %v, want %v", key, p[key], want)
		}
	}
	state, _ := p["state"].(map[string]any)
	if state["serial"] != 41.0 || state["uri"] != "file://"+filepath.Join(states, "network.tfstate") {
		t.Errorf("state: got %v", state)
	}
	if got.Replayed {
		t.Error("a real drift is marked as replayed")
	}
}

func TestValuesFromToOfAnAttribute(t *testing.T) {
	b, trail, _ := watched(t)
	c := b.watch("all")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "public-access", "e2e-pab-1", now(), nil))
	want := map[string][2]string{"block_public_acls": {"true", "false"}, "block_public_policy": {"true", "false"}}
	for range len(want) {
		p := c.await("drift", func(message) bool { return true }).payload(t)
		attribute, _ := p["attribute"].(string)
		if got := [2]string{p["old_value"].(string), p["new_value"].(string)}; got != want[attribute] {
			t.Errorf("%s: got %v, want %v", attribute, got, want[attribute])
		}
		if p["address"] != "aws_s3_bucket_public_access_block.invoices" || p["user"] != "dana@example.com" {
			t.Errorf("got %v by %v", p["address"], p["user"])
		}
		delete(want, attribute)
	}
}

func TestApplyByTerraformIsNoDrift(t *testing.T) {
	b, trail, states := watched(t)
	c := b.watch("all")
	byTerraform := func(r map[string]any) {
		r["userAgent"] = "APN/1.0 HashiCorp/1.0 Terraform/1.11.4 (+https://www.terraform.io) terraform-provider-aws/5.80.0"
	}
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "public-access", "e2e-apply-1", now(), byTerraform))
	p := c.await("event", func(message) bool { return true }).payload(t)
	if p["verdict"] != "terraform" || p["address"] != "aws_s3_bucket_public_access_block.invoices" {
		t.Errorf("got verdict %v on %v", p["verdict"], p["address"])
	}
	after := bytes.ReplaceAll(fixture(t, "network/network-before.tfstate"), []byte(`"serial": 41`), []byte(`"serial": 42`))
	after = bytes.ReplaceAll(after, []byte(`"block_public_acls": true`), []byte(`"block_public_acls": false`))
	put(t, filepath.Join(states, "network.tfstate"), after, time.Time{})
	c.await("state_change", func(message) bool { return true })
	// A change by hand comes last: whatever drift the apply had made would stand before it in the one order.
	putRecords(t, filepath.Join(trail, "2.json"), record(t, "open-port-22", "e2e-apply-2", now(), nil))
	c.await("drift", func(m message) bool { return m.payload(t)["resource_type"] == "aws_security_group" })
	for _, m := range c.seen {
		if m.Type == "drift" && m.payload(t)["resource_type"] != "aws_security_group" {
			t.Errorf("the apply raised a drift: %s", m.Payload)
		}
	}
	c.once()
}

func TestRefusedCallIsAnAttempt(t *testing.T) {
	b, trail, _ := watched(t)
	c := b.watch("events")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "policy-denied", "e2e-denied-1", now(), nil))
	p := c.await("event", func(message) bool { return true }).payload(t)
	if p["verdict"] != "attempted" || p["address"] != "aws_s3_bucket_policy.invoices" {
		t.Errorf("got verdict %v on %v", p["verdict"], p["address"])
	}
}

func TestRecordedSerialsGiveStateChanges(t *testing.T) {
	states := t.TempDir()
	path := filepath.Join(states, "dev.tfstate")
	put(t, path, fixture(t, "series/serial-000005.tfstate"), time.Now().Add(-time.Hour))
	b := start(t, "--cloudtrail", t.TempDir()+"?watch=true", "--state", states)
	c := b.watch("state")
	put(t, path, fixture(t, "series/serial-000014.tfstate"), time.Time{})
	actions := map[string]string{}
	for len(actions) < 4 {
		m := c.await("state_change", func(message) bool { return true })
		p := m.payload(t)
		if p["serial"] != 14.0 || p["previous_serial"] != 5.0 {
			t.Errorf("serial: got %v after %v, want 14 after 5", p["serial"], p["previous_serial"])
		}
		actions[p["resource"].(string)] = p["action"].(string)
	}
	want := map[string]string{
		"aws_s3_bucket_public_access_block.lgtmoon_bucket_access_block": "created",
		"aws_iam_policy.lgtmoon_s3_policy":                              "modified",
		"aws_iam_user.lgtmoon_user":                                     "modified",
		"aws_s3_bucket.lgtmoon_bucket":                                  "modified",
	}
	for address, action := range want {
		if actions[address] != action {
			t.Errorf("%s: got %q, want %q (all: %v)", address, actions[address], action, actions)
		}
	}
}

func TestRealApplyGivesStateChange(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Log("no terraform on the PATH: the recorded serials alone are tested")
		return
	}
	dir := t.TempDir()
	apply := func(input string) {
		t.Helper()
		config := "resource \"terraform_data\" \"release\" {\n  input = \"" + input + "\"\n}\n"
		put(t, filepath.Join(dir, "main.tf"), []byte(config), time.Time{})
		for _, args := range [][]string{{"init", "-input=false"}, {"apply", "-input=false", "-auto-approve"}} {
			run := exec.Command(terraform, args...)
			run.Dir, run.Env = dir, append(os.Environ(), "CHECKPOINT_DISABLE=1")
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("terraform %v: %v\n%s", args, err, out)
			}
		}
	}
	apply("one")
	b := start(t, "--cloudtrail", t.TempDir()+"?watch=true", "--state", filepath.Join(dir, "terraform.tfstate"))
	c := b.watch("state")
	apply("two")
	var state struct{ Serial float64 }
	text, err := os.ReadFile(filepath.Join(dir, "terraform.tfstate"))
	if err != nil || json.Unmarshal(text, &state) != nil {
		t.Fatalf("read the state: %v", err)
	}
	p := c.await("state_change", func(m message) bool { return m.payload(t)["serial"] == state.Serial }).payload(t)
	if p["resource"] != "terraform_data.release" || p["action"] != "modified" {
		t.Errorf("got %v %v", p["resource"], p["action"])
	}
}

// requests are the recorded requests, byte for byte as Falco sent them, with line ends as they were on the wire.
func requests(t *testing.T, name string) [][]byte {
	t.Helper()
	var all [][]byte
	for _, part := range bytes.Split(fixture(t, name), []byte("--- conn "))[1:] {
		_, request, _ := bytes.Cut(part, []byte("\n"))
		head, body, ok := bytes.Cut(request, []byte("\r\n\r\n"))
		if !ok {
			t.Fatalf("%s: a request without an end of its head", name)
		}
		body = bytes.TrimRight(body, "\n")
		all = append(all, append(append(head, "\r\n\r\n"...), body...))
	}
	if len(all) == 0 {
		t.Fatalf("%s: no request", name)
	}
	return all
}

func TestFalcosHTTPRequests(t *testing.T) {
	b := start(t, "--falco-http", "127.0.0.1:0")
	c := b.watch("all")
	sent := append(requests(t, "falco/http044.txt"), requests(t, "falco/append-http044.txt")...)
	conn, err := net.Dial("tcp", b.intake)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReader(conn)
	post := func(request []byte) {
		t.Helper()
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("answer: %s: %s", answer.Status, body)
		}
	}
	for _, request := range sent {
		post(request)
	}
	post(sent[0]) // repeated, as after a time-out
	for i := range sent {
		var want struct{ Rule, Output string }
		_, body, _ := bytes.Cut(sent[i], []byte("\r\n\r\n"))
		if err := json.Unmarshal(body, &want); err != nil {
			t.Fatal(err)
		}
		p := c.await("falco", func(message) bool { return true }).payload(t)
		if p["rule"] != want.Rule || p["output"] != want.Output {
			t.Errorf("alert %d: got %v %v, want %v %v", i, p["rule"], p["output"], want.Rule, want.Output)
		}
	}
	var stats struct{ Alerts int }
	if err := json.Unmarshal(b.get("/api/v1/stats"), &stats); err != nil || stats.Alerts != len(sent) {
		t.Errorf("stored %d alerts, want %d (%v)", stats.Alerts, len(sent), err)
	}
	c.once()
}

// TestOfficialPluginsAlertsAreCorrelated sends what Falco with the official cloudtrail plugin sent for a real record: a
// client sees the alert, the drift and, once Terraform has applied again, the state change.
func TestOfficialPluginsAlertsAreCorrelated(t *testing.T) {
	states := t.TempDir()
	state := `{"version":4,"terraform_version":"1.11.4","serial":3,"lineage":"a","outputs":{},"resources":[
	 {"mode":"managed","type":"aws_cloudtrail","name":"audit","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[
	  {"schema_version":0,"attributes":{"id":"stratus-red-team-ct-stop-trail-buykxbqejv","name":"stratus-red-team-ct-stop-trail-buykxbqejv",
	   "arn":"arn:aws:cloudtrail:apiso-centralnorth-2r:143434273843:trail/stratus-red-team-ct-stop-trail-buykxbqejv","enable_logging":true}}]}]}`
	put(t, filepath.Join(states, "audit.tfstate"), []byte(state), time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC)) // before the event
	b := start(t, "--falco-http", "127.0.0.1:0/a-secret-path", "--state", states)
	c := b.watch("all")
	_, body, _ := bytes.Cut(requests(t, "falco/append-http044.txt")[0], []byte("\r\n\r\n"))
	answer, err := http.Post("http://"+b.intake+"/a-secret-path", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if p := c.await("falco", func(message) bool { return true }).payload(t); p["rule"] != "CloudTrail Change" || p["source"] != "aws_cloudtrail" {
		t.Errorf("got alert %v", p)
	}
	p := c.await("drift", func(message) bool { return true }).payload(t)
	if p["address"] != "aws_cloudtrail.audit" || p["precision"] != "exact" || p["attribute"] != "enable_logging" ||
		p["old_value"] != "true" || p["new_value"] != "false" || p["user"] != "christophe" || p["rule"] != "CloudTrail Change" {
		t.Errorf("got %v", p)
	}
	state = strings.NewReplacer(`"serial":3`, `"serial":4`, `"enable_logging":true`, `"enable_logging":false`).Replace(state)
	put(t, filepath.Join(states, "audit.tfstate"), []byte(state), time.Time{})
	p = c.await("state_change", func(message) bool { return true }).payload(t)
	if p["resource"] != "aws_cloudtrail.audit" || p["action"] != "modified" || p["serial"] != 4.0 || p["previous_serial"] != 3.0 {
		t.Errorf("got %v", p)
	}
}

// TestRestartTellsNothingTwice reads the same files with the same journal again.
func TestRestartTellsNothingTwice(t *testing.T) {
	data := t.TempDir()
	b, trail, states := watched(t, "--data", data)
	c := b.watch("all")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "e2e-restart-1", now(), nil))
	first := c.await("drift", func(message) bool { return true })
	b.stop()

	b = start(t, "--data", data, "--cloudtrail", trail+"?watch=true", "--state", states)
	c = b.watch("all")
	putRecords(t, filepath.Join(trail, "2.json"), record(t, "public-access", "e2e-restart-2", now(), nil))
	second := c.await("drift", func(message) bool { return true })
	if second.payload(t)["resource_type"] != "aws_s3_bucket_public_access_block" {
		t.Errorf("told again after the restart: %s", second.Payload)
	}
	if millis(t, second.ID) < millis(t, first.ID) {
		t.Errorf("ids went back over the restart: %s after %s", second.ID, first.ID)
	}
	var list struct{ Items []message }
	if err := json.Unmarshal(b.get("/api/v1/drifts"), &list); err != nil {
		t.Fatal(err)
	}
	drifts := 0
	for _, m := range list.Items {
		if m.payload(t)["resource_type"] == "aws_security_group" {
			drifts++
		}
	}
	if drifts != 1 {
		t.Errorf("the journal holds the drift %d times", drifts)
	}
}

func millis(t *testing.T, id string) int64 {
	t.Helper()
	head, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(head, 10, 64)
	if err != nil {
		t.Fatalf("id %q: %v", id, err)
	}
	return n
}

// TestHealth is what a container's probes ask.
func TestHealth(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.tfstate")
	b := start(t, "--cloudtrail", t.TempDir()+"?watch=true", "--state", missing)
	ask := func(args ...string) (string, error) {
		out, err := exec.Command(binary(t), append([]string{"health", "--listen", b.feed}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := ask(); err != nil {
		t.Errorf("alive: %v\n%s", err, out)
	}
	type check struct {
		OK, Degraded bool
		Reason       string
	}
	ready := func() (states check) {
		t.Helper()
		if out, err := ask("--ready"); err != nil {
			t.Fatalf("ready: %v\n%s", err, out)
		}
		var got struct{ Checks map[string]check }
		if err := json.Unmarshal(b.get("/readyz"), &got); err != nil {
			t.Fatal(err)
		}
		return got.Checks["states"]
	}
	// One state that cannot be read does not take the others, and the feed, out of service.
	if c := ready(); c.OK || !c.Degraded || !strings.Contains(c.Reason, "missing.tfstate") {
		t.Errorf("without its state: %+v", c)
	}
	put(t, missing, fixture(t, "network/network-before.tfstate"), time.Time{})
	for deadline := time.Now().Add(patience); !ready().OK; {
		if time.Now().After(deadline) {
			t.Fatal("never well")
		}
	}
	var states struct{ Items []struct{ Serial int } }
	for deadline := time.Now().Add(patience); len(states.Items) == 0 && time.Now().Before(deadline); { // journalled a moment later
		if err := json.Unmarshal(b.get("/api/v1/state"), &states); err != nil {
			t.Fatal(err)
		}
	}
	if len(states.Items) != 1 || states.Items[0].Serial != 41 {
		t.Errorf("states: %+v", states)
	}
}

// TestWrongStartsAreExplained: each way to start wrongly ends at once with status 2 and the way out.
func TestWrongStartsAreExplained(t *testing.T) {
	unknown := filepath.Join(t.TempDir(), "bridge.yaml")
	put(t, unknown, []byte("listn: 127.0.0.1:8080\n"), time.Time{})
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no source":           {[]string{"run"}, "--demo"},
		"open to the network": {[]string{"run", "--cloudtrail", "x", "--listen", "0.0.0.0:8080"}, "127.0.0.1:8080"},
		"open intake":         {[]string{"run", "--falco-http", "0.0.0.0:2802"}, "secret path"},
		"demo and sources":    {[]string{"run", "--demo", "--state", "x"}, "leave out"},
		"unknown key":         {[]string{"run", "--config", unknown}, `"listn"`},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(binary(t), c.args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("got %v, want exit status 2", err)
			}
			if !strings.Contains(string(out), c.says) {
				t.Errorf("%q is not in:\n%s", c.says, out)
			}
		})
	}
}
