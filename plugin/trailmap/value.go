package trailmap

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

var lenient = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// members walks the members of an object; it does nothing for any other value, or after a fault in the JSON.
func members(v jsontext.Value, each func(name string, value jsontext.Value) bool) {
	d := jsontext.NewDecoder(bytes.NewReader(v), lenient...)
	if open, err := d.ReadToken(); err != nil || open.Kind() != '{' {
		return
	}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return
		}
		name := token.String()
		value, err := d.ReadValue()
		if err != nil || !each(name, slices.Clone(value)) {
			return
		}
	}
}

// elements walks the elements of an array; any other value but null is its own only element, because CloudTrail writes
// a list of one as the bare element.
func elements(v jsontext.Value, each func(jsontext.Value)) {
	switch v.Kind() {
	case 'n', jsontext.Kind(0):
		return
	case '[':
	default:
		each(v)
		return
	}
	d := jsontext.NewDecoder(bytes.NewReader(v), lenient...)
	if _, err := d.ReadToken(); err != nil {
		return
	}
	for d.PeekKind() != ']' {
		value, err := d.ReadValue()
		if err != nil {
			return
		}
		each(slices.Clone(value))
	}
}

// at gives the values at a place, which names members from the outside in, separated by dots; lists on the way are
// entered. Null is no value.
func at(v jsontext.Value, place string) []jsontext.Value {
	if place == "" {
		var own []jsontext.Value
		if v.Kind() == '[' {
			return append(own, v)
		}
		elements(v, func(e jsontext.Value) { own = append(own, e) })
		return own
	}
	name, rest, _ := strings.Cut(place, ".")
	var found []jsontext.Value
	elements(v, func(e jsontext.Value) {
		members(e, func(n string, value jsontext.Value) bool {
			if n == name {
				found = append(found, at(value, rest)...)
				return false
			}
			return true
		})
	})
	return found
}

// scalars are the texts of scalar values, and of the elements of lists of them.
func scalars(values []jsontext.Value) []string {
	var texts []string
	for _, v := range values {
		elements(v, func(e jsontext.Value) {
			if s := scalar(e); s != "" {
				texts = append(texts, s)
			}
		})
	}
	return texts
}

// scalar is a text's content, a number's or boolean's spelling, else "".
func scalar(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		b, _ := jsontext.AppendUnquote(nil, v)
		return string(b)
	case '0', 't', 'f':
		return string(v)
	}
	return ""
}

func quote(s string) jsontext.Value {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		b, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return b
}

// hidden reports the texts that AWS services, and a Redactor without a key, write in place of a value they keep to
// themselves.
func hidden(v jsontext.Value) bool {
	switch s := scalar(v); s {
	case "HIDDEN_DUE_TO_SECURITY_REASONS", "<sensitiveDataRemoved>", "sensitiveDataRemoved", "(sensitive)":
		return true
	default:
		return s != "" && strings.Trim(s, "*") == ""
	}
}

// likeOld spells a scalar as the state spells the old one, where both mean the same kind of thing: CloudTrail quotes
// numbers and booleans now and then, and some attributes keep them as texts.
func likeOld(old, value jsontext.Value) jsontext.Value {
	if old == nil || !isScalar(old) || !isScalar(value) || old.Kind() == value.Kind() {
		return value
	}
	if old.Kind() == '"' {
		return quote(scalar(value))
	}
	bare := jsontext.Value(scalar(value))
	if bare.IsValid() && (bare.Kind() == old.Kind() || isBool(bare) && isBool(old)) {
		return bare
	}
	return value
}

func isScalar(v jsontext.Value) bool { return v.Kind() == '"' || v.Kind() == '0' || isBool(v) }

func isBool(v jsontext.Value) bool { return v.Kind() == 't' || v.Kind() == 'f' }
