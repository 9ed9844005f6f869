package correlate

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
)

// judgeRecord adds to the transaction what one mutating record is found to be.
func (c *Correlator) judgeRecord(commit *journal.Commit, a journal.Alert, rec *trail.Record, targets []trailmap.Target) {
	switch {
	case rec.Refused():
		c.events(commit, wire.VerdictAttempted, a, rec, targets)
	case rec.Tool() == trail.ToolTerraform:
		c.events(commit, wire.VerdictTerraform, a, rec, targets)
	case len(targets) == 0:
		commit.Blind = append(commit.Blind, rec.EventSource+":"+rec.EventName)
		c.metrics.verdicts.WithLabelValues(string(wire.VerdictUnresolved), string(wire.Unresolved)).Inc()
	default:
		for _, t := range targets {
			c.drifts(commit, a, rec, t)
		}
	}
}

// events tells what a record was where that is no drift, one message for each target.
func (c *Correlator) events(commit *journal.Commit, v wire.Verdict, a journal.Alert, rec *trail.Record, targets []trailmap.Target) {
	for _, t := range targets {
		state := stateRef(t)
		commit.Messages = append(commit.Messages, wire.Message{
			Type: wire.TypeEvent, Topic: wire.TopicEvents, Timestamp: wire.At(rec.EventTime),
			Payload: wire.Event{
				Verdict: v, Severity: severityOf(a.Priority), Precision: wire.Precision(t.Precision),
				Address: t.Instance.Address.String(), ResourceType: t.Instance.Address.Type, ResourceID: t.ID,
				User: rec.Name(), Actor: actor(rec), Event: source(rec), State: &state, Rule: a.Rule,
			},
		})
		c.metrics.verdicts.WithLabelValues(string(v), string(t.Precision)).Inc()
	}
}

// drifts tells one changed instance: a message for each attribute, or one for the whole of it.
func (c *Correlator) drifts(commit *journal.Commit, a journal.Alert, rec *trail.Record, t trailmap.Target) {
	if t.Unchanged {
		return
	}
	d := wire.Drift{
		ResourceType: t.Instance.Address.Type, ResourceID: t.ID, User: rec.Name(),
		Status: statusOpen, Verdict: wire.VerdictDrift, Precision: wire.Precision(t.Precision), Address: t.Instance.Address.String(),
		Actor: actor(rec), Event: source(rec), State: stateRef(t), Rule: a.Rule, Also: t.Also,
	}
	if t.Deleted {
		d.Verdict = wire.VerdictDeleted
	}
	d.Severity = driftSeverity(a.Priority, d.Verdict)
	if len(t.Attributes) == 0 {
		c.drift(commit, rec, d, "*")
		return
	}
	for _, at := range t.Attributes {
		d.Attribute = string(at.Path)
		d.OldValue, d.NewValue = text(at.Old), text(at.New)
		d.Precision = attributePrecision(at)
		d.Change = &wire.Change{
			Attribute: string(at.Path), Old: orNull(at.Old, at.OldKnown), New: orNull(at.New, at.NewKnown),
			OldKnown: at.OldKnown, NewKnown: at.NewKnown, Sensitive: at.Sensitive,
		}
		c.drift(commit, rec, d, string(at.Path)+"\x00"+at.Member)
	}
}

func (c *Correlator) drift(commit *journal.Commit, rec *trail.Record, d wire.Drift, attribute string) {
	d.DriftID = driftID(d, attribute)
	commit.Drifts = append(commit.Drifts, journal.DriftRow{ID: d.DriftID, Drift: d, Status: d.Status})
	commit.Messages = append(commit.Messages, wire.Message{
		Type: wire.TypeDrift, Topic: wire.TopicDrifts, Timestamp: wire.At(rec.EventTime), Payload: d,
	})
	c.metrics.verdicts.WithLabelValues(string(d.Verdict), string(d.Precision)).Inc()
}

const statusOpen = "open"

// driftID names one attribute of one resource for as long as it exists: a new address or a new value keeps it.
func driftID(d wire.Drift, attribute string) string {
	origin := d.State.Lineage
	if origin == "" {
		origin = d.State.URI
	}
	id := d.ResourceID
	if id == "" || strings.HasPrefix(id, "(sensitive)") {
		id = "address:" + d.Address // no id, or none to show: better a new drift after a move than one for them all
	}
	return digest(origin, d.ResourceType, id, attribute)
}

// digest is a short name for some texts: 16 hex digits, enough that among a million names two alike are a
// one in 10^7 chance.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}

func attributePrecision(a trailmap.Attribute) wire.Precision {
	if a.OldKnown && a.NewKnown {
		return wire.Exact
	}
	return wire.Partial
}

// text is a value as one text: scalars as they are, anything else as compact JSON, "" for null and what is not there.
func text(v jsontext.Value) string {
	switch v.Kind() {
	case 'n', jsontext.Kind(0):
		return ""
	case '"':
		b, _ := jsontext.AppendUnquote(nil, v)
		return string(b)
	}
	compact := v.Clone()
	if compact.Compact() != nil {
		return string(v)
	}
	return string(compact)
}

// orNull keeps "known to be absent" apart from "not known" in the typed values.
func orNull(v jsontext.Value, known bool) jsontext.Value {
	if v == nil && known {
		return jsontext.Value("null")
	}
	return v
}

func stateRef(t trailmap.Target) wire.StateRef {
	return wire.StateRef{URI: t.State, Serial: t.Snapshot.Serial, Lineage: t.Snapshot.Lineage, Written: wire.At(t.Snapshot.Written)}
}

func source(rec *trail.Record) wire.Source {
	return wire.Source{
		ID: rec.EventID, Name: rec.EventName, Source: rec.EventSource, Time: wire.At(rec.EventTime),
		Region: rec.Region, Account: rec.Account(), Address: rec.SourceIP, Error: rec.ErrorCode,
	}
}

func actor(rec *trail.Record) wire.Actor {
	u := rec.User
	return wire.Actor{
		Name: rec.Name(), Type: u.Type, ARN: u.ARN, Account: u.AccountID, Principal: u.PrincipalID, Role: u.Issuer.ARN,
		SourceIdentity: u.SourceIdentity, Tool: string(rec.Tool()), UserAgent: rec.UserAgent, InvokedBy: u.InvokedBy,
	}
}

// severityOf is a Falco priority in the feed's words; an alert without one is informational.
func severityOf(priority string) string {
	switch priority {
	case "emergency", "alert", "critical":
		return "critical"
	case "error":
		return "high"
	case "warning":
		return "medium"
	case "notice":
		return "low"
	}
	return "info"
}

// driftSeverity lifts what the rule says: the catch-all rule is informational, but a managed resource changed by hand
// asks for a look, and one that is gone for more.
func driftSeverity(priority string, v wire.Verdict) string {
	severity := severityOf(priority)
	switch {
	case v == wire.VerdictDeleted && severity != "critical":
		return "high"
	case severity == "info" || severity == "low":
		return "medium"
	}
	return severity
}
