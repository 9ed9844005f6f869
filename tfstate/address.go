package tfstate

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Address is one resource instance, spelled exactly as Terraform prints it. It is comparable.
type Address struct {
	Module string // `module.a["x"].module.b`, "" for the root module
	Data   bool   // a data source
	Type   string
	Name   string
	// Key is the instance key as it stands between the brackets: `0` or `"a"`; "" without count and for_each.
	Key string
	// Deposed is the key of an object that waits to be destroyed; "" for the current one.
	Deposed string
}

// String writes the address as Terraform prints it.
func (a Address) String() string {
	var b strings.Builder
	if a.Module != "" {
		b.WriteString(a.Module + ".")
	}
	if a.Data {
		b.WriteString("data.")
	}
	b.WriteString(a.Type + "." + a.Name)
	if a.Key != "" {
		b.WriteString("[" + a.Key + "]")
	}
	if a.Deposed != "" {
		b.WriteString(" (deposed " + a.Deposed + ")")
	}
	return b.String()
}

// Compare orders addresses by kind, module, type, name, key and deposed key. It says nothing about the order in which
// Terraform prints them; it is 0 for equal ones alone.
func (a Address) Compare(b Address) int {
	if a.Data != b.Data {
		if b.Data {
			return -1
		}
		return 1
	}
	if c := strings.Compare(a.Module, b.Module); c != 0 { // one by one: most differ early, and sorting asks often
		return c
	}
	if c := strings.Compare(a.Type, b.Type); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Deposed, b.Deposed))
}

// ParseAddress reads what String writes. The error quotes what was given.
func ParseAddress(s string) (Address, error) {
	var a Address
	rest := s
	if i := strings.LastIndex(rest, " (deposed "); i >= 0 && strings.HasSuffix(rest, ")") {
		a.Deposed, rest = rest[i+len(" (deposed "):len(rest)-1], rest[:i]
	}
	parts, err := segments(rest)
	if err != nil {
		return Address{}, fmt.Errorf("parse address %q: %w", s, err)
	}
	var module []string
	for len(parts) >= 2 && parts[0].name == "module" && parts[0].key == "" {
		module = append(module, "module", parts[1].String())
		parts = parts[2:]
	}
	a.Module = strings.Join(module, ".")
	if len(parts) == 3 && parts[0].String() == "data" {
		a.Data, parts = true, parts[1:]
	}
	if len(parts) != 2 || parts[0].key != "" {
		return Address{}, fmt.Errorf(`parse address %q: want [module.NAME.][data.]TYPE.NAME[KEY]`, s)
	}
	a.Type, a.Name, a.Key = parts[0].name, parts[1].name, parts[1].key
	return a, nil
}

type segment struct{ name, key string }

func (s segment) String() string {
	if s.key == "" {
		return s.name
	}
	return s.name + "[" + s.key + "]"
}

// segments cuts at the dots outside of brackets.
func segments(s string) ([]segment, error) {
	var all []segment
	for {
		end := strings.IndexAny(s, ".[")
		if end < 0 {
			end = len(s)
		}
		seg := segment{name: s[:end]}
		if seg.name == "" {
			return nil, errors.New("a name is missing")
		}
		if strings.ContainsAny(seg.name, "]\"() \n") {
			return nil, fmt.Errorf("%q is no name", seg.name)
		}
		s = s[end:]
		if strings.HasPrefix(s, "[") {
			n, err := keyLength(s[1:])
			if err != nil {
				return nil, err
			}
			seg.key, s = s[1:1+n], s[n+2:]
		}
		all = append(all, seg)
		if s == "" {
			return all, nil
		}
		if s[0] != '.' {
			return nil, fmt.Errorf("want a dot before %q", s)
		}
		s = s[1:]
	}
}

// keyLength is the length of an instance key before its closing bracket.
func keyLength(s string) (int, error) {
	if !strings.HasPrefix(s, `"`) {
		n := strings.IndexByte(s, ']')
		if n <= 0 {
			return 0, errors.New("a bracket is not closed")
		}
		return n, nil
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			if i+1 < len(s) && s[i+1] == ']' {
				return i + 1, nil
			}
			return 0, errors.New("want a bracket after the key")
		}
	}
	return 0, errors.New("a key is not closed")
}
