package falco

import (
	"crypto/sha256"
	"encoding/hex"
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

var (
	// ErrText is wrapped when an alert came as plain text, without fields. The alert that comes with it has the text.
	ErrText = errors.New("falco sends plain text: set json_output: true in falco.yaml")
	// ErrBlind is wrapped when an alert has no output fields. The alert that comes with it has everything else.
	ErrBlind = errors.New("falco sends no output fields: set json_include_output_fields_property: true in falco.yaml")
)

var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// body is one alert as http_output writes it, and as gRPC's output holds it with json_output.
type body struct {
	Time     time.Time                 `json:"time"`
	Rule     string                    `json:"rule"`
	Priority string                    `json:"priority"`
	Source   string                    `json:"source"`
	Hostname string                    `json:"hostname"`
	Output   string                    `json:"output"`
	Message  string                    `json:"message"`
	Tags     []string                  `json:"tags"`
	Fields   map[string]jsontext.Value `json:"output_fields"`
}

// FromHTTP makes an alert of one request body. With ErrText and ErrBlind the alert is usable; with any other error it is
// not.
func FromHTTP(text []byte, contentType string) (journal.Alert, error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	if kind == "text/plain" {
		return fromText(string(text)), ErrText
	}
	a, err := fromJSON(text)
	a.Intake = intakeHTTP
	return a, err
}

const (
	intakeHTTP   = "falco_http"
	intakeGRPC   = "falco_grpc"
	intakeDirect = "cloudtrail"
)

func fromText(text string) journal.Alert {
	text = strings.TrimSpace(text)
	_, rest, _ := strings.Cut(text, ": ")
	priority, _, _ := strings.Cut(rest, " ")
	a := journal.Alert{Intake: intakeHTTP, Rule: "unknown", Priority: strings.ToLower(priority), Output: text, Time: time.Now().UTC()}
	if !slices.Contains(priorities, a.Priority) {
		a.Priority = ""
	}
	a.Key = key("text", text)
	return a
}

var priorities = []string{"emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"}

func fromJSON(text []byte) (journal.Alert, error) {
	var b body
	if err := json.Unmarshal(text, &b, lenient); err != nil {
		return journal.Alert{}, fmt.Errorf("decode alert: %w", err)
	}
	if b.Rule == "" {
		return journal.Alert{}, errors.New("decode alert: no rule: not an alert of Falco")
	}
	a := journal.Alert{
		Rule: b.Rule, Priority: strings.ToLower(b.Priority), Output: b.Output, Source: b.Source, Hostname: b.Hostname,
		Tags: b.Tags, Time: b.Time.UTC(), Fields: map[string]string{},
	}
	for name, value := range b.Fields {
		if text, ok := plain(value); ok {
			a.Fields[name] = text
		}
	}
	complete(&a)
	if b.Fields == nil && b.Source != "internal" {
		return a, ErrBlind
	}
	return a, nil
}

// plain is a field's value as text; null is absent.
func plain(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case 'n':
		return "", false
	case '"':
		b, _ := jsontext.AppendUnquote(nil, v)
		return string(b), true
	}
	return string(v), true
}

// absent is how gRPC spells a field without value.
const absent = "<NA>"

// FromGRPC makes an alert of one gRPC response. Where its output is the whole JSON document, as with json_output, the
// fields are taken from there: only there absent, list and text are told apart.
func FromGRPC(r *outputs.Response) (journal.Alert, error) {
	if strings.HasPrefix(r.GetOutput(), "{") {
		a, err := fromJSON([]byte(r.GetOutput()))
		if err == nil || errors.Is(err, ErrBlind) && len(r.GetOutputFields()) == 0 {
			a.Intake = intakeGRPC
			return a, err
		}
	}
	a := journal.Alert{
		Intake: intakeGRPC, Rule: r.GetRule(), Priority: strings.ToLower(r.GetPriority().String()), Output: r.GetOutput(),
		Source: r.GetSource(), Hostname: r.GetHostname(), Tags: r.GetTags(), Fields: map[string]string{},
	}
	if t := r.GetTime(); t != nil {
		a.Time = time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC()
	}
	if a.Rule == "" {
		return journal.Alert{}, errors.New("decode alert: no rule: not an alert of Falco")
	}
	for name, value := range r.GetOutputFields() {
		if value != absent {
			a.Fields[name] = value
		}
	}
	complete(&a)
	return a, nil
}

// complete fills in what follows from the fields.
func complete(a *journal.Alert) {
	if id := a.Fields["container.id"]; id != "host" {
		a.ContainerID = id
	}
	a.Record = record(a)
	if id := a.Fields["ct.id"]; a.Record != nil && id != "" {
		a.Key = key("event", a.Rule, a.Source, id)
		return
	}
	a.Key = key("alert", a.Rule, a.Source, a.Hostname, strconv.FormatInt(a.Time.UnixNano(), 10), told(a.Output))
}

// told is an alert's text without the time and priority at its front, whose form depends on the route and the settings.
func told(output string) string {
	if _, rest, ok := strings.Cut(output, ": "); ok {
		if _, rest, ok := strings.Cut(rest, " "); ok {
			return rest
		}
	}
	return output
}

func key(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}
