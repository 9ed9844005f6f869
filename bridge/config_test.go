package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// parse reads arguments as main does, without running anything.
func parse(t *testing.T, args ...string) (Config, error) {
	t.Helper()
	var cli commands
	parser, err := newParser(&cli, &bytes.Buffer{}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"run"}, args...)); err != nil {
		return Config{}, err
	}
	return cli.Run, cli.Run.check()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bridge.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileAndFlags(t *testing.T) {
	path := write(t, "cloudtrail:\n- /a?watch=true\n- '/b,c'\nstate: [/s/**/*.tfstate]\nhistory: 3\npoll: 5s\nlisten: 127.0.0.1:9000\nfalco-http: 127.0.0.1:2802/secret\n")
	got, err := parse(t, "--config", path, "--listen", "127.0.0.1:9001")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Config: configFile(path), Listen: "127.0.0.1:9001", FalcoHTTP: "127.0.0.1:2802", intakePath: "/secret",
		CloudTrail: []string{"/a?watch=true", "/b,c"}, States: []string{"/s/**/*.tfstate"}, Data: "/var/lib/tfdrift",
		History: 3, Poll: 5e9, Retain: 200000, MessagesPerMinute: 100, LogFormat: "text", LogLevel: "info",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestFaultsAreAllNamed: every fault at once, each with the way out.
func TestFaultsAreAllNamed(t *testing.T) {
	_, err := parse(t, "--listen", "10.0.0.1:80", "--falco-http", "0.0.0.0:1/too-short", "--falco-cert", "/nope.pem", "--history", "0",
		"--poll", "1ms", "--retain", "5", "--messages-per-minute=-1", "--cloudtrail", "s3://b/k", "--cloudtrail", "/x?wach=true",
		"--state", "gs://b/k", "--state", "/s/[a", "--sensitive-key-file", "/nope.key", "--data", "")
	for _, says := range []string{
		`--listen "10.0.0.1:80": not a loopback address`, `--falco-http "0.0.0.0:1": not a loopback address`, "--falco-ca go together",
		"--falco-cert: open /nope.pem: no such file or directory: name a PEM file", "--history 0: want 1 to 1000", "--poll 1ms: want 100ms",
		"--retain 5: want 1000", "--messages-per-minute -1", `--cloudtrail: open records "s3://b/k": scheme "s3" is not supported: records are read from a path or file:///path`,
		`unknown parameter "wach": only watch is known`, `--state: open state "gs://b/k": scheme "gs" is not supported: states are read from a path, a directory, a glob or file:///path`,
		`--state: open state "/s/[a"`, "--sensitive-key-file: open /nope.key: no such file or directory: name a file", "--data is empty: name the folder",
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not in: %v", says, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "too-short") {
		t.Errorf("the secret path is shown: %v", err)
	}
}

// TestSingleFaults: those that hide others, or stand alone.
func TestSingleFaults(t *testing.T) {
	for says, args := range map[string][]string{
		`unknown flag --listn, did you mean "--listen"?`:                            {"--listn", "x"},
		`--history: expected a valid 64 bit int but got "many"`:                     {"--history", "many"},
		`--poll: expected duration but got "5"`:                                     {"--poll", "5"},
		`--log-level must be one of "debug","info","warn","error" but got "loud"`:   {"--log-level", "loud"},
		`--listen "8080": address 8080: missing port in address: want HOST:PORT`:    {"--demo", "--listen", "8080"},
		`--listen "127.0.0.1:99999": port "99999" is no number from 0 to 65535`:     {"--demo", "--listen", "127.0.0.1:99999"},
		`--listen "127.0.0.1:": port "" is no number`:                               {"--demo", "--listen", "127.0.0.1:"},
		`--listen "nohost:80": not a loopback address`:                              {"--demo", "--listen", "nohost:80"},
		`--falco-http "127.0.0.1:x": port "x" is no number`:                         {"--falco-http", "127.0.0.1:x"},
		`--falco-http "127.0.0.1:80": --listen has this address: name another port`: {"--falco-http", "127.0.0.1:80", "--listen", "127.0.0.1:80"},
		`--demo brings its own records and states: leave out --cloudtrail, --state`: {"--demo", "--state", "/s"},
		`no source of events: name one with --falco-http`:                           nil,
		`--poll 25h0m0s: want 100ms to 24h0m0s`:                                     {"--demo", "--poll", "25h"},
		`--falco-cert, --falco-key and --falco-ca go together: name all three`:      {"--falco-grpc", "h:1", "--falco-key", write(t, "x")},
		`--config: open /nope.yaml: no such file or directory: name a YAML file`:    {"--config", "/nope.yaml"},
		`is a directory`:            {"--config", t.TempDir()},
		`no source of events`:       {"--config", write(t, "")},
		`no source of events: name`: {"--config", write(t, "# nothing yet\n")},
	} {
		if _, err := parse(t, args...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: got %v, want %q in it", args, err, says)
		}
	}
}

// TestFileFaults: each with its line, all at once, with what is wanted instead.
func TestFileFaults(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		says []string
	}{
		"unknown key":         {"\nlistn: x\n", []string{`line 2: unknown key "listn": did you mean "listen"?`}},
		"an underscore":       {"falco_http: x\n", []string{`line 1: unknown key "falco_http": did you mean "falco-http"?`}},
		"a letter too few":    {"stat: [x]\n", []string{`unknown key "stat": did you mean "state"?`}},
		"nothing like it":     {"telemetry: on\n", []string{`unknown key "telemetry": the keys are demo, listen, `}},
		"itself":              {"config: x.yaml\n", []string{`unknown key "config"`}},
		"repeated":            {"poll: 2s\nretain: 1000\npoll: 3s\n", []string{`line 3: key "poll" again: it stands on line 1, leave one out`}},
		"no YAML":             {"listen: a\n\t- x\n", []string{"line 2", "write settings as in listen: 127.0.0.1:8080"}},
		"a list":              {"- listen\n", []string{"line 1: a list: write settings as in"}},
		"a text":              {"listen\n", []string{"line 1: a text: write settings as in"}},
		"two documents":       {"poll: 2s\n---\npoll: 3s\n", []string{"more than one document"}},
		"a number for a list": {"state: 5\n", []string{`line 1: key "state": a number on line 1, want a list of texts`}},
		"a number in a list":  {"state:\n- /a\n- 7\n", []string{`key "state": a number on line 3, want a list of texts`}},
		"a list for a text":   {"listen: [a]\n", []string{`line 1: key "listen": a list, want a text`}},
		"a mapping":           {"listen: {a: b}\n", []string{`key "listen": a mapping, want a text`}},
		"a truth for a text":  {"data: true\n", []string{`key "data": a truth, want a text`}},
		"a word for a truth":  {"demo: perhaps\n", []string{`key "demo": a text, "perhaps", want true or false`}},
		"no number":           {"history: many\n", []string{`line 1: key "history": a text, "many", want a whole number`}},
		"half a number":       {"history: 1.5\n", []string{`key "history": a number, "1.5", want a whole number`}},
		"no unit":             {"poll: 5\n", []string{`key "poll": a number, "5", want a time with its unit, as in 2s or 500ms`}},
		"none of the words":   {"log-level: loud\n", []string{`key "log-level": "loud", want one of debug,info,warn,error`}},
		"all at once":         {"listn: x\nhistory: many\nstate: 5\n", []string{`"listn"`, `"history"`, `"state"`}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.text)
			_, err := parse(t, "--config", path)
			for _, says := range append(c.says, `--config "`+path+`"`) {
				if err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("got %v, want %q in it", err, says)
				}
			}
		})
	}
}

// TestFileForms: what is taken beside the plain form.
func TestFileForms(t *testing.T) {
	got, err := parse(t, "--config", write(t, "state: &s /s\nlog-level:\ncloudtrail: *s\nhistory: '7'\n"))
	if err != nil || got.History != 7 || got.LogLevel != "info" || !cmp.Equal(got.States, []string{"/s"}) || !cmp.Equal(got.CloudTrail, []string{"/s"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestKey(t *testing.T) {
	path := write(t, "0123456789abcdef\n")
	c := Config{SensitiveKeyFile: path}
	if key, err := c.key(); err != nil || string(key) != "0123456789abcdef" {
		t.Errorf("got %q, %v", key, err)
	}
	var log bytes.Buffer
	c.warn(slog.New(slog.NewTextHandler(&log, nil)))
	if log.Len() > 0 {
		t.Errorf("a closed key file: %s", &log)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if c.warn(slog.New(slog.NewTextHandler(&log, nil))); !strings.Contains(log.String(), "chmod o= "+path) || strings.Contains(log.String(), "0123456789") {
		t.Errorf("an open key file: %s", &log)
	}
	c.SensitiveKeyFile = write(t, "short")
	if _, err := c.key(); err == nil || strings.Contains(err.Error(), "short\"") || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("a short key: got %v", err)
	}
}

// TestListenSaysWhatToDo: with what the system really answers, as far as this machine gives it.
func TestListenSaysWhatToDo(t *testing.T) {
	first, err := listen(t.Context(), "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	for address, says := range map[string]string{
		first.Addr().String(): "address already in use: name another address, or end the process that has it",
		"192.0.2.1:0":         "cannot assign requested address: name an address that this machine has",
	} {
		if l, err := listen(t.Context(), "--falco-http", address); err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), `--falco-http "`+address+`": `) {
			t.Errorf("%s: got %v, %v", address, l, err)
		}
	}
	if hint := listenHint(os.NewSyscallError("bind", syscall.EACCES)); !strings.Contains(hint, "port from 1024 on") {
		t.Errorf("a privileged port: %s", hint)
	}
}

// TestHelpTellsTheExitStatus of both helps.
func TestHelpTellsTheExitStatus(t *testing.T) {
	var cli commands
	var out bytes.Buffer
	parser, err := newParser(&cli, &out, &out)
	if err != nil {
		t.Fatal(err)
	}
	parser.Exit = func(int) {}
	for _, args := range [][]string{{"--help"}, {"run", "--help"}} {
		out.Reset()
		_, _ = parser.Parse(args) // help is no parse
		if !strings.Contains(out.String(), "Exit status: 0 after a clean stop, 1 for") {
			t.Errorf("%v:\n%s", args, &out)
		}
	}
}
