package field_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]field.Config{
		"":     {},
		" \n":  {},
		"null": {},
		"{}":   {},
		`{"states":["/s","file:///t/**/*.tfstate"],"sensitive_key_file":"/k","poll_seconds":5}`: {
			States: []string{"/s", "file:///t/**/*.tfstate"}, SensitiveKeyFile: "/k", PollSeconds: 5,
		},
	} {
		if got, err := field.ParseConfig(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"statess":[]}`:                          `unknown member "statess": did you mean "states"?`,
		`{"sates":[]}`:                            `unknown member "sates": did you mean "states"?`,
		`{"state":[]}`:                            `unknown member "state": did you mean "states"?`,
		`{"sensitive-key-file":""}`:               `unknown member "sensitive-key-file": did you mean "sensitive_key_file"?`,
		`{"pollSeconds":1}`:                       `unknown member "pollSeconds": did you mean "poll_seconds"?`,
		`{"sqs":{}}`:                              `unknown member "sqs": known are states (a list of texts)`,
		`{"states":"/s"}`:                         `member "states" is a string`,
		`{"states":[""]}`:                         `states[0] ""`,
		`{"states":["/a","s3://b/k"]}`:            `states[1] "s3://b/k"`,
		`{"poll_seconds":-1}`:                     `poll_seconds -1`,
		`{"poll_seconds":1.5}`:                    `poll_seconds`,
		`{"states":["s3://x"],"poll_seconds":-1}`: `poll_seconds -1`,
		`{`:  `parse init_config`,
		`[]`: `parse init_config`,
	} {
		_, err := field.ParseConfig(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// TestSchemaConstrainsNothing: a host would tell of what it finds before ParseConfig can tell more.
func TestSchemaConstrainsNothing(t *testing.T) {
	if !jsontext.Value(field.Schema).IsValid() {
		t.Error("the schema is not JSON")
	}
	for _, member := range []string{`"states"`, `"sensitive_key_file"`, `"poll_seconds"`} {
		if !strings.Contains(field.Schema, member) {
			t.Errorf("the schema lacks %s", member)
		}
	}
	for _, rule := range []string{"additionalProperties", "items", "minimum", `"string"`, `"array"`, `"integer"`} {
		if strings.Contains(field.Schema, rule) {
			t.Errorf("the schema has %s", rule)
		}
	}
}
