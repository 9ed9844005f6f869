package trail

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep arrays and objects may nest, the same as in jsontext.
const maxDepth = 10000

// SyntaxError is a text that is not JSON.
type SyntaxError struct {
	Offset int // of the first byte that does not belong
	Err    error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset, e.Err) }

// Unwrap gives the cause: io.ErrUnexpectedEOF where the text ends too early.
func (e *SyntaxError) Unwrap() error { return e.Err }

// scanner walks one JSON text once, without a token stream in between: decoding a record is on the path of every event.
// It accepts what jsontext accepts with repeated names and broken UTF-8 allowed; a fuzz test holds the two together.
type scanner struct {
	text  []byte
	at    int
	depth int
}

func (s *scanner) fail(format string, args ...any) error {
	return &SyntaxError{s.at, fmt.Errorf(format, args...)}
}

// next skips white space and shows the byte after it; 0 at the end.
func (s *scanner) next() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// unexpected is the error for the byte at hand.
func (s *scanner) unexpected(want string) error {
	if s.at >= len(s.text) {
		return &SyntaxError{s.at, io.ErrUnexpectedEOF}
	}
	return s.fail("want %s, not %q", want, s.text[s.at])
}

// object calls each for every member, in order; a name that is written with escapes is given unescaped.
func (s *scanner) object(each func(name []byte, value jsontext.Value)) error {
	if s.next() != '{' {
		return s.unexpected("{")
	}
	s.at++
	if s.next() == '}' {
		s.at++
		return nil
	}
	for {
		name, err := s.name()
		if err != nil {
			return err
		}
		s.next()
		start := s.at
		if err := s.value(); err != nil {
			return err
		}
		each(name, s.text[start:s.at])
		switch s.next() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return s.unexpected("a comma or }")
		}
	}
}

// name reads a member's name and the colon after it.
func (s *scanner) name() ([]byte, error) {
	if s.next() != '"' {
		return nil, s.unexpected("a name")
	}
	start := s.at
	if err := s.string(); err != nil {
		return nil, err
	}
	name := s.text[start+1 : s.at-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, s.text[start:s.at])
	}
	if s.next() != ':' {
		return nil, s.unexpected("a colon")
	}
	s.at++
	return name, nil
}

// array calls each for every element, in order.
func (s *scanner) array(each func(value jsontext.Value)) error {
	if s.next() != '[' {
		return s.unexpected("[")
	}
	s.at++
	if s.next() == ']' {
		s.at++
		return nil
	}
	for {
		s.next()
		start := s.at
		if err := s.value(); err != nil {
			return err
		}
		each(s.text[start:s.at])
		switch s.next() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return s.unexpected("a comma or ]")
		}
	}
}

// value skips one value of any kind.
func (s *scanner) value() error {
	switch c := s.next(); {
	case c == '"':
		return s.string()
	case c == '{' || c == '[':
		if s.depth++; s.depth > maxDepth {
			return s.fail("nested deeper than %d", maxDepth)
		}
		var err error
		if c == '{' {
			err = s.object(ignoreMember)
		} else {
			err = s.array(ignoreElement)
		}
		s.depth--
		return err
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || isDigit(c):
		return s.number()
	}
	return s.unexpected("a value")
}

func ignoreMember([]byte, jsontext.Value) {}
func ignoreElement(jsontext.Value)        {}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.at >= len(s.text) || s.text[s.at] != word[i] {
			return s.unexpected(word)
		}
		s.at++
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number follows https://www.rfc-editor.org/rfc/rfc8259#section-6.
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.at++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *scanner) digits() error {
	if !isDigit(s.peek()) {
		return s.unexpected("a digit")
	}
	for isDigit(s.peek()) {
		s.at++
	}
	return nil
}

// string skips a string, from quote to quote.
func (s *scanner) string() error {
	for i := s.at + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.at = i + 1
			return nil
		case c == '\\':
			s.at = i
			n, err := s.escape()
			if err != nil {
				return err
			}
			i += n - 1
		case c < ' ':
			s.at = i
			return s.fail("a control character in a string: %q", c)
		}
	}
	s.at = len(s.text)
	return &SyntaxError{s.at, io.ErrUnexpectedEOF}
}

// escape gives the length of the escape sequence at hand.
func (s *scanner) escape() (int, error) {
	if s.at+1 >= len(s.text) {
		return 0, &SyntaxError{s.at, io.ErrUnexpectedEOF}
	}
	switch s.text[s.at+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
		for i := s.at + 2; i < s.at+6; i++ {
			if i >= len(s.text) {
				return 0, &SyntaxError{i, io.ErrUnexpectedEOF}
			}
			if c := s.text[i]; !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return 0, s.fail("not a \\u escape")
			}
		}
		return 6, nil
	}
	return 0, s.fail("not an escape: \\%c", s.text[s.at+1])
}

// Member follows names down through nested objects and gives the value there, as it is written. false where a name is
// missing, where something on the way is not an object, and where the value is null. A name given twice counts as
// the last one does.
func Member(v jsontext.Value, names ...string) (jsontext.Value, bool) {
	for _, want := range names {
		var found jsontext.Value
		s := scanner{text: v}
		if err := s.object(func(name []byte, value jsontext.Value) {
			if string(name) == want {
				found = value
			}
		}); err != nil || found == nil {
			return nil, false
		}
		v = found
	}
	return v, len(v) > 0 && v.Kind() != 'n'
}

// Elements gives the elements of an array, as they are written; nil for anything else.
func Elements(v jsontext.Value) []jsontext.Value {
	var all []jsontext.Value
	s := scanner{text: v}
	if s.array(func(value jsontext.Value) { all = append(all, value) }) != nil {
		return nil
	}
	return all
}

// Text is a scalar as a string: a string's content, a number's digits, true or false; "" for anything else. Broken
// UTF-8 comes out as U+FFFD.
func Text(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
			return string(inner)
		}
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil && b == nil {
			return ""
		}
		return string(b)
	case '0', 't', 'f':
		return string(v)
	}
	return ""
}
