package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// companion is a Companion made of two functions.
type companion struct {
	load  func(ctx context.Context)
	watch func(ctx context.Context, emit func([]byte) error) error
}

func (c companion) Load(ctx context.Context) { c.load(ctx) }
func (c companion) Watch(ctx context.Context, emit func([]byte) error) error {
	return c.watch(ctx, emit)
}

func records(t *testing.T, query string, texts ...string) *feed.Feed {
	path := filepath.Join(t.TempDir(), "records.json")
	write(t, path, strings.Join(texts, "\n"))
	f, err := feed.Open("file://"+path+query, feed.Options{Poll: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// drain takes everything until the end.
func drain(t *testing.T, s *feed.Session) (got []string) {
	t.Helper()
	for {
		batch, err := s.Next(100, 10*time.Second)
		for _, e := range batch {
			got = append(got, string(e.Payload))
		}
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil || len(batch) == 0 {
			t.Fatalf("Next: %d events, error %v", len(batch), err)
		}
	}
}

func TestSessionLoadsTheCompanionFirst(t *testing.T) {
	var loaded atomic.Bool
	release := make(chan struct{})
	c := companion{
		load: func(context.Context) { <-release; loaded.Store(true) },
		watch: func(context.Context, func([]byte) error) error {
			t.Error("followed, though the records are not")
			return nil
		},
	}
	s := feed.Start(t.Context(), records(t, "", record("a"), record("b")), c, feed.SessionOptions{})
	defer s.Close()
	if batch, err := s.Next(10, 20*time.Millisecond); len(batch) != 0 || err != nil {
		t.Fatalf("before Load has returned: %v, %v", batch, err)
	}
	close(release)
	if diff := cmp.Diff([]string{record("a"), record("b")}, drain(t, s)); diff != "" || !loaded.Load() {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, err := s.Next(10, 0); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

func TestSessionTakesTheEventsTime(t *testing.T) {
	s := feed.Start(t.Context(), records(t, "", `{"eventName":"X","eventTime":"2024-07-31T12:21:09Z"}`, record("b")), nil, feed.SessionOptions{})
	defer s.Close()
	var times []time.Time
	for {
		batch, err := s.Next(1, 10*time.Second)
		for _, e := range batch {
			times = append(times, e.Time)
		}
		if err != nil {
			break
		}
	}
	if diff := cmp.Diff([]time.Time{time.Date(2024, 7, 31, 12, 21, 9, 0, time.UTC), {}}, times); diff != "" {
		t.Errorf("times (-want +got):\n%s", diff)
	}
}

// TestSessionDropsWhatIsTooLarge: where the size is in what says who did what, there is nothing to leave out.
func TestSessionDropsWhatIsTooLarge(t *testing.T) {
	var log bytes.Buffer
	large := `{"eventID":"big-1","eventName":"PutParameter","x":"` + strings.Repeat("x", 300) + `","responseElements":{"y":"` + strings.Repeat("y", 300) + `"}}`
	s := feed.Start(t.Context(), records(t, "", record("a"), large, record("b")), nil,
		feed.SessionOptions{MaxEvent: 256, Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer s.Close()
	if diff := cmp.Diff([]string{record("a"), record("b")}, drain(t, s)); diff != "" || s.Dropped() != 1 || s.Trimmed() != 0 {
		t.Errorf("%d dropped, %d trimmed; events (-want +got):\n%s", s.Dropped(), s.Trimmed(), diff)
	}
	for _, says := range []string{"event_id=big-1", "event_name=PutParameter", fmt.Sprintf("bytes=%d", len(large)), "limit=256"} {
		if !strings.Contains(log.String(), says) {
			t.Errorf("the log does not say %q: %s", says, &log)
		}
	}
}

// TestSessionTrimsARecord: no more is left out than has to be, and what was asked for goes last.
func TestSessionTrimsARecord(t *testing.T) {
	const limit = 300
	big, small := `{"v":"`+strings.Repeat("x", limit)+`"}`, `{"v":1}`
	text := func(request, response, additional string) string {
		return `{"eventID":"big-1","eventName":"PutParameter","requestParameters":` + request + `,"responseElements":` + response +
			`,"additionalEventData":` + additional + `,"a\u0041":1}`
	}
	const omitted = `{"omitted":true}`
	plain := func(s string) string { return strings.ReplaceAll(s, `a\u0041`, "aA") }
	for _, c := range []struct{ name, text, want, says string }{
		{"the answer", text(small, big, small), text(small, omitted, small), "omitted=[responseElements]"},
		{"more than the answer", text(small, small, big), text(small, small, omitted), "omitted=[additionalEventData]"},
		{"what was asked for", text(big, big, small), text(omitted, omitted, small), `omitted="[responseElements requestParameters]"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			s := feed.Start(t.Context(), records(t, "", c.text, record("b")), nil,
				feed.SessionOptions{MaxEvent: limit, Log: slog.New(slog.NewTextHandler(&log, nil))})
			defer s.Close()
			if diff := cmp.Diff([]string{plain(c.want), record("b")}, drain(t, s)); diff != "" || s.Trimmed() != 1 || s.Dropped() != 0 {
				t.Errorf("%d trimmed, %d dropped; events (-want +got):\n%s", s.Trimmed(), s.Dropped(), diff)
			}
			for _, says := range []string{c.says, "event_id=big-1", fmt.Sprintf("bytes=%d", len(c.text))} {
				if !strings.Contains(log.String(), says) {
					t.Errorf("the log does not say %q: %s", says, &log)
				}
			}
		})
	}
}

func TestSessionOfTheCompanionAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := companion{
			load: func(context.Context) {},
			watch: func(ctx context.Context, emit func([]byte) error) error {
				for i := 0; emit(fmt.Appendf(nil, "%d", i)) == nil; i++ {
				}
				return ctx.Err()
			},
		}
		s := feed.Start(t.Context(), nil, c, feed.SessionOptions{})
		synctest.Wait() // the companion is blocked: the queue is full
		seen := 0
		for seen < 10_000 {
			batch, err := s.Next(1000, time.Second)
			if err != nil || len(batch) == 0 {
				t.Fatalf("after %d events: %d, %v", seen, len(batch), err)
			}
			for _, e := range batch {
				if got := string(e.Payload); got != fmt.Sprint(seen) {
					t.Fatalf("event %d is %s", seen, got)
				}
				seen++
			}
		}
		s.Close()
	})
}

func TestSessionSurvivesPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := companion{
			load: func(context.Context) { panic("load") },
			watch: func(ctx context.Context, emit func([]byte) error) error {
				if calls++; calls < 3 {
					panic("watch")
				}
				if err := emit([]byte("after")); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			},
		}
		var log bytes.Buffer
		s := feed.Start(t.Context(), nil, c, feed.SessionOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
		batch, err := s.Next(10, time.Minute)
		if err != nil || len(batch) != 1 || string(batch[0].Payload) != "after" || s.Panics() != 3 {
			t.Errorf("%d panics, got %v, %v", s.Panics(), batch, err)
		}
		s.Close()
		if n := strings.Count(log.String(), "source broke down"); n != 3 {
			t.Errorf("%d panics in the log:\n%s", n, log.String())
		}
	})
}

func TestSessionNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := companion{load: func(context.Context) {}, watch: func(ctx context.Context, _ func([]byte) error) error {
			<-ctx.Done()
			return nil
		}}
		s := feed.Start(t.Context(), nil, c, feed.SessionOptions{})
		began := time.Now()
		if batch, err := s.Next(10, 30*time.Millisecond); len(batch) != 0 || err != nil {
			t.Errorf("got %v, %v", batch, err)
		}
		if waited := time.Since(began); waited != 30*time.Millisecond {
			t.Errorf("waited %s", waited)
		}
		s.Close()
		if _, err := s.Next(10, time.Minute); !errors.Is(err, io.EOF) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestSessionJoinsBoth(t *testing.T) {
	c := companion{load: func(context.Context) {}, watch: func(ctx context.Context, emit func([]byte) error) error {
		if err := emit([]byte("state")); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}
	s := feed.Start(t.Context(), records(t, "?watch=true", record("a")), c, feed.SessionOptions{})
	defer s.Close()
	got := map[string]int{}
	for n := 0; n < 2; {
		batch, err := s.Next(10, 10*time.Second)
		if err != nil || len(batch) == 0 {
			t.Fatalf("got %v, %v", batch, err)
		}
		for _, e := range batch {
			got[string(e.Payload)]++
			n++
		}
	}
	if diff := cmp.Diff(map[string]int{"state": 1, record("a"): 1}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
