package trailmap

import (
	"embed"
	"fmt"
	"path"

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
	Tuples  map[string]tuple `json:"tuples"`
	Entries []entry          `json:"entries"`
}

// entry says what one call means.
type entry struct {
	Source string `json:"source"` // eventSource
	Event  string `json:"event"`  // the API operation, without version suffix
	// ID has the places in requestParameters that identify the resource; the first that holds something counts.
	ID []string `json:"id"`
	// Shapes are the forms in which Terraform may manage what the call changes, the most specific first. Without any, the
	// call touches whatever resources it names.
	Shapes []shape `json:"shapes,omitzero"`
	// Items has the places where the request lists the members that shapes with a Tuple are compared with; the first that
	// holds something counts, and "" is the request itself.
	Items []string `json:"items,omitzero"`
	// Evidence is where the facts come from.
	Evidence string `json:"evidence"`
}

// shape is one form in which Terraform manages the changed thing.
type shape struct {
	Type   string `json:"type"`
	Effect effect `json:"effect"`
	// ID takes the place of the entry's for this shape.
	ID []string `json:"id,omitzero"`
	// Parent is the attribute that holds the identifier, for members of the resource the call names; "" means the
	// instance is that resource itself.
	Parent string `json:"parent,omitzero"`
	// Where are attribute values an instance must have.
	Where map[string]string `json:"where,omitzero"`
	// Set maps attributes to the places in the request where their new value stands.
	Set []assignment `json:"set,omitzero"`
	// Tuple names how members are compared, Columns where a tuple's columns stand in the instance (below List, if that
	// is not ""), Self the flag that stands for the parent's own identifier in the column of that name.
	Tuple   string            `json:"tuple,omitzero"`
	List    string            `json:"list,omitzero"`
	Columns map[string]string `json:"columns,omitzero"`
	Self    map[string]string `json:"self,omitzero"`
}

// assignment gives an attribute's new value: From is a place in the request, Value a constant. As "policy" compares IAM
// policy documents and writes the value as the text Terraform keeps.
type assignment struct {
	Attribute string `json:"attribute"`
	From      string `json:"from,omitzero"`
	Value     string `json:"value,omitzero"`
	As        string `json:"as,omitzero"`
	// Default is the value that the call sets where the request has the object around From but not its last name.
	Default string `json:"default,omitzero"`
	// Same maps other spellings of the value to the one Terraform keeps; None are values that mean none where the state has
	// none.
	Same map[string]string `json:"same,omitzero"`
	None []string          `json:"none,omitzero"`
}

// effect is what the call does to a shape.
type effect string

const (
	effectSet    effect = "set"    // gives attributes new values
	effectAdd    effect = "add"    // adds members
	effectRemove effect = "remove" // takes members away
	effectDelete effect = "delete" // deletes the instance
	effectTouch  effect = "touch"  // changes something that has no attribute
)

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
		at := key{e.Source, e.Event}
		if _, twice := k.entries[at]; twice {
			return fmt.Errorf("entry %q %q stands twice", e.Source, e.Event)
		}
		for _, s := range e.Shapes {
			if _, known := k.tuples[s.Tuple]; s.Tuple != "" && !known {
				return fmt.Errorf("entry %q %q: unknown tuple %q", e.Source, e.Event, s.Tuple)
			}
		}
		k.entries[at] = e
	}
	return nil
}
