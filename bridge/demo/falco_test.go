package demo_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/bridge/demo"
)

// TestFalcosConfiguration: a falco on the PATH is started with a configuration of the demo's places. The falco here only
// keeps what it was given; the real one cannot be had where this runs.
func TestFalcosConfiguration(t *testing.T) {
	dir, path := t.TempDir(), t.TempDir()
	kept := filepath.Join(path, "kept.yaml")
	script := "#!/bin/sh\n[ \"$1\" = -c ] && cp \"$2\" " + kept + ".part && mv " + kept + ".part " + kept + "\n"
	if err := os.WriteFile(filepath.Join(path, "falco"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path+string(os.PathListSeparator)+os.Getenv("PATH"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(filepath.Dir(self), "libtfdrift.so")
	d, err := demo.New(dir, "http://127.0.0.1:1/demo", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := demo.Falco(d, "http://127.0.0.1:1/demo"); ok {
		t.Fatal("it goes through Falco without the plugin beside the program")
	}
	if err := os.WriteFile(library, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(library) })
	run, ok := demo.Falco(d, "http://127.0.0.1:1/demo")
	if !ok {
		t.Fatal("it does not go through Falco")
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := run(ctx); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Load    []string `yaml:"load_plugins"`
		Plugins []struct {
			Library string                    `yaml:"library_path"`
			Open    string                    `yaml:"open_params"`
			Init    struct{ States []string } `yaml:"init_config"`
		}
		HTTP   struct{ URL string } `yaml:"http_output"`
		Rules  []string             `yaml:"rules_files"`
		Append []any                `yaml:"append_output"`
	}
	if err := yaml.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Plugins) != 1 || got.Plugins[0].Library != library || got.Plugins[0].Open != d.Trail()+"?watch=true" ||
		len(got.Plugins[0].Init.States) != 1 || got.HTTP.URL != "http://127.0.0.1:1/demo" || len(got.Load) != 1 || len(got.Append) != 1 || len(got.Rules) != 1 {
		t.Errorf("configuration:\n%s", text)
	}
	if _, err := os.Stat(got.Rules[0]); err != nil {
		t.Error(err)
	}
}
