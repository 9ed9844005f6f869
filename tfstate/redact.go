package tfstate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"
)

// Redactor hides sensitive values in such a way that a change still shows. It is safe for concurrent use; nil hides
// everything alike.
type Redactor struct{ key []byte }

// NewRedactor hashes under key; without one every value reads "(sensitive)".
func NewRedactor(key []byte) *Redactor { return &Redactor{key} }

// Value is a JSON text in v's place: "(sensitive) hmac:" and 12 hex digits of HMAC-SHA256 over v's canonical form.
func (r *Redactor) Value(v jsontext.Value) jsontext.Value {
	if r == nil || len(r.key) == 0 {
		return jsontext.Value(`"(sensitive)"`)
	}
	canonical := v.Clone()
	// Whole numbers stay as they are: as floating point, two large ones could look alike.
	if canonical.Canonicalize(jsontext.CanonicalizeRawInts(false)) != nil {
		canonical = v
	}
	mac := hmac.New(sha256.New, r.key)
	_, _ = mac.Write(canonical)
	return jsontext.Value(`"(sensitive) hmac:` + hex.EncodeToString(mac.Sum(nil))[:12] + `"`)
}
