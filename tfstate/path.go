package tfstate

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Path is the place of an attribute within an instance, as Terraform spells it: `tags.Name`, `tags["a b"]`,
// `ingress[0].cidr_blocks[1]`.
type Path string

// step is one name or index of a path; as in states, a map's key and an object's attribute are not told apart.
type step struct {
	name  string
	index int // -1 for a name
}

// steps takes a path apart; what is not a path gives nil.
func (p Path) steps() []step {
	var all []step
	s := string(p)
	for s != "" {
		switch {
		case s[0] == '.':
			s = s[1:]
			fallthrough
		case s[0] != '[':
			end := strings.IndexAny(s, ".[")
			if end < 0 {
				end = len(s)
			}
			if end == 0 {
				return nil
			}
			all, s = append(all, step{s[:end], -1}), s[end:]
		default:
			n, err := keyLength(s[1:])
			if err != nil {
				return nil
			}
			key := s[1 : 1+n]
			s = s[n+2:]
			if key[0] == '"' {
				name, ok := unquoteKey(key)
				if !ok {
					return nil
				}
				all = append(all, step{name, -1})
				continue
			}
			index, err := strconv.Atoi(key)
			if err != nil || index < 0 {
				return nil
			}
			all = append(all, step{"", index})
		}
	}
	return all
}

// Member is the path of a member of what is at p: an attribute, or the value of a map's key.
func (p Path) Member(name string) Path {
	switch {
	case !plain(name):
		return p + Path("["+quoteKey(name)+"]")
	case p == "":
		return Path(name)
	}
	return p + "." + Path(name)
}

func (p Path) element(i int) Path { return p + Path("["+strconv.Itoa(i)+"]") }

func plain(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r != '-' && (r < '0' || r > '9')) {
			return false
		}
	}
	return name != ""
}

// get is the value at the steps below v.
func get(v jsontext.Value, path []step) (jsontext.Value, bool) {
	for _, s := range path {
		var found jsontext.Value
		switch {
		case s.index < 0:
			object(v, func(quoted, value jsontext.Value) bool {
				if named(quoted, s.name) {
					found = value
				}
				return found == nil
			})
		default:
			i := 0
			array(v, func(value jsontext.Value) bool {
				if i == s.index {
					found = value
				}
				i++
				return found == nil
			})
		}
		if found == nil {
			return nil, false
		}
		v = found
	}
	return v, true
}
