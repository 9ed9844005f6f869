package feed

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a burst of notifications is gathered before the files are read.
const settle = 20 * time.Millisecond

// ours reports whether a file in a directory is read by its name.
func ours(name string) bool {
	name = strings.TrimSuffix(name, ".gz")
	return !strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".json") || strings.HasSuffix(name, ".jsonl"))
}

// walk reads the file, or all files in and below the directory at root, by path, and calls entered for each directory.
func (f *Feed) walk(ctx context.Context, root string, entered func(dir string), emit func(item) error) error {
	// A link is followed at the root only: below it, links may lead in circles.
	if resolved, err := filepath.EvalSymlinks(root); err == nil {
		root = resolved
	}
	if err := f.tails(ctx, root, emit); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			f.unlistable(path, err)
			return nil
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir():
			entered(path)
			return nil
		case path != root && !ours(entry.Name()) && !f.rotatedTo(path, entry):
			f.foreign++
			return nil
		}
		return f.visit(ctx, path, emit)
	})
}

// rotatedTo reports an entry of a foreign name that is a file read before under its own.
func (f *Feed) rotatedTo(path string, entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && f.rotated(path, info)
}

// tails reads what a single file was given under its old name before it was renamed: its writer may not know yet.
func (f *Feed) tails(ctx context.Context, root string, emit func(item) error) error {
	if info, err := os.Stat(root); err == nil && info.IsDir() || len(f.files) == 0 {
		return nil
	}
	entries, _ := os.ReadDir(filepath.Dir(root))
	for _, entry := range entries {
		path := filepath.Join(filepath.Dir(root), entry.Name())
		info, err := entry.Info()
		if path == root || err != nil || !f.rotated(path, info) {
			continue
		}
		if err := f.read(ctx, path, info, emit); err != nil {
			return err
		}
	}
	return nil
}

// visit reads one file, if it is one.
func (f *Feed) visit(ctx context.Context, path string, emit func(item) error) error {
	info, err := os.Stat(path)
	if err != nil {
		f.unlistable(path, err)
		return nil
	}
	switch {
	case info.IsDir(): // behind a link: see walk
		return nil
	case !info.Mode().IsRegular():
		f.fault("no_file", path, errNoFile)
		return nil
	}
	return f.read(ctx, path, info, emit)
}

// unlistable counts what cannot be looked at; what is gone since it was listed is nothing to tell of, save the root.
func (f *Feed) unlistable(path string, err error) {
	switch {
	case !os.IsNotExist(err):
		f.fault(faultUnreadable, path, err)
	case path == f.path:
		f.fault("missing", path, err)
	}
}

// follow reads what is there and then what comes, until ctx ends.
func (f *Feed) follow(ctx context.Context, emit func(item) error) error {
	w := f.newWatcher()
	defer w.close()
	for {
		began := time.Now()
		f.passes++
		f.reading = 0
		err := f.walk(ctx, f.path, w.add, emit)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		f.nothing()
		f.tidy()
		// A tree so large that walking it takes long is walked less often.
		pause := max(f.options.Poll, 9*(time.Since(began)-f.reading))
		if err := f.notified(ctx, w, pause, emit); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// maxFiles is how many files are remembered beyond those that are there: a directory that comes back, as a network file
// system may, is not read twice.
const maxFiles = 1 << 16

// tidy ends a walk.
func (f *Feed) tidy() {
	if _, err := os.Stat(f.path); err == nil && f.back() {
		f.options.Log.Info("records are back", "path", f.path)
	}
	if len(f.files) > maxFiles {
		maps.DeleteFunc(f.files, func(_ fileID, st *file) bool { return st.seen != f.passes })
	}
}

// notified reads what the notifications name, until it is time to walk again.
func (f *Feed) notified(ctx context.Context, w *watcher, pause time.Duration, emit func(item) error) error {
	deadline := time.NewTimer(pause)
	defer deadline.Stop()
	dirty := map[string]bool{}
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			return nil
		case event := <-w.events:
			if event.Op == fsnotify.Chmod || w.only != "" && event.Name != w.only {
				continue
			}
			dirty[event.Name] = true
			if settled == nil {
				settled = time.After(settle)
			}
		case err := <-w.errors:
			f.fault("notify", f.path, err)
			return nil // walk: events may have been lost
		case <-settled:
			if err := f.changed(ctx, w, dirty, emit); err != nil {
				return err
			}
			dirty, settled = map[string]bool{}, nil
		}
	}
}

// changed reads the paths that notifications named, by path; a new directory whole. A path that is gone was moved, and
// its new name is told of too, or deleted.
func (f *Feed) changed(ctx context.Context, w *watcher, paths map[string]bool, emit func(item) error) error {
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		info, err := os.Lstat(path)
		if err != nil {
			continue
		}
		switch name := filepath.Base(path); {
		case info.IsDir() && !strings.HasPrefix(name, "."):
			err = f.walk(ctx, path, w.add, emit)
		case path == w.only || ours(name) || f.rotated(path, info):
			err = f.visit(ctx, path, emit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// watcher is the file system's notifications; without them, as on network file systems, its channels never deliver.
type watcher struct {
	feed   *Feed
	notify *fsnotify.Watcher
	events <-chan fsnotify.Event
	errors <-chan error
	only   string // the one file that is followed, "" for a directory
}

func (f *Feed) newWatcher() *watcher {
	w := &watcher{feed: f}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		f.fault("notify", f.path, err)
		return w
	}
	w.notify, w.events, w.errors = notify, notify.Events, notify.Errors
	// A file is followed through its directory, since one that is replaced is another file.
	if path, err := filepath.EvalSymlinks(f.path); err == nil {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			w.only = path
			w.add(filepath.Dir(path))
		}
	}
	return w
}

// add watches a directory; one that is watched already stays so.
func (w *watcher) add(dir string) {
	if w.notify == nil {
		return
	}
	if err := w.notify.Add(dir); err != nil && !os.IsNotExist(err) {
		w.feed.fault("notify", w.feed.path, err)
	}
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
}
