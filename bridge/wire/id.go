package wire

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// ID is a message's place in the one order of the journal: the milliseconds since 1970 at which it was journalled, and a
// number that tells apart what the same millisecond holds. IDs only grow, over restarts too. The zero ID comes before
// every message.
type ID struct {
	Millis uint64
	N      uint64
}

// ParseID reads "<milliseconds>-<n>". The error quotes what was given.
func ParseID(s string) (ID, error) {
	millis, n, ok := strings.Cut(s, "-")
	if ok {
		m, err1 := strconv.ParseUint(millis, 10, 64)
		k, err2 := strconv.ParseUint(n, 10, 64)
		if err1 == nil && err2 == nil {
			return ID{m, k}, nil
		}
	}
	return ID{}, fmt.Errorf(`parse id %q: want "<milliseconds>-<n>", as in "1763640000000-0"`, s)
}

// String writes the ID as the wire has it.
func (id ID) String() string {
	return strconv.FormatUint(id.Millis, 10) + "-" + strconv.FormatUint(id.N, 10)
}

// Compare orders IDs as numbers, not as text.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Millis, other.Millis), cmp.Compare(id.N, other.N))
}

// IsZero reports the ID before every message.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText writes the ID as the wire has it.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// Cursor is a place in the order of one journal: what a client has seen up to. The zero Cursor comes before every message of
// any journal.
type Cursor struct {
	// Epoch is the journal's; "" where the client does not say and the one that is asked is meant.
	Epoch string
	ID    ID
}

// ParseCursor reads "<epoch>/<id>", or an id alone. The error quotes what was given.
func ParseCursor(s string) (Cursor, error) {
	epoch, text, ok := strings.Cut(s, "/")
	if !ok {
		epoch, text = "", s
	}
	id, err := ParseID(text)
	if err != nil || ok && epoch == "" {
		return Cursor{}, fmt.Errorf(`parse cursor %q: want "<milliseconds>-<n>" or "<epoch>/<milliseconds>-<n>"`, s)
	}
	return Cursor{epoch, id}, nil
}

// String writes the cursor as ParseCursor reads it.
func (c Cursor) String() string {
	if c.Epoch == "" {
		return c.ID.String()
	}
	return c.Epoch + "/" + c.ID.String()
}
