package rules_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/e2e/host"
	"github.com/tfdrift/tfdrift-falco/plugin/field"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/rules"
)

// official is the file for users of the official cloudtrail plugin.
const official = "aws_cloudtrail/tfdrift_cloudtrail_rules.yaml"

func ours(t *testing.T) *host.RulesFile {
	t.Helper()
	return read(t, rules.File)
}

func read(t *testing.T, text []byte) *host.RulesFile {
	t.Helper()
	f, err := host.ReadRules(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestConventions holds what Falco's own rules keep to (https://falco.org/docs/concepts/rules/style-guide/).
func TestConventions(t *testing.T) {
	for path, source := range map[string]string{"tfdrift_rules.yaml": "tfdrift", official: "aws_cloudtrail"} {
		f := read(t, readFile(t, path))
		if got, want := f.Engine, "0.50.0"; got != want {
			t.Errorf("%s: required_engine_version %q, want %q, that of Falco 0.41", path, got, want)
		}
		if len(f.Plugins) != 1 {
			t.Errorf("%s requires the plugins %v, want one", path, f.Plugins)
		}
		if len(f.Unused) > 0 {
			t.Errorf("%s: nothing refers to %q", path, f.Unused)
		}
		lower := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
		for name := range f.Lists {
			if !lower.MatchString(name) {
				t.Errorf("%s: list %q is not lower case", path, name)
			}
		}
		for name := range f.Macros {
			if !lower.MatchString(name) {
				t.Errorf("%s: macro %q is not lower case", path, name)
			}
		}
		seen := map[string]bool{}
		for _, r := range f.Rules {
			checkRule(t, r, source)
			if seen[r.Name] {
				t.Errorf("rule %q stands twice: Falco would take the second for the first", r.Name)
			}
			seen[r.Name] = true
		}
		if last := f.Rules[len(f.Rules)-1].Name; last != "CloudTrail Change" {
			t.Errorf("%s: the last rule is %q, want CloudTrail Change: it hides every rule after it", path, last)
		}
	}
	if got := ours(t).Plugins["tfdrift"]; got != "0.1.0" {
		t.Errorf("tfdrift_rules.yaml requires tfdrift %q, want 0.1.0", got)
	}
}

var (
	titleCase = regexp.MustCompile(`^[A-Z]\S*( ([A-Z0-9]\S*|by|to|the|of|in))*$`)
	output    = regexp.MustCompile(`^[A-Z][^()%]* \([a-z_]+=%[a-z0-9_.]+( [a-z_]+=%[a-z0-9_.]+)*\)$`)
)

func checkRule(t *testing.T, r host.Rule, source string) {
	t.Helper()
	if !titleCase.MatchString(r.Name) {
		t.Errorf("rule %q: the name is not in title case", r.Name)
	}
	if !strings.HasSuffix(strings.TrimSpace(r.Desc), ".") {
		t.Errorf("rule %q: the description does not end with a period", r.Name)
	}
	if !output.MatchString(strings.TrimSpace(r.Output)) {
		t.Errorf("rule %q: the output is not of the form Text (key=%%field ...): %s", r.Name, r.Output)
	}
	if r.Source != source {
		t.Errorf("rule %q: source %q, want %q", r.Name, r.Source, source)
	}
	if !slices.Contains(r.Tags, "tfdrift") {
		t.Errorf("rule %q: the tags %q lack tfdrift", r.Name, r.Tags)
	}
	if !slices.Contains([]string{"CRITICAL", "WARNING", "INFORMATIONAL"}, r.Priority) {
		t.Errorf("rule %q: priority %q", r.Name, r.Priority)
	}
}

// TestReadingNames holds the rules and the decoder together: both have to say what a call does that does not say itself.
func TestReadingNames(t *testing.T) {
	for path, macro := range map[string]string{"tfdrift_rules.yaml": "reading_name", official: "tfdrift_reading_name"} {
		var got []string
		for part := range strings.SplitSeq(read(t, readFile(t, path)).Macros[macro], " or ") {
			verb, ok := strings.CutPrefix(strings.TrimSpace(part), "ct.name startswith ")
			if !ok {
				t.Errorf("%s: macro %s has %q", path, macro, part)
			}
			got = append(got, verb)
		}
		if diff := cmp.Diff(trail.ReadingVerbs, got); diff != "" {
			t.Errorf("%s: macro %s differs from trail.ReadingVerbs (-want +got):\n%s", path, macro, diff)
		}
	}
}

var fieldName = regexp.MustCompile(`\b(?:ct|tf|s3|ec2|ecr|iam)\.[a-z0-9_.]*[a-z0-9]`)

// TestFieldsExist: Falco refuses to load a file that names an unknown field.
func TestFieldsExist(t *testing.T) {
	known := knownFields()
	for _, path := range []string{"tfdrift_rules.yaml", official} {
		for _, r := range read(t, readFile(t, path)).Rules {
			unquoted := regexp.MustCompile(`'[^']*'`).ReplaceAllString(r.Filter, "''")
			for _, name := range fieldName.FindAllString(unquoted+r.Output, -1) {
				if strings.HasSuffix(name, ".amazonaws.com") {
					continue // a service
				}
				if !known[name] {
					t.Errorf("rule %q names the field %s, which the plugin does not have", r.Name, name)
				}
				if r.Source != "tfdrift" && !strings.HasPrefix(name, "ct.") {
					t.Errorf("rule %q names the field %s, which the official plugin does not have", r.Name, name)
				}
			}
		}
	}
}

func knownFields() map[string]bool {
	known := map[string]bool{}
	for _, f := range field.Table() {
		known[f.Name] = true
	}
	return known
}

// TestEventsAreMapped: what a rule singles out, the knowledge of events should resolve.
func TestEventsAreMapped(t *testing.T) {
	mapped := mappedEvents(t)
	elsewhere := map[string]string{
		"StopLogging":                    "the generic lookup resolves it: the request has the trail's name or ARN",
		"DeleteTrail":                    "the generic lookup resolves it: the request has the trail's name or ARN",
		"StopEventDataStoreIngestion":    "the generic lookup resolves it: the request has the ARN",
		"DeleteEventDataStore":           "the generic lookup resolves it: the request has the ARN",
		"PutAccountPublicAccessBlock":    "of an account, which the request does not name",
		"DeleteAccountPublicAccessBlock": "of an account, which the request does not name",
		"PutBucketAcl":                   "the generic lookup resolves it: the request has the bucket's name",
	}
	event := regexp.MustCompile(`\b(?:Put|Delete|Stop|Authorize|Modify)[A-Z][A-Za-z]+`)
	var named []string
	for _, r := range ours(t).Rules {
		named = append(named, event.FindAllString(r.Filter, -1)...)
	}
	if len(named) == 0 {
		t.Fatal("no rule names an event")
	}
	for _, name := range named {
		if !mapped[name] && elsewhere[name] == "" {
			t.Errorf("event %s is not in the map", name)
		}
	}
	for name := range elsewhere {
		if mapped[name] {
			t.Errorf("event %s is in the map: take it off this list", name)
		}
		if !slices.Contains(named, name) {
			t.Errorf("no rule names the event %s", name)
		}
	}
}

func mappedEvents(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../plugin/trailmap/aws/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no map: %v", err)
	}
	mapped := map[string]bool{}
	for _, path := range files {
		lines := bufio.NewScanner(bytes.NewReader(readFile(t, path)))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry struct{ Event string }
			if json.Unmarshal(bytes.TrimSuffix(bytes.TrimSpace(lines.Bytes()), []byte(",")), &entry) == nil && entry.Event != "" {
				mapped[entry.Event] = true
			}
		}
	}
	return mapped
}

// dropIn is what both drop-ins set.
type dropIn struct {
	Plugins      []map[string]any `yaml:"plugins"`
	LoadPlugins  []string         `yaml:"load_plugins"`
	RulesFiles   []string         `yaml:"rules_files"`
	RuleMatching string           `yaml:"rule_matching"`
	JSONOutput   bool             `yaml:"json_output"`
	WithOutput   bool             `yaml:"json_include_output_property"`
	WithFields   bool             `yaml:"json_include_output_fields_property"`
	WithTags     bool             `yaml:"json_include_tags_property"`
	HTTP         struct {
		Enabled   bool   `yaml:"enabled"`
		URL       string `yaml:"url"`
		KeepAlive bool   `yaml:"keep_alive"`
	} `yaml:"http_output"`
	Append []struct {
		Match struct {
			Source string `yaml:"source"`
		} `yaml:"match"`
		Fields []string `yaml:"extra_fields"`
	} `yaml:"append_output"`
}

func readDropIn(t *testing.T, text []byte) dropIn {
	t.Helper()
	var d dropIn
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

// recordFields are what the bridge rebuilds a record from.
var recordFields = []string{
	"ct.id", "ct.time", "ct.src", "ct.name", "ct.error", "ct.errormessage", "ct.region", "ct.recipientaccountid",
	"ct.readonly", "ct.eventtype", "ct.user", "ct.user.arn", "ct.user.identitytype", "ct.user.accountid",
	"ct.user.principalid", "ct.useragent", "ct.srcip", "ct.request", "ct.response", "ct.resources", "ct.sharedeventid",
	"ct.additionaleventdata", "ct.sessioncredentialfromconsole",
}

func TestDropIns(t *testing.T) {
	stateFields := []string{"tf.kind", "tf.state", "tf.serial", "tf.action", "tf.address"}
	for _, c := range []struct {
		path, source, rules string
		fields              []string
	}{
		{"config.d/tfdrift.yaml", "tfdrift", "/etc/falco/tfdrift_rules.yaml", slices.Concat(recordFields, stateFields)},
		{"aws_cloudtrail/config.d/tfdrift.yaml", "aws_cloudtrail", "/etc/falco/tfdrift_cloudtrail_rules.yaml", recordFields},
	} {
		d := readDropIn(t, readFile(t, c.path))
		if !d.JSONOutput || !d.WithOutput || !d.WithFields || !d.WithTags {
			t.Errorf("%s: the bridge needs whole JSON alerts", c.path)
		}
		if d.RuleMatching != "first" {
			t.Errorf("%s: rule_matching %q, want first: one alert a record", c.path, d.RuleMatching)
		}
		if !d.HTTP.Enabled || d.HTTP.URL != "http://127.0.0.1:2802/${TFDRIFT_INTAKE}" {
			t.Errorf("%s: http_output is %+v", c.path, d.HTTP)
		}
		if want := []string{c.rules}; !slices.Equal(d.RulesFiles, want) {
			t.Errorf("%s: rules_files %q, want %q", c.path, d.RulesFiles, want)
		}
		if len(d.Append) != 1 || d.Append[0].Match.Source != c.source {
			t.Fatalf("%s: append_output is %+v, want one for source %s", c.path, d.Append, c.source)
		}
		if diff := cmp.Diff(c.fields, d.Append[0].Fields); diff != "" {
			t.Errorf("%s: extra_fields (-want +got):\n%s", c.path, diff)
		}
		known := knownFields()
		for _, name := range d.Append[0].Fields {
			if !known[name] {
				t.Errorf("%s: the plugin has no field %s", c.path, name)
			}
		}
	}
}

// TestDropInLoadsThePlugin: the plugin must take the configuration that we ship.
func TestDropInLoadsThePlugin(t *testing.T) {
	d := readDropIn(t, rules.DropIn)
	if !slices.Equal(d.LoadPlugins, []string{"tfdrift"}) || len(d.Plugins) != 1 || d.Plugins[0]["name"] != "tfdrift" {
		t.Fatalf("load_plugins %q, plugins %v: want tfdrift", d.LoadPlugins, d.Plugins)
	}
	text, err := json.Marshal(d.Plugins[0]["init_config"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := field.ParseConfig(string(text)); err != nil {
		t.Error(err)
	}
}
