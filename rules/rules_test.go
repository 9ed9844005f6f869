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
	titleCase = regexp.MustCompile(`^[A-Z]\S*( ([A-Z0-9]\S*|by|to|the|of|in|or|for|on|a))*$`)
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
	if technique := regexp.MustCompile(`^T[0-9]{4}([.][0-9]{3})?$`); r.Priority == "CRITICAL" && !slices.ContainsFunc(r.Tags, technique.MatchString) {
		t.Errorf("rule %q: the tags %q name no technique of MITRE ATT&CK", r.Name, r.Tags)
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

// unmapped are events that a rule names and the knowledge of events need not have, with the reason. What makes something
// new is not among them: no state holds it yet.
var unmapped = map[string][]string{
	"the generic lookup resolves it: the request has the name, id or ARN of the resource": {
		"StopLogging", "DeleteTrail", "StopEventDataStoreIngestion", "DeleteEventDataStore", "UpdateTrail", "PutEventSelectors",
		"PutInsightSelectors", "DeleteFlowLogs", "DeleteLogGroup", "StopConfigurationRecorder", "DeleteConfigurationRecorder",
		"DeleteDeliveryChannel", "DeleteDetector", "UpdateDetector", "ReplaceRoute", "ReplaceNetworkAclEntry",
		"AttachInternetGateway", "PutBucketAcl", "ModifySnapshotAttribute", "ModifyImageAttribute", "ModifyDBSnapshotAttribute",
		"ModifyDBClusterSnapshotAttribute", "AttachUserPolicy", "AttachRolePolicy", "AttachGroupPolicy", "PutUserPolicy",
		"PutRolePolicy", "PutGroupPolicy", "UpdateAssumeRolePolicy", "UpdateLoginProfile", "UpdateAccessKey", "DisableKey",
		"ScheduleKeyDeletion", "DeleteImportedKeyMaterial", "PutKeyPolicy", "ModifyDBInstance", "ModifyDBCluster", "UpdateTable",
		"ModifyInstanceAttribute", "AddPermission", "UpdateFunctionUrlConfig", "UpdateFunctionCode",
		"UpdateFunctionConfiguration", "SetQueueAttributes", "SetTopicAttributes", "SetRepositoryPolicy", "PutResourcePolicy",
		"PutFileSystemPolicy", "PutBackupVaultAccessPolicy",
	},
	"of an account, which the request does not name": {"PutAccountPublicAccessBlock", "DeleteAccountPublicAccessBlock"},
	"it makes an instance":                           {"RestoreDBInstanceFromDBSnapshot", "RestoreDBInstanceToPointInTime"},
}

// TestEventsAreMapped: what a rule singles out, the knowledge of events should resolve.
func TestEventsAreMapped(t *testing.T) {
	known := mappedEvents(t)
	for _, names := range unmapped {
		for _, name := range names {
			known[name] = true
		}
	}
	named := map[string]bool{}
	for _, r := range ours(t).Rules {
		for _, name := range namedEvents(t, r) {
			named[name] = true
			if !known[name] && !strings.HasPrefix(name, "Create") {
				t.Errorf("rule %q: event %s is neither in the map nor on the list of those that need not be", r.Name, name)
			}
		}
	}
	for _, names := range unmapped {
		for _, name := range names {
			if !named[name] {
				t.Errorf("no rule names the event %s", name)
			}
		}
	}
}

var (
	events   = regexp.MustCompile(`ct\.name (?:=|in|startswith) (?:\( ([^)]*) \)|([^ ()]+))`)
	services = regexp.MustCompile(`[a-z0-9-]+\.amazonaws\.com`)
)

// namedEvents are the events that a rule is about, without those whose names only read.
func namedEvents(t *testing.T, r host.Rule) []string {
	t.Helper()
	var names []string
	for _, found := range events.FindAllStringSubmatch(r.Filter, -1) {
		for name := range strings.SplitSeq(found[1]+found[2], ",") {
			if name = strings.TrimSpace(name); !slices.Contains(trail.ReadingVerbs, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// TestEventsExist: a rule about a call that no service has would be silent for ever.
func TestEventsExist(t *testing.T) {
	if !hasShared(t) {
		return
	}
	mutating := mutatingOperations(t)
	for _, r := range ours(t).Rules {
		unquoted := regexp.MustCompile(`'[^']*'`).ReplaceAllString(r.Filter, "''")
		sources := services.FindAllString(unquoted, -1)
		for _, name := range namedEvents(t, r) {
			found := false
			for c, mutates := range mutating {
				found = found || mutates && c.name == name && (len(sources) == 0 || slices.Contains(sources, c.source))
			}
			if !found {
				t.Errorf("rule %q: none of the services %q has a changing call %s", r.Name, sources, name)
			}
		}
	}
}

// TestFilterValuesFit: libsinsp refuses a longer value when it compiles the condition.
func TestFilterValuesFit(t *testing.T) {
	const longest = 255
	quoted := regexp.MustCompile(`'[^']*'`)
	for _, r := range ours(t).Rules {
		for _, v := range quoted.FindAllString(r.Filter, -1) {
			if len(v)-2 > longest {
				t.Errorf("rule %q: a value of %d bytes, at most %d fit: %s", r.Name, len(v)-2, longest, v)
			}
		}
	}
}

// TestTuning: what README.md says users may fill takes a call out of the warnings, and never out of the critical rules nor
// out of all: what Falco does not send, the bridge does not know.
func TestTuning(t *testing.T) {
	h, ok := host.Find(t)
	if !ok {
		return
	}
	never := "condition: not tf.kind exists"
	for _, c := range []struct{ rule, fixture, old, tuned string }{
		{"IAM Credentials Made for Another User", "iam-credentials", "items: []", "items: [deploy, christophe]"},
		{"Terraform-Managed Resource Changed by Hand", "changed-by-hand", "items: []", "items: [christophe]"},
		{"Refused Call on a Managed Resource", "refused-on-managed", "items: []", "items: [christophe]"},
		{"Snapshot or Image Shared", "snapshot-shared", "known_share\n  " + never, `known_share
  condition: ct.request contains '"846424999548"'`},
		{"IAM Role Trust Policy Changed", "iam-trust-changed", "known_trust\n  " + never, `known_trust
  condition: ct.request contains ':iam::193672423079:'`},
		{"Lambda Function Code Replaced", "lambda-code-replaced", "condition: tf.by_terraform = true",
			"condition: tf.by_terraform = true or ct.useragent startswith stratus-red-team"},
	} {
		text := strings.Replace(string(rules.File), c.old, c.tuned, 1)
		f := readFixture(t, filepath.Join("testdata", c.fixture+".txtar"))
		count := func(file *host.RulesFile) int {
			return len(numbers(t, h, host.Query{Init: f.init, Records: f.records, Filter: ruleNamed(t, file, c.rule).Filter}))
		}
		shipped, tuned := ours(t), read(t, []byte(text))
		if before, after := count(shipped), count(tuned); before == 0 || after >= before {
			t.Errorf("%s: %d events as shipped, %d tuned with %q: want fewer", c.rule, before, after, c.tuned)
		}
		for _, r := range shipped.Rules {
			if always := r.Priority == "CRITICAL" || r.Name == "CloudTrail Change"; always && ruleNamed(t, tuned, r.Name).Filter != r.Filter {
				t.Errorf("tuned with %q, rule %q matches something else", c.tuned, r.Name)
			}
		}
	}
}

// TestReadme holds README.md and the rules together: the table has every rule in its order, and what it says users may fill
// is there to be filled.
func TestReadme(t *testing.T) {
	text, file := string(readFile(t, "README.md")), ours(t)
	var want, got []string
	for _, r := range file.Rules {
		want = append(want, r.Name+" "+strings.ToLower(r.Priority))
	}
	for _, row := range regexp.MustCompile(`(?m)^\| ([A-Z][^|]*) \| ([a-z]+) \|`).FindAllStringSubmatch(text, -1) {
		got = append(got, row[1]+" "+row[2])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("README.md: table of rules (-want +got):\n%s", diff)
	}
	_, block, _ := strings.Cut(text, "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	var items []struct {
		List      string            `yaml:"list"`
		Items     []string          `yaml:"items"`
		Macro     string            `yaml:"macro"`
		Condition string            `yaml:"condition"`
		Override  map[string]string `yaml:"override"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(block))
	decoder.KnownFields(true)
	if err := decoder.Decode(&items); err != nil || len(items) == 0 {
		t.Fatalf("README.md: read what to tune: %d items, %v", len(items), err)
	}
	for _, it := range items {
		_, list := file.Lists[it.List]
		_, macro := file.Macros[it.Macro]
		if !list && !macro {
			t.Errorf("README.md: the rules have no list %q nor macro %q", it.List, it.Macro)
		}
		if list && it.Override["items"] != "append" || macro && it.Override["condition"] != "replace" {
			t.Errorf("README.md: %s%s: override %v", it.List, it.Macro, it.Override)
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
