package tfstate

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// An attribute whose type the provider's schema leaves open stands in a state as {"value":…,"type":…}, while paths, the
// sensitive ones among them, speak of the value alone. Here such wrappings are taken off, so that a path means the same in
// configuration, plan and state. What only looks like one (a map with two such keys) does not fit the type it names and
// stays as it is, and so do blocks, which a state always keeps in lists.
//
// The form is that of https://pkg.go.dev/github.com/zclconf/go-cty/cty/json#Marshal.

// mayWrap is a quick look: false where no attribute can be wrapped.
func mayWrap(attributes jsontext.Value) bool {
	for rest := []byte(attributes); ; {
		i := bytes.Index(rest, []byte(`:{"`))
		if i < 0 {
			return false
		}
		rest = rest[i+3:]
		if bytes.HasPrefix(rest, []byte(`value":`)) || bytes.HasPrefix(rest, []byte(`type":`)) {
			return true
		}
	}
}

// unwrapped is a compact object whose wrapped members, at any depth of objects, have been taken out of their wrapping.
func unwrapped(v jsontext.Value) jsontext.Value {
	out := make(jsontext.Value, 0, len(v))
	return appendUnwrapped(out, v)
}

func appendUnwrapped(to, v jsontext.Value) jsontext.Value {
	to = append(to, '{')
	first := true
	object(v, func(quoted, value jsontext.Value) bool {
		if !first {
			to = append(to, ',')
		}
		first = false
		to = append(append(to, quoted...), ':')
		if value.Kind() != '{' {
			to = append(to, value...)
		} else if inner, ok := appendDynamic(to, value); ok {
			to = inner
		} else {
			to = appendUnwrapped(to, value)
		}
		return true
	})
	return append(to, '}')
}

// appendDynamic appends the value within a wrapping; false if v is none.
func appendDynamic(to, v jsontext.Value) (jsontext.Value, bool) {
	var value, typ jsontext.Value
	others := false
	object(v, func(quoted, one jsontext.Value) bool {
		switch {
		case value == nil && named(quoted, "value"):
			value = one
		case typ == nil && named(quoted, "type"):
			typ = one
		default:
			others = true
		}
		return !others
	})
	if others || value == nil || typ == nil {
		return to, false
	}
	return appendTyped(to, value, typ)
}

// appendTyped appends a value of a type, taking off the wrappings within it that its type tells of; false if it does not
// fit the type.
func appendTyped(to, value, typ jsontext.Value) (jsontext.Value, bool) {
	kind, argument := typeOf(typ)
	if kind == "" {
		return to, false
	}
	if value.Kind() == 'n' {
		return append(to, value...), true
	}
	switch kind {
	case "string", "number", "bool":
		got := value.Kind()
		fits := kind == "string" && got == '"' || kind == "number" && got == '0' || kind == "bool" && (got == 't' || got == 'f')
		return append(to, value...), fits
	case "dynamic":
		return appendDynamic(to, value)
	case "list", "set":
		return appendElements(to, value, func(int) jsontext.Value { return argument })
	case "tuple":
		types := elementsOf(argument)
		return appendElements(to, value, func(i int) jsontext.Value { return at(types, i) })
	case "map":
		return appendMembers(to, value, func(string) jsontext.Value { return argument })
	case "object":
		types := byName(membersOf(argument))
		return appendMembers(to, value, func(name string) jsontext.Value { return types[name] })
	}
	return to, false
}

// typeOf is the name of a type and what it is made of: "string" or ["list","string"].
func typeOf(typ jsontext.Value) (kind string, argument jsontext.Value) {
	switch typ.Kind() {
	case '"':
		kind = textOf(typ)
		if kind != "string" && kind != "number" && kind != "bool" && kind != "dynamic" {
			return "", nil
		}
		return kind, nil
	case '[':
		parts := elementsOf(typ)
		if len(parts) < 2 {
			return "", nil
		}
		return textOf(parts[0]), parts[1]
	}
	return "", nil
}

func appendElements(to, value jsontext.Value, typ func(int) jsontext.Value) (jsontext.Value, bool) {
	if value.Kind() != '[' {
		return to, false
	}
	fits, i := true, 0
	out := append(to, '[')
	array(value, func(e jsontext.Value) bool {
		if i > 0 {
			out = append(out, ',')
		}
		out, fits = appendTyped(out, e, typ(i))
		i++
		return fits
	})
	return append(out, ']'), fits
}

func appendMembers(to, value jsontext.Value, typ func(string) jsontext.Value) (jsontext.Value, bool) {
	if value.Kind() != '{' {
		return to, false
	}
	fits, first := true, true
	out := append(to, '{')
	object(value, func(quoted, one jsontext.Value) bool {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = append(append(out, quoted...), ':')
		out, fits = appendTyped(out, one, typ(textOf(quoted)))
		return fits
	})
	return append(out, '}'), fits
}
