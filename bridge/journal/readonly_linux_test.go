package journal_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// asNobody runs f with a file system identity that owns nothing, since root may write to any folder.
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

func TestOpenInAFolderThatCannotBeWritten(t *testing.T) {
	parent := t.TempDir()
	closed := filepath.Join(parent, "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{closed, filepath.Join(closed, "below")} {
		asNobody(t, func() {
			_, err := journal.Open(t.Context(), dir, journal.Options{})
			if err == nil || !strings.Contains(err.Error(), "must be writable for the user who runs the bridge") ||
				!strings.Contains(err.Error(), filepath.Join(dir, "journal.db")) {
				t.Errorf("got %v", err)
			}
		})
	}
}
