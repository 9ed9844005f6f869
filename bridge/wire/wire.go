// Package wire defines every message that a client of the bridge receives, once: WebSocket, SSE and REST send the bytes
// that Encode makes here. Within one Version members are only added, never renamed, retyped or used anew.
//
// Start reading at Message; payload.go has one type for each kind of message, id.go the cursor.
package wire

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Version of the protocol, sent in the welcome message.
//
//	1  2026-11  the protocol of TFDrift-Falco's WebSocket document, with id, epoch, replayed and the payload
//	            members beyond the documented ones.
const Version = 1

// Type is what a message is; it decides the payload's type.
type Type string

// The types of messages. Drift to StateChange are journalled and carry an id; the rest are not and do not.
const (
	TypeDrift        Type = "drift"        // payload Drift
	TypeFalco        Type = "falco"        // payload Falco
	TypeEvent        Type = "event"        // payload Event
	TypeStateChange  Type = "state_change" // payload StateChange
	TypeStats        Type = "stats"        // payload Stats
	TypeWelcome      Type = "welcome"      // payload Welcome
	TypePong         Type = "pong"         // no payload
	TypeSubscribed   Type = "subscribed"   // no payload; topic says which
	TypeUnsubscribed Type = "unsubscribed" // no payload; topic says which
	TypeQueryResult  Type = "query_result" // payload QueryResult
	TypeGap          Type = "gap"          // payload Gap
	TypeError        Type = "error"        // no payload; message says what was expected
)

// Topic is what a client subscribes to.
type Topic string

// The topics. All stands for the four others together.
const (
	TopicAll    Topic = "all"
	TopicDrifts Topic = "drifts"
	TopicEvents Topic = "events"
	TopicState  Topic = "state"
	TopicStats  Topic = "stats"
)

// Topics lists every topic a client may name, in the order in which errors name them.
var Topics = []Topic{TopicAll, TopicDrifts, TopicEvents, TopicState, TopicStats}

// Message is the envelope of everything sent.
type Message struct {
	// ID is the place in the journal's order; zero on what is not journalled.
	ID    ID    `json:"id,omitzero"`
	Type  Type  `json:"type"`
	Topic Topic `json:"topic,omitzero"`
	// Timestamp is when the thing told happened (a drift's event time, an alert's time), UTC; for stats, pong and the
	// like the time of sending.
	Timestamp Time `json:"timestamp,omitzero"`
	// Message is the text of an error.
	Message string `json:"message,omitzero"`
	Payload any    `json:"payload,omitzero"`
	// Replayed marks what the built-in demo made: it never happened.
	Replayed bool `json:"replayed,omitzero"`
}

// Encode gives a message's one JSON text, without a line break at its end. It fails only for a payload that is not one
// of this package's types. Values of others, in Change, may repeat names and hold broken UTF-8, which comes out as U+FFFD.
func Encode(m Message) ([]byte, error) {
	return json.Marshal(m, json.Deterministic(true), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// Time is a moment as the wire has it: UTC, RFC 3339, milliseconds.
type Time struct{ at time.Time }

// At is the wire's form of t; the zero time stays zero and is left out of messages.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Millisecond)} }

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Time is the moment in UTC.
func (t Time) Time() time.Time { return t.at.UTC() }

// IsZero reports a time that is not known.
func (t Time) IsZero() bool { return t.at.IsZero() }

// MarshalText writes the time as the wire has it.
func (t Time) MarshalText() ([]byte, error) {
	return t.at.UTC().AppendFormat(nil, timeLayout), nil
}

// UnmarshalText reads any RFC 3339 time.
func (t *Time) UnmarshalText(text []byte) error {
	at, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return err
	}
	*t = At(at)
	return nil
}
