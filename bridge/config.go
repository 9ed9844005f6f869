package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// Config is everything the bridge can be told, by flag or, under the flag's name, by configuration file. A flag wins.
type Config struct {
	// Config is the YAML file read first; "" reads none.
	Config kong.ConfigFlag `help:"YAML file with these settings under their flags' names." placeholder:"FILE"`
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
	// Poll is how often watched files are looked at beside the file system's own notices; 100 ms at least.
	Poll time.Duration `help:"How often watched files are looked at beside the file system's own notices." default:"2s"`
	// Retain is how many messages the journal keeps.
	Retain int `help:"Messages the journal keeps." default:"200000" placeholder:"N"`
	// MessagesPerMinute is how many messages of one WebSocket client are handled in a minute, pings aside; 0 is no limit.
	MessagesPerMinute int `name:"messages-per-minute" help:"Messages of one WebSocket client that are handled in a minute, pings aside; 0 is no limit." default:"100" placeholder:"N"`
	// LogFormat is text or json.
	LogFormat string `name:"log-format" help:"Format of the log." enum:"text,json" default:"text"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `name:"log-level" help:"Least level that is logged." enum:"debug,info,warn,error" default:"info"`

	intakePath string // of FalcoHTTP, from its first slash on
}

// check finds every fault of the configuration at once and completes what follows from it.
func (c *Config) check() error {
	var faults []error
	if c.Demo && (len(c.CloudTrail)+len(c.States) > 0 || c.FalcoGRPC != "" || c.FalcoHTTP != "") {
		faults = append(faults, errors.New("--demo brings its own records and states: leave out --cloudtrail, --state, --falco-grpc and --falco-http"))
	}
	if !c.Demo && len(c.CloudTrail) == 0 && c.FalcoGRPC == "" && c.FalcoHTTP == "" {
		faults = append(faults, errors.New("no source of events: name one with --falco-http (Falco 0.44 and newer), --falco-grpc (0.43 and older) or --cloudtrail, or see a demo with --demo"))
	}
	if err := loopback(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("--listen %q: %w: without authentication the feed is served on this machine only, as on 127.0.0.1:8080; reach it from elsewhere through ssh -L or kubectl port-forward", c.Listen, err))
	}
	if c.FalcoHTTP != "" {
		faults = append(faults, c.splitIntake())
	}
	if tls := []string{c.FalcoCert, c.FalcoKey, c.FalcoCA}; slices.Contains(tls, "") && slices.ContainsFunc(tls, func(s string) bool { return s != "" }) {
		faults = append(faults, errors.New("--falco-cert, --falco-key and --falco-ca go together: name all three"))
	}
	if c.History < 1 || c.History > 1000 {
		faults = append(faults, fmt.Errorf("--history %d: want 1 to 1000", c.History))
	}
	if c.Poll < 100*time.Millisecond {
		faults = append(faults, fmt.Errorf("--poll %s: want 100ms or more", c.Poll))
	}
	if c.Retain < 1000 {
		faults = append(faults, fmt.Errorf("--retain %d: want 1000 or more", c.Retain))
	}
	if c.MessagesPerMinute < 0 {
		faults = append(faults, fmt.Errorf("--messages-per-minute %d: want 0 or more", c.MessagesPerMinute))
	}
	return errors.Join(faults...)
}

// splitIntake takes the secret path off FalcoHTTP. An address that others can reach needs one: whoever posts there
// writes alerts.
func (c *Config) splitIntake() error {
	given := c.FalcoHTTP
	address, path, _ := strings.Cut(strings.TrimPrefix(given, "http://"), "/")
	c.FalcoHTTP, c.intakePath = address, "/"+path
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("--falco-http %q: want HOST:PORT or HOST:PORT/SECRET-PATH: %w", given, err)
	}
	if err := loopback(address); err != nil && len(path) < minSecret {
		return fmt.Errorf("--falco-http %q: %w: an address that others reach needs a secret path of %d characters or more, as in %s/%s", given, err, minSecret, address, strings.Repeat("x", minSecret))
	}
	return nil
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

// fromFile reads the configuration file for kong: its keys are the flags' names, and any other key is an error.
func fromFile(r io.Reader, flags []*kong.Flag) (kong.Resolver, error) {
	var settings map[string]any
	if err := yaml.NewDecoder(r).Decode(&settings); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var known []string
	for _, f := range flags {
		known = append(known, f.Name)
	}
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if !slices.Contains(known, key) {
			faults = append(faults, fmt.Errorf("read configuration: unknown key %q", key))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(append(faults, fmt.Errorf("the keys are %s", strings.Join(known, ", ")))...)
	}
	return kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		return settings[flag.Name], nil
	}), nil
}

// key reads the file with the key for sensitive values; nil without one.
func (c *Config) key() ([]byte, error) {
	if c.SensitiveKeyFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.SensitiveKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read --sensitive-key-file: %w", err)
	}
	key := []byte(strings.TrimSpace(string(text)))
	if len(key) < minSecret {
		return nil, fmt.Errorf("read --sensitive-key-file %q: %d characters, want %d or more", c.SensitiveKeyFile, len(key), minSecret)
	}
	return key, nil
}
