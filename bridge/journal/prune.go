package journal

// kept counts what retention is about, and knows its limits.
type kept struct {
	retain                 int64
	messages, keys, events int64
}

func newKept(retain int) kept { return kept{retain: int64(retain)} }

const (
	// eventFactor: event ids are small, and forgetting one lets a record that is read again be told again.
	eventFactor = 10
	// Rows are pruned a few at a time, so that no Put waits long for it, and not one by one.
	pruneFrom = 64
	pruneMost = 512
)

// excess is how many of n rows to prune now, where keep are to stay.
func excess(n, keep int64) int64 {
	if n < keep+pruneFrom {
		return 0
	}
	return min(n-keep, pruneMost)
}

// prune deletes the oldest rows beyond what is kept. The newest row of each table always stays, which is what lets ids
// and places grow over restarts.
func (t *transaction) prune() {
	if n := excess(t.kept.messages, t.kept.retain); n > 0 {
		t.pruneMessages(n)
	}
	if n := excess(t.kept.keys, t.kept.retain); n > 0 {
		t.kept.keys -= t.gone("inbox", t.exec(t.stmt.pruneKeys, n))
	}
	if n := excess(t.kept.events, t.kept.retain*eventFactor); n > 0 {
		t.kept.events -= t.gone("event", t.exec(t.stmt.pruneEvents, n))
	}
}

func (t *transaction) pruneMessages(n int64) {
	if t.err != nil {
		return
	}
	var last, oldest int64
	t.err = t.tx.StmtContext(t.ctx, t.stmt.messageBound).QueryRowContext(t.ctx, n).Scan(&last, &oldest)
	t.kept.messages -= t.gone("message", t.exec(t.stmt.pruneMessages, last))
	t.exec(t.stmt.setPruned, last)
	t.pruned, t.oldest = true, unpack(oldest)
}

// gone counts pruned rows by table.
func (t *transaction) gone(table string, n int64) int64 {
	t.deleted[table] += n
	return n
}
