package wire

import (
	"fmt"
	"slices"
	"strings"
)

// Query asks for what is kept: the payload of a client's query, and what REST takes from an address.
type Query struct {
	What   Topic  `json:"what"` // drifts, events, state or stats
	Filter Filter `json:"filter,omitzero"`
	// Limit is how many items a page has at most; 0 lets the server choose.
	Limit int `json:"limit,omitzero"`
	// After is the next of the page before; "" asks for the first page.
	After string `json:"after,omitzero"`
}

// Filter narrows a query: an item is given when it has, for every name, one of the texts. Names are those of
// FilterNames; a text matches as a whole.
type Filter map[string][]string

// filters has the place in an item of each name that a query can be narrowed by: a member of the message, or of its payload.
var filters = map[Topic]map[string]string{
	TopicDrifts: {
		"account": "payload.event.account", "address": "payload.address", "attribute": "payload.attribute",
		"drift_id": "payload.drift_id", "event": "payload.event.name", "precision": "payload.precision",
		"region": "payload.event.region", "resource_id": "payload.resource_id", "resource_type": "payload.resource_type",
		"rule": "payload.rule", "severity": "payload.severity", "state": "payload.state.uri", "status": "payload.status",
		"user": "payload.user", "verdict": "payload.verdict",
	},
	TopicEvents: {
		"account": "payload.event.account", "address": "payload.address", "container_id": "payload.container_id",
		"event": "payload.event.name", "event_id": "payload.event_id", "hostname": "payload.hostname",
		"priority": "payload.priority", "region": "payload.event.region", "resource_id": "payload.resource_id",
		"resource_type": "payload.resource_type", "rule": "payload.rule", "severity": "payload.severity",
		"source": "payload.source", "type": "type", "user": "payload.user", "verdict": "payload.verdict",
	},
	TopicState: {"lineage": "lineage", "terraform_version": "terraform_version", "uri": "uri"},
	TopicStats: {},
}

// FilterNames gives the names that a query for a topic can be narrowed by, sorted; none for stats and for what is no
// topic of queries.
func FilterNames(what Topic) []string {
	var names []string
	for name := range filters[what] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// FilterPlace is where an item has what a filter compares: member names with dots between them. It is "" for a name that
// FilterNames does not give.
func FilterPlace(what Topic, name string) string { return filters[what][name] }

// Check finds fault with a query's topic and filter; the error says what there is.
func (q Query) Check() error {
	if _, known := filters[q.What]; !known {
		return fmt.Errorf("unknown what %.64q: want drifts, events, state or stats", string(q.What))
	}
	const most = 64 // of what a client wrote, in an error
	for name, texts := range q.Filter {
		short := strings.ToValidUTF8(name[:min(len(name), most)], "")
		switch {
		case FilterPlace(q.What, name) == "" && len(filters[q.What]) == 0:
			return fmt.Errorf("unknown filter %q: %s has none", short, q.What)
		case FilterPlace(q.What, name) == "":
			return fmt.Errorf("unknown filter %q for %s: want %s", short, q.What, strings.Join(FilterNames(q.What), ", "))
		case len(texts) == 0:
			return fmt.Errorf("filter %q has no text to compare with", name)
		}
	}
	return nil
}
