package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestSoak watches rotating records and states for as long as TFDRIFT_SOAK says (make soak), and fails when memory,
// goroutines or descriptors have grown at the end. Without TFDRIFT_SOAK it has nothing to do: it is a measurement of
// minutes, not a test of every build.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("TFDRIFT_SOAK"))
	if err != nil {
		t.Log("runs with make soak")
		return
	}
	b, trail, states := watched(t)
	c := b.watch("all")
	go func() { // a reader that keeps up; it ends with the connection
		for {
			if _, _, err := c.conn.ReadMessage(); err != nil {
				return
			}
		}
	}()
	first := fixture(t, "network/network-before.tfstate")
	end := time.Now().Add(length)
	warm := time.Now().Add(length / 5)
	var before figures
	for n := 0; time.Now().Before(end); n++ {
		putRecords(t, filepath.Join(trail, fmt.Sprintf("%08d.json", n)),
			record(t, "open-port-22", fmt.Sprintf("soak-a-%d", n), now(), nil), record(t, "public-access", fmt.Sprintf("soak-b-%d", n), now(), nil))
		if old := filepath.Join(trail, fmt.Sprintf("%08d.json", n-100)); n >= 100 {
			_ = os.Remove(old)
		}
		if n%10 == 9 {
			serial := regexp.MustCompile(`"serial": \d+`).ReplaceAll(first, fmt.Appendf(nil, `"serial": %d`, 42+n))
			owner := regexp.MustCompile(`"team": "[a-z0-9]+"`).ReplaceAll(serial, fmt.Appendf(nil, `"team": "t%d"`, n))
			put(t, filepath.Join(states, "network.tfstate"), owner, time.Time{})
		}
		if n%100 == 0 {
			f := b.figures()
			t.Logf("%6d files: %s", n, f)
			if before == (figures{}) && time.Now().After(warm) {
				before = f
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	after := b.figures()
	t.Logf("after warming up %s, at the end %s", before, after)
	if after.goroutines > before.goroutines+8 || after.descriptors > before.descriptors+8 || after.resident > before.resident*1.5+16<<20 {
		t.Errorf("grew from %s to %s", before, after)
	}
}

type figures struct{ resident, goroutines, descriptors, alerts float64 }

func (f figures) String() string {
	return fmt.Sprintf("%.1f MB resident, %.0f goroutines, %.0f descriptors, %.0f records stored", f.resident/1e6, f.goroutines, f.descriptors, f.alerts)
}

func (b *bridge) figures() figures {
	b.t.Helper()
	text := b.get("/metrics")
	value := func(name string) float64 {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
		if m == nil {
			b.t.Fatalf("no metric %s", name)
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			b.t.Fatal(err)
		}
		return v
	}
	return figures{value("process_resident_memory_bytes"), value("go_goroutines"), value("process_open_fds"), value(`tfdrift_alerts_stored_total\{intake="cloudtrail"\}`)}
}
