package tfstate

import (
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"
)

// Redactor hides sensitive values in such a way that a change still shows. It is safe for concurrent use; nil hides
// everything alike.
type Redactor struct {
	key []byte // of the hashes that are shown; none without it
	own []byte // of those that are only stored, where there is no key
	id  string // names the key of those that are stored; "" for a Redactor that stores none
}

// NewRedactor hashes under key; without one every value reads "(sensitive)".
func NewRedactor(key []byte) *Redactor { return &Redactor{key: key} }

// Value is a JSON text in v's place: "(sensitive) hmac:" and 12 hex digits of HMAC-SHA256 over v's canonical form. In the
// place of a stored hash it is the same as in the value's own, unless the key was another; of a list or object with
// stored hashes within no hash is known.
func (r *Redactor) Value(v jsontext.Value) jsontext.Value {
	switch {
	case r == nil || len(r.key) == 0 || !r.Comparable(v):
		return jsontext.Value(`"(sensitive)"`)
	case Kept(v):
		return shown(string(v[len(keptPrefix)+keptID+1:]))
	}
	return shown(hex.EncodeToString(r.sum(canonical(v))))
}

func shown(sum string) jsontext.Value { return jsontext.Value(`"(sensitive) hmac:` + sum[:12] + `"`) }

// canonical is the one spelling of a value. Whole numbers stay as they are: as floating point, two large ones could look
// alike.
func canonical(v jsontext.Value) jsontext.Value {
	c := v.Clone()
	if c.Canonicalize(jsontext.CanonicalizeRawInts(false)) != nil {
		return v
	}
	return c
}
