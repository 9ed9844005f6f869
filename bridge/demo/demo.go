// Package demo replays built-in samples through the real stages: states are written to a folder that the bridge watches,
// CloudTrail records to another, and alerts recorded from Falco are posted to its HTTP intake. Everything is rewritten
// to the present moment and, by the bridge, marked as replayed.
//
// The script (samples/script.json) is one round; rounds follow each other, with new event ids and higher serials, until
// the context ends. Start reading at Run.
package demo

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

//go:embed samples
var samples embed.FS

// Demo is one demo in one folder. It is not safe for concurrent use.
type Demo struct {
	dir, intake string
	log         *slog.Logger
	script      []step
	records     map[string]jsontext.Value
	alerts      map[string]jsontext.Value
	serial      uint64 // of the newest state written
}

// step is one line of the script: At is counted from the start of the round.
type step struct {
	At     string `json:"at"`
	Record string `json:"record"`
	Alert  string `json:"alert"`
	State  string `json:"state"`
	Sample string `json:"sample"`

	at time.Duration
}

// New reads the samples and writes the first states below dir, so that States and Trail can be watched at once. Alerts
// are posted to the URL intake.
func New(dir, intake string, log *slog.Logger) (*Demo, error) {
	d := &Demo{dir: dir, intake: intake, log: log.With("component", "demo"), serial: 40}
	for name, into := range map[string]any{"script.json": &d.script, "records.json": &d.records, "alerts.json": &d.alerts} {
		text, err := samples.ReadFile("samples/" + name)
		if err != nil {
			return nil, fmt.Errorf("read sample: %w", err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			return nil, fmt.Errorf("read sample %q: %w", name, err)
		}
	}
	for i := range d.script {
		at, err := time.ParseDuration(d.script[i].At)
		if err != nil {
			return nil, fmt.Errorf("read sample script, line %d: %w", i, err)
		}
		d.script[i].at = at
	}
	for _, folder := range []string{d.States(), d.Trail()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("make demo folder: %w", err)
		}
	}
	for _, first := range []step{{State: "network", Sample: "network-before.tfstate"}, {State: "audit", Sample: "audit.tfstate"}} {
		if err := d.writeState(first); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// States is the folder of the demo's states.
func (d *Demo) States() string { return filepath.Join(d.dir, "states") }

// Trail is the folder of the demo's CloudTrail records.
func (d *Demo) Trail() string { return filepath.Join(d.dir, "trail") }

// Run plays rounds until ctx ends, and then returns nil. A step that does not work is logged, and the demo goes on.
func (d *Demo) Run(ctx context.Context) error {
	for {
		start := time.Now()
		d.tidy(start.Add(-time.Hour))
		for _, s := range d.script {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(start.Add(s.at))):
			}
			if err := d.play(ctx, s); err != nil && ctx.Err() == nil {
				d.log.Warn("demo step", "cause", err)
			}
		}
	}
}

// tidy removes records from before a moment; they were read long ago.
func (d *Demo) tidy(before time.Time) {
	names, err := filepath.Glob(filepath.Join(d.Trail(), "*.json"))
	if err != nil {
		return // the pattern is right
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && info.ModTime().Before(before) {
			_ = os.Remove(name)
		}
	}
}

func (d *Demo) play(ctx context.Context, s step) error {
	switch {
	case s.Record != "":
		return d.writeRecord(s.Record)
	case s.Alert != "":
		return d.post(ctx, s.Alert)
	case s.State != "":
		return d.writeState(s)
	}
	return nil
}

// writeState gives the sample the next serial.
func (d *Demo) writeState(s step) error {
	text, err := samples.ReadFile("samples/" + s.Sample)
	if err != nil {
		return fmt.Errorf("read sample: %w", err)
	}
	d.serial++
	text, err = rewrite(text, map[string]any{"serial": d.serial})
	if err != nil {
		return fmt.Errorf("rewrite sample %q: %w", s.Sample, err)
	}
	return place(filepath.Join(d.States(), s.State+".tfstate"), text)
}

// writeRecord puts the sample into a file of its own, as if the call had been made now.
func (d *Demo) writeRecord(name string) error {
	id, now := uuid.NewString(), time.Now().UTC()
	text, err := rewrite(d.records[name], map[string]any{"eventID": id, "eventTime": now.Format(time.RFC3339)})
	if err != nil {
		return fmt.Errorf("rewrite sample %q: %w", name, err)
	}
	return place(filepath.Join(d.Trail(), now.Format("20060102T150405Z")+"_"+id+".json"), []byte(`{"Records":[`+string(text)+`]}`))
}

// place writes a file so that a reader sees all of it or none.
func place(path string, text []byte) error {
	if err := os.WriteFile(path+".part", text, 0o600); err != nil {
		return fmt.Errorf("write demo file: %w", err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		return fmt.Errorf("write demo file: %w", err)
	}
	return nil
}

// post sends a recorded alert to the intake as Falco does, with its times moved to now.
func (d *Demo) post(ctx context.Context, name string) error {
	now := time.Now().UTC()
	var alert struct {
		Output string         `json:"output"`
		Fields jsontext.Value `json:"output_fields"`
	}
	if err := json.Unmarshal(d.alerts[name], &alert); err != nil {
		return fmt.Errorf("read sample %q: %w", name, err)
	}
	fields := map[string]any{"evt.time.iso8601": jsontext.Value(strconv.FormatInt(now.UnixNano(), 10))}
	if bytes.Contains(alert.Fields, []byte(`"ct.id"`)) {
		fields["ct.id"], fields["ct.time"] = uuid.NewString(), now.Format(time.RFC3339)
	}
	moved, err := rewrite(alert.Fields, fields)
	if err != nil {
		return fmt.Errorf("rewrite sample %q: %w", name, err)
	}
	_, told, _ := strings.Cut(alert.Output, ": ") // what follows the time
	body, err := rewrite(d.alerts[name], map[string]any{
		"time": now.Format("2006-01-02T15:04:05.000000000Z"), "output_fields": moved, "hostname": "demo",
		"output": now.Format("2006-01-02T15:04:05.000000000+0000: ") + told,
	})
	if err != nil {
		return fmt.Errorf("rewrite sample %q: %w", name, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.intake, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "falcosecurity/falco")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("post alert: %s", answer.Status)
	}
	return nil
}

// rewrite sets members of a JSON object.
func rewrite(object []byte, members map[string]any) (jsontext.Value, error) {
	all := map[string]any{}
	var had map[string]jsontext.Value
	if err := json.Unmarshal(object, &had); err != nil {
		return nil, err
	}
	for name, value := range had {
		all[name] = value
	}
	for name, value := range members {
		all[name] = value
	}
	return json.Marshal(all, json.Deterministic(true))
}
