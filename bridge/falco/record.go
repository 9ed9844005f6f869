package falco

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// texts says which member of a record each ct.* field holds as text; the fields are the official cloudtrail plugin's
// (https://github.com/falcosecurity/plugins/tree/main/plugins/cloudtrail#supported-fields), which ours bears too.
var texts = map[string]string{
	"ct.id": "eventID", "ct.time": "eventTime", "ct.src": "eventSource", "ct.name": "eventName", "ct.error": "errorCode",
	"ct.errormessage": "errorMessage", "ct.region": "awsRegion", "ct.recipientaccountid": "recipientAccountId",
	"ct.eventtype": "eventType", "ct.useragent": "userAgent", "ct.srcip": "sourceIPAddress", "ct.sharedeventid": "sharedEventID",
	"ct.eventcategory": "eventCategory", "ct.requestid": "requestID", "ct.vpcendpointid": "vpcEndpointId", "ct.apiversion": "apiVersion",
	"ct.readonly": "readOnly", "ct.managementevent": "managementEvent", "ct.sessioncredentialfromconsole": "sessionCredentialFromConsole",
}

// raws are the fields that hold a member as JSON.
var raws = map[string]string{
	"ct.request": "requestParameters", "ct.response": "responseElements", "ct.resources": "resources",
	"ct.additionaleventdata": "additionalEventData",
}

// users are the fields that make userIdentity.
var users = map[string]string{
	"ct.user.arn": "arn", "ct.user.identitytype": "type", "ct.user.accountid": "accountId", "ct.user.principalid": "principalId",
	"ct.user.invokedby": "invokedBy",
}

// record rebuilds the CloudTrail record an alert is about, as far as its fields tell; nil for any other alert.
func record(a *journal.Alert) jsontext.Value {
	f := a.Fields
	if a.Source != "tfdrift" && a.Source != "aws_cloudtrail" || f["ct.name"] == "" || f["ct.src"] == "" || f["tf.kind"] == "tfstate" {
		return nil
	}
	rec := map[string]any{}
	for field, member := range texts {
		switch value := f[field]; value {
		case "":
		case "true", "false":
			rec[member] = jsontext.Value(value)
		default:
			rec[member] = value
		}
	}
	for field, member := range raws {
		if value := jsontext.Value(f[field]); len(value) > 0 && value.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
			rec[member] = value
		}
	}
	user := map[string]any{}
	for field, member := range users {
		if f[field] != "" {
			user[member] = f[field]
		}
	}
	if name := f["ct.user"]; name != "" && f["ct.user.identitytype"] != "Root" {
		user["userName"] = name
	}
	if len(user) > 0 {
		rec["userIdentity"] = user
	}
	text, err := json.Marshal(rec, lenient, json.Deterministic(true))
	if err != nil {
		return nil
	}
	return text
}
