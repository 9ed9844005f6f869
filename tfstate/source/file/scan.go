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
	"syscall"
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
	// unwatched are the directories without notices, which was logged.
	unwatched map[string]bool
	known     map[string]*content
	// closed are the directories that the last look could not list.
	closed map[string]error
}

// content is one file as it was last handed over.
type content struct {
	stamp stamp
	// again is when it is to be read once more although its stamp is the same; zero for not at all.
	again time.Time
	// since is when it was first found incomplete, and tries how often since; zero when it is whole.
	since time.Time
	tries int
	fault string // what was told of it; "" when it is well
	place bool   // not a file, but a directory that cannot be listed
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

// tick is longer than that of any file system's clock (FAT: 2 s).
const tick = 2500 * time.Millisecond

func newScan(f *files, to source.Sink) *scan {
	return &scan{f: f, to: to, unwatched: map[string]bool{}, known: map[string]*content{}}
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
	s.closed = map[string]error{}
	found, err := tree{base: base, closed: s.closed}.glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("find states %q: %w", pattern, err)
	}
	s.watch(base)
	for _, path := range found {
		s.watch(filepath.Dir(path))
	}
	found = slices.DeleteFunc(found, func(path string) bool { return private(strings.TrimPrefix(path, base)) })
	slices.Sort(found)
	return found, nil
}

// private reports whether a path leads through a folder that holds copies or something else.
func private(path string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(filepath.Dir(path)), "/") {
		if part == ".terraform" || len(part) > 2 && strings.HasPrefix(part, "..") {
			return true
		}
	}
	return false
}

// escape makes a path match only itself in a pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`).Replace(path)
}

// watch asks for notices about a directory; without any, the poll finds what changes.
func (s *scan) watch(dir string) {
	if s.watcher == nil {
		return
	}
	// Added each time: a directory that was removed and made anew is another one. It costs a system call.
	err := s.watcher.Add(dir)
	if err != nil && !s.unwatched[dir] && !errors.Is(err, fs.ErrNotExist) {
		s.unwatched[dir] = true
		s.f.o.Log.Warn("no notices of a directory, polling it", "state", s.f.uri, "directory", dir, "cause", err)
	}
}

// look hands over whatever changed, and says after how long to look again because something is being written; 0 for not
// at all.
func (s *scan) look(ctx context.Context) time.Duration {
	found, err := s.find()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		found = []string{s.f.pattern} // the one file may not even be asked for: take says so
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
	s.missing(found, err)
	s.places()
	if err == nil && len(found) == 0 && len(s.closed) == 0 {
		s.f.nothing.Do(func() {
			s.f.o.Log.Warn("no states here: watched for what comes", "state", s.f.uri, "pattern", s.f.pattern,
				"hint", "a directory's files are read whose names end in .tfstate; a glob with ** finds them at any depth")
		})
	}
	return again
}

// places tells of directories whose files cannot be found, and of their recovery.
func (s *scan) places() {
	for dir, err := range s.closed {
		c := s.known[dir]
		if c == nil {
			c = &content{place: true}
			s.known[dir] = c
		}
		s.tell(dir, c, fmt.Errorf("%w: let the user who runs this list the directory; its states are not read", err))
	}
}

// next is when to look again without a notice: when something is being written, or may have been written twice in a tick;
// 0 for not before the poll.
func (s *scan) next(again time.Duration) time.Duration {
	for _, c := range s.known {
		if c.again.IsZero() {
			continue
		}
		if d := max(time.Until(c.again), time.Millisecond); again == 0 || d < again {
			again = d
		}
	}
	return again
}

// missing tells of the files that are gone, and of a single file that has never been there.
func (s *scan) missing(found []string, err error) {
	if err != nil && len(s.known) == 0 {
		s.known[s.f.pattern] = &content{}
	}
	for path, c := range s.known {
		if _, there := slices.BinarySearch(found, path); there || s.closed[path] != nil {
			continue
		}
		*c = content{fault: c.fault, place: c.place}
		there, read := isDir(path), s.f.wasTaken(path)
		switch closed := s.closedAbove(path); {
		case c.place, there && !read: // a directory, and all is well with it, or it has gone
			s.tell(path, c, nil)
			delete(s.known, path)
		case there:
			s.tell(path, c, errDirectory)
		case closed != nil:
			s.tell(path, c, closed)
		case !read && path != s.f.pattern: // one of many that was never a state: nothing is missed
			s.tell(path, c, nil)
			delete(s.known, path)
		default:
			s.tell(path, c, errGone)
		}
	}
}

// closedAbove is why the directories that lead to a path cannot be listed; nil if they can.
func (s *scan) closedAbove(path string) error {
	for dir, err := range s.closed {
		if strings.HasPrefix(path, dir+string(filepath.Separator)) {
			return readable(err)
		}
	}
	return nil
}

var (
	errGone      = goneError{}
	errDirectory = errors.New("a directory lies in the file's place; what was read of it before stays: put the file back")
	errNoFile    = errors.New("it is no regular file: put the state there as a file")
)

// goneError is an fs.ErrNotExist in words of its own.
type goneError struct{}

func (goneError) Error() string {
	return "the file is not there; what was read of it before stays: put it back, or start without it"
}

func (goneError) Is(target error) bool { return target == fs.ErrNotExist }

// readable says what to do about a file that may not be read.
func readable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: let the user who runs this read it", err)
	}
	return err
}

// take hands one file over if it changed. It says after how long to try again, 0 when there is no need.
func (s *scan) take(ctx context.Context, path string) time.Duration {
	c := s.known[path]
	if c == nil {
		c = &content{}
		s.known[path] = c
	}
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		*c = content{fault: c.fault}
		s.tell(path, c, readable(err))
		return 0
	}
	now := stampOf(info)
	if c.stamp.same(now) && (c.again.IsZero() || time.Now().Before(c.again)) {
		return 0
	}
	read := time.Now()
	err = s.to.Version(ctx, source.Version{
		URI: uriOf(path), Written: info.ModTime().UTC(), Size: info.Size(),
		Open: func(context.Context) (io.ReadCloser, error) { return open(path, now) },
	})
	if err != nil {
		return s.broken(ctx, c, path, now, err)
	}
	c.stamp, c.again, c.since, c.tries = now, now.unsure(read), time.Time{}, 0
	s.f.taken.Store(path, true)
	s.tell(path, c, nil)
	return 0
}

// unsure is when a content that was read at a moment is to be read again, because what was written just before that moment
// may have been written once more within the same tick of the clock; zero for never.
func (s stamp) unsure(read time.Time) time.Time {
	if age := read.Sub(s.modified); age < 0 || age > tick {
		return time.Time{}
	}
	return s.modified.Add(tick)
}

// broken decides on a content that was not taken: one being written is tried again soon, one that is no state when it
// changes, anything else (a file that may not be read, a disk) at the next look.
func (s *scan) broken(ctx context.Context, c *content, path string, now stamp, err error) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	c.stamp, c.again = stamp{}, time.Time{} // what was taken before no longer says when to look
	var format *tfstate.FormatError
	var version *tfstate.VersionError
	switch {
	case errors.Is(err, tfstate.ErrIncomplete):
		if c.since.IsZero() {
			c.since = time.Now()
		}
		c.tries++
		if time.Since(c.since) < s.f.o.Patience {
			return min(25*time.Millisecond<<min(c.tries, 5), time.Second)
		}
		err = fmt.Errorf("%w, and nobody goes on writing it: put it back whole, as terraform state pull prints it", err)
	case errors.As(err, &format), errors.As(err, &version):
		c.stamp, c.again = now, now.unsure(time.Now())
	}
	s.tell(path, c, err)
	return 0
}

// tell passes on a fault, or nil for its end, unless it was told last.
func (s *scan) tell(path string, c *content, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if c.fault != text {
		c.fault = text
		s.to.Fault(uriOf(path), err)
	}
}

// open opens one content; what is read counts only if the file was the same before and after.
func open(path string, want stamp) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that took its place would wait for a writer
	if err != nil {
		return nil, readable(err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), errNoFile)
	}
	return &whole{f, want}, nil
}

// whole is not an embedded file: its other ways of reading, such as WriteTo for io.Copy, would go past the check.
type whole struct {
	file *os.File
	want stamp
}

func (w *whole) Close() error { return w.file.Close() }

// Read gives, instead of the end, an error when the file changed while it was read.
func (w *whole) Read(p []byte) (int, error) {
	n, err := w.file.Read(p)
	if errors.Is(err, io.EOF) {
		info, statErr := w.file.Stat()
		if statErr != nil {
			return n, statErr
		}
		if !w.want.same(stampOf(info)) {
			return n, fmt.Errorf("%w: it changed while it was read", tfstate.ErrIncomplete)
		}
	}
	return n, err
}
