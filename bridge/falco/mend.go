package falco

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// Errors that come with an alert which is to be stored all the same, since nobody sends it again. They say what it lacks.
var (
	// ErrText: the alert came as plain text. It has the text, the rule "unknown", and a time and priority if the text has.
	ErrText = errors.New("plain text and not JSON: set json_output: true in falco.yaml")
	// ErrBlind: the alert has no output fields, and so no record either. It has everything else.
	ErrBlind = errors.New("no output fields: set json_include_output_fields_property: true in falco.yaml")
	// ErrField: a field that should hold JSON does not; the record was made without it. The error names the fields.
	ErrField = errors.New("a field holds broken JSON")
	// ErrNoRecord: the alert is about a CloudTrail event but does not say which.
	ErrNoRecord = errors.New("no ct.id and ct.name, so that the CloudTrail record cannot be rebuilt: add append_output to falco.yaml")
	// ErrPartRecord: Falco is not set to send some of the fields that tell what was changed; the record was made without them.
	// The error names the fields.
	ErrPartRecord = errors.New("the CloudTrail record lacks")
)

// complaint is the kind of an error that comes with an alert, "" for nil; usable is false for errors that come without
// one.
func complaint(err error) (kind string, usable bool) {
	for _, c := range []struct {
		err  error
		kind string
	}{
		{nil, ""}, {ErrText, "text"}, {ErrBlind, "blind"}, {ErrField, "broken_field"}, {ErrNoRecord, "no_record"}, {ErrPartRecord, "part_record"},
	} {
		if errors.Is(err, c.err) {
			return c.kind, true
		}
	}
	return "not_an_alert", false
}

// mend gives the lines of falco.yaml that mend a fault of this kind in alerts of a source, "" where none would.
func mend(kind, source string) string {
	switch kind {
	case "text":
		return "json_output: true"
	case "blind":
		return "json_include_output_fields_property: true"
	case "no_record", "part_record":
		return fmt.Sprintf("append_output: [{match: {source: %s}, extra_fields: [%s]}]", source, strings.Join(wanted(source), ", "))
	}
	return ""
}

// blindFor is how long a sender counts as wrongly set after its last bad alert.
const blindFor = time.Hour

// complain keeps in the status which Falco is set wrongly, until one of its alerts shows that this is over, and tells of it in
// the log. A fault of a single alert is told there only.
func (i *intake) complain(from string, a *journal.Alert, err error) {
	kind, _ := complaint(err)
	if kind != "" {
		i.metrics.fault(kind)
	}
	who := from
	if a.Hostname != "" {
		who = a.Hostname + " (" + from + ")"
	}
	switch kind {
	case "text":
		i.wrong(about{"", from, ""}, kind, who, err)
	case "blind":
		i.wrong(about{"", from, a.Hostname}, kind, who, err)
	case "no_record", "part_record":
		i.right(about{"", from, a.Hostname}, who)
		i.wrong(about{a.Source, from, a.Hostname}, kind, who, fmt.Errorf("source %s: %w", a.Source, err))
	default:
		if kind != "" && i.said.first(kind+" "+a.Rule) {
			i.log.Warn("alert lacks what correlation needs", "rule", a.Rule, "sender", who, "why", err)
		}
		if a.Source != "internal" { // Falco's own have fields, whatever the settings are
			i.right(about{"", from, a.Hostname}, who)
			i.right(about{"", from, ""}, who)
		}
		if a.Record != nil {
			i.right(about{a.Source, from, a.Hostname}, who)
		}
	}
}

// about is what a setting of one Falco shows in: the records of a source, or with no source the form of all alerts. Text tells
// no host name.
type about struct{ source, from, hostname string }

func (a about) String() string { return aboutSender + a.from + " " + a.hostname + " " + a.source }

func (i *intake) wrong(a about, kind, who string, err error) {
	reason := fmt.Sprintf("alerts from %s are degraded: %v", who, err)
	if i.status.set(a.String(), reason, blindFor) && i.said.first(reason) {
		i.log.Warn("alerts lack what correlation needs", "sender", who, "why", err, "mend", mend(kind, a.source))
	}
}

func (i *intake) right(a about, who string) {
	if i.status.set(a.String(), "", 0) && i.said.first("right "+a.String()) {
		i.log.Info("alerts are complete again", "sender", who)
	}
}
