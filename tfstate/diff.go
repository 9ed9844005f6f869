package tfstate

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Action is what happened to an instance between two serials.
type Action string

// The actions. An instance that was tainted and changed is modified.
const (
	Created   Action = "created"
	Modified  Action = "modified"
	Replaced  Action = "replaced" // the same address, another id
	Deleted   Action = "deleted"
	Moved     Action = "moved" // the same type and id, another address
	Tainted   Action = "tainted"
	Untainted Action = "untainted"
)

// Change is one instance between two serials.
type Change struct {
	Action  Action
	Address Address
	// Previous is where a moved instance was before; zero otherwise.
	Previous   Address
	Type, ID   string
	Attributes []AttributeChange // of modified, replaced and moved instances; sorted by path
}

// AttributeChange is one leaf that differs. Old or New is nil where it is absent; sensitive values are redacted.
type AttributeChange struct {
	Path      Path
	Old, New  jsontext.Value
	Sensitive bool
}

// Diff tells what changed from old to new, sorted by address; data sources are left out. Instances that are the same
// pointer, or of the same hash at the same address, cost nothing.
func Diff(old, new []*Instance, red *Redactor) []Change {
	before := byAddress(old)
	var changes []Change
	created := map[identity]*Instance{}
	for _, n := range new {
		o, had := before[n.Address]
		delete(before, n.Address)
		switch {
		case n.Address.Data || o == n:
		case !had:
			created[identityOf(n)] = n
			changes = append(changes, Change{Action: Created, Address: n.Address, Type: n.Address.Type, ID: n.ID()})
		case o.Hash != n.Hash:
			if c, differs := compare(o, n, red); differs {
				changes = append(changes, c)
			}
		}
	}
	for _, o := range before {
		if o.Address.Data {
			continue
		}
		id := identityOf(o)
		if n, moved := created[id]; moved && id.id != "" {
			i := slices.IndexFunc(changes, func(c Change) bool { return c.Address == n.Address })
			changes[i].Action, changes[i].Previous = Moved, o.Address
			changes[i].Attributes = leaves(o, n, red)
			delete(created, id)
			continue
		}
		changes = append(changes, Change{Action: Deleted, Address: o.Address, Type: o.Address.Type, ID: o.ID()})
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Address.String(), b.Address.String()) })
	return changes
}

type identity struct{ typ, id string }

func identityOf(i *Instance) identity { return identity{i.Address.Type, i.ID()} }

func byAddress(all []*Instance) map[Address]*Instance {
	m := make(map[Address]*Instance, len(all))
	for _, i := range all {
		m[i.Address] = i
	}
	return m
}

func compare(o, n *Instance, red *Redactor) (Change, bool) {
	c := Change{Action: Modified, Address: n.Address, Type: n.Address.Type, ID: n.ID(), Attributes: leaves(o, n, red)}
	switch {
	case o.ID() != n.ID():
		c.Action = Replaced
	case len(c.Attributes) > 0:
	case n.Tainted && !o.Tainted:
		c.Action = Tainted
	case o.Tainted && !n.Tainted:
		c.Action = Untainted
	default:
		return c, false // the provider's configuration, or an order that means nothing
	}
	return c, true
}

// leaves are the attributes that differ, at the deepest place where both sides still are of one kind.
func leaves(o, n *Instance, red *Redactor) []AttributeChange {
	var all []AttributeChange
	var walk func(p Path, a, b jsontext.Value)
	walk = func(p Path, a, b jsontext.Value) {
		switch {
		case Equal(a, b):
		case a != nil && b != nil && a.Kind() == '{' && b.Kind() == '{':
			x, y := membersOf(a), membersOf(b)
			for _, name := range names(x, y) {
				walk(p.member(name), x[name], y[name])
			}
		case a != nil && b != nil && a.Kind() == '[' && b.Kind() == '[':
			x, y := elementsOf(a), elementsOf(b)
			for i := range max(len(x), len(y)) {
				walk(p.element(i), at(x, i), at(y, i))
			}
		default:
			c := AttributeChange{Path: p, Old: a, New: b, Sensitive: o.IsSensitive(p) || n.IsSensitive(p)}
			if c.Sensitive {
				c.Old, c.New = hide(red, a), hide(red, b)
			}
			all = append(all, c)
		}
	}
	walk("", o.Attributes, n.Attributes)
	slices.SortStableFunc(all, func(a, b AttributeChange) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return all
}

func hide(red *Redactor, v jsontext.Value) jsontext.Value {
	if v == nil {
		return nil
	}
	return red.Value(v)
}

func membersOf(v jsontext.Value) map[string]jsontext.Value {
	m := map[string]jsontext.Value{}
	object(v, func(name string, value jsontext.Value) bool {
		m[name] = value
		return true
	})
	return m
}

func names(x, y map[string]jsontext.Value) []string {
	var all []string
	for name := range x {
		all = append(all, name)
	}
	for name := range y {
		if _, both := x[name]; !both {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func elementsOf(v jsontext.Value) []jsontext.Value {
	var all []jsontext.Value
	array(v, func(e jsontext.Value) bool {
		all = append(all, e)
		return true
	})
	return all
}

func at(list []jsontext.Value, i int) jsontext.Value {
	if i < len(list) {
		return list[i]
	}
	return nil
}
