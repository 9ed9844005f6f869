package journal

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// sieve reports which messages pass a filter. It walks a message's text only to the members that the filter names, which is
// quicker than SQLite's own functions, and takes values nested deeper than those do.
func sieve(topic wire.Topic, filter wire.Filter) func(body []byte) bool {
	if len(filter) == 0 {
		return func([]byte) bool { return true }
	}
	type part struct{ place, texts []string }
	var parts []part
	for name, texts := range filter {
		parts = append(parts, part{strings.Split(wire.FilterPlace(topic, name), "."), texts})
	}
	return func(body []byte) bool {
		return !slices.ContainsFunc(parts, func(p part) bool {
			text, is := textAt(body, p.place)
			return !is || !slices.Contains(p.texts, text)
		})
	}
}

// textAt is the text at a place, where there is one.
func textAt(body []byte, place []string) (text string, is bool) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for _, name := range place {
		if d.PeekKind() != '{' || !enter(d, name) {
			return "", false
		}
	}
	if d.PeekKind() != '"' {
		return "", false
	}
	token, err := d.ReadToken()
	return token.String(), err == nil
}

// enter reads an object up to the value of a member.
func enter(d *jsontext.Decoder, name string) bool {
	if _, err := d.ReadToken(); err != nil {
		return false
	}
	for d.PeekKind() == '"' {
		member, err := d.ReadToken()
		if err != nil {
			return false
		}
		if member.String() == name {
			return true
		}
		if d.SkipValue() != nil {
			return false
		}
	}
	return false
}
