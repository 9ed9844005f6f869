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

	"github.com/go-json-experiment/json"
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

// Decode reads one record. The Record aliases text: the caller must not change it afterwards. The error says at which
// byte the JSON is broken, or wraps ErrNotRecord.
func Decode(text []byte) (*Record, error) {
	r := &Record{Raw: text}
	members := map[string]any{
		"eventVersion": &r.EventVersion, "eventID": &r.EventID, "eventTime": &r.EventTime,
		"eventSource": &r.EventSource, "eventName": &r.EventName, "eventType": &r.EventType,
		"eventCategory": &r.EventCategory, "awsRegion": &r.Region, "sourceIPAddress": &r.SourceIP,
		"userAgent": &r.UserAgent, "errorCode": &r.ErrorCode, "errorMessage": &r.ErrorMessage,
		"requestID": &r.RequestID, "sharedEventID": &r.SharedEventID, "vpcEndpointId": &r.VPCEndpointID,
		"apiVersion": &r.APIVersion, "recipientAccountId": &r.RecipientAcct, "readOnly": &r.ReadOnly,
		"managementEvent": &r.ManagementEvent, "sessionCredentialFromConsole": &r.ConsoleSession,
		"requestParameters": &r.Request, "responseElements": &r.Response, "additionalEventData": &r.Additional,
		"serviceEventDetails": &r.ServiceDetails, "insightDetails": &r.Insight, "tlsDetails": &r.TLS,
		"userIdentity": &r.User, "resources": &r.Resources,
	}
	if err := object(text, members); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	if r.EventName == "" && r.EventType == "" {
		return nil, fmt.Errorf("decode record: %w: no eventName and no eventType", ErrNotRecord)
	}
	return r, nil
}

// lenient accepts what JSON writers in the wild produce: repeated names and broken UTF-8.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// object walks one JSON object and hands each member named in members to its variable. A member of an unexpected type
// leaves the variable as it is.
func object(text []byte, members map[string]any) error {
	d := jsontext.NewDecoder(bytes.NewReader(text), lenient)
	open, err := d.ReadToken()
	if err != nil {
		return err
	}
	if open.Kind() != '{' {
		return fmt.Errorf("%w: a JSON %s", ErrNotRecord, open.Kind())
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		into, wanted := members[name.String()]
		if !wanted {
			if err := d.SkipValue(); err != nil {
				return err
			}
			continue
		}
		start := d.InputOffset()
		if err := d.SkipValue(); err != nil {
			return err
		}
		assign(into, rawValue(text[start:d.InputOffset()]))
	}
	_, err = d.ReadToken()
	return err
}

// rawValue is what stands between a name and the next member, without the colon and the white space around it.
func rawValue(between []byte) jsontext.Value {
	return bytes.TrimLeft(between, ": \t\r\n")
}

func assign(into any, v jsontext.Value) {
	switch into := into.(type) {
	case *string:
		*into = text(v)
	case *time.Time:
		if t, err := time.Parse(time.RFC3339, text(v)); err == nil {
			*into = t.UTC()
		}
	case **bool:
		if b, ok := boolean(v); ok {
			*into = &b
		}
	case *bool:
		*into, _ = boolean(v)
	case *jsontext.Value:
		if v.Kind() != 'n' {
			*into = v
		}
	case *User:
		into.decode(v)
	case *[]Resource:
		*into = resources(v)
	}
}

// text is a scalar as a string: a string's content, or a number's digits.
func text(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil && b == nil {
			return ""
		}
		return string(b)
	case '0':
		return string(v)
	}
	return ""
}

// boolean accepts true and "true": some writers quote the flag.
func boolean(v jsontext.Value) (value, ok bool) {
	switch v.Kind() {
	case 't':
		return true, true
	case 'f':
		return false, true
	case '"':
		switch text(v) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
	}
	return false, false
}

func (u *User) decode(v jsontext.Value) {
	if v.Kind() != '{' {
		return
	}
	var session, onBehalf jsontext.Value
	_ = object(v, map[string]any{
		"type": &u.Type, "principalId": &u.PrincipalID, "arn": &u.ARN, "accountId": &u.AccountID,
		"accessKeyId": &u.AccessKeyID, "userName": &u.UserName, "invokedBy": &u.InvokedBy,
		"identityProvider": &u.IdentityProvider, "sessionContext": &session, "onBehalfOf": &onBehalf,
	})
	if onBehalf.Kind() == '{' {
		_ = object(onBehalf, map[string]any{"userId": &u.OnBehalfOfUser})
	}
	if session.Kind() != '{' {
		return
	}
	var issuer, attributes jsontext.Value
	_ = object(session, map[string]any{"sessionIssuer": &issuer, "attributes": &attributes, "sourceIdentity": &u.SourceIdentity})
	if issuer.Kind() == '{' {
		_ = object(issuer, map[string]any{
			"type": &u.Issuer.Type, "principalId": &u.Issuer.PrincipalID, "arn": &u.Issuer.ARN,
			"accountId": &u.Issuer.AccountID, "userName": &u.Issuer.UserName,
		})
	}
	if attributes.Kind() == '{' {
		_ = object(attributes, map[string]any{"mfaAuthenticated": &u.MFA})
	}
}

func resources(v jsontext.Value) []Resource {
	var all []struct {
		ARN       string `json:"ARN"`
		AccountID string `json:"accountId"`
		Type      string `json:"type"`
	}
	if v.Kind() != '[' || json.Unmarshal(v, &all, lenient, json.MatchCaseInsensitiveNames(true)) != nil {
		return nil
	}
	list := make([]Resource, len(all))
	for i, r := range all {
		list[i] = Resource(r)
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
