package journal_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// filled is the folder of a journal with some hundred KB in it, that was closed.
func filled(t *testing.T) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, dir, journal.Options{})
	fillJournal(t, j, 0, 300)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "journal.db")
}

func fillJournal(t *testing.T, j *journal.Journal, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		put(t, j, fmt.Sprintf("key-%d", i))
		commit(t, j, journal.Commit{Events: []string{fmt.Sprint("event-", i)}, Messages: []wire.Message{falco(strings.Repeat("x", 1000))}})
	}
}

// overwrite puts bytes of anything into a file, at a place.
func overwrite(t *testing.T, path string, at int64, n int, seed byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(noise)
	if _, err := f.WriteAt(noise, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func bytesOf(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestADamagedJournalIsSaid: at its opening, with the way out, and nothing of it is deleted or changed.
func TestADamagedJournalIsSaid(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"its first bytes":  func(t *testing.T, path string) { overwrite(t, path, 0, 100, 1) },
		"its tables":       func(t *testing.T, path string) { overwrite(t, path, 100, 3000, 2) },
		"a page":           func(t *testing.T, path string) { overwrite(t, path, 30*4096, 4096, 3) },
		"half of it":       func(t *testing.T, path string) { overwrite(t, path, 20*4096, 50*4096, 4) },
		"cut off":          func(t *testing.T, path string) { cutAt(t, path, 40*4096) },
		"cut in a page":    func(t *testing.T, path string) { cutAt(t, path, 40*4096+1000) },
		"cut in its start": func(t *testing.T, path string) { cutAt(t, path, 50) },
		"a text":           func(t *testing.T, path string) { cutAt(t, path, 0); overwrite(t, path, 0, 9000, 5) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := filled(t)
			damage(t, path)
			before := bytesOf(t, path)
			j, err := journal.Open(t.Context(), dir, journal.Options{})
			if err == nil {
				_ = j.Close()
			}
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away, and the bridge starts a new one") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			if !bytes.Equal(before, bytesOf(t, path)) {
				t.Error("the file was changed")
			}
			if err := os.Rename(path, path+".damaged"); err != nil { // the way out
				t.Fatal(err)
			}
			put(t, open(t, dir, journal.Options{}), "new")
		})
	}
}

func cutAt(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// TestNoisePanicsNowhere: wherever some bytes change, the journal opens or says what to do, and reads or says what is wrong.
func TestNoisePanicsNowhere(t *testing.T) {
	dir, path := filled(t)
	whole := bytesOf(t, path)
	places := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for seed := range byte(60) {
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		at := places.Int64N(int64(len(whole)) - 64)
		overwrite(t, path, at, 64, seed)
		j, err := journal.Open(t.Context(), dir, journal.Options{})
		if err != nil {
			if !strings.Contains(err.Error(), "move it away") {
				t.Errorf("noise at %d: %v", at, err)
			}
			continue
		}
		opened++
		_, errPending := j.Pending(t.Context(), 0, 1000)
		_, errAfter := j.After(t.Context(), wire.ID{}, nil, 1000)
		_, errCounts := j.Counts(t.Context())
		_, errPut := j.Put(t.Context(), journal.Alert{Key: "more"})
		for _, err := range []error{errPending, errAfter, errCounts, errPut} {
			if err != nil && !journal.Temporary(err) {
				t.Errorf("noise at %d: %v, which would end the bridge", at, err)
			}
		}
		if err := j.Close(); err != nil && !journal.Temporary(err) {
			t.Errorf("noise at %d: close: %v", at, err)
		}
	}
	t.Logf("%d of 60 opened", opened)
}

// TestDamageBesideTheJournal: of what was written behind the file, only that can be used which is whole; a file that was
// emptied is not taken for a new one, since that would delete what is behind it.
func TestDamageBesideTheJournal(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		least  int // alerts that must still be there; -1: an error
	}{
		"nothing":       {func(*testing.T, string) {}, 350},
		"-wal is gone":  {func(t *testing.T, path string) { remove(t, path+"-wal") }, 0},
		"-wal is cut":   {func(t *testing.T, path string) { cutAt(t, path+"-wal", int64(len(bytesOf(t, path+"-wal"))/2)) }, 0},
		"-wal is noise": {func(t *testing.T, path string) { overwrite(t, path+"-wal", 0, 9000, 1) }, 0},
		"-wal has noise": {func(t *testing.T, path string) {
			overwrite(t, path+"-wal", int64(len(bytesOf(t, path+"-wal"))/2), 9000, 1)
		}, 0},
		"emptied": {func(t *testing.T, path string) { cutAt(t, path, 0) }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			dir, from := t.TempDir(), t.TempDir()
			fillJournal(t, open(t, from, journal.Options{}), 0, 350)
			path := filepath.Join(dir, "journal.db")
			for _, file := range []string{"", "-wal"} { // as a power cut leaves them
				if err := os.WriteFile(path+file, bytesOf(t, filepath.Join(from, "journal.db"+file)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c.damage(t, path)
			behind, _ := os.ReadFile(path + "-wal")
			again, err := journal.Open(t.Context(), dir, journal.Options{})
			if c.least < 0 {
				now, _ := os.ReadFile(path + "-wal")
				if err == nil || !strings.Contains(err.Error(), "emptied, while journal.db-wal beside it is not: put the file back") || !bytes.Equal(behind, now) {
					t.Errorf("got %v; -wal had %d bytes and has %d", err, len(behind), len(now))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = again.Close() }()
			all, err := again.Pending(t.Context(), 0, 1000)
			if err != nil || len(all) < c.least {
				t.Errorf("%d alerts, want %d at least: %v", len(all), c.least, err)
			}
			t.Logf("%d of 350 alerts are there", len(all))
			put(t, again, "more")
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// TestADamagedAlertHoldsUpNoOther: it is said once and stays where it is.
func TestADamagedAlertHoldsUpNoOther(t *testing.T) {
	dir, path := filled(t)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE inbox SET body = CAST('{"key":' AS BLOB) WHERE seq IN (1, 2, 150)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	j := open(t, dir, journal.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	var seqs []int64
	for after := int64(0); ; {
		entries, err := j.Pending(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			seqs = append(seqs, e.Seq)
		}
		after = seqs[len(seqs)-1]
	}
	if len(seqs) != 297 || seqs[0] != 3 {
		t.Errorf("%d alerts, the first %d", len(seqs), seqs[0])
	}
	if _, err := j.Pending(t.Context(), 0, 1000); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "damaged and passed over"); n != 3 {
		t.Errorf("%d lines in the log, want 3:\n%s", n, &log)
	}
}

// TestDamageWhileRunning: reading what is damaged is an error that ends nothing, with the way out; what can be stored is,
// and the status tells of what cannot.
func TestDamageWhileRunning(t *testing.T) {
	dir, path := filled(t)
	j := open(t, dir, journal.Options{})
	overwrite(t, path, 10*4096, len(bytesOf(t, path))-10*4096, 1)
	_, err := j.After(t.Context(), wire.ID{}, nil, 1000)
	if !journal.Temporary(err) || !strings.Contains(err.Error(), "move it away") || !strings.Contains(err.Error(), path) {
		t.Errorf("reading: got %v", err)
	}
	if _, err := j.Put(t.Context(), journal.Alert{Key: "more"}); err != nil && !journal.Temporary(err) {
		t.Errorf("storing: got %v", err)
	}
	if s := j.Status(); s.OK || !s.Degraded || !strings.Contains(s.Reason, "move it away") {
		t.Errorf("status %+v", s)
	}
}

// TestAFileThatIsTakenAway: SQLite would go on writing into it, and all of that would be gone at the end.
func TestAFileThatIsTakenAway(t *testing.T) {
	dir, path := filled(t)
	j := open(t, dir, journal.Options{})
	if s := j.Status(); !s.OK {
		t.Errorf("status: %+v", s)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if s := j.Status(); s.OK || !s.Degraded || !strings.Contains(s.Reason, "was removed or replaced") {
		t.Errorf("status: %+v", s)
	}
}

// TestOtherThingsInItsPlace: of the folder, the file and the lock.
func TestOtherThingsInItsPlace(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"a file for the folder":   func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"a folder for the file":   func(dir string) error { return os.MkdirAll(filepath.Join(dir, "journal.db"), 0o700) },
		"a folder for the lock":   func(dir string) error { return os.MkdirAll(filepath.Join(dir, "journal.lock"), 0o700) },
		"a file above the folder": func(dir string) error { return os.WriteFile(filepath.Dir(dir), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "above", "data")
			if name != "a file above the folder" {
				if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			_, err := journal.Open(t.Context(), dir, journal.Options{})
			if err == nil || !strings.Contains(err.Error(), "something else lies in the place of the data folder or the journal: move it away") {
				t.Errorf("got %v", err)
			}
		})
	}
	deep := filepath.Join(t.TempDir(), "not", "there", "yet") // is made
	put(t, open(t, deep, journal.Options{}), "a")
}
