package falco_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/falcosecurity/client-go/pkg/api/schema"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

var withoutKey = cmpopts.IgnoreFields(journal.Alert{}, "Key")

func TestRecordedAlerts(t *testing.T) {
	login := journal.Alert{
		Intake: "falco_http", Rule: "Console Login Without MFA", Priority: "critical", Source: "aws_cloudtrail", Hostname: "vm",
		Output: "10:00:01.000000000: Critical Detected a console login without MFA (requesting user=<NA>, requesting IP=203.0.113.8, AWS region=us-east-1)",
		Tags:   []string{"aws", "aws_console", "aws_iam", "cloud"}, Time: time.Date(2026, 11, 20, 10, 0, 1, 0, time.UTC),
		Fields: map[string]string{"ct.region": "us-east-1", "ct.srcip": "203.0.113.8", "evt.time": "1795168801000000000"},
	}
	if diff := cmp.Diff(login, fromHTTP(t, "http-all.txt")[1], withoutKey); diff != "" {
		t.Errorf("http_output (-want +got):\n%s", diff)
	}
	login.Intake = "falco_grpc"
	if diff := cmp.Diff(login, fromGRPC(t, "grpc-default-time.hex")[1], withoutKey); diff != "" {
		t.Errorf("gRPC with JSON (-want +got):\n%s", diff)
	}

	lists := fromGRPC(t, "grpc-list-field.hex")[0]
	want := map[string]string{"ec2.imageids": `["ami-1","ami-2"]`, "ec2.imageids[0]": `["ami-1"]`, "evt.num": "1", "evt.time": "1795168802000000000"}
	maps.DeleteFunc(lists.Fields, func(name, _ string) bool { return want[name] == "" })
	if diff := cmp.Diff(want, lists.Fields); diff != "" {
		t.Errorf("typed fields (-want +got):\n%s", diff)
	}

	text := journal.Alert{
		Intake: "falco_grpc", Rule: "List Field Test", Priority: "notice", Source: "aws_cloudtrail", Hostname: "vm",
		Output: "10:00:02.000000000: Notice images=<NA> user=bob src=ec2.amazonaws.com num=1 t=10:00:02.000000000 rt=1795168802000000000 pn=cloudtrail info=eu-west-1 bob ec2 RunInstances bob via 203.0.113.9 → RunInstances",
		Tags:   []string{"a", "b", "mitre_x"}, Time: time.Date(2026, 11, 20, 10, 0, 2, 0, time.UTC),
		Fields: map[string]string{
			"ct.src": "ec2.amazonaws.com", "ct.user": "bob", "evt.num": "1", "evt.pluginname": "cloudtrail", "evt.rawtime": "1795168802000000000",
			"evt.plugininfo": "eu-west-1 bob ec2 RunInstances bob via 203.0.113.9 → RunInstances", "evt.time": "10:00:02.000000000",
		},
	}
	if diff := cmp.Diff(text, fromGRPC(t, "grpc-text.hex")[0], withoutKey); diff != "" {
		t.Errorf("gRPC without JSON (-want +got):\n%s", diff)
	}
	// The same alert by http_output is text alone.
	text = journal.Alert{Intake: "falco_http", Rule: "unknown", Priority: "notice", Output: text.Output}
	got := fromHTTP(t, "http-text.txt")[0]
	if diff := cmp.Diff(text, got, withoutKey, cmpopts.IgnoreFields(journal.Alert{}, "Time")); diff != "" {
		t.Errorf("http_output without JSON (-want +got):\n%s", diff)
	}
	if time.Since(got.Time).Abs() > time.Minute {
		t.Errorf("text without a date has the time %v, want now", got.Time)
	}
}

// TestBothWays: the same alert, recorded as both of Falco's outputs sent it.
func TestBothWays(t *testing.T) {
	for _, pair := range [][2]string{{"http-all.txt", "grpc-default-time.hex"}, {"append-http044.txt", "append-grpc043.hex"}} {
		byHTTP, byGRPC := fromHTTP(t, pair[0]), fromGRPC(t, pair[1])
		if len(byGRPC) < 3 || len(byGRPC) > len(byHTTP) {
			t.Fatalf("%v: %d and %d alerts", pair, len(byHTTP), len(byGRPC))
		}
		for i, a := range byGRPC {
			if diff := cmp.Diff(byHTTP[i], a, cmpopts.IgnoreFields(journal.Alert{}, "Intake")); diff != "" {
				t.Errorf("%v, alert %d (-http +grpc):\n%s", pair, i, diff)
			}
		}
	}
}

// TestFormOfTimeIsNotInTheKey: two Falcos, one with time_format_iso_8601, told of the same events.
func TestFormOfTimeIsNotInTheKey(t *testing.T) {
	clock, iso := fromHTTP(t, "http-all.txt"), fromHTTP(t, "http043.txt")
	for i := range iso {
		if iso[i].Output == clock[i].Output || iso[i].Rule != clock[i].Rule {
			t.Fatalf("alert %d: the recordings are not what this test needs", i)
		}
		if iso[i].Key != clock[i].Key {
			t.Errorf("alert %d has two keys", i)
		}
	}
}

// TestNoTwoAlertsShareAKey changes one thing at a time; also what Falco's text does not show.
func TestNoTwoAlertsShareAKey(t *testing.T) {
	const body = `{"time":"2026-11-20T10:00:00.000000001Z","rule":"R","priority":"Notice","source":"k8s_audit","hostname":"h","output":"10:00:00.000000001: Notice x: y z","output_fields":{"a":"1","b":null}}`
	keys := map[string]string{}
	for _, change := range [][2]string{
		{"", ""}, {"0001Z", "0002Z"}, {`"R"`, `"S"`}, {`y":"Notice"`, `y":"Warning"`}, {"k8s_audit", "syscall"}, {`"h"`, `"i"`},
		{"y z", "y w"}, {"x: y", "w: y"}, {`"a":"1"`, `"a":"2"`}, {`"a":"1"`, `"aa":"1"`}, {`"b":null`, `"b":""`},
		{`"a":"1"`, `"a":"1\u0000b\u0000"`}, {`{"a":"1","b":null}`, `{}`},
	} {
		text := strings.Replace(body, change[0], change[1], 1)
		a, err := falco.FromHTTP([]byte(text), "application/json")
		if err != nil {
			t.Fatal(err)
		}
		if other, there := keys[a.Key]; there {
			t.Errorf("one key for\n%s\n%s", other, text)
		}
		keys[a.Key] = text
	}
}

func TestEventKey(t *testing.T) {
	alert := func(rule, source, id, output string) journal.Alert {
		a, err := falco.FromHTTP([]byte(`{"time":"2026-11-20T10:00:00Z","rule":"`+rule+`","source":"`+source+`","hostname":"`+output+`","output":"`+output+
			`","output_fields":{"ct.id":"`+id+`","ct.name":"RunInstances"}}`), "application/json")
		if err != nil && !errors.Is(err, falco.ErrPartRecord) {
			t.Fatal(err)
		}
		return a
	}
	one := alert("R", "tfdrift", "e-1", "a")
	if again := alert("R", "tfdrift", "e-1", "b"); again.Key != one.Key {
		t.Error("one event, read by two Falcos, has two keys")
	}
	for _, other := range []journal.Alert{
		alert("S", "tfdrift", "e-1", "a"), alert("R", "aws_cloudtrail", "e-1", "a"), alert("R", "tfdrift", "e-2", "a"), alert("R", "okta", "e-1", "a"),
	} {
		if other.Key == one.Key {
			t.Errorf("one key for %+v and %+v", one, other)
		}
	}
}

func TestFromHTTPValues(t *testing.T) {
	const fields = `{"n":1795168800000000001,"big":123456789012345678901234567890,"f":1.50,"e":1e3,"t":true,"l":[ "a", 1, null ],"s":"é\n\"","o":{"x": 1},"absent":null,"empty":"","na":"<NA>"}`
	a, err := falco.FromHTTP([]byte(`{"rule":"R","output_fields":`+fields+`,"tags":["a",null,7],"time":"2026-11-20T11:00:00.5+01:00"}`), "application/json; charset=utf-8")
	if err != nil {
		t.Fatal(err)
	}
	want := journal.Alert{
		Intake: "falco_http", Rule: "R", Tags: []string{"a", "7"}, Time: time.Date(2026, 11, 20, 10, 0, 0, 5e8, time.UTC),
		Fields: map[string]string{
			"n": "1795168800000000001", "big": "123456789012345678901234567890", "f": "1.50", "e": "1e3", "t": "true",
			"l": `["a",1,null]`, "s": "é\n\"", "o": `{"x":1}`, "empty": "", "na": "<NA>",
		},
	}
	if diff := cmp.Diff(want, a, withoutKey); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFromHTTP(t *testing.T) {
	type parts struct {
		Priority, Output, Container string
		Time                        string
		Err                         error
	}
	for name, c := range map[string]struct {
		body, kind string
		want       parts
	}{
		"priority in lower case": {`{"rule":"R","priority":"EMERGENCY","output_fields":{}}`, "", parts{Priority: "emergency"}},
		"priority unknown":       {`{"rule":"R","priority":"loud","output_fields":{}}`, "", parts{}},
		"container":              {`{"rule":"R","output_fields":{"container.id":"3f2a"}}`, "", parts{Container: "3f2a"}},
		"container is the host":  {`{"rule":"R","output_fields":{"container.id":"host"}}`, "", parts{}},
		"container absent":       {`{"rule":"R","output_fields":{"container.id":null}}`, "", parts{}},
		"container not known":    {`{"rule":"R","output_fields":{"container.id":"<NA>"}}`, "", parts{}},
		"message for output":     {`{"rule":"R","message":"m","output_fields":{}}`, "", parts{Output: "m"}},
		"time of the event":      {`{"rule":"R","output_fields":{"evt.time.iso8601":1795168800000000001}}`, "", parts{Time: "2026-11-20T10:00:00.000000001Z"}},
		"time of no calendar":    {`{"rule":"R","time":"soon","output_fields":{"evt.time":"10:00:00.0"}}`, "", parts{}},
		"wrong types":            {`{"rule":"R","time":7,"priority":[],"tags":"x","hostname":{},"output_fields":{}}`, "", parts{}},
		"JSON called text":       {`{"rule":"R","output":"o","output_fields":{}}`, "text/plain", parts{Output: "o"}},
		"no fields":              {`{"rule":"R","output":"o"}`, "", parts{Output: "o", Err: falco.ErrBlind}},
		"fields are a list":      {`{"rule":"R","output_fields":[]}`, "", parts{Err: falco.ErrBlind}},
		"no fields, Falco's own": {`{"rule":"Falco internal: syscall event drop","source":"internal","output":"o"}`, "", parts{Output: "o"}},
		"no record":              {`{"rule":"R","source":"aws_cloudtrail","output_fields":{"ct.name":"x"}}`, "", parts{Err: falco.ErrNoRecord}},
		"broken request":         {`{"rule":"R","source":"tfdrift","output_fields":{"ct.id":"1","ct.name":"x","ct.request":"{\"a\":"}}`, "", parts{Err: falco.ErrField}},
		"text with a date": {"2026-11-20T10:00:02.000000001+0000: Warning images changed\n", "text/plain",
			parts{Priority: "warning", Output: "2026-11-20T10:00:02.000000001+0000: Warning images changed", Time: "2026-11-20T10:00:02.000000001Z", Err: falco.ErrText}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = "application/json"
			}
			a, err := falco.FromHTTP([]byte(c.body), c.kind)
			got := parts{Priority: a.Priority, Output: a.Output, Container: a.ContainerID, Err: err}
			if !a.Time.IsZero() {
				got.Time = a.Time.Format(time.RFC3339Nano)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if a.Key == "" {
				t.Error("no key: the alert cannot be stored")
			}
		})
	}
}

func TestFromHTTPRefuses(t *testing.T) {
	for _, body := range []string{"", " \n", "{", `{"rule":"R"`, "[]", "null", `"R"`, "7", "{}", `{"rule":""}`, `{"rule":null}`, `{"rule":"R","output_fields":{}} x`, "falco", "\x00\xff"} {
		a, err := falco.FromHTTP([]byte(body), "application/json")
		if err == nil || a.Key != "" {
			t.Errorf("%q: alert %+v, error %v", body, a, err)
		}
	}
	if _, err := falco.FromHTTP(nil, "text/plain"); err == nil {
		t.Error("an empty text is an alert")
	}
}

func TestErrorsHaveNoContent(t *testing.T) {
	for _, body := range []string{
		`{"rule":"R","output_fields":{"password":hunter2}}`, `{"rule":"R","time":"hunter2","output_fields":{"a":"hunter2}`, `hunter2`,
		`{"rule":"R","source":"tfdrift","output_fields":{"ct.id":"1","ct.name":"x","ct.request":"hunter2"}}`,
	} {
		_, err := falco.FromHTTP([]byte(body), "application/json")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestFromGRPC(t *testing.T) {
	document := `{"hostname":"h","output":"10:00:00.000000000: Error o","priority":"Error","rule":"R","source":"syscall","time":"2026-11-20T10:00:00Z"}`
	base := &outputs.Response{
		Rule: "R", Priority: schema.Priority_ERROR, Source: "syscall", Hostname: "h", Tags: []string{"t"}, Output: document,
		Time: timestamppb.New(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)), OutputFields: map[string]string{"a": "1", "b": "<NA>"},
	}
	want := journal.Alert{
		Intake: "falco_grpc", Rule: "R", Priority: "error", Source: "syscall", Hostname: "h", Tags: []string{"t"},
		Output: "10:00:00.000000000: Error o", Time: base.Time.AsTime(), Fields: map[string]string{"a": "1"},
	}
	for name, c := range map[string]struct {
		change func(r *outputs.Response, want *journal.Alert)
		err    error
	}{
		"JSON without fields, fields beside it": {func(*outputs.Response, *journal.Alert) {}, nil},
		"no fields at all": {func(r *outputs.Response, want *journal.Alert) {
			r.OutputFields, want.Fields = nil, map[string]string{}
		}, falco.ErrBlind},
		"text, no fields": {func(r *outputs.Response, want *journal.Alert) {
			r.OutputFields, r.Output, want.Fields = nil, want.Output, map[string]string{}
		}, nil},
		"something else in braces": {func(r *outputs.Response, want *journal.Alert) { r.Output, want.Output = "{}", "{}" }, nil},
		"a time beyond all calendars": {func(r *outputs.Response, want *journal.Alert) {
			r.Output, want.Output = "o", "o"
			r.Time, want.Time = &timestamppb.Timestamp{Seconds: 1 << 60}, time.Time{}
		}, nil},
		"no time": {func(r *outputs.Response, want *journal.Alert) {
			r.Output, want.Output, r.Time, want.Time = "o", "o", nil, time.Time{}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r, want := proto.CloneOf(base), want
			c.change(r, &want)
			got, err := falco.FromGRPC(r)
			if !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(want, got, withoutKey); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if a, err := falco.FromGRPC(&outputs.Response{}); err == nil {
		t.Errorf("an empty response is an alert: %+v", a)
	}
}

// FuzzFromHTTP: whatever comes is refused or makes an alert that the journal takes, and always the same one.
func FuzzFromHTTP(f *testing.F) {
	for _, name := range []string{"http-all.txt", "http-text.txt", "append-http044.txt"} {
		for _, request := range recorded(f, name) {
			header, body := split(f, request)
			f.Add(body, header.Get("Content-Type"))
		}
	}
	f.Add([]byte(`{"rule":"R","source":"tfdrift","time":"0000-01-01T00:00:00Z","output_fields":{"ct.id":"1","ct.name":"x","ct.request":"[[[]]]","ct.resources":"\ud800"}}`), "")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		before := slices.Clone(body)
		a, err := falco.FromHTTP(body, contentType)
		usable := err == nil
		for _, complaint := range []error{falco.ErrText, falco.ErrBlind, falco.ErrField, falco.ErrNoRecord, falco.ErrPartRecord} {
			usable = usable || errors.Is(err, complaint)
		}
		if usable != (a.Key != "") || usable != (a.Rule != "") {
			t.Fatalf("alert %+v with error %v", a, err)
		}
		again, _ := falco.FromHTTP(before, contentType)
		if again.Key != a.Key {
			t.Fatal("two keys for one body")
		}
		if !usable {
			return
		}
		if _, err := json.Marshal(a, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			t.Fatalf("the journal would refuse it: %v", err)
		}
	})
}
