package file_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tfdrift/tfdrift-falco/tfstate/source/sourcetest"
)

// asNobody runs f with a file system identity, of this thread alone, that owns nothing: root may read anything.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534
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

// TestWithoutRights: a state that may not be read, and a folder that may not be listed, are faults that name the place and
// the way out; the other states are read.
func TestWithoutRights(t *testing.T) {
	dir := t.TempDir()
	good, shut, folder := filepath.Join(dir, "good.tfstate"), filepath.Join(dir, "shut.tfstate"), filepath.Join(dir, "folder")
	for _, path := range []string{good, shut, filepath.Join(folder, "x.tfstate")} {
		put(t, path, sourcetest.State("a", 1))
	}
	for path, mode := range map[string]fs.FileMode{dir: 0o755, filepath.Dir(dir): 0o755, good: 0o644, shut: 0, folder: 0} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(folder, 0o700) //nolint:errcheck // for the removal
	sink := sourcetest.NewSink(t)
	asNobody(t, func() {
		if err := open(t, dir+"/**/*.tfstate", quick).Load(t.Context(), sink); err != nil {
			t.Error(err)
		}
	})
	if sink.Newest("file://"+good) != 1 || len(sink.URIs()) != 1 {
		t.Errorf("read: %v", sink.URIs())
	}
	for path, says := range map[string]string{shut: "let the user who runs this read it", folder: "let the user who runs this list the directory"} {
		if err := sink.FaultOf("file://" + path); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}
