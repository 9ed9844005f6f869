package trailmap_test

import (
	"context"
	"errors"
	"fmt"
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
)

// kept stores what an inventory gives away of its states, as a journal does.
type kept struct {
	heads map[string][]inventory.Head
	rows  map[string]map[string][]inventory.Row
}

func (k *kept) put(s inventory.Serial) {
	if s.Keep == nil {
		return
	}
	if k.heads == nil {
		k.heads, k.rows = map[string][]inventory.Head{}, map[string]map[string][]inventory.Row{}
	}
	if k.rows[s.State] == nil {
		k.rows[s.State] = map[string][]inventory.Row{}
	}
	k.heads[s.State] = append(k.heads[s.State], s.Keep.Head)
	for key, body := range s.Keep.Rows {
		all := k.rows[s.State][string(key)]
		if n := len(all); n > 0 && all[n-1].Last == 0 {
			all[n-1].Last = s.Keep.Head.N - 1
		}
		if body != nil {
			all = append(all, inventory.Row{First: s.Keep.Head.N, Key: key, Body: body})
		}
		k.rows[s.State][string(key)] = all
	}
}

func (k *kept) past(_ context.Context, state string) (inventory.Past, error) {
	return inventory.Past{Heads: k.heads[state], Rows: func(yield func(inventory.Row, error) bool) {
		for _, all := range k.rows[state] {
			for _, r := range all {
				if !yield(r, nil) {
					return
				}
			}
		}
	}}, nil
}

func (k *kept) inventory(red *tfstate.Redactor) *inventory.Inventory {
	return inventory.New(inventory.Options{Redactor: red, Past: k.past, OnSerial: k.put})
}

// given is a case's states, in order.
type given struct {
	name, text string
	at         time.Time
}

func resolve(t *testing.T, inv *inventory.Inventory, red *tfstate.Redactor, record string) string {
	t.Helper()
	r, err := trailmap.New(inv, red)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := trail.Decode([]byte(strings.TrimSpace(record)))
	if err != nil {
		t.Fatal(err)
	}
	return spell(r.Resolve(rec))
}

// TestCasesAfterARestart resolves every case once more with states that were stored: those whose newest serial was read
// again, and those that cannot be read, of which sensitive values are known by their hashes alone.
func TestCasesAfterARestart(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	red := tfstate.NewRedactor(nil).Keeping([]byte("the key of a store"))
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var states []given
			var record, want string
			for _, f := range archive.Files {
				switch f.Name {
				case "record.json":
					record = string(f.Data)
				case "want":
					want = string(f.Data)
				default:
					states = append(states, given{f.Name, string(f.Data), written.Add(time.Duration(len(states)) * time.Minute)})
				}
			}
			store := &kept{}
			live := store.inventory(red)
			newest := map[string]given{}
			for _, s := range states {
				take(t, live, s.name, s.text, s.at)
				base, _, _ := strings.Cut(strings.TrimSuffix(s.name, ".tfstate"), "-")
				newest[base] = s
			}
			unread, again := store.inventory(red), (&kept{heads: store.heads, rows: store.rows}).inventory(red)
			for base, s := range newest {
				unread.Fault("test://"+base, errors.New("cannot be read"))
				take(t, again, s.name, s.text, s.at)
			}
			if d := cmp.Diff(want, resolve(t, again, red, record)); d != "" {
				t.Errorf("read again (-want +got):\n%s", d)
			}
			if d := cmp.Diff(want, resolve(t, unread, red, record)); d != "" {
				t.Errorf("unread (-want +got):\n%s", d)
			}
		})
	}
}

// TestOldValuesKnownByTheirHash: an older serial was stored, and the newest has other values. What the hash answers is told;
// what it cannot answer is not known, and nothing is told as changed that may be the same.
func TestOldValuesKnownByTheirHash(t *testing.T) {
	state := func(serial int, acls, policy, ports string) string {
		mark := func(name string) string { return `[[{"type":"get_attr","value":"` + name + `"}]]` }
		one := func(typ, attributes, marks string) string {
			return fmt.Sprintf(`{"mode":"managed","type":%q,"name":"x","provider":"p","instances":[{"attributes":%s,"sensitive_attributes":%s}]}`, typ, attributes, marks)
		}
		return fmt.Sprintf(`{"version":4,"terraform_version":"1.11.4","serial":%d,"lineage":"l","resources":[%s]}`, serial, strings.Join([]string{
			one("aws_s3_bucket_public_access_block", `{"id":"b","bucket":"b","block_public_acls":`+acls+`}`, mark("block_public_acls")),
			one("aws_s3_bucket_policy", fmt.Sprintf(`{"id":"b","bucket":"b","policy":%q}`, policy), mark("policy")),
			one("aws_security_group", `{"id":"sg-0123456789abcdef0","arn":"arn:aws:ec2:eu-west-1:111111111111:security-group/sg-0123456789abcdef0","ingress":[{"cidr_blocks":["`+ports+`"],"from_port":22,"to_port":22,"protocol":"tcp"}]}`, mark("ingress")),
		}, ","))
	}
	red := tfstate.NewRedactor(nil).Keeping([]byte("the key of a store"))
	store := &kept{}
	first := store.inventory(red)
	take(t, first, "a.tfstate", state(1, "true", `{"Sid":"one","Effect":"Deny"}`, "10.0.0.0/8"), written)
	now := state(2, "false", `{"Sid":"two"}`, "192.168.0.0/16")
	take(t, first, "a-2.tfstate", now, written.Add(time.Hour))
	another := tfstate.NewRedactor([]byte("a key that was given later")).Keeping([]byte("the key of a store"))
	call := func(source, name, parameters string) string {
		return fmt.Sprintf(`{"eventSource":"%s.amazonaws.com","eventName":%q,"eventTime":"2026-11-20T10:05:00Z","awsRegion":"eu-west-1","requestParameters":%s}`, source, name, parameters)
	}
	acls := func(v string) string {
		return call("s3", "PutBucketPublicAccessBlock", `{"bucketName":"b","PublicAccessBlockConfiguration":{"BlockPublicAcls":`+v+`}}`)
	}
	policy := func(v string) string { return call("s3", "PutBucketPolicy", `{"bucketName":"b","bucketPolicy":`+v+`}`) }
	for name, c := range map[string]struct {
		red          *tfstate.Redactor
		record, want string
	}{
		"another value": {red, acls("false"), `exact aws_s3_bucket_public_access_block.x in test://a
  block_public_acls: "(sensitive)" -> "(sensitive)"
`},
		"the same":                    {red, acls("true"), "exact aws_s3_bucket_public_access_block.x in test://a unchanged\n"},
		"the same, quoted":            {red, acls(`"true"`), "exact aws_s3_bucket_public_access_block.x in test://a unchanged\n"},
		"under another key":           {another, acls("true"), "partial aws_s3_bucket_public_access_block.x in test://a\n  block_public_acls: unknown -> SHOWN\n"},
		"the same document":           {red, policy(`{"Sid":"one","Effect":"Deny"}`), "exact aws_s3_bucket_policy.x in test://a unchanged\n"},
		"a document in another order": {red, policy(`{"Effect":"Deny","Sid":"one"}`), "partial aws_s3_bucket_policy.x in test://a\n  policy: unknown -> \"(sensitive)\"\n"},
		"members of a list": {
			red, call("ec2", "AuthorizeSecurityGroupIngress", `{"groupId":"sg-0123456789abcdef0","ipPermissions":{"items":[{"ipProtocol":"tcp","fromPort":22,"toPort":22,"ipRanges":{"items":[{"cidrIp":"10.0.0.0/8"}]}}]}}`),
			"partial aws_security_group.x in test://a\n  ingress: unknown -> \"(sensitive)\"\n",
		},
	} {
		again := (&kept{heads: store.heads, rows: store.rows}).inventory(c.red)
		take(t, again, "a-2.tfstate", now, written.Add(time.Hour))
		got := resolve(t, again, c.red, c.record)
		want := strings.ReplaceAll(c.want, "SHOWN", string(c.red.Value([]byte("true"))))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
