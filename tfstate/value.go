package tfstate

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The functions here walk raw JSON that was checked when it was read, without copying it: a value they hand over is a part
// of the one they were given. On text that is not JSON they stop early; they never read past its end.

// member is one name and value of an object.
type member struct {
	name  string
	value jsontext.Value
}

// spaceEnd is the place of the first byte at or after i that is not white space.
func spaceEnd(v []byte, i int) int {
	for i < len(v) && (v[i] == ' ' || v[i] == '\n' || v[i] == '\t' || v[i] == '\r') {
		i++
	}
	return i
}

// stringEnd is the place behind the text that begins at i with its quotation mark.
func stringEnd(v []byte, i int) int {
	for start := i + 1; start < len(v); {
		n := bytes.IndexByte(v[start:], '"')
		if n < 0 {
			break
		}
		end := start + n
		slashes := 0
		for slashes < end-i-1 && v[end-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return end + 1
		}
		start = end + 1
	}
	return len(v)
}

// valueEnd is the place behind the value that begins at i.
func valueEnd(v []byte, i int) int {
	if i >= len(v) {
		return len(v)
	}
	switch v[i] {
	case '"':
		return stringEnd(v, i)
	case '{', '[':
		return nestedEnd(v, i)
	}
	for ; i < len(v); i++ {
		if c := v[i]; c == ',' || c == ']' || c == '}' || c <= ' ' {
			break
		}
	}
	return i
}

func nestedEnd(v []byte, i int) int {
	depth := 0
	for i < len(v) {
		switch v[i] {
		case '"':
			i = stringEnd(v, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return len(v)
}

// object walks the members of a JSON object until each says false. The name is given as it stands, in its quotation marks.
func object(v jsontext.Value, each func(quoted, value jsontext.Value) bool) {
	i := spaceEnd(v, 0)
	if i >= len(v) || v[i] != '{' {
		return
	}
	for i++; ; i++ {
		name := spaceEnd(v, i)
		if name >= len(v) || v[name] != '"' {
			return
		}
		nameEnd := stringEnd(v, name)
		colon := spaceEnd(v, nameEnd)
		if colon >= len(v) || v[colon] != ':' {
			return
		}
		value := spaceEnd(v, colon+1)
		end := valueEnd(v, value)
		if end == value || !each(v[name:nameEnd:nameEnd], v[value:end:end]) {
			return
		}
		if i = spaceEnd(v, end); i >= len(v) || v[i] != ',' {
			return
		}
	}
}

// array walks the elements of a JSON array until each says false.
func array(v jsontext.Value, each func(jsontext.Value) bool) {
	i := spaceEnd(v, 0)
	if i >= len(v) || v[i] != '[' {
		return
	}
	for i++; ; i++ {
		value := spaceEnd(v, i)
		end := valueEnd(v, value)
		if end == value || !each(v[value:end:end]) {
			return
		}
		if i = spaceEnd(v, end); i >= len(v) || v[i] != ',' {
			return
		}
	}
}

// textOf is what a JSON text says; "" for any other value.
func textOf(v jsontext.Value) string {
	if len(v) < 2 || v[0] != '"' {
		return ""
	}
	if bytes.IndexByte(v, '\\') < 0 {
		return string(v[1 : len(v)-1])
	}
	s, _ := jsontext.AppendUnquote(nil, v) // half a surrogate pair becomes the replacement character
	return string(s)
}

// named reports whether a name in its quotation marks is name.
func named(quoted jsontext.Value, name string) bool {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return textOf(quoted) == name
	}
	return len(quoted) == len(name)+2 && string(quoted[1:len(quoted)-1]) == name
}

// membersOf lists the members of an object. Of a repeated name the first counts, as in get.
func membersOf(v jsontext.Value) []member {
	var all []member
	object(v, func(quoted, value jsontext.Value) bool {
		all = append(all, member{textOf(quoted), value})
		return true
	})
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

// appendCompact appends a JSON text without the white space between its tokens.
func appendCompact(to []byte, v []byte) []byte {
	to = slices.Grow(to, len(v))
	for i := 0; i < len(v); {
		start := i
		for i < len(v) && v[i] > ' ' {
			if v[i] == '"' {
				i = stringEnd(v, i)
			} else {
				i++
			}
		}
		to = append(to, v[start:i]...)
		for i < len(v) && v[i] <= ' ' {
			i++
		}
	}
	return to
}

// Equal compares two JSON values as Terraform would: numbers as numbers of any size, objects without order. nil is only
// equal to nil.
func Equal(a, b jsontext.Value) bool { return (*Redactor)(nil).Equal(a, b) }

func (r *Redactor) equalObjects(x, y []member) bool {
	if slices.EqualFunc(x, y, func(a, b member) bool { return a.name == b.name && r.Equal(a.value, b.value) }) {
		return true // Terraform writes the names sorted: one pass is all it takes
	}
	a, b := byName(x), byName(y)
	if len(a) != len(b) {
		return false
	}
	for name, value := range a {
		if !r.Equal(value, b[name]) {
			return false
		}
	}
	return true
}

func byName(all []member) map[string]jsontext.Value {
	m := make(map[string]jsontext.Value, len(all))
	for _, one := range all {
		if _, twice := m[one.name]; !twice {
			m[one.name] = one.value
		}
	}
	return m
}

// number is a JSON number as sign, digits without zeros at either end, and the power of ten behind them. Numbers are the
// same if these are; nothing is computed, so that 1e999999999 costs no more than 1.
type number struct {
	negative bool
	digits   string
	exponent int64
	text     string // of a number whose exponent is out of range
}

func numberOf(v jsontext.Value) number {
	text := strings.TrimSpace(string(v))
	s, negative := strings.CutPrefix(text, "-")
	var exponent int64
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.ParseInt(s[i+1:], 10, 32)
		if err != nil {
			return number{text: text}
		}
		s, exponent = s[:i], e
	}
	whole, fraction, _ := strings.Cut(s, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	short := strings.TrimRight(digits, "0")
	if short == "" {
		return number{} // zero, of either sign
	}
	return number{negative: negative, digits: short, exponent: exponent - int64(len(fraction)) + int64(len(digits)-len(short))}
}
