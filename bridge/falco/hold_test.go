package falco_test

import (
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// send posts one small alert of its own and gives the answer.
func (l *line) post(n int) (status int, says string) {
	l.t.Helper()
	l.send(post("/", "", fmt.Appendf(nil, `{"rule":"R","output":"%d","output_fields":{}}`, n)))
	return l.answer()
}

// lock keeps everybody else from writing to the journal, as a backup may, until the returned function is called.
func (b book) lock() (unlock func()) {
	b.t.Helper()
	db, err := sql.Open("sqlite", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		if _, err := db.Exec("ROLLBACK"); err != nil {
			b.t.Error(err)
		}
		db.Close()
	}
}

func (s *site) wantFigure(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	if got := figure(t, s.registry, name, labels...); got != want {
		t.Errorf("%s %v is %v, want %v", name, labels, got, want)
	}
}

// TestJournalRefuses: what is answered with 503 is held and stored as soon as the journal takes it, and with that the
// trouble is over; nobody has to send anything for it.
func TestJournalRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	s.book.refuse()
	for n := range 3 {
		if status, says := l.post(n); status != http.StatusServiceUnavailable || !strings.Contains(says, "held in memory") || strings.Contains(says, "no space") {
			t.Errorf("%d %q, want 503 without inner detail", status, says)
		}
	}
	s.wantStatus(t, "unusable", "no space left")
	s.wantFigure(t, 3, "tfdrift_intake_held_alerts")
	s.wantFigure(t, 3, "tfdrift_intake_refused_total", "journal")
	if n := strings.Count(s.log.String(), "alerts cannot be stored"); n != 1 || !strings.Contains(s.log.String(), "make room on the disk") {
		t.Errorf("logged %d times: %s", n, &s.log)
	}
	s.book.accept()
	for i, a := range s.book.wait(3) {
		if a.Output != fmt.Sprint(i) {
			t.Errorf("alert %d is %q: not in the order of arrival", i, a.Output)
		}
	}
	eventually(t, "status well", func() bool { return s.Status().OK })
	if status, says := l.post(3); status != http.StatusOK {
		t.Errorf("%d %s when the journal works again", status, says)
	}
	s.wantFigure(t, 0, "tfdrift_intake_held_alerts")
	s.wantFigure(t, 0, "tfdrift_intake_held_bytes")
	s.wantFigure(t, 0, "tfdrift_alerts_lost_total")
	if !strings.Contains(s.log.String(), "the journal stores alerts again") {
		t.Errorf("the end of the trouble is not logged: %s", &s.log)
	}
}

// TestTheJournalIsNotedAmongManySenders: however many Falcos are set wrongly, what makes the intake unusable shows.
func TestTheJournalIsNotedAmongManySenders(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	for n := range 300 {
		l.send(post("/", "", fmt.Appendf(nil, `{"rule":"R","hostname":"node-%d"}`, n)))
		l.answer()
	}
	s.wantStatus(t, "degraded", "and 253 more")
	s.book.refuse()
	l.post(0)
	s.wantStatus(t, "unusable", "no space left")
}

// TestJournalIsLocked: only the first answer waits, and not as long as the lock lasts.
func TestJournalIsLocked(t *testing.T) {
	t.Parallel()
	const wait = 100 * time.Millisecond
	s := newSite(t, falco.HTTPOptions{Wait: wait})
	l := s.dial(t)
	unlock := s.book.lock()
	start := time.Now()
	for n := range 50 {
		if status, says := l.post(n); status != http.StatusServiceUnavailable || !strings.Contains(says, "held in memory") {
			t.Fatalf("%d %q", status, says)
		}
	}
	if took := time.Since(start); took > 2*time.Second { // fifty waits would be five
		t.Errorf("50 answers took %v", took)
	}
	s.wantStatus(t, "degraded", "takes more than 100ms")
	unlock()
	s.book.wait(50)
	eventually(t, "an answer that waits again", func() bool { status, _ := l.post(50); return status == http.StatusOK })
	s.wantStatus(t, "well", "")
	s.wantFigure(t, 0, "tfdrift_alerts_lost_total")
}

// TestMemoryIsFull: the limits hold in count and in bytes; what exceeds them is lost, at once, counted and told.
func TestMemoryIsFull(t *testing.T) {
	for name, o := range map[string]falco.HTTPOptions{
		"alerts": {HoldAlerts: 3}, "bytes": {HoldBytes: 3 * 513},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, o)
			l := s.dial(t)
			s.book.refuse()
			for n := range 8 {
				status, says := l.post(n)
				if lost := strings.Contains(says, "the alert is lost"); status != http.StatusServiceUnavailable || lost != (n >= 3) {
					t.Errorf("alert %d: %d %q", n, status, says)
				}
			}
			s.wantFigure(t, 5, "tfdrift_alerts_lost_total", "full")
			s.wantFigure(t, 5, "tfdrift_intake_refused_total", "full")
			if n := strings.Count(s.log.String(), "alerts are lost"); n != 1 {
				t.Errorf("%d lines tell of the loss: %s", n, &s.log)
			}
			s.book.accept()
			if all := s.book.wait(3); len(all) != 3 {
				t.Errorf("%d alerts in the inbox", len(all))
			}
			eventually(t, "room again", func() bool { status, _ := l.post(9); return status == http.StatusOK })
		})
	}
}

// TestStopWithHeldAlerts: the last try at the end stores them; what it cannot store is told as lost.
func TestStopWithHeldAlerts(t *testing.T) {
	t.Parallel()
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	s.book.refuse()
	for n := range 600 { // more than one batch
		l.post(n)
	}
	s.book.accept()
	if err := s.stop(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := len(s.book.alerts()); n != 600 {
		t.Errorf("%d alerts in the inbox, want 600", n)
	}

	s = newSite(t, falco.HTTPOptions{})
	l = s.dial(t)
	s.book.refuse()
	for n := range 7 {
		l.post(n)
	}
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Serve: %v, want that alerts are lost", err)
	}
	s.wantFigure(t, 7, "tfdrift_alerts_lost_total", "stopped")
	s.wantFigure(t, 0, "tfdrift_intake_held_alerts")
}

// TestStopWhileTheJournalIsLocked: with many batches held, the end takes one wait for the lock and not one for each.
func TestStopWhileTheJournalIsLocked(t *testing.T) {
	t.Parallel()
	s := newSite(t, falco.HTTPOptions{Wait: time.Millisecond})
	l := s.dial(t)
	defer s.book.lock()()
	const alerts = 2000
	for n := range alerts {
		l.post(n)
	}
	start := time.Now()
	if err := s.stop(); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("stopped after %v", took)
	}
	s.wantFigure(t, alerts, "tfdrift_alerts_lost_total", "stopped")
	s.wantFigure(t, 0, "tfdrift_intake_held_alerts")
	s.wantFigure(t, 0, "tfdrift_intake_held_bytes")
}

// TestHTTPWhenTheJournalIsGone: the intake ends and says so, without being told to.
func TestHTTPWhenTheJournalIsGone(t *testing.T) {
	s := newSite(t, falco.HTTPOptions{})
	l := s.dial(t)
	s.book.Close()
	if status, _ := l.post(0); status != http.StatusServiceUnavailable {
		t.Errorf("answer %d", status)
	}
	select {
	case err := <-s.ended:
		s.ended <- err // for the clean-up
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Serve does not return")
	}
	s.wantFigure(t, 1, "tfdrift_alerts_lost_total", "stopped")
}
