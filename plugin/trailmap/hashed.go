package trailmap

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// Of an older serial that was stored, the inventory may have hashes in the place of sensitive values. A hash tells whether a
// value is the same as another and nothing more: one within a list or object, or under another key, is a value not known.

// usable reports an old value that new ones can be compared with.
func (v view) usable(value jsontext.Value) bool { return value == nil || v.redactor.Comparable(value) }

// compareHashed sets an attribute's new value to its old one if the hash of that says so. A new value that may mean the same
// in another spelling leaves the old one unknown.
func (r *Resolver) compareHashed(a Attribute) Attribute {
	if !a.OldKnown || !a.NewKnown || !tfstate.Kept(a.Old) || a.New == nil || redacted(a.New) {
		return a
	}
	spellings := []jsontext.Value{a.New}
	if isScalar(a.New) {
		text := trail.Text(a.New)
		spellings = append(spellings, quote(text))
		if bare := jsontext.Value(text); bare.IsValid() && isScalar(bare) {
			spellings = append(spellings, bare)
		}
	}
	for _, s := range spellings {
		if r.redactor.Equal(a.Old, s) {
			a.New = a.Old
			return a
		}
	}
	if a.spelled {
		a.Old, a.OldKnown = nil, false
	}
	return a
}
