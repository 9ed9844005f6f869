package journal

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"
)

// The histories of states: what each serial kept of a state was. The journal knows neither states nor instances: a history
// has numbered snapshots, each a head and rows, and a row is stored once for all snapshots in a row that have it. Sensitive
// values are the giver's to hash, under a key that the journal keeps (Key).

// Snapshot is one more snapshot of a state's history, and what differs from the one before it.
type Snapshot struct {
	State string
	N     int64 // from 1, growing by one; one that is stored already takes its place
	Head  []byte
	// Oldest is the oldest snapshot kept from now on.
	Oldest int64
	// Fresh forgets what was stored of the state before.
	Fresh bool
	Rows  []SnapshotRow
	// Older are bodies in the place of those that rows have which end before N: the row of the key that snapshot First has.
	// They are put there before Rows.
	Older []HistoryRow
}

// SnapshotRow is one row from a snapshot on; without a Body the key has none any more.
type SnapshotRow struct{ Key, Body []byte }

// History is what is stored of one state.
type History struct {
	Heads []HistoryHead // oldest first
	// Rows walks the rows of all snapshots in the order in which they were stored; an error is the last. Key and Body are
	// good until the next.
	Rows iter.Seq2[HistoryRow, error]
}

// HistoryHead is one stored snapshot.
type HistoryHead struct {
	N    int64
	Head []byte
}

// HistoryRow is one row of the snapshots First to Last; Last is 0 while the newest has it.
type HistoryRow struct {
	First, Last int64
	Key, Body   []byte
}

// schema2 is what version 2 added. snapshot.whole is 0 while its rows are still being stored; history.missing is since when
// (Unix milliseconds) no source has had the state.
const schema2 = `
CREATE TABLE history(id INTEGER PRIMARY KEY, state TEXT NOT NULL UNIQUE, missing INTEGER) STRICT;
CREATE TABLE snapshot(history INTEGER NOT NULL, n INTEGER NOT NULL, whole INTEGER NOT NULL, head BLOB NOT NULL,
	PRIMARY KEY(history, n)) STRICT, WITHOUT ROWID;
CREATE TABLE instance(id INTEGER PRIMARY KEY, history INTEGER NOT NULL, key BLOB NOT NULL, first INTEGER NOT NULL,
	last INTEGER, body BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX instance_now ON instance(history, key) WHERE last IS NULL;
CREATE INDEX instance_last ON instance(history, last);
`

// metaKey names the random key in the table meta.
const metaKey = "snapshot_key"

// snapshotStatements run once for each row.
type snapshotStatements struct{ end, drop, put, now *sql.Stmt }

func (s *snapshotStatements) prepare(ctx context.Context, db *sql.DB) (err error) {
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.end, `UPDATE instance SET last = ?3 - 1 WHERE history = ?1 AND key = ?2 AND last IS NULL AND first < ?3`},
		{&s.drop, `DELETE FROM instance WHERE history = ?1 AND key = ?2 AND last IS NULL AND first = ?3`},
		{&s.put, `INSERT INTO instance(history, key, first, body) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT(history, key) WHERE last IS NULL DO UPDATE SET body = excluded.body`},
		{&s.now, `UPDATE instance SET body = ?4 WHERE history = ?1 AND key = ?2 AND last IS NULL AND first <= ?3`},
	} {
		if *p.to, err = db.PrepareContext(ctx, p.sql); err != nil {
			return err
		}
	}
	return nil
}

// Key is a random key of 32 bytes, made with the file, for hashes of what must not be stored as it is.
func (j *Journal) Key() []byte { return slices.Clone(j.key) }

// Stage stores rows of a snapshot ahead of the Commit that makes it one, so that a large snapshot keeps nobody waiting
// long. Until then nobody sees them; without it they are forgotten when the journal is next opened. s.Fresh holds for the
// first of several calls alone.
func (j *Journal) Stage(ctx context.Context, s Snapshot) error {
	err := j.work(ctx, len(s.Rows)+len(s.Older), func(t *transaction) {
		id := t.history(s)
		t.run(`INSERT INTO snapshot(history, n, whole, head) VALUES (?, ?, 0, x'') ON CONFLICT DO NOTHING`, id, s.N)
		t.rows(id, s)
	})
	if err != nil {
		return fmt.Errorf("store %d rows of a snapshot in %q: %w", len(s.Rows), j.path, err)
	}
	return nil
}

// snapshot stores a snapshot whole.
func (t *transaction) snapshot(s Snapshot) {
	id := t.history(s)
	t.run(`INSERT INTO snapshot(history, n, whole, head) VALUES (?, ?, 1, coalesce(?, x''))
		ON CONFLICT(history, n) DO UPDATE SET whole = 1, head = excluded.head`, id, s.N, s.Head)
	t.run(`DELETE FROM snapshot WHERE history = ? AND n < ?`, id, s.Oldest)
	t.rows(id, s)
}

// history gives the state's place among the histories.
func (t *transaction) history(s Snapshot) (id int64) {
	t.run(`INSERT INTO history(state) VALUES (?) ON CONFLICT DO NOTHING`, s.State)
	if t.err == nil {
		t.err = t.tx.QueryRowContext(t.ctx, `SELECT id FROM history WHERE state = ?`, s.State).Scan(&id)
	}
	if s.Fresh {
		t.run(`DELETE FROM instance WHERE history = ?`, id)
		t.run(`DELETE FROM snapshot WHERE history = ?`, id)
	}
	return id
}

func (t *transaction) rows(id int64, s Snapshot) {
	t.older(id, s.Older)
	for _, r := range s.Rows {
		if s.N > 1 {
			t.exec(t.stmt.snapshots.end, id, r.Key, s.N)
		}
		if r.Body == nil {
			t.exec(t.stmt.snapshots.drop, id, r.Key, s.N)
			continue
		}
		t.exec(t.stmt.snapshots.put, id, r.Key, s.N, r.Body)
	}
}

// older gives rows that end before the snapshot other bodies. Those that ended long ago are found in one walk: no index has
// their keys, and there may be thousands.
func (t *transaction) older(id int64, rows []HistoryRow) {
	ended := map[string][]HistoryRow{}
	from := int64(math.MaxInt64)
	for _, r := range rows {
		if t.exec(t.stmt.snapshots.now, id, r.Key, r.First, r.Body) == 0 {
			ended[string(r.Key)] = append(ended[string(r.Key)], r)
			from = min(from, r.First)
		}
	}
	if len(ended) == 0 || t.err != nil {
		return
	}
	found, err := t.tx.QueryContext(t.ctx, `SELECT id, key, first, last FROM instance WHERE history = ? AND last >= ?`, id, from)
	bodies := map[int64][]byte{}
	_, t.err = collect(found, err, func(rows *sql.Rows) (none struct{}, err error) {
		var row, first, last int64
		var key sql.RawBytes
		err = rows.Scan(&row, &key, &first, &last)
		for _, r := range ended[string(key)] {
			if first <= r.First && r.First <= last {
				bodies[row] = r.Body
			}
		}
		return none, err
	})
	for row, body := range bodies {
		t.run(`UPDATE instance SET body = ? WHERE id = ?`, body, row)
	}
}

// run is exec for a statement that is not prepared.
func (t *transaction) run(query string, args ...any) int64 {
	if t.err != nil {
		return 0
	}
	res, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		t.err = err
		return 0
	}
	n, err := res.RowsAffected()
	t.err = err
	return n
}

// work has the writer run do in a transaction, which it may share with other requests; rows is about how many do changes.
func (j *Journal) work(ctx context.Context, rows int, do func(*transaction)) error {
	return j.do(ctx, &request{done: make(chan struct{}), work: do, rows: rows})
}

// pruneRows is how many rows of histories go in one transaction.
const pruneRows = 2000

// PruneHistory deletes the rows that no snapshot of the state has any more, some at a time, so that no Put waits long.
func (j *Journal) PruneHistory(ctx context.Context, state string) error {
	for gone := int64(pruneRows); gone == pruneRows; {
		err := j.work(ctx, pruneRows, func(t *transaction) {
			gone = t.run(`DELETE FROM instance WHERE id IN (SELECT i.id FROM history h JOIN instance i ON i.history = h.id
				WHERE h.state = ?1 AND i.last < (SELECT min(n) FROM snapshot WHERE history = h.id) LIMIT ?2)`, state, pruneRows)
		})
		if err != nil {
			return fmt.Errorf("prune a history in %q: %w", j.path, err)
		}
	}
	return nil
}

// KeepHistories says which states there are. A history without its state is kept for as long as forget, counted from the
// first call that missed the state with no row of it committed since, and then deleted.
func (j *Journal) KeepHistories(ctx context.Context, states []string, forget time.Duration) error {
	missing, err := j.missing(ctx)
	if err != nil {
		return j.failed("read the histories of", err)
	}
	for _, h := range missing {
		switch is := slices.Contains(states, h.state); {
		case is && h.since != 0:
			err = j.work(ctx, 1, func(t *transaction) { t.run(`UPDATE history SET missing = NULL WHERE id = ?`, h.id) })
		case !is && h.since == 0:
			err = j.work(ctx, 1, func(t *transaction) { t.run(`UPDATE history SET missing = ? WHERE id = ?`, j.now().UnixMilli(), h.id) })
		case !is && j.now().Sub(time.UnixMilli(h.since)) >= forget:
			err = j.forget(ctx, h.id)
		}
		if err != nil {
			return fmt.Errorf("keep the histories in %q: %w", j.path, err)
		}
	}
	return nil
}

type missing struct {
	id    int64
	state string
	since int64
}

func (j *Journal) missing(ctx context.Context) ([]missing, error) {
	rows, err := j.read.QueryContext(ctx, `SELECT id, state, coalesce(missing, 0) FROM history`)
	return collect(rows, err, func(rows *sql.Rows) (m missing, err error) {
		return m, rows.Scan(&m.id, &m.state, &m.since)
	})
}

// forget deletes a history, its heads first: without them the rows that are left are nothing.
func (j *Journal) forget(ctx context.Context, id int64) error {
	err := j.work(ctx, 1, func(t *transaction) { t.run(`DELETE FROM snapshot WHERE history = ?`, id) })
	for gone := int64(pruneRows); err == nil && gone == pruneRows; {
		err = j.work(ctx, pruneRows, func(t *transaction) {
			gone = t.run(`DELETE FROM instance WHERE id IN (SELECT id FROM instance WHERE history = ? LIMIT ?)`, id, pruneRows)
		})
	}
	if err != nil {
		return err
	}
	return j.work(ctx, 1, func(t *transaction) { t.run(`DELETE FROM history WHERE id = ?`, id) })
}

// History gives what is stored of a state; one without heads if nothing is.
func (j *Journal) History(ctx context.Context, state string) (History, error) {
	rows, err := j.read.QueryContext(ctx, `SELECT s.n, s.head FROM history h JOIN snapshot s ON s.history = h.id
		WHERE h.state = ? AND s.whole = 1 ORDER BY s.n`, state)
	heads, err := collect(rows, err, func(rows *sql.Rows) (h HistoryHead, err error) { return h, rows.Scan(&h.N, &h.Head) })
	if err != nil {
		return History{}, j.failed("read a history of", err)
	}
	return History{Heads: heads, Rows: func(yield func(HistoryRow, error) bool) { j.historyRows(ctx, state, yield) }}, nil
}

func (j *Journal) historyRows(ctx context.Context, state string, yield func(HistoryRow, error) bool) {
	rows, err := j.read.QueryContext(ctx, `SELECT i.first, coalesce(i.last, 0), i.key, i.body FROM history h
		JOIN instance i ON i.history = h.id WHERE h.state = ?`, state)
	if err != nil {
		yield(HistoryRow{}, j.failed("read a history of", err))
		return
	}
	defer rows.Close()
	for rows.Next() {
		var r HistoryRow
		var key, body sql.RawBytes
		if err := rows.Scan(&r.First, &r.Last, &key, &body); err != nil {
			yield(r, j.failed("read a history of", err))
			return
		}
		r.Key, r.Body = key, body
		if !yield(r, nil) {
			return
		}
	}
	if err := rows.Err(); err != nil {
		yield(HistoryRow{}, j.failed("read a history of", err))
	}
}

// unstage forgets snapshots that were never stored whole: the process ended before their Commit.
func unstage(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(ctx, `SELECT history, n FROM snapshot WHERE whole = 0`)
	staged, err := collect(rows, err, func(rows *sql.Rows) (at [2]int64, err error) { return at, rows.Scan(&at[0], &at[1]) })
	if err != nil || len(staged) == 0 {
		return err
	}
	for _, at := range staged {
		for _, query := range []string{
			`DELETE FROM instance WHERE history = ?1 AND first = ?2`,
			`UPDATE instance SET last = NULL WHERE history = ?1 AND last = ?2 - 1`,
			`DELETE FROM snapshot WHERE history = ?1 AND n = ?2`,
		} {
			if _, err := tx.ExecContext(ctx, query, at[0], at[1]); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}
