// Package charts tests the Helm chart in tfdrift-falco with the real helm: what comes in is a set of values, what is
// looked at are the objects that helm renders, and whether Falco's and the bridge's configuration in them is one that the
// plugin and the bridge accept. The chart's files/ are copies of rules/, which a test holds. Start reading at TestParts.
package charts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

func TestParts(t *testing.T) {
	cloud := []string{"ConfigMap/rel-tfdrift-falco-cloud", "Deployment/rel-tfdrift-falco-cloud", "PersistentVolumeClaim/rel-tfdrift-falco-cloud"}
	sidecar := []string{"ConfigMap/rel-tfdrift-falco-sidecar", "DaemonSet/rel-tfdrift-falco-sidecar"}
	account := []string{"ServiceAccount/rel-tfdrift-falco"}
	for _, c := range []struct {
		name, values string
		set          []string
		want         []string
	}{
		{"default", "", nil, slices.Concat(account, cloud)},
		{"sidecar only", "testdata/sidecar-only.yaml", nil, slices.Concat(account, sidecar)},
		{"both", "", []string{"--set", "sidecar.enabled=true"}, slices.Concat(account, cloud, sidecar)},
		{"neither", "", []string{"--set", "cloud.enabled=false"}, account},
		{"ephemeral", "testdata/ephemeral.yaml", nil, []string{"ConfigMap/drift-cloud", "Deployment/drift-cloud"}},
		{"claim given", "", []string{"--set", "cloud.persistence.existingClaim=mine"}, slices.Concat(account, cloud[:2])},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := render(t, c.values, c.set...).kinds()
			slices.Sort(got)
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff) // no Service: the feed is not for the network
			}
		})
	}
}

func TestLint(t *testing.T) {
	for _, file := range values {
		args := []string{"lint", "--strict", "--kube-version", kubeVersion, chart}
		if file != "" {
			args = append(args, "--values", file)
		}
		if out, err := runHelm(t, args...); err != nil {
			t.Errorf("values %q: %v\n%s", file, err, out)
		}
	}
}

// TestCopies holds the chart's copies; make generate writes them.
func TestCopies(t *testing.T) {
	for copied, original := range map[string]string{
		"tfdrift-falco/files/tfdrift_rules.yaml": "../rules/tfdrift_rules.yaml",
		"tfdrift-falco/files/tfdrift.yaml":       "../rules/config.d/tfdrift.yaml",
	} {
		if diff := cmp.Diff(read(t, original), read(t, copied)); diff != "" {
			t.Errorf("%s is not %s: run make generate\n%s", copied, original, diff)
		}
	}
}

// everyPod runs a test for each pod of each set of values.
func everyPod(t *testing.T, test func(t *testing.T, o object)) {
	t.Helper()
	for _, file := range values {
		for _, o := range render(t, file) {
			if o.Kind == "Deployment" || o.Kind == "DaemonSet" {
				t.Run(file+"/"+o.Kind, func(t *testing.T) { test(t, o) })
			}
		}
	}
}

func TestDeployment(t *testing.T) {
	d := render(t, "").one(t, "Deployment", "-cloud")
	if d.Spec.Replicas != 1 || d.Spec.Strategy.Type != "Recreate" {
		t.Errorf("got %d replicas, strategy %q; want 1, Recreate: the journal has one owner", d.Spec.Replicas, d.Spec.Strategy.Type)
	}
	for name, want := range d.Spec.Selector.MatchLabels {
		if got := d.Spec.Template.Metadata.Labels[name]; got != want {
			t.Errorf("label %q: got %q, want what is selected: %q", name, got, want)
		}
	}
}

// TestOrder: Falco drops what finds no listener, so the bridge starts before it, says so, and ends after it.
func TestOrder(t *testing.T) {
	everyPod(t, func(t *testing.T, o object) {
		p := o.Spec.Template.Spec
		if len(p.Containers) != 1 || p.Containers[0].Name != "falco" {
			t.Fatalf("got %d containers, want falco alone", len(p.Containers))
		}
		bridge := p.InitContainers[len(p.InitContainers)-1]
		if bridge.Name != "bridge" || bridge.RestartPolicy != "Always" {
			t.Errorf("the last init container is %q with restartPolicy %q, want bridge, Always", bridge.Name, bridge.RestartPolicy)
		}
		listen := flag(bridge.Args, "--listen")
		for name, want := range map[string][]string{
			"startup":   {"/tfdrift-bridge", "health", "--listen=" + listen},
			"liveness":  {"/tfdrift-bridge", "health", "--listen=" + listen},
			"readiness": {"/tfdrift-bridge", "health", "--ready", "--listen=" + listen},
		} {
			got := map[string]probe{"startup": bridge.StartupProbe, "liveness": bridge.LivenessProbe, "readiness": bridge.ReadinessProbe}[name]
			if diff := cmp.Diff(want, got.Exec.Command); diff != "" {
				t.Errorf("%s probe of the bridge: %s", name, diff)
			}
		}
		falco := p.Containers[0]
		for name, got := range map[string]probe{"startup": falco.StartupProbe, "liveness": falco.LivenessProbe, "readiness": falco.ReadinessProbe} {
			if got.HTTPGet.Path != "/healthz" || got.HTTPGet.Port != "falco" {
				t.Errorf("%s probe of falco: got %+v", name, got.HTTPGet)
			}
		}
		if len(falco.Ports) != 1 || falco.Ports[0].Name != "falco" || falco.Ports[0].ContainerPort != 8765 {
			t.Errorf("ports of falco: %+v", falco.Ports)
		}
	})
}

// TestBridgeAcceptsItsArguments runs the real bridge with what the chart gives it, and one fault of our own, which must be
// the only one it finds.
func TestBridgeAcceptsItsArguments(t *testing.T) {
	bridge, err := bridgeOnce()
	if err != nil {
		t.Fatal(err)
	}
	everyPod(t, func(t *testing.T, o object) {
		c := o.Spec.Template.Spec.containers(t)["bridge"]
		for _, name := range []string{"--listen", "--falco-http"} {
			if address := flag(c.Args, name); !strings.HasPrefix(address, "127.0.0.1:") {
				t.Errorf("%s=%s, want loopback", name, address)
			}
		}
		if got := fmt.Sprint("127.0.0.1:", c.Ports[0].ContainerPort); got != flag(c.Args, "--listen") {
			t.Errorf("port %s, but --listen=%s", got, flag(c.Args, "--listen"))
		}
		// The key file is there in the pod alone.
		out, err := exec.Command(bridge, append(c.Args, "--listen=192.0.2.1:1", "--sensitive-key-file=")...).CombinedOutput()
		if code := exitCode(err); code != 2 {
			t.Errorf("exit status %d, want 2: %s", code, out)
		}
		faults := strings.Split(strings.TrimSpace(string(out)), "\n")[1:]
		if len(faults) != 1 || !strings.HasPrefix(faults[0], `--listen "192.0.2.1:1"`) {
			t.Errorf("faults found: %q, want that of --listen alone", faults)
		}
		ask := c.ReadinessProbe.Exec.Command[1:]
		ask[len(ask)-1] = "--listen=127.0.0.1:1"
		if out, err := exec.Command(bridge, ask...).CombinedOutput(); exitCode(err) != 1 {
			t.Errorf("tfdrift-bridge %q where nobody listens: exit status %d, want 1: %s", ask, exitCode(err), out)
		}
	})
}

// TestFalcoOfTheCloud holds Falco's configuration together with the rest of its pod, and with the shipped drop-in.
func TestFalcoOfTheCloud(t *testing.T) {
	for _, file := range []string{"", "testdata/ephemeral.yaml", "testdata/everything.yaml"} {
		t.Run(file, func(t *testing.T) {
			all := render(t, file)
			p := all.one(t, "Deployment", "-cloud").Spec.Template.Spec
			files := all.one(t, "ConfigMap", "-cloud").Data
			c := p.containers(t)
			if diff := cmp.Diff([]string{"/usr/bin/falco", "-c", "/etc/falco/tfdrift/falco.yaml"}, c["falco"].Args[:3]); diff != "" {
				t.Error(diff)
			}
			config, dropIn := parse(t, files["falco.yaml"]), parse(t, read(t, "../rules/config.d/tfdrift.yaml"))
			wantCarried(t, dropIn, config)
			wantIntake(t, config, c["bridge"])
			if got := config["engine"]; !cmp.Equal(got, map[string]any{"kind": "nodriver"}) {
				t.Errorf("engine: %v, want nodriver: plugin records need no kernel", got)
			}
			for _, name := range config["rules_files"].([]any) {
				if got := files[filepath.Base(name.(string))]; filepath.Dir(name.(string)) != "/etc/falco/tfdrift" || got != read(t, "../rules/tfdrift_rules.yaml") {
					t.Errorf("rules file %q is not the shipped one", name)
				}
			}
			wantPlugin(t, config, p)
		})
	}
}

// wantCarried: what the drop-in says stands, save what the chart sets, and append_output above all.
func wantCarried(t *testing.T, dropIn, config map[string]any) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(dropIn)) {
		if slices.Contains([]string{"plugins", "http_output", "engine", "rules_files"}, key) {
			continue
		}
		if diff := cmp.Diff(dropIn[key], config[key]); diff != "" {
			t.Errorf("%s is not the drop-in's: %s", key, diff)
		}
	}
	if config["append_output"] == nil || config["json_output"] != true {
		t.Errorf("append_output: %v, json_output: %v: the bridge would be blind", config["append_output"], config["json_output"])
	}
}

// wantIntake: Falco posts to where the bridge listens.
func wantIntake(t *testing.T, config map[string]any, bridge container) {
	t.Helper()
	output, _ := config["http_output"].(map[string]any)
	if want := "http://" + flag(bridge.Args, "--falco-http") + "/"; output["enabled"] != true || output["url"] != want {
		t.Errorf("http_output: %v, want enabled, url %q", output, want)
	}
}

// wantPlugin: the plugin accepts its configuration, reads the bridge's states, and is where the init container puts it.
func wantPlugin(t *testing.T, config map[string]any, p pod) {
	t.Helper()
	plugins, _ := config["plugins"].([]any)
	if len(plugins) != 1 || !cmp.Equal(config["load_plugins"], []any{"tfdrift"}) {
		t.Fatalf("plugins: %v, load_plugins: %v", plugins, config["load_plugins"])
	}
	plugin := plugins[0].(map[string]any)
	c := p.containers(t)
	copied := c["plugin"].Command[2]
	if got, want := plugin["library_path"], seenBy(c["plugin"], c["falco"], copied); got != want {
		t.Errorf("library_path %q, but %q is put at %q", got, copied, want)
	}
	text, err := json.Marshal(plugin["init_config"])
	if err != nil {
		t.Fatal(err)
	}
	init, err := field.ParseConfig(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flags(c["bridge"].Args, "--state"), init.States); diff != "" {
		t.Errorf("the plugin's states are not the bridge's: %s", diff)
	}
	if got, want := init.SensitiveKeyFile, flag(c["bridge"].Args, "--sensitive-key-file"); got != want {
		t.Errorf("the plugin's key is %q, the bridge's %q", got, want)
	}
	for _, uri := range append(init.States, fmt.Sprint(plugin["open_params"]), init.SensitiveKeyFile) {
		if path := strings.TrimPrefix(uri, "file://"); path != "" && !slices.ContainsFunc(c["falco"].VolumeMounts, func(m mount) bool { return strings.HasPrefix(path, m.MountPath) }) {
			t.Errorf("%q is on no volume that falco mounts: %+v", uri, c["falco"].VolumeMounts)
		}
	}
}

// seenBy gives the path under which another container sees a file of a shared volume; "" if it does not.
func seenBy(from, to container, path string) string {
	for _, a := range from.VolumeMounts {
		rest, ok := strings.CutPrefix(path, a.MountPath)
		for _, b := range to.VolumeMounts {
			if ok && a.Name == b.Name {
				return b.MountPath + rest
			}
		}
	}
	return ""
}

// TestFalcoOfTheNodes: it keeps the image's configuration, sends to its bridge, and reads no trail of its own.
func TestFalcoOfTheNodes(t *testing.T) {
	for _, file := range []string{"testdata/sidecar-only.yaml", "testdata/everything.yaml"} {
		all := render(t, file)
		p := all.one(t, "DaemonSet", "-sidecar").Spec.Template.Spec
		c := p.containers(t)
		config := parse(t, all.one(t, "ConfigMap", "-sidecar").Data["tfdrift.yaml"])
		wantIntake(t, config, c["bridge"])
		if config["json_output"] != true || config["plugins"] != nil || config["load_plugins"] != nil || config["rules_files"] != nil {
			t.Errorf("values %q: got %v", file, config)
		}
		if got := config["engine"]; !cmp.Equal(got, map[string]any{"kind": "modern_ebpf"}) {
			t.Errorf("values %q: engine: %v", file, got)
		}
		if !slices.ContainsFunc(c["falco"].VolumeMounts, func(m mount) bool {
			return m == mount{"config", "/etc/falco/config.d/tfdrift.yaml", "tfdrift.yaml", true}
		}) {
			t.Errorf("values %q: no drop-in mounted: %+v", file, c["falco"].VolumeMounts)
		}
	}
}

// TestRights: nobody has any, save Falco on the nodes.
func TestRights(t *testing.T) {
	everyPod(t, func(t *testing.T, o object) {
		p := o.Spec.Template.Spec
		if p.HostNetwork || p.HostPID {
			t.Error("the pod shares the host's network or processes")
		}
		for name, c := range p.containers(t) {
			s := c.SecurityContext
			if o.Kind == "DaemonSet" && name == "falco" {
				want := []string{"BPF", "PERFMON", "SYS_RESOURCE", "SYS_PTRACE"}
				if !s.Privileged && !cmp.Equal(want, s.Capabilities.Add) {
					t.Errorf("falco has the capabilities %q, want %q", s.Capabilities.Add, want)
				}
				continue
			}
			if s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
				len(s.Capabilities.Add) > 0 || !cmp.Equal([]string{"ALL"}, s.Capabilities.Drop) {
				t.Errorf("%s has rights: %+v", name, s)
			}
			if user := max(s.RunAsUser, p.SecurityContext.RunAsUser); user == 0 || !s.RunAsNonRoot && !p.SecurityContext.RunAsNonRoot {
				t.Errorf("%s runs as user %d", name, user)
			}
			if s.SeccompProfile.Type+p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
				t.Errorf("%s has no seccomp profile", name)
			}
			if c.Resources.Limits == nil {
				t.Errorf("%s has no limits", name)
			}
		}
	})
	for _, file := range []string{"", "testdata/sidecar-only.yaml"} {
		for _, o := range render(t, file) {
			if p := o.Spec.Template.Spec; len(p.Containers) > 0 && (p.AutomountToken == nil || *p.AutomountToken) {
				t.Errorf("%s mounts a token", o.Kind)
			}
		}
	}
	if privileged := render(t, "testdata/everything.yaml").one(t, "DaemonSet", "").Spec.Template.Spec.Containers[0].SecurityContext.Privileged; !privileged {
		t.Error("sidecar.falco.privileged does nothing")
	}
}

// TestVolumes: what is mounted exists, what exists is mounted, and nothing hides anything.
func TestVolumes(t *testing.T) {
	everyPod(t, func(t *testing.T, o object) {
		p := o.Spec.Template.Spec
		unused := map[string]bool{}
		for _, v := range p.Volumes {
			if len(v) != 2 { // its name, and one source
				t.Errorf("volume %v", v)
			}
			unused[v["name"].(string)] = true
		}
		known := maps.Clone(unused)
		for name, c := range p.containers(t) {
			at := map[string]bool{}
			for _, m := range c.VolumeMounts {
				if !known[m.Name] {
					t.Errorf("%s mounts %q, which is no volume", name, m.Name)
				}
				if at[m.MountPath] {
					t.Errorf("%s mounts twice at %q", name, m.MountPath)
				}
				at[m.MountPath] = true
				delete(unused, m.Name)
			}
		}
		if len(unused) > 0 {
			t.Errorf("volumes that nobody mounts: %v", unused)
		}
	})
}

func TestJournalVolume(t *testing.T) {
	source := func(t *testing.T, o object) any {
		t.Helper()
		for _, v := range o.Spec.Template.Spec.Volumes {
			if v["name"] == "data" {
				delete(v, "name")
				return v
			}
		}
		return nil
	}
	claim := func(name string) any {
		return map[string]any{"persistentVolumeClaim": map[string]any{"claimName": name}}
	}
	for _, c := range []struct {
		kind, values string
		set          []string
		want         any
	}{
		{"Deployment", "", nil, claim("rel-tfdrift-falco-cloud")},
		{"Deployment", "", []string{"--set", "cloud.persistence.existingClaim=mine"}, claim("mine")},
		{"Deployment", "testdata/ephemeral.yaml", nil, map[string]any{"emptyDir": map[string]any{}}},
		{"DaemonSet", "testdata/sidecar-only.yaml", nil, map[string]any{"emptyDir": map[string]any{}}},
		{"DaemonSet", "testdata/everything.yaml", nil, map[string]any{"hostPath": map[string]any{"path": "/var/lib/tfdrift", "type": "Directory"}}},
	} {
		o := render(t, c.values, c.set...).one(t, c.kind, "")
		if diff := cmp.Diff(c.want, source(t, o)); diff != "" {
			t.Errorf("%s, values %q %q: %s", c.kind, c.values, c.set, diff)
		}
		if got := flag(o.Spec.Template.Spec.containers(t)["bridge"].Args, "--data"); got != "/var/lib/tfdrift" {
			t.Errorf("--data=%s", got)
		}
	}
	made := render(t, "testdata/everything.yaml").one(t, "PersistentVolumeClaim", "").Spec
	if made.StorageClassName != "fast" || made.Resources.Requests["storage"] != "20Gi" || !cmp.Equal(made.AccessModes, []string{"ReadWriteOncePod"}) {
		t.Errorf("the claim is %+v", made)
	}
}

// TestValuesReachTheirPlace looks at what no other test does.
func TestValuesReachTheirPlace(t *testing.T) {
	all := render(t, "testdata/everything.yaml")
	account := all.one(t, "ServiceAccount", "")
	if account.Metadata.Name != "watcher" || account.Metadata.Annotations["eks.amazonaws.com/role-arn"] == "" {
		t.Errorf("service account: %+v", account.Metadata)
	}
	for _, o := range []object{all.one(t, "Deployment", ""), all.one(t, "DaemonSet", "")} {
		template := o.Spec.Template
		p, c := template.Spec, template.Spec.containers(t)
		got := map[string]any{
			"account": p.ServiceAccountName, "token": *p.AutomountToken, "priority": p.PriorityClassName, "node": p.NodeSelector["disk"],
			"label": template.Metadata.Labels["team"], "annotation": template.Metadata.Annotations["example.org/a"],
			"bridge image": c["bridge"].Image, "bridge pull": c["bridge"].ImagePullPolicy, "poll": flag(c["bridge"].Args, "--poll"),
			"falco image": c["falco"].Image, "falco pull": c["falco"].ImagePullPolicy, "falco arg": slices.Contains(c["falco"].Args, "-v"),
			"format": flag(c["bridge"].Args, "--log-format"), "level": flag(c["bridge"].Args, "--log-level"),
			"bridge cpu": c["bridge"].Resources.Limits["cpu"], "falco cpu": c["falco"].Resources.Limits["cpu"],
			"bridge env": c["bridge"].Env[0].Name, "falco env": c["falco"].Env[len(c["falco"].Env)-1].Name,
			"extra volume": c["bridge"].VolumeMounts[len(c["bridge"].VolumeMounts)-1].Name,
		}
		want := map[string]any{
			"account": "watcher", "token": true, "priority": "high", "node": "ssd", "label": "security", "annotation": "b",
			"bridge image": "registry.example.org/tfdrift@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			"bridge pull":  "Always", "poll": "10s", "falco image": "registry.example.org/falco:0.44.0", "falco pull": "Never", "falco arg": true,
			"format": "text", "level": "debug", "bridge cpu": "1", "falco cpu": "2", "bridge env": "GOMEMLIMIT", "falco env": "TZ", "extra volume": "more",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", o.Kind, diff)
		}
	}
	for part, want := range map[string]string{"cloud": "1000000", "sidecar": "2000"} {
		for _, o := range all {
			if c, ok := o.Spec.Template.Spec.containers(t)["bridge"]; ok && strings.HasSuffix(o.Metadata.Name, part) && flag(c.Args, "--retain") != want {
				t.Errorf("%s: --retain=%s, want %s", part, flag(c.Args, "--retain"), want)
			}
		}
	}
	if config := parse(t, all.one(t, "ConfigMap", "-cloud").Data["falco.yaml"]); config["priority"] != "notice" {
		t.Errorf("cloud.falco.config does nothing: %v", config)
	}
	if config := parse(t, all.one(t, "ConfigMap", "-sidecar").Data["tfdrift.yaml"]); config["priority"] != "warning" {
		t.Errorf("sidecar.falco.config does nothing: %v", config)
	}
}

// TestConfigChangeRestartsPods: neither Falco nor the bridge is left with what was.
func TestConfigChangeRestartsPods(t *testing.T) {
	sum := func(set ...string) string {
		return render(t, "", set...).one(t, "Deployment", "").Spec.Template.Metadata.Annotations["checksum/config"]
	}
	if before, after := sum(), sum("--set", "cloud.trail=/elsewhere"); before == "" || before == after {
		t.Errorf("checksum/config %q before and %q after a change", before, after)
	}
}

func TestSchemaRefuses(t *testing.T) {
	for set, want := range map[string]string{
		"clod.enabled=true":                         "clod",
		"cloud.state=/x":                            "state",
		"cloud.falco.confg.x=1":                     "confg",
		"cloud.bridge.resources.limit.cpu=1":        "limit",
		"sidecar.falco.privilegd=true":              "privilegd",
		"image.name=x":                              "name",
		"cloud.replicas=2":                          "replicas",
		"cloud.states=null":                         "states",
		"cloud.states[0]=s3://bucket/key":           "states",
		"cloud.trail=s3://bucket":                   "trail",
		"cloud.history=0":                           "history",
		"cloud.retain=10":                           "retain",
		"bridge.feedPort=http":                      "feedPort",
		"bridge.log.level=loud":                     "level",
		"falcoImage.tag=":                           "tag",
		"image.digest=sha256:abc":                   "digest",
		"cloud.persistence.size=much":               "size",
		"cloud.persistence.accessModes[0]=ReadOnly": "accessModes",
		"sidecar.dataHostPath=relative":             "dataHostPath",
		"sidecar.falco.containerSockets[0]=x.sock":  "containerSockets",
	} {
		_, err := runHelm(t, "template", "rel", chart, "--kube-version", kubeVersion, "--set", set)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "schema") {
			t.Errorf("--set %s: got %v, want a complaint of the schema about %q", set, err, want)
		}
	}
}

// TestSchemaAndValuesAgree: every value is in the schema, which is strict, and every one in the schema has its default.
func TestSchemaAndValuesAgree(t *testing.T) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(read(t, chart+"/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var compare func(at string, schema map[string]any, value any)
	compare = func(at string, schema map[string]any, value any) {
		properties, ok := schema["properties"].(map[string]any)
		object, isObject := value.(map[string]any)
		if !ok || !isObject {
			return
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s allows unknown members", at)
		}
		for name, p := range properties {
			v, has := object[name]
			if !has && !slices.Contains([]string{"global", "claims", "requests", "limits"}, name) {
				t.Errorf("%s.%s is in the schema and has no default", at, name)
			}
			compare(at+"."+name, p.(map[string]any), v)
		}
	}
	compare("", schema, parse(t, read(t, chart+"/values.yaml")))
	// That every value is in the schema is what helm lint says, the schema being strict.
}

// TestValuesAreExplained: each value has a comment above it, or stands in a group that has one.
func TestValuesAreExplained(t *testing.T) {
	explained, names := false, regexp.MustCompile(`^( *)[a-zA-Z]+:`)
	for i, line := range strings.Split(read(t, chart+"/values.yaml"), "\n") {
		switch m := names.FindStringSubmatch(line); {
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
			explained = true
		case line == "":
			explained = false
		case m != nil && !explained && len(m[1]) <= 2:
			t.Errorf("values.yaml:%d: %s has no comment", i+1, strings.TrimSpace(line))
		}
	}
}

// TestNotes renders the text shown after installing; helm template leaves it out, so it is put where it is not.
func TestNotes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), chart)
	if err := os.CopyFS(dir, os.DirFS(chart)); err != nil {
		t.Fatal(err)
	}
	notes := "text: |\n  " + strings.ReplaceAll(read(t, chart+"/templates/NOTES.txt"), "\n", "\n  ")
	if err := os.WriteFile(filepath.Join(dir, "templates/notes.yaml"), []byte(notes), 0o600); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"sidecar.enabled=false": "kubectl -n watch port-forward deploy/rel-tfdrift-falco-cloud 8080:8080",
		"bridge.feedPort=9090":  "kubectl -n watch port-forward deploy/rel-tfdrift-falco-cloud 9090:9090",
		"sidecar.enabled=true":  "kubectl -n watch get pods -o wide -l app.kubernetes.io/instance=rel,app.kubernetes.io/component=sidecar",
		"cloud.trail=":          "cloud.trail is empty",
		"cloud.enabled=false":   "Neither part is enabled",
	} {
		out, err := runHelm(t, "template", "rel", dir, "-n", "watch", "--kube-version", kubeVersion, "--show-only", "templates/notes.yaml", "--set", set)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(parse(t, out)["text"]); !strings.Contains(text, want) {
			t.Errorf("--set %s: notes lack %q:\n%s", set, want, text)
		}
	}
}

// TestReadme: the example is one that the chart takes, and the address named is the one it makes.
func TestReadme(t *testing.T) {
	readme := read(t, chart+"/README.md")
	_, example, _ := strings.Cut(readme, "```yaml\n")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("no example in the README")
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	all := render(t, file)
	all.one(t, "DaemonSet", "")
	if name := strings.TrimPrefix(all.one(t, "Deployment", "").Metadata.Name, "rel-"); !strings.Contains(readme, "deploy/"+name+" ") {
		t.Errorf("the README does not name deploy/%s", name)
	}
}

func TestOldKubernetesIsRefused(t *testing.T) {
	_, err := runHelm(t, "template", "rel", chart, "--kube-version", "1.27.0")
	if err == nil || !strings.Contains(err.Error(), "kubeVersion") {
		t.Errorf("got %v, want a complaint about kubeVersion: an older one would wait for the bridge's container to end", err)
	}
}

// flags are the values of a repeated flag in --name=value form.
func flags(args []string, name string) (found []string) {
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, name+"="); ok {
			found = append(found, value)
		}
	}
	return found
}

// flag is the last value of a flag, "" without one.
func flag(args []string, name string) string {
	if all := flags(args, name); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}
