package trailmap

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// byEntry resolves a call that the knowledge has an entry for. Members named in the request go to the first shape that
// has them; a call without members goes to the first shape of which an instance exists.
func (r *Resolver) byEntry(rec *trail.Record, e entry) []Target {
	if len(e.Shapes) == 0 {
		return r.touched(rec, first(rec.Request, e.ID))
	}
	if len(e.Items) > 0 {
		return r.byMembers(rec, e, first(rec.Request, e.ID))
	}
	for _, s := range e.Shapes {
		var targets []Target
		ids := s.ids(rec, e)
		for _, id := range ids {
			for _, v := range r.instances(rec, s, id) {
				// What the call sets cannot be shared out among several named resources.
				targets = append(targets, r.apply(rec, s, v, len(ids) == 1))
			}
		}
		if len(targets) > 0 {
			return targets
		}
	}
	return nil
}

// ids are what identifies the shape's instances.
func (s shape) ids(rec *trail.Record, e entry) []string {
	if len(s.ID) > 0 {
		return first(rec.Request, s.ID)
	}
	return first(rec.Request, e.ID)
}

// first gives the texts at the first of the places that holds any.
func first(request jsontext.Value, places []string) []string {
	for _, place := range places {
		if texts := scalars(at(request, place)); len(texts) > 0 {
			return texts
		}
	}
	return nil
}

// instances are the instances of the shape that the identifier names, each once however many of its attributes hold it.
func (r *Resolver) instances(rec *trail.Record, s shape, id string) []view {
	var views []view
	type instance struct {
		state   string
		address tfstate.Address
	}
	seen := map[instance]bool{}
	for _, c := range r.inventory.Lookup(rec.Account(), rec.Region, id) {
		a := c.Instance.Address
		if a.Type != s.Type || a.Data || a.Deposed != "" {
			continue
		}
		if s.Parent == "" && c.Role != inventory.Self || s.Parent != "" && string(c.Path) != s.Parent {
			continue
		}
		k := instance{c.State, a}
		if seen[k] || !has(c.Instance, s.Where) {
			continue
		}
		seen[k] = true
		if v := r.view(c, rec.EventTime); !v.stale() {
			views = append(views, v)
		}
	}
	return views
}

func has(i *tfstate.Instance, where map[string]string) bool {
	for attribute, want := range where {
		v, ok := i.Get(tfstate.Path(attribute))
		if !ok || trail.Text(v) != want {
			return false
		}
	}
	return true
}

// apply makes the target for one instance of a shape without members.
func (r *Resolver) apply(rec *trail.Record, s shape, v view, valuesCount bool) Target {
	t := v.target()
	switch {
	case s.Effect == effectDelete:
		t.Deleted, t.Precision = true, v.gone()
		return t
	case s.Effect != effectSet || !valuesCount:
		return t
	}
	same := tfstate.Equal
	var attributes []Attribute
	for _, set := range s.Set {
		if set.As == asPolicy {
			same = samePolicy
		}
		a, given := v.assign(rec.Request, set)
		if given {
			attributes = append(attributes, a)
		}
	}
	return r.finish(v, t, attributes, same)
}

const asPolicy = "policy"

// assign is what one assignment changes; given is false where the request does not speak of it.
func (v view) assign(request jsontext.Value, set assignment) (a Attribute, given bool) {
	a = Attribute{Path: tfstate.Path(set.Attribute)}
	a.Old, a.OldKnown = v.old(a.Path)
	if set.From == "" {
		a.New, a.NewKnown = constant(set.Value), true
		return a, true
	}
	values := at(request, set.From)
	if len(values) == 0 && set.Default != "" && len(at(request, around(set.From))) == 1 {
		if a.OldKnown && blank(a.Old) {
			return a, false // a state that says nothing means the default
		}
		values = []jsontext.Value{constant(set.Default)}
	}
	if len(values) != 1 {
		return a, len(values) > 1 // several values for one attribute: which one it took is not known
	}
	a.New, a.NewKnown = values[0], !hidden(values[0]) && values[0].IsValid()
	switch spelled, other := set.Same[trail.Text(a.New)]; {
	case !a.NewKnown:
		a.New = nil
	case set.As == asPolicy:
		a.New = policyText(a.New)
	case slices.Contains(set.None, trail.Text(a.New)) && a.OldKnown && blank(a.Old):
		a.New = a.Old
	case other:
		a.New = quote(spelled)
	default:
		a.New = likeOld(a.Old, a.New)
	}
	return a, true
}

// around is the place of the object that holds the last name of a place.
func around(place string) string {
	cut := strings.LastIndexByte(place, '.')
	return place[:max(cut, 0)]
}

// constant is a value the knowledge states: JSON, or else a text.
func constant(s string) jsontext.Value {
	if v := jsontext.Value(s); v.IsValid() {
		return v
	}
	return quote(s)
}
