package journal

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Everything here reads from connections of its own, beside the writer, and sees what was committed before the call.

// Pending gives the alerts behind place after that are not done, in their order, at most limit. One whose text is damaged is
// left where it is, logged once, and holds up no other.
func (j *Journal) Pending(ctx context.Context, after int64, limit int) ([]Entry, error) {
	entries, err := j.pending(ctx, after, limit)
	return entries, j.failed("read the inbox of", err)
}

func (j *Journal) pending(ctx context.Context, after int64, limit int) (entries []Entry, err error) {
	rows, err := j.read.QueryContext(ctx, `SELECT seq, received, body FROM inbox WHERE done = 0 AND seq > ? ORDER BY seq`, after)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for len(entries) < limit && rows.Next() {
		var e Entry
		var millis int64
		var body sql.RawBytes
		if err := rows.Scan(&e.Seq, &millis, &body); err != nil {
			return nil, err
		}
		e.Received = time.UnixMilli(millis).UTC()
		if e.Alert, err = decodeAlert(body); err != nil {
			j.unreadable(e.Seq, err)
			continue
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// unreadable logs once that an alert in the inbox cannot be read.
func (j *Journal) unreadable(seq int64, err error) {
	j.mu.Lock()
	known := j.broken[seq]
	j.broken[seq] = true
	j.mu.Unlock()
	if !known {
		j.log.Error("an alert in the inbox is damaged and passed over: it stays in the table inbox of the file", "file", j.path, "seq", seq, "cause", err)
	}
}

// Told reports that a Commit named the CloudTrail event id, and that it is still kept.
func (j *Journal) Told(ctx context.Context, eventID string) (bool, error) {
	var n int
	err := j.read.QueryRowContext(ctx, `SELECT count(*) FROM event WHERE event_id = ?`, eventID).Scan(&n)
	return n > 0, j.failed("look up an event in", err)
}

// After gives the messages behind id in their order, at most limit, of these topics only; no topics are all of them. A
// *GapError says that messages behind id are no longer kept: reading can go on after its Pruned.
func (j *Journal) After(ctx context.Context, id wire.ID, topics []wire.Topic, limit int) ([]Stored, error) {
	messages, err := j.after(ctx, id, topics, limit)
	if _, gap := errors.AsType[*GapError](err); gap {
		return nil, err
	}
	return messages, j.failed("read messages of", err)
}

// after looks for a gap and reads in one snapshot: what is pruned in between would be missed.
func (j *Journal) after(ctx context.Context, id wire.ID, topics []wire.Topic, limit int) ([]Stored, error) {
	tx, err := j.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	var pruned, oldest int64
	err = tx.QueryRowContext(ctx, `SELECT (SELECT value FROM meta WHERE name = 'pruned'),
		(SELECT coalesce(min(id), 0) FROM message)`).Scan(&pruned, &oldest)
	if err != nil {
		return nil, err
	}
	if pack(id) < pruned {
		return nil, &GapError{Pruned: unpack(pruned), Oldest: unpack(oldest)}
	}
	where, args := topicFilter(topics)
	args = append([]any{pack(id)}, append(args, limit)...)
	rows, err := tx.QueryContext(ctx,
		`SELECT id, type, topic, body FROM message WHERE id > ?`+where+` ORDER BY id LIMIT ?`, args...) //nolint:gosec // where is a run of question marks
	return collect(rows, err, func(rows *sql.Rows) (s Stored, err error) {
		var id int64
		err = rows.Scan(&id, &s.Type, &s.Topic, &s.Body)
		s.ID = unpack(id)
		return s, err
	})
}

// topicFilter lets one topic use its index; several are filtered along the order of ids, because SQLite would sort the
// whole of them otherwise (a "+" keeps a column from its index).
func topicFilter(topics []wire.Topic) (where string, args []any) {
	for _, t := range topics {
		args = append(args, string(t))
	}
	switch len(topics) {
	case 0:
		return "", nil
	case 1:
		return " AND topic = ?", args
	}
	return " AND +topic IN (?" + strings.Repeat(", ?", len(topics)-1) + ")", args
}

// Drifts gives each drift once, as the newest message about it, the newest first: those that pass the filter (nil: all),
// before an id (zero: from the newest), at most limit. A filter reads every drift on its way, some microseconds each.
func (j *Journal) Drifts(ctx context.Context, filter wire.Filter, before wire.ID, limit int) (wire.List, error) {
	return j.list(ctx, `SELECT last, body FROM drift WHERE last < ? ORDER BY last DESC`, before, sieve(wire.TopicDrifts, filter), limit)
}

// Events gives the kept messages of topic events in the same way.
func (j *Journal) Events(ctx context.Context, filter wire.Filter, before wire.ID, limit int) (wire.List, error) {
	return j.list(ctx, `SELECT id, body FROM message WHERE topic = 'events' AND id < ? ORDER BY id DESC`, before,
		sieve(wire.TopicEvents, filter), limit)
}

// list reads until it has one more than limit, to know whether there is a next page.
func (j *Journal) list(ctx context.Context, query string, before wire.ID, passes func([]byte) bool, limit int) (list wire.List, err error) {
	bound := int64(math.MaxInt64)
	if !before.IsZero() {
		bound = pack(before)
	}
	limit = max(limit, 1)
	rows, err := j.read.QueryContext(ctx, query, bound)
	if err != nil {
		return wire.List{}, j.failed("list messages of", err)
	}
	defer rows.Close()
	var last int64
	for rows.Next() {
		var id int64
		var body sql.RawBytes
		if err := rows.Scan(&id, &body); err != nil {
			return wire.List{}, j.failed("list messages of", err)
		}
		if !passes(body) {
			continue
		}
		if len(list.Items) == limit {
			list.Next = unpack(last).String()
			break
		}
		list.Items, last = append(list.Items, bytes.Clone(body)), id
	}
	if err := rows.Err(); err != nil {
		return wire.List{}, j.failed("list messages of", err)
	}
	return list, nil
}

// States gives every state committed and not gone since as it was last, by URI.
func (j *Journal) States(ctx context.Context) ([]wire.State, error) {
	rows, err := j.read.QueryContext(ctx, `SELECT body FROM state ORDER BY uri`)
	states, err := collect(rows, err, func(rows *sql.Rows) (s wire.State, err error) {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return s, err
		}
		return s, json.Unmarshal(body, &s)
	})
	return states, j.failed("read the states of", err)
}

// Counts gives the figures that the journal knows; uptime and clients are zero.
func (j *Journal) Counts(ctx context.Context) (wire.Stats, error) {
	s, err := j.counts(ctx)
	return s, j.failed("count the content of", err)
}

func (j *Journal) counts(ctx context.Context) (wire.Stats, error) {
	s := wire.Stats{Epoch: j.epoch, Messages: map[string]int64{}, BlindSpots: map[string]int64{}}
	row := j.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM drift WHERE status = 'open'),
		(SELECT count(*) FROM inbox WHERE done = 0), (SELECT count(*) FROM state),
		(SELECT coalesce(sum(resources), 0) FROM state)`)
	if err := row.Scan(&s.OpenDrifts, &s.Pending, &s.States, &s.Resources); err != nil {
		return s, err
	}
	rows, err := j.read.QueryContext(ctx, `SELECT kind, name, n FROM count`)
	_, err = collect(rows, err, func(rows *sql.Rows) (none struct{}, err error) {
		var kind, name string
		var n int64
		err = rows.Scan(&kind, &name, &n)
		switch kind {
		case countAlerts:
			s.Alerts = n
		case countMessages:
			s.Messages[name] = n
		case countBlind:
			s.BlindSpots[name] = n
		}
		return none, err
	})
	return s, err
}

// collect reads all rows of a query, whose error it takes along.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// failed names the file; a journal that was closed meanwhile says so rather than what SQLite makes of it. Damage is kept for
// Status.
func (j *Journal) failed(operation string, err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-j.quit:
		err = ErrClosed
	default:
	}
	err = explained(operation, j.path, err)
	if code := code(err); code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB {
		j.mu.Lock()
		j.damaged = err.Error()
		j.mu.Unlock()
	}
	return err
}
