// Package source says where Terraform states live and when they change.
//
// A Source, one package a backend below this one, hands the contents of one or more states to a Sink: first what is there
// now, then every later content that it notices. It promises that a content is handed over whole or not at all, that a
// state being written is tried again rather than reported as broken or empty, that one state never holds up another for
// long, and that a state that has gone is a fault: never "everything deleted". Contents may be handed over again
// unchanged, and contents that follow each other faster than a source looks may be skipped.
package source

import (
	"context"
	"io"
	"time"
)

// Version is one content of one state.
type Version struct {
	URI     string    // of the state
	Written time.Time // as the place that keeps it says
	Size    int64     // bytes
	// Open starts reading the content. Reading fails with an error that wraps tfstate.ErrIncomplete when the content
	// changes meanwhile.
	Open func(context.Context) (io.ReadCloser, error)
}

// Sink takes what a Source finds; it is called by several goroutines at once, for one state by one at a time.
type Sink interface {
	// Version takes one content. An error that wraps tfstate.ErrIncomplete means that it is being written: the source
	// tries again soon.
	Version(ctx context.Context, v Version) error
	// Fault tells that a state cannot be read now and why, or with nil that it can be again.
	Fault(uri string, err error)
}

// Source is one place with one or more states.
type Source interface {
	// URI is what the source was made from.
	URI() string
	// Load hands over what is there now and returns. Its error is about the place; faults of single states go to the sink.
	Load(ctx context.Context, to Sink) error
	// Watch does what Load does and then hands over every later content, until ctx ends; it then returns nil.
	Watch(ctx context.Context, to Sink) error
}
