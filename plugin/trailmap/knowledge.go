package trailmap

import (
	"embed"
	"fmt"
	"path"
	"sync"

	"github.com/go-json-experiment/json"
)

//go:embed aws/*.json
var files embed.FS

type key struct{ source, event string }

type knowledge struct {
	entries map[key]entry
	tuples  map[string]tuple
}

// document is one file of knowledge: a service's entries, one a line and sorted, and the tuples they speak of.
type document struct {
	// Global says that the service is one for all regions: a record's region does not tell which resource is meant.
	Global  bool             `json:"global,omitzero"`
	Tuples  map[string]tuple `json:"tuples"`
	Entries []entry          `json:"entries"`
}

// entry says what one call means.
//
// It speaks of places in the call: names of members from the outside in, separated by dots. Lists on the way are entered, a
// name's first letter may have either case, and the object that EC2 wraps some requests in (<Event>Request) does not count.
// "response:" and "additional:" before a place mean responseElements and additionalEventData. The place "account" is the
// record's account, "resources" are the ARNs of its resources, "invokedBy" is the service that called for somebody, and "=x"
// is the text x itself, for what each account has one of.
type entry struct {
	Source string `json:"source"` // eventSource
	Event  string `json:"event"`  // the API operation, without version suffix
	// Also has other names that records give the same call.
	Also []string `json:"also,omitzero"`
	// Nothing says that the call changes no configuration, although its record is not marked as reading.
	Nothing bool `json:"nothing,omitzero"`
	// ID has the places that identify the resource, in any spelling: see spellings. The first that holds something counts.
	ID []string `json:"id,omitzero"`
	// Lower says that the service keeps identifiers in lower case, however a request writes them.
	Lower bool `json:"lower,omitzero"`
	// Shared says that each of several resources named takes the same values. Without it, values are told only where the
	// call names one.
	Shared bool `json:"shared,omitzero"`
	// Global says as a document's that the record's region does not tell which resource is meant.
	Global bool `json:"global,omitzero"`
	// Shapes are the forms in which Terraform may manage what the call changes, the most specific first. Without any, the
	// call touches whatever resources it names.
	Shapes []shape `json:"shapes,omitzero"`
	// Each says that every shape with an instance tells its part: what no shape before it has told.
	Each bool `json:"each,omitzero"`
	// Moot has the members of the request that change nothing by themselves. A call with a further member that no assignment
	// tells is never told as one that changed nothing.
	Moot []string `json:"moot,omitzero"`
	// Hides says that the call may set more than its record says: it is never told as one that changed nothing.
	Hides bool `json:"hides,omitzero"`
	// Items has the places where the request lists the members that shapes with a Tuple are compared with; the first that
	// holds something counts, and "" is the request itself.
	Items []string `json:"items,omitzero"`
	// Evidence is where the facts come from.
	Evidence string `json:"evidence"`
}

// shape is one form in which Terraform manages the changed thing.
type shape struct {
	// Type is the resource type; "" stands for whatever resource the identifier names, by the rules of generic.go.
	Type   string `json:"type,omitzero"`
	Effect effect `json:"effect"`
	// When has texts that places must hold for the shape to count: "*" is anything, "" nothing at all.
	When map[string]string `json:"when,omitzero"`
	// ID takes the place of the entry's for this shape.
	ID []string `json:"id,omitzero"`
	// Parent is the attribute that holds the identifier, for members of the resource the call names; "" means the
	// instance is that resource itself. Of several members, which only Match can tell apart, none is meant.
	Parent string `json:"parent,omitzero"`
	// Alone says that the instance is the only one of its type in the record's account and region, both of which the state
	// must tell; the request names none.
	Alone bool `json:"alone,omitzero"`
	// Match has attributes that must say what the request says at the first of the places that holds something, in any
	// spelling; of several texts there, one of them. Where the request says nothing, the attribute must say nothing, and one
	// of all must be said.
	Match map[string][]string `json:"match,omitzero"`
	// Where are attribute values an instance must have.
	Where map[string]string `json:"where,omitzero"`
	// Set gives attributes their new values.
	Set []assignment `json:"set,omitzero"`
	// Tuple names how members are compared, Columns where a tuple's columns stand in the instance (below List, if that
	// is not ""), Self the flag that stands for the parent's own identifier in the column of that name.
	Tuple   string            `json:"tuple,omitzero"`
	List    string            `json:"list,omitzero"`
	Columns map[string]string `json:"columns,omitzero"`
	Self    map[string]string `json:"self,omitzero"`
}

// assignment gives an attribute's new value: From is a place, Value a constant; without either the attribute changes to a
// value that is not known. An attribute that the instance does not have at all, as in another version of the provider, is
// not told.
type assignment struct {
	Attribute string `json:"attribute"` // with indexes: versioning_configuration[0].status
	From      string `json:"from,omitzero"`
	Value     string `json:"value,omitzero"` // JSON, or else a text
	As        form   `json:"as,omitzero"`
	// When is as a shape's.
	When map[string]string `json:"when,omitzero"`
	// Default is the value that the call sets where From holds nothing, but Whole does: the object that the call replaces
	// as a whole, by default the one around From.
	Default string `json:"default,omitzero"`
	Whole   string `json:"whole,omitzero"`
	// Unless has old values that mean the same as the default where From holds nothing.
	Unless []string `json:"unless,omitzero"`
	// Secret says that the value is redacted even where the state does not mark it as sensitive.
	Secret bool `json:"secret,omitzero"`
	// Same maps other spellings of the value to the one Terraform keeps; None are values that mean none where the state has
	// none.
	Same map[string]string `json:"same,omitzero"`
	None []string          `json:"none,omitzero"`
	// All is the map that has, beside the map, further keys: those that the
	// provider's default_tags give. A key that only this map has is told with its path.
	All string `json:"all,omitzero"`
	// Apart are the resources that manage single keys of the map: a key that one of them has is not told here.
	Apart *apart `json:"apart,omitzero"`
	// Key is the attribute that names the key whose value counts, for the form "value".
	Key string `json:"key,omitzero"`
	// Blocks has the attributes that members have within blocks, at any depth.
	Blocks map[string]string `json:"blocks,omitzero"`
}

// apart is a type of resource that is one key of another resource's map: Parent holds the other's id, Key the key.
type apart struct {
	Type   string `json:"type"`
	Parent string `json:"parent"`
	Key    string `json:"key"`
}

// form is how an attribute keeps a value, and how it is compared.
type form string

const (
	asPlain   form = ""        // a scalar, whether quoted or not
	asName    form = "name"    // the name, of which the request may have the ARN
	asPolicy  form = "policy"  // an IAM policy document, kept as a text
	asJSON    form = "json"    // any other document, kept as a text; lists have no order
	asPattern form = "pattern" // a document, kept as a text, in which order and kinds of values mean something
	asLower   form = "lower"   // a text that AWS keeps in lower case
	asKey     form = "key"     // the id or ARN of a KMS key, or a principal, compared with its other spellings
	asVersion form = "version" // a version, of which the state may have the beginning
	asBlocks  form = "blocks"  // all of the blocks of a name
	asList    form = "list"    // all elements of a list
	asSet     form = "set"     // all elements of a list that has no order
	asAdded   form = "added"   // elements that come into such a list, each told by itself
	asRemoved form = "removed" // elements that are taken from such a list
	asOpaque  form = "opaque"  // a value that the request has in a form of its own: changed, not known
	// Maps are told key by key. A request has them as an object, as a list of objects with a key and a value, whatever the
	// case of the names and also after "tag", or, to remove keys, as a list of keys.
	asMap        form = "map"
	asMapAdded   form = "map added"
	asMapRemoved form = "map removed"
	asValue      form = "value" // of one key of such a map, which the instance names
)

// effect is what the call does to a shape.
type effect string

const (
	effectSet     effect = "set"     // gives attributes new values
	effectAdd     effect = "add"     // adds members
	effectReplace effect = "replace" // gives a member, which its tuple finds, the request's other columns
	effectRemove  effect = "remove"  // takes members away
	effectDelete  effect = "delete"  // deletes the instance
	effectTouch   effect = "touch"   // changes something that has no attribute
	effectNothing effect = "nothing" // changes nothing, whatever the further shapes say
)

// embedded reads the files when it is first asked for; nobody changes what it gives.
var embedded = sync.OnceValues(load)

// load reads all embedded files. An error is a fault in the data, named by file and entry.
func load() (*knowledge, error) {
	k := &knowledge{entries: map[key]entry{}, tuples: map[string]tuple{}}
	names, err := files.ReadDir("aws")
	if err != nil {
		return nil, fmt.Errorf("read knowledge: %w", err)
	}
	for _, name := range names {
		text, err := files.ReadFile(path.Join("aws", name.Name()))
		if err != nil {
			return nil, fmt.Errorf("read knowledge %q: %w", name.Name(), err)
		}
		var d document
		if err := json.Unmarshal(text, &d, json.RejectUnknownMembers(true)); err != nil {
			return nil, fmt.Errorf("read knowledge %q: %w", name.Name(), err)
		}
		if err := k.add(d); err != nil {
			return nil, fmt.Errorf("read knowledge %q: %w", name.Name(), err)
		}
	}
	return k, nil
}

func (k *knowledge) add(d document) error {
	for name, t := range d.Tuples {
		if _, twice := k.tuples[name]; twice {
			return fmt.Errorf("tuple %q stands twice", name)
		}
		k.tuples[name] = t
	}
	for _, e := range d.Entries {
		e.Global = e.Global || d.Global
		for _, s := range e.Shapes {
			if err := k.check(s); err != nil {
				return fmt.Errorf("entry %q %q: %w", e.Source, e.Event, err)
			}
		}
		for _, event := range append([]string{e.Event}, e.Also...) {
			at := key{e.Source, event}
			if _, twice := k.entries[at]; twice {
				return fmt.Errorf("entry %q %q stands twice", e.Source, event)
			}
			k.entries[at] = e
		}
	}
	return nil
}

// check finds words in a shape that mean nothing.
func (k *knowledge) check(s shape) error {
	if _, known := k.tuples[s.Tuple]; s.Tuple != "" && !known {
		return fmt.Errorf("unknown tuple %q", s.Tuple)
	}
	switch s.Effect {
	case effectSet, effectAdd, effectReplace, effectRemove, effectDelete, effectTouch, effectNothing:
	default:
		return fmt.Errorf("unknown effect %q", s.Effect)
	}
	for _, set := range s.Set {
		switch set.As {
		case asPlain, asName, asLower, asKey, asVersion, asPolicy, asJSON, asPattern, asBlocks, asList, asSet, asAdded, asRemoved, asOpaque, asMap, asMapAdded, asMapRemoved, asValue:
		default:
			return fmt.Errorf("attribute %q as %q: unknown form", set.Attribute, set.As)
		}
	}
	return nil
}
