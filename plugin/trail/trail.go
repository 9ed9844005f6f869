// Package trail decodes one CloudTrail record.
//
// In comes the JSON text of one record, as CloudTrail writes it (without the "Records" wrapper); out goes a Record, whose
// members keep CloudTrail's names and whose request, response and the other free-form parts stay raw JSON. Decode accepts
// every record that is a JSON object: a member that is missing or of another type than CloudTrail documents is left
// empty rather than refused, because old event versions and trimmed records are common. A Record is not changed after
// Decode, so many goroutines may read it.
//
// Start reading at Record and Decode; mutates.go says what counts as a change, agent.go which tool made it.
//
// The record's members are documented at
// https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
package trail

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Record is one CloudTrail record. Texts are "" and raw values nil where the record has no such member or null.
type Record struct {
	EventVersion string
	EventID      string
	// EventTime is when the call was made, UTC, to the second; zero where the record has none that can be read.
	EventTime       time.Time
	EventSource     string // "ec2.amazonaws.com"
	EventName       string // as recorded, with any version suffix: see Action
	EventType       string // "AwsApiCall", "AwsServiceEvent", "AwsConsoleSignIn" ...
	EventCategory   string // "Management", "Data", "Insight" ...
	Region          string // awsRegion
	SourceIP        string
	UserAgent       string
	ErrorCode       string // "" for a call that succeeded
	ErrorMessage    string
	RequestID       string
	SharedEventID   string
	VPCEndpointID   string
	APIVersion      string
	RecipientAcct   string // recipientAccountId
	ReadOnly        *bool  // nil where the record does not say
	ManagementEvent *bool
	// ConsoleSession says that the credentials came from a console session (sessionCredentialFromConsole).
	ConsoleSession bool
	User           User

	Request        jsontext.Value // requestParameters
	Response       jsontext.Value // responseElements
	Additional     jsontext.Value // additionalEventData
	ServiceDetails jsontext.Value // serviceEventDetails
	Insight        jsontext.Value // insightDetails
	TLS            jsontext.Value // tlsDetails
	Resources      []Resource

	// Raw is the record's own text; it aliases what Decode was given.
	Raw jsontext.Value
}

// User is the record's userIdentity.
type User struct {
	Type             string // "IAMUser", "AssumedRole", "Root", "AWSService" ...
	PrincipalID      string
	ARN              string
	AccountID        string
	AccessKeyID      string
	UserName         string
	InvokedBy        string // the service that called on somebody's behalf
	IdentityProvider string
	OnBehalfOfUser   string // IAM Identity Center's user id
	// Issuer is sessionContext.sessionIssuer: the role behind a session.
	Issuer struct{ Type, PrincipalID, ARN, AccountID, UserName string }
	// MFA is sessionContext.attributes.mfaAuthenticated.
	MFA            bool
	SourceIdentity string
}

// Resource is one entry of the record's resources list.
type Resource struct {
	ARN       string
	AccountID string
	Type      string
}

// ErrNotRecord is wrapped by Decode's error for a text that is not a JSON object with an eventName or an eventType.
var ErrNotRecord = errors.New("not a CloudTrail record")

// Decode reads one record. The Record aliases text: the caller must not change it afterwards. The error wraps a
// *SyntaxError, which says at which byte the JSON is broken, or ErrNotRecord. A member that is repeated counts as it stands last.
func Decode(text []byte) (*Record, error) {
	r := &Record{Raw: text}
	s := scanner{text: text}
	if kind := r.Raw.Kind(); kind != '{' && kind != jsontext.KindInvalid {
		return nil, fmt.Errorf("decode record: %w: a JSON %s", ErrNotRecord, kind)
	}
	if err := s.object(r.member); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	if s.next(); s.at < len(text) {
		return nil, fmt.Errorf("decode record: %w", s.unexpected("the end"))
	}
	if r.EventName == "" && r.EventType == "" {
		return nil, fmt.Errorf("decode record: %w: no eventName and no eventType", ErrNotRecord)
	}
	return r, nil
}

// member takes one member of a record; over 60 lines because it is the table of all of them.
func (r *Record) member(name []byte, v jsontext.Value) {
	switch string(name) {
	case "eventVersion":
		text(&r.EventVersion, v)
	case "eventID":
		text(&r.EventID, v)
	case "eventTime":
		r.EventTime = moment(v)
	case "eventSource":
		text(&r.EventSource, v)
	case "eventName":
		text(&r.EventName, v)
	case "eventType":
		text(&r.EventType, v)
	case "eventCategory":
		text(&r.EventCategory, v)
	case "awsRegion":
		text(&r.Region, v)
	case "sourceIPAddress":
		text(&r.SourceIP, v)
	case "userAgent":
		text(&r.UserAgent, v)
	case "errorCode":
		text(&r.ErrorCode, v)
	case "errorMessage":
		text(&r.ErrorMessage, v)
	case "requestID":
		text(&r.RequestID, v)
	case "sharedEventID":
		text(&r.SharedEventID, v)
	case "vpcEndpointId":
		text(&r.VPCEndpointID, v)
	case "apiVersion":
		text(&r.APIVersion, v)
	case "recipientAccountId":
		text(&r.RecipientAcct, v)
	case "readOnly":
		flag(&r.ReadOnly, v)
	case "managementEvent":
		flag(&r.ManagementEvent, v)
	case "sessionCredentialFromConsole":
		r.ConsoleSession, _ = boolean(v)
	case "requestParameters":
		raw(&r.Request, v)
	case "responseElements":
		raw(&r.Response, v)
	case "additionalEventData":
		raw(&r.Additional, v)
	case "serviceEventDetails":
		raw(&r.ServiceDetails, v)
	case "insightDetails":
		raw(&r.Insight, v)
	case "tlsDetails":
		raw(&r.TLS, v)
	case "userIdentity":
		r.User.decode(v)
	case "resources":
		r.Resources = resources(v)
	}
}

// text keeps what is there when v is of another kind.
func text(into *string, v jsontext.Value) {
	if k := v.Kind(); k == '"' || k == '0' {
		*into = Text(v)
	}
}

func raw(into *jsontext.Value, v jsontext.Value) {
	if v.Kind() != 'n' {
		*into = v
	}
}

func flag(into **bool, v jsontext.Value) {
	if b, ok := boolean(v); ok {
		*into = &b
	}
}

// moment is the time a string names, zero for anything else.
func moment(v jsontext.Value) time.Time {
	t, err := time.Parse(time.RFC3339, Text(v))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// boolean accepts true and "true": some writers quote the flag.
func boolean(v jsontext.Value) (value, ok bool) {
	switch Text(v) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// Members calls each for the members of an object, in order, up to where the JSON breaks; not at all for anything else. A
// name written with escapes is given unescaped; name is only valid during the call, value aliases v.
func Members(v jsontext.Value, each func(name []byte, value jsontext.Value)) {
	if v.Kind() == '{' {
		s := scanner{text: v}
		_ = s.object(each)
	}
}

func (u *User) decode(v jsontext.Value) {
	Members(v, func(name []byte, v jsontext.Value) {
		switch string(name) {
		case "type":
			text(&u.Type, v)
		case "principalId":
			text(&u.PrincipalID, v)
		case "arn":
			text(&u.ARN, v)
		case "accountId":
			text(&u.AccountID, v)
		case "accessKeyId":
			text(&u.AccessKeyID, v)
		case "userName":
			text(&u.UserName, v)
		case "invokedBy":
			text(&u.InvokedBy, v)
		case "identityProvider":
			text(&u.IdentityProvider, v)
		case "onBehalfOf":
			Members(v, func(name []byte, v jsontext.Value) {
				if string(name) == "userId" {
					text(&u.OnBehalfOfUser, v)
				}
			})
		case "sessionContext":
			Members(v, u.session)
		}
	})
}

func (u *User) session(name []byte, v jsontext.Value) {
	switch string(name) {
	case "sourceIdentity":
		text(&u.SourceIdentity, v)
	case "attributes":
		Members(v, func(name []byte, v jsontext.Value) {
			if string(name) == "mfaAuthenticated" {
				u.MFA, _ = boolean(v)
			}
		})
	case "sessionIssuer":
		Members(v, func(name []byte, v jsontext.Value) {
			switch string(name) {
			case "type":
				text(&u.Issuer.Type, v)
			case "principalId":
				text(&u.Issuer.PrincipalID, v)
			case "arn":
				text(&u.Issuer.ARN, v)
			case "accountId":
				text(&u.Issuer.AccountID, v)
			case "userName":
				text(&u.Issuer.UserName, v)
			}
		})
	}
}

// resources reads the list, whose members' names are found in either case: ARN and arn, accountId and accountID.
func resources(v jsontext.Value) []Resource {
	var list []Resource
	for _, element := range Elements(v) {
		var r Resource
		Members(element, func(name []byte, v jsontext.Value) {
			switch {
			case bytes.EqualFold(name, []byte("arn")):
				text(&r.ARN, v)
			case bytes.EqualFold(name, []byte("accountId")):
				text(&r.AccountID, v)
			case bytes.EqualFold(name, []byte("type")):
				text(&r.Type, v)
			}
		})
		list = append(list, r)
	}
	return list
}

// Account is the account the changed resource belongs to: the recipient's, else the caller's, else "".
func (r *Record) Account() string {
	if r.RecipientAcct != "" {
		return r.RecipientAcct
	}
	return r.User.AccountID
}

// Name is the person or thing that made the call, as short as it stays telling: a user's name, a role session's name, a
// service's host name, "" when the record does not say.
func (r *Record) Name() string {
	u := r.User
	switch {
	case u.Type == "Root":
		return "root"
	case u.Type == "AssumedRole" && strings.Contains(u.ARN, "/"):
		return u.ARN[strings.LastIndexByte(u.ARN, '/')+1:]
	case u.UserName != "":
		return u.UserName
	case u.InvokedBy != "":
		return u.InvokedBy
	case strings.Contains(u.ARN, "/"):
		return u.ARN[strings.LastIndexByte(u.ARN, '/')+1:]
	case strings.Contains(u.PrincipalID, ":"):
		return u.PrincipalID[strings.LastIndexByte(u.PrincipalID, ':')+1:]
	}
	return u.PrincipalID
}
