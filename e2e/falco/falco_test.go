// Package falco_test runs what the project ships in a real Falco: the drop-in as it is, the rules, the built plugin, and
// Falco's alerts on into the built bridge. What comes in is a Falco program in TFDRIFT_FALCO and both binaries in
// TFDRIFT_BIN, which run.sh sets; what is proved is that the bridge tells each mutating record once and no reading one,
// over gRPC up to Falco 0.43 and over HTTP from any. Without TFDRIFT_FALCO the test says so and passes. Start reading at
// TestRealFalco.
package falco_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// lastWithGRPC is the last minor version of Falco 0 that has the gRPC output.
const lastWithGRPC = 43

// secret is the path that only Falco and the bridge know; it reaches the drop-in by the environment.
const secret = "0123456789abcdef"

func TestRealFalco(t *testing.T) {
	program := os.Getenv("TFDRIFT_FALCO")
	if program == "" {
		t.Log("no real Falco: name one with make e2e-falco FALCO=/path/to/falco")
		return
	}
	minor := version(t, program)
	f := newSetup(t, program)
	t.Run("rules", f.checkRules)
	if minor <= lastWithGRPC {
		t.Run("grpc", func(t *testing.T) {
			socket := "unix://" + filepath.Join(f.dir, "falco.sock")
			f.deliver(t, []string{"--falco-grpc", socket}, "http_output.enabled=false", "grpc.enabled=true",
				"grpc.bind_address="+socket, "grpc_output.enabled=true")
		})
	}
	t.Run("http", func(t *testing.T) {
		f.deliver(t, []string{"--falco-http", "127.0.0.1:2802/" + secret})
	})
}

// version gives the minor version of Falco 0.
func version(t *testing.T, program string) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found := regexp.MustCompile(`Falco version: *0\.(\d+)\.`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no version in what falco --version says: %s", out)
	}
	minor, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Falco 0.%d", minor)
	return minor
}

// setup is a folder with Falco's configuration and the records.
type setup struct {
	program string
	dir     string
	config  string
	changes map[string]bool // event ids that must arrive
	reads   map[string]bool // event ids that must not
}

// base stands for falco.yaml: without a driver, and quiet. Everything else is the drop-in's.
const base = `
config_files: [%s]
watch_config_files: false
engine: {kind: nodriver}
rules_files: []
load_plugins: []
plugins: []
append_output: []
webserver: {enabled: false}
stdout_output: {enabled: false}
syslog_output: {enabled: false}
log_stderr: true
log_syslog: false
`

func newSetup(t *testing.T, program string) *setup {
	t.Helper()
	s := &setup{program: program, dir: t.TempDir(), changes: map[string]bool{}, reads: map[string]bool{}}
	s.config = filepath.Join(s.dir, "falco.yaml")
	dropIns := filepath.Join(s.dir, "config.d")
	put(t, s.config, fmt.Appendf(nil, base, dropIns))
	dropIn, err := os.ReadFile("../../rules/config.d/tfdrift.yaml")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dropIns, "tfdrift.yaml"), dropIn)
	put(t, filepath.Join(s.dir, "records", "records.jsonl"), s.records(t))
	fixture, err := txtar.ParseFile("../../rules/testdata/changed-by-hand.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range fixture.Files {
		if strings.HasPrefix(file.Name, "states/") {
			put(t, filepath.Join(s.dir, file.Name), file.Data)
		}
	}
	return s
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// uuid leaves out records whose publishers masked the id: the bridge holds one of each id.
var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// records takes those of the rules' fixtures, each id once, and notes which must arrive.
func (s *setup) records(t *testing.T) []byte {
	t.Helper()
	paths, err := filepath.Glob("../../rules/testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	var all []byte
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range archive.Files {
			for line := range bytes.Lines(file.Data) {
				if strings.HasSuffix(file.Name, ".jsonl") && s.note(t, line) {
					all = append(all, line...)
				}
			}
		}
	}
	if len(s.changes) < 20 || len(s.reads) == 0 {
		t.Fatalf("%d records change something and %d read: want more", len(s.changes), len(s.reads))
	}
	return all
}

// note reports whether the record is to be sent: those that say what they do.
func (s *setup) note(t *testing.T, line []byte) bool {
	t.Helper()
	var rec struct {
		EventID  string `json:"eventID"`
		ReadOnly *bool  `json:"readOnly"`
	}
	if err := json.Unmarshal(line, &rec); err != nil {
		t.Fatal(err)
	}
	if rec.ReadOnly == nil || !uuid.MatchString(rec.EventID) || s.changes[rec.EventID] || s.reads[rec.EventID] {
		return false
	}
	if *rec.ReadOnly {
		s.reads[rec.EventID] = true
	} else {
		s.changes[rec.EventID] = true
	}
	return true
}

// falco runs Falco with the drop-in, whose places are set to those of the test.
func (s *setup) falco(ctx context.Context, t *testing.T, options []string, args ...string) *exec.Cmd {
	t.Helper()
	rulesFile, err := filepath.Abs("../../rules/tfdrift_rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-c", s.config}, args...)
	for _, option := range append([]string{
		"rules_files[0]=" + rulesFile,
		"plugins[0].library_path=" + filepath.Join(os.Getenv("TFDRIFT_BIN"), "libtfdrift.so"),
		"plugins[0].init_config.states[0]=" + filepath.Join(s.dir, "states"),
		"plugins[0].open_params=file://" + filepath.Join(s.dir, "records") + "?watch=true",
	}, options...) {
		args = append(args, "-o", option)
	}
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = append(os.Environ(), "TFDRIFT_INTAKE="+secret)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// checkRules lets Falco read the rules and the drop-in alone.
func (s *setup) checkRules(t *testing.T) {
	out, err := s.falco(t.Context(), t, nil, "-V", "../../rules/tfdrift_rules.yaml").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "LOAD_") || strings.Contains(line, "schema validation: failed") {
			t.Errorf("Falco is not content: %s", line)
		}
	}
}

// deliver runs the bridge and Falco until every change has arrived. It need not wait longer for what must not arrive: Falco
// keeps the order, and the last record of all is a change.
func (s *setup) deliver(t *testing.T, flags []string, options ...string) {
	feed := startBridge(t, flags...)
	ctx, cancel := context.WithCancel(t.Context())
	falco := s.falco(ctx, t, options)
	var log bytes.Buffer
	falco.Stdout, falco.Stderr = &log, &log
	if err := falco.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := sync.OnceFunc(func() { cancel(); _ = falco.Wait() })
	defer stopped()
	counts := map[string]int{}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline) && len(counts) < len(s.changes); time.Sleep(200 * time.Millisecond) {
		counts = told(t, feed)
	}
	stopped()
	for id := range s.changes {
		if counts[id] != 1 {
			t.Errorf("event %s was told %d times, want once", id, counts[id])
		}
	}
	for id, n := range counts {
		if !s.changes[id] {
			t.Errorf("event %s was told %d times, want never", id, n)
		}
	}
	t.Logf("%d changes of %d records arrived", len(counts), len(s.changes)+len(s.reads))
	if t.Failed() {
		t.Logf("Falco's log:\n%s", log.Bytes())
	}
}

// startBridge runs the bridge and gives the address of its API.
func startBridge(t *testing.T, flags ...string) string {
	t.Helper()
	args := append([]string{"run", "--listen", "127.0.0.1:0", "--log-format", "json", "--data", t.TempDir()}, flags...)
	bridge := exec.Command(filepath.Join(os.Getenv("TFDRIFT_BIN"), "tfdrift-bridge"), args...)
	stderr, err := bridge.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Start(); err != nil {
		t.Fatal(err)
	}
	serving, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving the feed" {
				serving <- line.Address
			}
		}
	}()
	t.Cleanup(func() {
		_ = bridge.Process.Signal(syscall.SIGTERM)
		<-ended
		_ = bridge.Wait()
	})
	select {
	case address := <-serving:
		return address
	case <-ended:
		t.Fatalf("the bridge ended at its start: is 127.0.0.1:2802 taken?")
	case <-time.After(patience):
		t.Fatal("the bridge does not serve")
	}
	return ""
}

// told counts the alerts that the bridge tells of each event.
func told(t *testing.T, address string) map[string]int {
	t.Helper()
	response, err := http.Get("http://" + address + "/api/v1/events?limit=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("ask for the events: %s: %v: %s", response.Status, err, body)
	}
	var list struct {
		Items []struct {
			Type    string
			Payload struct {
				EventID string `json:"event_id"`
			}
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	counts := map[string]int{}
	for _, item := range list.Items {
		if item.Type == "falco" {
			counts[item.Payload.EventID]++
		}
	}
	return counts
}
