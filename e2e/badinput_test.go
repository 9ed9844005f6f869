package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
)

// badRecords are files that each have something wrong with them, by name, and how many of the events named good-* can be
// read from each all the same.
func badRecords() map[string]struct {
	text []byte
	good int
} {
	good := func(n int) string {
		return fmt.Sprintf(`{"eventVersion":"1.08","eventID":"good-%d","eventName":"PutBucketPolicy","eventSource":"s3.amazonaws.com"}`, n)
	}
	zip := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text)) // into memory
		_ = z.Close()
		return b.Bytes()
	}
	noise := strings.Repeat("\x00{!\xff]\n", 300_000)
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	type file = struct {
		text []byte
		good int
	}
	return map[string]file{
		"not-json.json":   {[]byte("<html>"), 0},
		"cut.json.gz":     {zip(good(1) + strings.Repeat(" ", 100) + noise)[:100], 0},
		"garbage.json.gz": {[]byte("\x1f\x8b" + noise), 0},
		"members.json.gz": {append(zip(good(2)), zip(good(3))...), 2},
		"empty.json":      {nil, 0},
		"mark.json":       {[]byte("\uFEFF" + good(4)), 1},
		"utf16.json":      {wide(good(5)), 1},
		"middle.jsonl":    {[]byte(good(6) + "\n" + noise + "\n" + good(7) + "\n"), 2},
		"list.json":       {[]byte(`{"Records":[` + good(8) + `,` + noise + `,` + good(9) + `]}`), 2},
		"too-large.jsonl": {[]byte(sizedRecord("big-1", "x", 300<<10) + "\n" + good(10)), 1},
		"trimmed.jsonl":   {[]byte(sizedRecord("good-11", "responseElements", 300<<10) + "\n" + good(12)), 2},
		"deep.json":       {[]byte(`{"eventID":"good-13","eventName":"X","requestParameters":` + deep + `}`), 1},
		"none.json":       {[]byte(`{"Records":[1,"x",null,[],{}]}`), 0},
		"repeated.json":   {[]byte(`{"eventID":"x","eventName":"X","eventID":"good-14"}`), 1},
		"utf8.json":       {[]byte("{\"eventID\":\"good-15\",\"eventName\":\"X\",\"userAgent\":\"\xff\x00\"}\n" + good(16)), 1},
		"numbers.json":    {[]byte(`{"eventID":"good-17","eventName":"X","requestParameters":{"n":1e999999}}`), 1},
		"types.json":      {[]byte(`{"eventID":"good-18","eventName":"X","userIdentity":7,"resources":{},"eventTime":[],"readOnly":"?","requestParameters":"p"}`), 1},
	}
}

// sizedRecord is one whose member is so large.
func sizedRecord(id, member string, size int) string {
	return fmt.Sprintf(`{"eventID":%q,"eventName":"PutBucketPolicy","eventTime":"2026-11-20T10:00:00Z",%q:{"v":%q}}`, id, member, strings.Repeat("v", size))
}

// wide is ASCII text in UTF-16 with a byte order mark, as PowerShell redirects it.
func wide(text string) []byte {
	out := []byte{0xff, 0xfe}
	for _, b := range []byte(text) {
		out = append(out, b, 0)
	}
	return out
}

// TestBadRecordsInTheRealHost: none ends the host or hides a record behind it, file by file and all in one folder.
func TestBadRecordsInTheRealHost(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	all, want := t.TempDir(), 1
	last := []byte(`{"eventID":"good-last","eventName":"X"}`)
	if err := syscall.Mkfifo(filepath.Join(all, "pipe.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop.json", filepath.Join(all, "loop.json")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(all, "zz.json"), last, time.Time{})
	for name, file := range badRecords() {
		put(t, filepath.Join(all, name), file.text, time.Time{})
		want += file.good
		// With one event behind it: sysdig's own program, not libsinsp, breaks down at the end of a source that gave none.
		one := t.TempDir()
		put(t, filepath.Join(one, name), file.text, time.Time{})
		put(t, filepath.Join(one, "zz.json"), last, time.Time{})
		query := host.Query{Records: one, Filter: "ct.id startswith good-", Format: "%ct.id %ct.name %ct.request %ct.response %tf.kind"}
		lines, err := h.Run(t.Context(), query)
		if err != nil || len(lines) != file.good+1 || !strings.HasPrefix(lines[len(lines)-1], "good-last ") {
			t.Errorf("%s: %d events, want %d: %v", name, len(lines), file.good+1, err)
		}
		if name == "trimmed.jsonl" && len(lines) > 0 && !strings.Contains(lines[0], `good-11 PutBucketPolicy <NA> {"omitted":true}`) {
			t.Errorf("the record that is trimmed: %s", lines[0])
		}
	}
	lines, err := h.Run(t.Context(), host.Query{Records: all, Filter: "ct.id startswith good-", Format: "%ct.id"})
	if err != nil || len(lines) != want || lines[len(lines)-1] != "good-last" {
		t.Errorf("all in one folder: %d events, want %d: %v", len(lines), want, err)
	}
}

// TestBadRecordsWhileTheHostWatches: what comes after them arrives.
func TestBadRecordsWhileTheHostWatches(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "0.json"), []byte(`{"eventID":"good-first","eventName":"X"}`), time.Time{})
	var seen []string
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	query := host.Query{Records: "file://" + dir + "?watch=true", Filter: "ct.id startswith good-", Format: "%ct.id"}
	err := h.Watch(ctx, query, func(line string) bool {
		if seen = append(seen, line); len(seen) == 1 {
			for name, file := range badRecords() {
				put(t, filepath.Join(dir, name), file.text, time.Time{})
			}
			put(t, filepath.Join(dir, "zz.json"), []byte(`{"eventID":"good-last","eventName":"X"}`), time.Time{})
		}
		return line != "good-last"
	})
	if err != nil {
		t.Errorf("%v after %q", err, seen)
	}
}

// TestBadPluginConfigurationInTheRealHost: the host ends, and says what is wrong and what was meant.
func TestBadPluginConfigurationInTheRealHost(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	records := t.TempDir()
	for name, c := range map[string]struct{ init, open, says string }{
		"unknown member":    {`{"sates":[]}`, records, `unknown member "sates": did you mean "states"?`},
		"a text for a list": {`{"states":"/s"}`, records, `member "states" is a string`},
		"a list for a text": {`{"sensitive_key_file":[]}`, records, `member "sensitive_key_file" is a`},
		"out of range":      {`{"poll_seconds":-1}`, records, "poll_seconds -1: give 0"},
		"not JSON":          {`{"states":`, records, "init config is not a valid json"},
		"another backend":   {`{"states":["s3://b/k"]}`, records, `states[0] "s3://b/k": give a path`},
		"no key file":       {`{"sensitive_key_file":"/nope"}`, records, "init_config sensitive_key_file: open /nope: no such file"},
		"a broken glob":     {`{"states":["/s/[a"]}`, records, "init_config states: open state"},
		"no such path":      {"", filepath.Join(records, "nope"), "no such file or directory: give a path that this process can see"},
		"unknown parameter": {"", "file://" + records + "?wach=true", `unknown parameter "wach": only watch is known`},
		"no truth":          {"", "file://" + records + "?watch=perhaps", `watch="perhaps": want true or false`},
		"unknown scheme":    {"", "s3://bucket/prefix", `scheme "s3" is not supported: records are read from a path or file:///path`},
		"a pipe":            {"", os.DevNull, "neither a file nor a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := h.Run(t.Context(), host.Query{Init: c.init, Records: c.open, Format: "%ct.id"})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, %v, want %s", lines, err, c.says)
			}
		})
	}
}

// TestBadRecordsStopNothing of the bridge: a drift behind all of them is told, and the figures count what was wrong.
func TestBadRecordsStopNothing(t *testing.T) {
	b, trail, _ := watched(t)
	c := b.watch("drifts")
	for name, file := range badRecords() {
		put(t, filepath.Join(trail, name), file.text, time.Time{})
	}
	putRecords(t, filepath.Join(trail, "zz.json"), record(t, "open-port-22", "e2e-bad-records", now(), nil))
	got := c.await("drift", func(message) bool { return true })
	if p := got.payload(t); p["address"] != "module.network.aws_security_group.bastion" {
		t.Errorf("got %v", p["address"])
	}
	figures := string(b.get("/metrics"))
	for _, kind := range []string{"not_json", "gzip", "truncated"} {
		if want := fmt.Sprintf(`tfdrift_feed_faults_total{feed=%q,kind=%q}`, trail, kind); !strings.Contains(figures, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	if log := b.logged(); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
		t.Errorf("a panic:\n%s", log)
	}
}

// TestBadStatesStopNothing: the good state is used, each bad one is a degraded check and a row with its fault and the way
// out, and all recover when they are put right. What was read last of a state that turns bad stays in use.
func TestBadStatesStopNothing(t *testing.T) {
	b, trail, states := watched(t)
	deep := strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)
	bad := map[string]struct{ text, says string }{
		"cut":     {`{"version":4,"serial":1,"resources":[`, "the state is cut off after 37 bytes, and nobody goes on writing it: put it back whole"},
		"empty":   {"", "it is empty, and nobody goes on writing it: put it back whole"},
		"foreign": {`{"name":"npm","lockfileVersion":3}`, "no version: give the raw state"},
		"binary":  {"\x80\x04tfstate", "not a raw Terraform state: invalid character"},
		"older":   {`{"version":3,"serial":1,"modules":[]}`, "state format 3 is not read: `terraform apply -refresh-only`"},
		"newer":   {`{"version":9}`, "state format 9 is newer than this program: update it"},
		"types":   {`{"version":4,"serial":"one","resources":[]}`, "(at byte 21): serial is a JSON string, want a whole number: give the raw state"},
		"deep":    {`{"version":4,"serial":1,"x":` + deep + `}`, "exceeded max depth: give the raw state"},
		"large":   {`{"version":4,"serial":1,"lineage":"` + strings.Repeat("x", 100<<20), "a single value of more than 64 MiB: give the raw state"},
	}
	for name, c := range bad {
		put(t, filepath.Join(states, name+".tfstate"), []byte(c.text), time.Now().Add(-time.Minute))
	}
	if err := os.Symlink("loop.tfstate", filepath.Join(states, "loop.tfstate")); err != nil {
		t.Fatal(err)
	}
	for name, c := range bad {
		b.awaitState(name+".tfstate", func(fault string) bool {
			return strings.Contains(fault, c.says) && strings.Contains(fault, name+".tfstate")
		})
	}
	if status, is, reason := b.ready("states"); status != http.StatusOK || is != "degraded" || !strings.Contains(reason, "binary.tfstate: ") || !strings.Contains(reason, "and ") {
		t.Errorf("ready: %d %s %s", status, is, reason)
	}
	put(t, filepath.Join(states, "network.tfstate"), []byte("broken"), time.Time{})
	b.awaitState("network.tfstate", func(fault string) bool { return strings.Contains(fault, "not a raw Terraform state") })
	drifts := b.watch("drifts")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "e2e-bad-states", now(), nil))
	if p := drifts.await("drift", func(message) bool { return true }).payload(t); p["address"] != "module.network.aws_security_group.bastion" || p["precision"] != "exact" {
		t.Errorf("the last good content is not used: %v", p)
	}
	if err := os.Remove(filepath.Join(states, "loop.tfstate")); err != nil {
		t.Fatal(err)
	}
	good := fixture(t, "network/network-before.tfstate")
	put(t, filepath.Join(states, "network.tfstate"), good, time.Time{})
	for name := range bad {
		put(t, filepath.Join(states, name+".tfstate"), good, time.Time{})
		b.awaitState(name+".tfstate", func(fault string) bool { return fault == "" })
	}
	b.awaitState("network.tfstate", func(fault string) bool { return fault == "" })
	b.awaitReady("states", http.StatusOK, "well", "")
}

// awaitState waits until the fault of a state, as clients see it, is as wanted.
func (b *bridge) awaitState(name string, wanted func(fault string) bool) {
	b.t.Helper()
	var fault string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var list struct{ Items []struct{ URI, Fault string } }
		if err := json.Unmarshal(b.get("/api/v1/state"), &list); err != nil {
			b.t.Fatal(err)
		}
		for _, s := range list.Items {
			if strings.HasSuffix(s.URI, "/"+name) {
				if fault = s.Fault; wanted(fault) {
					return
				}
			}
		}
	}
	b.t.Fatalf("the fault of %s stays %q\n%s", name, fault, b.logged())
}

// TestExitStatus: 0 for a clean stop, 1 for a fault while starting, with the way out; 2 for wrong arguments is
// TestWrongStartsAreExplained's.
func TestExitStatus(t *testing.T) {
	data := t.TempDir()
	b := start(t, "--cloudtrail", t.TempDir()+"?watch=true", "--data", data, "--falco-http", "127.0.0.1:0")
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, nil, time.Time{})
	damaged, foreign := t.TempDir(), t.TempDir()
	put(t, filepath.Join(damaged, "journal.db"), []byte(strings.Repeat("no database ", 500)), time.Time{})
	put(t, filepath.Join(foreign, "journal.db"), fixture(t, "network/records.json"), time.Time{})
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"port in use":              {[]string{"--listen", b.feed}, []string{`--listen "` + b.feed + `"`, "address already in use: name another address"}},
		"the intake's port in use": {[]string{"--falco-http", b.intake}, []string{`--falco-http "` + b.intake + `"`, "address already in use: name another address"}},
		"an address of nobody":     {[]string{"--falco-http", "192.0.2.1:1/" + strings.Repeat("x", 16)}, []string{`--falco-http "192.0.2.1:1"`, "name an address that this machine has"}},
		"no such records":          {[]string{"--cloudtrail", "/nope"}, []string{`open records "/nope"`, "give a path that this process can see"}},
		"the data of another":      {[]string{"--data", data}, []string{filepath.Join(data, "journal.db"), "another process has it open: stop that one, or give this one another data folder"}},
		"a file for the data":      {[]string{"--data", file}, []string{file, "something else lies in the place of the data folder"}},
		"a damaged journal":        {[]string{"--data", damaged}, []string{"the file is damaged or not a journal", "move it away, and the bridge starts a new one"}},
		"another program's":        {[]string{"--data", foreign}, []string{"move it away"}},
	} {
		t.Run(name, func(t *testing.T) {
			// The last of a flag that is given twice counts; a list takes both.
			args := append([]string{"run", "--listen", "127.0.0.1:0", "--cloudtrail", t.TempDir(), "--data", t.TempDir()}, c.args...)
			out, err := exec.Command(binary(t), args...).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("got %v, want exit status 1", err)
			}
			for _, says := range c.says {
				if !strings.Contains(string(out), says) {
					t.Errorf("%q is not in:\n%s", says, out)
				}
			}
		})
	}
	b.stop()
	if code := b.command.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d after SIGTERM, want 0", code)
	}
}

// TestAPrivilegedPort needs a user who may not open it.
func TestAPrivilegedPort(t *testing.T) {
	least, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(least)) == "0" {
		t.Logf("no port of this machine is privileged: %s %v", least, err)
		return
	}
	program := filepath.Join(t.TempDir(), "bridge")
	text, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(program, text, 0o755), os.Chmod(filepath.Dir(program), 0o755), os.Chmod(filepath.Dir(filepath.Dir(program)), 0o755)); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(program, "run", "--listen", "127.0.0.1:1", "--falco-http", "127.0.0.1:0", "--data", filepath.Dir(program))
	run.Dir = "/"
	if os.Geteuid() == 0 {
		run.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := run.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `--listen "127.0.0.1:1"`) || !strings.Contains(string(out), "name a port from 1024 on") {
		t.Errorf("got %v:\n%s", err, out)
	}
}

// TestADamagedJournalGoesOnServing: clients are answered, the check of /readyz and the log say what is wrong and what to
// do, and the bridge stops well.
func TestADamagedJournalGoesOnServing(t *testing.T) {
	data := t.TempDir()
	b, trail, states := watched(t, "--data", data)
	c := b.watch("all")
	putRecords(t, filepath.Join(trail, "1.json"), record(t, "open-port-22", "e2e-damage-1", now(), nil))
	c.await("drift", func(message) bool { return true })
	b.stop() // the file has everything now
	b = start(t, "--data", data, "--cloudtrail", trail+"?watch=true", "--state", states)
	path := filepath.Join(data, "journal.db")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())-4096), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// What comes in makes it read a page that is not in memory, and then again and again.
	putRecords(t, filepath.Join(trail, "2.json"), record(t, "public-access", "e2e-damage-2", now(), nil))
	b.awaitReady("journal", http.StatusOK, "degraded", "move it away, and the bridge starts a new one")
	b.get("/healthz")
	b.watch("all")
	select {
	case <-b.ended:
		t.Errorf("the bridge ended:\n%s", b.logged())
	default:
	}
}

// answer posts an alert as Falco does and gives the status.
func (b *bridge) answer(body string) int {
	b.t.Helper()
	answer, err := http.Post("http://"+b.intake+"/", "application/json", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}
