package hub

import (
	"cmp"
	"slices"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// ring holds the newest messages, up to a number and a size; the newest one always. It is not safe for concurrent use.
type ring struct {
	messages  []journal.Stored // oldest first; trimmed in front
	most      int
	mostBytes int
	bytes     int
	base      wire.ID // the newest message that is not held: behind it the ring has everything
	newest    wire.ID
}

func newRing(most, mostBytes int) ring { return ring{most: most, mostBytes: mostBytes} }

// startAfter says which message came before the first one added, some of which may have been added already.
func (r *ring) startAfter(id wire.ID) {
	if r.base.IsZero() {
		r.base = id
	}
	if r.newest.IsZero() {
		r.newest = id
	}
}

func (r *ring) add(m journal.Stored) {
	r.messages = append(r.messages, m)
	r.bytes += len(m.Body)
	r.newest = m.ID
	drop := 0
	for len(r.messages)-drop > 1 && (len(r.messages)-drop > r.most || r.bytes > r.mostBytes) {
		r.bytes -= len(r.messages[drop].Body)
		r.base = r.messages[drop].ID
		drop++
	}
	clear(r.messages[:drop])
	r.messages = r.messages[drop:]
}

// after gives the messages behind id, oldest first; ok is false where the ring does not have them all. What it gives is
// the ring's own: to be read under its lock.
func (r *ring) after(id wire.ID) (messages []journal.Stored, ok bool) {
	if id.Compare(r.base) < 0 {
		return nil, false
	}
	at, found := slices.BinarySearchFunc(r.messages, id, func(m journal.Stored, id wire.ID) int {
		return cmp.Compare(m.ID.Compare(id), 0)
	})
	if found {
		at++
	}
	return r.messages[at:], true
}
