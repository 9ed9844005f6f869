package falco_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/tfdrift/tfdrift-falco/bridge/falco"
	"github.com/tfdrift/tfdrift-falco/bridge/journal"
	"github.com/tfdrift/tfdrift-falco/plugin/feed"
	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// readRecords reads the records of a file, as far as it holds any.
func readRecords(t *testing.T, path string) (records [][]byte) {
	t.Helper()
	_ = feed.Read(bytes.NewReader(readFile(t, path)), func(record []byte) error {
		records = append(records, record)
		return nil
	})
	return records
}

// TestRecordComesBack: from what Falco sent, by either way, to what the original record says.
func TestRecordComesBack(t *testing.T) {
	for _, alerts := range [][]journal.Alert{fromHTTP(t, "append-http044.txt"), fromGRPC(t, "append-grpc043.hex")} {
		for i, a := range alerts {
			texts := readRecords(t, filepath.Join("testdata", "records", recordFiles[i]))
			if len(texts) != 1 {
				t.Fatalf("%s has %d records", recordFiles[i], len(texts))
			}
			text := texts[0]
			if diff := cmp.Diff(visible(t, text), visible(t, a.Record)); diff != "" {
				t.Errorf("%s by %s (-original +rebuilt):\n%s", recordFiles[i], a.Intake, diff)
			}
		}
	}
}

// visible is what a record says, as far as there are ct fields for it; raw JSON is made comparable.
func visible(t *testing.T, text []byte) *trail.Record {
	t.Helper()
	r, err := trail.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	r.Raw, r.EventVersion, r.TLS, r.Insight = nil, "", nil, nil
	r.RequestID, r.VPCEndpointID, r.APIVersion, r.EventCategory, r.ManagementEvent = "", "", "", "", nil // not in our append_output
	r.ServiceDetails = nil
	u := &r.User
	u.AccessKeyID, u.IdentityProvider, u.OnBehalfOfUser, u.MFA, u.SourceIdentity = "", "", "", false, ""
	u.Issuer.Type, u.Issuer.PrincipalID, u.Issuer.ARN, u.Issuer.AccountID = "", "", "", ""
	for _, v := range []*jsontext.Value{&r.Request, &r.Response, &r.Additional} {
		if *v != nil {
			*v = v.Clone()
			if err := v.Canonicalize(jsontext.CanonicalizeRawFloats(false)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// fieldsOf is what Falco sends of a record with our append_output, after the official plugin's extract.go.
func fieldsOf(r *trail.Record) map[string]any {
	user := map[string]string{
		"Root": r.User.UserName, "IAMUser": r.User.UserName, "AWSService": r.User.InvokedBy,
		"AWSAccount": "AWSAccount", "FederatedUser": "FederatedUser", "AssumedRole": "AssumedRole",
	}[r.User.Type]
	if r.User.Type == "AssumedRole" && r.User.Issuer.UserName != "" {
		user = r.User.Issuer.UserName
	}
	var resources jsontext.Value
	_ = json.Unmarshal(r.Raw, &struct {
		Resources *jsontext.Value `json:"resources"`
	}{&resources})
	fields := map[string]any{
		"ct.id": r.EventID, "ct.src": r.EventSource, "ct.name": r.EventName, "ct.error": r.ErrorCode, "ct.errormessage": r.ErrorMessage,
		"ct.region": r.Region, "ct.recipientaccountid": r.RecipientAcct, "ct.eventtype": r.EventType, "ct.user": user, "ct.user.arn": r.User.ARN,
		"ct.user.identitytype": r.User.Type, "ct.user.accountid": r.User.AccountID, "ct.user.principalid": r.User.PrincipalID,
		"ct.useragent": r.UserAgent, "ct.srcip": r.SourceIP, "ct.request": string(r.Request), "ct.response": string(r.Response),
		"ct.resources": string(resources), "ct.sharedeventid": r.SharedEventID, "ct.additionaleventdata": string(r.Additional),
		"ct.time": r.EventTime.Format("2006-01-02T15:04:05Z"),
	}
	if r.ReadOnly != nil {
		fields["ct.readonly"] = strconv.FormatBool(*r.ReadOnly)
	}
	if r.ConsoleSession {
		fields["ct.sessioncredentialfromconsole"] = "true"
	}
	for name, value := range fields {
		if value == "" {
			fields[name] = nil
		}
	}
	return fields
}

// TestEveryRecordComesBack does the same with all recorded records: many kinds of users, console sessions, refused calls.
func TestEveryRecordComesBack(t *testing.T) {
	folder, ok := shared(t, "cloudtrail")
	if !ok {
		return
	}
	files, err := doublestar.FilepathGlob(filepath.Join(folder, "**", "*.json"), doublestar.WithFilesOnly())
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	kinds, checked := map[string]int{}, 0
	for _, file := range files {
		const most = 100 // of one file: long ones repeat themselves
		texts := readRecords(t, file)
		for _, text := range texts[:min(len(texts), most)] {
			whole, err := trail.Decode(text)
			if err != nil || whole.EventID == "" || whole.EventName == "" {
				continue
			}
			want := visible(t, text)
			body, err := json.Marshal(map[string]any{"rule": "CloudTrail Change", "source": "tfdrift", "output_fields": fieldsOf(whole)})
			if err != nil {
				t.Fatal(err)
			}
			a, err := falco.FromHTTP(body, "application/json")
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			name := filepath.Base(file) + ", " + want.EventID
			// Where the kind of user says all there is to say, a name of its own does not reach Falco.
			if want.User.Type != "IAMUser" && want.User.Type != "Root" {
				want.User.UserName = ""
			}
			if want.User.Type != "AWSService" {
				want.User.InvokedBy = ""
			}
			if want.User.Type != "AssumedRole" {
				want.User.Issuer.UserName = ""
			}
			if diff := cmp.Diff(want, visible(t, a.Record)); diff != "" {
				t.Errorf("%s (-original +rebuilt):\n%s", name, diff)
			}
			kinds[want.User.Type]++
			checked++
		}
	}
	if checked < 300 || kinds["AssumedRole"] == 0 || kinds["IAMUser"] == 0 {
		t.Errorf("only %d records checked, of users %v", checked, kinds)
	}
	t.Logf("%d records, users %v", checked, kinds)
}

func TestWhatIsARecord(t *testing.T) {
	const event = `"ct.id":"e","ct.name":"RunInstances"`
	for name, c := range map[string]struct{ source, fields, want string }{
		"tfdrift":                {"tfdrift", event, `{"eventID":"e","eventName":"RunInstances"}`},
		"official":               {"aws_cloudtrail", event, `{"eventID":"e","eventName":"RunInstances"}`},
		"kind record":            {"tfdrift", event + `,"tf.kind":"record"`, `{"eventID":"e","eventName":"RunInstances"}`},
		"kind tfstate":           {"tfdrift", event + `,"tf.kind":"tfstate"`, ``},
		"another source":         {"okta", event, ``},
		"no id":                  {"tfdrift", `"ct.name":"RunInstances"`, ``},
		"no name":                {"tfdrift", `"ct.id":"e"`, ``},
		"null response":          {"tfdrift", event + `,"ct.response":"null","ct.request":null`, `{"eventID":"e","eventName":"RunInstances","responseElements":null}`},
		"broken JSON":            {"tfdrift", event + `,"ct.request":"{\"a\":1,}","ct.response":"{}"`, `{"eventID":"e","eventName":"RunInstances","responseElements":{}}`},
		"two JSON texts":         {"tfdrift", event + `,"ct.request":"1 2"`, `{"eventID":"e","eventName":"RunInstances"}`},
		"flags":                  {"tfdrift", event + `,"ct.readonly":"true","ct.managementevent":"yes"`, `{"eventID":"e","eventName":"RunInstances","readOnly":true}`},
		"a typed flag":           {"tfdrift", event + `,"ct.readonly":false`, `{"eventID":"e","eventName":"RunInstances","readOnly":false}`},
		"a word that is no flag": {"tfdrift", event + `,"ct.error":"true"`, `{"errorCode":"true","eventID":"e","eventName":"RunInstances"}`},
		"user": {"tfdrift", event + `,"ct.user":"bob","ct.user.identitytype":"IAMUser"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"type":"IAMUser","userName":"bob"}}`},
		"user of unknown kind": {"tfdrift", event + `,"ct.user":"bob"`, `{"eventID":"e","eventName":"RunInstances","userIdentity":{"userName":"bob"}}`},
		"role session": {"tfdrift", event + `,"ct.user":"admin","ct.user.identitytype":"AssumedRole"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"sessionContext":{"sessionIssuer":{"userName":"admin"}},"type":"AssumedRole"}}`},
		"role session by its ARN": {"tfdrift", event + `,"ct.user":"admin","ct.user.arn":"arn:aws:sts::1:assumed-role/admin/bob"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"arn":"arn:aws:sts::1:assumed-role/admin/bob","sessionContext":{"sessionIssuer":{"userName":"admin"}}}}`},
		"role session without a name": {"tfdrift", event + `,"ct.user":"AssumedRole","ct.user.identitytype":"AssumedRole"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"type":"AssumedRole"}}`},
		"service": {"tfdrift", event + `,"ct.user":"autoscaling.amazonaws.com","ct.user.identitytype":"AWSService"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"invokedBy":"autoscaling.amazonaws.com","type":"AWSService"}}`},
		"root": {"tfdrift", event + `,"ct.user":"root","ct.user.identitytype":"Root"`, `{"eventID":"e","eventName":"RunInstances","userIdentity":{"type":"Root"}}`},
		"another account": {"tfdrift", event + `,"ct.user":"AWSAccount","ct.user.identitytype":"AWSAccount"`,
			`{"eventID":"e","eventName":"RunInstances","userIdentity":{"type":"AWSAccount"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := falco.FromHTTP([]byte(`{"rule":"R","source":"`+c.source+`","output_fields":{`+c.fields+`}}`), "application/json")
			if err != nil && !errors.Is(err, falco.ErrField) && !errors.Is(err, falco.ErrNoRecord) && !errors.Is(err, falco.ErrPartRecord) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(a.Record)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeepNesting(t *testing.T) {
	for _, depth := range []int{900, 9990, 9999, 10_001} {
		request := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		a, err := falco.FromHTTP([]byte(`{"rule":"R","source":"tfdrift","output_fields":{"ct.id":"e","ct.name":"x","ct.request":"`+request+`"}}`), "application/json")
		kept := strings.Contains(string(a.Record), "requestParameters")
		if want := depth < 9995; kept != want || errors.Is(err, falco.ErrField) == want {
			t.Errorf("depth %d: kept %v, error %v", depth, kept, err)
		}
		if _, err := newBook(t).Put(t.Context(), a); err != nil {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}
