package e2e_test

import (
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// metrics are what an operator can count on, by the stage that gives it. Each is served before anything has happened, or after
// one record, one alert and one state.
var metrics = map[string][]string{
	"feed":      {"feed_records_total", "feed_bytes_total", "feed_files_total"},
	"intake":    {"alerts_received_total", "alerts_stored_total", "alerts_repeated_total", "alerts_lost_total", "alert_age_seconds", "intake_seconds", "intake_refused_total", "intake_bytes_total", "intake_in_flight", "intake_held_alerts", "intake_held_bytes", "intake_connections", "intake_reconnects_total"},
	"inventory": {"states", "state_faults", "state_instances", "state_snapshots", "state_identifiers", "state_newest_age_seconds", "state_reads_total", "state_read_seconds_total", "state_read_bytes_total"},
	"correlate": {"verdicts_total", "serials_total", "serials_waiting", "correlate_seconds", "event_age_seconds", "blind_spots_total", "drifts_open"},
	"journal":   {"inbox_alerts_total", "inbox_pending", "journal_messages_total", "journal_transaction_seconds", "journal_transaction_requests", "journal_waiting", "journal_bytes"},
	"hub":       {"sessions", "subscribers", "sessions_opened_total", "sessions_closed_total", "messages_sent_total", "messages_from_journal_total", "slowest_subscriber_seconds", "delivery_seconds", "stats_dropped_total", "gaps_total", "frames_dropped_total"},
	"serve":     {"http_requests_total", "http_request_seconds"},
}

func TestEveryStageHasItsMetrics(t *testing.T) {
	b, trail, states := watched(t, "--falco-http", "127.0.0.1:0")
	c := b.watch("all")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "metrics-1", now(), nil))
	c.await("drift", func(message) bool { return true })
	alerts := requests(t, "falco/http044.txt")
	_, body, _ := strings.Cut(string(alerts[0]), "\r\n\r\n")
	sender := newPoster(b)
	if status, says, _, err := sender.post([]byte(body)); err != nil || status != http.StatusOK {
		t.Fatalf("got %d %s, %v", status, says, err)
	}
	c.await("falco", func(message) bool { return true })
	if status, says, _, err := sender.post([]byte(strings.Repeat("x", 8<<20))); err == nil && status == http.StatusOK {
		t.Fatalf("a body without end was taken: %s", says)
	}
	put(t, filepath.Join(states, "broken.tfstate"), []byte("{"), now())
	_ = b.watch().conn.Close()
	b.get("/api/v1/state")

	missing := func() (names []string) {
		text := string(b.get("/metrics"))
		for stage, all := range metrics {
			for _, name := range all {
				if !regexp.MustCompile(`(?m)^tfdrift_` + name + `(_count)?([{ ]|$)`).MatchString(text) {
					names = append(names, stage+": "+name)
				}
			}
		}
		slices.Sort(names)
		return names
	}
	for end := time.Now().Add(patience); len(missing()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("missing: %v", missing())
		}
	}
	if strings.Contains(b.logged(), "metrics not registered") {
		t.Errorf("some metrics were not registered:\n%s", b.logged())
	}
}
