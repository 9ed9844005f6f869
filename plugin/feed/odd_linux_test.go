package feed_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

// TestOddThingsInAFolder: pipes, devices, links in circles, closed folders and files that go away hold up nothing.
func TestOddThingsInAFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.json"), record("a"))
	write(t, filepath.Join(dir, "gone.json"), record("x"))
	write(t, filepath.Join(dir, "z.json"), record("z"))
	write(t, filepath.Join(dir, "closed", "c.json"), record("c"))
	for _, err := range []error{
		syscall.Mkfifo(filepath.Join(dir, "b.json"), 0o600),
		os.Symlink("/dev/zero", filepath.Join(dir, "d.json")),
		os.Symlink("f.json", filepath.Join(dir, "e.json")), os.Symlink("e.json", filepath.Join(dir, "f.json")),
		os.Symlink(dir, filepath.Join(dir, "h.json")), os.Symlink("nowhere", filepath.Join(dir, "i.json")),
		os.Chmod(filepath.Join(dir, "closed"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(filepath.Join(dir, "closed"), 0o700) //nolint:errcheck // for the removal
	var log bytes.Buffer
	f, err := feed.Open(dir, feed.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	asNobody(t, dir, func() {
		err = f.Run(t.Context(), func(r []byte) error {
			if got = append(got, string(r)); len(got) == 1 { // it is listed by now
				return os.Remove(filepath.Join(dir, "gone.json"))
			}
			return nil
		})
	})
	if diff := cmp.Diff([]string{record("a"), record("z")}, got); diff != "" || err != nil {
		t.Errorf("%v; records (-want +got):\n%s", err, diff)
	}
	want := map[string]uint64{"no_file": 2, "unreadable": 3} // the pipe and the device; two links and the folder
	if diff := cmp.Diff(want, f.Stats().Faults); diff != "" {
		t.Errorf("faults (-want +got):\n%s\n%s", diff, &log)
	}
}

// TestAFileThatCannotBeReadIsTriedAgain: a disk or a server that fails once has the records all the same.
func TestAFileThatCannotBeReadIsTriedAgain(t *testing.T) {
	w := watch(t, "/proc/self/mem", 5*time.Millisecond) // a regular file whose first byte cannot be read
	for deadline := time.Now().Add(20 * time.Second); w.feed.Stats().Faults["unreadable"] < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("faults: %v, want unreadable at every look", w.feed.Stats().Faults)
		}
	}
}

// asNobody runs f with a file system identity, of this thread alone, that owns only dir, since root may read anything.
func asNobody(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chown(path, nobody, -1); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
	}()
	f()
}
