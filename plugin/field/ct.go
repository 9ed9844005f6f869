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
	secretive := strings.HasPrefix(name, "ct.request") || strings.HasPrefix(name, "ct.response") || name == "ct.additionaleventdata"
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

var recordFields = []Field{
	ofRecord("ct.id", "Event ID", "the unique ID of the cloudtrail event (eventID in the json).",
		func(r *trail.Record) string { return r.EventID }),
	ofRecord("ct.error", "Error Code", "the error code from the event; absent if there was no error.",
		func(r *trail.Record) string { return r.ErrorCode }),
	ofRecord("ct.errormessage", "Error Message", "the description of an error; absent if there was no error.",
		func(r *trail.Record) string { return r.ErrorMessage }),
	at("ct.time", "Timestamp", "the timestamp of the cloudtrail event (eventTime in the json).", whole, "eventTime").with("hidden"),
	ofRecord("ct.src", "AWS Service", "the source of the cloudtrail event (eventSource in the json).",
		func(r *trail.Record) string { return r.EventSource }),
	ofRecord("ct.shortsrc", "AWS Service", "the source of the cloudtrail event (eventSource in the json, without the '.amazonaws.com' trailer).",
		func(r *trail.Record) string { return strings.TrimSuffix(r.EventSource, ".amazonaws.com") }),
	ofRecord("ct.name", "Event Name", "the name of the cloudtrail event (eventName in the json).",
		func(r *trail.Record) string { return r.EventName }),
	ofRecord("ct.user", "User Name", "the user of the cloudtrail event: the user's name, for a role session the role's name, for a service the service's.",
		user).with("conversation"),
	ofRecord("ct.originaluser", "Original User Name", "the user name as seen in CloudTrail: for a role session the session's name, for all others userIdentity.userName.",
		originalUser),
	ofRecord("ct.user.accountid", "User Account ID", "the account id of the user of the cloudtrail event, else of the account that received it.",
		func(r *trail.Record) string {
			if r.User.AccountID != "" {
				return r.User.AccountID
			}
			return r.RecipientAcct
		}),
	ofRecord("ct.user.identitytype", "User Identity Type", "the kind of user identity (e.g. Root, IAMUser, AWSService, etc.)",
		func(r *trail.Record) string { return r.User.Type }),
	ofRecord("ct.user.principalid", "User Principal Id", "a unique identifier for the user that made the request.",
		func(r *trail.Record) string { return r.User.PrincipalID }),
	ofRecord("ct.user.arn", "User ARN", "the Amazon Resource Name (ARN) of the user that made the request.",
		func(r *trail.Record) string { return r.User.ARN }),
	ofRecord("ct.region", "Region", "the region of the cloudtrail event (awsRegion in the json).",
		func(r *trail.Record) string { return r.Region }),
	at("ct.response.subnetid", "Response Subnet ID", "the subnet ID included in the response.", response, "subnetId"),
	at("ct.response.reservationid", "Response Reservation ID", "the reservation ID included in the response.", response, "reservationId"),
	at("ct.response", "Response Elements", "all response elements, as JSON.", response),
	at("ct.request.availabilityzone", "Request Availability Zone", "the availability zone included in the request.", request, "availabilityZone"),
	at("ct.request.cluster", "Request Cluster", "the cluster included in the request.", request, "cluster"),
	at("ct.request.functionname", "Request Function Name", "the function name included in the request.", request, "functionName"),
	at("ct.request.groupname", "Request Group Name", "the group name included in the request.", request, "groupName"),
	at("ct.request.host", "Request Host Name", "the host included in the request.", request, "Host"),
	at("ct.request.name", "Host Name", "the name of the entity being acted on in the request.", request, "name"),
	at("ct.request.policy", "Host Policy", "the policy included in the request.", request, "policy"),
	at("ct.request.reason", "Request Reason", "the reason included in the request.", request, "reason"),
	at("ct.request.target", "Request Target", "the target included in the request.", request, "target"),
	at("ct.request.documentname", "Request Document Name", "the document name included in the request.", request, "documentName"),
	at("ct.request.serialnumber", "Request Serial Number", "the serial number provided in the request.", request, "serialNumber"),
	at("ct.request.servicename", "Request Service", "the service name provided in the request.", request, "serviceName"),
	at("ct.request.subnetid", "Request Subnet ID", "the subnet ID provided in the request.", request, "subnetId"),
	at("ct.request.taskdefinition", "Request Task Definition", "the task definition provided in the request.", request, "taskDefinition"),
	at("ct.request.username", "Request User Name", "the username provided in the request.", request, "userName"),
	at("ct.request", "Request Parameters", "all request parameters, as JSON.", request),
	ofRecord("ct.srcip", "Source IP", "the IP address generating the event (sourceIPAddress in the json).",
		func(r *trail.Record) string { return r.SourceIP }).with("conversation"),
	ofRecord("ct.useragent", "User Agent", "the user agent generating the event (userAgent in the json).",
		func(r *trail.Record) string { return r.UserAgent }),
	ofRecord("ct.info", "Info", "summary information about the event: who, from where, whether it reads (←) or writes (→) or was refused (!), and what.",
		info).with("info"),
	flag("ct.managementevent", "Management Event", "'true' if the event is a management event, 'false' otherwise; absent where the record does not say.",
		func(r *trail.Record) *bool { return r.ManagementEvent }),
	flag("ct.readonly", "Read Only", "'true' if the event only reads information (e.g. DescribeInstances), 'false' if the event modifies the state (e.g. RunInstances, CreateLoadBalancer...); absent where the record does not say.",
		func(r *trail.Record) *bool { return r.ReadOnly }),
	ofRecord("ct.requestid", "Request ID", "the value that identifies the request.",
		func(r *trail.Record) string { return r.RequestID }),
	ofRecord("ct.eventtype", "Event Type", "identifies the type of event that generated the event record.",
		func(r *trail.Record) string { return r.EventType }),
	ofRecord("ct.apiversion", "API Version", "the API version associated with the AwsApiCall eventType value.",
		func(r *trail.Record) string { return r.APIVersion }),
	at("ct.resources", "Resources", "the list of resources accessed in the event, as JSON.", whole, "resources"),
	ofRecord("ct.recipientaccountid", "Recipient Account Id", "the account ID that received this event.",
		func(r *trail.Record) string { return r.RecipientAcct }),
	at("ct.serviceeventdetails", "Service Event Details", "identifies the service event, including what triggered the event and the result, as JSON.", whole, "serviceEventDetails"),
	ofRecord("ct.sharedeventid", "Shared Event ID", "GUID generated by CloudTrail to uniquely identify CloudTrail events.",
		func(r *trail.Record) string { return r.SharedEventID }),
	ofRecord("ct.vpcendpointid", "VPC Endpoint ID", "identifies the VPC endpoint in which requests were made.",
		func(r *trail.Record) string { return r.VPCEndpointID }),
	ofRecord("ct.eventcategory", "Event Category", "shows the event category that is used in LookupEvents calls.",
		func(r *trail.Record) string { return r.EventCategory }),
	at("ct.addendum.reason", "Reason", "the reason that the event or some of its contents were missing.", whole, "addendum", "reason"),
	at("ct.addendum.updatedfields", "Updated Fields", "the event record fields that are updated by the addendum.", whole, "addendum", "updatedFields"),
	at("ct.addendum.originalrequestid", "Original Request ID", "the original unique ID of the request.", whole, "addendum", "originalRequestID"),
	at("ct.addendum.originaleventid", "Original Event ID", "the original event ID.", whole, "addendum", "originalEventID"),
	at("ct.sessioncredentialfromconsole", "Session Credential From Console", "shows whether or not an event originated from an AWS Management Console session.", whole, "sessionCredentialFromConsole"),
	at("ct.edgedevicedetails", "Edge Device Details", "information about edge devices that are targets of a request, as JSON.", whole, "edgeDeviceDetails"),
	at("ct.tlsdetails.tlsversion", "TLS Version", "the TLS version of a request.", tls, "tlsVersion"),
	at("ct.tlsdetails.ciphersuite", "TLS Cipher Suite", "the cipher suite (combination of security algorithms used) of a request.", tls, "cipherSuite"),
	at("ct.tlsdetails.clientprovidedhostheader", "Client Provided Host Header", "the client-provided host name used in the service API call.", tls, "clientProvidedHostHeader"),
	at("ct.additionaleventdata", "Additional Event Data", "all additional event data attributes, as JSON.", additional),
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
