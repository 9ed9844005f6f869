package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/rules"
)

// FalcoPath is the falco on the PATH, "" without one.
func FalcoPath() string {
	path, err := exec.LookPath("falco")
	if err != nil {
		return ""
	}
	return path
}

// Falco gives a stage that runs the demo's records through the real Falco: with the plugin that lies beside this program
// and the project's rules, its alerts posted to the intake. ok is false without a Falco or without the plugin.
func Falco(d *Demo, intake string) (run func(context.Context) error, ok bool) {
	self, err := os.Executable()
	if err != nil || FalcoPath() == "" {
		return nil, false
	}
	library := filepath.Join(filepath.Dir(self), "libtfdrift.so")
	if _, err := os.Stat(library); err != nil {
		d.log.Warn("a falco is on the PATH but the plugin is not beside this program: the demo goes without", "plugin", library)
		return nil, false
	}
	return func(ctx context.Context) error {
		config, err := d.falcoConfig(library, intake)
		if err != nil {
			return err
		}
		falco := exec.CommandContext(ctx, FalcoPath(), "-c", config) //nolint:gosec // the user's own falco, with the configuration just written
		falco.Cancel = func() error { return falco.Process.Signal(syscall.SIGTERM) }
		falco.WaitDelay = 3 * time.Second
		out, err := falco.CombinedOutput()
		if err != nil && ctx.Err() == nil {
			d.log.Warn("falco ended", "cause", err, "output", string(out[max(0, len(out)-2000):]))
		}
		return nil
	}, true
}

// falcoConfig writes Falco's configuration: the shipped drop-in with the demo's places in it.
func (d *Demo) falcoConfig(library, intake string) (path string, err error) {
	rulesFile := filepath.Join(d.dir, "tfdrift_rules.yaml")
	if err := os.WriteFile(rulesFile, rules.File, 0o600); err != nil {
		return "", fmt.Errorf("write demo rules: %w", err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(rules.DropIn, &settings); err != nil {
		return "", fmt.Errorf("read drop-in: %w", err)
	}
	settings["rules_files"] = []string{rulesFile}
	settings["plugins"] = []map[string]any{{
		"name": "tfdrift", "library_path": library, "open_params": d.Trail() + "?watch=true",
		"init_config": map[string]any{"states": []string{d.States()}},
	}}
	settings["http_output"] = map[string]any{"enabled": true, "url": intake}
	settings["stdout_output"] = map[string]any{"enabled": false}
	settings["engine"] = map[string]any{"kind": "nodriver"}
	text, err := yaml.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("write demo configuration: %w", err)
	}
	path = filepath.Join(d.dir, "falco.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("write demo configuration: %w", err)
	}
	return path, nil
}
