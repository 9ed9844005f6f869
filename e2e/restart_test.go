package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// kill ends the bridge as a lost machine does.
func (b *bridge) kill() {
	_ = b.command.Process.Kill()
	<-b.ended
}

// network is the sample state with another serial, and with public ACLs blocked or not.
func network(t *testing.T, serial int, blocked bool) []byte {
	t.Helper()
	text := bytes.Replace(fixture(t, "network/network-before.tfstate"), []byte(`"serial": 41`), fmt.Appendf(nil, `"serial": %d`, serial), 1)
	return bytes.Replace(text, []byte(`"block_public_acls": true`), fmt.Appendf(nil, `"block_public_acls": %t`, blocked), 1)
}

// toggled is a record of that moment that blocks public ACLs or lets them in, and nothing else.
func toggled(t *testing.T, id string, at time.Time, blocked bool) map[string]any {
	t.Helper()
	return record(t, "public-access", id, at, func(r map[string]any) {
		request, _ := r["requestParameters"].(map[string]any)
		request["PublicAccessBlockConfiguration"] = map[string]any{"BlockPublicAcls": blocked, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true}
	})
}

// drifts are the drifts of block_public_acls in a journal whose process has ended, in their order: event, precision, old and
// new value, serial.
func drifts(t *testing.T, data string) (all []string) {
	t.Helper()
	for _, body := range bodies(t, data, "drift") {
		var m struct {
			Payload struct {
				Precision string
				Attribute string
				Old       string `json:"old_value"`
				New       string `json:"new_value"`
				Event     struct{ ID string }
				State     struct{ Serial int }
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		p := m.Payload
		if p.Attribute != "block_public_acls" {
			continue // without an older serial the others may have changed too
		}
		all = append(all, fmt.Sprintf("%s: %s %q->%q of serial %d", p.Event.ID, p.Precision, p.Old, p.New, p.State.Serial))
	}
	return all
}

// bodies are the messages of one type in a copy of a journal, in their order.
func bodies(t *testing.T, data, kind string) (all [][]byte) {
	t.Helper()
	db := opened(t, data)
	rows, err := db.QueryContext(t.Context(), `SELECT body FROM message WHERE type = ? ORDER BY id`, kind)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			t.Fatal(err)
		}
		all = append(all, body)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// opened is a copy of a journal, with its log of what is not yet in the file.
func opened(t *testing.T, data string) *sql.DB {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		text, err := os.ReadFile(filepath.Join(data, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// restarts is a bridge that is killed and started again over the same folders.
type restarts struct {
	*bridge
	t                   *testing.T
	data, trail, states string
	last                *client
	files               int
}

func newRestarts(t *testing.T) *restarts {
	return &restarts{t: t, data: t.TempDir(), trail: t.TempDir(), states: t.TempDir()}
}

// begin starts the bridge and waits until it has read the states that are there.
func (r *restarts) begin(states string) {
	r.t.Helper()
	r.bridge = start(r.t, "--data", r.data, "--cloudtrail", r.trail+"?watch=true", "--state", states)
	for end := time.Now().Add(patience); !strings.Contains(r.logged(), `"states read"`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("the states are not read:\n%s", r.logged())
		}
	}
	r.last = r.watch("all")
}

// give has records read and waits for what a further one, which is the last, gives.
func (r *restarts) give(records ...map[string]any) {
	r.t.Helper()
	r.files++
	mark := fmt.Sprintf("mark-%d", r.files)
	putRecords(r.t, filepath.Join(r.trail, fmt.Sprintf("%d.json", r.files)), append(records, record(r.t, "policy-denied", mark, now(), nil))...)
	r.last.await("event", func(m message) bool { return bytes.Contains(m.Payload, []byte(`"`+mark+`"`)) })
}

func (r *restarts) serial(serial int, blocked bool, written time.Time) {
	r.t.Helper()
	put(r.t, filepath.Join(r.states, "network.tfstate"), network(r.t, serial, blocked), written)
}

// TestOldValuesAfterAKill: records late, out of order and repeated are compared with the serials that stood when their events
// were, although the bridge was killed since, and a serial that came meanwhile is told once.
func TestOldValuesAfterAKill(t *testing.T) {
	t.Parallel()
	r := newRestarts(t)
	start := now().Add(-2 * time.Hour)
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	r.serial(41, true, at(0))
	r.begin(r.states)
	r.serial(42, false, at(60))
	r.last.await("state_change", func(message) bool { return true })
	r.kill()

	r.serial(43, true, at(90)) // while the bridge is down
	r.begin(r.states)
	r.give(
		toggled(t, "after", at(100), false), // out of order, each
		toggled(t, "between", at(70), true),
		toggled(t, "early", at(30), false),
		toggled(t, "as it was", at(31), true),
		toggled(t, "before", at(-1), false),
		toggled(t, "in the second", at(60), false),
	)
	r.kill()
	want := []string{
		`after: exact "true"->"false" of serial 43`, `between: exact "false"->"true" of serial 42`, `early: exact "true"->"false" of serial 41`,
		`before: partial ""->"false" of serial 43`, `in the second: partial ""->"false" of serial 41`,
	}
	if d := cmp.Diff(want, drifts(t, r.data)); d != "" {
		t.Errorf("after a kill (-want +got):\n%s", d)
	}

	elsewhere := t.TempDir()
	r.begin(elsewhere) // the state is taken out of the configuration
	putRecords(t, filepath.Join(r.trail, "nobody.json"), toggled(t, "nobody", at(80), true))
	r.last.await("stats", func(m message) bool { return bytes.Contains(m.Payload, []byte("PutBucketPublicAccessBlock")) })
	r.kill()
	r.begin(r.states) // and put back
	r.give(toggled(t, "early", at(30), false), toggled(t, "later", at(61), true))
	r.stop()
	want = append(want, `later: exact "false"->"true" of serial 42`)
	if d := cmp.Diff(want, drifts(t, r.data)); d != "" {
		t.Errorf("repeated, and put back (-want +got):\n%s", d)
	}
	if got := len(bodies(t, r.data, "state_change")); got != 2 {
		t.Errorf("%d state changes, want one of serial 42 and one of serial 43", got)
	}
}

// TestFirstStart: without a snapshot before the event the old value is not known, whatever stands in the state now.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	r := newRestarts(t)
	r.serial(41, true, now().Add(-time.Hour))
	r.begin(r.states)
	r.give(toggled(t, "first", now().Add(-2*time.Hour), false))
	r.kill()
	r.begin(r.states)
	r.give(toggled(t, "second", now().Add(-2*time.Hour), false))
	r.stop()
	want := []string{`first: partial ""->"false" of serial 41`, `second: partial ""->"false" of serial 41`}
	if d := cmp.Diff(want, drifts(t, r.data)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// chained is a state whose one resource has the serial in a plain and in a sensitive attribute.
func chained(serial int) []byte {
	return fmt.Appendf(nil, `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[{"mode":"managed","type":"terraform_data","name":"d","provider":"p","instances":[
 {"attributes":{"id":"x","input":"plain-%d","password":"secret-%d"},"sensitive_attributes":[[{"type":"get_attr","value":"password"}]]}]}]}`, serial, serial, serial)
}

// TestSerialsOverKills writes serials while the bridge is killed at random moments. What is told is one chain: each serial's
// old values are the new ones of the serial told before it. No file of the journal ever has a sensitive value.
func TestSerialsOverKills(t *testing.T) {
	t.Parallel()
	const kills = 12
	data, states := t.TempDir(), t.TempDir()
	path := filepath.Join(states, "a.tfstate")
	args := []string{"--data", data, "--cloudtrail", t.TempDir() + "?watch=true", "--state", states, "--poll", "100ms"}
	random := rand.New(rand.NewPCG(20261121, uint64(time.Now().UnixNano())))
	serial := 1
	put(t, path, chained(serial), time.Time{})
	b := start(t, args...)
	for range kills {
		for end := time.Now().Add(time.Duration(random.IntN(700)) * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			serial++
			put(t, path, chained(serial), time.Time{})
		}
		b.kill()
		withoutSecret(t, data)
		b = start(t, args...)
	}
	c := b.watch("state")
	serial++
	put(t, path, chained(serial), time.Time{})
	c.await("state_change", func(m message) bool { return m.payload(t)["serial"] == float64(serial) })
	b.stop()
	withoutSecret(t, data)
	told := chain(t, data)
	if len(told) < kills || told[len(told)-1] != serial {
		t.Errorf("%d serials told, the last %v, want more than %d and %d", len(told), told, kills, serial)
	}
	t.Logf("%d kills, %d serials written, %d told", kills, serial, len(told))
}

// chain gives the serials told, after the first, and fails where one is not told from the one before it.
func chain(t *testing.T, data string) (told []int) {
	t.Helper()
	previous := 0
	for _, body := range bodies(t, data, "state_change") {
		var m struct {
			Payload struct {
				Serial, Previous int
				PreviousSerial   int `json:"previous_serial"`
				Action           string
				Changes          []struct {
					Attribute string
					Old, New  string
				} `json:"attributes"`
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		p := m.Payload
		if previous != 0 && p.PreviousSerial != previous || p.Serial <= p.PreviousSerial {
			t.Errorf("serial %d is told after %d, and %d was told last", p.Serial, p.PreviousSerial, previous)
		}
		previous = p.Serial
		var changes []string
		for _, ch := range p.Changes {
			changes = append(changes, ch.Attribute+" "+ch.Old+" "+ch.New)
		}
		slices.Sort(changes)
		want := []string{fmt.Sprintf("input plain-%d plain-%d", p.PreviousSerial, p.Serial), "password (sensitive) (sensitive)"}
		if d := cmp.Diff(want, changes); d != "" || p.Action != "modified" {
			t.Errorf("serial %d, %s (-want +got):\n%s", p.Serial, p.Action, d)
		}
		told = append(told, p.Serial)
	}
	return told
}

var secret = regexp.MustCompile(`secret-\d`)

func withoutSecret(t *testing.T, data string) {
	t.Helper()
	files, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(data, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if at := secret.FindIndex(text); at != nil {
			t.Errorf("%s has a sensitive value: %q", f.Name(), text[max(0, at[0]-40):at[1]])
		}
	}
}

// TestLargeSerialsOverKills: a serial that changes so much that it is stored in pieces is told whole or not at all.
func TestLargeSerialsOverKills(t *testing.T) {
	t.Parallel()
	const kills, instances = 6, 1300
	data, states := t.TempDir(), t.TempDir()
	path := filepath.Join(states, "a.tfstate")
	large := func(serial int) []byte {
		all := make([]string, instances)
		for i := range all {
			all[i] = fmt.Sprintf(`{"mode":"managed","type":"terraform_data","name":"d%d","provider":"p","instances":[{"attributes":{"id":"%d","input":"at-%d"}}]}`, i, i, serial)
		}
		return fmt.Appendf(nil, `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[%s]}`, serial, strings.Join(all, ","))
	}
	args := []string{"--data", data, "--cloudtrail", t.TempDir() + "?watch=true", "--state", states}
	random := rand.New(rand.NewPCG(20261121, uint64(time.Now().UnixNano())))
	for serial := 1; serial <= kills; serial++ {
		put(t, path, large(serial), time.Time{})
		b := start(t, args...)
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) // the moment is what is random
		b.kill()
	}
	put(t, path, large(kills+1), time.Time{})
	b := start(t, args...)
	c := b.watch("state")
	put(t, path, large(kills+2), time.Time{})
	for range instances {
		c.await("state_change", func(m message) bool { return m.payload(t)["serial"] == float64(kills+2) })
	}
	b.stop()
	told, previous := map[[2]int]int{}, 0
	for _, body := range bodies(t, data, "state_change") {
		var m struct {
			Payload struct {
				Serial         int
				PreviousSerial int `json:"previous_serial"`
				Attributes     []struct{ Old, New string }
			}
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		p := m.Payload
		is := [2]int{p.PreviousSerial, p.Serial}
		if told[is]++; told[is] == 1 && previous != 0 && p.PreviousSerial != previous {
			t.Errorf("serial %d is told after %d, and %d was told last", p.Serial, p.PreviousSerial, previous)
		}
		previous = p.Serial
		if len(p.Attributes) != 1 || p.Attributes[0].Old != fmt.Sprint("at-", p.PreviousSerial) || p.Attributes[0].New != fmt.Sprint("at-", p.Serial) {
			t.Fatalf("serial %d after %d: %+v", p.Serial, p.PreviousSerial, p.Attributes)
		}
	}
	for is, n := range told {
		if n != instances {
			t.Errorf("serial %d after %d: %d changes told of %d", is[1], is[0], n, instances)
		}
	}
	t.Logf("told: %v", told)
}

// TestDamagedHistory: a state whose stored history is damaged, or of a newer form, starts anew with a word in the log; the
// others go on.
func TestDamagedHistory(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"damaged": `UPDATE instance SET body = substr(body, 1, length(body) - 3) WHERE history = (SELECT id FROM history WHERE state LIKE '%/bad.tfstate')`,
		"newer":   `UPDATE snapshot SET head = CAST('{"format":9}' AS BLOB) WHERE history = (SELECT id FROM history WHERE state LIKE '%/bad.tfstate')`,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestarts(t)
			written := now().Add(-time.Hour)
			r.serial(41, true, written)
			put(t, filepath.Join(r.states, "bad.tfstate"), chained(1), written)
			r.begin(r.states)
			r.give()
			r.stop()
			db, err := sql.Open("sqlite", "file:"+filepath.Join(r.data, "journal.db"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := db.ExecContext(context.Background(), damage)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := res.RowsAffected(); n == 0 || err != nil || db.Close() != nil {
				t.Fatalf("%d rows, %v", n, err)
			}
			r.serial(42, false, written.Add(30*time.Minute))
			put(t, filepath.Join(r.states, "bad.tfstate"), chained(2), time.Time{})
			r.begin(r.states)
			r.give(toggled(t, "late", written.Add(time.Minute), false))
			if log := r.logged(); !strings.Contains(log, "starts anew") || !strings.Contains(log, "bad.tfstate") {
				t.Errorf("the log says nothing of it:\n%s", log)
			}
			put(t, filepath.Join(r.states, "bad.tfstate"), chained(3), time.Time{})
			r.last.await("state_change", func(m message) bool { return m.payload(t)["serial"] == 3.0 })
			r.stop()
			if d := cmp.Diff([]string{`late: exact "true"->"false" of serial 41`}, drifts(t, r.data)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for _, body := range bodies(t, r.data, "state_change") {
				if bytes.Contains(body, []byte(`"serial":2,`)) {
					t.Errorf("told without a serial before it: %s", body)
				}
			}
		})
	}
}
