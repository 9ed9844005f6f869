package correlate_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/tfdrift/tfdrift-falco/bridge/correlate"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// at is a moment so many minutes after the first state was written.
func at(minutes int) time.Time { return written.Add(time.Duration(minutes) * time.Minute) }

// event is the call of that moment, read without Falco.
func event(id string, when time.Time) journal.Alert {
	text := bytes.Replace(call(id, ""), []byte("2026-11-20T10:05:00Z"), []byte(when.Format(time.RFC3339)), 1)
	return journal.Alert{Intake: "cloudtrail", Record: text}
}

// run is one life of the bridge over the folder dir: do, and then an orderly end.
func run(t *testing.T, dir string, do func(*stage)) {
	t.Helper()
	t.Run("run", func(t *testing.T) { do(newStage(t, dir)) })
}

func TestLateRecordAfterARestart(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, func(s *stage) {
		s.state(buckets(1, true), at(0))
		s.state(buckets(2, false), at(10))
		close(s.ready)
	})
	run(t, dir, func(s *stage) {
		s.state(buckets(2, false), at(10))
		close(s.ready)
		s.put(event("late", at(5)), event("earlier", at(-5)), event("same second", at(10)))
		s.put(event("late", at(5)))
		unknown := strings.Replace(strings.Replace(drift, "exact", "partial", 1), `"true"->`, `""->`, 1)
		want := []string{
			"state 2 modified aws_s3_bucket_public_access_block.b", drift,
			unknown, strings.NewReplacer("block_public_acls", "block_public_policy", `"false"`, `"true"`).Replace(unknown), // no snapshot is that old
			unknown, // the state was written within the event's second
		}
		if d := cmp.Diff(want, s.told()); d != "" {
			t.Errorf("messages (-want +got):\n%s", d)
		}
	})
}

// TestMovedReplacedDeleted: what happened to an instance since a late event changes nothing, with a restart or without.
func TestMovedReplacedDeleted(t *testing.T) {
	moved := strings.Replace(buckets(2, true), `"aws_s3_bucket_public_access_block","name":"b"`, `"aws_s3_bucket_public_access_block","name":"moved"`, 1)
	replaced := strings.ReplaceAll(buckets(2, true), `"id":"logs"`, `"id":"logs-2"`)
	deleted, _, _ := strings.Cut(buckets(2, true), ",\n {\"mode\":\"managed\",\"type\":\"aws_s3_bucket_public_access_block\"")
	for name, later := range map[string]string{"moved": moved, "replaced": replaced, "deleted": deleted + "]}", "set again": buckets(2, false)} {
		t.Run(name, func(t *testing.T) {
			var told [2][]string
			for restarts := range 2 {
				dir := t.TempDir()
				late := func(s *stage) {
					close(s.ready)
					s.put(event("late", at(5)), event("early", at(-5)), event("after", at(15)))
					told[restarts] = s.told()
				}
				run(t, dir, func(s *stage) {
					s.state(buckets(1, true), at(0))
					s.state(later, at(10))
					if restarts == 0 {
						late(s)
					}
				})
				if restarts == 1 {
					run(t, dir, func(s *stage) {
						s.state(later, at(10))
						late(s)
					})
				}
			}
			if d := cmp.Diff(told[0], told[1]); d != "" {
				t.Errorf("(-without +with a restart):\n%s", d)
			}
			exact := func(m string) bool {
				return strings.HasPrefix(m, "drift exact") && strings.Contains(m, `block_public_acls "true"->"false"`)
			}
			if !slices.ContainsFunc(told[1], exact) {
				t.Errorf("the late event is not told exactly: %q", told[1])
			}
		})
	}
}

// TestAStateThatCannotBeRead at the start is what it was.
func TestAStateThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, func(s *stage) { s.state(buckets(1, true), at(0)) })
	run(t, dir, func(s *stage) {
		s.states.Fault("test://a", os.ErrNotExist)
		close(s.ready)
		s.put(event("late", at(5)))
		if d := cmp.Diff([]string{drift}, s.told()); d != "" {
			t.Errorf("messages (-want +got):\n%s", d)
		}
	})
	run(t, dir, func(s *stage) { // taken out of the configuration, and put back
		close(s.ready)
		s.put(event("nobody's", at(5)))
	})
	run(t, dir, func(s *stage) {
		s.state(buckets(2, false), at(10))
		close(s.ready)
		s.put(event("later", at(6)))
		want := []string{drift, "state 2 modified aws_s3_bucket_public_access_block.b", drift}
		if d := cmp.Diff(want, s.told()); d != "" {
			t.Errorf("messages (-want +got):\n%s", d)
		}
	})
}

// TestAnyOrder: late, repeated and out of order, before and after restarts, records tell what they would have told in order.
func TestAnyOrder(t *testing.T) {
	const serials = 6
	in := t.TempDir()
	var alerts []journal.Alert
	for n := range 2 * serials { // between the serials, and in the second of each
		alerts = append(alerts, event(fmt.Sprint(n), at(n*5)))
	}
	read := func(s *stage) {
		for n := range serials {
			s.state(buckets(n+1, n%2 == 0), at(n*10))
		}
		close(s.ready)
	}
	drifts := func(s *stage) (all []string) {
		for _, m := range s.told() {
			if !strings.HasPrefix(m, "state") {
				all = append(all, m)
			}
		}
		slices.Sort(all)
		return all
	}
	var want []string
	run(t, in, func(s *stage) {
		read(s)
		s.put(alerts...)
		want = drifts(s)
	})
	if len(want) < serials/2 {
		t.Fatalf("told in order: %q", want)
	}
	rounds := 0
	rapid.Check(t, func(rt *rapid.T) {
		if rounds++; rounds > 8 {
			return // each opens files
		}
		dir := t.TempDir()
		order := rapid.Permutation(append(slices.Clone(alerts), alerts[:4]...)).Draw(rt, "order")
		run(t, dir, read)
		for len(order) > 0 {
			n := rapid.IntRange(1, len(order)).Draw(rt, "before the next restart")
			run(t, dir, func(s *stage) {
				s.state(buckets(serials, (serials-1)%2 == 0), at((serials-1)*10))
				close(s.ready)
				s.put(order[:n]...)
				if order = order[n:]; len(order) == 0 {
					if d := cmp.Diff(want, drifts(s)); d != "" {
						rt.Errorf("(-in order +as drawn):\n%s", d)
					}
				}
			})
		}
	})
}

func TestSerialsOverARestart(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, func(s *stage) { s.state(buckets(1, true), at(0)) })
	run(t, dir, func(s *stage) { s.state(buckets(1, true), at(0)) })   // unchanged
	run(t, dir, func(s *stage) { s.state(buckets(4, false), at(10)) }) // changed while the bridge was down
	run(t, dir, func(s *stage) { s.state(buckets(4, false), at(10)) })
	run(t, dir, func(s *stage) { s.state(buckets(3, false), at(20)) }) // put back
	run(t, dir, func(s *stage) {
		s.state(strings.Replace(buckets(1, true), `"lineage":"l"`, `"lineage":"m"`, 1), at(30))
	}) // another state
	run(t, dir, func(s *stage) {
		s.state(strings.Replace(buckets(1, false), `"lineage":"l"`, `"lineage":"m"`, 1), at(40))
	}) // written past Terraform
	run(t, dir, func(s *stage) {
		want := []string{
			"state 4 modified aws_s3_bucket_public_access_block.b", "state 3 serial_backwards ", "state 1 lineage_changed ",
			"state 1 same_serial ", "state 1 modified aws_s3_bucket_public_access_block.b",
		}
		if d := cmp.Diff(want, s.told()); d != "" {
			t.Errorf("messages (-want +got):\n%s", d)
		}
		stored, err := s.journal.States(t.Context())
		if err != nil || len(stored) != 1 || stored[0].Lineage != "m" {
			t.Errorf("states: %+v, %v", stored, err)
		}
		history, err := s.journal.History(t.Context(), "test://a")
		if err != nil || len(history.Heads) != 2 {
			t.Errorf("history: %d snapshots, want those of the new lineage, %v", len(history.Heads), err)
		}
	})
}

// TestARowSaysWhatIsNow: what could not be read before a restart and can now, unchanged, is well again.
func TestARowSaysWhatIsNow(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, func(s *stage) { s.state(buckets(1, true), at(0)) })
	run(t, dir, func(s *stage) {
		s.state(buckets(1, true), at(0))
		close(s.ready)
		s.put(direct(""))
		stored, err := s.journal.States(t.Context())
		if err != nil || len(stored) != 1 || time.Since(stored[0].Read.Time()) > time.Minute || !stored[0].Written.Time().Equal(at(0)) {
			t.Errorf("states: %+v, %v", stored, err)
		}
	})
}

const policies = `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[{"mode":"managed","type":"aws_s3_bucket_policy","name":"p","provider":"p","instances":[
 {"attributes":{"id":"logs","bucket":"logs","policy":%q},"sensitive_attributes":[[{"type":"get_attr","value":"policy"}]]}]}]}`

func putPolicy(id, policy string) journal.Alert {
	return journal.Alert{Intake: "cloudtrail", Record: fmt.Appendf(nil, `{"eventID":%q,"eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy",
	 "eventTime":"2026-11-20T10:05:00Z","requestParameters":{"bucketName":"logs","bucketPolicy":%s}}`, id, policy)}
}

// TestSensitiveOverARestart: no secret in any file of the journal, no false change, a true one told, and an old value that
// is known by its hash.
func TestSensitiveOverARestart(t *testing.T) {
	dir := t.TempDir()
	one, two := `{"Sid":"hunter2one"}`, `{"Sid":"hunter2two"}`
	clean := func() {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "journal*"))
		if err != nil || len(files) < 2 {
			t.Fatalf("files %v, %v", files, err)
		}
		for _, f := range files {
			if text, err := os.ReadFile(f); err != nil || bytes.Contains(text, []byte("hunter2")) {
				t.Errorf("%s has a secret, or %v", f, err)
			}
		}
	}
	run(t, dir, func(s *stage) {
		s.state(fmt.Sprintf(policies, 1, one), at(0))
		s.state(fmt.Sprintf(policies, 2, two), at(10))
		close(s.ready)
		s.put(journal.Alert{Intake: "falco_http", Rule: "waits until the serials are told"})
		clean()
	})
	run(t, dir, func(s *stage) { s.state(fmt.Sprintf(policies, 3, two), at(20)) }) // another serial alone
	run(t, dir, func(s *stage) {
		s.state(fmt.Sprintf(policies, 4, one), at(30))
		close(s.ready)
		s.put(journal.Alert{Intake: "falco_http", Rule: "waits until the serials are told"})
		clean()
		s.put(putPolicy("what it was", one), putPolicy("another", two))
		want := []string{
			"state 2 modified aws_s3_bucket_policy.p", "falco waits until the serials are told info", "state 4 modified aws_s3_bucket_policy.p",
			"falco waits until the serials are told info",
			`drift exact aws_s3_bucket_policy.p policy "(sensitive)"->"(sensitive)" by  medium`,
		}
		if d := cmp.Diff(want, s.told()); d != "" {
			t.Errorf("messages (-want +got):\n%s", d)
		}
	})
}

// TestLargeSerial is one whose rows go ahead of it in pieces.
func TestLargeSerial(t *testing.T) {
	dir := t.TempDir()
	large := func(serial int, note string) string {
		var all []string
		for n := range 1700 {
			all = append(all, fmt.Sprintf(`{"mode":"managed","type":"aws_thing","name":"t%d","provider":"p","instances":[{"attributes":{"id":"%d","note":%q}}]}`, n, n, note))
		}
		return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[%s]}`, serial, strings.Join(all, ","))
	}
	run(t, dir, func(s *stage) {
		s.state(large(1, "one"), at(0))
		s.state(large(2, "two"), at(10))
	})
	run(t, dir, func(s *stage) {
		s.states.Fault("test://a", os.ErrNotExist)
		for serial, note := range map[uint64]string{1: `"one"`, 2: `"two"`} {
			i, snapshot, ok := s.states.At("test://a", tfstate.Address{Type: "aws_thing", Name: "t1699"}, at(int(serial)*10-5))
			if got, _ := i.Get("note"); !ok || snapshot.Serial != serial || string(got) != note {
				t.Errorf("serial %d: %s, %+v", serial, got, snapshot)
			}
		}
	})
}

func TestFiguresOfStates(t *testing.T) {
	book, err := journal.Open(t.Context(), t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = book.Close() }()
	inv := inventory.New(inventory.Options{})
	resolver, err := trailmap.New(inv, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	correlate.New(book, inv, resolver, correlate.Options{Metrics: registry})
	inv.Fault("file:///x", os.ErrPermission)
	give := func(serial int, acls bool) {
		t.Helper()
		if err := inv.Version(t.Context(), content(buckets(serial, acls), at(serial))); err != nil {
			t.Fatal(err)
		}
	}
	give(1, true)
	give(2, false)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"tfdrift_states": 2, "tfdrift_state_faults permission": 1, "tfdrift_state_faults missing": 0, "tfdrift_state_instances": 2,
		"tfdrift_state_snapshots": 2, "tfdrift_state_reads_total": 2, "tfdrift_state_read_bytes_total": float64(len(buckets(1, true)) + len(buckets(2, false))),
	} {
		if v, is := got[name]; !is || v != want {
			t.Errorf("%s: got %v, want %v", name, v, want)
		}
	}
	for _, name := range []string{"tfdrift_state_identifiers", "tfdrift_state_read_seconds_total", "tfdrift_state_newest_age_seconds written", "tfdrift_state_newest_age_seconds read"} {
		if got[name] <= 0 {
			t.Errorf("%s: got %v", name, got[name])
		}
	}
}

// rows are the states that REST lists, with their faults.
func (s *stage) rows() (all []string) {
	s.t.Helper()
	stored, err := s.journal.States(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, row := range stored {
		all = append(all, row.URI+" "+row.Fault)
	}
	return all
}

// TestABadStateThatIsTakenAway leaves no row, whether the bridge runs then or not; one that was read before keeps its own.
func TestABadStateThatIsTakenAway(t *testing.T) {
	dir := t.TempDir()
	life := func(do func(s *stage, wantRows func(...string))) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, dir)
			do(s, func(want ...string) {
				t.Helper()
				time.Sleep(6 * time.Second) // longer than faults take to show
				synctest.Wait()
				if d := cmp.Diff(want, s.rows()); d != "" {
					t.Errorf("rows (-want +got):\n%s", d)
				}
			})
		})
	}
	gone, bad, worse := "test://a file does not exist", "test://bad invalid argument", "test://worse invalid argument"
	life(func(s *stage, wantRows func(...string)) {
		s.state(buckets(1, true), at(0))
		close(s.ready)
		s.states.Fault("test://a", os.ErrNotExist)
		s.states.Fault("test://bad", os.ErrInvalid)
		s.states.Fault("test://worse", os.ErrInvalid)
		wantRows(gone, bad, worse)
		s.states.Fault("test://bad", nil)
		wantRows(gone, worse)
	})
	life(func(s *stage, wantRows func(...string)) {
		wantRows(gone, worse) // the states are being read
		close(s.ready)
		wantRows(gone)
	})
}

// TestASerialThatIsGivenUpLeavesNoHole: when the bridge is to stop and the queue of serials is full, none is stored as what
// differs from one that was not stored.
func TestASerialThatIsGivenUpLeavesNoHole(t *testing.T) {
	dir := t.TempDir()
	t.Run("stopping", func(t *testing.T) {
		book, err := journal.Open(t.Context(), dir, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer book.Close()
		stopping, stop := context.WithCancel(t.Context())
		stop()
		var judge *correlate.Correlator
		states := inventory.New(inventory.Options{
			Redactor: tfstate.NewRedactor(nil).Keeping(book.Key()), Past: correlate.Past(book),
			OnSerial: func(n inventory.Serial) { judge.Serial(stopping, n) },
		})
		judge = correlate.New(book, states, nil, correlate.Options{})
		give := func(serial int, text string) {
			t.Helper()
			if err := states.Version(t.Context(), content(text, at(serial))); err != nil {
				t.Fatal(err)
			}
		}
		for serial := 1; serial <= 64; serial++ {
			give(serial, buckets(serial, true))
		}
		give(65, buckets(65, false)) // one too many
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- judge.Run(ctx) }()
		for newest := int64(0); newest < 64; time.Sleep(time.Millisecond) {
			past, err := book.History(t.Context(), "test://a")
			if err != nil {
				t.Fatal(err)
			}
			if len(past.Heads) > 0 {
				newest = past.Heads[len(past.Heads)-1].N
			}
		}
		give(66, strings.Replace(buckets(66, false), `"policy":""`, `"policy":"p"`, 1))
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s := newStage(t, dir)
	s.states.Fault("test://a", os.ErrNotExist)
	block := tfstate.Address{Type: "aws_s3_bucket_public_access_block", Name: "b"}
	i, snapshot, ok := s.states.At("test://a", block, at(100))
	if got, _ := i.Get("block_public_acls"); !ok || snapshot.Serial != 64 || string(got) != "true" {
		t.Errorf("serial %d: %s, want serial 64 as it was", snapshot.Serial, got)
	}
}

// TestManyAreMarkedLater: the values of a large state that it comes to mark as sensitive are nowhere in the journal as they
// are, and nothing else is another.
func TestManyAreMarkedLater(t *testing.T) {
	dir := t.TempDir()
	large := func(serial int, secret, marks string) string {
		var all []string
		for n := range 1300 {
			all = append(all, fmt.Sprintf(`{"mode":"managed","type":"aws_thing","name":"t%d","provider":"p","instances":[{"attributes":{"id":"%d","n":%d,"secret":%q},"sensitive_attributes":%s}]}`,
				n, n, serial, secret, marks))
		}
		return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[%s]}`, serial, strings.Join(all, ","))
	}
	run(t, dir, func(s *stage) {
		for serial := range 3 {
			s.state(large(serial+1, "hunter2", "[]"), at(10*serial))
		}
		s.state(large(3, "hunter2", `[[{"type":"get_attr","value":"secret"}]]`), at(30))
	})
	run(t, dir, func(s *stage) {
		past, err := s.journal.History(t.Context(), "test://a")
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for r, err := range past.Rows {
			if rows++; err != nil || bytes.Contains(r.Body, []byte("hunter")) {
				t.Fatalf("%s: %s, %v", r.Key, r.Body, err)
			}
		}
		if rows != 3*1300 {
			t.Errorf("%d rows", rows)
		}
		s.states.Fault("test://a", os.ErrNotExist)
		for serial := range 3 {
			i, snapshot, ok := s.states.At("test://a", tfstate.Address{Type: "aws_thing", Name: "t1299"}, at(10*serial+5))
			if got, _ := i.Get("n"); !ok || snapshot.Serial != uint64(serial+1) || string(got) != fmt.Sprint(serial+1) {
				t.Errorf("serial %d: %s, %+v", serial+1, got, snapshot)
			}
		}
	})
}
