package feed

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// trimmable are the members that a record can do without, in the order in which they go: what the call answered before what
// it asked for. Who called what, when and from where always stays.
func trimmable() []string {
	return []string{"responseElements", "additionalEventData", "serviceEventDetails", "requestParameters"}
}

// omitted stands for a member that was left out, as CloudTrail itself writes it
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html).
const omitted = `{"omitted":true}`

// trim makes a record fit into limit bytes, and names the members it left out; none if that does not help. Whoever makes a
// call so large that its record does not fit must not thereby hide the call.
func trim(record []byte, limit int) (fitting []byte, cut []string) {
	for _, member := range trimmable() {
		if shorter := without(record, member); len(shorter) < len(record) {
			record, cut = shorter, append(cut, member)
		}
		if len(record) <= limit {
			return record, cut
		}
	}
	return nil, nil
}

// without is the record with one member omitted.
func without(record []byte, member string) []byte {
	out := []byte{'{'}
	trail.Members(record, func(name []byte, value jsontext.Value) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out, _ = jsontext.AppendQuote(out, name) // broken UTF-8 becomes U+FFFD
		out = append(out, ':')
		if string(name) == member {
			value = jsontext.Value(omitted)
		}
		out = append(out, value...)
	})
	return slices.Clip(append(out, '}'))
}
