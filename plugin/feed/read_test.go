package feed_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

func record(id string) string { return fmt.Sprintf(`{"eventID":%q,"eventName":"PutBucketPolicy"}`, id) }

func TestReadForms(t *testing.T) {
	a, b, c := record("a"), record("b"), record("c")
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"white space", " \n", nil},
		{"a file of CloudTrail", `{"Records":[` + a + `,` + b + `]}`, []string{a, b}},
		{"no records", `{"Records":[]}`, nil},
		{"members around the records", `{"x":{"y":[1]},"Records":[` + a + `],"z":1}`, []string{a}},
		{"a bare array", `[` + a + `,` + b + `]`, []string{a, b}},
		{"one record", a, []string{a}},
		{"JSON lines", a + "\n" + b + "\r\n\n" + c, []string{a, b, c}},
		{"lines of files", `{"Records":[` + a + `]}` + "\n" + `{"Records":[` + b + `]}`, []string{a, b}},
		{"one after the other", a + b, []string{a, b}},
		{"spread out", "{\n \"eventID\" : \"a  \\\" b\",\n\t\"eventName\":\"X\", \"n\": [1, 2 ]}", []string{`{"eventID":"a  \" b","eventName":"X","n":[1,2]}`}},
		{"an EventBridge envelope", `{"version":"0","detail-type":"AWS API Call via CloudTrail","detail":` + a + `}`, []string{a}},
		{"the envelope of a sign-in", `{"detail-type":"AWS Console Sign In via CloudTrail","detail":` + b + `}`, []string{b}},
		{"another envelope", `{"detail-type":"GuardDuty Finding","detail":{"type":"Backdoor"}}`, nil},
		{"what lookup-events prints", `{"Events":[{"EventId":"a","EventName":"X","EventSource":"s3.amazonaws.com","CloudTrailEvent":` + quoted(t, a) + `}]}`, []string{a}},
		{"an S3 notification", `{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{}}]}`, nil},
		{"an SNS notification", `{"Records":[{"EventSource":"aws:sns","Sns":{}}]}`, nil},
		{"an SQS message", `{"Records":[{"messageId":"1","receiptHandle":"h","body":"x","eventSource":"aws:sqs"}]}`, nil},
		{"a digest", `{"awsAccountId":"1","digestStartTime":"2024-01-01T00:00:00Z","digestS3Object":"o","logFiles":[{}]}`, nil},
		{"an Insight event", `{"eventType":"AwsCloudTrailInsight","insightDetails":{}}`, []string{`{"eventType":"AwsCloudTrailInsight","insightDetails":{}}`}},
		{"other JSON", `1 "x" null [1,[2]] {"a":1}`, nil},
		{"repeated names", `{"eventName":"X","a":1,"a":2}`, []string{`{"eventName":"X","a":1,"a":2}`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(test.text), iotest.OneByteReader(strings.NewReader(test.text))} {
				got, err := readAll(r)
				if err != nil {
					t.Errorf("error %v", err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func quoted(t *testing.T, s string) string {
	q, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	return string(q)
}

func readAll(r io.Reader) (got []string, err error) {
	err = feed.Read(r, func(rec []byte) error {
		got = append(got, string(rec))
		return nil
	})
	return got, err
}

func TestReadGoesOnAfterABrokenLine(t *testing.T) {
	text := record("a") + "\n" + `{"eventName":` + "\n" + record("b") + "\n" + "garbage\n" + record("c") + "\n"
	got, err := readAll(strings.NewReader(text))
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		t.Errorf("error %v, want one of syntax", err)
	}
	if diff := cmp.Diff([]string{record("a"), record("b"), record("c")}, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestReadOfACutText(t *testing.T) {
	whole := `{"Records":[` + record("a") + `,` + record("b") + `]}`
	for n := 1; n < len(whole); n++ {
		got, err := readAll(strings.NewReader(whole[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: error %v", n, err)
		}
		if want := strings.Count(whole[:n], `"PutBucketPolicy"}`); len(got) != want {
			t.Errorf("cut at %d: %d records, want %d", n, len(got), want)
		}
	}
}

func TestReadStopsWithTheTakersError(t *testing.T) {
	for _, want := range []error{io.EOF, io.ErrUnexpectedEOF, errors.New("enough")} {
		calls := 0
		err := feed.Read(strings.NewReader(record("a")+record("b")), func([]byte) error { calls++; return want })
		if !errors.Is(err, want) || calls != 1 {
			t.Errorf("got %v after %d calls, want %v after one", err, calls, want)
		}
	}
}

func TestRecordsAreCopies(t *testing.T) {
	var all [][]byte
	text := record("a") + record("b")
	if err := feed.Read(strings.NewReader(text), func(r []byte) error {
		for _, earlier := range all {
			clear(earlier[:cap(earlier)])
		}
		all = append(all, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := string(all[1]); got != record("b") {
		t.Errorf("the second record is %s after the first was cleared", got)
	}
}

func TestARecordBeyondAllMeasure(t *testing.T) {
	text := io.MultiReader(strings.NewReader(record("a")+`{"eventName":"`), io.LimitReader(letters{}, 80<<20), strings.NewReader(`"}`))
	got, err := readAll(text)
	if err == nil || len(got) != 1 {
		t.Errorf("got %d records, error %v", len(got), err)
	}
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"Records":[` + record("a") + `,1]} ` + record("b")))
	f.Add([]byte("{\"eventName\":\n{\"eventName\":\"X\"}\n[{\"detail-type\":\"x\",\"detail\":{}}]"))
	f.Add([]byte(`{"Events":[{"CloudTrailEvent":"{\"eventName\":\"X\"}"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := readAll(bytes.NewReader(text))
		for _, r := range once {
			if !jsontext.Value(r).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
				t.Fatalf("a record is not JSON: %q", r)
			}
		}
		again, errAgain := readAll(iotest.OneByteReader(bytes.NewReader(text)))
		if !cmp.Equal(once, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("byte by byte %q, %v; at once %q, %v", again, errAgain, once, err)
		}
		if err != nil {
			return
		}
		var lines strings.Builder
		for _, r := range once {
			lines.WriteString(r + "\n")
		}
		if twice, err := readAll(strings.NewReader(lines.String())); err != nil || !cmp.Equal(once, twice) {
			t.Fatalf("read again: %q, %v; first %q", twice, err, once)
		}
	})
}
