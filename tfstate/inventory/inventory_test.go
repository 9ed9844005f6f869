package inventory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
	"github.com/tfdrift/tfdrift-falco/tfstate/source/file"
)

const uri = "file:///a.tfstate"

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// minute is a moment so many minutes after epoch.
func minute(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }

// resource is one resource of a state.
type resource struct {
	typ, name  string
	provider   string // "" is aws
	data       bool
	attributes string
	marks      string
}

func state(lineage string, serial int, all ...resource) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":%q,"resources":[`, serial, lineage)
	for i, r := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		mode := "managed"
		if r.data {
			mode = "data"
		}
		if r.marks == "" {
			r.marks = "[]"
		}
		fmt.Fprintf(&b, `{"mode":%q,"type":%q,"name":%q,"provider":%q,"instances":[{"attributes":%s,"sensitive_attributes":%s}]}`,
			mode, r.typ, r.name, "aws"+r.provider, r.attributes, r.marks)
	}
	return b.String() + "]}"
}

func vpc(name, id string) resource {
	return resource{typ: "aws_vpc", name: name, attributes: fmt.Sprintf(
		`{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/%s","id":%q,"owner_id":"111111111111","tags":{"x":"y"}}`, id, id)}
}

func give(t testing.TB, v *inventory.Inventory, at string, written time.Time, text string) {
	t.Helper()
	if err := take(v, at, written, text); err != nil {
		t.Fatal(err)
	}
}

func take(v *inventory.Inventory, at string, written time.Time, text string) error {
	return v.Version(context.Background(), version(at, written, text))
}

func version(at string, written time.Time, text string) source.Version {
	return source.Version{URI: at, Written: written, Size: int64(len(text)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

// names writes candidates for people.
func names(all []inventory.Candidate) []string {
	var out []string
	for _, c := range all {
		line := fmt.Sprintf("%s %s %s", c.Instance.Address, []string{"self", "parent", "reference"}[c.Role], c.Path)
		if !c.Current {
			line += " (older)"
		}
		out = append(out, line)
	}
	return out
}

func serials() (*inventory.Inventory, *[]inventory.Serial) {
	var told []inventory.Serial
	return inventory.New(inventory.Options{History: 3, OnSerial: func(s inventory.Serial) { told = append(told, s) }}), &told
}

func TestSerials(t *testing.T) {
	v, told := serials()
	for i, c := range []struct {
		text string
		want string // kinds of findings and changes; "" for nothing told
	}{
		{state("l", 4, vpc("a", "vpc-1")), "first"},
		{state("l", 4, vpc("a", "vpc-1")), ""},
		{state("l", 9, vpc("a", "vpc-1"), vpc("b", "vpc-2")), "created aws_vpc.b"},
		{state("l", 9, vpc("b", "vpc-2"), vpc("a", "vpc-1")), ""}, // another order
		{state("l", 10, vpc("a", "vpc-1"), vpc("b", "vpc-2")), "nothing"},
		{state("l", 10, vpc("a", "vpc-1")), "same_serial deleted aws_vpc.b"},
		{state("l", 7, vpc("a", "vpc-3")), "serial_backwards replaced aws_vpc.a"},
		{state("m", 1, vpc("z", "vpc-9")), "lineage_changed"},
		{state("m", 2), "deleted aws_vpc.z"},
	} {
		before := len(*told)
		give(t, v, uri, minute(i), c.text)
		got := ""
		if len(*told) > before {
			got = words((*told)[before])
		}
		if got != c.want {
			t.Errorf("content %d: told %q, want %q", i, got, c.want)
		}
	}
	last := (*told)[len(*told)-1]
	if want := (inventory.Serial{State: uri, Lineage: "m", Terraform: "1.11.4", Serial: 2, Previous: 1, Written: minute(8)}); last.Serial != want.Serial ||
		last.Previous != want.Previous || last.Written != want.Written || last.First || last.Instances != 0 || last.State != uri {
		t.Errorf("last told %+v", last)
	}
}

func words(s inventory.Serial) string {
	var all []string
	if s.First {
		all = append(all, "first")
	}
	for _, f := range s.Findings {
		all = append(all, f.Kind)
	}
	for _, c := range s.Changes {
		all = append(all, string(c.Action)+" "+c.Address.String())
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, " ")
}

func TestBrokenContent(t *testing.T) {
	v, told := serials()
	give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
	text := state("l", 2, vpc("a", "vpc-2"))
	for _, cut := range []string{"", text[:len(text)/2], `{"version":3}`} {
		if err := take(v, uri, minute(1), cut); err == nil || !strings.Contains(err.Error(), uri) {
			t.Errorf("%q: %v, want an error that names the state", cut, err)
		}
	}
	if err := take(v, uri, minute(1), ""); !errors.Is(err, tfstate.ErrIncomplete) {
		t.Errorf("%v, want incomplete", err)
	}
	if got := names(v.Lookup("", "", "vpc-1")); len(got) != 2 || len(*told) != 1 {
		t.Errorf("after broken contents: %v, %d told", got, len(*told))
	}
}

func TestIdentifiers(t *testing.T) {
	v := inventory.New(inventory.Options{})
	give(t, v, uri, minute(0), state("l", 1,
		resource{typ: "aws_s3_bucket", name: "logs", attributes: `{"arn":"arn:aws:s3:::logs","bucket":"logs","id":"logs","region":"eu-west-1"}`},
		resource{typ: "aws_s3_bucket_policy", name: "logs", attributes: `{"bucket":"logs","id":"logs","policy":"{}"}`},
		resource{typ: "aws_s3_object", name: "o", attributes: `{"bucket":"logs","id":"key","key":"key"}`},
		resource{typ: "aws_iam_role", name: "r", attributes: `{"arn":"arn:aws:iam::111111111111:role/path/app","id":"app","name":"app","unique_id":"AROAEXAMPLE"}`},
		resource{typ: "aws_iam_role_policy", name: "r", attributes: `{"id":"app:inline","name":"inline","role":"app"}`},
		resource{typ: "aws_iam_role_policy_attachment", name: "r", attributes: `{"id":"app-2026","policy_arn":"arn:aws:iam::aws:policy/ReadOnlyAccess","role":"app"}`},
		resource{typ: "aws_security_group_rule", name: "in", attributes: `{"id":"sgrule-1","security_group_id":"sg-1","source_security_group_id":"sg-2"}`},
		resource{typ: "aws_sqs_queue", name: "q", attributes: `{"arn":"arn:aws:sqs:eu-west-1:111111111111:jobs","id":"https://sqs.eu-west-1.amazonaws.com/111111111111/jobs","name":"jobs","url":"https://sqs.eu-west-1.amazonaws.com/111111111111/jobs"}`},
		resource{typ: "aws_rds_cluster", name: "c", attributes: `{"arn":"arn:aws:rds:eu-west-1:111111111111:cluster:main","cluster_identifier":"main","id":"main"}`},
		resource{typ: "aws_rds_cluster_instance", name: "c", attributes: `{"cluster_identifier":"main","id":"main-0","identifier":"main-0"}`},
		resource{typ: "aws_lambda_function", name: "f", attributes: `{"arn":"arn:aws:lambda:eu-west-1:111111111111:function:work","function_name":"work","id":"work"}`},
		resource{typ: "aws_lambda_permission", name: "f", attributes: `{"function_name":"work","id":"allow","statement_id":"allow"}`},
		resource{typ: "aws_kms_alias", name: "k", attributes: `{"id":"alias/k","name":"alias/k","target_key_id":"1234-abcd"}`},
		resource{typ: "aws_kms_grant", name: "k", attributes: `{"grant_id":"g1","id":"1234-abcd:g1","key_id":"1234-abcd"}`},
		resource{typ: "aws_db_instance", name: "d", attributes: `{"arn":"arn:aws:rds:eu-west-1:111111111111:db:orders","id":"db-ABC","identifier":"orders","resource_id":"db-ABC","vpc_security_group_ids":["sg-1"]}`},
		resource{typ: "aws_eks_node_group", name: "n", attributes: `{"cluster_name":"prod","id":"prod:blue","node_group_name":"blue"}`},
		resource{typ: "aws_cloudwatch_log_group", name: "l", attributes: `{"arn":"arn:aws:logs:eu-west-1:111111111111:log-group:/aws/lambda/work:*","id":"/aws/lambda/work","name":"/aws/lambda/work"}`},
		resource{typ: "aws_ecs_task_definition", name: "t", attributes: `{"arn":"arn:aws:ecs:eu-west-1:111111111111:task-definition/web:3","id":"web","family":"web"}`},
		resource{typ: "aws_lambda_layer_version", name: "y", attributes: `{"arn":"arn:aws:lambda:eu-west-1:111111111111:layer:libs:4","id":"arn:aws:lambda:eu-west-1:111111111111:layer:libs:4"}`},
	))
	for id, want := range map[string][]string{
		"logs": {"aws_s3_bucket.logs self id", "aws_s3_bucket.logs self arn", "aws_s3_bucket.logs self bucket",
			"aws_s3_bucket_policy.logs self id", "aws_s3_bucket_policy.logs self bucket", "aws_s3_object.o parent bucket"},
		"arn:aws:s3:::logs": {"aws_s3_bucket.logs self arn"},
		"app": {"aws_iam_role.r self id", "aws_iam_role.r self arn", "aws_iam_role.r self name",
			"aws_iam_role_policy.r parent role", "aws_iam_role_policy_attachment.r parent role"},
		"AROAEXAMPLE":    {"aws_iam_role.r self unique_id"},
		"inline":         {"aws_iam_role_policy.r self name"},
		"ReadOnlyAccess": {"aws_iam_role_policy_attachment.r reference policy_arn"},
		"sg-1":           {"aws_security_group_rule.in parent security_group_id"}, // in a list: out of scope
		"sg-2":           {"aws_security_group_rule.in reference source_security_group_id"},
		"jobs":           {"aws_sqs_queue.q self id", "aws_sqs_queue.q self arn", "aws_sqs_queue.q self name", "aws_sqs_queue.q self url"},
		"main": {"aws_rds_cluster.c self id", "aws_rds_cluster.c self arn", "aws_rds_cluster.c self cluster_identifier",
			"aws_rds_cluster_instance.c parent cluster_identifier"},
		"work":             {"aws_lambda_function.f self id", "aws_lambda_function.f self arn", "aws_lambda_function.f self function_name", "aws_lambda_permission.f parent function_name"},
		"1234-abcd":        {"aws_kms_grant.k parent key_id", "aws_kms_alias.k reference target_key_id"},
		"orders":           {"aws_db_instance.d self arn", "aws_db_instance.d self identifier"},
		"db-ABC":           {"aws_db_instance.d self id", "aws_db_instance.d self resource_id"},
		"prod":             {"aws_eks_node_group.n parent cluster_name"},
		"web:3":            {"aws_ecs_task_definition.t self arn"},
		"/aws/lambda/work": {"aws_cloudwatch_log_group.l self id", "aws_cloudwatch_log_group.l self arn", "aws_cloudwatch_log_group.l self name"},
		"111111111111":     nil, "*": nil, "3": nil, "4": nil, "{}": nil, "": nil, "nobody": nil,
	} {
		if d := cmp.Diff(want, names(v.Lookup("", "", id))); d != "" {
			t.Errorf("%s (-want +got):\n%s", id, d)
		}
	}
}

func TestPlace(t *testing.T) {
	v := inventory.New(inventory.Options{})
	give(t, v, uri, minute(0), state("l", 1,
		resource{typ: "aws_vpc", name: "ours", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/x","id":"x"}`},
		resource{typ: "aws_route", name: "by_provider", attributes: `{"id":"x"}`},
		resource{typ: "aws_route", name: "other_provider", provider: ".other", attributes: `{"id":"x"}`},
		resource{typ: "aws_route", name: "unclear", provider: ".two", attributes: `{"id":"x"}`},
		resource{typ: "aws_vpc", name: "two_a", provider: ".two", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/a","id":"a"}`},
		resource{typ: "aws_vpc", name: "two_b", provider: ".two", attributes: `{"arn":"arn:aws:ec2:eu-west-1:222222222222:vpc/b","id":"b"}`},
		resource{typ: "aws_iam_policy", name: "of_aws", data: true, attributes: `{"arn":"arn:aws:iam::aws:policy/x","id":"x"}`},
		resource{typ: "aws_ami", name: "data_is_no_proof", provider: ".other", data: true, attributes: `{"arn":"arn:aws:ec2:eu-west-1:333333333333:image/i","id":"i"}`},
		resource{typ: "aws_subnet", name: "owner", provider: ".other2", attributes: `{"id":"x","owner_id":"222222222222","region":"us-east-1"}`},
		resource{typ: "aws_vpc", name: "china", provider: ".cn", attributes: `{"arn":"arn:aws-cn:ec2:cn-north-1:444444444444:vpc/x","id":"x"}`},
		resource{typ: "aws_route", name: "china", provider: ".cn", attributes: `{"id":"x"}`},
		resource{typ: "github_repository", name: "no_account", provider: ".gh", attributes: `{"id":"x","owner_id":"octocat"}`},
	))
	unknown := []string{"aws_route.other_provider", "aws_route.unclear", "data.aws_iam_policy.of_aws", "github_repository.no_account"}
	for asked, want := range map[[2]string][]string{
		{"111111111111", "eu-west-1"}:  append([]string{"aws_vpc.ours", "aws_route.by_provider"}, unknown...),
		{"111111111111", "us-east-1"}:  append([]string{"aws_route.by_provider"}, unknown...),
		{"222222222222", "us-east-1"}:  append([]string{"aws_subnet.owner"}, unknown...),
		{"444444444444", "cn-north-1"}: append([]string{"aws_vpc.china", "aws_route.china"}, unknown...),
		{"999999999999", "eu-west-1"}:  unknown,
		{"444444444444", ""}:           append([]string{"aws_vpc.china", "aws_route.china"}, unknown...),
	} {
		got := map[string]bool{}
		for _, c := range v.Lookup(asked[0], asked[1], "x") {
			got[c.Instance.Address.String()] = true
		}
		wanted := map[string]bool{}
		for _, a := range want {
			if a == "data.aws_iam_policy.of_aws" && asked[0] != "111111111111" {
				continue // its provider's account
			}
			wanted[a] = true
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%v (-want +got):\n%s", asked, d)
		}
	}
	if got := len(v.Lookup("", "", "x")); got < 9 {
		t.Errorf("any account and region: %d", got)
	}
}

// TestNear: the region of the ARNs beside an instance, where they agree.
func TestNear(t *testing.T) {
	v := inventory.New(inventory.Options{})
	give(t, v, uri, minute(0), state("l", 1,
		resource{typ: "aws_vpc", name: "ours", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/v","id":"v"}`},
		resource{typ: "aws_iam_role", name: "global", attributes: `{"arn":"arn:aws:iam::111111111111:role/r","id":"r"}`},
		resource{typ: "aws_route", name: "beside", attributes: `{"id":"x"}`},
		resource{typ: "aws_route", name: "alone", provider: ".other", attributes: `{"id":"x"}`},
		resource{typ: "aws_vpc", name: "here", provider: ".two", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/a","id":"a"}`},
		resource{typ: "aws_vpc", name: "there", provider: ".two", attributes: `{"arn":"arn:aws:ec2:us-east-1:111111111111:vpc/b","id":"b"}`},
		resource{typ: "aws_route", name: "unclear", provider: ".two", attributes: `{"id":"x"}`},
	))
	got := map[string]string{}
	for _, c := range v.Lookup("", "", "x") {
		got[c.Instance.Address.String()] = c.Near
	}
	want := map[string]string{"aws_route.beside": "eu-west-1", "aws_route.alone": "", "aws_route.unclear": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestHistory asks for instances at moments, over more serials than are kept.
func TestHistory(t *testing.T) {
	v, _ := serials()
	for n := 1; n <= 5; n++ {
		give(t, v, uri, minute(n*10), state("l", n, vpc("a", "vpc-1"), resource{typ: "aws_eip", name: "e", attributes: fmt.Sprintf(`{"id":"e","n":%d}`, n)}))
	}
	a, err := tfstate.ParseAddress("aws_eip.e")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{25: "", 30: "", 31: "3", 40: "3", 41: "4", 50: "4", 51: "5", 500: "5"} {
		i, s, ok := v.At(uri, a, minute(at))
		got := ""
		if ok {
			n, _ := i.Get("n")
			got = string(n)
			if fmt.Sprint(s.Serial) != got || s.State != uri || s.Lineage != "l" {
				t.Errorf("at %d: snapshot %+v", at, s)
			}
		}
		if got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	if _, s, ok := v.At(uri, tfstate.Address{Type: "aws_eip", Name: "none"}, minute(500)); ok || s.Serial != 5 {
		t.Errorf("an address that is not there: %v, %+v", ok, s)
	}
	if _, s, ok := v.At("file:///other", a, minute(500)); ok || s != (inventory.Snapshot{}) {
		t.Errorf("a state that is not there: %v, %+v", ok, s)
	}
	if got := names(v.Lookup("", "", "e")); len(got) != 1 {
		t.Errorf("an instance in several serials: %v", got)
	}
	give(t, v, uri, minute(60), state("other", 1))
	if _, _, ok := v.At(uri, a, minute(51)); ok || len(v.Lookup("", "", "e")) > 0 {
		t.Error("another lineage begins a new history")
	}
}

// TestReplacedAndMoved follows objects whose address or id changed, until their serials are forgotten.
func TestReplacedAndMoved(t *testing.T) {
	v, _ := serials()
	give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1"), vpc("m", "vpc-9"), vpc("gone", "vpc-7")))
	give(t, v, uri, minute(10), state("l", 2, vpc("a", "vpc-2"), vpc("n", "vpc-9")))
	for id, want := range map[string][]string{
		"vpc-1": {"aws_vpc.a self id (older)", "aws_vpc.a self arn (older)"},
		"vpc-2": {"aws_vpc.a self id", "aws_vpc.a self arn"},
		"vpc-9": {"aws_vpc.n self id", "aws_vpc.n self arn"},
		"vpc-7": {"aws_vpc.gone self id (older)", "aws_vpc.gone self arn (older)"},
	} {
		if d := cmp.Diff(want, names(v.Lookup("111111111111", "eu-west-1", id))); d != "" {
			t.Errorf("%s (-want +got):\n%s", id, d)
		}
	}
	moved := tfstate.Address{Type: "aws_vpc", Name: "n"}
	if i, _, ok := v.At(uri, moved, minute(5)); !ok || i.Address.Name != "m" {
		t.Errorf("before it moved: %+v, %v", i, ok)
	}
	if i, _, ok := v.At(uri, tfstate.Address{Type: "aws_vpc", Name: "a"}, minute(5)); !ok || i.ID() != "vpc-1" {
		t.Errorf("before it was replaced: %+v, %v", i, ok)
	}
	give(t, v, uri, minute(20), state("l", 3, vpc("a", "vpc-2"), vpc("n", "vpc-9"), vpc("back", "vpc-7")))
	if d := cmp.Diff([]string{"aws_vpc.back self id", "aws_vpc.back self arn"}, names(v.Lookup("", "", "vpc-7"))); d != "" {
		t.Errorf("come back (-want +got):\n%s", d)
	}
	give(t, v, uri, minute(30), state("l", 4, vpc("a", "vpc-2"), vpc("n", "vpc-9"), vpc("back", "vpc-7")))
	if got := names(v.Lookup("", "", "vpc-1")); len(got) > 0 {
		t.Errorf("of a serial that is forgotten: %v", got)
	}
}

// TestClock gives times that cannot be.
func TestClock(t *testing.T) {
	v, told := serials()
	give(t, v, uri, minute(10), state("l", 1, vpc("a", "vpc-1")))
	give(t, v, uri, minute(5), state("l", 2, vpc("a", "vpc-2"))) // a copy that kept an old file's time
	a := tfstate.Address{Type: "aws_vpc", Name: "a"}
	if i, _, ok := v.At(uri, a, minute(7)); ok {
		t.Errorf("at a time before the first serial: %s", i.ID())
	}
	if i, _, ok := v.At(uri, a, minute(11)); !ok || i.ID() != "vpc-1" {
		t.Errorf("after the first serial: %v", ok)
	}
	if i, _, ok := v.At(uri, a, time.Now().Add(time.Minute)); !ok || i.ID() != "vpc-2" {
		t.Errorf("now: %v", ok)
	}
	if s := (*told)[1]; s.Written.Before(minute(10)) {
		t.Errorf("told as written at %v, before the serial before it", s.Written)
	}
	ahead := inventory.New(inventory.Options{})
	give(t, ahead, uri, time.Now().Add(24*time.Hour), state("l", 1, vpc("a", "vpc-1"))) // a clock that is ahead
	give(t, ahead, uri, time.Now().Add(-time.Second), state("l", 2, vpc("a", "vpc-2")))
	if i, _, ok := ahead.At(uri, a, time.Now().Add(time.Minute)); !ok || i.ID() != "vpc-2" {
		t.Errorf("after the clock was put right: %v", ok)
	}
}

// TestTouched reads a content again that differs in its time and in what it marks alone.
func TestTouched(t *testing.T) {
	v, told := serials()
	r := vpc("a", "vpc-1")
	give(t, v, uri, minute(0), state("l", 1, r))
	r.marks = `[[{"type":"get_attr","value":"tags"}]]`
	give(t, v, uri, minute(10), state("l", 1, r))
	if len(*told) != 1 {
		t.Errorf("told %d serials of one", len(*told))
	}
	i, s, ok := v.At(uri, tfstate.Address{Type: "aws_vpc", Name: "a"}, minute(1))
	if !ok || !i.IsSensitive("tags.x") || s.Written != minute(0) {
		t.Errorf("marks %q, written %v, %v", i.Sensitive, s.Written, ok)
	}
	if c := v.Lookup("", "", "vpc-1"); len(c) != 2 || !c[0].Instance.IsSensitive("tags") || !c[0].Current {
		t.Errorf("looked up: %v", names(c))
	}
	if got := v.SameType(uri, "aws_vpc"); len(got) != 1 || got[0] != i {
		t.Errorf("of the type: %v", got)
	}
}

// TestFaultOfWhatGoes: a file that never was a state and is taken away is not said to be readable.
func TestFaultOfWhatGoes(t *testing.T) {
	var log bytes.Buffer
	v := inventory.New(inventory.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	v.Fault(uri, errors.New("not a raw Terraform state"))
	v.Fault(uri, nil)
	if text := log.String(); len(v.States()) > 0 || strings.Contains(text, "read again") || !strings.Contains(text, "is gone") {
		t.Errorf("states %v, log:\n%s", v.States(), text)
	}
}

func TestFault(t *testing.T) {
	v, _ := serials()
	fault := errors.New("the file is not there")
	v.Fault("file:///b.tfstate", nil) // of nothing
	v.Fault(uri, fault)
	if got := v.States(); len(got) != 1 || !errors.Is(got[0].Fault, fault) || got[0].State != uri || !got[0].Read.IsZero() {
		t.Errorf("states %+v", got)
	}
	if _, ok := v.Newest(uri); ok {
		t.Error("a newest serial of a state never read")
	}
	give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
	if info, ok := v.State(uri); !ok || info.Fault != nil || info.Serial != 1 || info.Instances != 1 || info.Terraform != "1.11.4" || info.Read.IsZero() {
		t.Errorf("after it was read: %+v", info)
	}
	v.Fault(uri, fault)
	if info, _ := v.State(uri); !errors.Is(info.Fault, fault) || len(v.Lookup("", "", "vpc-1")) == 0 {
		t.Errorf("a fault forgets what was read: %+v", info)
	}
	give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
	if info, _ := v.State(uri); info.Fault != nil {
		t.Errorf("read again unchanged: %+v", info)
	}
	if _, ok := v.State("file:///c"); ok {
		t.Error("a state nobody spoke of")
	}
}

// TestReaders asks while states change: no answer is a mixture, and OnSerial is called by one at a time.
func TestReaders(t *testing.T) {
	var inside atomic.Int32
	order := map[string]uint64{}
	v := inventory.New(inventory.Options{History: 2, OnSerial: func(s inventory.Serial) {
		if inside.Add(1) != 1 {
			t.Error("OnSerial was called twice at once")
		}
		if s.Serial != order[s.State]+1 {
			t.Errorf("%s: serial %d after %d", s.State, s.Serial, order[s.State])
		}
		order[s.State] = s.Serial
		inside.Add(-1)
	}})
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		at := fmt.Sprintf("file:///%d", w)
		writers.Go(func() {
			for n := 1; n <= 50; n++ {
				if err := take(v, at, minute(n), state("l", n, vpc("a", "vpc-0"), vpc("b", fmt.Sprintf("vpc-%d", n)))); err != nil {
					t.Error(err)
				}
			}
		})
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, c := range v.Lookup("111111111111", "eu-west-1", "vpc-0") {
					if c.Instance.ID() != "vpc-0" {
						t.Errorf("vpc-0 gave %s", c.Instance.ID())
					}
				}
				v.At(at, tfstate.Address{Type: "aws_vpc", Name: "b"}, minute(20))
				v.States()
				v.SameType(at, "aws_vpc")
				v.Fault("file:///x", errors.New("x"))
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if got := len(v.Lookup("", "", "vpc-0")); got != 8 {
		t.Errorf("%d candidates in four states, want 8", got)
	}
	if got := names(v.Lookup("", "", "vpc-48")); len(got) > 0 {
		t.Errorf("of a forgotten serial: %v", got)
	}
}

// TestFromFile reads a directory with the real source.
func TestFromFile(t *testing.T) {
	dir := t.TempDir()
	s, err := file.New(dir, file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/a.tfstate"
	if err := write(path, []byte(state("a", 1, vpc("a", "vpc-1")))); err != nil {
		t.Fatal(err)
	}
	v := inventory.New(inventory.Options{})
	if err := s.Load(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if info, ok := v.State("file://" + path); !ok || info.Serial != 1 || info.Instances != 1 {
		t.Errorf("%+v, %v", info, ok)
	}
}

// TestAPlaceThatFillsIsNoState: a folder that was missing at first leaves no row of its own behind.
func TestAPlaceThatFillsIsNoState(t *testing.T) {
	v := inventory.New(inventory.Options{})
	v.Fault("file:///later", errors.New("missing"))
	if states := v.States(); len(states) != 1 || states[0].Fault == nil {
		t.Fatalf("got %+v", states)
	}
	v.Fault("file:///later", nil)
	if states := v.States(); len(states) != 0 {
		t.Errorf("got %+v", states)
	}
}

// TestOfType: an instance counts where its account and region are both known, and only the newest serial's.
func TestOfType(t *testing.T) {
	v := inventory.New(inventory.Options{})
	give(t, v, uri, minute(0), state("l", 1, resource{typ: "aws_vpc", name: "gone", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/g","id":"g"}`}))
	give(t, v, uri, minute(1), state("l", 2,
		resource{typ: "aws_vpc", name: "ours", attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/x","id":"x"}`},
		resource{typ: "aws_vpc", name: "by_provider", attributes: `{"id":"y","region":"eu-west-1"}`},
		resource{typ: "aws_vpc", name: "no_region", attributes: `{"id":"z"}`},
		resource{typ: "aws_vpc", name: "no_account", provider: ".other", attributes: `{"id":"u","region":"eu-west-1"}`},
		resource{typ: "aws_vpc", name: "read", data: true, attributes: `{"arn":"arn:aws:ec2:eu-west-1:111111111111:vpc/d","id":"d"}`},
		resource{typ: "aws_eip", name: "other", attributes: `{"id":"e","region":"eu-west-1"}`},
	))
	for asked, want := range map[[2]string][]string{
		{"111111111111", "eu-west-1"}: {"aws_vpc.by_provider", "aws_vpc.no_region", "aws_vpc.ours"},
		{"111111111111", "us-east-1"}: nil,
		{"222222222222", "eu-west-1"}: nil,
		{"", ""}:                      nil,
	} {
		var got []string
		for _, c := range v.OfType(asked[0], asked[1], "aws_vpc") {
			got = append(got, c.Instance.Address.String())
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v (-want +got):\n%s", asked, d)
		}
	}
}

// TestTwoSourcesOfOneState: what one source has read is not told after what another has read of the same place since.
func TestTwoSourcesOfOneState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, told := serials()
		give(t, v, uri, minute(0), state("l", 1, vpc("a", "vpc-1")))
		serial := 2
		slow := version(uri, minute(1), "")
		slow.Open = func(context.Context) (io.ReadCloser, error) {
			text := state("l", serial, vpc("a", "vpc-2"))
			time.Sleep(time.Minute)
			return io.NopCloser(strings.NewReader(text)), nil
		}
		ended := make(chan error, 1)
		go func() { ended <- v.Version(t.Context(), slow) }()
		synctest.Wait()
		give(t, v, uri, minute(2), state("l", 3, vpc("a", "vpc-3")))
		if err := <-ended; err != nil {
			t.Error(err)
		}
		var got []string
		for _, s := range *told {
			got = append(got, words(s))
		}
		if d := cmp.Diff([]string{"first", "replaced aws_vpc.a", "replaced aws_vpc.a"}, got); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
		stopped, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		serial = 4
		go func() { ended <- v.Version(t.Context(), slow) }()
		synctest.Wait()
		if err := v.Version(stopped, version(uri, minute(3), state("l", 5))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting beyond the end: %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestUnseen: serials that lie around a moment and were never read.
func TestUnseen(t *testing.T) {
	v := inventory.New(inventory.Options{})
	for _, serial := range []int{4, 5, 9} {
		text := fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[
		 {"mode":"managed","type":"t","name":"a","provider":"p","instances":[{"attributes":{"id":"x","n":%d}}]}]}`, serial, serial)
		at := time.Date(2026, 11, 20, 10, serial, 0, 0, time.UTC)
		content := source.Version{URI: "test://a", Written: at, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(text)), nil
		}}
		if err := v.Version(t.Context(), content); err != nil {
			t.Fatal(err)
		}
	}
	a := tfstate.Address{Type: "t", Name: "a"}
	for minute, want := range map[int]bool{3: false, 4: false, 5: false, 6: true, 9: true, 10: false} {
		next, unseen := v.Unseen("test://a", a, time.Date(2026, 11, 20, 10, minute, 0, 0, time.UTC))
		if unseen != want || unseen != (next != nil) {
			t.Errorf("minute %d: got %v %v, want %v", minute, next, unseen, want)
		}
	}
}
