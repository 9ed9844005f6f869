package trailmap

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// pair is a key of a map with its value; nil where the request names the key alone.
type pair struct {
	key   string
	value jsontext.Value
}

// pairs reads a map, in any of the forms that requests have.
func pairs(values []jsontext.Value) []pair {
	var all []pair
	for _, v := range values {
		listed := v.Kind() == '['
		for _, e := range elements(v) {
			switch p, is, whole := pairOf(e); {
			case is && (listed || whole && p.value != nil):
				all = append(all, p)
			case e.Kind() == '{':
				all = append(all, members(e)...)
			case trail.Text(e) != "":
				all = append(all, pair{key: trail.Text(e)})
			}
		}
	}
	return all
}

// members are an object's pairs; of an object around the map, {"items":[...]}, those of the map.
func members(v jsontext.Value) []pair {
	var all []pair
	trail.Members(v, func(name []byte, value jsontext.Value) {
		if value.Kind() == '[' || value.Kind() == '{' {
			all = append(all, pairs([]jsontext.Value{value})...)
			return
		}
		all = append(all, pair{string(name), value})
	})
	return all
}

// pairOf reads {"key":"a","value":"b"}, and Key, tagKey, TagKey; whole says that nothing else stands in it.
func pairOf(v jsontext.Value) (p pair, is, whole bool) {
	whole = true
	trail.Members(v, func(name []byte, value jsontext.Value) {
		switch strings.TrimPrefix(strings.ToLower(string(name)), "tag") {
		case "key":
			p.key, is = trail.Text(value), value.Kind() == '"'
		case "value":
			p.value = value
		default:
			whole = false
		}
	})
	return p, is, whole
}

// given is the value that a pair sets, and whether it is known. A key without a value has the empty one.
func (p pair) given() (value jsontext.Value, known bool) {
	if p.value == nil || p.value.Kind() == 'n' {
		return quote(""), true
	}
	return p.value, !hidden(p.value)
}

// ofKey is the value that a call gives the key that the instance is for; none where it gives none.
func (v view) ofKey(c call, set assignment) []Attribute {
	key, _ := v.candidate.Instance.Get(tfstate.Path(set.Key))
	for _, p := range pairs(c.at(set.From)) {
		if p.key != trail.Text(key) {
			continue
		}
		a := Attribute{Path: tfstate.Path(set.Attribute), strict: true}
		a.Old, a.OldKnown = v.old(a.Path)
		if a.New, a.NewKnown = p.given(); !a.NewKnown {
			a.New = nil
		}
		return []Attribute{a}
	}
	return nil
}

// without leaves out the keys that resources of their own manage.
func (r *Resolver) without(c call, v view, set assignment, attributes []Attribute) []Attribute {
	if set.Apart == nil || len(attributes) == 0 {
		return attributes
	}
	managed := map[tfstate.Path]bool{}
	for _, found := range r.inventory.Lookup(c.rec.Account(), c.rec.Region, v.candidate.Instance.ID()) {
		if found.Instance.Address.Type == set.Apart.Type && string(found.Path) == set.Apart.Parent {
			key, _ := found.Instance.Get(tfstate.Path(set.Apart.Key))
			managed[tfstate.Path(set.Attribute).Member(trail.Text(key))] = true
		}
	}
	return slices.DeleteFunc(attributes, func(a Attribute) bool { return managed[a.Path] })
}

// aside reports a call that changes no other keys than those that resources of their own manage.
func (r *Resolver) aside(c call, s shape, v view) bool {
	for _, set := range s.Set {
		if set.Apart == nil {
			return false
		}
		if all := v.keys(c, set); len(all) == 0 || len(r.without(c, v, set, all)) > 0 {
			return false
		}
	}
	return len(s.Set) > 0
}

// keys are the keys of a map that a call sets or removes, one by one.
func (v view) keys(c call, set assignment) []Attribute {
	values := c.at(set.From)
	if set.From == "" {
		values = []jsontext.Value{constant(set.Value)}
	}
	if slices.ContainsFunc(values, hidden) { // all of it is
		a := Attribute{Path: tfstate.Path(set.Attribute), Sensitive: set.Secret}
		a.Old, a.OldKnown = v.old(a.Path)
		return []Attribute{a}
	}
	given := pairs(values)
	var attributes []Attribute
	named := map[string]bool{}
	for _, p := range given {
		if named[p.key] = true; set.All != "" && strings.HasPrefix(p.key, ownTags) {
			continue
		}
		a := v.key(set, p.key)
		switch {
		case set.As != asMapRemoved:
			a.New, a.NewKnown = p.given()
		case p.value == nil || a.OldKnown && v.redactor.Equal(a.Old, p.value):
			a.NewKnown = true
		case a.OldKnown: // a key with another value stays
			a.New, a.NewKnown = a.Old, true
		}
		if !a.NewKnown {
			a.New = nil
		}
		attributes = append(attributes, a)
	}
	if set.As != asMap || len(values) == 0 && !set.cleared(c) {
		return attributes
	}
	for _, key := range v.had(set) {
		if !named[key] {
			a := v.key(set, key)
			a.NewKnown = true
			attributes = append(attributes, a)
		}
	}
	return attributes
}

// ownTags begins the keys of the tags that AWS itself sets; the provider leaves them out of every state
// (https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html).
const ownTags = "aws:"

// cleared reports a request that has the whole map, and nothing in it.
func (set assignment) cleared(c call) bool { return set.Whole != "" && len(c.at(set.Whole)) > 0 }

// key is a key's attribute with its old value: in the map itself, else in the one that has further keys.
func (v view) key(set assignment, key string) Attribute {
	a := Attribute{Path: tfstate.Path(set.Attribute).Member(key), Sensitive: set.Secret, strict: true}
	a.Old, a.OldKnown = v.old(a.Path)
	if set.All == "" || !a.OldKnown || a.Old != nil {
		return a
	}
	further := Attribute{Path: tfstate.Path(set.All).Member(key), Sensitive: set.Secret, strict: true}
	if further.Old, further.OldKnown = v.old(further.Path); further.OldKnown && further.Old != nil {
		return further
	}
	return a
}

// had are the keys before the event, sorted; none where that is not known.
func (v view) had(set assignment) []string {
	all := map[string]bool{}
	for _, attribute := range []string{set.Attribute, set.All} {
		if attribute == "" {
			continue
		}
		old, _ := v.stood(tfstate.Path(attribute))
		trail.Members(old, func(name []byte, _ jsontext.Value) { all[string(name)] = true })
	}
	return slices.Sorted(maps.Keys(all))
}
