package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fsnotify/fsnotify"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// scan remembers what was handed over. It belongs to one call of Load or Watch.
type scan struct {
	f       *files
	to      source.Sink
	watcher *fsnotify.Watcher // nil without notices
	watched map[string]bool
	known   map[string]*content
}

// content is one file as it was last handed over.
type content struct {
	stamp stamp
	// since is when it was first found incomplete, and tries how often since; zero when it is whole.
	since time.Time
	tries int
	told  bool // as a fault
}

// stamp tells two contents of a file apart.
type stamp struct {
	size     int64
	modified time.Time
	file     os.FileInfo
}

func stampOf(info os.FileInfo) stamp { return stamp{info.Size(), info.ModTime(), info} }

func (s stamp) same(o stamp) bool {
	return s.file != nil && o.file != nil && s.size == o.size && s.modified.Equal(o.modified) && os.SameFile(s.file, o.file)
}

// patience is how long a state may stay cut off before that is a fault rather than a write under way.
const patience = 5 * time.Second

func newScan(f *files, to source.Sink) *scan {
	return &scan{f: f, to: to, watched: map[string]bool{}, known: map[string]*content{}}
}

func uriOf(path string) string { return "file://" + path }

// find lists the files now, sorted.
func (s *scan) find() ([]string, error) {
	pattern := s.f.pattern
	if isDir(pattern) {
		s.watch(pattern)
		pattern = filepath.Join(escape(pattern), "*.tfstate")
	} else if _, err := os.Lstat(pattern); err == nil || !strings.ContainsAny(pattern, "*?[{") {
		s.watch(filepath.Dir(pattern))
		if err != nil {
			return nil, fmt.Errorf("find state: %w", err)
		}
		return []string{pattern}, nil
	}
	base, _ := doublestar.SplitPattern(filepath.ToSlash(pattern))
	found, err := doublestar.FilepathGlob(pattern, doublestar.WithFilesOnly())
	if err != nil {
		return nil, fmt.Errorf("find states %q: %w", pattern, err)
	}
	s.watch(base)
	for _, path := range found {
		s.watch(filepath.Dir(path))
	}
	slices.Sort(found)
	return found, nil
}

// escape makes a path match only itself in a pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`).Replace(path)
}

// watch asks for notices about a directory; without any, the poll finds what changes.
func (s *scan) watch(dir string) {
	if s.watcher == nil || s.watched[dir] {
		return
	}
	if s.watcher.Add(dir) == nil {
		s.watched[dir] = true
	}
}

// look hands over whatever changed, and says after how long to look again because something is being written; 0 for not
// at all.
func (s *scan) look(ctx context.Context) time.Duration {
	found, err := s.find()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.f.o.Log.Warn("states not found", "state", s.f.uri, "cause", err)
	}
	var again time.Duration
	for _, path := range found {
		if ctx.Err() != nil {
			return 0
		}
		if d := s.take(ctx, path); d > 0 && (again == 0 || d < again) {
			again = d
		}
	}
	for path, c := range s.known {
		if !slices.Contains(found, path) && !c.told {
			c.told, c.stamp = true, stamp{}
			s.to.Fault(uriOf(path), errors.New("the file is gone; what was read of it stays"))
		}
	}
	if len(found) == 0 && len(s.known) == 0 && err != nil {
		s.missing(err)
	}
	return again
}

// missing tells once of a single file that has never been there.
func (s *scan) missing(err error) {
	c := &content{told: true}
	s.known[s.f.pattern] = c
	s.to.Fault(uriOf(s.f.pattern), err)
}

// settle takes one file, trying again while it is being written.
func (s *scan) settle(ctx context.Context, path string) {
	for ctx.Err() == nil {
		d := s.take(ctx, path)
		if d == 0 || s.known[path].told {
			return
		}
		wait(ctx, d)
	}
}

// take hands one file over if it changed. It says after how long to try again, 0 when there is no need.
func (s *scan) take(ctx context.Context, path string) time.Duration {
	c := s.known[path]
	if c == nil {
		c = &content{}
		s.known[path] = c
	}
	info, err := os.Stat(path)
	if err != nil {
		return s.broken(c, path, err, false)
	}
	now := stampOf(info)
	if c.stamp.same(now) {
		return 0
	}
	err = s.to.Version(ctx, source.Version{
		URI: uriOf(path), Written: info.ModTime().UTC(), Size: info.Size(),
		Open: func(context.Context) (io.ReadCloser, error) { return open(path, now) },
	})
	if err != nil {
		incomplete := errors.Is(err, tfstate.ErrIncomplete)
		if !incomplete {
			c.stamp = now // it will not get better by itself
		}
		return s.broken(c, path, err, incomplete)
	}
	*c = content{stamp: now}
	s.to.Fault(uriOf(path), nil)
	return 0
}

func (s *scan) broken(c *content, path string, err error, incomplete bool) time.Duration {
	if c.since.IsZero() {
		c.since = time.Now()
	}
	c.tries++
	if (!incomplete || time.Since(c.since) > patience) && !c.told {
		c.told = true
		s.to.Fault(uriOf(path), err)
	}
	if !incomplete {
		return 0 // the next poll
	}
	return min(50*time.Millisecond<<min(c.tries, 5), time.Second)
}

// open opens one content; what is read counts only if the file was the same before and after.
func open(path string, want stamp) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &whole{File: f, want: want}, nil
}

type whole struct {
	*os.File
	want stamp
}

// Read gives, instead of the end, an error when the file changed while it was read.
func (w *whole) Read(p []byte) (int, error) {
	n, err := w.File.Read(p)
	if errors.Is(err, io.EOF) {
		info, statErr := w.Stat()
		if statErr != nil {
			return n, statErr
		}
		if !w.want.same(stampOf(info)) {
			return n, fmt.Errorf("%w: it changed while it was read", tfstate.ErrIncomplete)
		}
	}
	return n, err
}
