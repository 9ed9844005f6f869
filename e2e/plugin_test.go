package e2e_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
	"github.com/tfdrift/tfdrift-falco/rules"
)

// TestThroughThePlugin sends records by the long way: the plugin in a real libsinsp reads them and gives the fields that the
// drop-in appends, an alert with these fields is posted as Falco would post it, and the bridge must come to the drift it
// comes to when it reads the records itself.
func TestThroughThePlugin(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	records, states := t.TempDir(), t.TempDir()
	put(t, filepath.Join(states, "network.tfstate"), fixture(t, "network/network-before.tfstate"), time.Now().Add(-time.Hour))
	at := now()
	byHand := map[string]any{"Records": []any{
		record(t, "open-port-22", "e2e-plugin-1", at, nil), record(t, "public-access", "e2e-plugin-2", at, nil),
		record(t, "policy-denied", "e2e-plugin-3", at, nil), record(t, "terraform-tags", "e2e-plugin-4", at, nil),
	}}
	text, err := json.Marshal(byHand)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(records, "1.json"), text, time.Time{})

	fields := appended(t)
	const separator = "\x1f"
	lines, err := h.Run(t.Context(), host.Query{
		Init: `{"states":["` + states + `"]}`, Records: records, Filter: "tf.kind=record",
		Format: "%" + strings.Join(fields, separator+"%"),
	})
	if err != nil || len(lines) != 4 {
		t.Fatalf("the host gave %d lines: %v", len(lines), err)
	}
	told := func(arrive func(*bridge)) map[string]string {
		t.Helper()
		b := start(t, "--falco-http", "127.0.0.1:0", "--cloudtrail", emptyOr(t, arrive, records), "--state", states)
		c := b.watch("drifts", "events")
		if arrive != nil {
			arrive(b)
		}
		out := map[string]string{}
		for len(out) < 5 { // two attributes, one rule, one attempt, one apply
			m := c.await("", func(m message) bool { return m.Type == "drift" || m.Type == "event" })
			p := m.payload(t)
			delete(p, "rule")
			delete(p, "severity") // follows the rule
			whole, _ := json.Marshal(p)
			event, _ := p["event"].(map[string]any)
			out[event["id"].(string)+" "+strings.TrimSpace(asText(p["attribute"]))] = string(whole)
		}
		return out
	}
	direct := told(nil)
	through := told(func(b *bridge) {
		for _, line := range lines {
			post(t, b, alertOf(t, fields, strings.Split(line, separator), at))
		}
	})
	for what, want := range direct {
		if got := through[what]; !alike(t, got, want) {
			t.Errorf("%s:\nthrough the plugin %s\ndirectly           %s", what, got, want)
		}
	}
}

// emptyOr is a watched folder without records for the bridge that gets alerts, else the records.
func emptyOr(t *testing.T, arrive func(*bridge), records string) string {
	t.Helper()
	if arrive != nil {
		return t.TempDir() + "?watch=true"
	}
	return records + "?watch=true"
}

func asText(v any) string {
	s, _ := v.(string)
	return s
}

// alike compares two payloads but for what no field carries: the role behind a session.
func alike(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	for _, p := range []map[string]any{x, y} {
		if actor, ok := p["actor"].(map[string]any); ok {
			delete(actor, "role")
		}
	}
	m, _ := json.Marshal(x)
	n, _ := json.Marshal(y)
	return bytes.Equal(m, n)
}

// appended are the fields that the shipped drop-in appends to every alert.
func appended(t *testing.T) []string {
	t.Helper()
	var dropIn struct {
		Append []struct {
			Fields []string `yaml:"extra_fields"`
		} `yaml:"append_output"`
	}
	if err := yaml.Unmarshal(rules.DropIn, &dropIn); err != nil || len(dropIn.Append) != 1 || len(dropIn.Append[0].Fields) < 20 {
		t.Fatalf("drop-in: %v %+v", err, dropIn)
	}
	return dropIn.Append[0].Fields
}

// alertOf is the body that Falco posts for an event with these fields: texts, and null for what is absent.
func alertOf(t *testing.T, fields, values []string, at time.Time) []byte {
	t.Helper()
	if len(fields) != len(values) {
		t.Fatalf("%d fields and %d values", len(fields), len(values))
	}
	output := map[string]any{"evt.time": at.UnixNano()}
	for i, name := range fields {
		output[name] = values[i]
		if values[i] == "<NA>" {
			output[name] = nil
		}
	}
	body, err := json.Marshal(map[string]any{
		"hostname": "h", "rule": "CloudTrail Change", "priority": "Informational", "source": "tfdrift", "tags": []string{"tfdrift"},
		"time": at.Format("2006-01-02T15:04:05.000000000Z"), "output": "10:00:00.000000000: Informational CloudTrail change", "output_fields": output,
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func post(t *testing.T, b *bridge, body []byte) {
	t.Helper()
	answer, err := http.Post("http://"+b.intake+"/", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("answer: %s", answer.Status)
	}
}
