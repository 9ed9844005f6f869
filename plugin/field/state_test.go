package field_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

var bucket = tfstate.Address{Module: "module.a", Type: "aws_s3_bucket", Name: "logs"}

func serialOf(changes ...tfstate.Change) inventory.Serial {
	return inventory.Serial{
		State: "file:///s/prod.tfstate", Lineage: "l-1", Terraform: "1.9.5", Serial: 7, Previous: 6,
		Written: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), Changes: changes,
	}
}

func TestEncodeIsTheDocumentedJSON(t *testing.T) {
	s := serialOf(tfstate.Change{
		Action: "modified", Address: bucket, Type: "aws_s3_bucket", ID: "logs-1",
		Attributes: []tfstate.AttributeChange{
			{Path: "tags.Team", Old: jsontext.Value(`"a"`), New: jsontext.Value(`"b"`)},
			{Path: "secret", New: jsontext.Value(`"(sensitive)"`), Sensitive: true},
		},
	})
	s.Findings = []inventory.Finding{{Kind: "lineage_changed", Detail: "was l-0"}}
	var got []string
	for _, d := range field.Encode(s) {
		got = append(got, string(d))
	}
	want := []string{
		`{"tfstate":{"version":1,"action":"modified","state":"file:///s/prod.tfstate","lineage":"l-1","terraform_version":"1.9.5","serial":7,` +
			`"previous_serial":6,"written":"2026-11-20T12:00:00Z","address":"module.a.aws_s3_bucket.logs","module":"module.a","type":"aws_s3_bucket",` +
			`"id":"logs-1","attributes":[{"path":"tags.Team","old":"a","new":"b"},{"path":"secret","new":"(sensitive)","sensitive":true}]}}`,
		`{"tfstate":{"version":1,"action":"lineage_changed","detail":"was l-0","state":"file:///s/prod.tfstate","lineage":"l-1","terraform_version":"1.9.5",` +
			`"serial":7,"previous_serial":6,"written":"2026-11-20T12:00:00Z"}}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("documents (-want +got):\n%s", diff)
	}
}

func TestStateFields(t *testing.T) {
	moved := tfstate.Change{
		Action: "moved", Address: bucket, Previous: tfstate.Address{Type: "aws_s3_bucket", Name: "old"}, Type: "aws_s3_bucket", ID: "logs-1",
		Attributes: []tfstate.AttributeChange{
			{Path: `ingress[0].cidr_blocks[1]`, Old: jsontext.Value(`1`)},
			{Path: `ingress[0].to_port`, Old: jsontext.Value(`22`), New: jsontext.Value(`23`)},
			{Path: `tags["a b"]`, New: jsontext.Value(`{"x":[1]}`)},
		},
	}
	x := field.NewExtractor(nil, nil)
	x.Load(field.Encode(serialOf(moved))[0])
	want := map[string]any{
		"tf.kind": "tfstate", "tf.managed": "true", "tf.address": "module.a.aws_s3_bucket.logs", "tf.address.previous": "aws_s3_bucket.old",
		"tf.addresses": []string{"module.a.aws_s3_bucket.logs"}, "tf.type": "aws_s3_bucket", "tf.id": "logs-1", "tf.module": "module.a",
		"tf.state": "file:///s/prod.tfstate", "tf.serial": uint64(7), "tf.serial.previous": uint64(6), "tf.lineage": "l-1",
		"tf.action": "moved", "tf.attributes": []string{"ingress[0].cidr_blocks[1]", "ingress[0].to_port", `tags["a b"]`}, "tf.sensitive": "false",
	}
	if diff := cmp.Diff(want, all(x, nil)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	for _, test := range []struct{ arg, old, new string }{
		{"ingress[0].to_port", "22", "23"},
		{"ingress.0.to_port", "22", "23"},
		{"ingress", "1", "null"},
		{"ingress.0.cidr_blocks", "1", "null"},
		{`tags.a b`, "null", `{"x":[1]}`},
		{`tags["a b"]`, "null", `{"x":[1]}`},
		{"ingres", "", ""},
		{"tags.a", "", ""},
		{"", "", ""},
	} {
		old, _ := get(x, "tf.old", test.arg)
		now, _ := get(x, "tf.attribute", test.arg)
		if old == nil {
			old = ""
		}
		if now == nil {
			now = ""
		}
		if old != test.old || now != test.new {
			t.Errorf("%q: got %v and %v, want %q and %q", test.arg, old, now, test.old, test.new)
		}
	}
	if got, want := x.Summary(), `file:///s/prod.tfstate moved module.a.aws_s3_bucket.logs ingress[0].cidr_blocks[1] ingress[0].to_port tags["a b"] (serial 7 after 6)`; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
}

func TestFindingFields(t *testing.T) {
	s := serialOf()
	s.Findings = []inventory.Finding{{Kind: "serial_backwards", Detail: "6 after 7"}}
	x := field.NewExtractor(nil, nil)
	x.Load(field.Encode(s)[0])
	want := map[string]any{
		"tf.kind": "tfstate", "tf.state": "file:///s/prod.tfstate", "tf.serial": uint64(7), "tf.serial.previous": uint64(6), "tf.lineage": "l-1",
		"tf.action": "serial_backwards", "tf.detail": "6 after 7",
	}
	if diff := cmp.Diff(want, all(x, nil)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestEncodeStaysWithinAnEvent(t *testing.T) {
	var many []tfstate.AttributeChange
	for range 5000 {
		many = append(many, tfstate.AttributeChange{Path: `tags["x"]`, Old: jsontext.Value(`"` + strings.Repeat("o", 50) + `"`)})
	}
	long := jsontext.Value(`"` + strings.Repeat(`\u0001`, 60_000) + `"`)
	for name, c := range map[string]tfstate.Change{
		"many attributes": {Action: "modified", Address: bucket, Attributes: many},
		"a long value":    {Action: "modified", Address: bucket, Attributes: []tfstate.AttributeChange{{Path: "a", New: long}, {Path: "b", New: jsontext.Value("1")}}},
		"a long address":  {Action: "modified", Address: tfstate.Address{Type: "t", Name: strings.Repeat("n", 300_000)}},
		"a broken value":  {Action: "modified", Address: bucket, Attributes: []tfstate.AttributeChange{{Path: "a", New: jsontext.Value("{")}}},
	} {
		t.Run(name, func(t *testing.T) {
			text := field.Encode(serialOf(c))[0]
			if len(text) > field.MaxDocument {
				t.Fatalf("%d bytes, want %d at most", len(text), field.MaxDocument)
			}
			d, err := field.DecodeDocument(text)
			if err != nil {
				t.Fatal(err)
			}
			if d.Action != "modified" || len(d.Attributes)+d.AttributesCut != len(c.Attributes) {
				t.Errorf("%s with %d attributes and %d cut, want %d together", d.Action, len(d.Attributes), d.AttributesCut, len(c.Attributes))
			}
		})
	}
}

func TestDecodeDocumentErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                          "decode state change",
		`{}`:                        `no member "tfstate"`,
		`{"tfstate":{}}`:            "unsupported version 0",
		`{"tfstate":{"version":2}}`: "unsupported version 2",
	} {
		if _, err := field.DecodeDocument([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	if _, err := field.DecodeDocument([]byte(`{"tfstate":{"version":1,"later":true}}`)); err != nil {
		t.Errorf("a member of a later writer: %v", err)
	}
}
