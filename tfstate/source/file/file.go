// Package file finds states in files: one file, all *.tfstate of a directory, or those a glob with ** names.
//
// Contents are noticed by the file system's own notices on the directories (a rename, an atomic save and a swapped symbolic
// link end a watch on a file itself) and by a poll, since network file systems send none. Terraform's local backend empties
// the file before it writes, so a reader sees nothing, or half: such a content is tried again until it is whole, and told
// as a fault only when it stays broken. A file that was written moments before it was read is read once more a little later:
// a second write within the same tick of the file system's clock would not show otherwise.
//
// Left out of globs and directories are what Terraform keeps for itself in .terraform, and the folders behind the links of
// a Kubernetes volume (..data), whose files are there under their own names.
//
// Start reading at New and Watch; scan.go looks for what changed.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fsnotify/fsnotify"

	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// Options of a source; zero values mean the defaults.
type Options struct {
	Log      *slog.Logger
	Poll     time.Duration // between two looks without notices; default 2 s
	Debounce time.Duration // from a notice to the look, so that one save is one; default 100 ms
	// Patience is how long a state may stay cut off before that is a fault rather than a write under way; default 5 s.
	Patience time.Duration
	// PollOnly asks for no notices, as it is anyway where the system gives none.
	PollOnly bool
}

type files struct {
	uri     string
	pattern string // absolute; a glob
	o       Options
	nothing sync.Once // tells that there is no state
	taken   sync.Map  // paths of which a content was taken, by any call
}

func (f *files) wasTaken(path string) bool {
	_, ok := f.taken.Load(path)
	return ok
}

// New makes a source from a path, a file:// URI, a directory or a glob. The files need not exist yet. A state's URI is
// file:// and its absolute path.
func New(uri string, o Options) (source.Source, error) {
	path, err := pathOf(uri)
	if err != nil {
		return nil, fmt.Errorf("open state %q: %w", uri, err)
	}
	if !doublestar.ValidatePathPattern(path) {
		return nil, fmt.Errorf("open state %q: %w", uri, doublestar.ErrBadPattern)
	}
	if o.Poll < 0 || o.Debounce < 0 || o.Patience < 0 {
		return nil, fmt.Errorf("open state %q: a time below zero", uri)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "source")
	o.Poll = cmp.Or(o.Poll, 2*time.Second)
	o.Debounce = cmp.Or(o.Debounce, 100*time.Millisecond)
	o.Patience = cmp.Or(o.Patience, 5*time.Second)
	return &files{uri: uri, pattern: path, o: o}, nil
}

func pathOf(uri string) (string, error) {
	scheme, rest, isURI := strings.Cut(uri, "://")
	switch {
	case uri == "":
		return "", errors.New("no path")
	case !isURI:
		return filepath.Abs(uri)
	case scheme != "file":
		return "", fmt.Errorf("scheme %q is not supported: states are read from a path, a directory, a glob or file:///path", scheme)
	}
	path, err := url.PathUnescape(rest)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(path) {
		return "", errors.New("want an absolute path, as in file:///path")
	}
	return filepath.Clean(path), nil
}

func (f *files) URI() string { return f.uri }

func (f *files) Load(ctx context.Context, to source.Sink) error {
	s := newScan(f, to)
	if _, err := s.find(); err != nil {
		return err
	}
	for again := s.look(ctx); again > 0; again = s.look(ctx) { // until all are whole, or told as faults
		wait(ctx, again)
	}
	return nil
}

func (f *files) Watch(ctx context.Context, to source.Sink) error {
	s := newScan(f, to)
	notices, stop := s.notices()
	defer stop()
	poll := time.NewTicker(f.o.Poll)
	defer poll.Stop()
	for {
		again := s.next(s.look(ctx))
		var soon <-chan time.Time
		if again > 0 {
			soon = time.After(again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-soon:
		case <-notices:
			wait(ctx, f.o.Debounce)
			drain(notices)
		}
	}
}

// notices merges what the file system tells into one flag.
func (s *scan) notices() (<-chan struct{}, func()) {
	flag := make(chan struct{}, 1)
	if s.f.o.PollOnly {
		return flag, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		s.f.o.Log.Warn("no notices from the file system, polling alone", "state", s.f.uri, "cause", err)
		return flag, func() {}
	}
	s.watcher = w
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case _, ok := <-w.Events:
				if !ok {
					return
				}
			case _, ok := <-w.Errors: // an overflow too asks for a look
				if !ok {
					return
				}
			}
			select {
			case flag <- struct{}{}:
			default:
			}
		}
	}()
	return flag, func() {
		_ = w.Close()
		<-ended
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
