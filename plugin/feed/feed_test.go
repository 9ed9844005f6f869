package feed_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for uri, want := range map[string]string{
		"":                                   "the path is empty",
		filepath.Join(dir, "nope"):           "no such file",
		"s3://bucket/prefix":                 `scheme "s3" is not supported`,
		"file://host/path":                   "three slashes",
		"file://" + dir + "?wach=true":       `unknown parameter "wach"`,
		"file://" + dir + "?watch=sometimes": "want true or false",
		os.DevNull:                           "neither a file nor a directory",
	} {
		if _, err := feed.Open(uri, feed.Options{}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), uri) {
			t.Errorf("Open %q: error %v, want one with %q and the path", uri, err, want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func zipped(t *testing.T, text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func runOnce(t *testing.T, uri string, log *slog.Logger) ([]string, feed.Stats) {
	t.Helper()
	f, err := feed.Open(uri, feed.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := f.Run(t.Context(), func(r []byte) error {
		got = append(got, string(r))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got, f.Stats()
}

func TestRunReadsADirectoryByPath(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "b", "1.json.gz"), zipped(t, `{"Records":[`+record("b1")+`]}`))
	write(t, filepath.Join(dir, "a.json"), `{"Records":[`+record("a1")+`,`+record("a2")+`]}`)
	write(t, filepath.Join(dir, "b", "2.json"), zipped(t, record("b2"))) // compressed, whatever its name says
	write(t, filepath.Join(dir, "c.jsonl.gz"), record("c1")+"\n"+record("c2")+"\n")
	write(t, filepath.Join(dir, "d.json"), `{"digestStartTime":"x"}`)
	write(t, filepath.Join(dir, "e.json"), `{"Records":[`+record("e1")+`,`+record("e")[:9])
	write(t, filepath.Join(dir, "f.json"), "not JSON")
	write(t, filepath.Join(dir, "g.json.gz"), zipped(t, record("g1")+strings.Repeat(" ", 1000))[:30])
	write(t, filepath.Join(dir, "h.json"), "")
	write(t, filepath.Join(dir, "z.json"), record("z1"))
	write(t, filepath.Join(dir, "notes.txt"), record("x"))
	write(t, filepath.Join(dir, ".hidden.json"), record("x"))
	write(t, filepath.Join(dir, ".git", "x.json"), record("x"))

	var log bytes.Buffer
	got, stats := runOnce(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
	want := []string{record("a1"), record("a2"), record("b1"), record("b2"), record("c1"), record("c2"), record("e1"), record("z1")}
	if len(got) == len(want)+1 && got[7] == record("g1") {
		got = append(got[:7], got[8]) // whether a cut gzip gives its first record depends on the cut
		stats.Records, stats.Bytes = stats.Records-1, stats.Bytes-uint64(len(record("g1")))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	wantStats := feed.Stats{
		Records: 8, Bytes: uint64(len(strings.Join(want, ""))), Files: 10,
		Faults: map[string]uint64{"truncated": 2, "not_json": 1}, Aside: map[string]uint64{"digest": 1},
	}
	if diff := cmp.Diff(wantStats, stats); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 3 {
		t.Errorf("%d warnings, want 3:\n%s", n, log.String())
	}
}

func TestRunOfOneFileTakesAnyName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "what?ever")
	write(t, path, record("a"))
	for _, uri := range []string{path, "file://" + strings.ReplaceAll(path, "?", "%3F")} {
		if got, _ := runOnce(t, uri, nil); !cmp.Equal(got, []string{record("a")}) {
			t.Errorf("%s: got %q", uri, got)
		}
	}
}

func TestRunStopsWithTheTakersError(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.json"), record("a")+record("b"))
	f, err := feed.Open(dir, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop, got := errors.New("enough"), ""
	take := func(r []byte) error {
		if bytes.Contains(r, []byte(`"b"`)) && got == record("a") {
			got += "|"
			return stop
		}
		got += string(r)
		return nil
	}
	if err := f.Run(t.Context(), take); !errors.Is(err, stop) {
		t.Fatalf("Run: %v", err)
	}
	// What was refused is handed out again, what was taken is not.
	if err := f.Run(t.Context(), take); err != nil {
		t.Fatal(err)
	}
	if want := record("a") + "|" + record("b"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// watched follows a directory in the background and gathers what comes.
type watched struct {
	t    *testing.T
	feed *feed.Feed
	mu   sync.Mutex
	got  []string
}

func watch(t *testing.T, uri string, poll time.Duration) *watched {
	f, err := feed.Open("file://"+uri+"?watch=true", feed.Options{Poll: poll})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, feed: f}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- f.Run(ctx, func(r []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.got = append(w.got, string(r))
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// wait polls until exactly these records, by their ids, have come.
func (w *watched) wait(ids ...string) {
	w.t.Helper()
	want := make([]string, len(ids))
	for i, id := range ids {
		want[i] = record(id)
	}
	var got []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		got = append([]string(nil), w.got...)
		w.mu.Unlock()
		if len(got) >= len(want) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("records (-want +got):\n%s", diff)
	}
}

// TestWatch holds with notifications, and without them: then only polling finds changes.
func TestWatch(t *testing.T) {
	for name, poll := range map[string]time.Duration{"notified": time.Hour, "polled": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) { testWatch(t, poll) })
	}
}

func testWatch(t *testing.T, poll time.Duration) {
	dir := t.TempDir()
	lines := filepath.Join(dir, "lines.jsonl")
	write(t, lines, record("1")+"\n")
	w := watch(t, dir, poll)
	w.wait("1")

	add(t, lines, record("2")+"\n"+record("3")[:20])
	w.wait("1", "2")
	add(t, lines, record("3")[20:]+"\n")
	w.wait("1", "2", "3")

	whole := filepath.Join(dir, "2024", "07", "whole.json")
	write(t, whole, `{"Records":[`+record("4")+`,`)
	w.wait("1", "2", "3", "4")
	add(t, whole, record("5")+`,`+record("6")[:5])
	w.wait("1", "2", "3", "4", "5")
	add(t, whole, record("6")[5:]+`]}`)
	w.wait("1", "2", "3", "4", "5", "6")

	packed, text := filepath.Join(dir, "packed.json.gz"), zipped(t, record("7"))
	write(t, packed, text[:len(text)/2])
	add(t, packed, text[len(text)/2:])
	w.wait("1", "2", "3", "4", "5", "6", "7")
	add(t, packed, zipped(t, record("8")))
	w.wait("1", "2", "3", "4", "5", "6", "7", "8")

	// A file that is moved is the same file; one that takes its place is another.
	if err := os.Rename(lines, filepath.Join(dir, "old.jsonl")); err != nil {
		t.Fatal(err)
	}
	write(t, lines, record("9")+"\n")
	w.wait("1", "2", "3", "4", "5", "6", "7", "8", "9")
	// So is one that is cut and written anew, even to a larger size.
	write(t, lines, record("10")+"\n"+record("11")+"\n")
	w.wait("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
}

func TestWatchOfOneFileThatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "trail.log")
	write(t, path, record("1"))
	w := watch(t, path, time.Hour)
	w.wait("1")
	write(t, filepath.Join(dir, "other.json"), record("x"))
	write(t, path+".tmp", record("2"))
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
	w.wait("1", "2")
	add(t, path, record("3"))
	w.wait("1", "2", "3")
}

// TestWatchOfARotatedFile: who rotates by renaming goes on writing to the old file until it is told to open the new one.
func TestWatchOfARotatedFile(t *testing.T) {
	for name, uri := range map[string]func(dir, path string) string{
		"of a directory": func(dir, _ string) string { return dir },
		"alone":          func(_, path string) string { return path },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "trail.json")
			write(t, path, record("1")+"\n")
			w := watch(t, uri(dir, path), 10*time.Millisecond)
			w.wait("1")
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			add(t, path+".1", record("2")+"\n")
			w.wait("1", "2")
			write(t, path, record("3")+"\n")
			w.wait("1", "2", "3")
		})
	}
}

// TestWatchOfRotatedCopies: a rotation that copies, or packs what it moved, under names that are read tells nothing twice.
func TestWatchOfRotatedCopies(t *testing.T) {
	for name, rotate := range map[string]func(t *testing.T, dir, path, text string){
		"copied and cut": func(t *testing.T, dir, path, text string) {
			write(t, filepath.Join(dir, "trail.1.json"), text)
			write(t, path, "")
		},
		"renamed and packed": func(t *testing.T, dir, path, text string) {
			old := filepath.Join(dir, "trail.1.json")
			write(t, old+".gz", zipped(t, text)) // before the rename, so that no inode is given again
			if err := os.Rename(path, old); err != nil {
				t.Fatal(err)
			}
			write(t, path, "")
			if err := os.Remove(old); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, text := filepath.Join(dir, "trail.json"), record("1")+"\n"+record("2")+"\n"
			write(t, path, text)
			w := watch(t, dir, 10*time.Millisecond)
			w.wait("1", "2")
			rotate(t, dir, path, text)
			add(t, path, record("3")+"\n")
			w.wait("1", "2", "3")
			write(t, filepath.Join(dir, "z.json"), record("4")) // the marker: nothing came before it
			w.wait("1", "2", "3", "4")
		})
	}
}

// TestWatchOfAListThatIsWrittenAnew: a file that starts as before and is longer may still be another text.
func TestWatchOfAListThatIsWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	var ids, records []string
	for i := range 200 { // beyond what the start of the file is known by
		ids = append(ids, strconv.Itoa(i))
		records = append(records, record(ids[i]))
	}
	path := filepath.Join(dir, "a.json")
	list := func(n int) string { return `{"Records":[` + strings.Join(records[:n], ",") + `]}` }
	write(t, path, list(190))
	w := watch(t, dir, 10*time.Millisecond)
	w.wait(ids[:190]...)
	write(t, path+".tmp", list(200))
	text, err := os.ReadFile(path + ".tmp")
	if err != nil {
		t.Fatal(err)
	}
	handle, err := os.OpenFile(path, os.O_WRONLY, 0) // without cutting it first
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handle.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := handle.Close(); err != nil {
		t.Fatal(err)
	}
	w.wait(ids...)
}

// TestWatchOfAnInodeGivenAgain: a file that takes the place on the disk of one that is gone is another, whatever it shows. Not
// every file system gives an inode again at once; there the test shows less.
func TestWatchOfAnInodeGivenAgain(t *testing.T) {
	dir := t.TempDir()
	w := watch(t, dir, 5*time.Millisecond)
	at := time.Now().Add(-time.Hour) // as a download sets it
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprintf("%02d", i))
		path := filepath.Join(dir, ids[i]+".json")
		write(t, path+".tmp", record(ids[i]))
		if err := errors.Join(os.Chtimes(path+".tmp", at, at), os.Rename(path+".tmp", path)); err != nil {
			t.Fatal(err)
		}
		w.wait(ids...)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchOfADirectoryThatVanishes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "records")
	write(t, filepath.Join(dir, "a.json"), record("1"))
	w := watch(t, dir, 10*time.Millisecond)
	w.wait("1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); w.feed.Stats().Faults["missing"] == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the directory is not missed")
		}
	}
	write(t, filepath.Join(dir, "sub", "b.json"), record("2"))
	w.wait("1", "2")
	add(t, filepath.Join(dir, "sub", "b.json"), record("3"))
	w.wait("1", "2", "3")
}

// TestRecordedFiles reads every file of the recorded data without a fault.
func TestRecordedFiles(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "data", "cloudtrail")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("the recorded data is not here")
		return
	}
	got, stats := runOnce(t, dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	t.Logf("%d records, stats %+v", len(got), stats)
	if len(stats.Faults) > 0 {
		t.Errorf("faults: %v", stats.Faults)
	}
	if stats.Records < 10_000 || stats.Aside["notification"] == 0 || stats.Aside["envelope"] == 0 {
		t.Errorf("stats: %+v", stats)
	}
}

// TestMemory reads a file of 60 MB in a process of its own and holds the most memory that process ever had in bounds.
func TestMemory(t *testing.T) {
	if path := os.Getenv("TFDRIFT_MEMORY_FILE"); path != "" {
		readForMemory(t, path)
		return
	}
	if runtime.GOOS != "linux" {
		t.Log("only Linux tells a process's peak of memory in /proc")
		return
	}
	path := filepath.Join(t.TempDir(), "large.json")
	writeLarge(t, path, 60<<20)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "TFDRIFT_MEMORY_FILE="+path, "GOCOVERDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, after, _ := strings.Cut(string(out), "peak kB: ")
	peak, err := strconv.Atoi(strings.Fields(after + " x")[0])
	if err != nil {
		t.Fatalf("no peak in:\n%s", out)
	}
	t.Logf("peak %d kB", peak)
	if limit := 60 << 10; peak > limit && !raceDetector {
		t.Errorf("peak of %d kB, want %d at most", peak, limit)
	}
}

// writeLarge writes one file of CloudTrail with records of 1.2 kB.
func writeLarge(t *testing.T, path string, size int) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	b := bufio.NewWriter(f)
	filler := strings.Repeat("x", 1100)
	sep := `{"Records":[`
	for n := 0; n < size; sep = "," {
		w, err := fmt.Fprintf(b, `%s{"eventID":"%d","eventName":"PutBucketPolicy","filler":"%s"}`, sep, n, filler)
		if err != nil {
			t.Fatal(err)
		}
		n += w
	}
	_, err = b.WriteString("]}")
	if err := errors.Join(err, b.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func readForMemory(t *testing.T, path string) {
	f, err := feed.Open(path, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := feed.Start(t.Context(), f, nil, feed.SessionOptions{})
	defer s.Close()
	for {
		if _, err := s.Next(128, time.Second); err != nil {
			break
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	t.Logf("%d records, peak kB: %s", f.Stats().Records, strings.Fields(after)[0])
}

func BenchmarkRun(b *testing.B) {
	dir := b.TempDir()
	var text strings.Builder
	text.WriteString(`{"Records":[`)
	for i := range 20_000 {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::1:user/a"},"eventTime":"2024-01-01T00:00:00Z","eventID":"%d","eventName":"PutBucketPolicy","requestParameters":{"bucketName":"b","policy":"%s"}}`, i, strings.Repeat("p", 900))
	}
	text.WriteString(`]}`)
	if err := os.WriteFile(filepath.Join(dir, "a.json"), []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		f, err := feed.Open(dir, feed.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Run(b.Context(), func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
