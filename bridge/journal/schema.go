package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// schemaVersion is the file's user_version.
//
//	1  2026-11  inbox, event, drift, state, message, count
//	2  2026-11  history, snapshot, instance: see snapshot.go
const schemaVersion = 2

// applicationID marks the file as ours: "TFDJ" (https://www.sqlite.org/pragma.html#pragma_application_id).
const applicationID = 0x5446444a

// A message's id is one integer, see pack. drift.body is the newest message about the drift, which outlives the message
// itself. inbox.body is NULL once done.
const schema = `
CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE inbox(seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, received INTEGER NOT NULL,
	done INTEGER NOT NULL DEFAULT 0, body BLOB) STRICT;
CREATE INDEX inbox_pending ON inbox(seq) WHERE done = 0;
CREATE TABLE event(seq INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE drift(id TEXT PRIMARY KEY, status TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
	body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX drift_last ON drift(last);
CREATE INDEX drift_status ON drift(status);
CREATE TABLE state(uri TEXT PRIMARY KEY, resources INTEGER NOT NULL, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE message(id INTEGER PRIMARY KEY, type TEXT NOT NULL, topic TEXT NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX message_topic ON message(topic);
CREATE TABLE count(kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(kind, name)) STRICT, WITHOUT ROWID;
`

// What count.kind holds.
const (
	countAlerts   = "alerts"  // stored in the inbox; name is ""
	countMessages = "message" // journalled; name is the type
	countBlind    = "blind"   // blind spots; name is source:name
)

// An id is stored as milliseconds<<nBits | n, so that the file's own order of rows is the order of messages. n stays
// below maxN: it, or anything larger that a client makes up, then sorts behind all of its millisecond.
const (
	nBits     = 20
	maxN      = 1<<nBits - 1
	maxMillis = math.MaxInt64 >> nBits
)

func pack(id wire.ID) int64 {
	if id.Millis > maxMillis {
		return math.MaxInt64
	}
	return int64(id.Millis<<nBits | min(id.N, maxN))
}

func unpack(v int64) wire.ID { return wire.ID{Millis: uint64(v) >> nBits, N: uint64(v) & maxN} }

// file is the open database: the lock, the one writing connection and the readers.
type file struct {
	path              string
	info              os.FileInfo
	lock, write, read *sql.DB
}

func (f file) close() error {
	var errs []error
	for _, db := range []*sql.DB{f.read, f.write, f.lock} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// openFile opens dir/journal.db with the current schema, or makes it. A lock beside it keeps other processes out: SQLite
// itself would let them in, and two writers would give the same ids.
func openFile(ctx context.Context, dir string) (f file, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return file{}, fmt.Errorf("open journal %q: %w", dir, err)
	}
	f.path = filepath.Join(abs, "journal.db")
	defer func() {
		if err != nil {
			err = errors.Join(explain(f.path, err), f.close())
			f = file{}
		}
	}()
	if err = os.MkdirAll(abs, 0o700); err != nil {
		return f, err
	}
	if err = emptied(f.path); err != nil {
		return f, err
	}
	lock := filepath.Join(abs, "journal.lock")
	if err = errors.Join(create(lock), create(f.path)); err != nil {
		return f, err
	}
	f.lock = connect(lock, 1, "_pragma=busy_timeout(0)")
	if _, err = f.lock.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return f, err
	}
	f.write = connect(f.path, 1, "_txlock=immediate", fmt.Sprintf("_pragma=busy_timeout(%d)", busyMillis), "_pragma=synchronous(FULL)",
		"_pragma=secure_delete(ON)")
	if err = prepare(ctx, f.write); err != nil {
		return f, err
	}
	if f.info, err = os.Stat(f.path); err != nil {
		return f, err
	}
	f.read = connect(f.path, readers, "_pragma=busy_timeout(5000)", "_pragma=query_only(ON)")
	return f, nil
}

const (
	readers = 4
	// busyMillis is how long a transaction waits for a lock of another process, such as a backup.
	busyMillis = 5000
)

// emptied finds a journal of no bytes beside what was written behind it: SQLite would delete that without a word.
func emptied(path string) error {
	info, err := os.Stat(path)
	behind, behindErr := os.Stat(path + "-wal")
	if err == nil && behindErr == nil && info.Mode().IsRegular() && info.Size() == 0 && behind.Size() > 0 {
		return errEmptied
	}
	return nil
}

// create makes an empty file that only its owner can read; SQLite would use the umask. An existing file is not opened,
// because closing it would drop the locks that this process holds on it.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return closeToOthers(path)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// closeToOthers takes the others' rights from a file that an umask, a restored backup or a hand gave them; SQLite makes
// -wal and -shm with the rights of the file. The group's stay: Kubernetes gives them by fsGroup.
func closeToOthers(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q: %w", path, errNoFile)
	case info.Mode().Perm()&0o007 == 0:
		return nil
	}
	return os.Chmod(path, info.Mode().Perm()&^0o007)
}

// connect opens nothing yet; connections are kept once made.
func connect(path string, conns int, params ...string) *sql.DB {
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + strings.Join(params, "&")
	db, _ := sql.Open("sqlite", name) // fails only for a driver that is not linked
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// What a file can be that is not a journal to go on with.
var (
	errNewer   = errors.New("written by a newer version of the bridge")
	errForeign = errors.New("a database of another program")
	errDamaged = errors.New("damaged")
	errEmptied = errors.New("emptied, while journal.db-wal beside it is not")
	errNoFile  = errors.New("no regular file")
)

// checkWithin bounds the check of a whole file at its opening, which takes about a second a GB from memory.
const checkWithin = 10 * time.Second

// check looks through the file, as far as that time allows: damage is to show now, not in the middle of the work.
func check(ctx context.Context, db *sql.DB) error {
	within, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var found string
	err := db.QueryRowContext(within, "PRAGMA quick_check(1)").Scan(&found)
	switch {
	case within.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s", errDamaged, strings.ReplaceAll(strings.TrimPrefix(found, "*** in database main ***\n"), "\n", " "))
	}
	return nil
}

// prepare checks whose the file is, and that it is whole, before it changes anything, and makes the schema in an empty one.
func prepare(ctx context.Context, db *sql.DB) error {
	var app, version, tables int
	row := db.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`)
	if err := row.Scan(&app, &version, &tables); err != nil {
		return err
	}
	switch {
	case app != applicationID && tables > 0:
		return errForeign
	case version > schemaVersion:
		return fmt.Errorf("schema version %d, this bridge knows %d: %w", version, schemaVersion, errNewer)
	}
	if err := check(ctx, db); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode = WAL"); err != nil {
		return err
	}
	if version == schemaVersion {
		return nil
	}
	return migrate(ctx, db, version)
}

// migrate brings an empty file, or one of an earlier version, to the current schema, in one transaction.
func migrate(ctx context.Context, db *sql.DB, version int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var statements []string
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	meta := map[string]any{metaKey: key}
	if version < 1 {
		statements = append(statements, schema)
		meta["epoch"], meta["pruned"] = rand.Text(), int64(0)
	}
	statements = append(statements, schema2,
		fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, schemaVersion))
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	for name, value := range meta {
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta(name, value) VALUES (?, ?)", name, value); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func explain(path string, err error) error { return explained("open", path, err) }

// explained names the file and, where the user can do something, what.
func explained(operation, path string, err error) error {
	if hint := hint(err); hint != "" {
		return fmt.Errorf("%s journal %q: %w: %s", operation, path, err, hint)
	}
	return fmt.Errorf("%s journal %q: %w", operation, path, err)
}

// Temporary reports an error of the disk, of the file or of a lock, which may pass or be put right: the same Put or Commit
// can be tried again. Damage does not pass, but the bridge still serves what it can read until somebody moves the file away.
func Temporary(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return true
	}
	return false
}

// code is SQLite's for an error, 0 for one of another kind (https://www.sqlite.org/rescode.html).
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// hint is what to do about an error; "" where nothing is known.
func hint(err error) string {
	switch code := code(err); {
	case errors.Is(err, errNewer):
		return "start that version again, or give this one another data folder"
	case errors.Is(err, errForeign):
		return "give the bridge a data folder of its own"
	case errors.Is(err, errEmptied):
		return "put the file back as it was, or move both away, and the bridge starts a new one"
	case errors.Is(err, errNoFile), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST):
		return "something else lies in the place of the data folder or the journal: move it away, or name another data folder"
	case code == sqlite3.SQLITE_BUSY:
		return "another process has it open: stop that one, or give this one another data folder"
	case code == sqlite3.SQLITE_NOTADB, code == sqlite3.SQLITE_CORRUPT, errors.Is(err, errDamaged):
		return "the file is damaged or not a journal: stop the bridge, move it away, and the bridge starts a new one (sqlite3 journal.db .recover prints what can be saved)"
	case code == sqlite3.SQLITE_FULL, errors.Is(err, syscall.ENOSPC):
		return "make room on the disk"
	case code == sqlite3.SQLITE_IOERR, errors.Is(err, syscall.EIO):
		return "look after the disk: the system's log says what it does"
	case code == sqlite3.SQLITE_READONLY, code == sqlite3.SQLITE_CANTOPEN, code == sqlite3.SQLITE_PERM,
		errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return "the folder and the files in it must be writable for the user who runs the bridge"
	}
	return ""
}
