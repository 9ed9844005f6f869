package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

func open(t *testing.T, dir string, o journal.Options) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return j
}

func put(t *testing.T, j *journal.Journal, keys ...string) int {
	t.Helper()
	var alerts []journal.Alert
	for _, k := range keys {
		alerts = append(alerts, journal.Alert{Key: k, Intake: "cloudtrail"})
	}
	n, err := j.Put(t.Context(), alerts...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func commit(t *testing.T, j *journal.Journal, c journal.Commit) {
	t.Helper()
	if err := j.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func falco(rule string) wire.Message {
	return wire.Message{Type: wire.TypeFalco, Topic: wire.TopicEvents, Payload: wire.Falco{Rule: rule}}
}

func after(t *testing.T, j *journal.Journal, id wire.ID, topics ...wire.Topic) []journal.Stored {
	t.Helper()
	got, err := j.After(t.Context(), id, topics, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAlertSurvivesReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder?with#odd%characters")
	at := time.Date(2026, 11, 20, 10, 0, 0, 123e6, time.UTC)
	want := journal.Alert{
		Key: "k1", Intake: "falco_http", Rule: "r", Priority: "warning", Output: "o", Source: "tfdrift", Hostname: "h",
		ContainerID: "c", Tags: []string{"a"}, Time: at, Fields: map[string]string{"ct.name": "x"},
		Record: jsontext.Value(`{"eventName":"x"}`),
	}
	j := open(t, dir, journal.Options{Now: func() time.Time { return at }})
	if n, err := j.Put(t.Context(), want, journal.Alert{Key: "k2"}, want); n != 2 || err != nil {
		t.Fatalf("Put: got %d, %v, want 2 stored", n, err)
	}
	epoch := j.Epoch()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = open(t, dir, journal.Options{})
	if j.Epoch() != epoch || epoch == "" {
		t.Errorf("epoch: got %q after reopening, want %q", j.Epoch(), epoch)
	}
	got, err := j.Pending(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	entries := []journal.Entry{{Seq: 1, Received: at, Alert: want}, {Seq: 2, Received: at, Alert: journal.Alert{Key: "k2"}}}
	if d := cmp.Diff(entries, got); d != "" {
		t.Error(d)
	}
	if n := put(t, j, "k1", "k3"); n != 1 {
		t.Errorf("Put of an old and a new key: got %d stored, want 1", n)
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	j := open(t, dir, journal.Options{})
	put(t, j, "k")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("mode of %s: got %o, want 600", e.Name(), got)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder: got %v, %v, want 700", info.Mode().Perm(), err)
	}
}

func TestDoneAlertsAreGoneFromPendingAndDisk(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	const secret = "hunter2-hunter2-hunter2"
	if _, err := j.Put(t.Context(), journal.Alert{Key: "a", Output: strings.Repeat(secret, 500)}, journal.Alert{Key: "b"}); err != nil {
		t.Fatal(err)
	}
	commit(t, j, journal.Commit{Done: []int64{1}, Events: []string{"e1"}})
	got, err := j.Pending(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Alert.Key != "b" {
		t.Errorf("pending: got %v, want b alone", got)
	}
	for id, want := range map[string]bool{"e1": true, "e2": false} {
		if told, err := j.Told(t.Context(), id); told != want || err != nil {
			t.Errorf("Told(%q): got %v, %v, want %v", id, told, err, want)
		}
	}
	if n := put(t, j, "a"); n != 0 {
		t.Error("the key of a done alert was forgotten")
	}
	if err := j.Close(); err != nil { // which writes the log back into the file
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), secret) {
		t.Error("a done alert's text is still in the file")
	}
}

// TestDoneAlertsAreGoneFromTheLog: within two minutes, while the journal is open, although somebody reads meanwhile.
func TestDoneAlertsAreGoneFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := open(t, dir, journal.Options{})
		has := func() bool {
			t.Helper()
			content, err := os.ReadFile(filepath.Join(dir, "journal.db-wal"))
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(content), "hunter2")
		}
		reader, err := sql.Open("sqlite", filepath.Join(dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		time.Sleep(2 * time.Minute)
		if _, err := j.Put(t.Context(), journal.Alert{Key: "a", Output: "hunter2"}); err != nil {
			t.Fatal(err)
		}
		reading, err := reader.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer reading.Rollback()
		var n int
		if err := reading.QueryRowContext(t.Context(), `SELECT count(*) FROM inbox`).Scan(&n); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		commit(t, j, journal.Commit{Done: []int64{1}})
		time.Sleep(90 * time.Second)
		if !has() {
			t.Error("not in the log: the test tests nothing")
		}
		if err := reading.Rollback(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if has() {
			t.Error("a done alert's text is still in the log")
		}
		put(t, j, "b") // and the journal goes on
	})
}

func TestArrivedIsSignalledForNewAlertsOnly(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	put(t, j, "a")
	put(t, j, "b")
	<-j.Arrived()
	put(t, j, "a")
	select {
	case <-j.Arrived():
		t.Error("signalled for a duplicate")
	default:
	}
}

func TestPutRefusesAnAlertWithoutAKey(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	if _, err := j.Put(t.Context(), journal.Alert{Key: "a"}, journal.Alert{}); err == nil {
		t.Fatal("got no error")
	}
	if got, _ := j.Pending(t.Context(), 0, 10); len(got) != 0 {
		t.Errorf("stored in spite of the error: %v", got)
	}
}

func TestCommitIsPublishedInOrderAndAsStored(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{Replayed: true})
	var seen []journal.Stored
	if newest := j.Follow(func(m []journal.Stored) { seen = append(seen, m...) }); !newest.IsZero() {
		t.Errorf("newest id of an empty journal: got %v", newest)
	}
	const senders, each = 16, 25
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				put(t, j, fmt.Sprint(s, "-", i))
				commit(t, j, journal.Commit{Messages: []wire.Message{falco(fmt.Sprint(s)), falco(fmt.Sprint(s, "b"))}})
			}
		})
	}
	wg.Wait()
	stored := after(t, j, wire.ID{})
	if d := cmp.Diff(stored, seen); d != "" {
		t.Errorf("followers saw other messages than are stored: %s", d)
	}
	if len(stored) != senders*each*2 {
		t.Errorf("messages: got %d, want %d", len(stored), senders*each*2)
	}
	for i, m := range stored {
		if i > 0 && m.ID.Compare(stored[i-1].ID) <= 0 {
			t.Fatalf("id %v follows %v", m.ID, stored[i-1].ID)
		}
		var body wire.Message
		if err := json.Unmarshal(m.Body, &body); err != nil || body.ID != m.ID || !body.Replayed || body.Type != m.Type {
			t.Fatalf("body %s of id %v: %v", m.Body, m.ID, err)
		}
	}
	if oldest, newest := j.Bounds(); oldest != stored[0].ID || newest != stored[len(stored)-1].ID {
		t.Errorf("bounds: got %v %v", oldest, newest)
	}
	entries, err := j.Pending(t.Context(), 0, 1<<20)
	if err != nil || len(entries) != senders*each {
		t.Errorf("alerts: got %d, %v, want %d", len(entries), err, senders*each)
	}
}

func TestIDsGrowOverClockChangesAndRestarts(t *testing.T) {
	dir := t.TempDir()
	now := time.UnixMilli(5000)
	clock := func() time.Time { return now }
	j := open(t, dir, journal.Options{Now: clock})
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("a"), falco("b")}})
	now = time.UnixMilli(4000)
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("c")}})
	j.Close()
	j = open(t, dir, journal.Options{Now: clock})
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("d")}})
	now = time.UnixMilli(6000)
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("e")}})

	var got []string
	for _, m := range after(t, j, wire.ID{}) {
		got = append(got, m.ID.String())
	}
	want := []string{"5000-0", "5000-1", "5000-2", "5000-3", "6000-0"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAfterFiltersByTopic(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	topics := []wire.Topic{wire.TopicDrifts, wire.TopicEvents, wire.TopicState}
	for i := range 30 {
		commit(t, j, journal.Commit{Messages: []wire.Message{{Type: wire.TypeEvent, Topic: topics[i%3], Payload: wire.Event{}}}})
	}
	all := after(t, j, wire.ID{})
	for _, wanted := range [][]wire.Topic{{wire.TopicState}, {wire.TopicDrifts, wire.TopicState}, topics} {
		var want []wire.ID
		for _, m := range all[5:] {
			if slices.Contains(wanted, m.Topic) {
				want = append(want, m.ID)
			}
		}
		var got []wire.ID
		for _, m := range after(t, j, all[4].ID, wanted...) {
			got = append(got, m.ID)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: %s", wanted, d)
		}
	}
	if got, _ := j.After(t.Context(), all[4].ID, nil, 3); len(got) != 3 || got[0].ID != all[5].ID {
		t.Errorf("limit 3: got %v", got)
	}
	// What a client makes up is still compared as a number.
	if got := after(t, j, wire.ID{Millis: 1 << 63, N: 1 << 63}); len(got) != 0 {
		t.Errorf("behind an id of the far future: got %d messages", len(got))
	}
}

func TestCommitRefusesWhatIsNotJournalled(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	for _, m := range []wire.Message{
		{Type: wire.TypeStats, Topic: wire.TopicStats},
		{Type: wire.TypeFalco, Topic: wire.TopicAll},
		{Type: wire.TypeFalco},
		{Type: wire.TypeFalco, Topic: wire.TopicEvents, Payload: func() {}},
	} {
		if err := j.Commit(t.Context(), journal.Commit{Events: []string{"e"}, Messages: []wire.Message{m}}); err == nil {
			t.Errorf("type %q, topic %q, payload %T: got no error", m.Type, m.Topic, m.Payload)
		}
	}
	if told, err := j.Told(t.Context(), "e"); told || err != nil {
		t.Errorf("part of a refused commit is stored: %v", err)
	}
	commit(t, j, journal.Commit{Messages: []wire.Message{falco("a")}})
}

func driftMessage(d wire.Drift) wire.Message {
	return wire.Message{Type: wire.TypeDrift, Topic: wire.TopicDrifts, Payload: d}
}

func TestDriftsAreListedOnceNewestFirst(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	row := func(id, status, value string) (journal.DriftRow, wire.Drift) {
		d := wire.Drift{DriftID: id, Status: status, NewValue: value}
		return journal.DriftRow{ID: id, Drift: d, Status: status}, d
	}
	for i := range 5 {
		r, d := row(fmt.Sprint("d", i), "open", "first")
		commit(t, j, journal.Commit{Drifts: []journal.DriftRow{r}, Messages: []wire.Message{falco("x"), driftMessage(d)}})
	}
	r, d := row("d0", "open", "second")
	commit(t, j, journal.Commit{Drifts: []journal.DriftRow{r}, Messages: []wire.Message{driftMessage(d)}})
	r, _ = row("d3", "resolved", "third") // without a message
	commit(t, j, journal.Commit{Drifts: []journal.DriftRow{r}})

	var got []string
	var cursor wire.ID
	for range 10 {
		list, err := j.Drifts(t.Context(), nil, cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			var m struct {
				Payload wire.Drift `json:"payload"`
			}
			if err := json.Unmarshal(item, &m); err != nil {
				t.Fatal(err)
			}
			got = append(got, m.Payload.DriftID+" "+m.Payload.NewValue)
		}
		if list.Next == "" {
			break
		}
		if cursor, err = wire.ParseID(list.Next); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"d3 third", "d0 second", "d4 first", "d2 first", "d1 first"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	events, err := j.Events(t.Context(), nil, wire.ID{}, 100)
	if err != nil || len(events.Items) != 5 || events.Next != "" {
		t.Errorf("events: got %d, next %v, %v, want 5", len(events.Items), events.Next, err)
	}
}

func TestCountsAndStates(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, journal.Options{})
	put(t, j, "a", "b", "c")
	commit(t, j, journal.Commit{
		Done: []int64{1}, Blind: []string{"ec2:X", "ec2:X", "s3:Y"}, Messages: []wire.Message{falco("x"), falco("y")},
		Drifts: []journal.DriftRow{{ID: "d1", Status: "open"}, {ID: "d2", Status: "resolved"}},
		States: []wire.State{{URI: "file:///b", Resources: 3}, {URI: "file:///a", Resources: 1}},
	})
	state := wire.State{URI: "file:///a", Serial: 4, Resources: 2, Fault: "gone", Written: wire.At(time.UnixMilli(1))}
	commit(t, j, journal.Commit{States: []wire.State{state}, Blind: []string{"s3:Y"}})
	j.Close()
	j = open(t, dir, journal.Options{})

	got, err := j.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := wire.Stats{
		Epoch: j.Epoch(), OpenDrifts: 1, Alerts: 3, Pending: 2, States: 2, Resources: 5,
		Messages: map[string]int64{"falco": 2}, BlindSpots: map[string]int64{"ec2:X": 2, "s3:Y": 2},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	states, err := j.States(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]wire.State{state, {URI: "file:///b", Resources: 3}}, states, cmp.AllowUnexported(wire.Time{})); d != "" {
		t.Error(d)
	}
}

func TestRetention(t *testing.T) {
	dir := t.TempDir()
	const retain, n = 100, 1000
	j := open(t, dir, journal.Options{Retain: retain})
	var first wire.ID
	for i := range n {
		put(t, j, fmt.Sprint("k", i))
		commit(t, j, journal.Commit{Done: []int64{int64(i + 1)}, Messages: []wire.Message{falco("x")}})
		if i == 0 {
			_, first = j.Bounds()
		}
	}
	_, err := j.After(t.Context(), first, nil, 10)
	gap, ok := errors.AsType[*journal.GapError](err)
	if !ok {
		t.Fatalf("behind the retention: got %v, want a GapError", err)
	}
	oldest, newest := j.Bounds()
	if gap.Oldest != oldest || gap.Pruned.Compare(oldest) >= 0 {
		t.Errorf("gap: got %+v, the oldest is %v", gap, oldest)
	}
	kept := after(t, j, gap.Pruned)
	if len(kept) < retain || len(kept) > retain+64 {
		t.Errorf("kept: got %d messages, want %d or a few more", len(kept), retain)
	}
	if kept[0].ID != oldest || kept[len(kept)-1].ID != newest {
		t.Errorf("kept from %v to %v, bounds %v %v", kept[0].ID, kept[len(kept)-1].ID, oldest, newest)
	}
	if put(t, j, "k999", "k950") != 0 || put(t, j, "k0") != 1 {
		t.Error("keys: want the newest remembered, the oldest forgotten")
	}
	j.Close()
	j = open(t, dir, journal.Options{Retain: retain})
	if o, n := j.Bounds(); o != oldest || n != newest {
		t.Errorf("bounds after reopening: got %v %v, want %v %v", o, n, oldest, newest)
	}
	if _, err := j.After(t.Context(), first, nil, 10); err == nil {
		t.Error("after reopening: the gap is forgotten")
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := func(statements string) string {
		dir := t.TempDir()
		db, err := sql.Open("sqlite", filepath.Join(dir, "journal.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(statements); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	newer := t.TempDir()
	open(t, newer, journal.Options{}).Close()
	if db, err := sql.Open("sqlite", filepath.Join(newer, "journal.db")); err != nil {
		t.Fatal(err)
	} else if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	} else {
		db.Close()
	}
	garbage := t.TempDir()
	if err := os.WriteFile(filepath.Join(garbage, "journal.db"), []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	busy := t.TempDir()
	open(t, busy, journal.Options{})

	for _, c := range []struct{ name, dir, want string }{
		{"newer", newer, "schema version 99, this bridge knows 2: written by a newer version of the bridge: start that version again"},
		{"another program's", changed("CREATE TABLE x(y)"), "a database of another program: give the bridge a data folder of its own"},
		{"garbage", garbage, "move it away, and the bridge starts a new one"},
		{"locked", busy, "another process has it open: stop that one"},
		{"below a file", filepath.Join(file, "data"), "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := journal.Open(t.Context(), c.dir, journal.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ...%s", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), filepath.Join(c.dir, "journal.db")) {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
}

func TestAnEmptyFileBecomesAJournal(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journal.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, open(t, dir, journal.Options{}), "a")
}

func TestClosedJournal(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	j, err := journal.Open(t.Context(), t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = j.Put(t.Context(), journal.Alert{Key: "a"})
	if !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Put: got %v", err)
	}
	if err := j.Commit(t.Context(), journal.Commit{}); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Commit: got %v", err)
	}
	if _, err := j.Counts(t.Context()); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Counts: got %v", err)
	}
}

func TestPutHonoursItsContextWhileItWaits(t *testing.T) {
	j := open(t, t.TempDir(), journal.Options{})
	held, release := make(chan struct{}), make(chan struct{})
	j.Follow(func([]journal.Stored) { close(held); <-release })
	var wg sync.WaitGroup
	wg.Go(func() { commit(t, j, journal.Commit{Messages: []wire.Message{falco("x")}}) })
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Put(ctx, journal.Alert{Key: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context canceled", err)
	}
	close(release)
	wg.Wait()
}
