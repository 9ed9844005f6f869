//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/falcosecurity/plugin-sdk-go/pkg/ptr"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk/plugins"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk/plugins/extractor"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk/plugins/source"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk/symbols/extract"

	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

const (
	pluginName    = "tfdrift"
	pluginID      = 1413891142 // "TFDF"; of the private range, until one is registered upstream
	pluginVersion = "0.1.0"
	// wait is how long NextBatch blocks for a first event, the same as in the SDK's own instances: Falco waits with it.
	wait = 30 * time.Millisecond
	// maxPanics bounds what a broken extraction writes to the log.
	maxPanics = 100
)

// factory makes plugin objects that share the states of equal configurations: Falco makes one object per inspector, and
// opens the source on the one that was made last, while the fields are asked of another.
func factory() plugins.FactoryFunc {
	shared := &engines{byConfig: map[string]*field.Engine{}}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("plugin", pluginName)
	return func() plugins.Plugin {
		s := &shell{log: log, engines: shared, event: math.MaxUint64}
		source.Register(s)
		extractor.Register(s)
		return s
	}
}

type engines struct {
	mu       sync.Mutex // guards byConfig
	byConfig map[string]*field.Engine
}

func (e *engines) get(config string, log *slog.Logger) (*field.Engine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := field.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	// Falco reads its configuration again within one process: another key under the same path is another configuration.
	key, _ := os.ReadFile(c.SensitiveKeyFile) // NewEngine tells what is wrong with it
	id := config + "\x00" + string(key)
	if engine := e.byConfig[id]; engine != nil {
		return engine, nil
	}
	engine, err := field.NewEngine(c, log)
	if err != nil {
		return nil, err
	}
	e.byConfig[id] = engine
	return engine, nil
}

// shell is the plugin as the SDK knows it. One thread of Falco uses an object at a time.
type shell struct {
	plugins.BasePlugin
	log     *slog.Logger
	engines *engines

	engine *field.Engine
	fields *field.Extractor // of Extract, for the event numbered event
	event  uint64
	line   *field.Extractor // of String, which Falco calls in between
	panics atomic.Uint64
}

// Info is read once, when the library is loaded.
func (s *shell) Info() *plugins.Info {
	return &plugins.Info{
		ID:          pluginID,
		Name:        pluginName,
		Description: "CloudTrail records and Terraform state changes, each with the managed resource behind it",
		EventSource: pluginName,
		Contact:     "github.com/tfdrift/tfdrift-falco",
		Version:     pluginVersion,
	}
}

// InitSchema lets Falco print what can be configured; Init checks it.
func (s *shell) InitSchema() *sdk.SchemaInfo { return &sdk.SchemaInfo{Schema: field.Schema} }

// Init takes the configuration.
func (s *shell) Init(config string) (err error) {
	defer s.recovered("init", &err)
	// One call into Go at a time is faster than the SDK's busy-waiting workers wherever these have no core of their own.
	extract.SetAsync(false)
	if s.engine, err = s.engines.get(config, s.log); err != nil {
		return err
	}
	s.fields, s.line = s.engine.Extractor(), s.engine.Extractor()
	return nil
}

// OpenParams suggests where records are.
func (s *shell) OpenParams() ([]sdk.OpenParam, error) {
	return []sdk.OpenParam{{
		Value:     "file:///var/log/cloudtrail?watch=true",
		Desc:      "a file or directory of CloudTrail records; with watch=true also what comes later; empty: the Terraform states alone",
		Separator: "",
	}}, nil
}

// Open starts an instance.
func (s *shell) Open(params string) (opened source.Instance, err error) {
	defer s.recovered("open", &err)
	var records *feed.Feed
	if params != "" {
		if records, err = feed.Open(params, feed.Options{Log: s.log}); err != nil {
			return nil, err
		}
	}
	events, err := sdk.NewEventWriters(int64(sdk.DefaultBatchSize), int64(sdk.DefaultEvtSize))
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", params, err)
	}
	i := &instance{shell: s, session: feed.Start(context.Background(), records, s.engine, feed.SessionOptions{
		Log: s.log, MaxEvent: int(sdk.DefaultEvtSize),
	})}
	i.SetEvents(events)
	return i, nil
}

// instance is one opened source.
type instance struct {
	source.BaseInstance
	shell   *shell
	session *feed.Session
}

// NextBatch hands out what is there. It has no error but the SDK's two: any other ends Falco for all its sources.
func (i *instance) NextBatch(_ sdk.PluginState, events sdk.EventWriters) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			i.shell.panicked("next batch", p)
			err = sdk.ErrTimeout
		}
	}()
	batch, err := i.session.Next(events.Len(), wait)
	for _, e := range batch {
		if err := write(events.Get(n), e); err != nil {
			i.shell.log.Error("event dropped", "err", err)
			continue
		}
		n++
	}
	switch {
	case errors.Is(err, io.EOF):
		return n, sdk.ErrEOF
	case n == 0:
		return n, sdk.ErrTimeout
	}
	return n, nil
}

// write copies an event into Falco's memory.
func write(to sdk.EventWriter, e feed.Event) error {
	if _, err := to.Writer().Write(e.Payload); err != nil {
		return fmt.Errorf("write event of %d bytes: %w", len(e.Payload), err)
	}
	at := e.Time
	if at.Unix() < 0 || at.Year() > 2261 { // none, or one that Falco's nanoseconds do not hold
		at = time.Now()
	}
	to.SetTimestamp(uint64(at.UnixNano()))
	return nil
}

// Close ends what the instance started.
func (i *instance) Close() { i.session.Close() }

// Fields is read once, when the library is loaded; the SDK numbers the fields as they stand here.
func (s *shell) Fields() []sdk.FieldEntry {
	var all []sdk.FieldEntry
	for _, f := range field.Table() {
		entry := sdk.FieldEntry{
			Type: "string", Name: f.Name, Display: f.Display, Desc: f.Desc, IsList: f.List, Properties: f.Properties,
			Arg: sdk.FieldEntryArg{IsKey: f.Arg, IsRequired: f.Arg, IsIndex: f.Index},
		}
		if f.Kind == field.Uint64 {
			entry.Type = "uint64"
		}
		all = append(all, entry)
	}
	return all
}

// Extract gives one field of one event. It never has an error: without a value the field is absent.
func (s *shell) Extract(request sdk.ExtractRequest, event sdk.EventReader) error {
	defer func() {
		if p := recover(); p != nil {
			s.event = math.MaxUint64
			s.panicked("extract", p)
		}
	}()
	if n := event.EventNum(); n != s.event {
		s.fields.Load(payload(event))
		s.event = n
	}
	if value, ok := s.fields.Get(int(request.FieldID()), argument(request)); ok {
		request.SetValue(value)
	}
	return nil
}

func argument(request sdk.ExtractRequest) string {
	if !request.ArgPresent() {
		return ""
	}
	if key := request.ArgKey(); key != "" {
		return key // aliases Falco's memory: valid during this call, and Get keeps nothing of it
	}
	return strconv.FormatUint(request.ArgIndex(), 10)
}

// payload shows the event's bytes where they are, valid only during the call.
func payload(event sdk.EventReader) []byte {
	memory, ok := event.Reader().(ptr.BytesReadWriter)
	if !ok || memory.Len() == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(memory.BufferPtr()), memory.Len())
}

// String gives an event in one line.
func (s *shell) String(event sdk.EventReader) (line string, err error) {
	defer s.recovered("string", &err)
	s.line.Load(payload(event))
	return s.line.Summary(), nil
}

// recovered makes a panic an error.
func (s *shell) recovered(where string, err *error) {
	if p := recover(); p != nil {
		s.panicked(where, p)
		*err = fmt.Errorf("%s: panic: %v", where, p)
	}
}

func (s *shell) panicked(where string, p any) {
	if n := s.panics.Add(1); n <= maxPanics {
		s.log.Error("recovered from a panic", "where", where, "panic", p, "count", n, "stack", string(debug.Stack()))
	}
}
