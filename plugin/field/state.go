package field

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// Document is the payload of an event that is not a CloudTrail record: one change of one resource instance between two
// serials of a state, or one finding about a state. As JSON it stands alone under the name tfstate:
//
//	{"tfstate":{"version":1,"action":"modified","state":"file:///s/prod.tfstate","lineage":"5e7c…","serial":7,
//	  "previous_serial":6,"written":"2026-11-20T12:00:00Z","address":"aws_s3_bucket.logs","type":"aws_s3_bucket",
//	  "id":"logs-1","attributes":[{"path":"tags.Team","old":"a","new":"b"}]}}
//
// Members are only added within a version.
type Document struct {
	Version int `json:"version"` // DocumentVersion
	// Action is created, modified, replaced, deleted, moved, tainted or untainted, or the finding: serial_backwards,
	// lineage_changed, same_serial.
	Action    string    `json:"action"`
	Detail    string    `json:"detail,omitzero"` // of a finding, in words
	State     string    `json:"state"`           // URI
	Lineage   string    `json:"lineage,omitzero"`
	Terraform string    `json:"terraform_version,omitzero"`
	Serial    uint64    `json:"serial"`
	Previous  uint64    `json:"previous_serial"`
	Written   time.Time `json:"written,omitzero"`
	// Address and what follows are empty for a finding.
	Address         string `json:"address,omitzero"`
	PreviousAddress string `json:"previous_address,omitzero"` // of what moved
	Module          string `json:"module,omitzero"`           // "" in the root module
	Type            string `json:"type,omitzero"`
	ID              string `json:"id,omitzero"` // the provider's
	// Attributes are those that changed, in the order of their paths; AttributesCut more did not fit.
	Attributes    []DocumentAttribute `json:"attributes,omitzero"`
	AttributesCut int                 `json:"attributes_cut,omitzero"`
}

// DocumentAttribute is one changed attribute. A nil value was or is absent; sensitive values are redacted.
type DocumentAttribute struct {
	Path      string         `json:"path"`
	Old       jsontext.Value `json:"old,omitzero"`
	New       jsontext.Value `json:"new,omitzero"`
	Sensitive bool           `json:"sensitive,omitzero"`
}

// DocumentVersion is the version of the document's form.
const DocumentVersion = 1

// MaxDocument is the size in bytes that no encoded document exceeds: an event of Falco holds 256 KiB.
const MaxDocument = 200 << 10

// documentStart is how every encoded document begins, and no CloudTrail record does.
const documentStart = `{"tfstate":{`

func isDocument(payload []byte) bool { return bytes.HasPrefix(payload, []byte(documentStart)) }

// Encode makes the documents of a serial: one for each change, then one for each finding; none for a first serial
// without findings.
func Encode(s inventory.Serial) [][]byte {
	base := Document{
		Version: DocumentVersion, State: s.State, Lineage: s.Lineage, Terraform: s.Terraform,
		Serial: s.Serial, Previous: s.Previous, Written: s.Written.UTC(),
	}
	var all [][]byte
	for _, c := range s.Changes {
		d := base
		d.Action, d.Address, d.Module = string(c.Action), c.Address.String(), c.Address.Module
		d.Type, d.ID = c.Type, c.ID
		if c.Action == "moved" || c.Previous != (tfstate.Address{}) && c.Previous != c.Address {
			d.PreviousAddress = c.Previous.String()
		}
		d.Attributes, d.AttributesCut = fitting(c.Attributes)
		all = append(all, d.encode())
	}
	for _, f := range s.Findings {
		d := base
		d.Action, d.Detail = f.Kind, shorten(f.Detail)
		all = append(all, d.encode())
	}
	return all
}

// fitting takes the attributes that fit into a document and counts the others.
func fitting(attributes []tfstate.AttributeChange) (kept []DocumentAttribute, cut int) {
	room := MaxDocument - 16<<10 // for the other members, whose texts are short
	for _, a := range attributes {
		d := DocumentAttribute{Path: string(a.Path), Old: a.Old, New: a.New, Sensitive: a.Sensitive}
		if need := 2*len(d.Path) + len(d.Old) + len(d.New) + 64; need <= room {
			room -= need
			kept = append(kept, d)
		} else {
			cut++
		}
	}
	return kept, cut
}

func shorten(s string) string {
	if len(s) > 1024 {
		return strings.ToValidUTF8(s[:1024], "") + "…"
	}
	return s
}

func (d Document) encode() []byte {
	wrapped := struct {
		State Document `json:"tfstate"`
	}{d}
	text, err := json.Marshal(wrapped, lenient)
	if err != nil || len(text) > MaxDocument {
		// A value that is not JSON, or an address beyond all measure: the change is still told.
		wrapped.State.AttributesCut += len(d.Attributes)
		wrapped.State.Attributes = nil
		wrapped.State.Address, wrapped.State.PreviousAddress = shorten(d.Address), shorten(d.PreviousAddress)
		wrapped.State.ID, wrapped.State.Module = shorten(d.ID), shorten(d.Module)
		text, _ = json.Marshal(wrapped, lenient)
	}
	return text
}

var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// DecodeDocument reads what Encode made. It takes members it does not know from later writers of the same version.
func DecodeDocument(payload []byte) (*Document, error) {
	var wrapped struct {
		State *Document `json:"tfstate"`
	}
	if err := json.Unmarshal(payload, &wrapped, lenient); err != nil {
		return nil, fmt.Errorf("decode state change: %w", err)
	}
	switch d := wrapped.State; {
	case d == nil:
		return nil, fmt.Errorf("decode state change: no member %q", "tfstate")
	case d.Version != DocumentVersion:
		return nil, fmt.Errorf("decode state change: unsupported version %d", d.Version)
	default:
		return d, nil
	}
}

// String is the document in one line.
func (d *Document) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", d.State, d.Action)
	if d.Address != "" {
		b.WriteByte(' ')
		b.WriteString(d.Address)
	}
	for i, a := range d.Attributes {
		if i == 3 {
			fmt.Fprintf(&b, " and %d more", len(d.Attributes)-i+d.AttributesCut)
			break
		}
		b.WriteByte(' ')
		b.WriteString(a.Path)
	}
	fmt.Fprintf(&b, " (serial %d after %d)", d.Serial, d.Previous)
	return b.String()
}
