package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configFile is the flag whose value names the configuration file. The file's settings count where no flag is given.
type configFile string

// BeforeResolve reads the file; kong calls it before it asks for what no flag has given.
func (f configFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path := string(ctx.FlagValue(trace.Flag).(configFile))
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("--config: %w: name a YAML file, or leave the flag out", err)
	}
	defer file.Close() //nolint:errcheck // only read
	settings, err := readSettings(file, ctx.Model.Children[0].Flags)
	if err != nil {
		return fmt.Errorf("--config %q:\n%w", path, err)
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		return settings[flag.Name], nil
	}))
	return nil
}

// readSettings reads one YAML document of settings under the flags' names: a text, or a list of texts, for each. Everything
// else is a fault, and all are told at once, with their lines.
func readSettings(r io.Reader, flags []*kong.Flag) (map[string]any, error) {
	top, err := document(r)
	if err != nil || top == nil {
		return nil, err
	}
	known := map[string]*kong.Flag{}
	var names []string
	for _, f := range flags {
		if f.Name != "config" {
			known[f.Name] = f
			names = append(names, f.Name)
		}
	}
	var faults []error
	settings, lines := map[string]any{}, map[string]int{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		flag := known[key.Value]
		switch first, again := lines[key.Value]; {
		case flag == nil:
			faults = append(faults, fmt.Errorf("line %d: unknown key %q: %s", key.Line, key.Value, meant(key.Value, names)))
		case again:
			faults = append(faults, fmt.Errorf("line %d: key %q again: it stands on line %d, leave one out", key.Line, key.Value, first))
		default:
			var err error
			if settings[key.Value], err = setting(flag, value); err != nil {
				faults = append(faults, fmt.Errorf("line %d: key %q: %w", value.Line, key.Value, err))
			}
		}
		lines[key.Value] = key.Line
	}
	return settings, errors.Join(faults...)
}

// document is the one mapping in the file; nil for a file without settings.
func document(r io.Reader) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(r)
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil //nolint:nilnil // an empty file is one without settings
	case err != nil:
		return nil, fmt.Errorf("%w: write settings as in listen: 127.0.0.1:8080, one a line", err)
	}
	top := document.Content[0]
	switch err := decoder.Decode(&more); {
	case top.Kind == yaml.ScalarNode && top.Tag == "!!null":
		return nil, nil //nolint:nilnil // comments alone
	case top.Kind != yaml.MappingNode:
		return nil, fmt.Errorf("line %d: %s: write settings as in listen: 127.0.0.1:8080, one a line", top.Line, kindOf(top))
	case !errors.Is(err, io.EOF):
		return nil, errors.New("more than one document: leave out the lines from the second --- on")
	}
	return top, nil
}

// kindOf says in a word what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a truth"
	case "!!null":
		return "nothing"
	}
	return "a text"
}

// setting is a node's value as kong reads it from a flag; nil where the file gives none.
func setting(flag *kong.Flag, n *yaml.Node) (any, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch isText := kindOf(n) == "a text"; {
	case n.Tag == "!!null":
		return nil, nil
	case flag.IsSlice():
		return listOf(n)
	case n.Kind != yaml.ScalarNode:
		return nil, fmt.Errorf("%s, want %s", kindOf(n), wanted(flag))
	case flag.IsBool():
		_, err := strconv.ParseBool(n.Value)
		return n.Value, wrong(flag, n, err)
	case flag.Target.Type() == reflect.TypeFor[time.Duration]():
		_, err := time.ParseDuration(n.Value)
		return n.Value, wrong(flag, n, err)
	case flag.Target.Kind() == reflect.Int:
		_, err := strconv.Atoi(n.Value)
		return n.Value, wrong(flag, n, err)
	case flag.Enum != "" && !slices.Contains(strings.Split(flag.Enum, ","), n.Value):
		return nil, fmt.Errorf("%q, want one of %s", n.Value, flag.Enum)
	case !isText && kindOf(n) != "a number":
		return nil, fmt.Errorf("%s, want %s", kindOf(n), wanted(flag))
	}
	return n.Value, nil
}

func listOf(n *yaml.Node) (any, error) {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	var all []any
	for _, item := range items {
		if item.Kind != yaml.ScalarNode || kindOf(item) != "a text" {
			return nil, fmt.Errorf("%s on line %d, want a list of texts", kindOf(item), item.Line)
		}
		all = append(all, item.Value)
	}
	return all, nil
}

func wrong(flag *kong.Flag, n *yaml.Node, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s, %q, want %s", kindOf(n), n.Value, wanted(flag))
}

// wanted says what a flag takes.
func wanted(flag *kong.Flag) string {
	switch {
	case flag.IsBool():
		return "true or false"
	case flag.Target.Type() == reflect.TypeFor[time.Duration]():
		return "a time with its unit, as in 2s or 500ms"
	case flag.Target.Kind() == reflect.Int:
		return "a whole number"
	}
	return "a text"
}

// meant guesses which of the names was meant, and lists them where it cannot.
func meant(name string, names []string) string {
	best, least := "", max(2, len(name)/3)
	for _, candidate := range names {
		if d := levenshtein.Distance(name, candidate, nil); d <= least && (best == "" || d < levenshtein.Distance(name, best, nil)) {
			best = candidate
		}
	}
	if best == "" {
		return "the keys are " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("did you mean %q?", best)
}
