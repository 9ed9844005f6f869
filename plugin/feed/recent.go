package feed

import "github.com/cespare/xxhash/v2"

// recent remembers the records handed out last, so that none is told twice whose file was copied: anew over itself, as a
// download that is repeated, or by a rotation that copies or packs what it puts away. Run owns it.
type recent struct {
	records map[uint64]bool
	ring    []uint64 // the records by age; when it is full, next is the oldest
	next    int
}

// maxRecent records are remembered: a few MB, and some hundred files as CloudTrail writes them.
const maxRecent = 1 << 16

// has reports whether a record is remembered; sum is what to note it by.
func (r *recent) has(text []byte) (sum uint64, known bool) {
	sum = xxhash.Sum64(text)
	return sum, r.records[sum]
}

// note remembers a record that was not.
func (r *recent) note(sum uint64) {
	if len(r.ring) < maxRecent {
		if r.records == nil {
			r.records = map[uint64]bool{}
		}
		r.ring = append(r.ring, sum)
	} else {
		delete(r.records, r.ring[r.next])
		r.ring[r.next], r.next = sum, (r.next+1)%maxRecent
	}
	r.records[sum] = true
}
