package inventory

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// snapshot is one content. Once it is in a history, only replace changes it.
type snapshot struct {
	Snapshot
	n         int64 // from 1, growing by one within a state, whatever its serials do
	terraform string
	all       []*tfstate.Instance // sorted by address
	digest    uint64              // over all instances; their order means nothing
	accounts  map[string]string   // by provider configuration
	regions   map[string]string   // likewise
}

// sort puts instances in order that have all been read.
func (s *snapshot) sort() {
	slices.SortStableFunc(s.all, func(a, b *tfstate.Instance) int { return a.Address.Compare(b.Address) })
	s.all = slices.Clip(slices.CompactFunc(s.all, func(a, b *tfstate.Instance) bool { return a.Address == b.Address }))
}

// finish makes a snapshot usable whose instances are in order.
func (s *snapshot) finish() {
	h := xxhash.New()
	var hash [8]byte
	for _, i := range s.all {
		for _, part := range []string{i.Address.Module, i.Address.Type, i.Address.Name, i.Address.Key, i.Address.Deposed} {
			_, _ = h.WriteString(part)
			_, _ = h.Write(hash[:1]) // between two parts: any byte will do
		}
		binary.LittleEndian.PutUint64(hash[:], i.Hash)
		_, _ = h.Write(hash[:])
	}
	s.digest = h.Sum64()
	s.accounts, s.regions = places(s.all)
}

// at is the instance at an address, nil if there is none.
func (s *snapshot) at(a tfstate.Address) *tfstate.Instance { return at(s.all, a) }

func at(all []*tfstate.Instance, a tfstate.Address) *tfstate.Instance {
	n, ok := slices.BinarySearchFunc(all, a, func(i *tfstate.Instance, a tfstate.Address) int { return i.Address.Compare(a) })
	if !ok {
		return nil
	}
	return all[n]
}

// after puts the time right that the place of the state gave, where it cannot be: a serial is not written before the one
// before it. A copy that kept its file's time, or a clock that was set, says so; what is sure then is that it lay there when
// it was read, and not when the one before it was.
func (s *snapshot) after(before *snapshot, now time.Time) {
	if s.Lineage == before.Lineage && s.Written.Before(before.Written) && s.Written.Before(now) {
		s.Written = now.UTC()
	}
}

// history is what is kept of one state, oldest first. The inventory's mu guards it.
type history struct {
	uri       string
	read      time.Time
	fault     error
	hashed    []*tfstate.Instance // with hashes in the place of values; telling guards it
	stored    int64               // the newest snapshot that was stored and not read
	unread    bool                // known from what was stored alone; telling guards it too
	snapshots []*snapshot
	accounts  map[string]string // of the newest snapshot
	regions   map[string]string // likewise
	// aged are the instances that the index has although the newest snapshot lacks them, with the last that has them.
	aged map[*tfstate.Instance]*snapshot
}

func (h *history) newest() *snapshot {
	if h == nil || len(h.snapshots) == 0 {
		return nil
	}
	return h.snapshots[len(h.snapshots)-1]
}

// swap makes next the newest snapshot of its state, in the place of the newest or beside it. The caller holds telling, so
// nobody else changes histories; what there is to do is found out before readers are made to wait.
func (v *Inventory) swap(next *snapshot, replace bool) {
	v.mu.RLock()
	h := v.states[next.State]
	v.mu.RUnlock()
	p := v.plan(h, next, replace)
	v.mu.Lock()
	defer v.mu.Unlock()
	if h = v.states[next.State]; h == nil {
		h = &history{uri: next.State, aged: map[*tfstate.Instance]*snapshot{}}
		v.states[next.State] = h
	}
	v.index.remove(h, p.removed)
	for i := range p.removed {
		delete(h.aged, i)
	}
	for i, identifiers := range p.aged {
		v.index.age(h, i, identifiers)
		h.aged[i] = h.newest()
	}
	for i, identifiers := range p.added {
		account, region := placeOf(i)
		v.index.add(&held{state: h, instance: i, account: account, region: region, current: true}, identifiers)
	}
	h.read, h.fault, h.unread = time.Now(), nil, false
	h.accounts, h.regions = next.accounts, next.regions
	h.snapshots = append(p.kept, next)
	if h.snapshots[0].n > h.stored {
		h.hashed = nil // forgotten
	}
}

// plan is what a new snapshot changes: the older ones that stay, and instances with what the index has them under.
type plan struct {
	kept                 []*snapshot
	added, aged, removed map[*tfstate.Instance][]found
}

// plan compares next with the newest snapshot, if there is one, whose place it takes or not; one of another lineage takes
// that of all.
func (v *Inventory) plan(h *history, next *snapshot, replace bool) plan {
	p := plan{
		added: map[*tfstate.Instance][]found{}, aged: map[*tfstate.Instance][]found{}, removed: map[*tfstate.Instance][]found{},
	}
	before := h.newest()
	if before == nil {
		before = &snapshot{}
	} else {
		p.kept = v.kept(h, next, replace)
	}
	gone, came := parted(before.all, next.all)
	objects := map[object]bool{}
	for _, i := range came {
		p.added[i] = v.index.find(i)
		objects[v.objectOf(i)] = true
	}
	for _, i := range gone {
		if len(p.kept) == 0 || objects[v.objectOf(i)] {
			p.removed[i] = v.index.find(i)
		} else {
			p.aged[i] = v.index.find(i)
		}
	}
	if h != nil {
		for i, last := range h.aged {
			if !slices.Contains(p.kept, last) || objects[v.objectOf(i)] {
				p.removed[i] = v.index.find(i)
			}
		}
	}
	return p
}

// kept are the older snapshots that stay beside next.
func (v *Inventory) kept(h *history, next *snapshot, replace bool) []*snapshot {
	newest := h.newest()
	switch {
	case newest.Lineage != next.Lineage:
		return nil
	case replace:
		return slices.Clone(h.snapshots[:len(h.snapshots)-1])
	}
	return slices.Clone(h.snapshots[max(0, len(h.snapshots)-v.o.History+1):])
}

// parted walks two sorted lists and gives what only one of them has.
func parted(before, next []*tfstate.Instance) (gone, came []*tfstate.Instance) {
	for len(before) > 0 && len(next) > 0 {
		o, n := before[0], next[0]
		order := 0
		if o != n {
			order = o.Address.Compare(n.Address)
		}
		if o != n && order <= 0 {
			gone = append(gone, o)
		}
		if o != n && order >= 0 {
			came = append(came, n)
		}
		if order <= 0 {
			before = before[1:]
		}
		if order >= 0 {
			next = next[1:]
		}
	}
	return append(gone, before...), append(came, next...)
}

// object is what stays the same when an instance changes or moves: the provider's id, or else the address.
type object struct {
	typ, id string
	address tfstate.Address
}

func (v *Inventory) objectOf(i *tfstate.Instance) object {
	if id := v.o.Redactor.ID(i); id != "" {
		return object{typ: i.Address.Type, id: id}
	}
	return object{address: i.Address}
}
