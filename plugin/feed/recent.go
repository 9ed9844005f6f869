package feed

import "github.com/cespare/xxhash/v2"

// recent remembers the records handed out last and the paths of their files, so that a file that is copied anew over itself
// is not told twice: a download that is repeated, or was cut off and begins again. Run owns it.
type recent struct {
	paths   map[uint64]bool
	records map[uint64]bool
	ring    []uint64 // the records by age; when it is full, next is the oldest
	next    int
}

// maxRecent records are remembered: a few MB, and some hundred files as CloudTrail writes them.
const maxRecent = 1 << 16

// path notes a path and reports whether it was known.
func (r *recent) path(path string) bool {
	if r.paths == nil || len(r.paths) >= maxFiles {
		r.paths = map[uint64]bool{}
	}
	sum := xxhash.Sum64String(path)
	known := r.paths[sum]
	r.paths[sum] = true
	return known
}

// record notes a record and reports whether it was known. Where it does not matter, nothing is looked up.
func (r *recent) record(text []byte, matters bool) bool {
	sum := xxhash.Sum64(text)
	if matters && r.records[sum] {
		return true
	}
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
	return false
}
