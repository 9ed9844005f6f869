package field_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

// stateText is a state with one public access block, whose block_public_acls is as given.
func stateText(serial int, acls bool) string {
	return fmt.Sprintf(`{"version":4,"terraform_version":"1.9.5","serial":%d,"lineage":"l-1","outputs":{},"resources":[
		{"module":"module.m","mode":"managed","type":"aws_s3_bucket_public_access_block","name":"logs","provider":"provider[\"registry.terraform.io/hashicorp/aws\"]",
		"instances":[{"schema_version":0,"attributes":{"id":"logs-1","bucket":"logs-1","block_public_acls":%v,"block_public_policy":true,
		"ignore_public_acls":true,"restrict_public_buckets":true},"sensitive_attributes":[]}]}]}`, serial, acls)
}

const publicAccess = `{"eventID":"e1","eventTime":"2024-07-31T12:21:09Z","eventSource":"s3.amazonaws.com","eventName":"PutBucketPublicAccessBlock",` +
	`"awsRegion":"eu-west-1","recipientAccountId":"111122223333","readOnly":false,"userAgent":"aws-cli/2","userIdentity":{"type":"IAMUser","userName":"bob"},` +
	`"requestParameters":{"bucketName":"logs-1","PublicAccessBlockConfiguration":{"BlockPublicAcls":false,"BlockPublicPolicy":true,` +
	`"IgnorePublicAcls":true,"RestrictPublicBuckets":true}}}`

func writeState(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC) // before the records
	if err := os.Chtimes(path+".new", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func engine(t *testing.T, config string) *field.Engine {
	t.Helper()
	c, err := field.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	e, err := field.NewEngine(c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestManaged goes the whole way from a state's file and a record's text to the fields.
func TestManaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prod.tfstate")
	writeState(t, path, stateText(3, true))
	e := engine(t, fmt.Sprintf(`{"states":[%q]}`, path))
	e.Load(t.Context())
	x := e.Extractor()

	x.Load([]byte(publicAccess))
	want := map[string]any{
		"tf.kind": "record", "tf.managed": "true", "tf.address": "module.m.aws_s3_bucket_public_access_block.logs",
		"tf.addresses": []string{"module.m.aws_s3_bucket_public_access_block.logs"}, "tf.type": "aws_s3_bucket_public_access_block",
		"tf.id": "logs-1", "tf.module": "module.m", "tf.provider": `provider["registry.terraform.io/hashicorp/aws"]`,
		"tf.state": "file://" + path, "tf.serial": uint64(3), "tf.lineage": "l-1", "tf.action": "modified",
		"tf.attributes": []string{"block_public_acls"}, "tf.attribute": "false", "tf.old": "true", "tf.by_terraform": "false",
		"tf.actor": "bob", "tf.precision": "exact", "tf.sensitive": "false",
	}
	got := all(x, map[string]string{"tf.attribute": "block_public_acls", "tf.old": "block_public_acls"})
	for name := range got {
		if !strings.HasPrefix(name, "tf.") {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}

	for _, test := range []struct{ change, with, field, want string }{
		{`"logs-1"`, `"other"`, "tf.managed", "false"},
		{`"logs-1"`, `"other"`, "tf.precision", "unresolved"},
		{`"readOnly":false`, `"readOnly":true`, "tf.action", "read"},
		{`"eventID":"e1"`, `"errorCode":"AccessDenied"`, "tf.action", "attempted"},
		{`"BlockPublicAcls":false`, `"BlockPublicAcls":true`, "tf.action", "unchanged"},
		{`aws-cli/2`, `HashiCorp/1.0 Terraform/1.9.5`, "tf.by_terraform", "true"},
	} {
		x.Load([]byte(strings.Replace(publicAccess, test.change, test.with, 1)))
		if got, _ := get(x, test.field, ""); got != test.want {
			t.Errorf("with %s: %s is %v, want %s", test.with, test.field, got, test.want)
		}
	}
}

// TestSensitiveValuesAreMasked: what the state marks must not leave by way of the record either.
func TestSensitiveValuesAreMasked(t *testing.T) {
	dir := t.TempDir()
	path, key := filepath.Join(dir, "prod.tfstate"), filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	mark := func(attribute string) string {
		return strings.Replace(stateText(3, true), `"sensitive_attributes":[]`,
			`"sensitive_attributes":[[{"type":"get_attr","value":"`+attribute+`"}]]`, 1)
	}
	for _, test := range []struct {
		name, state, config string
		hidden, shown       []string
	}{
		{"a value of the state", mark("bucket"), "", []string{"logs-1"}, []string{"BlockPublicPolicy", "true"}},
		{"a value of the state, with a key", mark("bucket"), key, []string{"logs-1"}, []string{"hmac:", "true"}},
		{"a new value", mark("block_public_acls"), "", []string{"false"}, []string{"BlockPublicAcls"}},
		{"a new value, with a key", mark("block_public_acls"), key, []string{"false"}, []string{"true", "logs-1", "hmac:"}},
		{"nothing", stateText(3, true), "", []string{"(sensitive)"}, []string{"logs-1", "false", "true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			writeState(t, path, test.state)
			e := engine(t, fmt.Sprintf(`{"states":[%q],"sensitive_key_file":%q}`, path, test.config))
			e.Load(t.Context())
			x := e.Extractor()
			x.Load([]byte(publicAccess))
			got, _ := get(x, "ct.request", "")
			if managed, _ := get(x, "tf.managed", ""); managed != "true" {
				t.Fatalf("tf.managed is %v", managed)
			}
			for _, word := range test.hidden {
				if strings.Contains(got.(string), word) {
					t.Errorf("%s is shown in %s", word, got)
				}
			}
			for _, word := range test.shown {
				if !strings.Contains(got.(string), word) {
					t.Errorf("%s is not shown in %s", word, got)
				}
			}
		})
	}
}

func TestWatchHandsOutChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "prod.tfstate")
	writeState(t, path, stateText(3, true))
	e := engine(t, fmt.Sprintf(`{"states":[%q],"poll_seconds":1}`, dir))
	e.Load(t.Context())
	documents := make(chan []byte)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- e.Watch(ctx, func(d []byte) error {
			select {
			case documents <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	x := e.Extractor()
	// A first serial has no changes, so the first document is of the second; a write may meet the start of watching.
	for serial := 4; ; serial++ {
		writeState(t, path, stateText(serial, serial%2 == 1))
		select {
		case d := <-documents:
			x.Load(d)
			action, _ := get(x, "tf.action", "")
			attributes, _ := get(x, "tf.attributes", "")
			if action != "modified" || !cmp.Equal(attributes, []string{"block_public_acls"}) {
				t.Errorf("got %s", d)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("no document")
		}
		if serial == 6 {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch: %v", err)
	}
}

func TestAStateThatCannotBeReadStopsNothing(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.tfstate")
	writeState(t, good, stateText(3, true))
	writeState(t, filepath.Join(dir, "bad.tfstate"), `{"version":4,`)
	e := engine(t, fmt.Sprintf(`{"states":[%q,%q,%q]}`, filepath.Join(dir, "missing.tfstate"), filepath.Join(dir, "bad.tfstate"), good))
	e.Load(t.Context())
	x := e.Extractor()
	x.Load([]byte(publicAccess))
	if got, _ := get(x, "tf.managed", ""); got != "true" {
		t.Errorf("tf.managed is %v", got)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("  secret  \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "nope"): "no such file", short: "too few"} {
		_, err := field.NewEngine(field.Config{SensitiveKeyFile: path}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "sensitive_key_file") || strings.Contains(err.Error(), "secret ") {
			t.Errorf("%s: error %v, want one with %q", path, err, want)
		}
	}
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, []byte(strings.Repeat("k", 16)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := field.NewEngine(field.Config{SensitiveKeyFile: long}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}
