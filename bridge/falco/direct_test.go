package falco_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

// direct is an intake over a folder.
type direct struct {
	*falco.Direct
	log      logged
	registry *prometheus.Registry
}

func newDirect(t testing.TB, b book, uri string) *direct {
	t.Helper()
	f, err := feed.Open(uri, feed.Options{Poll: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d := &direct{registry: prometheus.NewRegistry()}
	d.Direct = falco.NewDirect(b.Journal, f, falco.DirectOptions{Log: d.log.log(), Metrics: d.registry})
	return d
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

func TestDirect(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.json", `{"Records":[
		{"eventID":"a","eventName":"RunInstances","eventTime":"2026-11-20T10:00:00Z","readOnly":false},
		{"eventID":"b","eventName":"DescribeInstances","readOnly":true},
		{"eventID":"c","eventName":"DescribeInstances"},
		{"eventID":"a","eventName":"RunInstances","eventTime":"2026-11-20T10:00:00Z","readOnly":false},
		{"eventID":"d","eventName":"PutBucketPolicy","errorCode":"AccessDenied"}]}`)
	write(t, dir, "0.json", `{"eventID":"e","eventName":""}`) // a record in shape only
	write(t, dir, "2.jsonl", `{"eventName":"DeleteTrail","requestParameters":{"name":"x"}}
{"eventName":"DeleteTrail","requestParameters":{"name":"y"}}
{"eventName":"DeleteTrail","requestParameters":{"name":"x"}}
`)
	d := newDirect(t, b, dir)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []journal.Alert{
		{Intake: "cloudtrail", Time: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC),
			Record: []byte(`{"eventID":"a","eventName":"RunInstances","eventTime":"2026-11-20T10:00:00Z","readOnly":false}`)},
		{Intake: "cloudtrail", Record: []byte(`{"eventID":"d","eventName":"PutBucketPolicy","errorCode":"AccessDenied"}`)},
		{Intake: "cloudtrail", Record: []byte(`{"eventName":"DeleteTrail","requestParameters":{"name":"x"}}`)},
		{Intake: "cloudtrail", Record: []byte(`{"eventName":"DeleteTrail","requestParameters":{"name":"y"}}`)},
	}
	if diff := cmp.Diff(want, b.alerts(), withoutKey, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := strings.Count(d.log.String(), "\n"); n != 1 || figure(t, d.registry, "tfdrift_intake_faults_total", "not_a_record") != 1 {
		t.Errorf("one record in shape only, %d lines in the log: %s", n, &d.log)
	}
	// The whole folder again, as after a restart: nothing new.
	again := newDirect(t, b, dir)
	if err := again.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(b.alerts()); n != len(want) {
		t.Errorf("%d alerts after a second reading, want %d", n, len(want))
	}
	for name, n := range map[string]float64{"tfdrift_alerts_received_total": 6, "tfdrift_alerts_stored_total": 0, "tfdrift_alerts_repeated_total": 6} {
		if got := figure(t, again.registry, name, "cloudtrail"); got != n {
			t.Errorf("%s is %v, want %v", name, got, n)
		}
	}
	if got := d.Status(); !got.OK {
		t.Error(got)
	}
}

// TestDirectShowsTheFeedsFigures: what the feed cannot read, or passes over, is in the metrics and stops nothing.
func TestDirectShowsTheFeedsFigures(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.json", `{"eventID":"a","eventName":"RunInstances"}`+"\ngarbage\n"+`{"eventID":"b","eventName":"DescribeInstances"}`)
	write(t, dir, "2.json", `{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put"},{"eventID":"c"`)
	d := newDirect(t, b, dir)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, kind string
		want       float64
	}{
		{"records", "", 2}, {"bytes", "", 89}, {"files", "", 2}, {"faults", "not_json", 1}, {"faults", "truncated", 1},
		{"faults", "gzip", 0}, {"aside", "notification", 1},
	} {
		labels := []string{dir}
		if c.kind != "" {
			labels = append(labels, c.kind)
		}
		if got := figure(t, d.registry, "tfdrift_feed_"+c.name+"_total", labels...); got != c.want {
			t.Errorf("%s %s: got %v, want %v", c.name, c.kind, got, c.want)
		}
	}
}

func many(from, n int) string {
	var text strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&text, `{"eventID":"event-%06d","eventName":"RunInstances"}`+"\n", i)
	}
	return text.String()
}

func recordIDs(t testing.TB, alerts []journal.Alert) (ids []string) {
	t.Helper()
	for _, a := range alerts {
		_, rest, _ := strings.Cut(string(a.Record), `"eventID":"`)
		id, _, _ := strings.Cut(rest, `"`)
		ids = append(ids, id)
	}
	return ids
}

// TestDirectPutsBatches: one put for many records, in their order.
func TestDirectPutsBatches(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.jsonl", many(0, 2000))
	d := newDirect(t, b, dir)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids := recordIDs(t, b.alerts())
	if len(ids) != 2000 || !slices.IsSorted(ids) {
		t.Errorf("%d alerts in the inbox, in order: %v", len(ids), slices.IsSorted(ids))
	}
	// 8 at best; a machine that stalls may cut one short
	if puts := figure(t, d.registry, "tfdrift_intake_seconds"); puts > 500 {
		t.Errorf("%v puts for 2000 records", puts)
	}
}

// TestDirectWatches: a single record is stored soon, and what was read when it ends is stored.
func TestDirectWatches(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	d := newDirect(t, b, dir+"?watch=true")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- d.Run(ctx) }()
	write(t, dir, "1.jsonl", many(0, 1))
	b.wait(1)
	write(t, dir, "2.jsonl", many(1, 300))
	b.wait(301)
	cancel()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if received, stored := figure(t, d.registry, "tfdrift_alerts_received_total"), figure(t, d.registry, "tfdrift_alerts_stored_total"); received != stored {
		t.Errorf("%v records read, %v stored", received, stored)
	}
}

// TestDirectEndsInTheMiddle: whatever Run had read is stored when it returns.
func TestDirectEndsInTheMiddle(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.jsonl", many(0, 20_000))
	d := newDirect(t, b, dir)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- d.Run(ctx) }()
	b.wait(1)
	cancel()
	if err := <-result; err != nil {
		t.Error(err)
	}
	ids := recordIDs(t, b.alerts())
	for i, id := range ids {
		if want := fmt.Sprintf("event-%06d", i); id != want {
			t.Fatalf("alert %d is %s: a record in between is missing", i, id)
		}
	}
	t.Logf("%d of 20000 records", len(ids))
}

// TestDirectBackPressure: a journal that refuses stops the reading; when it is well again nothing is missing.
func TestDirectBackPressure(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.jsonl", many(0, 5000))
	b.refuse()
	d := newDirect(t, b, dir)
	result := make(chan error, 1)
	go func() { result <- d.Run(t.Context()) }()
	eventually(t, "a second try", func() bool { return figure(t, d.registry, "tfdrift_intake_faults_total", "journal") > 1 })
	if got := d.Status(); degree(got) != "unusable" || !strings.Contains(got.Reason, "no space left") {
		t.Errorf("status %+v", got)
	}
	if read := figure(t, d.registry, "tfdrift_alerts_received_total"); read > 2*256+1 {
		t.Errorf("%v records read while none can be stored", read)
	}
	b.accept()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if n := len(b.alerts()); n != 5000 {
		t.Errorf("%d alerts in the inbox, want 5000", n)
	}
	if got := d.Status(); !got.OK {
		t.Error(got)
	}
}

func TestDirectWhenTheJournalIsGone(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	write(t, dir, "1.jsonl", many(0, 5000))
	b.Close()
	if err := newDirect(t, b, dir).Run(t.Context()); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

// TestDirectLeavesOutWhatTheJournalCannotTake: such a record must not stop those behind it.
func TestDirectLeavesOutWhatTheJournalCannotTake(t *testing.T) {
	b, dir := newBook(t), t.TempDir()
	deep := strings.Repeat("[", 9999) + strings.Repeat("]", 9999)
	write(t, dir, "1.jsonl", many(0, 3)+`{"eventID":"deep","eventName":"RunInstances","requestParameters":`+deep+"}\n"+many(3, 3))
	d := newDirect(t, b, dir)
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 6 {
		want = append(want, fmt.Sprintf("event-%06d", i))
	}
	if diff := cmp.Diff(want, recordIDs(t, b.alerts())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if figure(t, d.registry, "tfdrift_intake_faults_total", "not_an_alert") != 1 || !strings.Contains(d.log.String(), "left out") {
		t.Errorf("not counted or logged: %s", &d.log)
	}
}

// TestDirectReadsWhatWasRecorded: every mutating record of real trails ends in the inbox, once.
func TestDirectReadsWhatWasRecorded(t *testing.T) {
	folder, ok := shared(t, "cloudtrail", "stratus-red-team")
	if !ok {
		return
	}
	b := newBook(t)
	d := newDirect(t, b, folder) // holds each record twice, in two layouts
	if err := d.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored := len(b.alerts())
	if repeated := figure(t, d.registry, "tfdrift_alerts_repeated_total"); stored == 0 || float64(stored) > repeated {
		t.Errorf("%d records stored, %v repeated: want each once", stored, repeated)
	}
}

// BenchmarkDirect reads a file of records of about a kilobyte.
func BenchmarkDirect(b *testing.B) {
	book, dir := newBook(b), b.TempDir()
	pad := strings.Repeat("x", 1000)
	var text strings.Builder
	for i := range b.N {
		fmt.Fprintf(&text, `{"eventID":"event-%08d","eventName":"RunInstances","requestParameters":{"pad":"%s"}}`+"\n", i, pad)
	}
	write(b, dir, "1.jsonl", text.String())
	d := newDirect(b, book, dir)
	b.ResetTimer()
	if err := d.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
