package field

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// The ct.* fields have the names and meanings of Falco's cloudtrail plugin, version 0.17
// (https://github.com/falcosecurity/plugins/tree/main/plugins/cloudtrail), so that its rules run here. Where that plugin
// does not do what it documents, ours do: ct.request.documentname, ct.serviceeventdetails and ct.edgedevicedetails have values,
// ct.resources is a JSON list, ct.user has one for every kind of identity, a JSON null is an absent value.

type part func(r *trail.Record) jsontext.Value

func request(r *trail.Record) jsontext.Value    { return r.Request }
func response(r *trail.Record) jsontext.Value   { return r.Response }
func additional(r *trail.Record) jsontext.Value { return r.Additional }
func tls(r *trail.Record) jsontext.Value        { return r.TLS }
func whole(r *trail.Record) jsontext.Value      { return r.Raw }

// ofRecord makes a field of anything a record has; "" is absent.
func ofRecord(name, display, desc string, get func(r *trail.Record) string) Field {
	return Field{Name: name, Display: display, Desc: desc, get: func(x *Extractor, _ string) (any, bool) {
		if x.decode(); x.record == nil {
			return nil, false
		}
		return present(get(x.record))
	}}
}

// at makes a field of the value below a part of the record; without names, of the whole part as JSON. What the call sent
// and got back may hold what a state calls sensitive.
func at(name, display, desc string, of part, names ...string) Field {
	secretive := name != "ct.time" && name != "ct.sessioncredentialfromconsole"
	return Field{Name: name, Display: display, Desc: desc, get: func(x *Extractor, _ string) (any, bool) {
		if x.decode(); x.record == nil {
			return nil, false
		}
		v, ok := trail.Member(of(x.record), names...)
		if !ok {
			return nil, false
		}
		if secretive {
			v = x.mask(v)
		}
		return text(v), true
	}}
}

// flag makes a field of a truth that the record may not tell.
func flag(name, display, desc string, get func(r *trail.Record) *bool) Field {
	return ofRecord(name, display, desc, func(r *trail.Record) string {
		if b := get(r); b != nil {
			return strconv.FormatBool(*b)
		}
		return ""
	})
}

func (f Field) with(property string) Field {
	f.Properties = []string{property}
	return f
}

// masked hides the secrets in a text; quotes says that it may quote the request.
func (f Field) masked(quotes bool) Field {
	get := f.get
	f.get = func(x *Extractor, arg string) (any, bool) {
		v, ok := get(x, arg)
		if s, isText := v.(string); ok && isText {
			return x.maskText(s, quotes), true
		}
		return v, ok
	}
	return f
}

var recordFields = []Field{
	ofRecord("ct.id", "Event", "eventID, which no other record shares.",
		func(r *trail.Record) string { return r.EventID }),
	ofRecord("ct.error", "Refusal", "errorCode of a refused call; absent for one that worked.",
		func(r *trail.Record) string { return r.ErrorCode }),
	ofRecord("ct.errormessage", "Refusal in words", "errorMessage of a refused call.",
		func(r *trail.Record) string { return r.ErrorMessage }).masked(true),
	at("ct.time", "Time", "eventTime: when the call was made, to the second.", whole, "eventTime").with("hidden"),
	ofRecord("ct.src", "Service", "eventSource, as in ec2.amazonaws.com.",
		func(r *trail.Record) string { return r.EventSource }),
	ofRecord("ct.shortsrc", "Service, short", "eventSource up to .amazonaws.com, as in ec2.",
		func(r *trail.Record) string { return strings.TrimSuffix(r.EventSource, ".amazonaws.com") }),
	ofRecord("ct.name", "Call", "eventName, with the API's version behind it where CloudTrail adds one.",
		func(r *trail.Record) string { return r.EventName }),
	ofRecord("ct.user", "Caller", "who called: a user's name, the role's name for a role session, the host name for a service.",
		user).with("conversation"),
	ofRecord("ct.originaluser", "Caller's session", "the name of a role session, else userIdentity.userName.",
		originalUser),
	ofRecord("ct.user.accountid", "Caller's account", "the account of the caller, else the one that received the event.",
		func(r *trail.Record) string {
			if r.User.AccountID != "" {
				return r.User.AccountID
			}
			return r.RecipientAcct
		}),
	ofRecord("ct.user.identitytype", "Caller's kind", "userIdentity.type: Root, IAMUser, AssumedRole, AWSService and others.",
		func(r *trail.Record) string { return r.User.Type }),
	ofRecord("ct.user.principalid", "Caller's principal", "userIdentity.principalId, with the session's name behind it for a role.",
		func(r *trail.Record) string { return r.User.PrincipalID }),
	ofRecord("ct.user.arn", "Caller's ARN", "userIdentity.arn.",
		func(r *trail.Record) string { return r.User.ARN }),
	ofRecord("ct.region", "Region", "awsRegion.",
		func(r *trail.Record) string { return r.Region }),
	at("ct.response.subnetid", "Subnet in the answer", "responseElements.subnetId.", response, "subnetId"),
	at("ct.response.reservationid", "Reservation in the answer", "responseElements.reservationId.", response, "reservationId"),
	at("ct.response", "Answer", "responseElements as JSON.", response),
	at("ct.request.availabilityzone", "Request: availabilityZone", "requestParameters.availabilityZone.", request, "availabilityZone"),
	at("ct.request.cluster", "Request: cluster", "requestParameters.cluster.", request, "cluster"),
	at("ct.request.functionname", "Request: functionName", "requestParameters.functionName.", request, "functionName"),
	at("ct.request.groupname", "Request: groupName", "requestParameters.groupName.", request, "groupName"),
	at("ct.request.host", "Request: Host", "requestParameters.Host.", request, "Host"),
	at("ct.request.name", "Request: name", "requestParameters.name.", request, "name"),
	at("ct.request.policy", "Request: policy", "requestParameters.policy.", request, "policy"),
	at("ct.request.reason", "Request: reason", "requestParameters.reason.", request, "reason"),
	at("ct.request.target", "Request: target", "requestParameters.target.", request, "target"),
	at("ct.request.documentname", "Request: documentName", "requestParameters.documentName.", request, "documentName"),
	at("ct.request.serialnumber", "Request: serialNumber", "requestParameters.serialNumber.", request, "serialNumber"),
	at("ct.request.servicename", "Request: serviceName", "requestParameters.serviceName.", request, "serviceName"),
	at("ct.request.subnetid", "Request: subnetId", "requestParameters.subnetId.", request, "subnetId"),
	at("ct.request.taskdefinition", "Request: taskDefinition", "requestParameters.taskDefinition.", request, "taskDefinition"),
	at("ct.request.username", "Request: userName", "requestParameters.userName.", request, "userName"),
	at("ct.request", "Request", "requestParameters as JSON.", request),
	ofRecord("ct.srcip", "Called from", "sourceIPAddress: an IP address, or the name of the service that called.",
		func(r *trail.Record) string { return r.SourceIP }).with("conversation"),
	ofRecord("ct.useragent", "User agent", "userAgent, which is the caller's own claim.",
		func(r *trail.Record) string { return r.UserAgent }),
	ofRecord("ct.info", "Summary", "one line: who, from where, whether it reads (←), writes (→) or was refused (!), and what.",
		info).masked(false).with("info"),
	flag("ct.managementevent", "Management event", "'true' for a management event, 'false' for another; absent where the record does not say.",
		func(r *trail.Record) *bool { return r.ManagementEvent }),
	flag("ct.readonly", "Reading call", "'true' for a call that only reads, 'false' for one that means to change; absent where the record does not say.",
		func(r *trail.Record) *bool { return r.ReadOnly }),
	ofRecord("ct.requestid", "Request id", "requestID, as the service logs it.",
		func(r *trail.Record) string { return r.RequestID }),
	ofRecord("ct.eventtype", "Kind of event", "eventType: AwsApiCall, AwsServiceEvent, AwsConsoleSignIn and others.",
		func(r *trail.Record) string { return r.EventType }),
	ofRecord("ct.apiversion", "API version", "apiVersion of an AwsApiCall.",
		func(r *trail.Record) string { return r.APIVersion }),
	at("ct.resources", "Resources", "resources as a JSON list: ARN, account and type of what was accessed.", whole, "resources"),
	ofRecord("ct.recipientaccountid", "Receiving account", "recipientAccountId: the account whose trail has the record.",
		func(r *trail.Record) string { return r.RecipientAcct }),
	at("ct.serviceeventdetails", "Service event", "serviceEventDetails as JSON: what set a service event off, and what came of it.", whole, "serviceEventDetails"),
	ofRecord("ct.sharedeventid", "Shared event", "sharedEventID: the same in the records that several accounts have of one call.",
		func(r *trail.Record) string { return r.SharedEventID }),
	ofRecord("ct.vpcendpointid", "VPC endpoint", "vpcEndpointId: the endpoint that the call went through.",
		func(r *trail.Record) string { return r.VPCEndpointID }),
	ofRecord("ct.eventcategory", "Category", "eventCategory: Management, Data, NetworkActivity or Insight.",
		func(r *trail.Record) string { return r.EventCategory }),
	at("ct.addendum.reason", "Addendum", "addendum.reason: why something was missing from an earlier record.", whole, "addendum", "reason"),
	at("ct.addendum.updatedfields", "Addendum's fields", "addendum.updatedFields: what this record corrects.", whole, "addendum", "updatedFields"),
	at("ct.addendum.originalrequestid", "Corrected request", "addendum.originalRequestID.", whole, "addendum", "originalRequestID"),
	at("ct.addendum.originaleventid", "Corrected event", "addendum.originalEventID.", whole, "addendum", "originalEventID"),
	at("ct.sessioncredentialfromconsole", "From the console", "'true' for a call with the credentials of a console session.", whole, "sessionCredentialFromConsole"),
	at("ct.edgedevicedetails", "Edge devices", "edgeDeviceDetails as JSON.", whole, "edgeDeviceDetails"),
	at("ct.tlsdetails.tlsversion", "TLS version", "tlsDetails.tlsVersion.", tls, "tlsVersion"),
	at("ct.tlsdetails.ciphersuite", "TLS cipher suite", "tlsDetails.cipherSuite.", tls, "cipherSuite"),
	at("ct.tlsdetails.clientprovidedhostheader", "Host called", "tlsDetails.clientProvidedHostHeader: the host that the caller named.", tls, "clientProvidedHostHeader"),
	at("ct.additionaleventdata", "More", "additionalEventData as JSON.", additional),
}

// user follows the official plugin where that gives a name, and Record.Name where it gives none.
func user(r *trail.Record) string {
	name := ""
	switch r.User.Type {
	case "Root", "IAMUser":
		name = r.User.UserName
	case "AWSService":
		name = r.User.InvokedBy
	case "AssumedRole":
		if r.User.Issuer.UserName != "" {
			return r.User.Issuer.UserName
		}
		return "AssumedRole"
	case "AWSAccount", "FederatedUser":
		return r.User.Type
	}
	if name == "" {
		name = r.Name()
	}
	return name
}

func originalUser(r *trail.Record) string {
	if r.User.Type == "AssumedRole" {
		return r.Name()
	}
	return r.User.UserName
}

// info is the record in one line.
func info(r *trail.Record) string {
	var b strings.Builder
	who := user(r)
	b.WriteString(who)
	if r.SourceIP != "" && r.SourceIP != who {
		if who != "" {
			b.WriteString(" via ")
		}
		b.WriteString(r.SourceIP)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if r.Refused() {
		b.WriteByte('!')
	}
	if r.Mutating() {
		b.WriteString("→ ")
	} else {
		b.WriteString("← ")
	}
	b.WriteString(r.EventName)
	if n, ok := transferred(r, "bytesTransferredIn", "bytesTransferredOut"); ok {
		b.WriteString(" Size=" + strconv.FormatUint(n, 10))
	}
	b.WriteString(subject(r))
	return b.String()
}

// subject is what the call is about, if that is a bucket, a key or a host.
func subject(r *trail.Record) string {
	bucket, key := member(r.Request, "bucketName"), member(r.Request, "key")
	host := member(r.Request, "Host")
	switch {
	case bucket != "" && key != "":
		return " URI=s3://" + bucket + "/" + key
	case bucket != "":
		return " Bucket=" + bucket
	case key != "":
		return " Key=" + key
	case host != "":
		return " Host=" + host
	}
	return ""
}

// member is the scalar at a path, "" where there is none.
func member(v jsontext.Value, names ...string) string {
	found, _ := trail.Member(v, names...)
	return trail.Text(found)
}
