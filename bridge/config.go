package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
)

// Config is everything the bridge can be told, by flag or, under the flag's name, by configuration file. A flag wins.
type Config struct {
	// Config is the YAML file read first; "" reads none.
	Config configFile `help:"YAML file with these settings under their flags' names." placeholder:"FILE"`
	// Demo replays built-in samples in a temporary journal of its own; no other source may be named.
	Demo bool `help:"Replay built-in samples through the real stages, marked as a demo everywhere."`
	// Listen is where the feed is served. Without authentication only loopback addresses are accepted.
	Listen string `help:"Address of the feed and the API (loopback only: there is no authentication yet)." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	// FalcoGRPC is Falco's gRPC output, up to Falco 0.43; "" connects to none.
	FalcoGRPC string `name:"falco-grpc" help:"Falco's gRPC output (Falco 0.43 and older), as in unix:///run/falco/falco.sock." placeholder:"ADDRESS"`
	// FalcoCert, FalcoKey and FalcoCA are PEM files for mTLS with a gRPC output on the network; all three or none.
	FalcoCert string `name:"falco-cert" help:"Client certificate for a gRPC output on the network (PEM file)." placeholder:"FILE"`
	FalcoKey  string `name:"falco-key" help:"Key of the client certificate (PEM file)." placeholder:"FILE"`
	FalcoCA   string `name:"falco-ca" help:"CA of Falco's certificate (PEM file)." placeholder:"FILE"`
	// FalcoHTTP is where Falco's http_output posts to; a path makes the address a secret. "" listens nowhere.
	FalcoHTTP string `name:"falco-http" help:"Address at which Falco's http_output is received, as in 127.0.0.1:2802 or 127.0.0.1:2802/SECRET-PATH." placeholder:"HOST:PORT[/PATH]"`
	// CloudTrail names records read without Falco; empty reads none.
	CloudTrail []string `name:"cloudtrail" sep:"none" help:"CloudTrail records to read without Falco: a file or directory, with ?watch=true to follow it. May be repeated." placeholder:"URI"`
	// States names the Terraform states to compare with; empty leaves every change unresolved.
	States []string `name:"state" sep:"none" help:"Terraform state to compare with: a file, a directory or a glob. May be repeated." placeholder:"URI"`
	// Data is the folder of the journal.
	Data string `help:"Folder of the journal." default:"/var/lib/tfdrift" placeholder:"DIR"`
	// SensitiveKeyFile holds the key under which sensitive values are hashed; "" hides them without a hash.
	SensitiveKeyFile string `name:"sensitive-key-file" help:"File with the key under which sensitive values are hashed; without it they are hidden altogether." placeholder:"FILE"`
	// History is how many serials of each state are kept for comparison, 1 to 1000.
	History int `help:"Serials kept of each state, to compare late records with." default:"10" placeholder:"N"`
	// Poll is how often watched files are looked at beside the file system's own notices; 100 ms to a day.
	Poll time.Duration `help:"How often watched files are looked at beside the file system's own notices." default:"2s"`
	// Retain is how many messages the journal keeps.
	Retain int `help:"Messages the journal keeps." default:"200000" placeholder:"N"`
	// MessagesPerMinute is how many messages of one WebSocket client are handled in a minute, pings aside; 0 is no limit.
	MessagesPerMinute int `name:"messages-per-minute" help:"Messages of one WebSocket client that are handled in a minute, pings aside; 0 is no limit." default:"100" placeholder:"N"`
	// LogFormat is text or json.
	LogFormat string `name:"log-format" help:"Format of the log: text or json." enum:"text,json" default:"text"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `name:"log-level" help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`

	intakePath string // of FalcoHTTP, from its first slash on
}

// check finds every fault of the configuration at once and completes what follows from it. It reads the key file and
// opens nothing else.
func (c *Config) check() error {
	faults := c.checkSources()
	if _, err := portOf(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("--listen %q: %w: want HOST:PORT, as in 127.0.0.1:8080", c.Listen, err))
	} else if err := loopback(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("--listen %q: %w: without authentication the feed is served on this machine only, as on 127.0.0.1:8080; reach it from elsewhere through ssh -L or kubectl port-forward", c.Listen, err))
	}
	if c.FalcoHTTP != "" {
		faults = append(faults, c.splitIntake())
	}
	faults = append(faults, c.checkFiles()...)
	if c.History < 1 || c.History > 1000 {
		faults = append(faults, fmt.Errorf("--history %d: want 1 to 1000", c.History))
	}
	if c.Poll < 100*time.Millisecond || c.Poll > maxPoll {
		faults = append(faults, fmt.Errorf("--poll %s: want 100ms to %s", c.Poll, maxPoll))
	}
	if c.Retain < 1000 {
		faults = append(faults, fmt.Errorf("--retain %d: want 1000 or more", c.Retain))
	}
	if c.MessagesPerMinute < 0 {
		faults = append(faults, fmt.Errorf("--messages-per-minute %d: want 0 or more", c.MessagesPerMinute))
	}
	return errors.Join(faults...)
}

// maxPoll keeps a typing error from switching polling off.
const maxPoll = 24 * time.Hour

// checkSources finds what is wrong with where alerts, records and states come from.
func (c *Config) checkSources() (faults []error) {
	if c.Demo && (len(c.CloudTrail)+len(c.States) > 0 || c.FalcoGRPC != "" || c.FalcoHTTP != "") {
		faults = append(faults, errors.New("--demo brings its own records and states: leave out --cloudtrail, --state, --falco-grpc and --falco-http"))
	}
	if !c.Demo && len(c.CloudTrail) == 0 && c.FalcoGRPC == "" && c.FalcoHTTP == "" {
		faults = append(faults, errors.New("no source of events: name one with --falco-http (Falco 0.44 and newer), --falco-grpc (0.43 and older) or --cloudtrail, or see a demo with --demo"))
	}
	for _, uri := range c.CloudTrail {
		if err := feed.Check(uri); err != nil {
			faults = append(faults, fmt.Errorf("--cloudtrail: %w", err))
		}
	}
	for _, uri := range c.States {
		if _, err := file.New(uri, file.Options{}); err != nil {
			faults = append(faults, fmt.Errorf("--state: %w", err))
		}
	}
	return faults
}

// checkFiles finds what is wrong with files and folders that are named.
func (c *Config) checkFiles() (faults []error) {
	if c.Data == "" && !c.Demo {
		faults = append(faults, errors.New("--data is empty: name the folder of the journal, as in /var/lib/tfdrift"))
	}
	if _, err := c.key(); err != nil {
		faults = append(faults, err)
	}
	tls := []struct{ flag, path string }{{"--falco-cert", c.FalcoCert}, {"--falco-key", c.FalcoKey}, {"--falco-ca", c.FalcoCA}}
	given := 0
	for _, f := range tls {
		if f.path == "" {
			continue
		}
		given++
		if _, err := os.ReadFile(f.path); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w: name a PEM file that the user who runs the bridge can read", f.flag, err))
		}
	}
	if given > 0 && given < len(tls) {
		faults = append(faults, errors.New("--falco-cert, --falco-key and --falco-ca go together: name all three"))
	}
	return faults
}

// splitIntake takes the secret path off FalcoHTTP. An address that others can reach needs one: whoever posts there
// writes alerts.
func (c *Config) splitIntake() error {
	address, path, _ := strings.Cut(strings.TrimPrefix(c.FalcoHTTP, "http://"), "/")
	c.FalcoHTTP, c.intakePath = address, "/"+path
	port, err := portOf(address)
	switch open := loopback(address); {
	case err != nil:
		return fmt.Errorf("--falco-http %q: %w: want HOST:PORT or HOST:PORT/SECRET-PATH", address, err)
	case open != nil && len(path) < minSecret:
		return fmt.Errorf("--falco-http %q: %w: an address that others reach needs a secret path of %d characters or more, as in %s/%s", address, open, minSecret, address, strings.Repeat("x", minSecret))
	case address == c.Listen && port != "0":
		return fmt.Errorf("--falco-http %q: --listen has this address: name another port, as in 127.0.0.1:2802", address)
	}
	return nil
}

// portOf is the port of HOST:PORT: a number up to 65535, or a service's name.
func portOf(address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if _, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port); err != nil || port == "" {
		return "", fmt.Errorf("port %q is no number from 0 to 65535", port)
	}
	return port, nil
}

const minSecret = 16

var errNotLoopback = errors.New("not a loopback address")

// loopback reports whether only this machine can reach the address.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return errNotLoopback
	}
	return nil
}

// key reads the file with the key for sensitive values; nil without one.
func (c *Config) key() ([]byte, error) {
	if c.SensitiveKeyFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.SensitiveKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--sensitive-key-file: %w: name a file that the user who runs the bridge can read, or leave the flag out", err)
	}
	key := []byte(strings.TrimSpace(string(text)))
	if len(key) < minSecret {
		return nil, fmt.Errorf("--sensitive-key-file %q: %d characters, want %d or more: write some with openssl rand -hex 32", c.SensitiveKeyFile, len(key), minSecret)
	}
	return key, nil
}

// warn logs what is no fault and yet seldom meant.
func (c *Config) warn(log *slog.Logger) {
	if info, err := os.Stat(c.SensitiveKeyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		log.Warn("anybody on this machine can read the key for sensitive values: take the others' rights away", "file", c.SensitiveKeyFile, "mode", info.Mode().Perm().String(), "hint", "chmod o= "+c.SensitiveKeyFile)
	}
}
