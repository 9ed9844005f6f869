package wire

import "github.com/go-json-experiment/json/jsontext"

// Precision is how much of a change is known.
type Precision string

// The precisions, from the best: nothing is ever guessed, what is not known lowers the precision.
const (
	Exact      Precision = "exact"      // resource, attribute, old and new value
	Partial    Precision = "partial"    // the attribute, but a value is unknown
	Touched    Precision = "touched"    // the resource only
	Unresolved Precision = "unresolved" // a mutating call of which no managed resource is known
)

// Verdict is what the bridge makes of a change.
type Verdict string

// The verdicts. Only VerdictDrift and VerdictDeleted go to the topic drifts.
const (
	VerdictDrift      Verdict = "drift"      // a managed resource, changed outside Terraform
	VerdictDeleted    Verdict = "deleted"    // a managed resource, deleted outside Terraform
	VerdictTerraform  Verdict = "terraform"  // changed by Terraform, as the caller says
	VerdictAttempted  Verdict = "attempted"  // a refused call on a managed resource
	VerdictUnresolved Verdict = "unresolved" // a mutating call that no state explains: a blind spot
)

// Drift is the payload of a drift message: one attribute of one resource instance, or the whole instance.
type Drift struct {
	Severity     string `json:"severity"` // critical, high, medium, low or info
	ResourceType string `json:"resource_type"`
	ResourceID   string `json:"resource_id"` // the provider's id, as the state has it
	// OldValue and NewValue are texts: scalars as they are, anything else as compact JSON, "" where unknown or absent;
	// Change tells these apart.
	OldValue string `json:"old_value"`
	NewValue string `json:"new_value"`
	User     string `json:"user"`

	DriftID   string    `json:"drift_id"`
	Status    string    `json:"status"` // open
	Verdict   Verdict   `json:"verdict"`
	Precision Precision `json:"precision"`
	Address   string    `json:"address"` // as Terraform prints it
	Attribute string    `json:"attribute,omitzero"`
	Change    *Change   `json:"change,omitzero"`
	Actor     Actor     `json:"actor"`
	Event     Source    `json:"event"`
	State     StateRef  `json:"state"`
	// Rule is the Falco rule that told of it, "" when the record was read directly.
	Rule string `json:"rule,omitzero"`
	// Also names further states that claim the same resource: which of them is right is not known here.
	Also []string `json:"also_in,omitzero"`
}

// Change has the values as they are typed. A nil value is not known; JSON null is a value that was or is absent.
type Change struct {
	Attribute string         `json:"attribute"`
	Old       jsontext.Value `json:"old,omitzero"`
	New       jsontext.Value `json:"new,omitzero"`
	OldKnown  bool           `json:"old_known"`
	NewKnown  bool           `json:"new_known"`
	Sensitive bool           `json:"sensitive,omitzero"`
}

// Actor is who made the call.
type Actor struct {
	Name      string `json:"name"`
	Type      string `json:"type,omitzero"` // CloudTrail's userIdentity.type
	ARN       string `json:"arn,omitzero"`
	Account   string `json:"account,omitzero"`
	Principal string `json:"principal,omitzero"`
	// Role is the ARN of the role behind a session.
	Role           string `json:"role,omitzero"`
	SourceIdentity string `json:"source_identity,omitzero"`
	Tool           string `json:"tool,omitzero"` // terraform, console, cli ... as the user agent claims
	UserAgent      string `json:"user_agent,omitzero"`
	InvokedBy      string `json:"invoked_by,omitzero"`
}

// Source is the CloudTrail record behind a message.
type Source struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Source  string `json:"source"`
	Time    Time   `json:"time,omitzero"`
	Region  string `json:"region,omitzero"`
	Account string `json:"account,omitzero"`
	Address string `json:"source_address,omitzero"` // where the call came from
	Error   string `json:"error,omitzero"`
}

// StateRef is the state a drift departs from.
type StateRef struct {
	URI     string `json:"uri"`
	Serial  uint64 `json:"serial"`
	Lineage string `json:"lineage,omitzero"`
	// Written is when the snapshot compared with was written; zero where no snapshot is older than the event.
	Written Time `json:"written,omitzero"`
}

// Event is the payload of an event message: what a CloudTrail record was found to be, where that is not a drift.
type Event struct {
	Verdict      Verdict   `json:"verdict"`
	Severity     string    `json:"severity"`
	Precision    Precision `json:"precision"`
	Address      string    `json:"address,omitzero"`
	ResourceType string    `json:"resource_type,omitzero"`
	ResourceID   string    `json:"resource_id,omitzero"`
	User         string    `json:"user"`
	Actor        Actor     `json:"actor"`
	Event        Source    `json:"event"`
	State        *StateRef `json:"state,omitzero"`
	Rule         string    `json:"rule,omitzero"`
}

// Falco is the payload of a falco message: one alert as Falco sent it.
type Falco struct {
	Severity    string   `json:"severity"` // critical, high, medium, low or info
	Rule        string   `json:"rule"`
	Output      string   `json:"output"`
	ContainerID string   `json:"container_id"` // "" outside a container
	Priority    string   `json:"priority"`     // Falco's own word, in lower case
	Source      string   `json:"source"`       // Falco's event source: syscall, tfdrift, aws_cloudtrail ...
	Hostname    string   `json:"hostname,omitzero"`
	Tags        []string `json:"tags,omitzero"`
	// EventID is the CloudTrail record the alert is about; "" for other alerts.
	EventID string `json:"event_id,omitzero"`
}

// StateChange is the payload of a state_change message: one resource instance between two serials of one state, or a
// finding about the state itself, whose Resource is then "".
type StateChange struct {
	Resource string `json:"resource"` // the address
	// Action is created, modified, replaced, deleted, moved, tainted or untainted, or the finding: serial_backwards,
	// lineage_changed, same_serial.
	Action   string `json:"action"`
	Serial   uint64 `json:"serial"`
	Previous uint64 `json:"previous_serial"`
	ChangeID string `json:"change_id"`
	State    string `json:"state"` // URI
	Lineage  string `json:"lineage,omitzero"`
	// ResourceType and ResourceID are "" for a finding.
	ResourceType    string   `json:"resource_type,omitzero"`
	ResourceID      string   `json:"resource_id,omitzero"`
	PreviousAddress string   `json:"previous_address,omitzero"` // of what moved
	Attributes      []Change `json:"attributes,omitzero"`
	Written         Time     `json:"written,omitzero"`
	// Detail says in words what a finding found.
	Detail string `json:"detail,omitzero"`
}

// Stats is the payload of a stats message.
type Stats struct {
	Epoch         string           `json:"epoch"`
	UptimeSeconds int64            `json:"uptime_seconds"`
	Clients       int              `json:"clients"`
	OpenDrifts    int64            `json:"open_drifts"`
	Messages      map[string]int64 `json:"messages"` // journalled so far, by type
	Alerts        int64            `json:"alerts"`   // stored in the inbox so far
	Pending       int64            `json:"pending"`  // alerts not yet correlated
	States        int64            `json:"states"`
	Resources     int64            `json:"resources"`
	// BlindSpots counts mutating events that no state explained, by "source:name".
	BlindSpots map[string]int64 `json:"blind_spots,omitzero"`
}

// State is one Terraform state as REST and queries show it.
type State struct {
	URI       string `json:"uri"`
	Serial    uint64 `json:"serial"`
	Lineage   string `json:"lineage,omitzero"`
	Terraform string `json:"terraform_version,omitzero"`
	Resources int64  `json:"resources"` // instances, data sources included
	Written   Time   `json:"written,omitzero"`
	Read      Time   `json:"read,omitzero"`  // when the bridge last read it whole
	Fault     string `json:"fault,omitzero"` // why it cannot be read now, "" when it can
}

// Welcome is the payload of the first message of a session.
type Welcome struct {
	Message  string `json:"message"` // WelcomeMessage
	ClientID string `json:"client_id"`
	Epoch    string `json:"epoch"`   // of the journal: an id means nothing in another
	Cursor   ID     `json:"cursor"`  // the newest message at this moment
	Version  int    `json:"version"` // Version
}

// WelcomeMessage is the text every welcome carries.
const WelcomeMessage = "Connected to TFDrift-Falco WebSocket"

// Gap tells that messages are missing here.
type Gap struct {
	// Reason is retention: the messages behind From up to To are no longer kept; or other_journal: From was not given by
	// this journal, and everything that it keeps follows.
	Reason string `json:"reason"`
	From   ID     `json:"from,omitzero"`
	To     ID     `json:"to,omitzero"`
	Lost   int64  `json:"lost"` // how many, -1 when that is not known
}

// List is what REST answers: messages, the newest first, or states by URI. Next is the "after" of the following page, ""
// at the end.
type List struct {
	Items []jsontext.Value `json:"items"`
	Next  string           `json:"next,omitzero"`
}

// QueryResult is the payload that answers a query: a List, and what it is of.
type QueryResult struct {
	What  Topic            `json:"what"` // drifts, events, state or stats
	Items []jsontext.Value `json:"items"`
	Next  string           `json:"next,omitzero"`
}

// Ready is what the readiness endpoint answers.
type Ready struct {
	Ready  bool             `json:"ready"` // no check finds its stage unusable; some may be degraded
	Checks map[string]Check `json:"checks"`
}

// Check is one stage's state: well, degraded, or unusable.
type Check struct {
	OK bool `json:"ok"` // all is well
	// Degraded is set when not OK and yet in use: something is missing or set wrongly, and the rest goes on.
	Degraded bool   `json:"degraded,omitzero"`
	Reason   string `json:"reason,omitzero"` // what is missing, when not OK
}
