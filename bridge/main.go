// Tfdrift-bridge stands beside Falco: alerts and Terraform states go in, a live feed of drifts comes out.
//
// Falco's alerts arrive by http_output or gRPC, CloudTrail records also directly; each is stored in the journal before it
// is acknowledged, judged against the states' serials, and told to WebSocket and REST clients in one order that survives
// restarts. Start reading at run (run.go), which builds every stage in the order in which data flows.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// version is set by the build.
var version = "0.1.0-dev"

type commands struct {
	Run     Config     `cmd:"" help:"Run the bridge."`
	Health  healthArgs `cmd:"" help:"Ask a running bridge whether it is well; for container probes."`
	Version struct{}   `cmd:"" help:"Print the version."`
}

type healthArgs struct {
	Listen string `help:"Address the bridge serves at." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	Ready  bool   `help:"Ask whether it is ready rather than alive."`
}

func main() {
	os.Exit(start(os.Args[1:], os.Stdout, os.Stderr))
}

// start is main with its surroundings given: 0 for a clean end, 1 for a fault while running, 2 for wrong arguments.
func start(args []string, stdout, stderr io.Writer) int {
	var cli commands
	parser, err := newParser(&cli, stdout, stderr)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "tfdrift-bridge:", err)
		return 2
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "tfdrift-bridge:", err)
		_, _ = fmt.Fprintln(stderr, "tfdrift-bridge run --help lists what there is")
		return 2
	}
	switch parsed.Command() {
	case "version":
		_, _ = fmt.Fprintln(stdout, "tfdrift-bridge", version)
		return 0
	case "health":
		return report(stderr, health(cli.Health))
	}
	if err := cli.Run.check(); err != nil {
		_, _ = fmt.Fprintln(stderr, "tfdrift-bridge: configuration:")
		_, _ = fmt.Fprintln(stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := logger(cli.Run, stderr)
	cli.Run.warn(log.With("component", "bridge"))
	return report(stderr, run(ctx, cli.Run, log))
}

// newParser makes the parser of the command line, which reads --config too.
func newParser(cli *commands, stdout, stderr io.Writer) (*kong.Kong, error) {
	return kong.New(cli, kong.Name("tfdrift-bridge"), kong.Writers(stdout, stderr), kong.UsageOnError(), kong.ValueFormatter(withDefault), kong.Description(
		"Who changed which attribute of which Terraform resource: Falco's alerts joined with Terraform's states.\n\n"+exitStatus))
}

// withDefault is a flag's help with its default, which kong leaves out where the flag's value has a name.
func withDefault(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	if value.HasDefault && value.Default != "" {
		help = strings.TrimSuffix(help, ".") + " (default " + value.Default + ")."
	}
	return help
}

const exitStatus = "Exit status: 0 after a clean stop, 1 for a fault while starting or running, 2 for wrong arguments or settings."

// Help stands below the one line of run --help.
func (Config) Help() string { return exitStatus }

func report(stderr io.Writer, err error) int {
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "tfdrift-bridge:", err)
		return 1
	}
	return 0
}

func logger(c Config, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// health asks a running bridge; nil means it is well.
func health(a healthArgs) error {
	url := "http://" + a.Listen + "/healthz"
	if a.Ready {
		url = "http://" + a.Listen + "/readyz"
	}
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Second)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask %q: %w", url, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
		return fmt.Errorf("ask %q: %s: %s", url, answer.Status, body)
	}
	return nil
}
