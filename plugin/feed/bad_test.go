package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

// awsRecord is one as CloudTrail writes it: eventVersion first.
func awsRecord(id string) string {
	return fmt.Sprintf(`{"eventVersion":"1.08","eventID":%q,"eventName":"PutBucketPolicy"}`, id)
}

func nested(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }

// garbage is n bytes of anything, the same at each run, with a newline and a brace here and there.
func garbage(n int) string {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text)
	return strings.ReplaceAll(string(text), "{}", "{!")
}

// TestBrokenTexts: whatever is wrong with a part of a text, the other records are read, and what is wrong is counted
// under its kind.
func TestBrokenTexts(t *testing.T) {
	a, b, c := awsRecord("a"), awsRecord("b"), awsRecord("c")
	const mark = "\uFEFF"
	for _, test := range []struct {
		name, text string
		want       []string
		faults     string // kind, "" for none
		aside      uint64
	}{
		{name: "empty", text: ""},
		{name: "byte order mark", text: mark + a + "\n" + b, want: []string{a, b}},
		{name: "byte order mark before a file of CloudTrail", text: mark + `{"Records":[` + a + `,` + b + `]}`, want: []string{a, b}},
		{name: "a mark and nothing", text: mark},
		{name: "files with marks, joined", text: mark + a + mark + b + "\n" + mark + c, want: []string{a, b, c}},
		{name: "UTF-16, little endian", text: wide(mark+a+"\r\n"+b, false), want: []string{a, b}},
		{name: "UTF-16, big endian", text: wide(mark+`{"Records":[`+a+`]}`, true), want: []string{a}},
		{name: "UTF-16 without a mark", text: wide(a, false), want: []string{a}},
		{name: "UTF-16 in gzip", text: zipped(t, wide(mark+a, false)), want: []string{a}},
		{name: "gzip of a text with a mark", text: zipped(t, mark+a), want: []string{a}},
		{name: "gzip in several members", text: zipped(t, a) + zipped(t, b), want: []string{a, b}},
		{name: "gzip cut off", text: cut(zipped(t, a+garbage(9000))), want: []string{a}, faults: "truncated"},
		{name: "gzip of garbage", text: zipped(t, garbage(9000)), faults: "not_json"},
		{name: "garbage that looks like gzip", text: "\x1f\x8b" + garbage(9000), faults: "gzip"},
		{name: "garbage behind gzip", text: zipped(t, a) + garbage(100), want: []string{a}, faults: "gzip"},
		{name: "garbage", text: garbage(9000), faults: "not_json"},
		{name: "3 MB of garbage between lines", text: a + "\n" + garbage(3<<20) + "\n" + b + "\n" + c, want: []string{a, b, c}, faults: "not_json"},
		{name: "3 MB of garbage in a list", text: `{"Records":[` + a + `,` + garbage(3<<20) + `,` + b + `,` + c + `]}`, want: []string{a, b, c}, faults: "not_json"},
		{name: "one letter wrong in an indented list", text: "[\n  " + a + ",\n  {\"eventVersion\": 'x'},\n  {\n    " + b[1:] + ",\n  " + c + "\n]", want: []string{a, b, c}, faults: "not_json"},
		{name: "two lists, one cut off, joined", text: `{"Records":[` + a + `,{"eve` + `{"Records":[` + b + `,` + c + `]}`, want: []string{a, b, c}, faults: "not_json"},
		{name: "a record of 20 MB", text: a + "\n" + sized(20<<20) + "\n" + b, want: []string{a, b}, faults: "too_large"},
		{name: "a record of 20 MB in a list", text: `{"Records":[` + a + `,` + sized(20<<20) + `,` + b + `]}`, want: []string{a, b}, faults: "too_large"},
		{name: "a text that never ends", text: a + "\n" + `{"eventName":"` + strings.Repeat("x", 20<<20), want: []string{a}, faults: "too_large"},
		{name: "cut off in a string", text: a + "\n" + b[:30], want: []string{a}, faults: "truncated"},
		{name: "1,000 levels", text: `{"eventName":"X","r":` + nested(1000) + `}`, want: []string{`{"eventName":"X","r":` + nested(1000) + `}`}},
		{name: "20,000 levels", text: `{"eventName":"X","r":` + nested(20000) + "}\n" + a, want: []string{a}, faults: "not_json"},
		{name: "records that are none", text: `{"Records":[1,"x",null,[` + b + `],{},` + a + `]}`, want: []string{a}, aside: 5},
		{name: "repeated members", text: `{"eventName":"X","eventName":"Y"}`, want: []string{`{"eventName":"X","eventName":"Y"}`}},
		{name: "broken UTF-8", text: "{\"eventName\":\"\xff\"}", want: []string{"{\"eventName\":\"\xff\"}"}},
		{name: "a number beyond float", text: `{"eventName":"X","n":1e999999}`, want: []string{`{"eventName":"X","n":1e999999}`}},
		{name: "a string of 8 MB", text: sized(8<<20) + a, want: []string{sized(8 << 20), a}},
		{name: "garbage before the last line's record", text: a + "\n" + garbage(100) + b + "\n", want: []string{a, b}, faults: "not_json"},
		{name: "NUL bytes behind", text: a + "\n\x00\x00\x00", want: []string{a}, faults: "not_json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "records.json")
			write(t, path, test.text)
			var log bytes.Buffer
			got, stats := runOnce(t, path, slog.New(slog.NewTextHandler(&log, nil)))
			if !cmp.Equal(test.want, got) {
				t.Errorf("got %d records, want %d", len(got), len(test.want))
			}
			want := map[string]uint64{}
			if test.faults != "" {
				want[test.faults] = 1
			}
			if diff := cmp.Diff(want, stats.Faults); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
			if stats.Aside["unknown"] != test.aside {
				t.Errorf("set aside: %v, want %d", stats.Aside, test.aside)
			}
			if line := log.String(); test.faults != "" && (strings.Count(line, "\n") != 1 || !strings.Contains(line, path) || !strings.Contains(line, "hint=")) {
				t.Errorf("want one line with the path and the way out: %s", line)
			}
		})
	}
}

func cut(text string) string { return text[:len(text)-2000] }

func sized(n int) string { return `{"eventName":"` + strings.Repeat("x", n) + `"}` }

// wide is text in UTF-16.
func wide(text string, bigEndian bool) string {
	var out strings.Builder
	for _, unit := range utf16.Encode([]rune(text)) {
		low, high := byte(unit), byte(unit>>8)
		if bigEndian {
			low, high = high, low
		}
		out.WriteString(string([]byte{low}) + string([]byte{high}))
	}
	return out.String()
}

// TestOffsetsAreThoseOfTheFile: behind what was passed over too.
func TestOffsetsAreThoseOfTheFile(t *testing.T) {
	first := awsRecord("a") + "\n"
	for _, text := range []string{first + "oops", "\uFEFF" + first + "oops"} {
		_, err := readAll(strings.NewReader(text))
		if want := fmt.Sprintf("after offset %d", strings.Index(text, "oops")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ...%s", err, want)
		}
	}
}

// TestGarbageCostsNoMemory: what is passed over is not kept.
func TestGarbageCostsNoMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	text := io.MultiReader(strings.NewReader(awsRecord("a")+"!"), io.LimitReader(letters{}, 200<<20), strings.NewReader("\n"+awsRecord("b")))
	got, err := readAll(text)
	runtime.ReadMemStats(&after)
	if err == nil || len(got) != 2 {
		t.Errorf("got %d records, %v", len(got), err)
	}
	if made := after.TotalAlloc - before.TotalAlloc; made > 8<<20 {
		t.Errorf("%d MB were allocated for 200 MB of garbage", made>>20)
	}
}

// TestReadingStopsWithItsContext: also in the middle of a file without any record.
func TestReadingStopsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records.json")
	write(t, path, awsRecord("a")+"\n"+strings.Repeat("x", 1<<20)+"\n"+awsRecord("b"))
	f, err := feed.Open(path, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	take := func([]byte) error { n++; cancel(); return nil }
	if err := f.Run(ctx, take); !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("got %v after %d records", err, n)
	}
	if s := f.Stats(); len(s.Faults) > 0 {
		t.Errorf("the end of the context counts as a fault: %v", s.Faults)
	}
	if err := f.Run(t.Context(), take); err != nil || n != 2 {
		t.Errorf("afterwards: %v and %d records", err, n)
	}
}

// TestFoldersWithoutRecords: said once, with what is there instead.
func TestFoldersWithoutRecords(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "records.log"), record("x"))
	write(t, filepath.Join(dir, "notes.txt"), "x")
	var log bytes.Buffer
	if got, stats := runOnce(t, dir, slog.New(slog.NewTextHandler(&log, nil))); len(got) > 0 || len(stats.Faults) > 0 {
		t.Errorf("got %q, %+v", got, stats)
	}
	for _, says := range []string{"no records here", dir, "other_files=2", "?watch=true"} {
		if !strings.Contains(log.String(), says) || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("want one line with %q: %s", says, &log)
		}
	}
}

// TestCopiedAnew: a file that is written over with what it held, in place or as another file of its name, is not told
// twice, whatever its packing looks like now; what is new in it is.
func TestCopiedAnew(t *testing.T) {
	list := func(ids ...string) string {
		all := make([]string, len(ids))
		for i, id := range ids {
			all[i] = record(id)
		}
		return `{"Records":[` + strings.Join(all, ",") + `]}`
	}
	for name, replace := range map[string]func(t *testing.T, path, text string){
		"in place": write,
		"cut off first": func(t *testing.T, path, text string) {
			write(t, path, text[:len(text)/2])
			add(t, path, text[len(text)/2:])
		},
		"renamed": func(t *testing.T, path, text string) {
			write(t, path+".tmp", text)
			// The other file stays, so that its inode is not given to the next.
			if err := errors.Join(os.Link(path, fmt.Sprint(path, ".", len(text))), os.Rename(path+".tmp", path)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.json.gz")
			write(t, path, zipped(t, list("1", "2")))
			w := watch(t, dir, 10*time.Millisecond)
			w.wait("1", "2")
			replace(t, path, zipped(t, list("1", "2")+strings.Repeat(" ", 50)))
			replace(t, path, zipped(t, "\n"+list("1", "2", "3")))
			w.wait("1", "2", "3")
			write(t, filepath.Join(dir, "z.json"), record("4")) // the marker: nothing came before it
			w.wait("1", "2", "3", "4")
			if n := w.feed.Stats().Aside["repeated"]; n < 2 {
				t.Errorf("%d records were passed over as repeated", n)
			}
		})
	}
}
