package journal_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// TestAStateWithAnOddName: a path that is no UTF-8 is kept as well as it can be, and stops nothing.
func TestAStateWithAnOddName(t *testing.T) {
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	if err := j.Commit(t.Context(), journal.Commit{States: []wire.State{{URI: "/srv/\xff.tfstate"}}}); err != nil {
		t.Fatal(err)
	}
	if states, err := j.States(t.Context()); err != nil || len(states) != 1 || states[0].URI != "/srv/\uFFFD.tfstate" {
		t.Errorf("got %+v, %v", states, err)
	}
}

// TestOthersCannotReadIt: whatever rights a restored file has.
func TestOthersCannotReadIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	if _, err := j.Put(t.Context(), journal.Alert{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("files: %v %v", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v %v", f, info.Mode(), err)
		}
	}
}

// TestALockPasses: what a backup's lock holds up is an error that may pass, and passes.
func TestALockPasses(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(t.Context(), dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	other, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Put(t.Context(), journal.Alert{Key: "k"}); !journal.Temporary(err) {
		t.Errorf("locked: got %v, want an error that may pass", err)
	}
	if _, err := other.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if stored, err := j.Put(t.Context(), journal.Alert{Key: "k"}); err != nil || stored != 1 {
		t.Errorf("unlocked: stored %d, %v", stored, err)
	}
	if journal.Temporary(journal.ErrClosed) || journal.Temporary(nil) {
		t.Error("a closed journal does not pass")
	}
}
