// Package inventory holds what all states say, now and at their last serials.
//
// In come contents of states from sources; out go new serials with what changed in them, in order for each state, and
// answers: which instances an identifier names in an account and region, and what an instance was before a moment. A
// content is parsed beside what is known and swapped in when it is whole, so readers wait for a pointer at most, and a
// broken one changes nothing. Instances that did not change are shared between the serials.
//
// Snapshots are ordered within one lineage; another lineage under the same URI begins a new history. Start reading at
// Version and Lookup; index.go finds identifiers.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// Options of an Inventory. The zero value works.
type Options struct {
	History  int               // serials kept of each state; default 10
	Redactor *tfstate.Redactor // of the values in Serial.Changes
	Log      *slog.Logger
	// OnSerial takes every new serial, one at a time and in order; reading states waits for it.
	OnSerial func(Serial)
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

// snapshot is one content. It is not changed once it is in a history.
type snapshot struct {
	Snapshot
	terraform string
	all       []*tfstate.Instance
	byAddress map[tfstate.Address]*tfstate.Instance
	digest    uint64 // over all instances
	accounts  map[string]string
}

// history is what is kept of one state, oldest first.
type history struct {
	read      time.Time
	fault     error
	snapshots []*snapshot
}

func (h *history) newest() *snapshot {
	if h == nil || len(h.snapshots) == 0 {
		return nil
	}
	return h.snapshots[len(h.snapshots)-1]
}

// Inventory is safe for concurrent use.
type Inventory struct {
	o   Options
	log *slog.Logger

	telling sync.Mutex // one content at a time is compared, swapped in and told

	mu     sync.RWMutex
	states map[string]*history
	index  map[string][]*entry // by identifier
}

var _ source.Sink = (*Inventory)(nil)

// New makes an empty inventory.
func New(o Options) *Inventory {
	if o.History == 0 {
		o.History = 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Inventory{o: o, log: o.Log.With("component", "inventory"), states: map[string]*history{}, index: map[string][]*entry{}}
}

// Version takes one content: see source.Sink. The error is the reader's or the parser's.
func (v *Inventory) Version(ctx context.Context, content source.Version) error {
	next, err := v.parse(ctx, content)
	if err != nil {
		return err
	}
	v.telling.Lock()
	defer v.telling.Unlock()
	v.mu.RLock()
	before := v.states[content.URI].newest()
	v.mu.RUnlock()
	if before != nil && before.Lineage == next.Lineage && before.Serial == next.Serial && before.digest == next.digest {
		v.mu.Lock()
		v.states[content.URI].read = time.Now()
		v.mu.Unlock()
		return nil
	}
	told := Serial{
		State: next.State, Lineage: next.Lineage, Terraform: next.terraform, Serial: next.Serial, Written: next.Written,
		First: before == nil, Instances: len(next.all),
	}
	if before != nil {
		told.Previous = before.Serial
		told.Findings = findings(before, next)
		share(before, next)
		if before.Lineage == next.Lineage {
			told.Changes = tfstate.Diff(before.all, next.all, v.o.Redactor)
		}
	}
	v.swap(next)
	if v.o.OnSerial != nil {
		v.o.OnSerial(told)
	}
	return nil
}

func (v *Inventory) parse(ctx context.Context, content source.Version) (s *snapshot, err error) {
	r, err := content.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("read state %q: %w", content.URI, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s = &snapshot{
		Snapshot:  Snapshot{State: content.URI, Written: content.Written.UTC()},
		byAddress: map[tfstate.Address]*tfstate.Instance{},
	}
	header, err := tfstate.Read(r, func(i *tfstate.Instance) error {
		s.all = append(s.all, i)
		s.byAddress[i.Address] = i
		s.digest += xxhash.Sum64String(i.Address.String()) ^ i.Hash*31 // a sum: the order means nothing
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read state %q: %w", content.URI, err)
	}
	s.Serial, s.Lineage, s.terraform = header.Serial, header.Lineage, header.TerraformVersion
	s.accounts = accounts(s.all)
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

// share puts the older instance in the place of an equal newer one, which can then be forgotten.
func share(before, next *snapshot) {
	for i, n := range next.all {
		if o := before.byAddress[n.Address]; o != nil && o.Hash == n.Hash && slices.Equal(o.Sensitive, n.Sensitive) && o.Provider == n.Provider {
			next.all[i] = o
			next.byAddress[n.Address] = o
		}
	}
}

// swap makes next the newest of its state.
func (v *Inventory) swap(next *snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.states[next.State]
	if h == nil {
		h = &history{}
		v.states[next.State] = h
	}
	h.read, h.fault = time.Now(), nil
	kept := h.snapshots
	if newest := h.newest(); newest != nil && newest.Lineage != next.Lineage {
		kept = nil
	}
	h.snapshots = append(slices.Clone(kept[max(0, len(kept)-v.o.History+1):]), next)
	v.reindex(next.State, h)
}

// Fault takes a source's word on a state: see source.Sink.
func (v *Inventory) Fault(uri string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.states[uri]
	if h == nil {
		if err == nil {
			return
		}
		h = &history{}
		v.states[uri] = h
	}
	if err != nil && h.fault == nil {
		v.log.Warn("state cannot be read", "state", uri, "cause", err)
	} else if err == nil && h.fault != nil {
		v.log.Info("state can be read again", "state", uri)
	}
	h.fault = err
}

// At is the instance in the newest snapshot written strictly before a moment, with that snapshot. It is false when no
// snapshot is that old (the Snapshot is then zero) or when that snapshot lacks the address.
func (v *Inventory) At(state string, a tfstate.Address, before time.Time) (*tfstate.Instance, Snapshot, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h := v.states[state]
	if h == nil {
		return nil, Snapshot{}, false
	}
	for _, s := range slices.Backward(h.snapshots) {
		if s.Written.Before(before) {
			i, ok := s.byAddress[a]
			return i, s.Snapshot, ok
		}
	}
	return nil, Snapshot{}, false
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

// byState orders candidates so that the same question gets the same answer.
func byState(a, b Candidate) int {
	if c := strings.Compare(a.State, b.State); c != 0 {
		return c
	}
	return strings.Compare(a.Instance.Address.String(), b.Instance.Address.String())
}
