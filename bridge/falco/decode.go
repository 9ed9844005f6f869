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

// FromHTTP makes an alert of one request body. An alert comes with ErrText, ErrBlind, ErrField, ErrNoRecord and ErrPartRecord
// too; with any other error there is none. The errors do not have what the body says.
func FromHTTP(body []byte, contentType string) (journal.Alert, error) {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return journal.Alert{}, errors.New("decode alert: empty body")
	}
	if kind, _, _ := mime.ParseMediaType(contentType); kind == "text/plain" && body[0] != '{' {
		return fromText(string(body)), ErrText
	}
	a, sent, err := fromDocument(body)
	if err != nil {
		return journal.Alert{}, err
	}
	a.Intake = intakeHTTP
	return finish(a, sent)
}

// unknownRule is the rule of an alert that names none.
const unknownRule = "unknown"

// fromText makes an alert of a line of Falco's text output. Its time is the line's if that has a date, else now.
func fromText(text string) journal.Alert {
	text = strings.ToValidUTF8(text, "\uFFFD")
	a := journal.Alert{Intake: intakeHTTP, Rule: unknownRule, Output: text, Time: time.Now().UTC(), Key: key("text", text)}
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

// shortPriorities are other spellings of them: info is Falco's own in rules, the others are syslog's.
var shortPriorities = map[string]string{
	"emerg": "emergency", "crit": "critical", "err": "error", "warn": "warning", "info": "informational",
}

// priority is Falco's word in lower case, "" for anything else.
func priority(word string) string {
	word = strings.ToLower(strings.TrimSpace(word))
	if long, short := shortPriorities[word]; short {
		return long
	}
	if slices.Contains(priorities, word) {
		return word
	}
	return ""
}

// sent are the fields that Falco is set to send, those without a value too; nil when it is set to send none.
type sent map[string]bool

// fromDocument reads Falco's JSON document, without what finish adds.
func fromDocument(text []byte) (a journal.Alert, names sent, err error) {
	var d document
	if err := json.Unmarshal(text, &d, lenient); err != nil {
		return a, nil, fmt.Errorf("decode alert: %w", err)
	}
	a = journal.Alert{
		Rule: plain(d.Rule), Priority: priority(plain(d.Priority)), Source: plain(d.Source), Hostname: plain(d.Hostname),
		Output: plain(d.Output), Tags: list(d.Tags), Fields: map[string]string{},
	}
	if a.Output == "" { // json_include_output_property: false
		a.Output = plain(d.Message)
	}
	if a.Rule == "" {
		if a.Priority == "" || a.Output == "" {
			return a, nil, errors.New("decode alert: no rule: not an alert of Falco")
		}
		a.Rule = unknownRule // the rest is an alert's
	}
	var fields map[string]jsontext.Value
	if d.Fields.Kind() == '{' {
		if err := json.Unmarshal(d.Fields, &fields, lenient); err != nil {
			return a, nil, fmt.Errorf("decode alert: output_fields: %w", err)
		}
		names = sent{}
	}
	for name, value := range fields {
		names[name] = true
		if value.Kind() != 'n' {
			a.Fields[name] = plain(value)
		}
	}
	a.Time = documentTime(plain(d.Time), a.Fields)
	return a, names, nil
}

// documentTime is the alert's time; a document without one has the event's in its fields.
func documentTime(text string, fields map[string]string) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UTC()
	}
	for _, text := range []string{text, fields["evt.time"], fields["evt.time.iso8601"], fields["evt.rawtime"]} {
		if t := nanoseconds(text); !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// nanoseconds reads a count of them since 1970, as older Falcos write times; zero for anything else, and for numbers so small
// that they must count something else.
func nanoseconds(text string) time.Time {
	const in1973 = 1e17
	ns, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ns < in1973 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
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
	beside := sent{}
	for name := range r.GetOutputFields() {
		beside[name] = true
	}
	if a, names, err := fromDocument([]byte(r.GetOutput())); err == nil {
		a.Intake = intakeGRPC
		if names == nil {
			a.Fields = direct.Fields
			if len(beside) > 0 {
				names = beside
			}
		}
		if a.Tags == nil { // json_include_tags_property: false
			a.Tags = direct.Tags
		}
		return finish(a, names)
	}
	if direct.Rule == "" {
		if direct.Output == "" {
			return journal.Alert{}, errors.New("decode alert: no rule: not an alert of Falco")
		}
		direct.Rule = unknownRule
	}
	return finish(direct, beside)
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

// containerID is the container that an alert is about, "" for none and for the host. Plugins spell the field in their own ways.
func containerID(fields map[string]string) string {
	for _, name := range []string{"container.id", "container_id", "container.full_id", "containerid"} {
		if id := fields[name]; id != "" && id != "host" && id != absent {
			return id
		}
	}
	return ""
}

// finish adds what follows from the rest, and complains of what is missing.
func finish(a journal.Alert, names sent) (journal.Alert, error) {
	if a.Time.Year() < 1 || a.Time.Year() > 9999 { // no calendar that JSON knows
		a.Time = time.Time{}
	}
	a.ContainerID = containerID(a.Fields)
	a.Key = alertKey(&a)
	if names == nil && a.Source != "internal" {
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
	if missing := slices.DeleteFunc(slices.Clone(needed), func(name string) bool { return names[name] }); len(missing) > 0 {
		return a, fmt.Errorf("%w %s: add append_output to falco.yaml", ErrPartRecord, strings.Join(missing, ", "))
	}
	return a, nil
}
