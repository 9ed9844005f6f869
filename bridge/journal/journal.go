// Package journal keeps what the bridge must not lose, in one SQLite file, and gives it its one order.
//
// In come alerts (Put, from the intakes) and what became of them (Commit, from the correlator). Out go alerts still to
// be worked on (Pending), messages in their order (Follow for new ones, After for earlier ones) and what REST lists
// (Drifts, Events, States, Counts).
//
// Guarantees:
//   - Durable: Put and Commit return nil only when their content is on disk (WAL, synchronous FULL). What runs at the same
//     time shares one transaction and one fsync.
//   - Once: an alert's Key is stored once as long as the key is kept.
//   - All or nothing: a Commit is one transaction. Its messages are published after it, never before.
//   - One order: ids only grow, over restarts and clock changes too, and followers see messages in the order of ids.
//   - Slow readers: nobody slows the writer. Who asks for messages that are no longer kept gets a *GapError.
//   - Histories: what states were at their last serials is stored with the messages it gives rise to (Commit.Snapshots),
//     and given back after a restart (History).
//   - Gone is gone: what was deleted is overwritten, and leaves the write-ahead log within about a minute.
//   - Retention: about the newest Options.Retain messages and done alert keys, and ten times as many event ids. Drifts are
//     kept for good, states until a Commit says that they are gone. An alert's body is emptied once it is done.
//
// Start reading at Journal and Open; writer.go is the one goroutine that writes, read.go all that reads, snapshot.go the
// histories of states, schema.go the file.
package journal

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Options of a journal.
type Options struct {
	Log *slog.Logger     // nil discards
	Now func() time.Time // nil is time.Now
	// Metrics gets the writer's figures; nil keeps them unregistered.
	Metrics prometheus.Registerer
	// Replayed marks every message as made by the demo.
	Replayed bool
	// Retain is how many messages are kept, and how many keys of done alerts; 0 is 200,000. A few dozen more may be there.
	Retain int
}

const defaultRetain = 200_000

// ErrClosed is returned by everything that is called on a closed journal.
var ErrClosed = errors.New("journal is closed")

// GapError says that messages between a cursor and the oldest message kept are gone. Reading goes on after Pruned.
type GapError struct {
	Pruned wire.ID // the newest message that is gone
	Oldest wire.ID // the oldest message kept
}

// Error names the oldest id kept.
func (e *GapError) Error() string {
	return fmt.Sprintf("messages up to %q are no longer kept: the oldest is %q", e.Pruned, e.Oldest)
}

// Journal is an open journal. All methods may be called from many goroutines at once.
type Journal struct {
	path  string
	epoch string
	key   []byte
	now   func() time.Time
	lock  *sql.DB // holds the lock that keeps other processes out
	write *sql.DB
	read  *sql.DB

	metrics  metrics
	requests chan *request
	arrived  chan struct{}
	quit     chan struct{} // closed by Close: no further requests
	ended    chan struct{} // closed by the writer: it has stopped
	once     sync.Once
	closeErr error

	log    *slog.Logger
	opened os.FileInfo // the file at its opening

	mu        sync.Mutex     // held while messages are published
	refused   string         // why the newest transaction was; "" when it was not
	damaged   string         // what the last reading found that met with damage, which does not pass
	broken    map[int64]bool // alerts in the inbox that cannot be read
	bounds    bounds
	followers []func([]Stored)
}

type bounds struct{ oldest, newest wire.ID }

// Open opens the journal in the folder dir, or makes it: dir/journal.db, readable by its owner only. Only one process may
// have it open. Errors name the file and what to do. The caller must Close the journal, which ends the one goroutine that
// Open starts. ctx bounds the opening only.
func Open(ctx context.Context, dir string, o Options) (*Journal, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Retain == 0 {
		o.Retain = defaultRetain
	}
	if o.Retain < 1 {
		return nil, fmt.Errorf("open journal %q: retain %d: want 1 or more", dir, o.Retain)
	}
	f, err := openFile(ctx, dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		path: f.path, now: o.Now, lock: f.lock, write: f.write, read: f.read,
		metrics: newMetrics(o.Metrics, f.path), log: o.Log.With("component", "journal"), opened: f.info, broken: map[int64]bool{},
		requests: make(chan *request), arrived: make(chan struct{}, 1),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	w, err := newWriter(ctx, j, o)
	if err != nil {
		return nil, errors.Join(explain(f.path, err), f.close())
	}
	go w.run()
	return j, nil
}

// Close waits for what is being written, refuses everything later, and closes the file. Later calls return what the
// first did.
func (j *Journal) Close() error {
	j.once.Do(func() {
		close(j.quit)
		<-j.ended
		j.closeErr = file{lock: j.lock, write: j.write, read: j.read}.close()
	})
	return j.closeErr
}

// Epoch is a random text made with the file: an id means nothing in a journal of another epoch.
func (j *Journal) Epoch() string { return j.epoch }

// Status is degraded while the disk refuses what is to be stored, once damage was met with, or when the file is no longer
// where it was: what is kept can still be read. The reason has the way out.
func (j *Journal) Status() wire.Check {
	j.mu.Lock()
	reason := cmp.Or(j.damaged, j.refused)
	j.mu.Unlock()
	if reason != "" {
		return wire.Check{Degraded: true, Reason: reason}
	}
	if now, err := os.Stat(j.path); err != nil || !os.SameFile(now, j.opened) {
		return wire.Check{Degraded: true, Reason: fmt.Sprintf("the file %q was removed or replaced: what is stored now is gone when the bridge ends: put it back, and start the bridge anew", j.path)}
	}
	return wire.Check{OK: true}
}

// Arrived gets a value after a Put that stored something. It holds one: who waits on it reads Pending until that is
// empty.
func (j *Journal) Arrived() <-chan struct{} { return j.arrived }

// Follow has fn called with every message committed from now on, in order, each call with what one Commit made; it
// returns the newest id before the first of them. fn must not block and must not call the journal: the writer waits for
// it.
func (j *Journal) Follow(fn func([]Stored)) (newest wire.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.followers = append(j.followers, fn)
	return j.bounds.newest
}

// Bounds is the oldest message kept and the newest id given; both zero before the first message.
func (j *Journal) Bounds() (oldest, newest wire.ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.bounds.oldest, j.bounds.newest
}

// publish tells followers of messages that are on disk.
func (j *Journal) publish(messages []Stored) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bounds.newest = messages[len(messages)-1].ID
	if j.bounds.oldest.IsZero() {
		j.bounds.oldest = messages[0].ID
	}
	for _, fn := range j.followers {
		fn(messages)
	}
}
