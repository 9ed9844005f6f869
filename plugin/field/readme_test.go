package field_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

var update = flag.Bool("update", false, "write the table of fields into the plugin's README")

// TestReadme holds the table in the README to the fields there are.
func TestReadme(t *testing.T) {
	const path = "../README.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), "<!-- README-PLUGIN-FIELDS -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- /README-PLUGIN-FIELDS -->")
	if !ok1 || !ok2 {
		t.Fatal("the README lacks a marker")
	}
	want := before + "<!-- README-PLUGIN-FIELDS -->\n" + fieldTable() + "<!-- /README-PLUGIN-FIELDS -->" + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("the table of fields is out of date: run go test ./plugin/field -run TestReadme -update")
	}
}

// fieldTable is laid out as in the READMEs of Falco's own plugins.
func fieldTable() string {
	var b strings.Builder
	b.WriteString("| NAME | TYPE | ARG | DESCRIPTION |\n|---|---|---|---|\n")
	for _, f := range field.Table() {
		kind, arg := "string", "None"
		if f.Kind == field.Uint64 {
			kind = "uint64"
		}
		if f.List {
			kind += " (list)"
		}
		switch {
		case f.Arg:
			arg = "Key, Required"
		case f.Index:
			arg = "Index"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", f.Name, kind, arg, strings.ReplaceAll(f.Desc, "|", `\|`))
	}
	return b.String()
}

// TestTable holds the fields to what Falco accepts and what Falco's cloudtrail plugin has.
func TestTable(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$`)
	have := map[string]field.Field{}
	for _, f := range field.Table() {
		if !name.MatchString(f.Name) || f.Desc == "" || f.Display == "" {
			t.Errorf("%q: want a plain name, a description and a display name", f.Name)
		}
		if _, twice := have[f.Name]; twice {
			t.Errorf("%s is there twice", f.Name)
		}
		have[f.Name] = f
	}
	for _, official := range strings.Fields(officialFields) {
		name, kind, _ := strings.Cut(official, ":")
		f, ok := have[name]
		if !ok {
			t.Errorf("%s of Falco's cloudtrail plugin is missing", name)
		}
		if (kind == "uint64") != (f.Kind == field.Uint64) || (kind == "list") != f.List {
			t.Errorf("%s: another type than in Falco's cloudtrail plugin", name)
		}
	}
}

// officialFields are those of the cloudtrail plugin, version 0.17:
// https://github.com/falcosecurity/plugins/blob/main/plugins/cloudtrail/README.md
const officialFields = `ct.id ct.error ct.errormessage ct.time ct.src ct.shortsrc ct.name ct.user ct.originaluser ct.user.accountid
	ct.user.identitytype ct.user.principalid ct.user.arn ct.region ct.response.subnetid ct.response.reservationid ct.response
	ct.request.availabilityzone ct.request.cluster ct.request.functionname ct.request.groupname ct.request.host ct.request.name
	ct.request.policy ct.request.reason ct.request.target ct.request.documentname ct.request.serialnumber ct.request.servicename
	ct.request.subnetid ct.request.taskdefinition ct.request.username ct.request ct.srcip ct.useragent ct.info ct.managementevent
	ct.readonly ct.requestid ct.eventtype ct.apiversion ct.resources ct.recipientaccountid ct.serviceeventdetails ct.sharedeventid
	ct.vpcendpointid ct.eventcategory ct.addendum.reason ct.addendum.updatedfields ct.addendum.originalrequestid
	ct.addendum.originaleventid ct.sessioncredentialfromconsole ct.edgedevicedetails ct.tlsdetails.tlsversion
	ct.tlsdetails.ciphersuite ct.tlsdetails.clientprovidedhostheader ct.additionaleventdata s3.uri s3.bucket s3.key s3.bytes:uint64
	s3.bytes.in:uint64 s3.bytes.out:uint64 s3.cnt.get:uint64 s3.cnt.put:uint64 s3.cnt.other:uint64 ec2.name ec2.imageid
	ec2.imageids:list ecr.repository ecr.imagetag iam.role iam.policy`
