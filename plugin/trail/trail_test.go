package trail_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

const assumedRole = `{
  "eventVersion": "1.08", "eventID": "3b8f", "eventTime": "2024-07-31T12:21:09Z", "eventSource": "s3.amazonaws.com",
  "eventName": "PutBucketPolicy", "eventType": "AwsApiCall", "eventCategory": "Management", "awsRegion": "eu-west-1",
  "sourceIPAddress": "192.0.2.7", "userAgent": "[aws-cli/2.15.0]", "requestID": "R1", "sharedEventID": "S1",
  "vpcEndpointId": "vpce-1", "apiVersion": "2006-03-01", "recipientAccountId": "111122223333", "readOnly": false,
  "managementEvent": true, "sessionCredentialFromConsole": "true", "errorCode": "AccessDenied", "errorMessage": "no",
  "userIdentity": {"type": "AssumedRole", "principalId": "AROA1:alice", "arn": "arn:aws:sts::111122223333:assumed-role/Admin/alice",
    "accountId": "111122223333", "accessKeyId": "ASIA1", "sessionContext": {"sourceIdentity": "alice@example.com",
      "sessionIssuer": {"type": "Role", "principalId": "AROA1", "arn": "arn:aws:iam::111122223333:role/Admin",
        "accountId": "111122223333", "userName": "Admin"}, "attributes": {"mfaAuthenticated": "true"}},
    "onBehalfOf": {"userId": "u-1"}},
  "requestParameters": {"bucketName": "logs", "a\u0062c": 1}, "responseElements": null,
  "additionalEventData": {"bytesTransferredIn": 12.0}, "tlsDetails": {"tlsVersion": "TLSv1.3"},
  "resources": [{"ARN": "arn:aws:s3:::logs", "accountId": "111122223333", "type": "AWS::S3::Bucket"}, {"arn": "x"}],
  "somethingNew": [1, {"deep": [true]}]
}`

func TestDecode(t *testing.T) {
	got, err := trail.Decode([]byte(assumedRole))
	if err != nil {
		t.Fatal(err)
	}
	no, yes := false, true
	want := &trail.Record{
		EventVersion: "1.08", EventID: "3b8f", EventTime: time.Date(2024, 7, 31, 12, 21, 9, 0, time.UTC),
		EventSource: "s3.amazonaws.com", EventName: "PutBucketPolicy", EventType: "AwsApiCall", EventCategory: "Management",
		Region: "eu-west-1", SourceIP: "192.0.2.7", UserAgent: "[aws-cli/2.15.0]", ErrorCode: "AccessDenied", ErrorMessage: "no",
		RequestID: "R1", SharedEventID: "S1", VPCEndpointID: "vpce-1", APIVersion: "2006-03-01", RecipientAcct: "111122223333",
		ReadOnly: &no, ManagementEvent: &yes, ConsoleSession: true,
		User: trail.User{
			Type: "AssumedRole", PrincipalID: "AROA1:alice", ARN: "arn:aws:sts::111122223333:assumed-role/Admin/alice",
			AccountID: "111122223333", AccessKeyID: "ASIA1", OnBehalfOfUser: "u-1", MFA: true, SourceIdentity: "alice@example.com",
		},
		Request:    jsontext.Value(`{"bucketName": "logs", "a\u0062c": 1}`),
		Additional: jsontext.Value(`{"bytesTransferredIn": 12.0}`), TLS: jsontext.Value(`{"tlsVersion": "TLSv1.3"}`),
		Resources: []trail.Resource{{ARN: "arn:aws:s3:::logs", AccountID: "111122223333", Type: "AWS::S3::Bucket"}, {ARN: "x"}},
		Raw:       jsontext.Value(assumedRole),
	}
	want.User.Issuer.Type, want.User.Issuer.PrincipalID, want.User.Issuer.ARN = "Role", "AROA1", "arn:aws:iam::111122223333:role/Admin"
	want.User.Issuer.AccountID, want.User.Issuer.UserName = "111122223333", "Admin"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode (-want +got):\n%s", diff)
	}
	if v, ok := trail.Member(got.Request, "abc"); !ok || string(v) != "1" {
		t.Errorf("Member of a name with an escape: %s, %v", v, ok)
	}
}

func TestDecodeIsLenient(t *testing.T) {
	for name, text := range map[string]string{
		"members of other types":  `{"eventName":"X","eventTime":7,"readOnly":"maybe","userIdentity":"root","resources":{},"awsRegion":["a"]}`,
		"a repeated member":       `{"eventName":"W","eventName":"X"}`,
		"broken UTF-8":            "{\"eventName\":\"X\",\"userAgent\":\"\xff\"}",
		"white space everywhere":  " { \"eventName\" :\n\"X\" }\t",
		"nulls":                   `{"eventName":"X","requestParameters":null,"userIdentity":null,"readOnly":null,"resources":null}`,
		"an issuer that is none":  `{"eventName":"X","userIdentity":{"sessionContext":{"sessionIssuer":[],"attributes":1},"onBehalfOf":"x"}}`,
		"resources that are none": `{"eventName":"X","resources":[1,null,"a"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := trail.Decode([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got.EventName != "X" || !got.EventTime.IsZero() || got.ReadOnly != nil || got.Request != nil || got.Region != "" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, test := range []struct {
		text   string
		is     error
		offset int // -1: not a syntax error
	}{
		{``, io.ErrUnexpectedEOF, 0},
		{`{"eventName":"X"`, io.ErrUnexpectedEOF, 16},
		{`{"eventName":"X`, io.ErrUnexpectedEOF, 15},
		{`{"eventName":tru`, io.ErrUnexpectedEOF, 16},
		{`{"eventName":"X",}`, nil, 17},
		{`{"eventName":"X"} x`, nil, 18},
		{`{"eventName":01}`, nil, 14},
		{`{"eventName":"\x"}`, nil, 14},
		{"{\"eventName\":\"\n\"}", nil, 14},
		{`{"a":[[1,2}}`, nil, 10},
		{`[]`, trail.ErrNotRecord, -1},
		{`null`, trail.ErrNotRecord, -1},
		{`{}`, trail.ErrNotRecord, -1},
		{`{"eventSource":"s3.amazonaws.com"}`, trail.ErrNotRecord, -1},
	} {
		_, err := trail.Decode([]byte(test.text))
		var syntax *trail.SyntaxError
		switch {
		case err == nil:
			t.Errorf("%s: no error", test.text)
		case test.is != nil && !errors.Is(err, test.is):
			t.Errorf("%s: %v is not %v", test.text, err, test.is)
		case test.offset >= 0 && (!errors.As(err, &syntax) || syntax.Offset != test.offset):
			t.Errorf("%s: %v, want byte %d", test.text, err, test.offset)
		case test.offset < 0 && errors.As(err, &syntax):
			t.Errorf("%s: %v is a syntax error", test.text, err)
		}
	}
}

func TestMember(t *testing.T) {
	v := jsontext.Value(`{"a":{"b":"x","b":"y","n":null},"s":"t"}`)
	for _, test := range []struct {
		path []string
		want string
	}{
		{nil, string(v)},
		{[]string{"a", "b"}, `"y"`},
		{[]string{"a", "n"}, ""},
		{[]string{"a", "missing"}, ""},
		{[]string{"s", "b"}, ""},
	} {
		got, ok := trail.Member(v, test.path...)
		if ok != (test.want != "") || ok && string(got) != test.want {
			t.Errorf("Member %q: got %s, %v; want %q", test.path, got, ok, test.want)
		}
	}
	if _, ok := trail.Member(nil); ok {
		t.Error("Member of nothing is there")
	}
}

func TestMutating(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		name     string
		readOnly *bool
		want     bool
	}{
		{"PutBucketPolicy", nil, true},
		{"GetObject", nil, false},
		{"GetObject", &no, true},
		{"PutBucketPolicy", &yes, false},
		{"DescribeInstances", nil, false},
		{"AdminGetUser", nil, false},
		{"AdminDeleteUser", nil, true},
		{"ConsoleLogin", nil, true},
	} {
		rec := trail.Record{EventName: test.name, ReadOnly: test.readOnly}
		if got := rec.Mutating(); got != test.want {
			t.Errorf("%s: Mutating is %v", test.name, got)
		}
	}
}

func TestAction(t *testing.T) {
	for name, want := range map[string]string{
		"UpdateFunctionCode20150331v2":          "UpdateFunctionCode",
		"UpdateFunctionConfiguration20150331v2": "UpdateFunctionConfiguration",
		"CreateDistribution2020_05_31":          "CreateDistribution",
		"CreateFunction20150331":                "CreateFunction",
		"RunInstances":                          "RunInstances",
		"PutObject2":                            "PutObject2",
	} {
		rec := trail.Record{EventName: name}
		if got := rec.Action(); got != want {
			t.Errorf("Action of %s: got %s, want %s", name, got, want)
		}
	}
}

func TestToolOfRecord(t *testing.T) {
	for _, test := range []struct {
		agent string
		want  trail.Tool
	}{
		{"APN/1.0 HashiCorp/1.0 Terraform/1.9.5 (+https://www.terraform.io) terraform-provider-aws/5.60.0 aws-sdk-go-v2/1.30.3", trail.ToolTerraform},
		{"[APN/1.0 HashiCorp/1.0 Terraform/0.12.9 aws-sdk-go/1.25.1]", trail.ToolTerraform},
		{"APN/1.0 Pulumi/1.0 PulumiAws/6.0 terraform-provider-aws/5.60.0", trail.ToolPulumi},
		{"crossplane-provider-aws terraform-provider-aws/5.60.0", trail.ToolCrossplane},
		{"cloudformation.amazonaws.com", trail.ToolCloudFormation},
		{"Mozilla/5.0 (X11; Linux x86_64)", trail.ToolConsole},
		{"console.amazonaws.com", trail.ToolConsole},
		{"[S3Console/0.4, aws-internal/3]", trail.ToolConsole},
		{"aws-cli/2.15.0 Python/3.11", trail.ToolCLI},
		{"autoscaling.amazonaws.com", trail.ToolService},
		{"Boto3/1.34", trail.ToolUnknown},
		{"", trail.ToolUnknown},
	} {
		rec := trail.Record{UserAgent: test.agent}
		if got := rec.Tool(); got != test.want {
			t.Errorf("Tool of %q: got %q, want %q", test.agent, got, test.want)
		}
	}
}

func TestName(t *testing.T) {
	for _, test := range []struct {
		user trail.User
		want string
	}{
		{trail.User{Type: "Root", ARN: "arn:aws:iam::1:root"}, "root"},
		{trail.User{Type: "IAMUser", UserName: "bob", ARN: "arn:aws:iam::1:user/path/bob"}, "bob"},
		{trail.User{Type: "AssumedRole", ARN: "arn:aws:sts::1:assumed-role/Admin/alice", UserName: "x"}, "alice"},
		{trail.User{Type: "AWSService", InvokedBy: "autoscaling.amazonaws.com"}, "autoscaling.amazonaws.com"},
		{trail.User{Type: "IAMUser", ARN: "arn:aws:iam::1:user/carol"}, "carol"},
		{trail.User{Type: "SAMLUser", PrincipalID: "idp:dave"}, "dave"},
		{trail.User{}, ""},
	} {
		rec := trail.Record{User: test.user}
		if got := rec.Name(); got != test.want {
			t.Errorf("Name of %+v: got %q, want %q", test.user, got, test.want)
		}
	}
}

func TestAccount(t *testing.T) {
	rec := trail.Record{User: trail.User{AccountID: "1"}}
	if got := rec.Account(); got != "1" {
		t.Errorf("caller's account: got %q", got)
	}
	if rec.RecipientAcct = "2"; rec.Account() != "2" {
		t.Errorf("recipient's account: got %q", rec.Account())
	}
}

// shared is the recorded data beside the project; "" in a clone that has none.
func shared(t testing.TB) string {
	dir := filepath.Join("..", "..", "..", "shared", "data", "cloudtrail")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("the recorded data is not here")
		return ""
	}
	return dir
}

// recorded calls each for every record of the recorded data.
func recorded(t testing.TB, each func(path string, record []byte)) {
	dir := shared(t)
	if dir == "" {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".json" || strings.Contains(path, "notifications") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var file struct{ Records []jsontext.Value }
		if json.Unmarshal(text, &file) == nil && len(file.Records) > 0 {
			for _, r := range file.Records {
				each(path, r)
			}
		} else if jsontext.Value(text).Kind() == '{' {
			each(path, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecordedRecords holds the members that every rule leans on against a reading of the same text by another decoder.
func TestRecordedRecords(t *testing.T) {
	records := 0
	recorded(t, func(path string, text []byte) {
		var want struct {
			EventName    string         `json:"eventName"`
			EventSource  string         `json:"eventSource"`
			EventTime    string         `json:"eventTime"`
			UserAgent    string         `json:"userAgent"`
			ReadOnly     *bool          `json:"readOnly"`
			Request      jsontext.Value `json:"requestParameters"`
			UserIdentity struct{ ARN, AccountID, UserName string }
		}
		if json.Unmarshal(text, &want, jsontext.AllowDuplicateNames(true), json.MatchCaseInsensitiveNames(true)) != nil || want.EventName == "" {
			return
		}
		got, err := trail.Decode(text)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		records++
		if got.EventName != want.EventName || got.EventSource != want.EventSource || got.UserAgent != want.UserAgent ||
			!cmp.Equal(got.ReadOnly, want.ReadOnly) || got.User.ARN != want.UserIdentity.ARN ||
			got.User.AccountID != want.UserIdentity.AccountID || got.User.UserName != want.UserIdentity.UserName {
			t.Errorf("%s: got %+v\nwant %+v", path, got, want)
		}
		if want.Request.Kind() != 'n' && !bytes.Equal(bytes.TrimSpace(got.Request), bytes.TrimSpace(want.Request)) {
			t.Errorf("%s: request: got %s, want %s", path, got.Request, want.Request)
		}
		if at, err := time.Parse(time.RFC3339, want.EventTime); err == nil && !at.Equal(got.EventTime) {
			t.Errorf("%s: time: got %s, want %s", path, got.EventTime, at)
		}
	})
	if shared(t) != "" && records < 400 {
		t.Errorf("only %d records were compared", records)
	}
}

// FuzzDecode holds the decoder's reading of JSON together with jsontext's.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(assumedRole))
	f.Add([]byte(`{"eventName":"X","a":-0.5e+7,"b":[{},[],"\ud800\u0000\"",true,null]}`))
	f.Add([]byte(`{"eventName":"X"`))
	f.Add([]byte("{\"eventName\":\"\x7f\xff\"}"))
	recorded(f, func(_ string, text []byte) {
		if len(text) < 2000 {
			f.Add(text)
		}
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		rec, err := trail.Decode(text)
		if !bytes.Equal(before, text) {
			t.Fatal("Decode changed the text")
		}
		valid := jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		var syntax *trail.SyntaxError
		switch {
		case err == nil && !valid:
			t.Fatalf("accepted what is not JSON: %q", text)
		case errors.As(err, &syntax) && valid:
			t.Fatalf("refused JSON: %q: %v", text, err)
		case errors.As(err, &syntax) && (syntax.Offset < 0 || syntax.Offset > len(text)):
			t.Fatalf("offset %d is outside of the text", syntax.Offset)
		case err != nil:
			return
		}
		rec.Mutating()
		rec.Tool()
		_, _, _ = rec.Name(), rec.Account(), rec.Action()
		for _, part := range []jsontext.Value{rec.Request, rec.Response, rec.Additional, rec.TLS} {
			if part != nil && !part.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
				t.Fatalf("a part is not JSON: %q", part)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(assumedRole)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := trail.Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}
