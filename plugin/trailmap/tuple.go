package trailmap

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// tuple says how members of a list are compared that the API and Terraform group differently: a security group's
// permission with three address ranges is one item of a request, one block or three resources in Terraform. Both sides
// are taken apart into atoms, one for each value, and the atoms are compared.
type tuple struct {
	// Key are the columns that every atom has, Values those of which an atom has one.
	Key    []string `json:"key"`
	Values []string `json:"values"`
	// More are columns that are told with a member, and set by effect "replace", but not compared.
	More []string `json:"more,omitzero"`
	// Scalar says that a member of a list has one value in each column, not a list of them.
	Scalar bool `json:"scalar,omitzero"`
	// Request has the places of each column below one item of the request; the first that holds something counts.
	Request map[string][]string `json:"request"`
	// Untold are places below one item whose values no column tells, each with the place that tells them where it has as many
	// values. With any left, what is told of a list is not all.
	Untold map[string]string `json:"untold,omitzero"`
	// Same maps other spellings of a column's value to the one compared.
	Same map[string]map[string]string `json:"same,omitzero"`
	// Only has, by column, the values under which further key columns mean anything.
	Only map[string]meaning `json:"only,omitzero"`
	// Prefixes are the columns that hold address ranges, which the API keeps in their canonical form.
	Prefixes []string `json:"prefixes,omitzero"`
	// Owned are the columns whose values Terraform may write with their account before them: 123456789012/sg-0a1b2c3d.
	Owned []string `json:"owned,omitzero"`
	// Policies are the columns of More that hold IAM policy documents.
	Policies []string `json:"policies,omitzero"`
	// Evidence is where the facts come from.
	Evidence string `json:"evidence"`
}

// meaning says under which values of a column which other columns mean something.
type meaning struct {
	Values  []string `json:"values"`
	Columns []string `json:"columns"`
}

// atom is one member, taken apart: "protocol=tcp from=22 to=22 cidr4=0.0.0.0/0".
type atom struct {
	text          string
	column, value string // of Values; "" for a member without any
}

// atoms takes one member apart; get gives the texts in a column.
func (t tuple) atoms(get func(column string) []string) []atom {
	key := map[string]string{}
	for _, column := range t.Key {
		if texts := get(column); len(texts) > 0 {
			key[column] = t.same(column, texts[0])
		}
	}
	for column, o := range t.Only {
		if !slices.Contains(o.Values, key[column]) {
			for _, meaningless := range o.Columns {
				delete(key, meaningless)
			}
		}
	}
	var b strings.Builder
	for _, column := range slices.Sorted(maps.Keys(key)) {
		b.WriteString(column + "=" + key[column] + " ")
	}
	var all []atom
	for _, column := range t.Values {
		for _, text := range get(column) {
			text = t.same(column, text)
			all = append(all, atom{b.String() + column + "=" + text, column, text})
		}
	}
	return all
}

func (t tuple) same(column, text string) string {
	text = strings.ToLower(text)
	if _, bare, has := strings.Cut(text, "/"); has && slices.Contains(t.Owned, column) {
		text = bare
	}
	if other, ok := t.Same[column][text]; ok {
		return other
	}
	if slices.Contains(t.Prefixes, column) {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			return prefix.Masked().String()
		}
	}
	return text
}

// item is one member of the request with those of its atoms that no shape has claimed yet.
type item struct {
	value  jsontext.Value
	atoms  []atom
	untold bool // it says more than the atoms do
}

// byMembers resolves calls that add members to a list or take them away.
func (r *Resolver) byMembers(c call, e entry, ids []leaf) []Target {
	var targets []Target
	for _, id := range ids {
		targets = append(targets, r.membersOf(c, e, id)...)
	}
	return targets
}

func (r *Resolver) membersOf(c call, e entry, parent leaf) []Target {
	values := e.items(c)
	var targets []Target
	claimed := map[string]bool{}
	for _, s := range e.Shapes {
		if !c.when(s.When) {
			continue
		}
		views := r.named(c, s, parent)
		if s.Tuple == "" && len(views) > 0 { // the request names them, or they match it: that explains all of it
			for _, v := range views {
				targets = append(targets, r.apply(c, s, v, true))
			}
			break
		}
		t := r.knowledge.tuples[s.Tuple]
		items := unclaimed(t, values, claimed)
		for _, v := range views {
			if s.List != "" {
				targets = append(targets, r.inList(s, t, v, parent.text, items, claimed))
			} else if target, hit := r.asInstance(s, t, v, parent.text, items, claimed); hit {
				targets = append(targets, target)
			}
		}
	}
	return telling(targets)
}

// named are the shape's instances: those that its own identifiers name, else those of the parent.
func (r *Resolver) named(c call, s shape, parent leaf) []view {
	if len(s.ID) == 0 {
		return r.instances(c, s, parent)
	}
	var views []view
	for _, id := range c.first(s.ID) {
		views = append(views, r.instances(c, s, id)...)
	}
	return views
}

// items are the members the request speaks of.
func (e entry) items(c call) []jsontext.Value {
	var values []jsontext.Value
	for _, place := range e.Items {
		for _, v := range c.at(place) {
			values = append(values, elements(v)...)
		}
		if len(values) > 0 {
			return values
		}
	}
	return nil
}

// telling leaves out the owner of a list in which nothing was found when a member's own resource explains the call.
func telling(targets []Target) []Target {
	best := slices.DeleteFunc(slices.Clone(targets), func(t Target) bool { return t.Precision == Touched && !t.Deleted })
	if len(best) > 0 {
		return best
	}
	return targets
}

func unclaimed(t tuple, values []jsontext.Value, claimed map[string]bool) []item {
	var items []item
	for _, v := range values {
		atoms := t.atoms(func(column string) []string { return firstOf(v, t.Request[column]) })
		atoms = slices.DeleteFunc(atoms, func(a atom) bool { return claimed[a.text] })
		it := item{v, atoms, t.leavesOut(v)}
		if len(atoms) > 0 || it.untold {
			items = append(items, it)
		}
	}
	return items
}

// leavesOut reports an item with values that no column tells.
func (t tuple) leavesOut(v jsontext.Value) bool {
	for place, told := range t.Untold {
		n := len(scalars(at(v, place)))
		if n > 0 && (told == "" || n > len(scalars(at(v, told)))) {
			return true
		}
	}
	return false
}

// firstOf gives the texts at the first of the places below a value that holds any.
func firstOf(v jsontext.Value, places []string) []string {
	for _, place := range places {
		if texts := scalars(at(v, place)); len(texts) > 0 {
			return texts
		}
	}
	return nil
}

// columns reads a tuple's columns from a value of the state.
func (s shape) columns(v jsontext.Value, parent string) func(column string) []string {
	return func(column string) []string {
		texts := scalars(at(v, s.Columns[column]))
		if flag := s.Self[column]; flag != "" && slices.Contains(scalars(at(v, flag)), "true") {
			texts = append(texts, parent)
		}
		return texts
	}
}

// asInstance compares the request with a member that is a resource of its own.
func (r *Resolver) asInstance(s shape, t tuple, v view, parent string, items []item, claimed map[string]bool) (Target, bool) {
	own := t.atoms(s.columns(v.candidate.Instance.Attributes, parent))
	if v.before != nil {
		own = t.atoms(s.columns(v.before.Attributes, parent))
	}
	named := map[string]bool{}
	for _, it := range items {
		for _, a := range it.atoms {
			named[a.text] = true
		}
	}
	hit := slices.ContainsFunc(own, func(a atom) bool { return named[a.text] })
	if !hit {
		return Target{}, false
	}
	left := slices.DeleteFunc(slices.Clone(own), func(a atom) bool { return named[a.text] })
	for _, a := range own {
		if named[a.text] {
			claimed[a.text] = true
		}
	}
	target := v.target()
	switch {
	case s.Effect == effectAdd && v.before != nil: // what the state had is set again
		target.Precision, target.Unchanged = Exact, true
	case s.Effect == effectAdd:
	case len(left) == 0:
		target.Deleted, target.Precision = true, v.gone()
	default:
		gone := slices.DeleteFunc(slices.Clone(own), func(a atom) bool { return !named[a.text] })
		target = r.finish(v, target, v.lost(s, gone))
	}
	return target, true
}

// lost gives, one by one, the values that were taken from a member's attributes. What is left is not told: further calls
// may have taken from it since the state was written.
func (v view) lost(s shape, gone []atom) []Attribute {
	var attributes []Attribute
	for _, a := range gone {
		path := tfstate.Path(s.Columns[a.column])
		_, known := v.old(path)
		attributes = append(attributes, Attribute{Path: path, Old: quote(a.value), OldKnown: known, NewKnown: true, Member: a.text})
	}
	return attributes
}

func valuesOf(atoms []atom, column string) []string {
	var values []string
	for _, a := range atoms {
		if a.column == column {
			values = append(values, a.value)
		}
	}
	return values
}

// keep is a list with only the values named left in it, whatever their spelling in a column.
func (t tuple) keep(list jsontext.Value, column string, values []string) jsontext.Value {
	if list.Kind() != '[' && len(values) == 0 {
		return jsontext.Value("null")
	}
	kept := []jsontext.Value{}
	for _, e := range elements(list) {
		if slices.Contains(values, t.same(column, trail.Text(e))) {
			kept = append(kept, e)
		}
	}
	text, _ := json.Marshal(kept)
	return text
}

// inList compares the request with the members of a list attribute. Members are told one by one, each as an element that
// came or went: a place in the list would mean nothing, since the list is a set.
func (r *Resolver) inList(s shape, t tuple, v view, parent string, items []item, claimed map[string]bool) Target {
	list, known := v.old(tfstate.Path(s.List))
	var attributes []Attribute
	switch {
	case s.Effect == effectAdd:
		attributes = added(s, t, list, known, parent, items)
	case s.Effect == effectReplace:
		attributes = replaced(s, t, list, known, parent, items)
	case known:
		attributes = removed(s, t, list, parent, items)
	default:
		for _, it := range items {
			if len(it.atoms) > 0 {
				attributes = append(attributes, Attribute{Path: tfstate.Path(s.List), NewKnown: true, Member: identity(it.atoms)})
			}
		}
	}
	for i, it := range items {
		if it.untold && s.Effect != effectReplace {
			attributes = append(attributes, s.untold(i))
		}
		for _, a := range it.atoms {
			claimed[a.text] = true
		}
	}
	return r.finish(v, v.target(), attributes)
}

// untold stands for a member of which the request says more than is understood.
func (s shape) untold(number int) Attribute {
	coming := s.Effect != effectRemove
	return Attribute{Path: tfstate.Path(s.List), OldKnown: coming, NewKnown: !coming, Member: "untold " + strconv.Itoa(number)}
}

func added(s shape, t tuple, list jsontext.Value, known bool, parent string, items []item) []Attribute {
	had := map[string]bool{}
	for _, e := range elements(list) {
		for _, a := range t.atoms(s.columns(e, parent)) {
			had[a.text] = true
		}
	}
	var attributes []Attribute
	for _, it := range items {
		if len(it.atoms) == 0 {
			continue
		}
		fresh := slices.DeleteFunc(slices.Clone(it.atoms), func(a atom) bool { return had[a.text] })
		element := s.element(t, it, fresh)
		a := Attribute{Path: tfstate.Path(s.List), New: element, NewKnown: true, OldKnown: known, Member: identity(it.atoms)}
		if len(fresh) == 0 {
			a.Old = element // there already: finish sees that nothing changed
		}
		attributes = append(attributes, a)
	}
	return attributes
}

// identity is the same text for the same atoms in any order.
func identity(atoms []atom) string {
	texts := make([]string, len(atoms))
	for i, a := range atoms {
		texts[i] = a.text
	}
	slices.Sort(texts)
	return strings.Join(texts, "; ")
}

// element spells an item of the request as the state spells a member, with what the request says and nothing more.
func (s shape) element(t tuple, it item, atoms []atom) jsontext.Value {
	if len(atoms) == 0 {
		atoms = it.atoms
	}
	members := map[string]any{}
	for _, columns := range [][]string{t.Key, t.More} {
		for _, column := range columns {
			if value := t.in(it.value, column); value != nil && s.Columns[column] != "" {
				members[s.Columns[column]] = value
			}
		}
	}
	for _, column := range t.Values {
		switch values := valuesOf(atoms, column); {
		case len(values) == 0 || s.Columns[column] == "":
		case t.Scalar:
			members[s.Columns[column]] = t.in(it.value, column)
		default:
			members[s.Columns[column]] = values
		}
	}
	text, _ := json.Marshal(members, json.Deterministic(true))
	return text
}

// in is the value of a column in an item of the request, nil if there is none.
func (t tuple) in(item jsontext.Value, column string) jsontext.Value {
	for _, place := range t.Request[column] {
		if values := at(item, place); len(values) > 0 {
			return values[0]
		}
	}
	return nil
}

// replaced gives members that the request names their further columns anew.
func replaced(s shape, t tuple, list jsontext.Value, known bool, parent string, items []item) []Attribute {
	var attributes []Attribute
	for _, it := range items {
		a := Attribute{Path: tfstate.Path(s.List), OldKnown: known, New: s.element(t, it, nil), NewKnown: true, Member: identity(it.atoms)}
		for _, e := range elements(list) {
			own := t.atoms(s.columns(e, parent))
			if slices.ContainsFunc(it.atoms, func(named atom) bool { return slices.Contains(own, named) }) {
				a.Old, a.New = e, s.renewed(t, e, it.value)
			}
		}
		if it.untold {
			a.New, a.NewKnown = nil, false
		}
		attributes = append(attributes, a)
	}
	return attributes
}

// renewed is a member with the further columns of a request; a text or number of them that the request leaves out becomes the
// empty one.
func (s shape) renewed(t tuple, e, request jsontext.Value) jsontext.Value {
	members := map[string]jsontext.Value{}
	trail.Members(e, func(name []byte, value jsontext.Value) { members[string(name)] = value })
	for _, column := range t.More {
		attribute := s.Columns[column]
		switch value := t.in(request, column); {
		case attribute == "", value != nil && t.spelled(column, members[attribute], value):
		case value != nil:
			members[attribute] = likeOld(members[attribute], value)
		case members[attribute].Kind() == '"':
			members[attribute] = quote("")
		case members[attribute].Kind() == '0':
			members[attribute] = jsontext.Value("0")
		}
	}
	text, _ := json.Marshal(members, json.Deterministic(true))
	return text
}

// spelled reports two values of a further column that differ in their spelling alone.
func (t tuple) spelled(column string, old, value jsontext.Value) bool {
	if slices.Contains(t.Policies, column) {
		return samePolicy(old, value)
	}
	return t.Same[column] != nil && t.same(column, trail.Text(old)) == t.same(column, trail.Text(value))
}

func removed(s shape, t tuple, list jsontext.Value, parent string, items []item) []Attribute {
	gone := map[string]bool{}
	for _, it := range items {
		for _, a := range it.atoms {
			gone[a.text] = true
		}
	}
	var attributes []Attribute
	for _, e := range elements(list) {
		own := t.atoms(s.columns(e, parent))
		left := slices.DeleteFunc(slices.Clone(own), func(a atom) bool { return gone[a.text] })
		if len(left) == len(own) {
			continue
		}
		went := slices.DeleteFunc(slices.Clone(own), func(a atom) bool { return !gone[a.text] })
		attributes = append(attributes, Attribute{
			Path: tfstate.Path(s.List), Old: s.reduced(t, e, own, went, parent), OldKnown: true, NewKnown: true, Member: identity(went),
		})
	}
	return attributes
}

// reduced is a member of which only some atoms are left.
func (s shape) reduced(t tuple, e jsontext.Value, own, left []atom, parent string) jsontext.Value {
	members := map[string]jsontext.Value{}
	trail.Members(e, func(name []byte, value jsontext.Value) { members[string(name)] = value })
	for column, attribute := range s.Columns {
		if was, is := valuesOf(own, column), valuesOf(left, column); len(was) != len(is) {
			members[attribute] = t.keep(members[attribute], column, is)
			if flag := s.Self[column]; flag != "" && slices.Contains(was, parent) && !slices.Contains(is, parent) {
				members[flag] = jsontext.Value("false")
			}
		}
	}
	text, _ := json.Marshal(members, json.Deterministic(true))
	return text
}
