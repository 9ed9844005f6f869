package inventory

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// Figures are what an Inventory counts. Those of reading count up from its start, the others are as they are now.
type Figures struct {
	States      int            // heard of, read or not
	Instances   int            // in the newest serials, data sources included
	Snapshots   int            // serials kept of all states
	Identifiers int            // in the index: one for each attribute of an instance that holds one
	Faults      map[string]int // states that cannot be read now, by cause: every one of Causes is there
	// Written and Read are when the newest serial of all was written, and when a state was last read whole; zero if never.
	Written, Read time.Time

	Serials   uint64 // new contents taken in
	Parses    uint64 // contents read, also those that were known and those that were broken
	ParseTime time.Duration
	ParseSize uint64 // bytes
}

// Causes are the kinds of faults that Figures tells apart.
func Causes() []string {
	return []string{"format", "incomplete", "missing", "other", "permission", "version"}
}

// causeOf names the kind of a fault.
func causeOf(err error) string {
	var version *tfstate.VersionError
	var format *tfstate.FormatError
	switch {
	case errors.Is(err, tfstate.ErrIncomplete):
		return "incomplete"
	case errors.As(err, &version):
		return "version"
	case errors.As(err, &format):
		return "format"
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	case errors.Is(err, fs.ErrPermission):
		return "permission"
	}
	return "other"
}

// Figures counts; it walks the states, not their instances.
func (v *Inventory) Figures() Figures {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f := v.figures
	f.States, f.Identifiers, f.Faults = len(v.states), v.index.size, map[string]int{}
	for _, cause := range Causes() {
		f.Faults[cause] = 0
	}
	for _, h := range v.states {
		f.Snapshots += len(h.snapshots)
		if s := h.newest(); s != nil {
			f.Instances += len(s.all)
			f.Written = later(f.Written, s.Written)
		}
		f.Read = later(f.Read, h.read)
		if h.fault != nil {
			f.Faults[causeOf(h.fault)]++
		}
	}
	return f
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// parsed counts one content that was read since start.
func (v *Inventory) parsed(start time.Time, size int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.figures.Parses++
	v.figures.ParseTime += time.Since(start)
	v.figures.ParseSize += uint64(size)
}

// counter counts the bytes that are read through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}
