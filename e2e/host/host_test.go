package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
)

const twoRecords = `{"eventName":"PutBucketPolicy","eventType":"AwsApiCall","eventID":"a"}
{"eventName":"GetBucketPolicy","eventType":"AwsApiCall"}
`

func records(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "records.jsonl")
	if err := os.WriteFile(path, []byte(twoRecords), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	path := records(t)
	for filter, want := range map[string][]string{
		"":                        {"PutBucketPolicy a", "GetBucketPolicy <NA>"},
		"ct.name startswith Put":  {"PutBucketPolicy a"},
		"not ct.id exists":        {"GetBucketPolicy <NA>"},
		"ct.name = NothingOfThat": nil,
	} {
		got, err := h.Run(t.Context(), host.Query{Records: path, Filter: filter, Format: "%ct.name %ct.id"})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("filter %q: got %q, %v, want %q", filter, got, err, want)
		}
	}
}

// TestRunRefuses: a mistake must not look like a filter that found nothing.
func TestRunRefuses(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	path := records(t)
	for name, c := range map[string]struct {
		query host.Query
		want  string
	}{
		"field":         {host.Query{Records: path, Filter: "ct.nmae = a", Format: "%ct.name"}, "ct.nmae"},
		"output field":  {host.Query{Records: path, Format: "%ct.nmae"}, "ct.nmae"},
		"operator":      {host.Query{Records: path, Filter: "ct.name beginswith a", Format: "%ct.name"}, "filter"},
		"configuration": {host.Query{Records: path, Init: `{"sates":[]}`, Format: "%ct.name"}, "sates"},
		"path":          {host.Query{Records: path + "x", Format: "%ct.name"}, "records.jsonlx"},
	} {
		if got, err := h.Run(t.Context(), c.query); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v, want an error with %q", name, got, err, c.want)
		}
	}
}

func TestWatch(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	path := records(t)
	query := host.Query{Records: "file://" + path + "?watch=true", Filter: "ct.name exists", Format: "%ct.name"}
	var got []string
	err := h.Watch(t.Context(), query, func(line string) bool {
		got = append(got, line)
		if len(got) == 2 {
			add(t, path)
		}
		return len(got) < 3
	})
	if want := []string{"PutBucketPolicy", "GetBucketPolicy", "DeleteBucket"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	query.Records = path // has an end
	if err := h.Watch(t.Context(), query, func(string) bool { return true }); !errors.Is(err, host.ErrEnded) {
		t.Errorf("got %v, want %v", err, host.ErrEnded)
	}
}

func add(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"eventName":"DeleteBucket","eventType":"AwsApiCall"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
