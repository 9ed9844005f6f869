// Package sourcetest is what every backend of package source has to pass.
//
// In comes a Harness, which makes a place for states and changes what lies there; out go failures of the test. The suite
// holds the contract of source.Source: contents come whole and in order, a later one is noticed, one being written is tried
// again, a broken or missing state is a fault that holds up no other, and nothing runs on when Watch has returned. Start
// reading at Run.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// Harness is one empty place that can hold several states, and a source over all of them. Its methods fail the test
// themselves.
type Harness interface {
	// Source is a new source over the place; it notices changes within a second or so.
	Source(t testing.TB) source.Source
	// Put makes content that of the state called name (a.tfstate), as whole as the place allows, and returns its URI.
	Put(t testing.TB, name string, content []byte) (uri string)
	// Remove takes the state away.
	Remove(t testing.TB, name string)
}

// Run tries a backend. Each part of the suite gets a place of its own.
func Run(t *testing.T, open func(t testing.TB) Harness) {
	for name, part := range map[string]func(*testing.T, Harness){
		"load":       load,
		"nothing":    nothing,
		"watch":      watch,
		"appears":    appears,
		"goes":       goes,
		"broken":     broken,
		"incomplete": incomplete,
		"order":      order,
		"ends":       ends,
	} {
		t.Run(name, func(t *testing.T) {
			here := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, here) }) // the last of all
			part(t, open(t))
		})
	}
}

func load(t *testing.T, h Harness) {
	a, b := h.Put(t, "a.tfstate", State("a", 1)), h.Put(t, "b.tfstate", State("b", 7))
	sink := NewSink(t)
	s := h.Source(t)
	if s.URI() == "" {
		t.Error("the source has no URI")
	}
	if err := s.Load(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	for uri, want := range map[string]uint64{a: 1, b: 7} {
		if got := sink.Serials(uri); !slices.Equal(got, []uint64{want}) {
			t.Errorf("serials of %s: %v, want %d alone", uri, got, want)
		}
	}
	if got := sink.Last(a).Size; got != int64(len(State("a", 1))) {
		t.Errorf("size %d, want %d", got, len(State("a", 1)))
	}
	if age := time.Since(sink.Last(a).Written); age < -time.Minute || age > time.Hour {
		t.Errorf("written at %v, which is not now", sink.Last(a).Written)
	}
}

func nothing(t *testing.T, h Harness) {
	sink := NewSink(t)
	err := h.Source(t).Load(t.Context(), sink) // an error or not: a place may be allowed to be empty
	if got := sink.URIs(); len(got) > 0 {
		t.Errorf("an empty place gave %v (%v)", got, err)
	}
}

func watch(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", State("a", 1))
	sink := Watch(t, h.Source(t))
	sink.Await(t, "the first serial", func() bool { return sink.Newest(a) == 1 })
	h.Put(t, "a.tfstate", State("a", 2))
	sink.Await(t, "the second serial", func() bool { return sink.Newest(a) == 2 })
}

func appears(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", State("a", 1))
	sink := Watch(t, h.Source(t))
	sink.Await(t, "the first state", func() bool { return sink.Newest(a) == 1 })
	b := h.Put(t, "b.tfstate", State("b", 1))
	sink.Await(t, "the second state", func() bool { return sink.Newest(b) == 1 })
}

func goes(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", State("a", 1))
	sink := Watch(t, h.Source(t))
	sink.Await(t, "the first serial", func() bool { return sink.Newest(a) == 1 })
	h.Remove(t, "a.tfstate")
	sink.Await(t, "a fault", func() bool { return sink.FaultOf(a) != nil })
	h.Put(t, "a.tfstate", State("a", 1))
	sink.Await(t, "the state again, without a fault", func() bool { return sink.FaultOf(a) == nil && len(sink.Serials(a)) > 1 })
	if got := sink.Serials(a); slices.ContainsFunc(got, func(serial uint64) bool { return serial != 1 }) {
		t.Errorf("serials %v, want only 1: a missing state was handed over", got)
	}
}

func broken(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", []byte(`{"version": 3, "serial": 1}`))
	b := h.Put(t, "b.tfstate", State("b", 1))
	sink := Watch(t, h.Source(t))
	sink.Await(t, "the good state and the fault of the other", func() bool { return sink.Newest(b) == 1 && sink.FaultOf(a) != nil })
	var version *tfstate.VersionError
	if err := sink.FaultOf(a); !errors.As(err, &version) {
		t.Errorf("the fault is %v, want the sink's own", err)
	}
	h.Put(t, "a.tfstate", State("a", 4))
	sink.Await(t, "the state put right", func() bool { return sink.Newest(a) == 4 && sink.FaultOf(a) == nil })
}

// incomplete refuses a content twice as being written, without its changing.
func incomplete(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", State("a", 1))
	sink := NewSink(t)
	left := 2
	sink.Refuse = func(uri string) error {
		if uri == a && left > 0 {
			left--
			return fmt.Errorf("refused: %w", tfstate.ErrIncomplete)
		}
		return nil
	}
	sink.Watch(t, h.Source(t))
	sink.Await(t, "the state at last", func() bool { return sink.Newest(a) == 1 })
	if err := sink.FaultOf(a); err != nil {
		t.Errorf("fault %v of a state that was being written", err)
	}
}

func order(t *testing.T, h Harness) {
	a := h.Put(t, "a.tfstate", State("a", 1))
	sink := Watch(t, h.Source(t))
	const last = 20
	for serial := uint64(2); serial <= last; serial++ {
		h.Put(t, "a.tfstate", State("a", serial))
	}
	sink.Await(t, "the last serial", func() bool { return sink.Newest(a) == last })
	if got := sink.Serials(a); !slices.IsSorted(got) {
		t.Errorf("serials came as %v", got)
	}
}

func ends(t *testing.T, h Harness) {
	h.Put(t, "a.tfstate", State("a", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Source(t).Watch(ctx, NewSink(t)); err != nil {
		t.Errorf("Watch gave %v at the end of its context, want nil", err)
	}
}
