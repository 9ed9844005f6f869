package file_test

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/sourcetest"
)

// TestCalm keeps a state unreadable that was taken moments after it was written: it is asked for at the polls alone from
// then on. What was to be read again because of the file system's clock is a content that is no longer there.
func TestCalm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.tfstate")
	put(t, path, sourcetest.State("a", 1))
	uri := "file://" + path
	disk := errors.New("disk")
	for name, spoil := range map[string]func(*testing.T, *atomic.Bool){
		"cut off":        func(t *testing.T, _ *atomic.Bool) { put(t, path, sourcetest.State("a", 2)[:100]) },
		"cannot be read": func(_ *testing.T, refuse *atomic.Bool) { refuse.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			put(t, path, sourcetest.State("a", 1))
			var refuse atomic.Bool
			var asked atomic.Int64
			sink := sourcetest.NewSink(t)
			sink.Refuse = func(string) error {
				asked.Add(1)
				if refuse.Load() {
					return disk
				}
				return nil
			}
			const poll = 500 * time.Millisecond
			s := open(t, path, file.Options{Poll: poll, Debounce: time.Millisecond, Patience: time.Millisecond})
			sink.Watch(t, s)
			sink.Await(t, "the state", func() bool { return sink.Newest(uri) == 1 })
			spoil(t, &refuse)
			sink.Await(t, "a fault", func() bool { return sink.FaultOf(uri) != nil })
			from, start := asked.Load(), time.Now()
			sink.Await(t, "more polls, past the tick", func() bool { return time.Since(start) > 6*poll })
			if got, most := asked.Load()-from, int64(time.Since(start)/poll)+5; got > most {
				t.Errorf("asked %d times within %v, want at most %d", got, time.Since(start), most)
			}
		})
	}
}
