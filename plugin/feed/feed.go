// Package feed says where CloudTrail records come from: files, and directories of files.
//
// In comes a URI; out go records, each as compact JSON in memory of its own, and every record once: within a file in its
// order, the files of a directory by path on the first pass (CloudTrail's names sort by time) and as they change
// afterwards. A file that ends in the middle is taken up again when it grows, at the record after the last one handed
// over; a file that was replaced starts anew. A slow taker slows the reading and nothing else. What cannot be read is
// logged once per cause and counted, and never ends Run.
//
// Session joins records with what a Companion has to say (the Terraform states) and hands both out in batches, as a Falco
// plugin needs them.
//
// Start reading at Open and Feed.Run; read.go knows the forms a text may have, file.go follows one file, watch.go a
// directory, session.go makes batches.
package feed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options are what a Feed may be told.
type Options struct {
	// Log takes faults; nil: nowhere.
	Log *slog.Logger
	// Poll is how often a watched directory is looked through, beside the file system's own notifications, which do not
	// exist on network file systems; default 2 s. Looking through takes at most a tenth of the time.
	Poll time.Duration
}

// Stats counts what a Feed has done so far.
type Stats struct {
	Records uint64 // handed over
	Bytes   uint64 // of these records
	Files   uint64 // read at least in part
	// Faults counts what could not be read, by kind: truncated, not_json, gzip, too_large, no_file (a pipe or a device),
	// unreadable, missing, panic; notify where the file system cannot tell of changes, so that only polling finds them.
	Faults map[string]uint64
	// Aside counts JSON that is not handed over, by kind: notification, digest, envelope, unknown; repeated for records of a
	// watched file that was copied.
	Aside map[string]uint64
}

// Feed is one place that records come from. Run may be called once at a time; Stats at any time.
type Feed struct {
	path    string
	watch   bool
	options Options
	passes  int              // walks so far, owned by Run
	reading time.Duration    // of the time since the walk began, owned by Run
	files   map[fileID]*file // owned by Run; kept over calls, so that a second Run repeats nothing
	recent  recent           // owned by Run
	foreign int              // files passed over for their names in the first walk, owned by Run

	mu    sync.Mutex // guards what follows
	stats Stats
	told  map[string]map[string]bool // faults already logged, by path and kind
}

// Open prepares a feed from a path or a file:// URI: a file, which may have any name, or a directory with all files in
// and below it whose names end in .json or .jsonl, also with .gz behind. With ?watch=true Run goes on with what comes
// later. Whether a file is compressed shows in its content. The error names the path.
func Open(uri string, options Options) (*Feed, error) {
	path, watch, err := parse(uri)
	if err != nil {
		return nil, fmt.Errorf("open records %q: %w", uri, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open records %q: %w", uri, hint(err))
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open records %q: neither a file nor a directory", uri)
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.Log = options.Log.With("component", "feed")
	if options.Poll <= 0 {
		options.Poll = 2 * time.Second
	}
	return &Feed{
		path: path, watch: watch, options: options, files: map[fileID]*file{}, told: map[string]map[string]bool{},
		stats: Stats{Faults: map[string]uint64{}, Aside: map[string]uint64{}},
	}, nil
}

// Check tells what is wrong with a URI as such; whether something is there is Open's to say. The error names the URI.
func Check(uri string) error {
	if _, _, err := parse(uri); err != nil {
		return fmt.Errorf("open records %q: %w", uri, err)
	}
	return nil
}

// hint says what to do about a missing path: a library runs in another directory and container than its user thinks.
func hint(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		wd, _ := os.Getwd()
		return fmt.Errorf("%w: give a path that this process can see, it runs in %q", err, wd)
	}
	return err
}

// parse splits a URI into a path and its parameters. A plain path may hold any character, a "?" too if it exists so.
func parse(uri string) (path string, watch bool, err error) {
	if uri == "" {
		return "", false, errors.New("the path is empty")
	}
	scheme, _, isURI := strings.Cut(uri, "://")
	if isURI && scheme != "file" {
		return "", false, fmt.Errorf("scheme %q is not supported: records are read from a path or file:///path", scheme)
	}
	if _, err := os.Stat(uri); err == nil && !isURI {
		path, err := filepath.Abs(uri)
		return path, false, err
	}
	place, query, _ := strings.Cut(uri, "?")
	if isURI {
		if place, err = fromURI(place); err != nil {
			return "", false, err
		}
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", false, err
	}
	for key, all := range values {
		if key != "watch" {
			return "", false, fmt.Errorf("unknown parameter %q: only watch is known", key)
		}
		if watch, err = strconv.ParseBool(all[len(all)-1]); err != nil {
			return "", false, fmt.Errorf("watch=%q: want true or false", all[len(all)-1])
		}
	}
	path, err = filepath.Abs(place)
	return path, watch, err
}

func fromURI(place string) (string, error) {
	u, err := url.Parse(place)
	switch {
	case err != nil:
		return "", err
	case u.Host != "" && u.Host != "localhost":
		return "", fmt.Errorf("host %q: a file URI has three slashes: file:///path", u.Host)
	}
	return u.Path, nil
}

// Path is the absolute path that records come from.
func (f *Feed) Path() string { return f.path }

// Watching reports whether Run goes on until it is told to stop.
func (f *Feed) Watching() bool { return f.watch }

// Run hands every record to emit, one at a time, and returns nil when all is read or, for a watched feed, when ctx ends.
// emit may block: that is the back pressure. Its error ends Run and is returned as it is.
func (f *Feed) Run(ctx context.Context, emit func(record []byte) error) error {
	return f.run(ctx, func(it item) error { return emit(it.record) })
}

func (f *Feed) run(ctx context.Context, emit func(item) error) error {
	if f.watch {
		return f.follow(ctx, emit)
	}
	f.passes++
	if err := f.walk(ctx, f.path, func(string) {}, emit); err != nil {
		return err
	}
	f.nothing()
	return nil
}

// Stats returns the counts so far.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Faults, s.Aside = maps.Clone(s.Faults), maps.Clone(s.Aside)
	return s
}

// count notes one item that was handed over or set aside.
func (f *Feed) count(it item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if it.aside != "" {
		f.stats.Aside[it.aside]++
		return
	}
	f.stats.Records++
	f.stats.Bytes += uint64(len(it.record))
}

// fault counts err and logs it, unless the same kind was logged for the same path before.
func (f *Feed) fault(kind, path string, err error) {
	f.mu.Lock()
	f.stats.Faults[kind]++
	known := f.told[path][kind]
	if len(f.told) >= maxFiles {
		clear(f.told)
	}
	if f.told[path] == nil {
		f.told[path] = map[string]bool{}
	}
	f.told[path][kind] = true
	f.mu.Unlock()
	if known {
		return
	}
	level := slog.LevelWarn
	if kind == "truncated" && f.watch {
		level = slog.LevelInfo // a file being written, most of the time
	}
	f.options.Log.Log(context.Background(), level, "records cannot be read", "kind", kind, "path", path, "err", err, "hint", hintOn(kind))
}

// hintOn says, by kind of fault, what was read all the same and what to do.
func hintOn(kind string) string {
	switch kind {
	case "truncated":
		return "what stands before the cut was read, and the rest is when the file grows: copy it anew if nobody is writing it"
	case "not_json":
		return "what stands before and behind was read: copy the file anew"
	case "gzip":
		return "what stands before was read: copy the file anew"
	case "too_large":
		return "the other records were read: CloudTrail writes none above 256 KiB, look what made this one"
	case "no_file":
		return "passed over: records are read from regular files"
	case "missing":
		return "it is read when it is there again: mount it, or correct the path"
	case "notify":
		return "changes are found by looking every few seconds: on Linux, raise fs.inotify.max_user_watches and max_user_instances to hear of them at once"
	case "panic":
		return "a defect of this program: please report it with the file"
	}
	return "tried again at every look: let the user that runs this read it, or take it away"
}

// recovered forgets the faults of a file that was read well, so that they are logged anew when they come back.
func (f *Feed) recovered(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.told[path], func(kind string, _ bool) bool { return kind != "missing" && kind != "notify" })
}

// back reports whether the feed's own path was told to be missing, and forgets it.
func (f *Feed) back() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.told[f.path]["missing"]
	delete(f.told[f.path], "missing")
	return known
}

// nothing tells once, after the first walk, that there is nothing to read: not an error, but seldom what is wanted.
func (f *Feed) nothing() {
	s := f.Stats()
	if f.passes > 1 || s.Files > 0 || len(s.Faults) > 0 {
		return
	}
	level, next := slog.LevelWarn, "it was read once and is not watched: add ?watch=true to read what comes later"
	if f.watch { // as a new trail's folder is
		level, next = slog.LevelInfo, "it is watched: what comes is read"
	}
	f.options.Log.Log(context.Background(), level, "no records here: a directory's files are read whose names end in .json or .jsonl, also with .gz behind",
		"path", f.path, "other_files", f.foreign, "hint", next)
}
