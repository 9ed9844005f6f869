package falco

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falcosecurity/client-go/pkg/api/outputs"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// Errors that come with an alert which is to be stored all the same, since nobody sends it again. They say what it lacks
// and how that is mended.
var (
	// ErrText: the alert came as plain text. It has the text, the rule "unknown", and a time and priority if the text has.
	ErrText = errors.New("falco sends plain text: set json_output: true in falco.yaml")
	// ErrBlind: the alert has no output fields, and so no record either. It has everything else.
	ErrBlind = errors.New("falco sends no output fields: set json_include_output_fields_property: true in falco.yaml")
	// ErrField: a field that should hold JSON does not; the record was made without it. The error names the fields.
	ErrField = errors.New("a field holds broken JSON")
	// ErrNoRecord: the alert is about a CloudTrail event but does not say which.
	ErrNoRecord = errors.New("alert of a CloudTrail event without ct.id and ct.name: add them and the other ct fields by append_output in falco.yaml")
)

// complaint is the kind of an error that comes with an alert, "" for nil; usable is false for errors that come without
// one.
func complaint(err error) (kind string, usable bool) {
	switch {
	case err == nil:
		return "", true
	case errors.Is(err, ErrText):
		return "text", true
	case errors.Is(err, ErrBlind):
		return "blind", true
	case errors.Is(err, ErrField):
		return "broken_field", true
	case errors.Is(err, ErrNoRecord):
		return "no_record", true
	}
	return "not_an_alert", false
}

var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// document is one alert as http_output writes it, and as gRPC's output holds it with json_output. Members stay raw: one of
// an unexpected type is no reason to lose the alert.
// https://falco.org/docs/concepts/outputs/formatting/
type document struct {
	Time     jsontext.Value `json:"time"`
	Rule     jsontext.Value `json:"rule"`
	Priority jsontext.Value `json:"priority"`
	Source   jsontext.Value `json:"source"`
	Hostname jsontext.Value `json:"hostname"`
	Output   jsontext.Value `json:"output"`
	Message  jsontext.Value `json:"message"`
	Tags     jsontext.Value `json:"tags"`
	Fields   jsontext.Value `json:"output_fields"`
}

// FromHTTP makes an alert of one request body. An alert comes with ErrText, ErrBlind, ErrField and ErrNoRecord too; with any other
// error there is none. The errors do not have what the body says.
func FromHTTP(body []byte, contentType string) (journal.Alert, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return journal.Alert{}, errors.New("decode alert: empty body")
	}
	if kind, _, _ := mime.ParseMediaType(contentType); kind == "text/plain" && body[0] != '{' {
		return fromText(string(body)), ErrText
	}
	a, blind, err := fromDocument(body)
	if err != nil {
		return journal.Alert{}, err
	}
	a.Intake = intakeHTTP
	return finish(a, blind)
}

// fromText makes an alert of a line of Falco's text output. Its time is the line's if that has a date, else now.
func fromText(text string) journal.Alert {
	text = strings.ToValidUTF8(text, "\uFFFD")
	a := journal.Alert{Intake: intakeHTTP, Rule: "unknown", Output: text, Time: time.Now().UTC(), Key: key("text", text)}
	match := front.FindStringSubmatch(text)
	if match == nil {
		return a
	}
	a.Priority = priority(match[1])
	date, _, _ := strings.Cut(text, ": ")
	if t, err := time.Parse("2006-01-02T15:04:05.000000000-0700", date); err == nil {
		a.Time = t.UTC()
	}
	return a
}

var priorities = []string{"emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"}

// priority is Falco's word in lower case, "" for anything else.
func priority(word string) string {
	word = strings.ToLower(word)
	if slices.Contains(priorities, word) {
		return word
	}
	return ""
}

// fromDocument reads Falco's JSON document, without what finish adds.
func fromDocument(text []byte) (a journal.Alert, blind bool, err error) {
	var d document
	if err := json.Unmarshal(text, &d, lenient); err != nil {
		return a, false, fmt.Errorf("decode alert: %w", err)
	}
	a = journal.Alert{
		Rule: plain(d.Rule), Priority: priority(plain(d.Priority)), Source: plain(d.Source), Hostname: plain(d.Hostname),
		Output: plain(d.Output), Tags: list(d.Tags), Fields: map[string]string{},
	}
	if a.Rule == "" {
		return a, false, errors.New("decode alert: no rule: not an alert of Falco")
	}
	if a.Output == "" { // json_include_output_property: false
		a.Output = plain(d.Message)
	}
	var fields map[string]jsontext.Value
	if d.Fields.Kind() == '{' {
		if err := json.Unmarshal(d.Fields, &fields, lenient); err != nil {
			return a, false, fmt.Errorf("decode alert: output_fields: %w", err)
		}
	}
	for name, value := range fields {
		if value.Kind() != 'n' {
			a.Fields[name] = plain(value)
		}
	}
	a.Time = documentTime(plain(d.Time), a.Fields)
	return a, fields == nil && a.Source != "internal", nil
}

// documentTime is the alert's time; a document without one has the event's in its fields, in nanoseconds since 1970.
func documentTime(text string, fields map[string]string) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UTC()
	}
	for _, name := range []string{"evt.time", "evt.time.iso8601", "evt.rawtime"} {
		if ns, err := strconv.ParseInt(fields[name], 10, 64); err == nil {
			return time.Unix(0, ns).UTC()
		}
	}
	return time.Time{}
}

// plain is a value as text: a string's content, a number's digits, compact JSON for a list; null and what is not there
// are "".
func plain(v jsontext.Value) string {
	switch v.Kind() {
	case 'n', 0:
		return ""
	case '"':
		b, _ := jsontext.AppendUnquote(nil, v)
		return strings.ToValidUTF8(string(b), "\uFFFD")
	case '[', '{':
		_ = v.Compact(lenient) // it came out of a decoder: it is valid
	}
	return string(v)
}

func list(v jsontext.Value) []string {
	var values []jsontext.Value
	if v.Kind() != '[' || json.Unmarshal(v, &values, lenient) != nil {
		return nil
	}
	texts := make([]string, 0, len(values))
	for _, value := range values {
		if text := plain(value); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// absent is how gRPC spells a field without value.
const absent = "<NA>"

// FromGRPC makes an alert of one gRPC response. Where its output is the whole JSON document, as with json_output, the
// fields are taken from there: only there an absent one, a list and a text are told apart. Errors are as those of FromHTTP,
// without ErrText: fields come beside the text, though all as text.
func FromGRPC(r *outputs.Response) (journal.Alert, error) {
	direct := fromResponse(r)
	if a, blind, err := fromDocument([]byte(r.GetOutput())); err == nil {
		a.Intake = intakeGRPC
		if blind {
			a.Fields = direct.Fields
		}
		if a.Tags == nil { // json_include_tags_property: false
			a.Tags = direct.Tags
		}
		return finish(a, blind && len(a.Fields) == 0)
	}
	if direct.Rule == "" {
		return journal.Alert{}, errors.New("decode alert: no rule: not an alert of Falco")
	}
	return finish(direct, false)
}

// fromResponse reads what stands beside the output.
func fromResponse(r *outputs.Response) journal.Alert {
	a := journal.Alert{
		Intake: intakeGRPC, Rule: r.GetRule(), Priority: priority(r.GetPriority().String()), Output: r.GetOutput(),
		Source: r.GetSource(), Hostname: r.GetHostname(), Tags: r.GetTags(), Fields: map[string]string{},
	}
	if t := r.GetTime(); t != nil {
		a.Time = time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC()
	}
	for name, value := range r.GetOutputFields() {
		if value != absent {
			a.Fields[name] = value
		}
	}
	return a
}

// finish adds what follows from the rest, and complains of what is missing.
func finish(a journal.Alert, blind bool) (journal.Alert, error) {
	if a.Time.Year() < 1 || a.Time.Year() > 9999 { // no calendar that JSON knows
		a.Time = time.Time{}
	}
	if id := a.Fields["container.id"]; id != "host" && id != absent {
		a.ContainerID = id
	}
	a.Key = alertKey(&a)
	if blind {
		return a, ErrBlind
	}
	if !aboutRecord(&a) {
		return a, nil
	}
	id := a.Fields["ct.id"]
	if id == "" || a.Fields["ct.name"] == "" {
		return a, ErrNoRecord
	}
	var broken []string
	a.Key = eventKey(&a, id)
	if a.Record, broken = record(a.Fields); len(broken) > 0 {
		return a, fmt.Errorf("%w: %s", ErrField, strings.Join(broken, ", "))
	}
	return a, nil
}
