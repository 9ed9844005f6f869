package field_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/plugin/field"
)

// all gives every field that has a value, by name; args gives those that take an argument their argument.
func all(x *field.Extractor, args map[string]string) map[string]any {
	got := map[string]any{}
	for i, f := range field.Table() {
		arg, has := args[f.Name]
		if f.Arg && !has {
			continue
		}
		if v, ok := x.Get(i, arg); ok {
			got[f.Name] = v
		}
	}
	return got
}

func get(x *field.Extractor, name, arg string) (any, bool) {
	for i, f := range field.Table() {
		if f.Name == name {
			return x.Get(i, arg)
		}
	}
	panic("no field " + name)
}

const putObject = `{"eventVersion":"1.08","eventID":"e1","eventTime":"2024-07-31T12:21:09Z","eventSource":"s3.amazonaws.com","eventName":"PutObject",` +
	`"awsRegion":"eu-west-1","sourceIPAddress":"192.0.2.7","userAgent":"aws-cli/2","requestID":"r1","eventType":"AwsApiCall","eventCategory":"Data",` +
	`"recipientAccountId":"111122223333","readOnly":false,"managementEvent":false,"errorCode":"AccessDenied","errorMessage":"no",` +
	`"userIdentity":{"type":"AssumedRole","principalId":"AROA1:alice","arn":"arn:aws:sts::111122223333:assumed-role/Admin/alice",` +
	`"sessionContext":{"sessionIssuer":{"userName":"Admin"}}},` +
	`"requestParameters":{"bucketName":"logs","key":"a/b","Host":"h","documentName":"d"},"responseElements":null,` +
	`"additionalEventData":{"bytesTransferredIn":33.0,"bytesTransferredOut":4},"serviceEventDetails":{"k":1},` +
	`"resources":[{"ARN":"arn:aws:s3:::logs"}],"tlsDetails":{"tlsVersion":"TLSv1.3"},"sessionCredentialFromConsole":"true",` +
	`"addendum":{"reason":"DELAYED"}}`

func TestRecordFields(t *testing.T) {
	x := field.NewExtractor(nil, nil)
	x.Load([]byte(putObject))
	want := map[string]any{
		"ct.id": "e1", "ct.error": "AccessDenied", "ct.errormessage": "no", "ct.time": "2024-07-31T12:21:09Z",
		"ct.src": "s3.amazonaws.com", "ct.shortsrc": "s3", "ct.name": "PutObject", "ct.user": "Admin", "ct.originaluser": "alice",
		"ct.user.accountid": "111122223333", "ct.user.identitytype": "AssumedRole", "ct.user.principalid": "AROA1:alice",
		"ct.user.arn": "arn:aws:sts::111122223333:assumed-role/Admin/alice", "ct.region": "eu-west-1",
		"ct.request.host": "h", "ct.request.documentname": "d",
		"ct.request": `{"bucketName":"logs","key":"a/b","Host":"h","documentName":"d"}`,
		"ct.srcip":   "192.0.2.7", "ct.useragent": "aws-cli/2", "ct.info": "Admin via 192.0.2.7 !→ PutObject Size=37 URI=s3://logs/a/b",
		"ct.managementevent": "false", "ct.readonly": "false", "ct.requestid": "r1", "ct.eventtype": "AwsApiCall",
		"ct.resources": `[{"ARN":"arn:aws:s3:::logs"}]`, "ct.recipientaccountid": "111122223333", "ct.serviceeventdetails": `{"k":1}`,
		"ct.eventcategory": "Data", "ct.addendum.reason": "DELAYED", "ct.sessioncredentialfromconsole": "true",
		"ct.tlsdetails.tlsversion": "TLSv1.3", "ct.additionaleventdata": `{"bytesTransferredIn":33.0,"bytesTransferredOut":4}`,
		"s3.uri": "s3://logs/a/b", "s3.bucket": "logs", "s3.key": "a/b", "s3.bytes": uint64(37), "s3.bytes.in": uint64(33),
		"s3.bytes.out": uint64(4), "s3.cnt.get": uint64(0), "s3.cnt.put": uint64(1), "s3.cnt.other": uint64(0),
		"tf.kind": "record", "tf.by_terraform": "false", "tf.actor": "alice",
	}
	if diff := cmp.Diff(want, all(x, nil)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestInstanceFields(t *testing.T) {
	x := field.NewExtractor(nil, nil)
	x.Load([]byte(`{"eventName":"RunInstances","eventSource":"ec2.amazonaws.com","requestParameters":{"tagSpecificationSet":{"items":[` +
		`{"resourceType":"volume","tags":[{"key":"Name","value":"v"}]},{"resourceType":"instance","tags":[{"key":"Team","value":"t"},{"key":"Name","value":"web"}]}]}},` +
		`"responseElements":{"reservationId":"r-1","instancesSet":{"items":[{"imageId":"ami-1"},{"imageId":"ami-2"}]}}}`))
	got := all(x, nil)
	for name, want := range map[string]any{
		"ec2.name": "web", "ec2.imageid": "ami-1", "ec2.imageids": []string{"ami-1", "ami-2"}, "ct.response.reservationid": "r-1",
		"s3.cnt.other": nil, "ct.readonly": nil,
	} {
		if !cmp.Equal(got[name], want) {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	if v, ok := get(x, "ec2.imageids", "1"); !ok || !cmp.Equal(v, []string{"ami-2"}) {
		t.Errorf("ec2.imageids[1]: got %v, %v", v, ok)
	}
	if v, ok := get(x, "ec2.imageids", "2"); ok {
		t.Errorf("ec2.imageids[2]: got %v", v)
	}
}

func TestUser(t *testing.T) {
	for identity, want := range map[string]string{
		`{"type":"IAMUser","userName":"bob"}`:                                 "bob",
		`{"type":"Root","arn":"arn:aws:iam::1:root"}`:                         "root",
		`{"type":"Root","userName":"owner"}`:                                  "owner",
		`{"type":"AWSService","invokedBy":"autoscaling.amazonaws.com"}`:       "autoscaling.amazonaws.com",
		`{"type":"AssumedRole","arn":"arn:aws:sts::1:assumed-role/A/s"}`:      "AssumedRole",
		`{"type":"AWSAccount","accountId":"1"}`:                               "AWSAccount",
		`{"type":"FederatedUser"}`:                                            "FederatedUser",
		`{"type":"IdentityCenterUser","principalId":"x:carol"}`:               "carol",
		`{"type":"WebIdentityUser","userName":"accounts.google.com:aud:sub"}`: "accounts.google.com:aud:sub",
	} {
		x := field.NewExtractor(nil, nil)
		x.Load([]byte(`{"eventName":"X","userIdentity":` + identity + `}`))
		if got, _ := get(x, "ct.user", ""); got != want {
			t.Errorf("%s: ct.user is %v, want %s", identity, got, want)
		}
	}
}

// TestNothingHidesBehindANul: C would take the first NUL for the end of a value.
func TestNothingHidesBehindANul(t *testing.T) {
	x := field.NewExtractor(nil, nil)
	x.Load([]byte("{\"eventName\":\"X\",\"userAgent\":\"safe\\u0000evil\",\"requestParameters\":{\"a\":\"\xff\"}}"))
	for name, want := range map[string]string{"ct.useragent": "safe\uFFFDevil", "ct.request": "{\"a\":\"\uFFFD\"}"} {
		if got, _ := get(x, name, ""); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestLoadForgetsAndCopies(t *testing.T) {
	x := field.NewExtractor(nil, nil)
	payload := []byte(putObject)
	x.Load(payload)
	clear(payload)
	if got, _ := get(x, "ct.request.host", ""); got != "h" {
		t.Errorf("after the payload is gone: got %v", got)
	}
	for _, text := range []string{"", "garbage", "{}", `{"tfstate":{`, `{"tfstate":{"version":99}}`} {
		x.Load([]byte(text))
		if got := all(x, map[string]string{"tf.attribute": "a"}); len(got) != 0 {
			t.Errorf("%q has fields: %v", text, got)
		}
		if got := x.Summary(); got != "" {
			t.Errorf("%q: summary %q", text, got)
		}
	}
	for _, index := range []int{-1, 10_000} {
		if v, ok := x.Get(index, ""); ok {
			t.Errorf("field %d is %v", index, v)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add([]byte(putObject), "policy")
	f.Add([]byte(`{"tfstate":{"version":1,"action":"moved","attributes":[{"path":"a[0]","old":1}]}}`), "a")
	f.Add([]byte(`{"eventName":"X","userIdentity":{"type":1},"responseElements":{"instancesSet":{"items":[1,{"imageId":2}]}}}`), "0")
	f.Fuzz(func(t *testing.T, payload []byte, arg string) {
		x := field.NewExtractor(nil, nil)
		x.Load(payload)
		_ = x.Summary()
		for i, fl := range field.Table() {
			v, ok := x.Get(i, arg)
			if !ok {
				continue
			}
			switch v := v.(type) {
			case string:
				if fl.List || fl.Kind != field.String || strings.ContainsRune(v, 0) {
					t.Errorf("%s: %q", fl.Name, v)
				}
			case uint64:
				if fl.List || fl.Kind != field.Uint64 {
					t.Errorf("%s: %d", fl.Name, v)
				}
			case []string:
				if !fl.List || fl.Kind != field.String || len(v) == 0 {
					t.Errorf("%s: %q", fl.Name, v)
				}
			default:
				t.Errorf("%s: a %T", fl.Name, v)
			}
		}
	})
}

func BenchmarkExtract(b *testing.B) {
	x, payload := field.NewExtractor(nil, nil), []byte(putObject)
	var indices []int
	for i, f := range field.Table() {
		switch f.Name {
		case "ct.name", "ct.src", "ct.user", "ct.readonly", "ct.error", "ct.region", "ct.srcip", "ct.request":
			indices = append(indices, i)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		x.Load(payload)
		for _, i := range indices {
			x.Get(i, "")
		}
	}
}
