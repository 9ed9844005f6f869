package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick looks soon, and gives up soon on a state that stays cut off.
var quick = file.Options{Poll: 50 * time.Millisecond, Debounce: 5 * time.Millisecond, Patience: 300 * time.Millisecond}

// noticesAlone polls so seldom that a test would end before.
var noticesAlone = file.Options{Poll: time.Hour, Debounce: 5 * time.Millisecond, Patience: time.Minute}

// directory is a place whose states are written in one way.
type directory struct {
	dir, pattern string
	options      file.Options
	write        func(path string, content []byte) error
}

func (d directory) Source(t testing.TB) source.Source {
	return open(t, filepath.Join(d.dir, d.pattern), d.options)
}

func (d directory) Put(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	if err := d.write(path, content); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

func (d directory) Remove(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, uri string, o file.Options) source.Source {
	t.Helper()
	s, err := file.New(uri, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// slowly writes as Terraform's local backend does: empties the file, then fills it, here in pieces of which each is on
// disk before the next.
func slowly(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	for piece := range slices.Chunk(content, 4<<10) {
		if _, err := f.Write(piece); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return f.Close()
}

func atOnce(path string, content []byte) error { return os.WriteFile(path, content, 0o600) }

func renamed(path string, content []byte) error {
	aside := path + ".new"
	if err := os.WriteFile(aside, content, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

func TestSuite(t *testing.T) {
	for name, d := range map[string]directory{
		"in place":     {write: atOnce, options: quick},
		"slowly":       {write: slowly, options: quick},
		"renamed":      {write: renamed, options: quick},
		"glob":         {write: renamed, options: quick, pattern: "**/*.tfstate"},
		"poll only":    {write: slowly, options: file.Options{Poll: 20 * time.Millisecond, Patience: 300 * time.Millisecond, PollOnly: true}},
		"notices only": {write: renamed, options: noticesAlone},
	} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Run(t, func(t testing.TB) sourcetest.Harness {
				d.dir = t.TempDir()
				return d
			})
		})
	}
}

// TestHalfWritten leaves a state half written: neither a content nor a fault until patience ends, then a fault, and then
// the state again.
func TestHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	uri, whole := "file://"+path, sourcetest.State("a", 2)
	put(t, path, sourcetest.State("a", 1))
	sink := sourcetest.Watch(t, open(t, path, quick))
	sink.Await(t, "the first serial", func() bool { return sink.Newest(uri) == 1 })
	for _, half := range [][]byte{{}, whole[:1], whole[:len(whole)/2], whole[:len(whole)-2]} {
		put(t, path, half)
		sink.Await(t, "a fault", func() bool { return errors.Is(sink.FaultOf(uri), tfstate.ErrIncomplete) })
		if got := sink.Newest(uri); got != 1 {
			t.Errorf("%d bytes of %d gave serial %d", len(half), len(whole), got)
		}
	}
	put(t, path, whole)
	sink.Await(t, "the whole state", func() bool { return sink.Newest(uri) == 2 && sink.FaultOf(uri) == nil })
}

// TestTornRead writes without a pause, in every way a file can be overwritten, while contents are read; the sink checks
// that each is of one serial throughout.
func TestTornRead(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"at once": atOnce, "slowly": slowly, "renamed": renamed} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.tfstate")
			put(t, path, sourcetest.State("a", 1))
			uri := "file://" + path
			sink := sourcetest.Watch(t, open(t, path, file.Options{Poll: time.Millisecond, Debounce: time.Microsecond}))
			const last = 120
			for serial := uint64(2); serial <= last; serial++ {
				if err := write(path, sourcetest.State("a", serial)); err != nil {
					t.Fatal(err)
				}
			}
			sink.Await(t, "the last serial", func() bool { return sink.Newest(uri) == last })
			if got := sink.Serials(uri); !slices.IsSorted(got) {
				t.Errorf("serials came as %v", got)
			}
		})
	}
}

// TestChangesWhileRead overwrites a file between the opening and the end of one reading.
func TestChangesWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	put(t, path, sourcetest.State("a", 1))
	sink := sourcetest.NewSink(t)
	changed := false
	sink.Refuse = func(string) error {
		if !changed { // after the file was looked at, before it is opened
			changed = true
			return renamed(path, sourcetest.State("a", 22))
		}
		return nil
	}
	if err := open(t, path, quick).Load(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	if got := sink.Serials("file://" + path); !slices.Equal(got, []uint64{22}) {
		t.Errorf("serials %v, want the one that was there in the end", got)
	}
}

// halfway is a sink that lets the file be overwritten in place, size and all, when it has read half of it.
type halfway struct {
	between func()
	errs    []error
}

func (h *halfway) Version(ctx context.Context, v source.Version) error {
	r, err := v.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = io.ReadFull(r, make([]byte, v.Size/2))
	if len(h.errs) == 0 {
		h.between()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	h.errs = append(h.errs, err)
	return err
}

func (h *halfway) Fault(string, error) {}

// TestMixture reads half of one content and half of another: the reading has to fail, and the next to succeed.
func TestMixture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	put(t, path, sourcetest.State("a", 1))
	sink := &halfway{between: func() {
		put(t, path, sourcetest.State("a", 2))
		later := time.Now().Add(time.Second)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Error(err)
		}
	}}
	if err := open(t, path, quick).Load(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	if len(sink.errs) != 2 || !errors.Is(sink.errs[0], tfstate.ErrIncomplete) || sink.errs[1] != nil {
		t.Errorf("readings ended with %v, want one that is incomplete and one that is whole", sink.errs)
	}
}

// TestSameTick writes a second content of the same size and gives the file the time of the first, as a write within the
// same tick of the file system's clock has it. No notice tells of it here.
func TestSameTick(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	uri := "file://" + path
	put(t, path, sourcetest.State("a", 1))
	o := quick
	o.PollOnly = true
	sink := sourcetest.Watch(t, open(t, path, o))
	sink.Await(t, "the first serial", func() bool { return sink.Newest(uri) == 1 })
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, sourcetest.State("a", 2))
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	sink.Await(t, "the second serial", func() bool { return sink.Newest(uri) == 2 })
}

// TestVolume swaps the ..data link of a Kubernetes volume.
func TestVolume(t *testing.T) {
	for _, pattern := range []string{"a.tfstate", "", "**/*.tfstate"} {
		t.Run("pattern "+pattern, func(t *testing.T) {
			dir := t.TempDir()
			uri := "file://" + filepath.Join(dir, "a.tfstate")
			swap(t, dir, "..2026_1", sourcetest.State("a", 1))
			link(t, "..data/a.tfstate", filepath.Join(dir, "a.tfstate"))
			sink := sourcetest.Watch(t, open(t, filepath.Join(dir, pattern), noticesAlone))
			sink.Await(t, "the first serial", func() bool { return sink.Newest(uri) == 1 })
			swap(t, dir, "..2026_2", sourcetest.State("a", 2))
			sink.Await(t, "the second serial", func() bool { return sink.Newest(uri) == 2 })
			if got := sink.URIs(); !slices.Equal(got, []string{uri}) {
				t.Errorf("states %v, want %s alone", got, uri)
			}
		})
	}
}

// swap does what a kubelet does: writes a new folder and renames a link to it over ..data.
func swap(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	put(t, filepath.Join(dir, name, "a.tfstate"), content)
	aside := filepath.Join(dir, "..data_tmp")
	link(t, name, aside)
	if err := os.Rename(aside, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// TestGlob finds states at any depth, new ones in new folders too, and leaves out what is no state of its own.
func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.tfstate", "env/prod/b.tfstate", "env/[x]/c.tfstate"} {
		put(t, filepath.Join(dir, name), sourcetest.State(name, 1))
	}
	for _, name := range []string{"a.tfstate.backup", "env/.terraform/terraform.tfstate", "..data/d.tfstate", "notes.txt"} {
		put(t, filepath.Join(dir, name), sourcetest.State(name, 1))
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.tfstate"), 0o700); err != nil {
		t.Fatal(err)
	}
	sink := sourcetest.Watch(t, open(t, "file://"+dir+"/**/*.tfstate", quick))
	uris := func(names ...string) []string {
		for i, name := range names {
			names[i] = "file://" + filepath.Join(dir, name)
		}
		slices.Sort(names)
		return names
	}
	want := uris("a.tfstate", "env/prod/b.tfstate", "env/[x]/c.tfstate")
	sink.Await(t, "three states", func() bool { return slices.Equal(sink.URIs(), want) })
	put(t, filepath.Join(dir, "new/deep/e.tfstate"), sourcetest.State("e", 1))
	want = append(want, uris("new/deep/e.tfstate")...)
	sink.Await(t, "the new state", func() bool { return slices.Equal(sink.URIs(), want) })
}

// TestOddPlaces opens paths that look like patterns, a file that comes later, and what no reading ever ends of.
func TestOddPlaces(t *testing.T) {
	t.Run("name like a pattern", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a[1]{x}*.tfstate")
		put(t, path, sourcetest.State("a", 3))
		sink := sourcetest.NewSink(t)
		if err := open(t, path, quick).Load(t.Context(), sink); err != nil || sink.Newest("file://"+path) != 3 {
			t.Errorf("serials %v, %v", sink.Serials("file://"+path), err)
		}
	})
	t.Run("escaped URI", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "with space.tfstate")
		put(t, path, sourcetest.State("a", 3))
		sink := sourcetest.NewSink(t)
		uri := "file://" + filepath.Dir(path) + "/with%20space.tfstate"
		if err := open(t, uri, quick).Load(t.Context(), sink); err != nil || sink.Newest("file://"+path) != 3 {
			t.Errorf("serials %v, %v", sink.Serials("file://"+path), err)
		}
	})
	t.Run("comes later", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "later", "a.tfstate")
		s := open(t, path, quick)
		if err := s.Load(t.Context(), sourcetest.NewSink(t)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Load gave %v, want that it does not exist", err)
		}
		sink := sourcetest.Watch(t, s)
		sink.Await(t, "a fault", func() bool { return sink.FaultOf("file://"+path) != nil })
		put(t, path, sourcetest.State("a", 1))
		sink.Await(t, "the state", func() bool { return sink.Newest("file://"+path) == 1 && sink.FaultOf("file://"+path) == nil })
	})
	t.Run("directory comes later", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "later")
		sink := sourcetest.Watch(t, open(t, dir, quick))
		sink.Await(t, "a fault", func() bool { return sink.FaultOf("file://"+dir) != nil })
		put(t, filepath.Join(dir, "a.tfstate"), sourcetest.State("a", 1))
		sink.Await(t, "the state", func() bool {
			return sink.Newest("file://"+dir+"/a.tfstate") == 1 && sink.FaultOf("file://"+dir) == nil
		})
	})
	t.Run("directory made anew", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "states")
		path := filepath.Join(dir, "a.tfstate")
		put(t, path, sourcetest.State("a", 1))
		sink := sourcetest.Watch(t, open(t, dir, quick))
		sink.Await(t, "the first serial", func() bool { return sink.Newest("file://"+path) == 1 })
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		sink.Await(t, "a fault", func() bool { return sink.FaultOf("file://"+path) != nil })
		put(t, path, sourcetest.State("a", 2))
		sink.Await(t, "the second serial", func() bool { return sink.Newest("file://"+path) == 2 && sink.FaultOf("file://"+path) == nil })
	})
	t.Run("pipe", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.tfstate")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		sink := sourcetest.NewSink(t)
		if err := open(t, path, quick).Load(t.Context(), sink); err != nil || sink.FaultOf("file://"+path) == nil {
			t.Errorf("Load of a pipe: %v, fault %v", err, sink.FaultOf("file://"+path))
		}
	})
}

// TestUnreadable refuses a content for a cause that is none of the content's: it is tried at every look, without a change.
func TestUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	uri := "file://" + path
	put(t, path, sourcetest.State("a", 1))
	sink := sourcetest.NewSink(t)
	tries := 0
	sink.Refuse = func(string) error {
		if tries++; tries < 3 {
			return fmt.Errorf("open it: %w", os.ErrPermission)
		}
		return nil
	}
	sink.Watch(t, open(t, path, quick))
	sink.Await(t, "the state", func() bool { return sink.Newest(uri) == 1 && sink.FaultOf(uri) == nil })
}

// TestADirectoryInItsPlace: a state that was read and is hidden by a directory is a fault, not well.
func TestADirectoryInItsPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	uri := "file://" + path
	put(t, path, sourcetest.State("a", 1))
	sink := sourcetest.Watch(t, open(t, path, quick))
	sink.Await(t, "the first serial", func() bool { return sink.Newest(uri) == 1 })
	replace := func(with func() error) {
		t.Helper()
		if err := errors.Join(os.Remove(path), with()); err != nil {
			t.Fatal(err)
		}
	}
	says := func(text string) func() bool {
		return func() bool { err := sink.FaultOf(uri); return err != nil && strings.Contains(err.Error(), text) }
	}
	replace(func() error { return os.Mkdir(path, 0o700) })
	sink.Await(t, "a fault with the way out", says("a directory lies in the file's place; what was read of it before stays: put the file back"))
	replace(func() error { return syscall.Mkfifo(path, 0o600) })
	sink.Await(t, "a fault with the way out", says("no regular file: put the state there as a file"))
	replace(func() error { return os.WriteFile(path, sourcetest.State("a", 2), 0o600) })
	sink.Await(t, "the state again", func() bool { return sink.Newest(uri) == 2 && sink.FaultOf(uri) == nil })
}

// TestABadFileThatIsTakenAway: nothing is missed of what never was a state, and much of what was one, also in an earlier
// reading.
func TestABadFileThatIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	bad, once := filepath.Join(dir, "bad.tfstate"), filepath.Join(dir, "once.tfstate")
	put(t, bad, []byte("no state"))
	put(t, once, sourcetest.State("a", 1))
	s, sink := open(t, dir, quick), sourcetest.NewSink(t)
	if err := s.Load(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	put(t, once, []byte("no state any more"))
	sink.Watch(t, s)
	faulty := func(path string) func() bool { return func() bool { return sink.FaultOf("file://"+path) != nil } }
	sink.Await(t, "two faults", func() bool { return faulty(bad)() && faulty(once)() })
	for _, path := range []string{bad, once} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	sink.Await(t, "no fault of the bad file", func() bool { return !faulty(bad)() })
	sink.Await(t, "that the other is missed", func() bool {
		err := sink.FaultOf("file://" + once)
		return err != nil && strings.Contains(err.Error(), "the file is not there; what was read of it before stays")
	})
}

// TestLinksInCircles: two links that lead up would make a walk endless; one, each state many.
func TestLinksInCircles(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a/b/x.tfstate"), sourcetest.State("x", 1))
	put(t, filepath.Join(dir, "releases/5/y.tfstate"), sourcetest.State("y", 1))
	link(t, dir, filepath.Join(dir, "a/up"))
	link(t, "..", filepath.Join(dir, "a/b/up"))
	link(t, "self", filepath.Join(dir, "self"))
	link(t, "z.tfstate", filepath.Join(dir, "z.tfstate"))
	link(t, "releases/5", filepath.Join(dir, "current"))
	sink := sourcetest.NewSink(t)
	if err := open(t, filepath.Join(dir, "**/*.tfstate"), quick).Load(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	want := []string{"file://" + dir + "/a/b/x.tfstate", "file://" + dir + "/current/y.tfstate", "file://" + dir + "/releases/5/y.tfstate"}
	if got := sink.URIs(); !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
}

// TestNothingThere: a pattern without a state is said once, and is no fault.
func TestNothingThere(t *testing.T) {
	var log bytes.Buffer
	o := quick
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, sink := open(t, filepath.Join(t.TempDir(), "*.tfstate"), o), sourcetest.NewSink(t)
	for range 2 {
		if err := s.Load(t.Context(), sink); err != nil {
			t.Fatal(err)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, s.URI()) || !strings.Contains(text, "hint=") {
		t.Errorf("want one line with the pattern and a hint: %s", text)
	}
}

func TestNew(t *testing.T) {
	for _, uri := range []string{"", "s3://bucket/key", "file://relative/path", "file:///a%zz", "/states/[a"} {
		if _, err := file.New(uri, file.Options{}); err == nil || !bytes.Contains([]byte(err.Error()), fmt.Appendf(nil, "%q", uri)) {
			t.Errorf("New(%q) gave %v, want an error that quotes it", uri, err)
		}
	}
	if _, err := file.New("a", file.Options{Poll: -1}); err == nil {
		t.Error("a poll below zero was taken")
	}
}

func put(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t testing.TB, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}
