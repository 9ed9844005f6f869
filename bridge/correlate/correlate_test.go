package correlate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/bridge/correlate"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// written is when a state put without a time was written; every event is later.
var written = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// stage is a correlator over a real journal and an inventory.
type stage struct {
	t       *testing.T
	journal *journal.Journal
	states  *inventory.Inventory
	judge   *correlate.Correlator
	ready   chan struct{}
	seq     int
}

// newStage builds the stage; its Run ends with the test.
func newStage(t *testing.T, dir string) *stage {
	t.Helper()
	book, err := journal.Open(t.Context(), dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, journal: book, ready: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	red := tfstate.NewRedactor(nil).Keeping(book.Key())
	s.states = inventory.New(inventory.Options{
		Redactor: red, Past: correlate.Past(book), OnSerial: func(n inventory.Serial) { s.judge.Serial(ctx, n) },
	})
	resolver, err := trailmap.New(s.states, red)
	if err != nil {
		t.Fatal(err)
	}
	s.judge = correlate.New(book, s.states, resolver, correlate.Options{Ready: s.ready})
	ended := make(chan error)
	go func() { ended <- s.judge.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := book.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stage) state(text string, at time.Time) {
	s.t.Helper()
	if err := s.states.Version(s.t.Context(), content(text, at)); err != nil {
		s.t.Fatal(err)
	}
}

func content(text string, written time.Time) source.Version {
	return source.Version{URI: "test://a", Written: written, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(text)), nil
	}}
}

// put stores alerts and waits until the inbox is worked off.
func (s *stage) put(alerts ...journal.Alert) {
	s.t.Helper()
	for i := range alerts {
		if alerts[i].Key == "" {
			s.seq++
			alerts[i].Key = fmt.Sprint(s.t.Name(), s.seq)
		}
	}
	if _, err := s.journal.Put(s.t.Context(), alerts...); err != nil {
		s.t.Fatal(err)
	}
	s.settled()
}

func (s *stage) settled() {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		pending, err := s.journal.Pending(s.t.Context(), 0, 1)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(pending) == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the inbox is not worked off")
		}
	}
}

// told spells what the journal holds: type, then what tells messages apart.
func (s *stage) told() []string {
	s.t.Helper()
	stored, err := s.journal.After(s.t.Context(), wire.ID{}, nil, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	var all []string
	for _, m := range stored {
		all = append(all, spell(s.t, m))
	}
	return all
}

func spell(t *testing.T, m journal.Stored) string {
	t.Helper()
	var body struct {
		Payload struct {
			Verdict, Precision, Address, Attribute, User, Rule, Severity, Action, Resource string
			OldValue                                                                       string `json:"old_value"`
			NewValue                                                                       string `json:"new_value"`
			Serial                                                                         uint64
		} `json:"payload"`
	}
	if err := json.Unmarshal(m.Body, &body, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	p := body.Payload
	switch m.Type {
	case wire.TypeDrift:
		return fmt.Sprintf("%s %s %s %s %q->%q by %s %s", p.Verdict, p.Precision, p.Address, p.Attribute, p.OldValue, p.NewValue, p.User, p.Severity)
	case wire.TypeEvent:
		return fmt.Sprintf("event %s %s %s by %s", p.Verdict, p.Precision, p.Address, p.User)
	case wire.TypeStateChange:
		return fmt.Sprintf("state %d %s %s", p.Serial, p.Action, p.Resource)
	}
	return fmt.Sprintf("%s %s %s", m.Type, p.Rule, p.Severity)
}

const bucketState = `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","outputs":{},"resources":[
 {"mode":"managed","type":"aws_s3_bucket","name":"b","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[
  {"schema_version":0,"attributes":{"id":"logs","bucket":"logs","arn":"arn:aws:s3:::logs","policy":""}}]},
 {"mode":"managed","type":"aws_s3_bucket_public_access_block","name":"b","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[
  {"schema_version":0,"attributes":{"id":"logs","bucket":"logs","block_public_acls":%t,"block_public_policy":true}}]}]}`

func buckets(serial int, acls bool) string { return fmt.Sprintf(bucketState, serial, acls) }

// call is a record of PutBucketPublicAccessBlock that turns block_public_acls off.
func call(id string, more string) []byte {
	return fmt.Appendf(nil, `{"eventID":%q,"eventSource":"s3.amazonaws.com","eventName":"PutBucketPublicAccessBlock","eventTime":"2026-11-20T10:05:00Z",
	 "awsRegion":"eu-west-1","recipientAccountId":"123456789012","readOnly":false,"userIdentity":{"type":"IAMUser","userName":"eve"},
	 "requestParameters":{"bucketName":"logs","PublicAccessBlockConfiguration":{"BlockPublicAcls":false,"BlockPublicPolicy":true}}%s}`, id, more)
}

// direct is the call read without Falco, with more members.
func direct(more string) journal.Alert {
	return journal.Alert{Intake: "cloudtrail", Record: call("1", more)}
}

const drift = `drift exact aws_s3_bucket_public_access_block.b block_public_acls "true"->"false" by eve medium`

func TestVerdicts(t *testing.T) {
	byTerraform := `,"userAgent":"APN/1.0 HashiCorp/1.0 Terraform/1.11.4 (+https://www.terraform.io)"`
	for name, c := range map[string]struct {
		alerts []journal.Alert
		want   []string
	}{
		"by hand":      {[]journal.Alert{direct("")}, []string{drift}},
		"by terraform": {[]journal.Alert{direct(byTerraform)}, []string{"event terraform exact aws_s3_bucket_public_access_block.b by eve"}},
		"refused":      {[]journal.Alert{direct(`,"errorCode":"AccessDenied"`)}, []string{"event attempted exact aws_s3_bucket_public_access_block.b by eve"}},
		"the same record five times": {
			[]journal.Alert{direct(""), direct(""), direct(""), direct(""), direct("")}, []string{drift}},
		"by falco and directly": {
			[]journal.Alert{{Intake: "falco_http", Rule: "R", Priority: "critical", Record: call("1", "")}, direct("")},
			[]string{"falco R critical", `drift exact aws_s3_bucket_public_access_block.b block_public_acls "true"->"false" by eve critical`}},
		"two rules on one record": {
			[]journal.Alert{{Intake: "falco_http", Rule: "R", Priority: "error", Record: call("1", "")}, {Intake: "falco_http", Rule: "S", Priority: "notice", Record: call("1", "")}},
			[]string{"falco R high", `drift exact aws_s3_bucket_public_access_block.b block_public_acls "true"->"false" by eve high`, "falco S low"}},
		"fields of too little, then the record": {
			[]journal.Alert{{Intake: "falco_http", Rule: "R", Priority: "notice", Record: []byte(`{"eventID":"1","eventSource":"s3.amazonaws.com","eventName":"PutBucketPublicAccessBlock"}`)}, direct("")},
			[]string{"falco R low", drift}},
		"no event id, two rules": {
			[]journal.Alert{{Intake: "falco_http", Rule: "R", Record: call("", "")}, {Intake: "falco_http", Rule: "S", Record: call("", "")}},
			[]string{"falco R info", drift, "falco S info"}},
		"a value that repeats a name": {
			[]journal.Alert{{Intake: "cloudtrail", Record: bytes.Replace(call("1", ""), []byte(`"BlockPublicAcls":false`), []byte(`"BlockPublicAcls":{"a":1,"a":2}`), 1)}, {Intake: "falco_grpc", Rule: "after"}},
			[]string{`drift partial aws_s3_bucket_public_access_block.b block_public_acls "true"->"" by eve medium`, "falco after info"}},
		"no record": {[]journal.Alert{{Intake: "falco_grpc", Rule: "Shell", Priority: "warning"}}, []string{"falco Shell medium"}},
		"a record that is none": {[]journal.Alert{{Intake: "falco_http", Rule: "R", Record: []byte(`[]`)}, direct("")},
			[]string{"falco R info", drift}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, t.TempDir())
			s.state(buckets(1, true), written)
			close(s.ready)
			s.put(c.alerts...)
			if diff := cmp.Diff(c.want, s.told()); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSerialsAreTold(t *testing.T) {
	s := newStage(t, t.TempDir())
	close(s.ready)
	s.state(buckets(1, true), written)
	s.state(buckets(2, true), written.Add(time.Second)) // nothing changed but the serial
	s.state(buckets(5, false), written.Add(2*time.Second))
	s.state(buckets(4, true), written.Add(3*time.Second))
	s.put(direct("")) // the serials go first
	want := []string{
		"state 5 modified aws_s3_bucket_public_access_block.b",
		"state 4 serial_backwards ", "state 4 modified aws_s3_bucket_public_access_block.b",
	}
	if diff := cmp.Diff(want, s.told()[:min(3, len(s.told()))]); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	states, err := s.journal.States(t.Context())
	if err != nil || len(states) != 1 || states[0].Serial != 4 || states[0].Resources != 2 {
		t.Errorf("states: got %+v, %v", states, err)
	}
}

// TestAlertsWaitForTheStates: an alert that came first is judged by the states read later.
func TestAlertsWaitForTheStates(t *testing.T) {
	s := newStage(t, t.TempDir())
	if _, err := s.journal.Put(t.Context(), journal.Alert{Key: "k", Intake: "cloudtrail", Record: call("1", "")}); err != nil {
		t.Fatal(err)
	}
	s.state(buckets(1, true), written)
	close(s.ready)
	s.settled()
	if diff := cmp.Diff([]string{drift}, s.told()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestRestartGoesOn: what an earlier run left in the inbox is judged, what it told is not told again.
func TestRestartGoesOn(t *testing.T) {
	dir := t.TempDir()
	t.Run("first", func(t *testing.T) {
		s := newStage(t, dir)
		s.state(buckets(1, true), written)
		close(s.ready)
		s.put(journal.Alert{Key: "a", Intake: "cloudtrail", Record: call("1", "")})
	})
	t.Run("cut off", func(t *testing.T) {
		s := newStage(t, dir) // never ready
		if _, err := s.journal.Put(t.Context(), journal.Alert{Key: "b", Intake: "cloudtrail", Record: call("2", "")}); err != nil {
			t.Fatal(err)
		}
	})
	s := newStage(t, dir)
	s.state(buckets(1, true), written)
	close(s.ready)
	s.put(journal.Alert{Key: "a", Intake: "cloudtrail", Record: call("1", "")}, journal.Alert{Key: "c", Intake: "cloudtrail", Record: call("2", "")})
	if diff := cmp.Diff([]string{drift, drift}, s.told()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	drifts, err := s.journal.Counts(t.Context())
	if err != nil || drifts.OpenDrifts != 1 {
		t.Errorf("open drifts: got %d, want 1: two events changed the same attribute (%v)", drifts.OpenDrifts, err)
	}
}

// TestSerialsAreToldAtAStop: what the states handed over before the stop is in the journal after it.
func TestSerialsAreToldAtAStop(t *testing.T) {
	dir := t.TempDir()
	t.Run("stopped", func(t *testing.T) {
		s := newStage(t, dir)
		s.state(buckets(1, true), written)
		s.state(buckets(2, false), written.Add(time.Second))
	})
	s := newStage(t, dir)
	if diff := cmp.Diff([]string{"state 2 modified aws_s3_bucket_public_access_block.b"}, s.told()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

// TestResourcesWithoutID: two of them are two drifts.
func TestResourcesWithoutID(t *testing.T) {
	s := newStage(t, t.TempDir())
	s.state(`{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"l","resources":[
	 {"mode":"managed","type":"aws_thing","name":"a","provider":"p","instances":[{"attributes":{"arn":"arn:aws:thing:eu-west-1:123456789012:thing/a"}}]},
	 {"mode":"managed","type":"aws_thing","name":"b","provider":"p","instances":[{"attributes":{"arn":"arn:aws:thing:eu-west-1:123456789012:thing/b"}}]}]}`, written)
	close(s.ready)
	for _, name := range []string{"a", "b"} {
		s.put(journal.Alert{Intake: "cloudtrail", Record: fmt.Appendf(nil, `{"eventID":%q,"eventSource":"thing.amazonaws.com","eventName":"StopThing","eventTime":"2026-11-20T10:05:00Z",
		 "awsRegion":"eu-west-1","recipientAccountId":"123456789012","requestParameters":{"thingArn":"arn:aws:thing:eu-west-1:123456789012:thing/%s"}}`, name, name)})
	}
	counts, err := s.journal.Counts(t.Context())
	if err != nil || counts.OpenDrifts != 2 {
		t.Errorf("open drifts: got %d, want 2 (%v)", counts.OpenDrifts, err)
	}
}

// TestASensitiveIDIsNotShown, and two resources whose ids are hidden are two drifts all the same.
func TestASensitiveIDIsNotShown(t *testing.T) {
	s := newStage(t, t.TempDir())
	s.state(`{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"l","resources":[
	 {"mode":"managed","type":"aws_thing","name":"a","provider":"p","instances":[{"attributes":{"id":"hunter-a","arn":"arn:aws:thing:eu-west-1:123456789012:thing/a"},
	  "sensitive_attributes":[[{"type":"get_attr","value":"id"}]]}]},
	 {"mode":"managed","type":"aws_thing","name":"b","provider":"p","instances":[{"attributes":{"id":"hunter-b","arn":"arn:aws:thing:eu-west-1:123456789012:thing/b"},
	  "sensitive_attributes":[[{"type":"get_attr","value":"id"}]]}]}]}`, written)
	close(s.ready)
	for _, name := range []string{"a", "b"} {
		s.put(journal.Alert{Intake: "cloudtrail", Record: fmt.Appendf(nil, `{"eventID":%q,"eventSource":"thing.amazonaws.com","eventName":"StopThing","eventTime":"2026-11-20T10:05:00Z",
		 "awsRegion":"eu-west-1","recipientAccountId":"123456789012","requestParameters":{"thingArn":"arn:aws:thing:eu-west-1:123456789012:thing/%s"}}`, name, name)})
	}
	stored, err := s.journal.After(t.Context(), wire.ID{}, nil, 10)
	if err != nil || len(stored) != 2 {
		t.Fatalf("%d messages, %v", len(stored), err)
	}
	for _, m := range stored {
		if bytes.Contains(m.Body, []byte("hunter")) || !bytes.Contains(m.Body, []byte(`"resource_id":"(sensitive)`)) {
			t.Errorf("got %s", m.Body)
		}
	}
	if counts, err := s.journal.Counts(t.Context()); err != nil || counts.OpenDrifts != 2 {
		t.Errorf("open drifts: got %d, want 2 (%v)", counts.OpenDrifts, err)
	}
}

// TestSensitiveTextIsWithheld: an alert of another plugin may quote in its text what the state calls sensitive.
func TestSensitiveTextIsWithheld(t *testing.T) {
	for source, want := range map[string]string{"aws_cloudtrail": "(sensitive)", "tfdrift": "request=masked there"} {
		s := newStage(t, t.TempDir())
		s.state(`{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"l","resources":[{"mode":"managed","type":"aws_s3_bucket_policy","name":"p","provider":"p","instances":[
		 {"attributes":{"id":"logs","bucket":"logs","policy":"hunter2old"},"sensitive_attributes":[[{"type":"get_attr","value":"policy"}]]}]}]}`, written)
		close(s.ready)
		output := want
		if source == "aws_cloudtrail" {
			output = `policy request={"Sid":"hunter2new"}`
		}
		s.put(journal.Alert{Intake: "falco_http", Rule: "R", Source: source, Output: output, Record: []byte(`{"eventID":"1","eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy",
		 "eventTime":"2026-11-20T10:05:00Z","requestParameters":{"bucketName":"logs","bucketPolicy":{"Sid":"hunter2new"}}}`)})
		stored, err := s.journal.After(t.Context(), wire.ID{}, nil, 10)
		if err != nil || len(stored) != 2 {
			t.Fatalf("%d messages, %v", len(stored), err)
		}
		for _, m := range stored {
			if bytes.Contains(m.Body, []byte("hunter2")) || m.Type == wire.TypeFalco && !bytes.Contains(m.Body, []byte(want)) {
				t.Errorf("%s: %s", source, m.Body)
			}
		}
	}
}

func TestBlindSpotsAreCounted(t *testing.T) {
	s := newStage(t, t.TempDir())
	close(s.ready)
	unknown := bytes.ReplaceAll(call("1", ""), []byte("PutBucketPublicAccessBlock"), []byte("PutBucketLogging"))
	s.put(journal.Alert{Intake: "cloudtrail", Record: unknown})
	counts, err := s.journal.Counts(t.Context())
	if err != nil || counts.BlindSpots["s3.amazonaws.com:PutBucketLogging"] != 1 {
		t.Errorf("got %v, %v", counts.BlindSpots, err)
	}
}
