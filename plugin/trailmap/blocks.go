package trailmap

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// blocks are the elements of lists as the state would keep them, with each member under its attribute's name. A member
// without one, or with a hidden value, makes the whole unknown.
func (set assignment) blocks(v jsontext.Value) (value jsontext.Value, known bool) {
	known = !hidden(v)
	switch v.Kind() {
	case '[':
		all := []jsontext.Value{}
		for _, e := range trail.Elements(v) {
			one, ok := set.blocks(e)
			all, known = append(all, one), known && ok
		}
		value, _ = json.Marshal(all)
		return value, known
	case '{':
		members := map[string]jsontext.Value{}
		trail.Members(v, func(name []byte, e jsontext.Value) {
			attribute, has := set.attribute(string(name))
			one, ok := set.blocks(e)
			members[attribute], known = one, known && has && ok
		})
		value, _ = json.Marshal(members, json.Deterministic(true))
		return value, known
	}
	return v, known
}

// attribute is what a member of a block is called in Terraform.
func (set assignment) attribute(name string) (attribute string, known bool) {
	for member, attribute := range set.Blocks {
		if sameMember(member, name) {
			return attribute, true
		}
	}
	return "", false
}

// sameBlocks compares blocks: their order, the order of lists in them, and members that say nothing do not count.
func sameBlocks(old, value jsontext.Value) bool {
	a, b := said(old), said(value)
	return a == nil && b == nil || a != nil && b != nil && sameDocument(a, b, "operator")
}

// said is a value without the members and elements that say nothing, nil if nothing is left.
func said(v jsontext.Value) jsontext.Value {
	switch {
	case blank(v):
		return nil
	case v.Kind() == '[':
		var all []jsontext.Value
		for _, e := range trail.Elements(v) {
			if e = said(e); e != nil {
				all = append(all, e)
			}
		}
		return orNothing(len(all), all)
	case v.Kind() == '{':
		members := map[string]jsontext.Value{}
		trail.Members(v, func(name []byte, e jsontext.Value) {
			if e = said(e); e != nil {
				members[string(name)] = e
			}
		})
		return orNothing(len(members), members)
	}
	return v
}

func orNothing(n int, v any) jsontext.Value {
	if n == 0 {
		return nil
	}
	text, _ := json.Marshal(v, json.Deterministic(true))
	return text
}
