//go:build cgo

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/falcosecurity/plugin-sdk-go/pkg/ptr"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk"
	"github.com/falcosecurity/plugin-sdk-go/pkg/sdk/plugins/source"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

// These tests are inside the package because a main package cannot be imported.

func testShell(t *testing.T, log io.Writer) *shell {
	s := &shell{log: slog.New(slog.NewTextHandler(log, nil)), engines: &engines{byConfig: map[string]*field.Engine{}}, event: math.MaxUint64}
	if err := s.Init(""); err != nil {
		t.Fatal(err)
	}
	return s
}

// event is an sdk.EventReader over Go's memory.
type event struct {
	num  uint64
	text []byte
}

func (e *event) EventNum() uint64  { return e.num }
func (e *event) Timestamp() uint64 { return 0 }
func (e *event) Reader() io.ReadSeeker {
	if e.text == nil {
		panic("no memory")
	}
	r, err := ptr.NewBytesReadWriter(unsafe.Pointer(&e.text[0]), int64(len(e.text)), int64(len(e.text)))
	if err != nil {
		panic(err)
	}
	return r
}

// request is an sdk.ExtractRequest as far as the shell uses it.
type request struct {
	sdk.ExtractRequest
	id    uint64
	value any
	bad   bool
}

func (r *request) FieldID() uint64  { return r.id }
func (r *request) ArgPresent() bool { return false }
func (r *request) SetValue(v any) {
	if r.bad {
		panic("wrong type")
	}
	r.value = v
}

func fieldID(t *testing.T, name string) uint64 {
	for i, f := range field.Table() {
		if f.Name == name {
			return uint64(i)
		}
	}
	t.Fatalf("no field %s", name)
	return 0
}

func TestExtractCachesByEvent(t *testing.T) {
	s, name := testShell(t, t.Output()), fieldID(t, "ct.name")
	for _, test := range []struct {
		num        uint64
		text, want string
	}{
		{0, `{"eventName":"A"}`, "A"},
		{0, `{"eventName":"B"}`, "A"}, // the same event: not read again
		{1, `{"eventName":"C"}`, "C"},
	} {
		r := &request{id: name}
		if err := s.Extract(r, &event{test.num, []byte(test.text)}); err != nil || r.value != test.want {
			t.Errorf("event %d: got %v, %v, want %s", test.num, r.value, err, test.want)
		}
	}
}

func TestPanicsStayInside(t *testing.T) {
	var log bytes.Buffer
	s, name := testShell(t, &log), fieldID(t, "ct.name")
	e := &event{1, []byte(`{"eventName":"A"}`)}
	if err := s.Extract(&request{id: name, bad: true}, e); err != nil {
		t.Errorf("Extract: %v", err)
	}
	if err := s.Extract(&request{id: name}, &event{num: 2}); err != nil {
		t.Errorf("Extract without memory: %v", err)
	}
	if _, err := s.String(&event{num: 2}); err == nil {
		t.Error("String without memory: no error")
	}
	if n := strings.Count(log.String(), "recovered from a panic"); n != 3 || s.panics.Load() != 3 {
		t.Errorf("%d panics logged, %d counted, want 3:\n%s", n, s.panics.Load(), log.String())
	}
	r := &request{id: name}
	if err := s.Extract(r, e); err != nil || r.value != "A" {
		t.Errorf("afterwards: got %v, %v", r.value, err)
	}
}

func TestNextBatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	var text strings.Builder
	for i := range 300 {
		fmt.Fprintf(&text, `{"eventID":"%d","eventName":"X","eventTime":"2024-07-31T12:21:09Z"}`+"\n", i)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := testShell(t, &log)
	opened, err := s.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.(sdk.Closer).Close()
	defer opened.Events().Free()
	got := 0
	for deadline := time.Now().Add(20 * time.Second); ; {
		n, err := opened.NextBatch(s, opened.Events())
		got += n
		if errors.Is(err, sdk.ErrEOF) {
			break
		}
		if err != nil && !errors.Is(err, sdk.ErrTimeout) || time.Now().After(deadline) {
			t.Fatalf("after %d events: %v", got, err)
		}
	}
	if got != 300 {
		t.Errorf("%d events, want 300", got)
	}
}

func TestOpenAndInitErrors(t *testing.T) {
	s := testShell(t, t.Output())
	var opened source.Instance
	opened, err := s.Open(filepath.Join(t.TempDir(), "nope"))
	if err == nil || opened != nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Open of a missing path: %v, %v", opened, err)
	}
	if err := s.Init(`{"states":["s3://b/k"]}`); err == nil || !strings.Contains(err.Error(), "states[0]") {
		t.Errorf("Init: %v", err)
	}
}

// TestObjectsShareTheirStates: Falco asks the fields of another object than it opens.
func TestObjectsShareTheirStates(t *testing.T) {
	shared := &engines{byConfig: map[string]*field.Engine{}}
	log := slog.New(slog.DiscardHandler)
	a, errA := shared.get(`{"states":["/s"]}`, log)
	b, errB := shared.get(`{"states":["/s"]}`, log)
	c, errC := shared.get("", log)
	if err := errors.Join(errA, errB, errC); err != nil || a != b || a == c {
		t.Errorf("got %p, %p and %p, %v", a, b, c, err)
	}
}

// TestAReplacedKeyCounts: Falco reads its configuration again within one process.
func TestAReplacedKeyCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	config := fmt.Sprintf(`{"sensitive_key_file":%q}`, path)
	e := &engines{byConfig: map[string]*field.Engine{}}
	log := slog.New(slog.DiscardHandler)
	get := func(key string) *field.Engine {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Repeat(key, 32)), 0o600); err != nil {
			t.Fatal(err)
		}
		engine, err := e.get(config, log)
		if err != nil {
			t.Fatal(err)
		}
		return engine
	}
	first := get("a")
	if get("a") != first {
		t.Error("the same key makes another engine")
	}
	if get("b") == first {
		t.Error("the old key stays")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := e.get(config, log); err == nil {
		t.Error("a missing key file is not told")
	}
}
