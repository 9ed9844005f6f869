package journal_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// childDir, when set, makes the test binary a process that stores alerts in that folder until it is killed.
const childDir = "JOURNAL_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	// Each check opens real files several times; -rapid.checks on the command line overrides.
	if err := errors.Join(flag.Set("rapid.checks", "8"), flag.Set("rapid.steps", "20")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// child prints a key only after it is acknowledged.
func child(dir string) {
	j, err := journal.Open(context.Background(), dir, journal.Options{})
	for i := 0; err == nil; i++ {
		key := fmt.Sprintf("%d-%d", os.Getpid(), i)
		_, err = j.Put(context.Background(), journal.Alert{Key: key})
		if err == nil {
			err = j.Commit(context.Background(), journal.Commit{Events: []string{key}, Messages: []wire.Message{falco(key)}})
		}
		if err == nil {
			fmt.Println(key)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for i := 0; lines.Scan(); i++ {
			acknowledged = append(acknowledged, lines.Text())
			if round == 0 && i == 0 {
				refused(t, dir)
			}
			if i == 20+round*7 {
				cmd.Process.Kill() // lines that are under way still count
			}
		}
		cmd.Wait() // it was killed
	}
	if len(acknowledged) < 100 {
		t.Fatalf("only %d acknowledged", len(acknowledged))
	}
	j := open(t, dir, journal.Options{})
	entries, err := j.Pending(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for _, e := range entries {
		stored[e.Alert.Key] = true
	}
	bodies := &strings.Builder{}
	for _, m := range after(t, j, wire.ID{}) {
		bodies.Write(m.Body)
	}
	for _, key := range acknowledged {
		told, err := j.Told(t.Context(), key)
		if !stored[key] || !told || err != nil || !strings.Contains(bodies.String(), `"`+key+`"`) {
			t.Fatalf("%s was acknowledged: in the inbox %v, told %v, %v", key, stored[key], told, err)
		}
	}
}

// refused: while another process has the journal, nobody else gets it.
func refused(t *testing.T, dir string) {
	t.Helper()
	_, err := journal.Open(t.Context(), dir, journal.Options{})
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened beside another process: %v", err)
	}
}
