package trailmap

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// byEntry resolves a call that the knowledge has an entry for. Members named in the request go to the first shape that
// has them; a call without members goes to the first shape of which an instance exists.
func (r *Resolver) byEntry(rec *trail.Record, e entry) []Target {
	if e.Nothing {
		return nil
	}
	c := newCall(rec, e)
	ids := c.first(e.ID)
	for i := range ids {
		if e.Lower {
			ids[i].text = strings.ToLower(ids[i].text)
		}
	}
	switch {
	case len(e.Shapes) == 0:
		return r.touched(rec, ids)
	case len(e.Items) > 0:
		return r.byMembers(c, e, ids)
	}
	return r.byShapes(c, e, ids)
}

func (r *Resolver) byShapes(c call, e entry, ids []leaf) []Target {
	var all []Target
	told := map[string]bool{}
	for _, s := range e.Shapes {
		if s.Effect == effectNothing && c.when(s.When) {
			return nil
		}
		s.Set = slices.DeleteFunc(slices.Clone(s.Set), func(set assignment) bool { return told[set.From] })
		targets := r.byShape(c, e, s, ids)
		if len(targets) > 0 && !e.Each {
			return targets
		}
		for _, set := range s.Set {
			told[set.From] = told[set.From] || len(targets) > 0
		}
		all = append(all, targets...)
	}
	return telling(all)
}

func (r *Resolver) byShape(c call, e entry, s shape, ids []leaf) []Target {
	if !c.when(s.When) {
		return nil
	}
	switch {
	case s.Alone:
		ids = []leaf{{}}
	case len(s.ID) > 0:
		ids = c.first(s.ID)
	}
	var targets []Target
	for _, id := range ids {
		for _, v := range r.instances(c, s, id) {
			if r.aside(c, s, v) {
				continue
			}
			// What the call sets cannot be shared out among several named resources.
			t := r.apply(c, s, v, len(ids) == 1 || e.Shared)
			if t.Unchanged && (c.untold(e, s, v) || c.unanswered(s)) {
				t.Unchanged, t.Precision = false, Touched
			}
			targets = append(targets, t)
		}
	}
	return targets
}

// instances are the instances of the shape that the identifier names, each once however many of its attributes hold it.
func (r *Resolver) instances(c call, s shape, id leaf) []view {
	switch {
	case s.Alone:
		return r.alone(c, s)
	case s.Type == "":
		return r.whatever(c.rec, id)
	}
	var views []view
	type instance struct {
		state   string
		address tfstate.Address
	}
	seen := map[instance]bool{}
	for _, spelled := range id.spellings() {
		for _, candidate := range r.inventory.Lookup(c.rec.Account(), c.rec.Region, spelled) {
			k := instance{candidate.State, candidate.Instance.Address}
			if !s.means(candidate) || seen[k] || c.elsewhere(id, candidate) || !c.matches(candidate.Instance, s.Match) {
				continue
			}
			seen[k] = true
			if v := r.view(candidate, c.rec.EventTime); !v.stale() {
				views = append(views, v)
			}
		}
	}
	if s.Tuple == "" && (s.Parent != "" && len(s.Match) == 0 && several(views) || !c.global && unplaced(views)) {
		return nil
	}
	return views
}

// unplaced reports several instances in one state with nothing to tell in which region each is.
func unplaced(views []view) bool {
	nowhere := map[string]int{}
	for _, v := range views {
		if v.candidate.Region == "" && v.candidate.Near == "" {
			nowhere[v.candidate.State]++
		}
	}
	for _, n := range nowhere {
		if n > 1 {
			return true
		}
	}
	return false
}

// alone is the only instance of the shape's type in the record's account and region: see shape.Alone.
func (r *Resolver) alone(c call, s shape) []view {
	var views []view
	for _, candidate := range r.inventory.OfType(c.rec.Account(), c.rec.Region, s.Type) {
		views = append(views, r.view(candidate, c.rec.EventTime))
	}
	if several(views) {
		return nil
	}
	return views
}

// means reports a candidate of the shape.
func (s shape) means(c inventory.Candidate) bool {
	a := c.Instance.Address
	switch {
	case a.Type != s.Type, a.Data, a.Deposed != "":
		return false
	case s.Parent == "" && c.Role != inventory.Self, s.Parent != "" && string(c.Path) != s.Parent:
		return false
	}
	return has(c.Instance, s.Where)
}

// several reports more than one resource, whatever number of states has each.
func several(views []view) bool {
	return slices.ContainsFunc(views, func(v view) bool {
		a, b := v.candidate.Instance, views[0].candidate.Instance
		return a.Address.Type != b.Address.Type || a.ID() != b.ID() || a.ID() == "" && a != b
	})
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

// apply makes the target for one instance of a shape without members. Values that the request states count if they are for
// this instance.
func (r *Resolver) apply(c call, s shape, v view, valuesCount bool) Target {
	t := v.target()
	if s.Effect == effectDelete {
		t.Deleted, t.Precision = true, v.gone()
		return t
	}
	var attributes []Attribute
	for _, set := range s.Set {
		if !v.has(set) || !c.when(set.When) || set.From != "" && !valuesCount {
			continue
		}
		switch set.As {
		case asMap, asMapAdded, asMapRemoved:
			attributes = append(attributes, r.without(c, v, set, v.keys(c, set))...)
		case asValue:
			attributes = append(attributes, v.ofKey(c, set)...)
		case asAdded, asRemoved:
			attributes = append(attributes, v.elements(c, set)...)
		default:
			if a, given := v.assign(c, set); given {
				attributes = append(attributes, a)
			}
		}
	}
	return r.finish(v, t, attributes)
}

// has reports an instance with the assignment's attribute, or with the blocks that the attribute is in.
func (v view) has(set assignment) bool {
	top, _, _ := strings.Cut(set.Attribute, "[")
	_, there := v.candidate.Instance.Get(tfstate.Path(top))
	return there
}

// untold reports a request that says something the shape does not tell of the instance: see entry.Moot. An object or list that
// attributes are told of says something even when nothing is in it, unless the attributes then take their defaults.
func (c call) untold(e entry, s shape, v view) bool {
	if e.Hides {
		return true
	}
	if !slices.ContainsFunc(s.Set, func(set assignment) bool { return set.From != "" }) {
		return false
	}
	told := slices.Concat(alwaysMoot, e.Moot, e.ID, s.ID, slices.Collect(maps.Keys(s.When)))
	for _, places := range s.Match {
		told = append(told, places...)
	}
	var empty []string
	for _, set := range s.Set {
		if !c.when(set.When) {
			continue
		}
		if !v.has(set) && slices.ContainsFunc(c.at(set.From), func(value jsontext.Value) bool { return !blank(value) }) {
			return true
		}
		told = append(append(told, set.From), slices.Collect(maps.Keys(set.When))...)
		if !set.defaults(c) {
			empty = append(empty, around(set.From))
		}
	}
	within := func(place string, all []string) bool {
		return slices.ContainsFunc(all, func(one string) bool { return one != "" && holds(one, place) })
	}
	return slices.ContainsFunc(ends("", c.request), func(l leaf) bool {
		return l.name != "" && !within(l.name, told) && (l.text != "" || slices.ContainsFunc(empty, func(one string) bool { return holds(l.name, one) }))
	})
}

// alwaysMoot are members that change nothing in whatever request.
var alwaysMoot = []string{"Host", "clientToken", "dryRun"}

// markup are members that the writing of a request as XML leaves in objects of it.
var markup = []string{"tag", "xmlns"}

// ends are the places where something stands in a value that is no object or list, and those of empty ones, without a text.
func ends(place string, v jsontext.Value) []leaf {
	var all []leaf
	switch v.Kind() {
	case '{':
		trail.Members(v, func(name []byte, value jsontext.Value) {
			if isScalar(value) && slices.Contains(markup, string(name)) {
				return
			}
			all = append(all, ends(strings.TrimPrefix(place+"."+string(name), "."), value)...)
		})
	case '[':
		for _, e := range trail.Elements(v) {
			all = append(all, ends(place, e)...)
		}
	default:
		if blank(v) {
			return nil
		}
		return []leaf{{place, trail.Text(v)}}
	}
	if len(all) == 0 {
		return []leaf{{name: place}}
	}
	return all
}

// holds reports whether one place is another one or around it.
func holds(outer, inner string) bool {
	name, rest, more := strings.Cut(outer, ".")
	first, further, deeper := strings.Cut(inner, ".")
	return sameMember(name, first) && (!more || deeper && holds(rest, further))
}

// unanswered reports a value that only the response tells, in a record without it.
func (c call) unanswered(s shape) bool {
	return slices.ContainsFunc(s.Set, func(set assignment) bool {
		return strings.HasPrefix(set.From, responsePlace) && len(c.at(set.From)) == 0 && c.when(set.When)
	})
}

// assign is what one assignment changes; given is false where the request does not speak of it.
func (v view) assign(c call, set assignment) (a Attribute, given bool) {
	a = Attribute{Path: tfstate.Path(set.Attribute), Sensitive: set.Secret}
	a.Old, a.OldKnown = v.old(a.Path)
	a.spelled = set.As != asPlain || len(set.Same)+len(set.None) > 0
	if set.From == "" {
		a.New, a.NewKnown = likeOld(a.Old, constant(set.Value)), set.Value != ""
		return a, true
	}
	values := c.at(set.From)
	if len(values) == 0 && set.defaults(c) {
		if a.OldKnown && (blank(a.Old) || slices.Contains(set.Unless, trail.Text(a.Old))) {
			return a, false // a state that says nothing means the default
		}
		a.New, a.NewKnown = likeOld(a.Old, constant(set.Default)), true
		return a, true
	}
	if len(values) == 0 {
		return a, false
	}
	if a.New, a.NewKnown = set.spelled(values, a); !a.NewKnown {
		a.New = nil
	}
	if a.OldKnown && a.NewKnown && set.same(c, a.Old, a.New) {
		a.New = a.Old
	}
	return a, true
}

// defaults reports whether the request leaves the value out of what it replaces as a whole.
func (set assignment) defaults(c call) bool {
	whole := set.Whole
	if whole == "" {
		whole = around(set.From)
	}
	return set.Default != "" && len(c.at(whole)) == 1
}

// spelled is the new value as the state would keep it.
func (set assignment) spelled(values []jsontext.Value, a Attribute) (value jsontext.Value, known bool) {
	switch set.As {
	case asSet, asList:
		return listOf(values), !slices.ContainsFunc(values, anyHidden)
	case asBlocks:
		value, known = set.blocks(listOf(values))
		if said(value) == nil {
			value = jsontext.Value("[]")
		}
		return value, known
	}
	if len(values) != 1 || set.As == asOpaque {
		return nil, false // several values for one attribute: which one it took is not known
	}
	value = values[0]
	if one := elements(value); set.As == asPlain && len(one) == 1 {
		value = one[0]
	}
	if anyHidden(value) || !value.IsValid() || set.As == asKey && alias(trail.Text(value)) && !alias(trail.Text(a.Old)) {
		return nil, false
	}
	switch spelled, other := set.Same[trail.Text(value)]; {
	case set.As == asPolicy || set.As == asJSON || set.As == asPattern:
		return policyText(value), true
	case set.As == asLower:
		return quote(strings.ToLower(trail.Text(value))), true
	case set.As == asName && inventory.Name(trail.Text(value)) != "":
		return quote(inventory.Name(trail.Text(value))), true
	case slices.Contains(set.None, trail.Text(value)) && a.OldKnown && blank(a.Old):
		return a.Old, true
	case other:
		return likeOld(a.Old, constant(spelled)), true
	}
	return likeOld(a.Old, value), true
}

// same compares the attribute's old value with the new one.
func (set assignment) same(c call, old, value jsontext.Value) bool {
	switch set.As {
	case asPolicy:
		return samePolicy(old, value)
	case asJSON, asSet:
		return sameDocument(old, value, "operator")
	case asPattern:
		return sameJSON(trail.Text(old), trail.Text(value))
	case asKey:
		return c.sameKey(trail.Text(old), trail.Text(value))
	case asVersion:
		return strings.HasPrefix(trail.Text(value)+".", trail.Text(old)+".")
	case asBlocks:
		return sameBlocks(old, value) || blank(old) && slices.ContainsFunc(set.None, func(none string) bool {
			return sameBlocks(jsontext.Value(none), value)
		})
	}
	other, ok := set.Same[trail.Text(old)]
	return tfstate.Equal(old, value) || ok && other == trail.Text(value)
}

// sameKey compares two names of one KMS key or other resource, of which either may be an ARN, or of a security group, which
// may have its account before it, or of an account. A name alone is one in the record's account and region.
func (c call) sameKey(a, b string) bool {
	arn, name := a, b
	if !strings.HasPrefix(arn, "arn:") {
		arn, name = b, a
	}
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 && !strings.HasPrefix(name, "arn:") && root(a) == "" {
		away := func(said, own string) bool { return said != "" && own != "" && said != own }
		return !away(parts[3], c.rec.Region) && !away(parts[4], c.rec.Account()) && sameName(leaf{text: b}, a)
	}
	bare := func(id string) string { return strings.TrimPrefix(id, ownedGroup.FindString(id)) }
	return sameName(leaf{text: b}, bare(a)) || sameName(leaf{text: bare(b)}, a) || root(a) != "" && root(a) == root(b)
}

// ownedGroup finds the account before a security group of another one.
var ownedGroup = regexp.MustCompile(`^\d{12}/`)

// root is the account that a principal stands for as a whole: 123456789012, arn:aws:iam::123456789012:root
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html).
func root(principal string) string {
	if m := wholeAccount.FindStringSubmatch(principal); m != nil {
		return m[1]
	}
	return ""
}

var wholeAccount = regexp.MustCompile(`^(?:arn:[a-z-]+:iam::)?(\d{12})(?::root)?$`)

// alias reports the alias of a key, alone or in an ARN. Which key it stands for the record does not say.
func alias(id string) bool {
	return strings.HasPrefix(id[strings.LastIndexByte(id, ':')+1:], "alias/")
}

// listOf is one list of all elements, those that are lists taken apart.
func listOf(values []jsontext.Value) jsontext.Value {
	all := []jsontext.Value{}
	for _, v := range values {
		all = append(all, elements(v)...)
	}
	text, _ := json.Marshal(all)
	return text
}

// elements are the members of a list without order that came or went, one by one.
func (v view) elements(c call, set assignment) []Attribute {
	path := tfstate.Path(set.Attribute)
	list, known := v.old(path)
	had := scalars([]jsontext.Value{list})
	var attributes []Attribute
	for _, text := range scalars(c.at(set.From)) {
		a := Attribute{Path: path, OldKnown: known, NewKnown: true, Member: text}
		if slices.Contains(had, text) {
			a.Old = quote(text)
		}
		if set.As == asAdded {
			a.New = quote(text)
		}
		attributes = append(attributes, a)
	}
	return attributes
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
