package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Put stores alerts in the inbox and returns once they are on disk; stored is how many were not there already. On an
// error none is stored. ctx bounds the wait for the writer; what the writer has taken is waited for.
func (j *Journal) Put(ctx context.Context, alerts ...Alert) (stored int, err error) {
	if len(alerts) == 0 {
		return 0, nil
	}
	r := &request{done: make(chan struct{}), alerts: make([]alertRow, len(alerts))}
	for i, a := range alerts {
		if a.Key == "" {
			return 0, errors.New("put alert: no key")
		}
		body, err := encodeAlert(a)
		if err != nil {
			return 0, fmt.Errorf("put alert %q: %w", a.Key, err)
		}
		r.alerts[i] = alertRow{a.Key, body}
	}
	if err := j.do(ctx, r); err != nil {
		return 0, fmt.Errorf("put %d alerts into %q: %w", len(alerts), j.path, err)
	}
	return r.stored, nil
}

// Commit stores c in one transaction, gives its messages their ids and publishes them to followers; all of that has
// happened when it returns nil, and nothing of it when it returns an error. ctx bounds the wait for the writer; what the
// writer has taken is waited for.
func (j *Journal) Commit(ctx context.Context, c Commit) error {
	for _, m := range c.Messages {
		if err := journalled(m); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	if err := j.do(ctx, &request{done: make(chan struct{}), commit: &c}); err != nil {
		return fmt.Errorf("commit to %q: %w", j.path, err)
	}
	return nil
}

func journalled(m wire.Message) error {
	switch m.Type {
	case wire.TypeDrift, wire.TypeFalco, wire.TypeEvent, wire.TypeStateChange:
	default:
		return fmt.Errorf("message type %q is not one that is journalled", m.Type)
	}
	switch m.Topic {
	case wire.TopicDrifts, wire.TopicEvents, wire.TopicState:
		return nil
	}
	return fmt.Errorf("message topic %q: want drifts, events or state", m.Topic)
}

// do hands r to the writer and waits for its end.
func (j *Journal) do(ctx context.Context, r *request) error {
	j.metrics.waiting.Inc()
	defer j.metrics.waiting.Dec()
	select {
	case j.requests <- r:
		<-r.done
		return r.err
	case <-j.quit:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request is one Put, Commit or other work. The writer owns it until done is closed.
type request struct {
	alerts []alertRow
	commit *Commit
	work   func(*transaction) // anything else; rows is about how many it changes
	rows   int
	done   chan struct{}

	stored   int
	messages []Stored
	drifts   []driftRow
	states   [][]byte // texts of commit.States
	err      error
}

type alertRow struct {
	key  string
	body []byte
}

type driftRow struct {
	id, status string
	last       wire.ID
	body       []byte
}

func (r *request) size() int {
	if r.commit == nil {
		return len(r.alerts) + r.rows
	}
	c := r.commit
	rows := 0
	for _, s := range c.Snapshots {
		rows += len(s.Rows) + len(s.Older)
	}
	return rows + len(c.Done) + len(c.Events) + len(c.Drifts) + len(c.States) + len(c.Gone) + len(c.Blind) + len(c.Messages)
}

// A batch is bounded so that who comes first does not wait long for who came with it.
const (
	batchRequests = 512
	batchRows     = 4096
)

// writer is the one goroutine that changes the file. Its fields are its own.
type writer struct {
	*Journal
	log      *slog.Logger
	replayed bool
	stmt     statements
	last     wire.ID // the newest id given
	kept     kept
}

// newWriter reads where an earlier process stopped.
func newWriter(ctx context.Context, j *Journal, o Options) (*writer, error) {
	w := &writer{Journal: j, log: o.Log.With("component", "journal"), replayed: o.Replayed}
	w.kept = newKept(o.Retain)
	if err := unstage(ctx, j.write); err != nil {
		return nil, err
	}
	if err := w.stmt.prepare(ctx, j.write); err != nil {
		return nil, err
	}
	var oldest, newest, last, pruned int64
	row := j.write.QueryRowContext(ctx, `SELECT (SELECT value FROM meta WHERE name = 'epoch'),
		(SELECT value FROM meta WHERE name = '`+metaKey+`'),
		(SELECT value FROM meta WHERE name = 'pruned'), (SELECT coalesce(min(id), 0) FROM message),
		(SELECT coalesce(max(id), 0) FROM message), (SELECT coalesce(max(last), 0) FROM drift),
		(SELECT count(*) FROM message), (SELECT count(*) FROM inbox WHERE done = 1), (SELECT count(*) FROM event)`)
	if err := row.Scan(&j.epoch, &j.key, &pruned, &oldest, &newest, &last,
		&w.kept.messages, &w.kept.keys, &w.kept.events); err != nil {
		return nil, err
	}
	j.bounds = bounds{unpack(oldest), unpack(newest)}
	w.last = unpack(max(newest, last, pruned))
	return w, nil
}

// run takes requests until Close. Who asks while a transaction runs waits for the next one, and shares it with all others
// who wait.
func (w *writer) run() {
	defer close(w.ended)
	due := time.After(tidyAfter) // a process that was killed left its log
	for {
		select {
		case first := <-w.requests:
			w.serve(w.gather(first))
			if due == nil {
				due = time.After(tidyAfter)
			}
		case <-due:
			if due = nil; !w.tidy() {
				due = time.After(tidyAfter)
			}
		case <-w.quit:
			return
		}
	}
}

// tidyAfter is about how long a text that was deleted, such as that of an alert that is done, stays in the write-ahead log.
const tidyAfter = time.Minute

// tidy empties the write-ahead log, which SQLite else does after some megabytes only, and reports whether it did. It waits for
// no reader. What goes wrong on the disk is left to the next transaction to tell.
func (w *writer) tidy() bool {
	ctx := context.Background()
	conn, err := w.write.Conn(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return false
	}
	var busy, pages, moved int
	err = conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	_, again := conn.ExecContext(ctx, fmt.Sprint("PRAGMA busy_timeout = ", busyMillis))
	return err == nil && again == nil && busy == 0
}

func (w *writer) gather(first *request) []*request {
	batch, rows := []*request{first}, first.size()
	for len(batch) < batchRequests && rows < batchRows {
		select {
		case r := <-w.requests:
			batch, rows = append(batch, r), rows+r.size()
		default:
			return batch
		}
	}
	return batch
}

// serve stores a batch, publishes its messages and answers. What cannot be encoded fails alone, what the disk refuses
// fails together.
func (w *writer) serve(batch []*request) {
	good := make([]*request, 0, len(batch))
	for _, r := range batch {
		if r.err = w.encode(r); r.err == nil {
			good = append(good, r)
		}
	}
	err := w.timed(good)
	if len(good) > 0 {
		w.note(err)
	}
	if err != nil {
		w.metrics.refused.WithLabelValues(causeOf(err)).Inc()
		for _, r := range good {
			r.err, r.stored = err, 0
		}
	} else {
		w.tell(good)
	}
	for _, r := range batch {
		close(r.done)
	}
}

// note keeps and logs why the disk refuses a transaction, and that it takes one again, each once.
func (w *writer) note(err error) {
	reason := ""
	if err != nil {
		reason = explained("store in", w.path, err).Error()
	}
	w.mu.Lock()
	news := w.refused != reason
	w.refused = reason
	w.mu.Unlock()
	switch {
	case news && err != nil:
		w.log.Error("journal transaction refused", "error", reason)
	case news:
		w.log.Info("the journal takes transactions again")
	}
}

func (w *writer) tell(batch []*request) {
	arrived := false
	for _, r := range batch {
		arrived = arrived || r.stored > 0
		if len(r.messages) > 0 {
			w.publish(r.messages)
		}
	}
	if arrived {
		select {
		case w.arrived <- struct{}{}:
		default:
		}
	}
}

// next gives the id after the last: the clock's millisecond, unless the clock stands behind or the millisecond is full.
func (w *writer) next() wire.ID {
	id := wire.ID{Millis: min(uint64(max(w.now().UnixMilli(), 0)), maxMillis)}
	if id.Compare(w.last) <= 0 {
		id = wire.ID{Millis: w.last.Millis, N: w.last.N + 1}
	}
	if id.N >= maxN {
		id = wire.ID{Millis: id.Millis + 1}
	}
	w.last = id
	return id
}

// encode gives a commit's messages their ids and texts. An id that is given and then not stored is no harm.
func (w *writer) encode(r *request) error {
	if r.commit == nil {
		return nil
	}
	for _, s := range r.commit.States {
		body, err := json.Marshal(s, lenient, json.Deterministic(true)) // a path may be no UTF-8
		if err != nil {
			return fmt.Errorf("encode state %q: %w", s.URI, err)
		}
		r.states = append(r.states, body)
	}
	drifts := map[string]Stored{}
	for _, m := range r.commit.Messages {
		s, err := w.message(m)
		if err != nil {
			return err
		}
		r.messages = append(r.messages, s)
		if id := driftID(m.Payload); id != "" {
			drifts[id] = s
		}
	}
	for _, d := range r.commit.Drifts {
		s, told := drifts[d.ID]
		if !told {
			var err error
			s, err = w.message(wire.Message{
				Type: wire.TypeDrift, Topic: wire.TopicDrifts, Timestamp: d.Drift.Event.Time, Payload: d.Drift,
			})
			if err != nil {
				return err
			}
		}
		r.drifts = append(r.drifts, driftRow{d.ID, d.Status, s.ID, s.Body})
	}
	return nil
}

func (w *writer) message(m wire.Message) (Stored, error) {
	m.ID = w.next()
	m.Replayed = m.Replayed || w.replayed
	body, err := wire.Encode(m)
	if err != nil {
		return Stored{}, fmt.Errorf("encode message of type %q: %w", m.Type, err)
	}
	return Stored{m.ID, m.Type, m.Topic, body}, nil
}

// driftID is the drift a payload tells of, "" for another payload.
func driftID(payload any) string {
	switch p := payload.(type) {
	case wire.Drift:
		return p.DriftID
	case *wire.Drift:
		return p.DriftID
	}
	return ""
}

// timed is store with its figures.
func (w *writer) timed(batch []*request) error {
	if len(batch) == 0 {
		return nil
	}
	start := time.Now()
	err := w.store(batch)
	w.metrics.seconds.Observe(time.Since(start).Seconds())
	w.metrics.batch.Observe(float64(len(batch)))
	return err
}

// store is the one transaction. It uses no caller's context: one caller's end must not undo the others' work.
func (w *writer) store(batch []*request) error {
	ctx := context.Background()
	sqlTx, err := w.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer sqlTx.Rollback()
	t := &transaction{ctx: ctx, tx: sqlTx, stmt: &w.stmt, kept: w.kept, counts: map[countKey]int64{}, deleted: map[string]int64{}}
	received := w.now().UnixMilli()
	for _, r := range batch {
		t.request(r, received)
	}
	t.addCounts()
	t.prune()
	if t.err != nil {
		return t.err
	}
	if err := sqlTx.Commit(); err != nil {
		return err
	}
	w.kept = t.kept
	for table, n := range t.deleted {
		w.metrics.pruned.WithLabelValues(table).Add(float64(n))
	}
	if t.pruned {
		w.mu.Lock()
		w.bounds.oldest = t.oldest
		w.mu.Unlock()
	}
	return nil
}

type countKey struct{ kind, name string }

// transaction keeps its first error and does nothing after it.
type transaction struct {
	ctx    context.Context
	tx     *sql.Tx
	stmt   *statements
	counts map[countKey]int64
	// deleted counts pruned rows by table.
	deleted map[string]int64
	kept    kept
	pruned  bool    // messages were pruned
	oldest  wire.ID // then the oldest left
	err     error
}

// exec runs one statement and returns how many rows it changed.
func (t *transaction) exec(s *sql.Stmt, args ...any) int64 {
	if t.err != nil {
		return 0
	}
	res, err := t.tx.StmtContext(t.ctx, s).ExecContext(t.ctx, args...)
	if err != nil {
		t.err = err
		return 0
	}
	n, err := res.RowsAffected()
	t.err = err
	return n
}

func (t *transaction) request(r *request, received int64) {
	r.stored = 0
	for _, a := range r.alerts {
		r.stored += int(t.exec(t.stmt.putAlert, a.key, received, a.body))
	}
	if r.stored > 0 {
		t.counts[countKey{countAlerts, ""}] += int64(r.stored)
	}
	if r.commit != nil {
		t.commit(r)
	}
	if r.work != nil {
		r.work(t)
	}
}

func (t *transaction) commit(r *request) {
	c := r.commit
	for _, seq := range c.Done {
		t.kept.keys += t.exec(t.stmt.done, seq)
	}
	for _, id := range c.Events {
		t.kept.events += t.exec(t.stmt.putEvent, id)
	}
	for _, d := range r.drifts {
		t.exec(t.stmt.putDrift, d.id, d.status, pack(d.last), d.body)
	}
	for i, s := range c.States {
		t.exec(t.stmt.putState, s.URI, s.Resources, r.states[i])
		t.exec(t.stmt.found, s.URI)
	}
	for _, uri := range c.Gone {
		t.run(`DELETE FROM state WHERE uri = ?`, uri)
	}
	for _, s := range c.Snapshots {
		t.snapshot(s)
	}
	for _, name := range c.Blind {
		t.counts[countKey{countBlind, name}]++
	}
	for _, m := range r.messages {
		t.kept.messages += t.exec(t.stmt.putMessage, pack(m.ID), string(m.Type), string(m.Topic), m.Body)
		t.counts[countKey{countMessages, string(m.Type)}]++
	}
}

// addCounts writes each changed count once for the whole batch.
func (t *transaction) addCounts() {
	for k, n := range t.counts {
		t.exec(t.stmt.addCount, k.kind, k.name, n)
	}
}

// statements are prepared once, on the writing connection.
type statements struct {
	putAlert, done, putEvent, putDrift, putState, found, putMessage, addCount *sql.Stmt
	messageBound, pruneMessages, pruneKeys, pruneEvents, setPruned            *sql.Stmt
	snapshots                                                                 snapshotStatements
}

func (s *statements) prepare(ctx context.Context, db *sql.DB) error {
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.putAlert, `INSERT INTO inbox(key, received, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`},
		{&s.done, `UPDATE inbox SET done = 1, body = NULL WHERE seq = ? AND done = 0`},
		{&s.putEvent, `INSERT INTO event(event_id) VALUES (?) ON CONFLICT DO NOTHING`},
		{&s.putDrift, `INSERT INTO drift(id, status, first, last, body) VALUES (?1, ?2, ?3, ?3, ?4)
			ON CONFLICT(id) DO UPDATE SET status = excluded.status, last = excluded.last, body = excluded.body`},
		{&s.putState, `INSERT INTO state(uri, resources, body) VALUES (?, ?, ?)
			ON CONFLICT(uri) DO UPDATE SET resources = excluded.resources, body = excluded.body`},
		{&s.found, `UPDATE history SET missing = NULL WHERE state = ? AND missing IS NOT NULL`},
		{&s.putMessage, `INSERT INTO message(id, type, topic, body) VALUES (?, ?, ?, ?)`},
		{&s.addCount, `INSERT INTO count(kind, name, n) VALUES (?, ?, ?)
			ON CONFLICT(kind, name) DO UPDATE SET n = n + excluded.n`},
		{&s.messageBound, `SELECT id, (SELECT id FROM message ORDER BY id LIMIT 1 OFFSET ?1)
			FROM message ORDER BY id LIMIT 1 OFFSET ?1 - 1`},
		{&s.pruneMessages, `DELETE FROM message WHERE id <= ?`},
		{&s.pruneKeys, `DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE done = 1 ORDER BY seq LIMIT ?)`},
		{&s.pruneEvents, `DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?)`},
		{&s.setPruned, `UPDATE meta SET value = ? WHERE name = 'pruned'`},
	} {
		stmt, err := db.PrepareContext(ctx, p.sql)
		if err != nil {
			return err
		}
		*p.to = stmt
	}
	return s.snapshots.prepare(ctx, db)
}
