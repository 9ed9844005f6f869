package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
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
		Config: kong.ConfigFlag(path), Listen: "127.0.0.1:9001", FalcoHTTP: "127.0.0.1:2802", intakePath: "/secret",
		CloudTrail: []string{"/a?watch=true", "/b,c"}, States: []string{"/s/**/*.tfstate"}, Data: "/var/lib/tfdrift",
		History: 3, Poll: 5e9, Retain: 200000, MessagesPerMinute: 100, LogFormat: "text", LogLevel: "info",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

// TestFaultsAreAllNamed: every fault at once, each with the way out.
func TestFaultsAreAllNamed(t *testing.T) {
	_, err := parse(t, "--listen", "10.0.0.1:80", "--falco-http", "0.0.0.0:1", "--falco-cert", "x", "--history", "0", "--poll", "1ms", "--retain", "5")
	for _, says := range []string{"--listen", "--falco-http", "--falco-ca", "--history 0", "--poll 1ms", "--retain 5"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is not in: %v", says, err)
		}
	}
}

func TestFileFaults(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"unknown key":      {"stat: [x]\n", `unknown key "stat"`},
		"another, at once": {"listn: x\nstat: [x]\n", `unknown key "listn"` + "\n" + `read configuration: unknown key "stat"`},
		"not yaml":         {"\t- x\n", "read configuration"},
		"wrong type":       {"history: many\n", "history"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(t, "--config", write(t, c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q in it", err, c.says)
			}
		})
	}
}

func TestKey(t *testing.T) {
	c := Config{SensitiveKeyFile: write(t, "0123456789abcdef\n")}
	if key, err := c.key(); err != nil || string(key) != "0123456789abcdef" {
		t.Errorf("got %q, %v", key, err)
	}
	c.SensitiveKeyFile = write(t, "short")
	if _, err := c.key(); err == nil || strings.Contains(err.Error(), "short\"") {
		t.Errorf("a short key: got %v", err)
	}
}
