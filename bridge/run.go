package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tfdrift/tfdrift-falco/bridge/correlate"
	"github.com/tfdrift/tfdrift-falco/bridge/demo"
	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/hub"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/bridge/serve"
	"github.com/tfdrift/tfdrift-falco/bridge/wire"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
)

// run builds every stage in the order in which data flows, starts them, and returns when ctx has ended and all have
// stopped, or with the error of the first that failed. It is long because it is straight: this is the whole bridge.
func run(ctx context.Context, c Config, log *slog.Logger) (err error) {
	key, err := c.key()
	if err != nil {
		return err
	}
	own := log.With("component", "bridge") // the stages set their own
	registry := prometheus.NewRegistry()
	checks := map[string]serve.Check{}

	// Addresses first: what is in use shows before anything is written.
	feedAddress, err := listen(ctx, "--listen", c.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = feedAddress.Close() }()
	if c.Demo {
		c.FalcoHTTP, c.intakePath = "127.0.0.1:0", "/demo"
		if c.Data, err = os.MkdirTemp("", "tfdrift-demo-"); err != nil {
			return fmt.Errorf("make folder for the demo: %w", err)
		}
		defer func() { _ = os.RemoveAll(c.Data) }()
	}

	book, err := journal.Open(ctx, c.Data, journal.Options{Log: log, Metrics: registry, Replayed: c.Demo, Retain: c.Retain})
	if err != nil {
		return err
	}
	defer func() {
		if closed := book.Close(); err == nil {
			err = closed
		}
	}()
	redactor := tfstate.NewRedactor(key).Keeping(book.Key())
	checks["journal"] = book.Status
	running := newStages(ctx, own)
	defer func() { // a start that went wrong half-way stops what runs already, before the journal closes
		running.fail(context.Canceled)
		_ = running.wait()
	}()

	// Falco's alerts and CloudTrail's records into the inbox.
	var replay *demo.Demo
	if c.FalcoHTTP != "" {
		intake, err := listen(ctx, "--falco-http", c.FalcoHTTP)
		if err != nil {
			return err
		}
		defer func() { _ = intake.Close() }()
		handler := falco.NewHTTP(book, falco.HTTPOptions{Log: log, Path: c.intakePath, Metrics: registry})
		checks["falco_http"] = handler.Status
		running.start("falco http intake", func(ctx context.Context) error { return handler.Serve(ctx, intake) })
		own.Info("receiving Falco's alerts by HTTP", "address", intake.Addr().String())
		if c.Demo {
			url := "http://" + intake.Addr().String() + c.intakePath
			if replay, err = demo.New(c.Data, url, log); err != nil {
				return err
			}
			c.States = []string{replay.States()}
			if through, ok := demo.Falco(replay, url); ok {
				running.start("falco", through)
				own.Info("the demo's records go through Falco", "falco", demo.FalcoPath())
			} else {
				c.CloudTrail = []string{replay.Trail() + "?watch=true"}
			}
		}
	}
	if c.FalcoGRPC != "" {
		intake, err := falco.NewGRPC(book, falco.GRPCOptions{
			Address: c.FalcoGRPC, CertFile: c.FalcoCert, KeyFile: c.FalcoKey, CAFile: c.FalcoCA, Log: log, Metrics: registry,
		})
		if err != nil {
			return err
		}
		checks["falco_grpc"] = intake.Status
		running.start("falco grpc intake", intake.Run)
	}
	for _, uri := range c.CloudTrail {
		records, err := feed.Open(uri, feed.Options{Log: log, Poll: c.Poll})
		if err != nil {
			return err
		}
		intake := falco.NewDirect(book, records, falco.DirectOptions{Log: log, Metrics: registry})
		checks["cloudtrail "+uri] = intake.Status
		running.start("cloudtrail "+uri, intake.Run)
	}

	// States into the inventory, and their serials on to correlate.
	var judge *correlate.Correlator
	states := inventory.New(inventory.Options{
		History: c.History, Redactor: redactor, Log: log, Past: correlate.Past(book),
		OnSerial: func(s inventory.Serial) { judge.Serial(running.ctx, s) },
	})
	checks["states"] = stateCheck(states)
	resolver, err := trailmap.New(states, redactor)
	if err != nil {
		return err
	}
	ready := make(chan struct{})
	judge = correlate.New(book, states, resolver, correlate.Options{Log: log, Metrics: registry, Ready: ready})
	var sources []source.Source
	for _, uri := range c.States {
		s, err := file.New(uri, file.Options{Log: log, Poll: c.Poll})
		if err != nil {
			return err
		}
		sources = append(sources, s)
	}
	running.start("states", func(ctx context.Context) error { return follow(ctx, sources, states, ready, own) })
	running.start("correlate", judge.Run)

	// The journal's messages to whoever listens.
	subscribers := hub.New(book, hub.Options{Log: log, Replayed: c.Demo, Metrics: registry})
	running.start("hub", subscribers.Run)
	handler := serve.New(subscribers, subscribers, serve.Options{Log: log, Checks: checks, Registry: registry, Demo: c.Demo, MessagesPerMinute: c.MessagesPerMinute})
	running.start("feed", serveHTTP(feedAddress, handler, own))
	if replay != nil {
		running.start("demo", replay.Run)
	}
	own.Info("serving the feed", "address", feedAddress.Addr().String(), "page", "http://"+feedAddress.Addr().String()+"/", "version", version)
	err = running.wait()
	own.Info("stopped")
	return err
}

// follow reads every state once, lets the alerts go, and then watches.
func follow(ctx context.Context, sources []source.Source, into source.Sink, ready chan<- struct{}, log *slog.Logger) error {
	start := time.Now()
	var loads errgroup.Group
	for _, s := range sources {
		loads.Go(func() error {
			if err := s.Load(ctx, into); err != nil {
				log.Warn("state not read at the start, watched on", "state", s.URI(), "cause", err)
			}
			return nil
		})
	}
	_ = loads.Wait()
	log.Info("states read", "sources", len(sources), "took", time.Since(start).Round(time.Millisecond).String())
	close(ready)
	watches, ctx := errgroup.WithContext(ctx)
	for _, s := range sources {
		watches.Go(func() error { return s.Watch(ctx, into) })
	}
	return watches.Wait()
}

// stateCheck is well while every state can be read; the reason names those that cannot, the first few of many. The others
// are of use all the same.
func stateCheck(states *inventory.Inventory) serve.Check {
	return func() wire.Check {
		var reasons []string
		for _, info := range states.States() {
			if info.Fault != nil {
				reasons = append(reasons, filepath.Base(info.State)+": "+info.Fault.Error())
			}
		}
		const most = 3
		if more := len(reasons) - most; more > 0 {
			reasons = append(reasons[:most], fmt.Sprintf("and %d more", more))
		}
		return wire.Check{OK: len(reasons) == 0, Degraded: len(reasons) > 0, Reason: strings.Join(reasons, "; ")}
	}
}
