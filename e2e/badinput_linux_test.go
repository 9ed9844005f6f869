package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAFullDisk fills the disk of a running bridge: it says so to Falco, to probes and in the log, serves what it has, and
// with room goes on and has lost nothing that it had acknowledged. Only root may mount a disk to fill.
func TestAFullDisk(t *testing.T) {
	data := t.TempDir()
	switch err := syscall.Mount("tfdrift-test", data, "tmpfs", 0, "size=8388608"); {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		t.Log("a disk of its own to fill needs the right to mount one: ", err)
		return
	case err != nil:
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(data, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(data, "ballast")
	put(t, ballast, make([]byte, 3<<20), time.Time{})
	b, trail, _ := watched(t, "--data", data, "--falco-http", "127.0.0.1:0")
	c := b.watch("drifts")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "e2e-disk-1", now(), nil))
	c.await("drift", func(message) bool { return true })

	release := fill(t, data)
	acknowledged, refused := 0, 0
	for n := 0; n < 5000 && refused == 0; n++ {
		switch status := b.answer(alertNumber(n)); status {
		case http.StatusOK:
			acknowledged++
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Fatalf("alert %d: status %d", n, status)
		}
	}
	if refused == 0 {
		t.Fatal("the disk is never full")
	}
	b.awaitReady("journal", http.StatusServiceUnavailable, "degraded", "make room on the disk")
	if drifts := string(b.get("/api/v1/drifts")); !strings.Contains(drifts, "e2e-disk-1") {
		t.Errorf("what was told is not served: %s", drifts)
	}
	putRecords(t, filepath.Join(trail, "2.json"), record(t, "public-access", "e2e-disk-2", now(), nil))
	b.awaitReady("cloudtrail "+trail+"?watch=true", http.StatusServiceUnavailable, "unusable", "") // the record waits for room
	other := exec.Command(binary(t), "run", "--listen", "127.0.0.1:0", "--cloudtrail", trail, "--data", filepath.Join(data, "other"))
	if out, err := other.CombinedOutput(); other.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "make room on the disk") {
		t.Errorf("a start on a full disk: %v\n%s", err, out)
	}

	release()
	if err := errors.Join(os.RemoveAll(filepath.Join(data, "other")), os.Remove(ballast)); err != nil {
		t.Fatal(err)
	}
	c.await("drift", func(m message) bool { return strings.Contains(string(m.Payload), "e2e-disk-2") })
	b.awaitReady("journal", http.StatusOK, "well", "")
	if b.answer(alertNumber(5000)) != http.StatusOK {
		t.Error("with room, an alert is refused")
	}
	// What was answered with 503 is held in memory until there is room.
	if want, got := acknowledged+refused+3, b.alerts(); got != want {
		t.Errorf("%d alerts are stored, want %d: %d and one acknowledged, %d held, and two records", got, want, acknowledged, refused)
	}
	log := b.logged()
	for _, says := range []string{"journal transaction refused", "make room on the disk", "the journal takes transactions again"} {
		if !strings.Contains(log, says) {
			t.Errorf("%q is not in the log:\n%s", says, log)
		}
	}
}

// alerts counts what is stored.
func (b *bridge) alerts() int {
	b.t.Helper()
	var stats struct{ Alerts int }
	if err := json.Unmarshal(b.get("/api/v1/stats"), &stats); err != nil {
		b.t.Fatal(err)
	}
	return stats.Alerts
}

func alertNumber(n int) string {
	return fmt.Sprintf(`{"rule":"r","priority":"Warning","source":"syscall","hostname":"h","time":"2026-11-20T10:00:00Z","output":"%d %s","output_fields":{}}`,
		n, strings.Repeat("x", 20_000))
}

// fill leaves no byte of the disk free; what it returns makes room again.
func fill(t *testing.T, dir string) (release func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}
