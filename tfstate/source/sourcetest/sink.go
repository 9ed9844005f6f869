package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// State is a small state of a lineage, about 50 KB for reads to be cut in, whose content follows from its serial.
func State(lineage string, serial uint64) []byte {
	out := fmt.Appendf(nil, `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"outputs":{},"resources":[`, serial, lineage)
	for i := range 200 {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `{"mode":"managed","type":"aws_vpc","name":"v%d","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]",`+
			`"instances":[{"schema_version":1,"attributes":{"id":"vpc-%d","tags":{"serial":"%d"}},"sensitive_attributes":[]}]}`, i, i, serial)
	}
	return append(out, "]}\n"...)
}

// A Sink keeps what a source hands over, reading it as the inventory does.
type Sink struct {
	// Refuse is asked first of each content; its error is returned to the source. It is set before the source runs.
	Refuse func(uri string) error

	t       testing.TB
	changed chan struct{} // cap 1

	mu       sync.Mutex
	reading  map[string]bool
	versions map[string][]Taken
	faults   map[string]error
}

// Taken is one content that was read whole.
type Taken struct {
	Serial  uint64
	Size    int64
	Written time.Time
}

// NewSink makes an empty sink.
func NewSink(t testing.TB) *Sink {
	return &Sink{
		t: t, changed: make(chan struct{}, 1),
		reading: map[string]bool{}, versions: map[string][]Taken{}, faults: map[string]error{},
	}
}

// Watch watches a source with a new sink until the test ends.
func Watch(t testing.TB, s source.Source) *Sink {
	sink := NewSink(t)
	sink.Watch(t, s)
	return sink
}

// Watch watches a source with this sink until the test ends.
func (s *Sink) Watch(t testing.TB, from source.Source) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- from.Watch(ctx, s) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not end with its context")
		}
	})
}

// patience is how long the suite waits for what has to happen.
const patience = 30 * time.Second

// Version reads a content: see source.Sink. That all its resources are of its serial shows that it is no mixture.
func (s *Sink) Version(ctx context.Context, v source.Version) error {
	s.enter(v.URI)
	defer s.leave(v.URI)
	if s.Refuse != nil {
		if err := s.Refuse(v.URI); err != nil {
			return err
		}
	}
	r, err := v.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	var tags []string
	header, err := tfstate.Read(r, func(i *tfstate.Instance) error {
		serial, _ := i.Get("tags.serial")
		tags = append(tags, string(serial))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read state %q: %w", v.URI, err)
	}
	for _, tag := range tags {
		if want := fmt.Sprintf(`"%d"`, header.Serial); tag != want {
			s.t.Errorf("serial %d of %s holds a resource of serial %s: two contents were mixed", header.Serial, v.URI, tag)
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[v.URI] = append(s.versions[v.URI], Taken{header.Serial, v.Size, v.Written})
	return nil
}

// Fault keeps the last word on a state: see source.Sink.
func (s *Sink) Fault(uri string, err error) {
	s.enter(uri)
	defer s.leave(uri)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[uri] = err
}

func (s *Sink) enter(uri string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading[uri] {
		s.t.Errorf("the sink was called twice at once for %s", uri)
	}
	s.reading[uri] = true
}

func (s *Sink) leave(uri string) {
	s.mu.Lock()
	s.reading[uri] = false
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Await waits until a condition holds, which is asked after each call of a source.
func (s *Sink) Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		if holds() {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("waited in vain for %s: contents %v, faults %v", what, s.versions, s.faults)
		}
	}
}

// Newest is the serial read last; 0 for none.
func (s *Sink) Newest(uri string) uint64 { return s.Last(uri).Serial }

// Serials are those read of a state, in order.
func (s *Sink) Serials(uri string) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []uint64
	for _, v := range s.versions[uri] {
		all = append(all, v.Serial)
	}
	return all
}

// Last is the content read last of a state.
func (s *Sink) Last(uri string) Taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := s.versions[uri]; len(all) > 0 {
		return all[len(all)-1]
	}
	return Taken{}
}

// URIs are the states of which anything was read.
func (s *Sink) URIs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.versions))
}

// FaultOf is the last word on a state; nil if it is well.
func (s *Sink) FaultOf(uri string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults[uri]
}
