package tfstate

import (
	"cmp"
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
	Moved     Action = "moved" // the same type and id, another address; becoming deposed is one such
	Tainted   Action = "tainted"
	Untainted Action = "untainted"
)

// Change is one instance between two serials.
type Change struct {
	Action  Action
	Address Address
	// Previous is where a moved instance was before; zero otherwise.
	Previous   Address
	Type, ID   string            // ID is the old one of a deleted instance, else the new one; redacted if it is sensitive
	Attributes []AttributeChange // of modified, replaced and moved instances; sorted by path
}

// AttributeChange is one leaf that differs. Old or New is nil where it is absent; sensitive values are redacted.
type AttributeChange struct {
	Path      Path
	Old, New  jsontext.Value
	Sensitive bool
}

// Diff tells what changed from old to new, sorted by address; data sources are left out. Instances that are the same
// pointer, or of the same hash at the same address, cost nothing. Of instances without id a move cannot be told: they are
// deleted in one place and created in another.
func Diff(old, new []*Instance, red *Redactor) []Change {
	before := byAddress(old)
	var changes []Change
	var created, replaced []*Instance
	for _, n := range new {
		o, had := before[n.Address]
		delete(before, n.Address)
		switch {
		case n.Address.Data || o == n:
		case !had:
			created = append(created, n)
		case o.Hash != n.Hash:
			c, differs := compare(o, n, red)
			if differs {
				changes = append(changes, c)
			}
			if c.Action == Replaced {
				replaced = append(replaced, o)
			}
		}
	}
	gone := make([]*Instance, 0, len(before))
	for _, o := range before {
		if !o.Address.Data {
			gone = append(gone, o)
		}
	}
	changes = append(changes, moves(gone, replaced, created, red)...)
	return sorted(changes)
}

// moves tells of the instances whose address only one side has. One that has gone, or whose address another has taken,
// may stand elsewhere under its id.
func moves(gone, replaced, created []*Instance, red *Redactor) []Change {
	from := map[identity][]*Instance{}
	slices.SortFunc(gone, func(a, b *Instance) int { return a.Address.Compare(b.Address) })
	for _, o := range slices.Concat(gone, replaced) {
		if id := identityOf(o, red); id.id != "" {
			from[id] = append(from[id], o)
		}
	}
	moved := map[*Instance]bool{}
	var changes []Change
	slices.SortFunc(created, func(a, b *Instance) int { return a.Address.Compare(b.Address) })
	for _, n := range created {
		id := identityOf(n, red)
		c := Change{Action: Created, Address: n.Address, Type: n.Address.Type, ID: red.ShownID(n)}
		if olds := from[id]; len(olds) > 0 {
			from[id] = olds[1:]
			moved[olds[0]] = true
			c.Action, c.Previous, c.Attributes = Moved, olds[0].Address, leaves(olds[0], n, red)
		}
		changes = append(changes, c)
	}
	for _, o := range gone {
		if !moved[o] {
			changes = append(changes, Change{Action: Deleted, Address: o.Address, Type: o.Address.Type, ID: red.ShownID(o)})
		}
	}
	return changes
}

// sorted orders changes as their addresses are printed.
func sorted(changes []Change) []Change {
	type printed struct {
		address string
		Change
	}
	all := make([]printed, len(changes))
	for i, c := range changes {
		all[i] = printed{c.Address.String(), c}
	}
	slices.SortFunc(all, func(a, b printed) int {
		return cmp.Or(strings.Compare(a.address, b.address), a.Address.Compare(b.Address))
	})
	for i, p := range all {
		changes[i] = p.Change
	}
	return changes
}

type identity struct{ typ, id string }

func identityOf(i *Instance, red *Redactor) identity { return identity{i.Address.Type, red.ID(i)} }

func byAddress(all []*Instance) map[Address]*Instance {
	m := make(map[Address]*Instance, len(all))
	for _, i := range all {
		m[i.Address] = i
	}
	return m
}

func compare(o, n *Instance, red *Redactor) (Change, bool) {
	c := Change{Action: Modified, Address: n.Address, Type: n.Address.Type, ID: red.ShownID(n), Attributes: leaves(o, n, red)}
	switch {
	case !red.SameID(o, n):
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
		case red.Equal(a, b):
		case a != nil && b != nil && a.Kind() == '{' && b.Kind() == '{':
			x, y := byName(membersOf(a)), byName(membersOf(b))
			for _, name := range names(x, y) {
				walk(p.Member(name), x[name], y[name])
			}
		case a != nil && b != nil && a.Kind() == '[' && b.Kind() == '[':
			x, y := elementsOf(a), elementsOf(b)
			for i := range max(len(x), len(y)) {
				walk(p.element(i), at(x, i), at(y, i))
			}
		default:
			c := AttributeChange{Path: p, Old: a, New: b, Sensitive: o.IsSensitive(p) || n.IsSensitive(p) || HasKept(a) || HasKept(b)}
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

func at(list []jsontext.Value, i int) jsontext.Value {
	if i < len(list) {
		return list[i]
	}
	return nil
}
