// Package e2e tests the whole: the shape of the source tree (this file), and the built programs as their users start
// them. What comes in is the module's own files and binaries; nothing goes out. Start reading at the table below: it is
// the architecture.
package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tfdrift/tfdrift-falco"

// A folder is one row of the architecture: layers tfstate → plugin → bridge, data flowing one way, imports pointing back
// along it or down to a leaf.
type folder struct {
	path string
	is   string
	// mayImport names our own packages; "x/..." is x and all below it.
	mayImport []string
	// testsToo is what the tests of the folder may import beyond mayImport: the real parts they are tried with.
	testsToo []string
	// jsonTags is why a folder of the bridge other than bridge/wire may have json tags: whose format it is. "" forbids them.
	jsonTags string
	// jsonFile is the only file that may, "" for any in the folder.
	jsonFile string
	// later marks a folder that is decided but not written; the mark goes with its first file.
	later bool
}

// table is the whole truth about what may import what. A new package adds its row in the commit that adds the package.
var table = []folder{
	{path: "tfstate", is: "Parse, Address, Diff; streaming"},
	{path: "tfstate/source", is: "where states live, and when they change",
		mayImport: []string{"tfstate"}},
	{path: "tfstate/source/file", is: "states in files, directories and globs",
		mayImport: []string{"tfstate", "tfstate/source"},
		testsToo:  []string{"tfstate/source/sourcetest"}},
	{path: "tfstate/source/sourcetest", is: "the one suite that every backend passes",
		mayImport: []string{"tfstate", "tfstate/source"},
		testsToo:  []string{"tfstate/source/file"}},
	{path: "tfstate/inventory", is: "all states' resources now and at earlier serials; lookup by (account, region, identifier)",
		mayImport: []string{"tfstate", "tfstate/source"},
		testsToo:  []string{"tfstate/source/file"}},

	{path: "plugin/trail", is: "one CloudTrail record, decoded"},
	{path: "plugin/trailmap", is: "the knowledge, as data files: (event source, event name) → resource types, identifiers, attributes; Resolve",
		mayImport: []string{"tfstate", "tfstate/inventory", "plugin/trail"},
		testsToo:  []string{"tfstate/source/...", "plugin/feed"}},
	{path: "plugin/feed", is: "where records come from: files, S3, SQS; checkpoints",
		mayImport: []string{"plugin/trail"}},
	{path: "plugin/field", is: "the table of ct.* and tf.* fields and their extraction",
		mayImport: []string{"plugin/trail", "plugin/trailmap", "tfstate/..."},
		testsToo:  []string{"plugin/feed"}},
	{path: "plugin", is: "the c-shared main libtfdrift.so: converts and delegates, nothing else",
		mayImport: []string{"plugin/...", "tfstate/..."}},
	{path: "plugin/context", is: "the c-shared main libtfcontext.so: the tf.* fields on other plugins' events", later: true,
		mayImport: []string{"plugin/...", "tfstate/..."}},

	{path: "bridge/wire", is: "every message a client receives, once, with its version history and golden files",
		jsonTags: "it defines what clients receive"},
	{path: "bridge/journal", is: "one SQLite file: inbox, drift states, messages; the one order; cursors; transactions",
		mayImport: []string{"bridge/wire"},
		jsonTags:  "the inbox's own storage"},
	{path: "bridge/falco", is: "Falco outputs in: gRPC, HTTP, direct feed, replay; decoded to one alert, stored in the inbox",
		mayImport: []string{"bridge/journal", "bridge/wire", "plugin/trail", "plugin/feed"},
		jsonTags:  "Falco's format"},
	{path: "bridge/correlate", is: "inbox + inventory → verdict → drift life; commits {inbox done, drift rows, messages} in one transaction",
		mayImport: []string{"bridge/journal", "bridge/wire", "tfstate/...", "plugin/trail", "plugin/trailmap"}},
	{path: "bridge/hub", is: "topics, filters, rights, cursors over the journal; melody sessions",
		mayImport: []string{"bridge/journal", "bridge/wire"}},
	{path: "bridge/forward", is: "webhooks and Falcosidekick out, each with a durable cursor", later: true,
		mayImport: []string{"bridge/journal", "bridge/wire"}},
	{path: "bridge/serve", is: "websocket, sse, rest, auth, console files, metrics; the only place that turns errors into codes",
		mayImport: []string{"bridge/hub", "bridge/wire"},
		testsToo:  []string{"bridge/journal"},
		jsonTags:  "what clients send", jsonFile: "websocket.go"},
	{path: "bridge/demo", is: "the built-in samples, played through the real intake as files and HTTP posts",
		mayImport: []string{"bridge/wire", "plugin/trail", "rules"},
		jsonTags:  "its own script, and Falco's format"},
	{path: "bridge/console", is: "TypeScript client, React hook, web console; embedded", later: true},
	{path: "bridge", is: "main.go (flags, signals, exit), config.go, run.go (builds every stage in flow order)",
		mayImport: []string{"tfstate/...", "plugin/...", "bridge/...", "rules"}},

	{path: "rules", is: "the rules file and Falco's drop-in configuration, embedded, and their tests",
		testsToo: []string{"tfstate/...", "plugin/...", "bridge/...", "e2e/host"}},
	{path: "charts", is: "the Helm chart, and its tests with the real helm",
		testsToo: []string{"plugin/field"}},
	{path: "e2e", is: "whole-system tests that start the built binaries",
		testsToo: []string{"bridge/wire", "plugin/trail", "e2e/host", "rules"}},
	{path: "e2e/host", is: "a real libsinsp host for the plugin, as tests start it"},
	{path: "e2e/falco", is: "Falco's outputs as Falco sends them, for tests of the bridge"},
}

// sdkFolders alone may import the plugin SDK, which cannot be built without cgo.
var sdkFolders = []string{"plugin", "plugin/context"}

const sdk = "github.com/falcosecurity/plugin-sdk-go"

// emptyNames say nothing about what a package provides.
var emptyNames = []string{"util", "utils", "common", "types", "models", "pkg", "helpers", "misc", "base", "lib"}

const maxLines = 900

// source is one Go file of the module.
type source struct {
	path   string // slashes, from the module's root
	folder string
	test   bool
	syntax *ast.File
	text   []byte
	own    []string // own packages it imports, from the module's root
	others []string
}

func TestEveryPackageHasARow(t *testing.T) {
	rows, packages := rowsByPath(t), sourcesByFolder(t)
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		row, ok := rows[name]
		switch {
		case !ok:
			t.Errorf("package %q has no row in the table: say what it is and what it may import", name)
		case row.later:
			t.Errorf("package %q exists: take the mark off its row", name)
		}
	}
	for _, row := range table {
		if packages[row.path] == nil && !row.later {
			t.Errorf("row %q has no package", row.path)
		}
		if row.is == "" {
			t.Errorf("row %q does not say what it is", row.path)
		}
		for _, to := range slices.Concat(row.mayImport, row.testsToo) {
			if rows[strings.TrimSuffix(to, "/...")].path == "" && !strings.HasSuffix(to, "/...") {
				t.Errorf("row %q may import %q, which is no row", row.path, to)
			}
		}
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	rows := rowsByPath(t)
	for _, f := range sources(t) {
		row := rows[f.folder]
		allowed := row.mayImport
		if f.test {
			allowed = slices.Concat(allowed, row.testsToo, []string{row.path})
		}
		for _, to := range f.own {
			if !matches(allowed, to) {
				t.Errorf("%s imports %q: %s may import %q", f.path, to, f.folder, allowed)
			}
			if strings.HasSuffix(to, "test") && !f.test {
				t.Errorf("%s imports %q, which is for tests", f.path, to)
			}
		}
	}
}

// TestOnlyThePluginMainsNeedCgo keeps `CGO_ENABLED=0 go test ./...` whole: all that thinks is built without the SDK.
func TestOnlyThePluginMainsNeedCgo(t *testing.T) {
	for _, f := range sources(t) {
		needs := slices.ContainsFunc(f.others, func(to string) bool { return to == "C" || to == sdk || strings.HasPrefix(to, sdk+"/") })
		if !needs {
			continue
		}
		if !slices.Contains(sdkFolders, f.folder) {
			t.Errorf("%s imports the plugin SDK or C: only %q may", f.path, sdkFolders)
		}
		if !demandsCgo(f.syntax) {
			t.Errorf("%s needs cgo and lacks the line //go:build cgo", f.path)
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for name, files := range sourcesByFolder(t) {
		if last := path.Base(name); slices.Contains(emptyNames, last) || slices.Contains(emptyNames, files[0].syntax.Name.Name) {
			t.Errorf("package %q: name it for what it provides", name)
		}
		if !slices.ContainsFunc(files, func(f source) bool { return f.syntax.Doc != nil }) {
			t.Errorf("package %q has no package comment", name)
		}
	}
}

// TestWireAloneHasOutgoingTags keeps what clients receive in one place.
func TestWireAloneHasOutgoingTags(t *testing.T) {
	rows := rowsByPath(t)
	for _, f := range sources(t) {
		row := rows[f.folder]
		excepted := row.jsonTags != "" && (row.jsonFile == "" || row.jsonFile == path.Base(f.path))
		if f.test || !strings.HasPrefix(f.folder, "bridge") || excepted {
			continue
		}
		for _, tag := range jsonTags(f.syntax) {
			t.Errorf("%s has the tag %s: what clients receive is defined in bridge/wire; another's format needs its reason in the table", f.path, tag)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	for _, f := range sources(t) {
		if lines := bytes.Count(f.text, []byte("\n")); lines >= maxLines && !ast.IsGenerated(f.syntax) {
			t.Errorf("%s has %d lines, want fewer than %d: it wants a second room", f.path, lines, maxLines)
		}
	}
}

// TestNothingStartsBeforeMain: no init functions, save the one through which the SDK learns of the plugin.
func TestNothingStartsBeforeMain(t *testing.T) {
	for _, f := range sources(t) {
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" && !slices.Contains(sdkFolders, f.folder) {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// TestMatches holds the checks themselves: a pattern that matches everything would pass every tree.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		to       string
		want     bool
	}{
		{[]string{"tfstate"}, "tfstate", true},
		{[]string{"tfstate"}, "tfstate/source", false},
		{[]string{"tfstate/..."}, "tfstate", true},
		{[]string{"tfstate/..."}, "tfstate/source/file", true},
		{[]string{"tfstate/..."}, "tfstates", false},
		{nil, "tfstate", false},
	} {
		if got := matches(c.patterns, c.to); got != c.want {
			t.Errorf("matches(%q, %q) = %t, want %t", c.patterns, c.to, got, c.want)
		}
	}
}

func TestDemandsCgo(t *testing.T) {
	for head, want := range map[string]bool{
		"//go:build cgo\n\n":             true,
		"//go:build linux && cgo\n\n":    true,
		"//go:build linux || cgo\n\n":    false,
		"//go:build !cgo\n\n":            false,
		"// Comment.\n//\n// cgo\n\n":    false,
		"":                               false,
		"// Text.\n\n//go:build cgo\n\n": true,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", head+"package x\n", parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := demandsCgo(file); got != want {
			t.Errorf("demandsCgo(%q) = %t, want %t", head, got, want)
		}
	}
}

func matches(patterns []string, to string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		root, below := strings.CutSuffix(p, "/...")
		return to == root || below && strings.HasPrefix(to, root+"/")
	})
}

// demandsCgo reports whether the file is left out of a build without cgo, whatever else is set.
func demandsCgo(file *ast.File) bool {
	for _, group := range file.Comments {
		if group.Pos() > file.Package {
			break
		}
		for _, c := range group.List {
			if !constraint.IsGoBuild(c.Text) {
				continue
			}
			expr, err := constraint.Parse(c.Text)
			return err == nil && !expr.Eval(func(tag string) bool { return tag != "cgo" })
		}
	}
	return false
}

func jsonTags(file *ast.File) (tags []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		field, ok := n.(*ast.Field)
		if !ok || field.Tag == nil {
			return true
		}
		text, err := strconv.Unquote(field.Tag.Value)
		if _, has := reflect.StructTag(text).Lookup("json"); err != nil || has {
			tags = append(tags, field.Tag.Value)
		}
		return true
	})
	return tags
}

func rowsByPath(t *testing.T) map[string]folder {
	t.Helper()
	rows := map[string]folder{}
	for _, row := range table {
		if _, twice := rows[row.path]; twice {
			t.Errorf("row %q stands twice", row.path)
		}
		rows[row.path] = row
	}
	return rows
}

func sourcesByFolder(t *testing.T) map[string][]source {
	t.Helper()
	byFolder := map[string][]source{}
	for _, f := range sources(t) {
		byFolder[f.folder] = append(byFolder[f.folder], f)
	}
	return byFolder
}

// sources parses every Go file of the module, whatever its build constraints. Asked of `go list`, the answer would leave
// out what this machine does not build, and a test's cached result would not notice a new file.
func sources(t *testing.T) []source {
	t.Helper()
	root := moduleRoot(t)
	var files []source
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipForeign(root, name, d)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		f, err := parse(root, name)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no Go files below %q", root)
	}
	return files
}

// skipForeign leaves out what the go command leaves out: hidden folders, testdata, other modules.
func skipForeign(root, name string, d fs.DirEntry) error {
	if name == "." {
		return nil
	}
	if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "node_modules" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(root, name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func parse(root, name string) (source, error) {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return source{}, err
	}
	syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, fmt.Errorf("parse %q: %w", name, err)
	}
	f := source{path: name, folder: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), syntax: syntax, text: text}
	for _, spec := range syntax.Imports {
		to, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("parse %q: import %s: %w", name, spec.Path.Value, err)
		}
		if own, ok := strings.CutPrefix(to, module+"/"); ok {
			f.own = append(f.own, own)
		} else {
			f.others = append(f.others, to)
		}
	}
	return f, nil
}

// moduleRoot is the nearest folder upwards whose go.mod names the module.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if text, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil {
			line, _ := bufio.NewReader(bytes.NewReader(text)).ReadString('\n')
			if strings.TrimSpace(line) == "module "+module {
				return dir
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatalf("no go.mod of %s above the working directory", module)
		}
		dir = up
	}
}
