package trailmap

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// elements are the elements of a list; any other value but null is its own only one, because CloudTrail writes a list of
// one as the bare element.
func elements(v jsontext.Value) []jsontext.Value {
	switch v.Kind() {
	case 'n', jsontext.Kind(0):
		return nil
	case '[':
		return trail.Elements(v)
	}
	return []jsontext.Value{v}
}

// at gives the values at a place, which names members from the outside in, separated by dots; lists on the way are
// entered. Null is no value.
func at(v jsontext.Value, place string) []jsontext.Value {
	if place == "" {
		if v.Kind() == '[' {
			return []jsontext.Value{v}
		}
		return elements(v)
	}
	name, rest, _ := strings.Cut(place, ".")
	var found []jsontext.Value
	for _, e := range elements(v) {
		found = append(found, at(member(e, name), rest)...)
	}
	return found
}

// member is the member of an object under a name, else under the name with its first letter in the other case; nil if
// there is none.
func member(v jsontext.Value, name string) jsontext.Value {
	var exact, other jsontext.Value
	trail.Members(v, func(n []byte, value jsontext.Value) {
		switch {
		case string(n) == name:
			exact = value
		case sameMember(string(n), name):
			other = value
		}
	})
	if exact != nil {
		return exact
	}
	return other
}

// scalars are the texts of scalar values, and of the elements of lists of them. EC2 writes the elements of some lists with
// their number, as {"tag":1,"content":"fl-..."}.
func scalars(values []jsontext.Value) []string {
	var texts []string
	for _, v := range values {
		for _, e := range elements(v) {
			if e.Kind() == '{' {
				e = member(e, "content")
			}
			if s := trail.Text(e); s != "" {
				texts = append(texts, s)
			}
		}
	}
	return texts
}

// sameMember compares names of members, whose first letter may have either case.
func sameMember(a, b string) bool {
	return a == b || len(a) == len(b) && a != "" && a[1:] == b[1:] && a[0]^b[0] == 'a'^'A'
}

func quote(s string) jsontext.Value {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		b, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return b
}

// minStars is how many stars stand for a hidden value: fewer are a value, as in a policy or in an allowed origin.
const minStars = 3

// hidden reports the texts that AWS services, and a Redactor without a key, write in place of a value they keep to
// themselves.
func hidden(v jsontext.Value) bool {
	switch s := trail.Text(v); s {
	case "HIDDEN_DUE_TO_SECURITY_REASONS", "<sensitiveDataRemoved>", "sensitiveDataRemoved", "(sensitive)":
		return true
	default:
		return len(s) >= minStars && strings.Trim(s, "*") == ""
	}
}

// likeOld spells a scalar as the state spells the old one, where both mean the same kind of thing: CloudTrail quotes
// numbers and booleans now and then, and some attributes keep them as texts.
func likeOld(old, value jsontext.Value) jsontext.Value {
	if old == nil || tfstate.Kept(old) || !isScalar(old) || !isScalar(value) || old.Kind() == value.Kind() {
		return value
	}
	if bare := jsontext.Value(trail.Text(old)); old.Kind() == '"' && bare.IsValid() && bare.Kind() == '0' && tfstate.Equal(bare, value) {
		return old // 0 and 0.0
	}
	if old.Kind() == '"' {
		return quote(trail.Text(value))
	}
	bare := jsontext.Value(trail.Text(value))
	if bare.IsValid() && (bare.Kind() == old.Kind() || isBool(bare) && isBool(old)) {
		return bare
	}
	return value
}

func isScalar(v jsontext.Value) bool { return v.Kind() == '"' || v.Kind() == '0' || isBool(v) }

func isBool(v jsontext.Value) bool { return v.Kind() == 't' || v.Kind() == 'f' }

// blank reports what Terraform does not tell apart: absent, null, the empty text and the empty list.
func blank(v jsontext.Value) bool {
	return v == nil || v.Kind() == 'n' || v.Kind() == '"' && trail.Text(v) == "" || v.Kind() == '[' && len(trail.Elements(v)) == 0
}

// anyHidden reports a value with a hidden one in it.
func anyHidden(v jsontext.Value) bool {
	switch v.Kind() {
	case '{':
		found := false
		trail.Members(v, func(_ []byte, e jsontext.Value) { found = found || anyHidden(e) })
		return found
	case '[':
		return slices.ContainsFunc(trail.Elements(v), anyHidden)
	}
	return hidden(v)
}
