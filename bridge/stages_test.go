package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// TestStagesStopInOrder: each stage has ended before the next is told to stop.
func TestStagesStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := newStages(ctx, slog.New(slog.DiscardHandler))
		var ended []string
		for _, name := range []string{"intake", "correlate", "feed"} {
			s.start(name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // the time of the bubble
				ended = append(ended, name)
				return nil
			})
		}
		stop()
		if err := s.wait(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(ended, " "); got != "intake correlate feed" {
			t.Errorf("ended: %s", got)
		}
	})
}

// TestAStageThatFailsEndsTheBridge, and its error is what wait returns.
func TestAStageThatFailsEndsTheBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStages(t.Context(), slog.New(slog.DiscardHandler))
		s.start("intake", func(context.Context) error { return errors.New("broken") })
		s.start("feed", func(ctx context.Context) error { <-ctx.Done(); return nil })
		if err := s.wait(); err == nil || err.Error() != "intake: broken" {
			t.Errorf("got %v", err)
		}
	})
}

// TestAStopIsBounded: one stage that hangs is left behind after ten seconds, once, and said; so is one that fails to stop well.
func TestAStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := newStages(ctx, slog.New(slog.DiscardHandler))
		release := make(chan struct{})
		s.start("hangs", func(context.Context) error { <-release; return nil })
		s.start("after", func(ctx context.Context) error { <-ctx.Done(); return errors.New("not flushed") })
		stop()
		start := time.Now()
		err := s.wait()
		_ = s.wait()
		if took := time.Since(start); took != stopWithin {
			t.Errorf("took %s", took)
		}
		if err == nil || !strings.Contains(err.Error(), "hangs: does not stop") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := newStages(ctx, slog.New(slog.DiscardHandler))
		s.start("intake", func(ctx context.Context) error { <-ctx.Done(); return errors.New("not flushed") })
		stop()
		if err := s.wait(); err == nil || !strings.Contains(err.Error(), "not flushed") {
			t.Errorf("a failure at the stop: got %v", err)
		}
	})
}

// TestStateCheckNamesWhatCannotBeRead: the first few of many, and nothing any more when all is well.
func TestStateCheckNamesWhatCannotBeRead(t *testing.T) {
	states := inventory.New(inventory.Options{})
	check := stateCheck(states)
	for i := range 5 {
		states.Fault(fmt.Sprintf("file:///s/%d.tfstate", i), errors.New("cut off"))
	}
	want := wire.Check{Degraded: true, Reason: "0.tfstate: cut off; 1.tfstate: cut off; 2.tfstate: cut off; and 2 more"}
	if got := check(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range 5 {
		states.Fault(fmt.Sprintf("file:///s/%d.tfstate", i), nil)
	}
	if got := check(); got != (wire.Check{OK: true}) {
		t.Errorf("all is well: got %+v", got)
	}
}
