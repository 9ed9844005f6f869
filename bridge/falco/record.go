package falco

import (
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// member says which member of a record a field holds, and as what.
type member struct {
	field, name string
	as          form
}

// form is how a field's text stands for a member.
type form int

const (
	asText form = iota
	asJSON      // the member's JSON; "null" is null
	asBool      // true or false
)

// members are the fields that hold one member each. They are the official cloudtrail plugin's, which the tfdrift source
// bears too: https://github.com/falcosecurity/plugins/tree/main/plugins/cloudtrail#supported-fields
var members = []member{
	{"ct.additionaleventdata", "additionalEventData", asJSON},
	{"ct.apiversion", "apiVersion", asText},
	{"ct.error", "errorCode", asText},
	{"ct.errormessage", "errorMessage", asText},
	{"ct.eventcategory", "eventCategory", asText},
	{"ct.eventtype", "eventType", asText},
	{"ct.id", "eventID", asText},
	{"ct.managementevent", "managementEvent", asBool},
	{"ct.name", "eventName", asText},
	{"ct.readonly", "readOnly", asBool},
	{"ct.recipientaccountid", "recipientAccountId", asText},
	{"ct.region", "awsRegion", asText},
	{"ct.request", "requestParameters", asJSON},
	{"ct.requestid", "requestID", asText},
	{"ct.resources", "resources", asJSON},
	{"ct.response", "responseElements", asJSON},
	{"ct.serviceeventdetails", "serviceEventDetails", asJSON},
	{"ct.sessioncredentialfromconsole", "sessionCredentialFromConsole", asBool},
	{"ct.sharedeventid", "sharedEventID", asText},
	{"ct.src", "eventSource", asText},
	{"ct.srcip", "sourceIPAddress", asText},
	{"ct.time", "eventTime", asText},
	{"ct.useragent", "userAgent", asText},
	{"ct.vpcendpointid", "vpcEndpointId", asText},
}

// needed are the fields without which what was done to what cannot be told rightly: a refused call without ct.error looks like
// a change. Falco sends a field that has no value all the same, as null or <NA>, if it is set to send it.
var needed = []string{"ct.src", "ct.region", "ct.recipientaccountid", "ct.user.arn", "ct.error", "ct.request", "ct.response"}

// wanted are the fields that append_output should name for a source: all that the official plugin has had for long.
func wanted(source string) []string {
	fields := []string{
		"ct.id", "ct.time", "ct.src", "ct.name", "ct.error", "ct.errormessage", "ct.region", "ct.recipientaccountid", "ct.readonly",
		"ct.eventtype", "ct.user", "ct.user.arn", "ct.user.identitytype", "ct.user.accountid", "ct.user.principalid", "ct.useragent",
		"ct.srcip", "ct.request", "ct.response", "ct.resources", "ct.sharedeventid", "ct.additionaleventdata",
		"ct.sessioncredentialfromconsole",
	}
	if source == "tfdrift" {
		fields = append(fields, "tf.kind", "tf.state", "tf.serial", "tf.action", "tf.address")
	}
	return fields
}

// aboutRecord reports whether the alert is about a CloudTrail record: those of the tfdrift source may also be about a state.
func aboutRecord(a *journal.Alert) bool {
	return (a.Source == "tfdrift" || a.Source == "aws_cloudtrail") && a.Fields["tf.kind"] != "tfstate"
}

// record rebuilds a CloudTrail record as far as fields tell, and names the fields that should hold JSON and do not.
func record(fields map[string]string) (text jsontext.Value, broken []string) {
	all := map[string]any{}
	for _, m := range members {
		value, there := fields[m.field]
		if !there || value == "" {
			continue
		}
		switch {
		case m.as == asText:
			all[m.name] = value
		case m.as == asBool && (value == "true" || value == "false"):
			all[m.name] = value == "true"
		case m.as == asJSON && holdsJSON(value):
			all[m.name] = jsontext.Value(value)
		default:
			broken = append(broken, m.field)
		}
	}
	if user := identity(fields); len(user) > 0 {
		all["userIdentity"] = user
	}
	text, err := json.Marshal(all, lenient, json.Deterministic(true))
	if err != nil {
		return nil, append(broken, err.Error())
	}
	return text, broken
}

// holdsJSON reports whether a text is JSON that can also stand inside a record, inside an alert: nesting has a limit.
func holdsJSON(text string) bool {
	if !jsontext.Value(text).IsValid(lenient) {
		return false
	}
	const many = 1000
	if strings.Count(text, "[")+strings.Count(text, "{") < many {
		return true
	}
	return jsontext.Value("[[[[" + text + "]]]]").IsValid(lenient)
}

// identity rebuilds userIdentity.
func identity(fields map[string]string) map[string]any {
	user := map[string]any{}
	for field, name := range map[string]string{
		"ct.user.arn": "arn", "ct.user.identitytype": "type", "ct.user.accountid": "accountId", "ct.user.principalid": "principalId",
	} {
		if fields[field] != "" {
			user[name] = fields[field]
		}
	}
	nameUser(user, fields["ct.user"], fields["ct.user.identitytype"], fields["ct.user.arn"])
	return user
}

// nameUser puts ct.user where it came from: depending on the kind of identity that is the user's name, the name of the
// role behind a session, the service, or just a word for the kind.
// https://github.com/falcosecurity/plugins/blob/main/plugins/cloudtrail/pkg/cloudtrail/extract.go
func nameUser(user map[string]any, name, kind, arn string) {
	session := kind == "AssumedRole" || kind == "" && strings.Contains(arn, ":assumed-role/")
	switch {
	case name == "" || name == kind, session && name == "AssumedRole":
	case kind == "Root" && name == "root": // the tfdrift source's word for a root user without a name
	case session:
		user["sessionContext"] = map[string]any{"sessionIssuer": map[string]any{"userName": name}}
	case kind == "AWSService":
		user["invokedBy"] = name
	default:
		user["userName"] = name
	}
}
