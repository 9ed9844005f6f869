// Package inventory holds what all states say, now and at their last serials.
//
// In come contents of states from sources; out go new serials with what changed in them, in order for each state, and
// answers: which instances an identifier names in an account and region, and what an instance was before a moment. A
// content is parsed and compared beside what is known and swapped in when it is whole; a broken one changes nothing.
// Instances that did not change are shared between the serials, and a swap touches the others alone, so readers wait as long
// as what changed takes to index (some microseconds an instance).
//
// Snapshots are ordered within one lineage, as they were read; another lineage under the same URI begins a new history.
// Start reading at Version and Lookup; history.go keeps serials, index.go finds identifiers.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// Options of an Inventory. The zero value works.
type Options struct {
	History  int               // serials kept of each state; default 10, which 0 or less means too
	Redactor *tfstate.Redactor // of the values in Serial.Changes; with Past one that is Keeping
	Log      *slog.Logger
	// OnSerial takes every new serial, one at a time and in order; reading states waits for it.
	OnSerial func(Serial)
	// Past gives what was stored of a state's earlier serials. It is asked once for each state, before the state is read. An
	// error is about what was stored, which is then not asked for again, unless it wraps ErrLater. Nil keeps what the process
	// has seen and no more.
	Past func(ctx context.Context, state string) (Past, error)
}

// Serial is one content of a state that was not known before.
type Serial struct {
	State, Lineage, Terraform string
	Serial, Previous          uint64 // Previous is 0 for the first
	Written                   time.Time
	First                     bool // the first content read: nothing to compare with
	Instances                 int
	Changes                   []tfstate.Change
	Findings                  []Finding
	// Again marks what Options.Past gave already and was now read, with at most other marks of what is sensitive: there is
	// nothing to tell. Only an inventory with a past has such.
	Again bool
	Keep  *Keep // what is to be stored; nil if there is no Past, or nothing is new
}

// Finding is something about the state itself.
type Finding struct {
	Kind   string // SerialBackwards, LineageChanged or SameSerial
	Detail string
}

// The kinds of findings.
const (
	SerialBackwards = "serial_backwards"
	LineageChanged  = "lineage_changed"
	SameSerial      = "same_serial" // the same serial with other content
)

// Snapshot names one content of one state.
type Snapshot struct {
	State, Lineage string
	Serial         uint64
	Written        time.Time
}

// Info is what is known of one state.
type Info struct {
	Snapshot
	Terraform string
	Instances int
	Read      time.Time // when it was last read whole; zero if never
	Fault     error     // why it cannot be read now
}

// Inventory is safe for concurrent use.
type Inventory struct {
	o   Options
	log *slog.Logger

	telling sync.Mutex      // one content at a time is compared, swapped in and told
	fresh   map[string]bool // states of which what was stored is of no use

	mu      sync.RWMutex
	states  map[string]*history
	asked   map[string]chan struct{} // states whose past was asked for, closed when it is there
	turns   map[string]chan struct{} // by state; holds a value while a content of it is being read and told
	index   index
	figures Figures // those that count up
}

var _ source.Sink = (*Inventory)(nil)

// New makes an empty inventory.
func New(o Options) *Inventory {
	if o.History <= 0 {
		o.History = 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Inventory{
		o: o, log: o.Log.With("component", "inventory"), states: map[string]*history{}, index: newIndex(),
		fresh: map[string]bool{}, asked: map[string]chan struct{}{}, turns: map[string]chan struct{}{},
	}
}

// Version takes one content: see source.Sink. The error is the reader's or the parser's.
func (v *Inventory) Version(ctx context.Context, content source.Version) error {
	over, err := v.turn(ctx, content.URI)
	if err != nil {
		return fmt.Errorf("read state %q: %w", content.URI, err)
	}
	defer over()
	if err := v.remember(ctx, content.URI); err != nil {
		return fmt.Errorf("read state %q: %w", content.URI, err)
	}
	next, err := v.parse(ctx, content)
	if err != nil {
		return err
	}
	v.telling.Lock()
	defer v.telling.Unlock()
	v.mu.RLock()
	h := v.states[content.URI]
	before := h.newest()
	v.mu.RUnlock()
	v.reveal(h, next)
	told := Serial{
		State: next.State, Lineage: next.Lineage, Terraform: next.terraform, Serial: next.Serial,
		First: before == nil, Instances: len(next.all),
	}
	switch {
	case v.same(before, next):
		keep, first := v.touched(h, before, next)
		if keep == nil && !first {
			return nil
		}
		told.Again, told.Keep, told.Written, told.Previous = true, keep, before.Written, before.Serial
	case before == nil:
		told.Keep = v.swapped(nil, next)
		told.Written = next.Written
	default:
		told.Previous = before.Serial
		told.Findings = findings(before, next)
		next.after(before, time.Now())
		if before.Lineage == next.Lineage {
			told.Changes = tfstate.Diff(before.all, next.all, v.o.Redactor)
		}
		next.n = before.n
		told.Keep = v.swapped(before.all, next)
		told.Written = next.Written
	}
	if v.o.OnSerial != nil {
		v.o.OnSerial(told)
	}
	return nil
}

// turn waits until no other content of a state is being read: two sources may speak of one state, and what one has read is
// not to be told after what the other has read since.
func (v *Inventory) turn(ctx context.Context, state string) (over func(), err error) {
	v.mu.Lock()
	turn := v.turns[state]
	if turn == nil {
		turn = make(chan struct{}, 1)
		v.turns[state] = turn
	}
	v.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// swapped makes next, which has the number of the one before it, the newest, and gives what is to be stored.
func (v *Inventory) swapped(before []*tfstate.Instance, next *snapshot) *Keep {
	next.n++
	v.swap(next, false)
	v.mu.Lock()
	v.figures.Serials++
	v.mu.Unlock()
	return v.keep(before, next)
}

// touched notes that a content was read again. What is new in it, such as which values are sensitive, counts from now on;
// there is nothing to tell. What is to be stored of it is nil if nothing is new; first says that the content was only known
// from what was stored.
func (v *Inventory) touched(h *history, before, next *snapshot) (keep *Keep, first bool) {
	next.Written, next.n = before.Written, before.n
	first, h.unread = h.unread, false
	if !slices.Equal(before.all, next.all) {
		for n, i := range next.all { // before may have become the newest since next was read
			next.all[n] = shared(before.all, i)
		}
	}
	if !slices.Equal(before.all, next.all) {
		v.swap(next, true)
		return v.keep(before.all, next), first
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h.read, h.fault, before.digest = time.Now(), nil, next.digest
	return nil, first
}

// parse reads a content. Instances that did not change are those of the newest snapshot.
func (v *Inventory) parse(ctx context.Context, content source.Version) (s *snapshot, err error) {
	start := time.Now()
	r, err := content.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state %q: %w", content.URI, err)
	}
	count := &counter{Reader: r}
	defer func() {
		err = errors.Join(err, r.Close())
		v.parsed(start, count.n)
	}()
	v.mu.RLock()
	var before []*tfstate.Instance
	if newest := v.states[content.URI].newest(); newest != nil {
		before = newest.all
	}
	v.mu.RUnlock()
	s = &snapshot{Snapshot: Snapshot{State: content.URI, Written: content.Written.UTC()}}
	s.all = make([]*tfstate.Instance, 0, len(before))
	header, err := tfstate.Read(count, func(i *tfstate.Instance) error {
		s.all = append(s.all, shared(before, i))
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read state %q: %w", content.URI, err)
	}
	s.Serial, s.Lineage, s.terraform = header.Serial, header.Lineage, header.TerraformVersion
	s.sort()
	s.finish()
	return s, nil
}

func findings(before, next *snapshot) []Finding {
	switch {
	case before.Lineage != next.Lineage:
		return []Finding{{LineageChanged, fmt.Sprintf("lineage %q after %q: another state lies in this place", next.Lineage, before.Lineage)}}
	case next.Serial < before.Serial:
		return []Finding{{SerialBackwards, fmt.Sprintf("serial %d after %d: an older state was put back", next.Serial, before.Serial)}}
	case next.Serial == before.Serial:
		return []Finding{{SameSerial, fmt.Sprintf("serial %d again with other content: it was written past Terraform, or from two places", next.Serial)}}
	}
	return nil
}

// Fault takes a source's word on a state: see source.Sink.
func (v *Inventory) Fault(uri string, err error) {
	if err != nil {
		_ = v.remember(context.Background(), uri) // what it was stands although it cannot be read
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.states[uri]
	if h == nil {
		if err == nil {
			return
		}
		h = &history{uri: uri, aged: map[*tfstate.Instance]*snapshot{}}
		v.states[uri] = h
	}
	if err != nil && h.fault == nil {
		v.log.Warn("state cannot be read", "state", uri, "cause", err)
	}
	over := err == nil && h.fault != nil
	h.fault = err
	switch {
	case err == nil && len(h.snapshots) == 0:
		delete(v.states, uri) // never read and well: a file that is gone, or a place that states came to lie in
		if over {
			v.log.Info("what could not be read is gone, or is no state", "state", uri)
		}
	case over:
		v.log.Info("state can be read again", "state", uri)
	}
}

// At is the instance in the newest snapshot written strictly before a moment, with that snapshot. It is false when no
// snapshot is that old (the Snapshot is then zero) or when that snapshot lacks the address. An instance that stood at
// another address by then, under the same id, is given as it stood there.
func (v *Inventory) At(state string, a tfstate.Address, before time.Time) (*tfstate.Instance, Snapshot, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.states[state]
	if h == nil {
		return nil, Snapshot{}, false
	}
	for _, s := range slices.Backward(h.snapshots) {
		if !s.Written.Before(before) {
			continue
		}
		i := s.at(a)
		if i == nil && s != h.newest() {
			i = v.moved(h, s, h.newest().at(a))
		}
		return i, s.Snapshot, i != nil
	}
	return nil, Snapshot{}, false
}

// Unseen reports whether serials lie around a moment that nobody read: the newest snapshot written before it and the next
// one are more than one serial apart. Then the instance in the next one is given, nil if that lacks it.
func (v *Inventory) Unseen(state string, a tfstate.Address, at time.Time) (next *tfstate.Instance, unseen bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.states[state]
	if h == nil {
		return nil, false
	}
	n := slices.IndexFunc(h.snapshots, func(s *snapshot) bool { return !s.Written.Before(at) })
	if n <= 0 || h.snapshots[n].Serial <= h.snapshots[n-1].Serial+1 {
		return nil, false
	}
	return h.snapshots[n].at(a), true
}

// moved is where an older snapshot has an instance of the newest one; nil if it does not have it. The caller holds mu.
func (v *Inventory) moved(h *history, s *snapshot, now *tfstate.Instance) *tfstate.Instance {
	if now == nil || now.ID() == "" {
		return nil
	}
	for _, i := range s.all {
		if i.Address.Type != now.Address.Type || i.Address.Data != now.Address.Data || !v.o.Redactor.SameID(i, now) {
			continue
		}
		if still := h.newest().at(i.Address); still == nil || !v.o.Redactor.SameID(still, now) {
			return i
		}
	}
	return nil
}

// Newest names the newest snapshot of a state.
func (v *Inventory) Newest(state string) (Snapshot, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := v.states[state].newest()
	if s == nil {
		return Snapshot{}, false
	}
	return s.Snapshot, true
}

// SameType gives the current instances of one type in a state's newest serial, data sources and deposed ones left out.
func (v *Inventory) SameType(state, typ string) []*tfstate.Instance {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []*tfstate.Instance
	if s := v.states[state].newest(); s != nil {
		for _, i := range s.all {
			if i.Address.Type == typ && !i.Address.Data && i.Address.Deposed == "" {
				all = append(all, i)
			}
		}
	}
	return all
}

// OfType gives the managed current instances of one type that are known to be in an account and a region, be it by those
// beside them, by state and address: for what an account has one of in each region, which no identifier names.
func (v *Inventory) OfType(account, region, typ string) []Candidate {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []Candidate
	for _, uri := range slices.Sorted(maps.Keys(v.states)) {
		s := v.states[uri].newest()
		if s == nil {
			continue
		}
		for _, i := range s.all {
			if i.Address.Type != typ || i.Address.Data || i.Address.Deposed != "" {
				continue
			}
			c := Candidate{State: uri, Instance: i, Near: v.states[uri].regions[i.Provider], Current: true}
			if c.Account, c.Region = placeOf(i); c.Account == "" {
				c.Account = s.accounts[i.Provider]
			}
			if c.Account != "" && c.Account == account && region != "" && cmp.Or(c.Region, c.Near) == region {
				all = append(all, c)
			}
		}
	}
	return all
}

// States lists every state heard of, by URI.
func (v *Inventory) States() []Info {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []Info
	for _, uri := range slices.Sorted(maps.Keys(v.states)) {
		all = append(all, v.info(uri))
	}
	return all
}

// State is one of States; false if nobody spoke of it.
func (v *Inventory) State(uri string) (Info, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, ok := v.states[uri]
	if !ok {
		return Info{}, false
	}
	return v.info(uri), true
}

func (v *Inventory) info(uri string) Info {
	h := v.states[uri]
	info := Info{Snapshot: Snapshot{State: uri}, Read: h.read, Fault: h.fault}
	if s := h.newest(); s != nil {
		info.Snapshot, info.Terraform, info.Instances = s.Snapshot, s.terraform, len(s.all)
	}
	return info
}
