package journal

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/bridge/wire"
)

// Alert is what an intake stores: one alert of Falco, or one CloudTrail record read directly. The inbox keeps it as JSON
// under these names.
type Alert struct {
	// Key is what makes the alert one: a key that is there already is not stored again. It must not be "".
	Key         string            `json:"key"`
	Intake      string            `json:"intake"`            // falco_grpc, falco_http or cloudtrail
	Rule        string            `json:"rule,omitzero"`     // of Falco; "" for cloudtrail
	Priority    string            `json:"priority,omitzero"` // Falco's word in lower case; "" for cloudtrail
	Output      string            `json:"output,omitzero"`
	Source      string            `json:"source,omitzero"` // Falco's event source
	Hostname    string            `json:"hostname,omitzero"`
	ContainerID string            `json:"container_id,omitzero"`
	Tags        []string          `json:"tags,omitzero"`
	Time        time.Time         `json:"time,omitzero"`
	Fields      map[string]string `json:"fields,omitzero"` // Falco's output fields as text; absent ones left out
	// Record is the CloudTrail record, if the alert is about one: whole, or rebuilt from ct.* fields.
	Record jsontext.Value `json:"record,omitzero"`
}

// lenient keeps records as CloudTrail writers in the wild make them.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func encodeAlert(a Alert) ([]byte, error) { return json.Marshal(a, lenient, json.Deterministic(true)) }

func decodeAlert(body []byte) (a Alert, err error) {
	err = json.Unmarshal(body, &a, lenient)
	return a, err
}

// Entry is an alert in the inbox.
type Entry struct {
	Seq      int64     // its place in the inbox, from 1
	Received time.Time // UTC, to the millisecond
	Alert    Alert
}

// DriftRow is one drift as it is now; ID is the drift's, and a later row of the same ID takes the place of this one.
type DriftRow struct {
	ID     string
	Drift  wire.Drift
	Status string // open counts as an open drift in Counts
}

// Commit is what became of some alerts and states: stored whole or not at all.
type Commit struct {
	Done   []int64    // inbox places that need no further work
	Events []string   // CloudTrail event ids that are now told
	Drifts []DriftRow // made or changed
	States []wire.State
	Gone   []string // URIs of states that have no row any more
	Blind  []string // one entry for each mutating event that nothing explained, "source:name"
	// Snapshots are stored together with what they give rise to.
	Snapshots []Snapshot
	// Messages are published in this order. Their ID is set by the journal; Type must be one that is journalled, Topic
	// drifts, events or state.
	Messages []wire.Message
}

// Stored is one message as it is kept.
type Stored struct {
	ID    wire.ID
	Type  wire.Type
	Topic wire.Topic
	Body  []byte // what wire.Encode made; shared, never to be changed
}
