package journal_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// disk is a file system of its own, of so many bytes. Only root may mount one: for others TestALimitOfFiles has to do.
func disk(t *testing.T, size int) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("tfdrift-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Log("a disk of its own to fill needs the right to mount one: ", err)
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, true
}

// fill leaves no byte of the disk free; what it returns makes room again.
func fill(t *testing.T, dir string) (release func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func TestAFullDiskAtTheStart(t *testing.T) {
	dir, ok := disk(t, 1<<20)
	if !ok {
		return
	}
	release := fill(t, dir)
	_, err := journal.Open(t.Context(), dir, journal.Options{})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "journal.db")) || !strings.HasSuffix(err.Error(), "make room on the disk") {
		t.Errorf("got %v", err)
	}
	release()
	put(t, open(t, dir, journal.Options{}), "a")
}

// TestAFullDiskWhileRunning: what was acknowledged stays and can be read, what cannot be stored is an error that passes,
// and with room everything goes on.
func TestAFullDiskWhileRunning(t *testing.T) {
	dir, ok := disk(t, 6<<20)
	if !ok {
		return
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, dir, journal.Options{})
	told := 0
	j.Follow(func(all []journal.Stored) { told += len(all) })
	stored := 0
	var err error
	for err == nil && stored < 10_000 {
		if _, err = j.Put(t.Context(), journal.Alert{Key: fmt.Sprint(stored), Output: strings.Repeat("x", 1000)}); err == nil {
			stored++
		}
	}
	if !journal.Temporary(err) {
		t.Fatalf("after %d alerts: got %v, want an error that may pass", stored, err)
	}
	release := fill(t, dir)
	if err := j.Commit(t.Context(), journal.Commit{Messages: []wire.Message{falco(strings.Repeat("y", 8000))}}); !journal.Temporary(err) || told != 0 {
		t.Errorf("a commit: got %v, %d messages told", err, told)
	}
	if s := j.Status(); s.OK || !s.Degraded || !strings.HasSuffix(s.Reason, "make room on the disk") || !strings.Contains(s.Reason, dir) {
		t.Errorf("status: %+v", s)
	}
	if all, err := j.Pending(t.Context(), 0, 1<<20); err != nil || len(all) != stored {
		t.Errorf("%d alerts can be read of %d: %v", len(all), stored, err)
	}
	release()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("room")}})
	put(t, j, "again")
	if s := j.Status(); !s.OK || told != 1 {
		t.Errorf("with room: status %+v, %d messages told", s, told)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := open(t, dir, journal.Options{}).Pending(t.Context(), 0, 1<<20); err != nil || len(all) != stored+1 {
		t.Errorf("%d alerts after reopening, want %d: %v", len(all), stored+1, err)
	}
}

// TestAReadOnlyDisk, as ext4 turns it when it finds an error: said at the start, and nothing is lost.
func TestAReadOnlyDisk(t *testing.T) {
	dir, ok := disk(t, 16<<20)
	if !ok {
		return
	}
	j := open(t, dir, journal.Options{})
	put(t, j, "before")
	remount := func(flags uintptr) error {
		return syscall.Mount("tfdrift-test", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=16777216")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := remount(syscall.MS_RDONLY); err != nil {
		t.Fatal(err)
	}
	_, err := journal.Open(t.Context(), dir, journal.Options{})
	if err == nil || !strings.Contains(err.Error(), "must be writable for the user who runs the bridge") {
		t.Errorf("read-only: got %v", err)
	}
	if err := remount(0); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, journal.Options{})
	put(t, j, "after")
	if all, err := j.Pending(t.Context(), 0, 10); err != nil || len(all) != 2 {
		t.Errorf("%d alerts, %v", len(all), err)
	}
}

// TestALimitOfFiles: a quota, which anybody can have, refuses what is beyond it, and what was acknowledged stays.
func TestALimitOfFiles(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	j := open(t, t.TempDir(), journal.Options{})
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(before)
	limit(syscall.Rlimit{Cur: 1 << 20, Max: before.Max})
	stored := 0
	var err error
	for err == nil && stored < 10_000 {
		if _, err = j.Put(t.Context(), journal.Alert{Key: fmt.Sprint(stored), Output: strings.Repeat("x", 1000)}); err == nil {
			stored++
		}
	}
	limit(before)
	if s := j.Status(); !journal.Temporary(err) || !s.Degraded || !strings.Contains(s.Reason, "look after the disk") {
		t.Errorf("after %d alerts: got %v, status %+v", stored, err, s)
	}
	put(t, j, "again")
	if all, err := j.Pending(t.Context(), 0, 1<<20); err != nil || len(all) != stored+1 || !j.Status().OK {
		t.Errorf("%d alerts, want %d: %v", len(all), stored+1, err)
	}
}
