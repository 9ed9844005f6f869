package field

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/go-json-experiment/json"
)

// Schema tells users of the plugin's init configuration, as JSON Schema. It constrains nothing: a host checks a schema before
// the plugin is asked, and its messages name neither what was meant nor what is wanted. ParseConfig does both.
//
//go:embed config.schema.json
var Schema string

// Config is the plugin's init configuration.
type Config struct {
	// States are the URIs of Terraform states: paths, directories, globs with **, file:// URIs. None: the tf.* fields that
	// need a state are absent.
	States []string `json:"states"`
	// SensitiveKeyFile is the path of the key under which sensitive values are hashed; "": they are masked without a hash.
	SensitiveKeyFile string `json:"sensitive_key_file"`
	// PollSeconds is how often files are looked at where their changes are not told; 0: every 2 s.
	PollSeconds int `json:"poll_seconds"`
}

// maxPoll keeps a typing error from switching polling off.
const maxPoll = 24 * 60 * 60

// ParseConfig reads the init configuration; "" is one without anything set. The error tells all that is wrong.
func ParseConfig(text string) (Config, error) {
	var c Config
	if strings.TrimSpace(text) == "" {
		return c, nil
	}
	if err := json.Unmarshal([]byte(text), &c, json.RejectUnknownMembers(true)); err != nil {
		return Config{}, fmt.Errorf("parse init_config: %w: known are states (a list of texts), sensitive_key_file (a text) and poll_seconds (a number)", plain(err))
	}
	var problems []error
	for i, uri := range c.States {
		if scheme, _, isURI := strings.Cut(uri, "://"); uri == "" || isURI && scheme != "file" {
			problems = append(problems, fmt.Errorf("states[%d] %q: give a path, a directory, a glob or file:///path; other backends reach the plugin through files that the bridge writes", i, uri))
		}
	}
	if c.PollSeconds < 0 || c.PollSeconds > maxPoll {
		problems = append(problems, fmt.Errorf("poll_seconds %d: give 0 (every 2 s) to %d", c.PollSeconds, maxPoll))
	}
	if len(problems) > 0 {
		return Config{}, fmt.Errorf("parse init_config: %w", errors.Join(problems...))
	}
	return c, nil
}

// plain leaves out what only tells of Go.
func plain(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) && semantic.Err != nil && errors.Is(semantic.Err, json.ErrUnknownName) {
		name := strings.TrimPrefix(string(semantic.JSONPointer), "/")
		if known := meant(name); known != "" {
			return fmt.Errorf("unknown member %q: did you mean %q?", name, known)
		}
		return fmt.Errorf("unknown member %q", name)
	}
	if errors.As(err, &semantic) && semantic.JSONPointer != "" {
		return fmt.Errorf("member %q is a %s", strings.TrimPrefix(string(semantic.JSONPointer), "/"), semantic.JSONKind)
	}
	return err
}

// meant is the member whose name is hardly another; "" for none.
func meant(name string) string {
	for _, known := range []string{"states", "sensitive_key_file", "poll_seconds"} {
		if levenshtein.Distance(strings.ToLower(name), known, nil) <= max(2, len(name)/3) {
			return known
		}
	}
	return ""
}
