// Package host starts a real libsinsp host for the plugin: Debian's sysdig, which loads Falco plugins and evaluates
// Falco's condition language, though no rules files.
//
// In come a plugin library, its configuration, records, a filter and an output format; out come the lines that the host
// printed, one for each event that the filter let through, in the order in which the plugin gave them. rules.go turns a
// rules file into such filters. Where there is no host, the tests of a user's clone say so and pass; in CI (CI set in
// the environment) they fail.
//
// Start reading at Find and Run; get.sh fetches the host.
package host

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Host is a sysdig that works. It is safe for concurrent use: every call starts a process of its own.
type Host struct {
	program string
	plugin  string
}

// Find gives the host and has the plugin built. The host is the one that TFDRIFT_HOST names, else the one that make host
// put into the project's .cache; in CI it is fetched when it is missing. The plugin is libtfdrift.so in the folder
// TFDRIFT_BIN, else it is built. false means that one of them is missing, which t.Log told; in CI the test has failed then.
func Find(t testing.TB) (*Host, bool) {
	t.Helper()
	root, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{}
	if h.program, err = program(t.Context(), root); err == nil {
		h.plugin, err = library(t.Context(), root)
	}
	switch {
	case err == nil:
		return h, true
	case os.Getenv("CI") != "":
		t.Fatal(err)
	}
	t.Logf("not run in a real host: %v", err)
	return nil, false
}

func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", fmt.Errorf("find the project: no go.mod above %q", dir)
		}
		dir = above
	}
}

func program(ctx context.Context, root string) (string, error) {
	if path := os.Getenv("TFDRIFT_HOST"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find the host in TFDRIFT_HOST: %w", err)
		}
		return path, nil
	}
	dir := filepath.Join(root, ".cache", "sysdig")
	path := filepath.Join(dir, "sysdig")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if os.Getenv("CI") == "" {
		return "", fmt.Errorf("no host in %q: run `make host`, or name a sysdig in TFDRIFT_HOST", dir)
	}
	if out, err := exec.CommandContext(ctx, filepath.Join(root, "e2e", "host", "get.sh"), dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch the host: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}

// library builds the plugin into the cache, unless there is a built one. Packages are tested at the same time, so that only
// one process may write it.
func library(ctx context.Context, root string) (string, error) {
	if dir := os.Getenv("TFDRIFT_BIN"); dir != "" {
		path := filepath.Join(dir, "libtfdrift.so")
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find the plugin in TFDRIFT_BIN: %w", err)
		}
		return path, nil
	}
	dir := filepath.Join(root, ".cache", "plugin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // holds nothing
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %q: %w", lock.Name(), err)
	}
	path := filepath.Join(dir, "libtfdrift.so")
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-o", path, "./plugin")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the plugin, which needs a C compiler: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, nil
}

// Query is what the host is asked.
type Query struct {
	Init    string // the plugin's init configuration, JSON; "" none
	Records string // the plugin's open parameters
	Filter  string // a condition without macros and lists; "" lets every event through
	// Format is an output format, as in "%evt.num %ct.name". An event that lacks one of its fields is still printed, with
	// <NA> in its place.
	Format string
}

// command starts with an asterisk: sysdig drops events that lack a field otherwise.
func (h *Host) command(ctx context.Context, q Query, more ...string) *exec.Cmd {
	plugin := h.plugin
	if q.Init != "" {
		plugin += ":" + q.Init
	}
	args := append([]string{"-H", plugin, "-I", "tfdrift:" + q.Records, "-p", "*" + q.Format}, more...)
	if q.Filter != "" {
		args = append(args, q.Filter)
	}
	return exec.CommandContext(ctx, h.program, args...)
}

// Run prints all events and gives the lines. The records must have an end, so without watch=true. The error has what the
// host wrote: about a field or operator it does not know, about a configuration or a path.
func (h *Host) Run(ctx context.Context, q Query) ([]string, error) {
	cmd := h.command(ctx, q)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the host with filter %q: %w: %s", q.Filter, err, tail(log.Bytes()))
	}
	text := strings.TrimSuffix(out.String(), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

func tail(log []byte) []byte { return bytes.TrimSpace(log[max(0, len(log)-2000):]) }

// Watch runs the host over records with watch=true and hands each line to each, as it is printed, until each returns
// false. Its error is that of the host if that ends by itself, which it does not while all is well, or that of ctx.
func (h *Host) Watch(ctx context.Context, q Query, each func(line string) (more bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := h.command(ctx, q, "--unbuffered")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the host: %w", err)
	}
	lines, enough := bufio.NewScanner(out), false
	lines.Buffer(nil, 1<<20)
	for !enough && lines.Scan() {
		enough = !each(lines.Text())
	}
	stopped := ctx.Err()
	cancel()
	err = cmd.Wait()
	switch {
	case enough:
		return nil
	case stopped != nil:
		return fmt.Errorf("watch with filter %q: %w: %s", q.Filter, stopped, tail(log.Bytes()))
	}
	return fmt.Errorf("watch with filter %q: %w: %s", q.Filter, errors.Join(ErrEnded, err), tail(log.Bytes()))
}

// ErrEnded is wrapped by the error of Watch where the host ended although nobody stopped it.
var ErrEnded = errors.New("the host ended by itself")
