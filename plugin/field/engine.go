package field

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
)

// Engine holds the Terraform states of one configuration: it loads and follows them, makes the events of their changes,
// and gives extractors that know them. A state that cannot be read is logged and tried again by its source; it never
// stops the others. An Engine is safe for concurrent use.
type Engine struct {
	log       *slog.Logger
	retry     time.Duration
	inventory *inventory.Inventory
	redactor  *tfstate.Redactor
	resolver  *trailmap.Resolver // nil without states
	sources   []source.Source

	mu      sync.Mutex // guards what follows
	emit    func(payload []byte) error
	pending [][]byte // found while nobody listened: Falco closes and opens the source when it reads its configuration again
}

// NewEngine prepares the states; nothing is read but the key file. The error names the member of the configuration.
func NewEngine(c Config, log *slog.Logger) (*Engine, error) {
	e := &Engine{log: log, retry: 10 * time.Second}
	var err error
	if e.redactor, err = redactor(c.SensitiveKeyFile); err != nil {
		return nil, err
	}
	e.inventory = inventory.New(inventory.Options{Redactor: e.redactor, Log: log, OnSerial: e.onSerial})
	for _, uri := range c.States {
		s, err := file.New(uri, file.Options{Log: log, Poll: time.Duration(c.PollSeconds) * time.Second})
		if err != nil {
			return nil, fmt.Errorf("init_config states: %w", err)
		}
		e.sources = append(e.sources, s)
	}
	if len(e.sources) > 0 {
		if e.resolver, err = trailmap.New(e.inventory, e.redactor); err != nil {
			return nil, fmt.Errorf("load knowledge: %w", err)
		}
	}
	return e, nil
}

func redactor(keyFile string) (*tfstate.Redactor, error) {
	if keyFile == "" {
		return tfstate.NewRedactor(nil), nil
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("init_config sensitive_key_file: %w", err)
	}
	if key = bytes.TrimSpace(key); len(key) < 16 {
		return nil, fmt.Errorf("init_config sensitive_key_file %q: %d bytes are too few for a key: write 16 or more, for example with openssl rand -hex 32", keyFile, len(key))
	}
	return tfstate.NewRedactor(key), nil
}

// Extractor makes one more extractor over the engine's states.
func (e *Engine) Extractor() *Extractor {
	x := NewExtractor(e.inventory, e.resolver)
	x.redactor = e.redactor
	return x
}

// States tells of every state read so far.
func (e *Engine) States() []inventory.Info { return e.inventory.States() }

// Load reads every state once, side by side, and returns when each has been read or could not be.
func (e *Engine) Load(ctx context.Context) {
	e.each(func(s source.Source) { e.guard(s, func() error { return s.Load(ctx, e.inventory) }) })
}

// Watch follows the states until ctx ends, and hands out one document for each change and finding.
func (e *Engine) Watch(ctx context.Context, emit func(payload []byte) error) error {
	if !e.deliver(emit) {
		return nil
	}
	e.listen(emit)
	defer e.listen(nil)
	e.each(func(s source.Source) {
		for ctx.Err() == nil {
			e.guard(s, func() error { return s.Watch(ctx, e.inventory) })
			select {
			case <-ctx.Done():
			case <-time.After(e.retry):
			}
		}
	})
	<-ctx.Done()
	return nil
}

// maxPending is how many documents wait for a listener.
const maxPending = 4096

// deliver hands out what waits for a listener, and reports whether all was taken. Nothing else emits meanwhile.
func (e *Engine) deliver(emit func(payload []byte) error) bool {
	e.mu.Lock()
	waiting := e.pending
	e.pending = nil
	e.mu.Unlock()
	for i, document := range waiting {
		if emit(document) != nil {
			e.keep(waiting[i:])
			return false
		}
	}
	return true
}

func (e *Engine) keep(documents [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	room := max(0, maxPending-len(e.pending))
	if len(documents) > room {
		e.log.Warn("state changes dropped, nobody listens", "count", len(documents)-room)
		documents = documents[:room]
	}
	e.pending = append(e.pending, documents...)
}

func (e *Engine) listen(emit func(payload []byte) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.emit = emit
}

// onSerial is called by the inventory, one serial at a time.
func (e *Engine) onSerial(s inventory.Serial) {
	e.mu.Lock()
	emit := e.emit
	e.mu.Unlock()
	documents := Encode(s)
	if emit == nil {
		e.keep(documents)
		return
	}
	for i, document := range documents {
		if emit(document) != nil {
			e.keep(documents[i:]) // the session is over
			return
		}
	}
}

// each runs do for all sources side by side and waits for them.
func (e *Engine) each(do func(s source.Source)) {
	var all sync.WaitGroup
	for _, s := range e.sources {
		all.Go(func() { do(s) })
	}
	all.Wait()
}

// guard runs one reading of a source and logs how it failed.
func (e *Engine) guard(s source.Source, read func() error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("state source broke down", "state", s.URI(), "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := read(); err != nil {
		e.log.Warn("state cannot be read", "state", s.URI(), "err", err)
	}
}
