// Package field has every field that a Falco rule can ask of an event of this plugin, and the plugin's parts that need
// no cgo: its configuration and its hold on the Terraform states.
//
// In comes an event's payload: a CloudTrail record, or the document of one state change (state.go). Out goes the value of
// one field at a time. The ct.* fields (ct.go) carry the names and meanings of Falco's cloudtrail plugin; the tf.* fields
// (tf.go) say what the record means in Terraform. Nothing is decoded before a field needs it, and what cannot be decoded
// has no fields. Values are text that any output can carry: valid UTF-8 without NUL.
//
// Start reading at Table and Extractor; engine.go is what the plugin opens and closes.
package field

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// Kind is the type of a field's values.
type Kind int

// The kinds. A truth is a String, "true" or "false", as in Falco's cloudtrail plugin: so it reads the same in every output
// of Falco, and a condition compares it without quotes.
const (
	String Kind = iota
	Uint64
)

// Field is one field of the table.
type Field struct {
	Name    string
	Kind    Kind
	List    bool // has any number of values
	Arg     bool // needs an argument: name[key]
	Index   bool // may have an index: name[0]
	Display string
	Desc    string
	// Properties are hints for viewers: hidden, info, conversation.
	Properties []string

	get func(x *Extractor, arg string) (any, bool)
}

// Table lists all fields. A field's place in it is its index for Extractor.Get.
func Table() []Field { return slices.Concat(recordFields, serviceFields, terraformFields) }

// Extractor gives the fields of one event after another. It is not safe for concurrent use: every thread of Falco has its
// own.
type Extractor struct {
	inventory *inventory.Inventory
	resolver  *trailmap.Resolver
	redactor  *tfstate.Redactor // of what a record holds; nil masks without a hash
	fields    []Field

	payload    []byte // of the event at hand, ours
	decoded    bool
	record     *trail.Record // nil for anything else
	change     *Document     // nil for anything else
	resolved   bool
	resolution trailmap.Resolution
	secrets    *secrets // of the resolution, nil before they are needed
}

// NewExtractor makes an Extractor. Both may be nil: then the fields that need the states have no values.
func NewExtractor(inv *inventory.Inventory, res *trailmap.Resolver) *Extractor {
	return &Extractor{inventory: inv, resolver: res, fields: Table()}
}

// Load takes an event. The payload is copied: it may belong to memory that is gone by the time a field is asked for.
func (x *Extractor) Load(payload []byte) {
	x.payload = append(x.payload[:0], payload...)
	x.decoded, x.record, x.change = false, nil, nil
	x.resolved, x.resolution, x.secrets = false, trailmap.Resolution{}, nil
}

// Get gives the value of the field at the index in Table: a string, a uint64, or for a List a []string. false means that
// the event has no such value. arg is the key or index in brackets, "" without.
func (x *Extractor) Get(fieldIndex int, arg string) (value any, ok bool) {
	if fieldIndex < 0 || fieldIndex >= len(x.fields) {
		return nil, false
	}
	value, ok = x.fields[fieldIndex].get(x, arg)
	if !ok {
		return nil, false
	}
	switch v := value.(type) {
	case string:
		return printable(v), true
	case []string:
		for i, s := range v {
			v[i] = printable(s)
		}
	}
	return value, ok
}

// printable makes text safe for C and for JSON. A NUL would hide all that follows it from Falco's rules and outputs.
func printable(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// decode reads the payload the first time a field needs it.
func (x *Extractor) decode() {
	if x.decoded {
		return
	}
	x.decoded = true
	if isDocument(x.payload) {
		x.change, _ = DecodeDocument(x.payload)
		return
	}
	x.record, _ = trail.Decode(x.payload)
}

// Summary is the event in one line, for String of the plugin; "" for what is neither a record nor a state change.
func (x *Extractor) Summary() string {
	x.decode()
	switch {
	case x.record != nil:
		return printable(x.maskText(info(x.record), false))
	case x.change != nil:
		return printable(x.change.String())
	}
	return ""
}

// text is a value as a rule compares it: a scalar as it is, anything else as JSON.
func text(v jsontext.Value) string {
	switch v.Kind() {
	case '{', '[', 'n':
		return string(v)
	}
	return trail.Text(v)
}

// present turns "" into absent.
func present(s string) (any, bool) { return s, s != "" }

func truth(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
