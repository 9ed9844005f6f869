package tfstate

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An instance that is stored has a hash in the place of each scalar that its state marks as sensitive:
// "(sensitive) kept:", 8 hex digits that name the key, a colon, and 32 of HMAC-SHA256 over the value, of which the first 12
// are those that Redactor.Value shows. Names of members, null and the empty text stay. Under the same key a hash answers
// whether a value is the same as another; under another key nothing can be said.
const (
	keptPrefix = `"(sensitive) kept:`
	keptID     = 8
	keptSum    = 32
	keptLength = len(keptPrefix) + keptID + 1 + keptSum + 1
)

// Keeping is a Redactor that hides as r does and compares with what was stored: by hashes under r's key or, where r has
// none, under own, which are never shown.
func (r *Redactor) Keeping(own []byte) *Redactor {
	k := &Redactor{own: own}
	if r != nil {
		k.key = r.key
	}
	k.id = hex.EncodeToString(k.sum([]byte("key id")))[:keptID]
	return k
}

// sum is HMAC-SHA256 under the key that is there, nil without one.
func (r *Redactor) sum(v []byte) []byte {
	key := r.key
	if len(key) == 0 {
		key = r.own
	}
	if len(key) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write(v)
	return mac.Sum(nil)
}

// Kept reports a hash in the place of a value.
func Kept(v jsontext.Value) bool {
	return len(v) == keptLength && string(v[:len(keptPrefix)]) == keptPrefix
}

// HasKept reports that v is such a hash or has one within.
func HasKept(v jsontext.Value) bool { return bytes.Contains(v, []byte(keptPrefix)) }

func keptBy(v jsontext.Value) string { return string(v[len(keptPrefix) : len(keptPrefix)+keptID]) }

// Comparable reports whether Equal can tell v from other scalars: it is a value, or a hash under r's key.
func (r *Redactor) Comparable(v jsontext.Value) bool {
	return !HasKept(v) || Kept(v) && r != nil && keptBy(v) == r.id
}

// hash is what is stored in the place of a scalar. Without any key it is one that is like every other.
func (r *Redactor) hash(scalar jsontext.Value) jsontext.Value {
	id, sum := strings.Repeat("0", keptID), strings.Repeat("0", keptSum)
	if r != nil && r.id != "" {
		id, sum = r.id, hex.EncodeToString(r.sum(canonical(scalar)))[:keptSum]
	}
	return jsontext.Value(keptPrefix + id + ":" + sum + `"`)
}

// Equal is the package's Equal, and compares a hash that was stored with a value by the value's hash. What cannot be told
// apart, because the hash was made under another key, counts as equal. nil knows no hashes.
func (r *Redactor) Equal(a, b jsontext.Value) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if bytes.Equal(a, b) {
		return true
	}
	if r != nil && (Kept(a) || Kept(b)) {
		return r.equalKept(a, b)
	}
	if a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case '{':
		return r.equalObjects(membersOf(a), membersOf(b))
	case '[':
		return slices.EqualFunc(elementsOf(a), elementsOf(b), r.Equal)
	case '0':
		return numberOf(a) == numberOf(b)
	case '"':
		return textOf(bytes.TrimSpace(a)) == textOf(bytes.TrimSpace(b))
	}
	return true // null, true and false have one spelling each
}

func (r *Redactor) equalKept(a, b jsontext.Value) bool {
	if !Kept(a) {
		a, b = b, a
	}
	switch {
	case Kept(b):
		return keptBy(a) != keptBy(b) // under one key they differ, else nobody knows
	case plainly(b), b.Kind() == '{', b.Kind() == '[':
		return false
	case keptBy(a) != r.id:
		return true
	}
	return bytes.Equal(a, r.hash(b))
}

// plainly reports what is stored as it is although it is sensitive: that there is no value.
func plainly(v jsontext.Value) bool { return v.Kind() == 'n' || string(v) == `""` }

// ID is the instance's id as it can be compared with that of a stored instance: hashed if it is sensitive.
func (r *Redactor) ID(i *Instance) string {
	id := i.ID()
	if id == "" || len(i.Sensitive) == 0 || !i.IsSensitive("id") || r == nil || r.id == "" {
		return id
	}
	v, _ := i.Get("id")
	if Kept(v) {
		return id
	}
	return textOf(r.hash(v))
}

// Identifier is what a stored instance has in the place of a sensitive identifier.
func (r *Redactor) Identifier(text string) string {
	quoted, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		return text
	}
	return textOf(r.hash(quoted))
}

// SameID reports whether two instances have the same id, one of which may be stored.
func (r *Redactor) SameID(a, b *Instance) bool {
	if a.ID() == b.ID() {
		return true
	}
	x, _ := a.Get("id")
	y, _ := b.Get("id")
	return (Kept(x) || Kept(y)) && r.Equal(x, y)
}

// ShownID is the instance's id as others may see it.
func (r *Redactor) ShownID(i *Instance) string {
	if len(i.Sensitive) == 0 || i.ID() == "" || !i.IsSensitive("id") {
		return i.ID()
	}
	v, _ := i.Get("id")
	return textOf(r.Value(v))
}

// Alike reports whether nothing is known to differ between an instance that was stored and one that was read, under the
// same address.
func (r *Redactor) Alike(stored, read *Instance) bool {
	if stored.Hash == read.Hash {
		return true
	}
	return stored.Provider == read.Provider && stored.Tainted == read.Tainted && HasKept(stored.Attributes) &&
		r.Equal(stored.Attributes, read.Attributes)
}

// Reveal is a stored instance with the values in the place of its hashes that read still has in the same places; nil if
// there is none. It is read itself if nothing differs between them.
func (r *Redactor) Reveal(stored, read *Instance) *Instance {
	attributes := r.appendRevealed(nil, stored.Attributes, read.Attributes)
	if bytes.Equal(attributes, stored.Attributes) {
		return nil
	}
	i := *stored
	i.Attributes, i.Hash = attributes, xxhash.Sum64(attributes)
	i.hashProvider()
	if i.Address == read.Address && i.Hash == read.Hash && i.SchemaVersion == read.SchemaVersion && slices.Equal(i.Sensitive, read.Sensitive) {
		return read
	}
	return &i
}

// appendRevealed appends stored with values of read in the place of hashes.
func (r *Redactor) appendRevealed(to, stored, read jsontext.Value) jsontext.Value {
	switch {
	case read == nil || !HasKept(stored):
		return append(to, stored...)
	case Kept(stored):
		if keptBy(stored) == r.id && r.Equal(stored, read) {
			return append(to, read...)
		}
		return append(to, stored...)
	case stored.Kind() == '{':
		to = append(to, '{')
		object(stored, func(quoted, value jsontext.Value) bool {
			now, _ := get(read, []step{{textOf(quoted), -1}})
			to = append(append(to, quoted...), ':')
			to = append(r.appendRevealed(to, value, now), ',')
			return true
		})
		return closed(to, '}')
	case stored.Kind() == '[':
		now, n := elementsOf(read), 0
		to = append(to, '[')
		array(stored, func(value jsontext.Value) bool {
			to = append(r.appendRevealed(to, value, at(now, n)), ',')
			n++
			return true
		})
		return closed(to, ']')
	}
	return append(to, stored...)
}

// marks are the paths of sensitive values, seen from a value: one without steps left is over all of it.
type marks [][]step

// over reports that all of a value of this kind is marked, also by a mark that does not fit: better hidden than shown.
func (m marks) over(kind jsontext.Kind) bool {
	return slices.ContainsFunc(m, func(s []step) bool {
		return len(s) == 0 || kind != '{' && s[0].index < 0 || kind != '[' && s[0].index >= 0
	})
}

// below are the marks as a member or element sees them.
func (m marks) below(fits func(step) bool) marks {
	var all marks
	for _, steps := range m {
		if fits(steps[0]) {
			all = append(all, steps[1:])
		}
	}
	return all
}

var everything = marks{nil}

// appendKept appends v with hashes in the place of the scalars under the marks.
func (r *Redactor) appendKept(to, v jsontext.Value, m marks) jsontext.Value {
	if len(m) == 0 {
		return append(to, v...)
	}
	whole := m.over(v.Kind())
	switch v.Kind() {
	case '{':
		to = append(to, '{')
		object(v, func(quoted, value jsontext.Value) bool {
			under := everything
			if !whole {
				under = m.below(func(s step) bool { return named(quoted, s.name) })
			}
			to = append(append(to, quoted...), ':')
			to = append(r.appendKept(to, value, under), ',')
			return true
		})
		return closed(to, '}')
	case '[':
		to = append(to, '[')
		i := 0
		array(v, func(value jsontext.Value) bool {
			under := everything
			if !whole {
				under = m.below(func(s step) bool { return s.index == i })
			}
			to = append(r.appendKept(to, value, under), ',')
			i++
			return true
		})
		return closed(to, ']')
	}
	if plainly(v) || Kept(v) {
		return append(to, v...)
	}
	return append(to, r.hash(v)...)
}

// closed puts the bracket in the place of the last comma, or behind an empty one's other bracket.
func closed(to jsontext.Value, bracket byte) jsontext.Value {
	if to[len(to)-1] == ',' {
		to[len(to)-1] = bracket
		return to
	}
	return append(to, bracket)
}

// stored is the first line of an instance's body; the second is its attributes.
type stored struct {
	Provider      string `json:"provider"`
	Tainted       bool   `json:"tainted,omitzero"`
	SchemaVersion uint64 `json:"schema_version,omitzero"`
	Sensitive     []Path `json:"sensitive,omitzero"`
}

// storedFormat is the first byte of a body; behind it stand 16 hex digits of xxhash64 over the key and the lines, which
// follow.
const (
	storedFormat = '1'
	storedHead   = 17
)

var (
	// ErrDamaged is wrapped by the error for a stored instance that is not as it was written.
	ErrDamaged = errors.New("a stored instance is damaged")
	// ErrNewer is the error for a stored instance of a later form.
	ErrNewer = errors.New("a stored instance has a newer form than this program knows")
)

// Store gives an instance as two texts that Unstore makes it from again: its address and all the rest, with hashes in the
// place of what its state marks as sensitive.
func (r *Redactor) Store(i *Instance) (key, body []byte) {
	a := i.Address
	mode := "managed"
	if a.Data {
		mode = "data"
	}
	key, _ = json.Marshal([]string{mode, a.Module, a.Type, a.Name, a.Key, a.Deposed}, lenient)
	line, _ := json.Marshal(stored{i.Provider, i.Tainted, i.SchemaVersion, i.Sensitive}, lenient)
	body = make([]byte, storedHead, storedHead+len(line)+1+len(i.Attributes))
	body = append(append(body, line...), '\n')
	m := make(marks, len(i.Sensitive))
	for n, p := range i.Sensitive {
		m[n] = p.steps()
	}
	body = r.appendKept(body, i.Attributes, m)
	copy(body, fmt.Sprintf("%c%016x", storedFormat, checksum(key, body[storedHead:])))
	return key, body
}

func checksum(key, text []byte) uint64 {
	h := xxhash.New()
	_, _ = h.Write(key)
	_, _ = h.Write(text)
	return h.Sum64()
}

// Unstorer makes instances from what Store gave. One serves for many instances, which share texts; it is not safe for
// concurrent use.
type Unstorer struct{ names map[string]string }

// Unstore makes one instance; it keeps no part of key and body. Errors are ErrNewer, or wrap ErrDamaged; none quotes a
// value.
func (u *Unstorer) Unstore(key, body []byte) (*Instance, error) {
	if len(body) < storedHead || body[0] < storedFormat {
		return nil, ErrDamaged
	}
	if body[0] > storedFormat {
		return nil, ErrNewer
	}
	text := body[storedHead:]
	if sum, err := strconv.ParseUint(string(body[1:storedHead]), 16, 64); err != nil || sum != checksum(key, text) {
		return nil, fmt.Errorf("%w: the checksum differs", ErrDamaged)
	}
	line, attributes, _ := bytes.Cut(text, []byte{'\n'})
	var a []string
	var s stored
	if json.Unmarshal(key, &a, lenient) != nil || len(a) != 6 || json.Unmarshal(line, &s, lenient) != nil ||
		jsontext.Value(attributes).Kind() != '{' || !jsontext.Value(attributes).IsValid(lenient) {
		return nil, fmt.Errorf("%w: it is not in the form in which it was written", ErrDamaged)
	}
	i := &Instance{
		Address:  Address{Data: a[0] == "data", Module: u.shared(a[1]), Type: u.shared(a[2]), Name: a[3], Key: a[4], Deposed: a[5]},
		Provider: u.shared(s.Provider), Tainted: s.Tainted, SchemaVersion: s.SchemaVersion, Sensitive: s.Sensitive,
		Attributes: jsontext.Value(bytes.Clone(attributes)),
	}
	i.Hash = xxhash.Sum64(i.Attributes)
	i.hashProvider()
	return i, nil
}

func (u *Unstorer) shared(s string) string {
	if one, ok := u.names[s]; ok {
		return one
	}
	if u.names == nil {
		u.names = map[string]string{}
	}
	if len(u.names) < maxShared {
		u.names[s] = s
	}
	return s
}
