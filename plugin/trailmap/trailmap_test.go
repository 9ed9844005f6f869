package trailmap_test

import (
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
	"github.com/tfdrift/tfdrift-falco/tfstate/source"
)

// written is when a case's first state was written; each further one a minute later. Records are made at their own time.
var written = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// update writes what the cases resolve to into them; read the difference before it is kept.
var update = flag.Bool("update", false, "write testdata")

// TestCases runs testdata/*.txtar: states (*.tfstate, in order), one record (record.json), and what it must resolve to.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			inv := inventory.New(inventory.Options{})
			var record, want string
			at := written
			for _, f := range archive.Files {
				switch {
				case strings.HasSuffix(f.Name, ".tfstate"):
					take(t, inv, f.Name, string(f.Data), at)
					at = at.Add(time.Minute)
				case f.Name == "record.json":
					record = string(f.Data)
				case f.Name == "want":
					want = string(f.Data)
				default:
					t.Fatalf("unknown part %q", f.Name)
				}
			}
			r, err := trailmap.New(inv, nil)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := trail.Decode([]byte(strings.TrimSpace(record)))
			if err != nil {
				t.Fatal(err)
			}
			got := spell(r.Resolve(rec))
			if *update {
				archive.Files[len(archive.Files)-1].Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("resolution (-want +got):\n%s", diff)
			}
		})
	}
}

// take hands one state to the inventory. A name like "a-2.tfstate" is a later serial of "a.tfstate".
func take(t testing.TB, inv *inventory.Inventory, name, text string, at time.Time) {
	t.Helper()
	base, _, _ := strings.Cut(strings.TrimSuffix(name, ".tfstate"), "-")
	err := inv.Version(t.Context(), source.Version{
		URI: "test://" + base, Written: at, Size: int64(len(text)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// spell writes a resolution as the cases have it.
func spell(r trailmap.Resolution) string {
	if len(r.Targets) == 0 {
		return "unresolved\n"
	}
	var b strings.Builder
	for _, t := range r.Targets {
		b.WriteString(string(t.Precision) + " " + t.Instance.Address.String() + " in " + t.State)
		if t.Deleted {
			b.WriteString(" deleted")
		}
		if t.Unchanged {
			b.WriteString(" unchanged")
		}
		for _, also := range t.Also {
			b.WriteString(" also " + also)
		}
		b.WriteByte('\n')
		for _, a := range t.Attributes {
			b.WriteString("  " + string(a.Path) + ": " + value(a.Old, a.OldKnown) + " -> " + value(a.New, a.NewKnown) + "\n")
		}
	}
	return b.String()
}

func value(v []byte, known bool) string {
	switch {
	case !known:
		return "unknown"
	case v == nil:
		return "absent"
	}
	return string(v)
}

// TestSensitiveValuesStayInside: a value that the state marks sensitive leaves only redacted, from both sides.
func TestSensitiveValuesStayInside(t *testing.T) {
	inv := inventory.New(inventory.Options{})
	take(t, inv, "a.tfstate", `{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"a","outputs":{},"resources":[
	 {"mode":"managed","type":"aws_s3_bucket_policy","name":"p","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[
	  {"schema_version":0,"attributes":{"id":"b","bucket":"b","policy":"{\"Old\":\"secret-one\"}"},
	   "sensitive_attributes":[[{"type":"get_attr","value":"policy"}]]}]}]}`, written)
	r, err := trailmap.New(inv, tfstate.NewRedactor([]byte("0123456789abcdef")))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := trail.Decode([]byte(`{"eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy","eventTime":"2026-11-20T10:05:00Z",
	 "requestParameters":{"bucketName":"b","bucketPolicy":{"New":"secret-two"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := spell(r.Resolve(rec))
	if strings.Contains(got, "secret") || !strings.Contains(got, "(sensitive) hmac:") {
		t.Errorf("got %s", got)
	}
	// What the plugin hid is compared as it is, and not hidden once more.
	masked := func(hash string) string {
		rec, err := trail.Decode([]byte(`{"eventSource":"s3.amazonaws.com","eventName":"PutBucketPolicy","eventTime":"2026-11-20T10:05:00Z",
	 "requestParameters":{"bucketName":"b","bucketPolicy":"` + hash + `"}}`))
		if err != nil {
			t.Fatal(err)
		}
		return spell(r.Resolve(rec))
	}
	if got := masked("(sensitive) hmac:000000000000"); !strings.Contains(got, `-> "(sensitive) hmac:000000000000"`) {
		t.Errorf("hidden by the plugin: got %s", got)
	}
	_, old, _ := strings.Cut(got, `policy: "`)
	old, _, _ = strings.Cut(old, `"`)
	if got := masked(old); !strings.Contains(got, "unchanged") {
		t.Errorf("hidden by the plugin, unchanged: got %s", got)
	}
	if got := masked("(sensitive)"); !strings.Contains(got, "-> unknown") {
		t.Errorf("hidden without a key: got %s", got)
	}
}

// TestMembersOfASensitiveSetAreHashed: a member's text names it outside of this package, if only in an id.
func TestMembersOfASensitiveSetAreHashed(t *testing.T) {
	inv := inventory.New(inventory.Options{})
	take(t, inv, "a.tfstate", `{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"a","outputs":{},"resources":[
	 {"mode":"managed","type":"aws_security_group","name":"g","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]","instances":[
	  {"schema_version":0,"attributes":{"id":"sg-003dc7f1f1c686164","ingress":[]},"sensitive_attributes":[[{"type":"get_attr","value":"ingress"}]]}]}]}`, written)
	r, err := trailmap.New(inv, tfstate.NewRedactor(nil).Keeping([]byte("0123456789abcdef")))
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]bool{}
	for _, cidr := range []string{"203.0.113.7/32", "203.0.113.8/32", "203.0.113.7/32"} {
		rec, err := trail.Decode([]byte(`{"eventSource":"ec2.amazonaws.com","eventName":"AuthorizeSecurityGroupIngress","eventTime":"2026-11-20T10:05:00Z",
		 "requestParameters":{"groupId":"sg-003dc7f1f1c686164","ipPermissions":{"items":[{"ipProtocol":"tcp","fromPort":22,"toPort":22,"ipRanges":{"items":[{"cidrIp":"` + cidr + `"}]}}]}}}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range r.Resolve(rec).Targets {
			for _, a := range target.Attributes {
				if a.Member == "" || strings.Contains(a.Member, "203.0.113") {
					t.Errorf("got member %q", a.Member)
				}
				members[a.Member] = true
			}
		}
	}
	if len(members) != 2 {
		t.Errorf("got %d members, want 2", len(members))
	}
}
