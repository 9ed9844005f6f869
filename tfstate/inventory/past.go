package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// What is kept of a state outlives the process: every Serial carries, as plain data, what somebody is to store of it (Keep),
// and Options.Past gives back what was stored (Past) when the state is first heard of again. An inventory that was given
// its past answers as the one that was stored did. Values that a state marks sensitive come back as hashes
// (tfstate.Redactor.Keeping), which give way to the values as soon as the state is read and still has them.

// Past is what was stored of one state. The zero value is that of a state that nobody knows.
type Past struct {
	Heads []Head // oldest first
	// Rows gives every instance that one of the heads has, in any order, once; an error ends it. What a row points to may
	// change with the next one.
	Rows iter.Seq2[Row, error]
}

// ErrLater is wrapped by errors of Options.Past and of its rows that say nothing about what is stored: it could not be read
// now. The state is then not read either, so that its source tries again.
var ErrLater = errors.New("the stored history cannot be read now")

// Head is one stored snapshot without its instances.
type Head struct {
	N    int64 // from 1, growing by one within a state
	Text []byte
}

// Row is one stored instance.
type Row struct {
	First, Last int64  // the snapshots that have it; Last is 0 while the newest does
	Key, Body   []byte // of tfstate.Redactor.Store
}

// Keep is what is to be stored of one serial, so that Options.Past can give it back: it is stored whole or not at all.
type Keep struct {
	State  string
	Head   Head
	Oldest int64 // snapshots before this one, and instances whose Last is before it, can be forgotten
	Fresh  bool  // all that was stored of the state before is of no use
	// Changed is how many rows Rows gives.
	Changed int
	// Rows gives each instance that differs from those of the snapshot before: its key, and its body from this snapshot
	// on, or no body if it is gone. Bodies are made as they are asked for; the texts are the caller's.
	Rows iter.Seq2[[]byte, []byte]
	// Older are rows that were stored and get another body, because the state has come to mark more of them as sensitive: the
	// row that snapshot First has, which is not in the newest any more.
	Older []Row
}

// head is the text of a Head.
type head struct {
	Format    int       `json:"format"`
	Serial    uint64    `json:"serial"`
	Lineage   string    `json:"lineage"`
	Terraform string    `json:"terraform"`
	Written   time.Time `json:"written"`
	Instances int       `json:"instances"`
}

const headFormat = 1

// keep is what is to be stored of next, where before has the instances of the snapshot before it; nil where nobody stores.
// The caller holds telling.
func (v *Inventory) keep(before []*tfstate.Instance, next *snapshot) *Keep {
	if v.o.Past == nil {
		return nil
	}
	v.mu.RLock()
	h := v.states[next.State]
	oldest := h.snapshots[0].n
	v.mu.RUnlock()
	fresh := v.fresh[next.State]
	delete(v.fresh, next.State)
	text, _ := json.Marshal(head{headFormat, next.Serial, next.Lineage, next.terraform, next.Written, len(next.all)}) // texts and numbers alone
	gone, came := parted(before, next.all)
	older := v.mark(h, came)
	gone = slices.DeleteFunc(gone, func(i *tfstate.Instance) bool { return at(next.all, i.Address) != nil })
	return &Keep{
		State: next.State, Head: Head{next.n, text}, Oldest: oldest, Fresh: fresh, Changed: len(gone) + len(came), Older: older,
		Rows: func(yield func([]byte, []byte) bool) {
			for _, i := range gone {
				if key, _ := v.o.Redactor.Store(i); !yield(key, nil) {
					return
				}
			}
			for _, i := range came {
				if !yield(v.o.Redactor.Store(i)) {
					return
				}
			}
		},
	}
}

// mark gives older versions of instances the marks that a state has now: what is sensitive now is not to be stored as it is
// because it was not known to be then. It gives what is to be stored anew.
func (v *Inventory) mark(h *history, came []*tfstate.Instance) (rows []Row) {
	came = slices.DeleteFunc(slices.Clone(came), func(i *tfstate.Instance) bool { return len(i.Sensitive) == 0 })
	if len(came) == 0 {
		return nil
	}
	marked := map[*tfstate.Instance]*tfstate.Instance{}
	for _, s := range h.snapshots[:len(h.snapshots)-1] {
		for o, n := range v.earlier(s, h.newest(), came) {
			all := union(o.Sensitive, n.Sensitive)
			if o == n || marked[o] != nil || len(all) == len(o.Sensitive) {
				continue
			}
			i := *o
			i.Sensitive = all
			marked[o] = &i
			key, body := v.o.Redactor.Store(&i)
			rows = append(rows, Row{First: s.n, Key: key, Body: body})
		}
	}
	if len(marked) > 0 {
		v.replace(h, marked)
	}
	return rows
}

// earlier gives each instance of a snapshot that one of those given, of the newest, was then, with that one: at its address,
// or at another from which it was moved.
func (v *Inventory) earlier(s, newest *snapshot, given []*tfstate.Instance) iter.Seq2[*tfstate.Instance, *tfstate.Instance] {
	return func(yield func(o, n *tfstate.Instance) bool) {
		elsewhere, types := map[object]*tfstate.Instance{}, map[string]bool{}
		for _, n := range given {
			o := s.at(n.Address)
			if o != nil && !yield(o, n) {
				return
			}
			if o == nil || !v.o.Redactor.SameID(o, n) {
				elsewhere[v.objectOf(n)], types[n.Address.Type] = n, true
			}
		}
		if len(elsewhere) == 0 {
			return
		}
		for _, o := range s.all {
			if !types[o.Address.Type] {
				continue
			}
			n := elsewhere[v.objectOf(o)]
			if n == nil {
				continue
			}
			if still := newest.at(o.Address); still != nil && v.o.Redactor.SameID(still, o) {
				continue // it is there yet: two with one id
			}
			if !yield(o, n) {
				return
			}
		}
	}
}

func union(a, b []tfstate.Path) []tfstate.Path {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// remember gives a state its past when it is first heard of. A past that cannot be used is said, and the state's history
// starts anew; the error is that of a ctx that ended, or wraps ErrLater.
func (v *Inventory) remember(ctx context.Context, state string) error {
	if v.o.Past == nil {
		return nil
	}
	done, first := v.ask(state)
	if !first {
		<-done // two sources may speak of one state
		return nil
	}
	defer close(done)
	snapshots, err := v.revive(ctx, state)
	if ctx.Err() != nil || errors.Is(err, ErrLater) {
		v.mu.Lock()
		delete(v.asked, state)
		v.mu.Unlock()
		return cmp.Or(ctx.Err(), err)
	}
	v.telling.Lock()
	defer v.telling.Unlock()
	if err != nil {
		v.log.Warn("the stored history of a state cannot be used: it starts anew", "state", state, "cause", err)
		v.fresh[state] = true
		return nil
	}
	for _, s := range snapshots {
		v.swap(s, false)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.states[state]; h != nil && len(snapshots) > 0 {
		h.read, h.unread = time.Time{}, true
		h.hashed, h.stored = hashed(snapshots), h.newest().n
	}
	return nil
}

// ask says whether the caller is to ask for a state's past, and what is closed when it is there.
func (v *Inventory) ask(state string) (done chan struct{}, first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	done, asked := v.asked[state]
	if !asked {
		done = make(chan struct{})
		v.asked[state] = done
	}
	return done, !asked
}

// revive makes a state's snapshots from what was stored.
func (v *Inventory) revive(ctx context.Context, state string) ([]*snapshot, error) {
	past, err := v.o.Past(ctx, state)
	if err != nil || len(past.Heads) == 0 {
		return nil, err
	}
	var all []*snapshot
	var counts []int
	for _, one := range past.Heads[max(0, len(past.Heads)-v.o.History):] {
		s, count, err := revived(state, one)
		if err != nil {
			return nil, err
		}
		all, counts = append(all, s), append(counts, count)
	}
	if err := fill(all, past.Rows); err != nil {
		return nil, err
	}
	for i, s := range all {
		if len(s.all) != counts[i] {
			return nil, fmt.Errorf("serial %d has %d instances and not %d: %w", s.Serial, len(s.all), counts[i], tfstate.ErrDamaged)
		}
	}
	all[len(all)-1].finish()
	return all, nil
}

// hashed are the instances, each once, that have hashes in the place of values.
func hashed(snapshots []*snapshot) []*tfstate.Instance {
	seen := map[*tfstate.Instance]bool{}
	var all []*tfstate.Instance
	for _, s := range snapshots {
		for _, i := range s.all {
			if len(i.Sensitive) > 0 && !seen[i] && tfstate.HasKept(i.Attributes) {
				all = append(all, i)
			}
			if len(i.Sensitive) > 0 {
				seen[i] = true
			}
		}
	}
	return all
}

func revived(state string, one Head) (*snapshot, int, error) {
	var h head
	if err := json.Unmarshal(one.Text, &h); err != nil {
		return nil, 0, fmt.Errorf("snapshot %d: %w", one.N, tfstate.ErrDamaged)
	}
	if h.Format != headFormat {
		return nil, 0, fmt.Errorf("snapshot %d of form %d: %w", one.N, h.Format, tfstate.ErrNewer)
	}
	return &snapshot{
		Snapshot: Snapshot{State: state, Lineage: h.Lineage, Serial: h.Serial, Written: h.Written.UTC()}, terraform: h.Terraform, n: one.N,
	}, h.Instances, nil
}

// fill gives the snapshots, which follow each other, their instances in the order of addresses.
func fill(all []*snapshot, rows iter.Seq2[Row, error]) error {
	type span struct {
		*tfstate.Instance
		first, last int64
	}
	var spans []span
	var u tfstate.Unstorer
	oldest, newest := all[0].n, all[len(all)-1].n
	for row, err := range rows {
		if err != nil {
			return err
		}
		if row.Last == 0 {
			row.Last = newest
		}
		if row.Last < oldest || row.First > newest {
			continue
		}
		i, err := u.Unstore(row.Key, row.Body)
		if err != nil {
			return err
		}
		spans = append(spans, span{i, row.First, row.Last})
	}
	slices.SortStableFunc(spans, func(a, b span) int { return a.Address.Compare(b.Address) })
	for _, s := range all {
		for _, one := range spans {
			if one.first <= s.n && s.n <= one.last {
				s.all = append(s.all, one.Instance)
			}
		}
	}
	return nil
}

// shared is the instance that before has in the place of one just read, if nothing differs, else i itself.
func shared(before []*tfstate.Instance, i *tfstate.Instance) *tfstate.Instance {
	if o := at(before, i.Address); o != nil && o.Hash == i.Hash && o.Provider == i.Provider && o.Tainted == i.Tainted &&
		o.SchemaVersion == i.SchemaVersion && slices.Equal(o.Sensitive, i.Sensitive) {
		return o
	}
	return i
}

// reveal puts values in the place of hashes in what was stored of a state, where next still has them. The caller holds
// telling.
func (v *Inventory) reveal(h *history, next *snapshot) {
	if h == nil || len(h.hashed) == 0 {
		return
	}
	revealed := map[*tfstate.Instance]*tfstate.Instance{}
	var left []*tfstate.Instance
	for _, o := range h.hashed {
		n := o
		if i := next.at(o.Address); i != nil {
			if n = v.o.Redactor.Reveal(o, i); n == nil {
				n = o
			}
		}
		if n != o {
			revealed[o] = n
		}
		if tfstate.HasKept(n.Attributes) {
			left = append(left, n)
		}
	}
	h.hashed = left
	v.replace(h, revealed)
}

// replace puts instances in the place of others with the same address and id, in every snapshot and in the index.
func (v *Inventory) replace(h *history, by map[*tfstate.Instance]*tfstate.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[*tfstate.Instance][]found{}
	for o, n := range by {
		last, aged := h.aged[o]
		current := h.newest().at(o.Address) == o
		if !aged && !current {
			continue // older, and the index has what came after it
		}
		out[o] = v.index.find(o)
		account, region := placeOf(n)
		v.index.add(&held{state: h, instance: n, account: account, region: region, current: current}, v.index.find(n))
		if aged {
			delete(h.aged, o)
			h.aged[n] = last
		}
	}
	v.index.remove(h, out)
	for _, s := range h.snapshots {
		all := slices.Clone(s.all) // others may be walking the old list
		for i, o := range all {
			if n := by[o]; n != nil {
				all[i] = n
			}
		}
		s.all = all
	}
}

// same reports whether two contents of a state are one, as far as can be known of one that was stored.
func (v *Inventory) same(before, next *snapshot) bool {
	if before == nil || before.Lineage != next.Lineage || before.Serial != next.Serial {
		return false
	}
	return before.digest == next.digest || v.o.Past != nil && slices.EqualFunc(before.all, next.all, func(o, n *tfstate.Instance) bool {
		return o == n || o.Address == n.Address && v.o.Redactor.Alike(o, n)
	})
}
