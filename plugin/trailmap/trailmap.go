// Package trailmap knows what a CloudTrail record means in Terraform.
//
// In comes one decoded record and the inventory of all states; out goes a Resolution: the managed resource instances the
// call changed, the attributes, the old value from the newest snapshot written before the event, the new value from the
// record, and how sure all that is. Nothing is ever guessed: an instance of another account or region, a bare name that
// another service could own, two candidates that cannot be told apart give no target, and a value that is not known is
// marked so.
//
// What a call means is data: aws/*.json has one entry a line, keyed by event source and event name (knowledge.go). A
// call without an entry resolves by the identifiers in its request alone (generic.go) and at most says which instance
// was touched. Sensitive values leave this package redacted.
//
// Start reading at Resolve. A Resolver is safe for concurrent use.
package trailmap

import (
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// Precision is how much of a change is known.
type Precision string

// The precisions of a target, from the best.
const (
	Exact   Precision = "exact"   // the attributes with old and new value, or the whole instance gone
	Partial Precision = "partial" // the attributes, but a value is unknown
	Touched Precision = "touched" // the instance only
)

// Resolution is what a record means. Without targets no state explains it.
type Resolution struct {
	Targets []Target
}

// Target is one managed resource instance that the call changed, or tried to.
type Target struct {
	State string // URI
	// Snapshot is what the old values come from: the newest one written before the event. Its Written is zero where
	// there is none; the serial is then the newest known.
	Snapshot   inventory.Snapshot
	Instance   *tfstate.Instance
	ID         string // the provider's, redacted if the state marks it as sensitive
	Attributes []Attribute
	Precision  Precision
	// Deleted says that the call took the whole instance away.
	Deleted bool
	// Unchanged says that the call set what the state had already: nothing departs from it.
	Unchanged bool
	// Also has the URIs of further states that hold the same resource.
	Also []string
}

// Attribute is one changed attribute. A nil value is absent if it is known, else simply not known. The values of a
// sensitive attribute are redacted.
type Attribute struct {
	Path               tfstate.Path
	Old, New           jsontext.Value
	OldKnown, NewKnown bool
	Sensitive          bool
	// Member tells the members of one set apart, the same for one that came and one that went: a set's member is told
	// with the path of the set, Old absent for one added, New absent for one removed. "" for a plain attribute, a hash for a
	// sensitive one.
	Member string
	// strict says that the empty text and an absent value are not the same, as for the keys of a map.
	strict bool
	// spelled says that the values may be the same although their texts differ.
	spelled bool
}

// Resolver resolves records against one inventory.
type Resolver struct {
	inventory *inventory.Inventory
	redactor  *tfstate.Redactor
	knowledge *knowledge
}

// New reads the embedded knowledge. The redactor may be nil, as tfstate.Redactor allows.
func New(inv *inventory.Inventory, redactor *tfstate.Redactor) (*Resolver, error) {
	k, err := embedded()
	if err != nil {
		return nil, err
	}
	return &Resolver{inventory: inv, redactor: redactor, knowledge: k}, nil
}

// Resolve finds what the record changed. It reports refused calls as if they had worked: whether they did stands in the
// record.
func (r *Resolver) Resolve(rec *trail.Record) Resolution {
	var targets []Target
	if e, known := r.knowledge.entries[key{rec.EventSource, rec.Action()}]; known {
		targets = r.byEntry(rec, e)
	} else {
		targets = r.byIdentifier(rec)
	}
	return Resolution{Targets: merge(targets)}
}

// view is one instance as two moments show it: just before the event, and as it may have been within the second of the
// event, which CloudTrail does not tell apart.
type view struct {
	redactor  *tfstate.Redactor
	candidate inventory.Candidate
	snapshot  inventory.Snapshot
	before    *tfstate.Instance // nil where no snapshot is older than the event, or that snapshot lacks the instance
	within    *tfstate.Instance
	// next is the instance after the event where unseen: serials that nobody read may have changed it before.
	next   *tfstate.Instance
	unseen bool
	// absent says that an older snapshot exists and does not have the instance.
	absent bool
}

func (r *Resolver) view(c inventory.Candidate, at time.Time) view {
	v := view{redactor: r.redactor, candidate: c}
	var known bool
	v.before, v.snapshot, known = r.inventory.At(c.State, c.Instance.Address, at)
	if known = known && v.redactor.SameID(v.before, c.Instance); !known {
		v.before = nil
		v.absent = !v.snapshot.Written.IsZero()
		if !v.absent {
			v = r.withoutPast(v)
		}
	}
	v.within, _, known = r.inventory.At(c.State, c.Instance.Address, at.Add(time.Second))
	if !known || !v.redactor.SameID(v.within, c.Instance) {
		v.within = v.before
	}
	if v.before == nil {
		return v
	}
	v.next, v.unseen = r.inventory.Unseen(c.State, v.before.Address, at)
	if v.unseen && v.next == nil { // moved there already
		v.next, _ = r.inventory.Unseen(c.State, c.Instance.Address, at)
	}
	if v.unseen && (v.next == nil || !v.redactor.SameID(v.next, v.before)) {
		return r.withoutPast(v) // it went in a serial that nobody read, before the event or after it
	}
	return v
}

// withoutPast is a view of an instance of which no older snapshot tells.
func (r *Resolver) withoutPast(v view) view {
	v.snapshot, _ = r.inventory.Newest(v.candidate.State)
	v.snapshot.Written = time.Time{}
	v.before, v.within, v.absent, v.unseen = nil, nil, false, false
	return v
}

// gone is how sure it is that a deletion took what the state has: without an older snapshot it may have been made anew.
func (v view) gone() Precision {
	if v.before == nil {
		return Partial
	}
	return Exact
}

// stale reports an instance that no state had any more when the event came.
func (v view) stale() bool { return v.absent && !v.candidate.Current }

// old is the attribute's value before the event. It is not known without a snapshot, or when the state was written anew
// with another value within the event's second, or around it in serials that nobody read. An attribute the snapshot does not
// have is known to be absent.
func (v view) old(p tfstate.Path) (value jsontext.Value, known bool) {
	if value, known = v.stood(p); !v.usable(value) {
		return nil, false
	}
	return value, known
}

// stood is old, with hashes that may stand within a list or object.
func (v view) stood(p tfstate.Path) (value jsontext.Value, known bool) {
	if v.before == nil {
		return nil, false
	}
	value, _ = v.before.Get(p)
	if value != nil && !value.IsValid() { // JSON that readers disagree on: a name twice, broken UTF-8
		return nil, false
	}
	if v.within != v.before {
		if later, _ := v.within.Get(p); !v.redactor.Equal(value, later) {
			return nil, false
		}
	}
	if v.unseen {
		if later, _ := v.next.Get(p); !v.redactor.Equal(value, later) {
			return nil, false
		}
	}
	return value, true
}

func (v view) target() Target {
	return Target{State: v.candidate.State, Snapshot: v.snapshot, Instance: v.candidate.Instance, ID: v.redactor.ShownID(v.candidate.Instance), Precision: Touched}
}

// finish sets the precision from what is known of the attributes, drops those that did not change, and redacts the rest.
func (r *Resolver) finish(v view, t Target, attributes []Attribute) Target {
	precision := Exact
	for _, a := range attributes {
		a = r.compareHashed(a)
		if a.OldKnown && a.NewKnown && !a.strict && a.Member == "" && blank(a.Old) && blank(a.New) {
			continue
		}
		if a.OldKnown && a.NewKnown && (tfstate.Equal(a.Old, a.New) || redacted(a.New) && tfstate.Equal(r.redact(a.Old), a.New)) {
			continue
		}
		if !a.OldKnown || !a.NewKnown {
			precision = Partial
		}
		if a.Sensitive || t.Instance.IsSensitive(a.Path) || v.before != nil && v.before.IsSensitive(a.Path) || tfstate.HasKept(a.Old) {
			a.Sensitive = true
			a.Old, a.New = r.redact(a.Old), r.redact(a.New)
			if a.Member != "" {
				a.Member = r.redactor.Identifier(a.Member)
			}
		}
		t.Attributes = append(t.Attributes, a)
	}
	switch {
	case len(t.Attributes) > 0:
		t.Precision = precision
	case len(attributes) > 0:
		t.Precision, t.Unchanged = Exact, true
	}
	return t
}

// redact hides a value, unless the plugin hid it already, under the same key, before Falco saw it.
func (r *Resolver) redact(v jsontext.Value) jsontext.Value {
	if v == nil || redacted(v) {
		return v
	}
	return r.redactor.Value(v)
}

// redacted reports a value that a Redactor hid with a hash.
func redacted(v jsontext.Value) bool { return strings.HasPrefix(trail.Text(v), "(sensitive) hmac:") }

// merge makes one target of what several states claim: the same type and provider id. The first stays, the others are
// named in Also.
func merge(targets []Target) []Target {
	type thing struct{ typ, id string }
	first := map[thing]int{}
	kept := targets[:0]
	for _, t := range targets {
		k := thing{t.Instance.Address.Type, t.Instance.ID()}
		i, seen := first[k]
		if seen && k.id != "" && kept[i].State != t.State {
			kept[i].Also = append(kept[i].Also, t.State)
			continue
		}
		first[k] = len(kept)
		kept = append(kept, t)
	}
	return kept
}
