package charts_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

const chart = "tfdrift-falco"

// kubeVersion is what the charts are rendered for: a helm that is built without its release flags takes itself to be of a
// Kubernetes long gone.
const kubeVersion = "1.33.0"

// object is a Kubernetes object, as far as these tests look at it.
type object struct {
	Kind     string
	Metadata struct {
		Name        string
		Labels      map[string]string
		Annotations map[string]string
	}
	Data map[string]string
	Spec struct {
		Replicas int
		Strategy struct{ Type string }
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     pod
		}
		AccessModes      []string `yaml:"accessModes"`
		StorageClassName string   `yaml:"storageClassName"`
		Resources        struct{ Requests map[string]string }
	}
}

type pod struct {
	ServiceAccountName string            `yaml:"serviceAccountName"`
	AutomountToken     *bool             `yaml:"automountServiceAccountToken"`
	SecurityContext    securityContext   `yaml:"securityContext"`
	InitContainers     []container       `yaml:"initContainers"`
	Containers         []container       `yaml:"containers"`
	Volumes            []map[string]any  `yaml:"volumes"`
	HostNetwork        bool              `yaml:"hostNetwork"`
	HostPID            bool              `yaml:"hostPID"`
	PriorityClassName  string            `yaml:"priorityClassName"`
	NodeSelector       map[string]string `yaml:"nodeSelector"`
}

type securityContext struct {
	RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
	RunAsUser                int   `yaml:"runAsUser"`
	FSGroup                  int   `yaml:"fsGroup"`
	Privileged               bool  `yaml:"privileged"`
	AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
	Capabilities             struct{ Add, Drop []string }
	SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
}

type container struct {
	Name            string
	Image           string
	ImagePullPolicy string `yaml:"imagePullPolicy"`
	RestartPolicy   string `yaml:"restartPolicy"`
	Command, Args   []string
	Env             []struct{ Name, Value string }
	Ports           []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe    probe           `yaml:"startupProbe"`
	LivenessProbe   probe           `yaml:"livenessProbe"`
	ReadinessProbe  probe           `yaml:"readinessProbe"`
	SecurityContext securityContext `yaml:"securityContext"`
	Resources       struct{ Requests, Limits map[string]string }
	VolumeMounts    []mount `yaml:"volumeMounts"`
}

type mount struct {
	Name, MountPath, SubPath string
	ReadOnly                 bool
}

// UnmarshalYAML reads the Kubernetes spelling.
func (m *mount) UnmarshalYAML(n *yaml.Node) error {
	var raw struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		SubPath   string `yaml:"subPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	}
	err := n.Decode(&raw)
	*m = mount{raw.Name, raw.MountPath, raw.SubPath, raw.ReadOnly}
	return err
}

type probe struct {
	Exec    struct{ Command []string }
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// rendered is what a release consists of.
type rendered []object

func (r rendered) kinds() (kinds []string) {
	for _, o := range r {
		kinds = append(kinds, o.Kind+"/"+o.Metadata.Name)
	}
	return kinds
}

// one gives the only object of a kind whose name ends in suffix.
func (r rendered) one(t *testing.T, kind, suffix string) object {
	t.Helper()
	var found []object
	for _, o := range r {
		if o.Kind == kind && strings.HasSuffix(o.Metadata.Name, suffix) {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects %s/*%s in %q, want one", len(found), kind, suffix, r.kinds())
	}
	return found[0]
}

// containers are all that run in a pod, by name.
func (p pod) containers(t *testing.T) map[string]container {
	t.Helper()
	all := map[string]container{}
	for _, c := range append(append([]container{}, p.InitContainers...), p.Containers...) {
		if _, twice := all[c.Name]; twice {
			t.Errorf("container %q stands twice", c.Name)
		}
		all[c.Name] = c
	}
	return all
}

// values are the sets of values that every general test goes through; "" is the chart's own.
var values = []string{"", "testdata/sidecar-only.yaml", "testdata/ephemeral.yaml", "testdata/everything.yaml"}

// render is helm template with a values file ("" for none) and further arguments.
func render(t *testing.T, valuesFile string, more ...string) rendered {
	t.Helper()
	args := append([]string{"template", "rel", chart, "--namespace", "watch", "--kube-version", kubeVersion}, more...)
	if valuesFile != "" {
		args = append(args, "--values", valuesFile)
	}
	out, err := runHelm(t, args...)
	if err != nil {
		t.Fatalf("helm %q: %v", args, err)
	}
	var all rendered
	for d := yaml.NewDecoder(strings.NewReader(out)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("helm %q: %v\n%s", args, err, out)
		}
		if o.Kind != "" {
			all = append(all, o)
		}
	}
}

// runHelm gives what helm prints; its error has what it complains of.
func runHelm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	helm := exec.Command(tool(t), args...)
	home := t.TempDir()
	helm.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	helm.Stdout, helm.Stderr = &stdout, &stderr
	if err := helm.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(stdout.String()+stderr.String()))
	}
	return stdout.String(), nil
}

// tool is helm as the tools module pins it: make's, or built here if that is older than the pins.
func tool(t *testing.T) string {
	t.Helper()
	path, err := helmOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var helmOnce = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../.cache/tools/helm")
	if err != nil {
		return "", err
	}
	pins, err := os.Stat("../e2e/tools/go.mod")
	if err != nil {
		return "", err
	}
	if built, err := os.Stat(path); err == nil && !built.ModTime().Before(pins.ModTime()) {
		return path, nil
	}
	return path, goBuild("../e2e/tools", path, "helm.sh/helm/v3/cmd/helm")
})

// bridgeOnce is the bridge: what make built, where it says so, else built here. What it builds is removed by TestMain.
var bridgeOnce = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("TFDRIFT_BIN"); dir != "" {
		return filepath.Join(dir, "tfdrift-bridge"), nil
	}
	path := filepath.Join(scratch, "tfdrift-bridge")
	return path, goBuild("..", path, "./bridge", "CGO_ENABLED=0")
})

func goBuild(dir, to, what string, env ...string) error {
	build := exec.Command("go", "build", "-o", to, what)
	build.Dir, build.Env = dir, append(os.Environ(), env...)
	if out, err := build.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New("build "+what+": "+string(out)))
	}
	return nil
}

// scratch is a folder that goes when the tests end.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tfdrift-charts")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		scratch = dir
		return m.Run()
	}())
}
