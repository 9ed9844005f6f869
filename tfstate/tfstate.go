// Package tfstate reads Terraform states and says what changed between two.
//
// In comes the text of a state in format 4, as Terraform and OpenTofu write it; out come its Header and, one at a time,
// its instances, whose attributes stay raw JSON. Memory is bounded by the largest resource, not by the state. What is no
// state, is cut off or is of another format gives a typed error of its own, never an empty state.
//
// Nothing here logs or keeps values: Diff redacts what a state marks sensitive. Start reading at Read; diff.go compares,
// address.go and path.go spell as Terraform does.
//
// The format is not documented; it is that of Terraform's own writer
// (https://github.com/hashicorp/terraform/blob/main/internal/states/statefile/version4.go).
package tfstate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Header is what a state says of itself.
type Header struct {
	Format           int // of the file: 4
	TerraformVersion string
	Serial           uint64
	Lineage          string
}

// Instance is one resource instance. It is not changed after Read handed it over.
type Instance struct {
	Address       Address
	Provider      string // `provider["registry.terraform.io/hashicorp/aws"]`, with an alias behind it
	Tainted       bool
	SchemaVersion uint64
	Attributes    jsontext.Value // an object
	Sensitive     []Path         // marked by the configuration or the provider; sorted
	// Hash is over what makes two instances alike: attributes, provider, taint. Sensitivity is not part of it.
	Hash uint64
}

var (
	// ErrIncomplete is wrapped by the error for a text that ends too early: perhaps it is being written.
	ErrIncomplete = errors.New("the state is cut off")
	// ErrEmpty is the error for a text of no bytes. It is an ErrIncomplete too.
	ErrEmpty = fmt.Errorf("%w: it is empty", ErrIncomplete)
)

// VersionError is a state of a format that cannot be read here.
type VersionError struct {
	Version int
}

func (e *VersionError) Error() string {
	if e.Version > 4 {
		return fmt.Sprintf("state format %d is newer than this program: update it", e.Version)
	}
	return fmt.Sprintf("state format %d is not read: `terraform apply -refresh-only` with Terraform 0.12 or newer writes format 4", e.Version)
}

// FormatError is a text that is no raw state.
type FormatError struct {
	Offset int64 // bytes from the start, where known
	Err    error
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("no Terraform state (at byte %d): %v", e.Offset, e.Err)
}

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Err }

var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Read reads one state and hands over each instance, deposed ones and data sources too. An error of each ends the reading
// and is returned as it is. Instances may have been handed over before an error shows.
func Read(r io.Reader, each func(*Instance) error) (Header, error) {
	d := &reader{dec: jsontext.NewDecoder(r, lenient), each: each}
	err := d.state()
	return d.header, d.explain(err)
}

type reader struct {
	dec    *jsontext.Decoder
	each   func(*Instance) error
	header Header
	seen   map[string]bool
	taken  error // what each returned
}

func (r *reader) explain(err error) error {
	var version *VersionError
	var format *FormatError
	switch {
	case err == nil || r.taken != nil || errors.As(err, &version) || errors.As(err, &format) || errors.Is(err, ErrIncomplete):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w after %d bytes", ErrIncomplete, r.dec.InputOffset())
	case errors.Is(err, io.EOF) && r.dec.InputOffset() == 0:
		return ErrEmpty
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return &FormatError{Offset: syntax.ByteOffset, Err: syntax.Err}
	}
	return err // the reader's own
}

func (r *reader) state() error {
	open, err := r.dec.ReadToken()
	if err != nil {
		return err
	}
	if open.Kind() != '{' {
		return &FormatError{Err: fmt.Errorf("a JSON %s, want an object", open.Kind())}
	}
	r.seen = map[string]bool{}
	for r.dec.PeekKind() == '"' {
		token, err := r.dec.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		r.seen[name] = true
		if err := r.member(name); err != nil {
			return err
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return &FormatError{Offset: r.dec.InputOffset(), Err: errors.New("more text after the state's end: being overwritten, or two documents")}
	}
	return r.whole()
}

// whole checks, at the end, that this was a raw state, and says what it is otherwise.
func (r *reader) whole() error {
	switch {
	case r.seen["encrypted_data"]:
		return &FormatError{Err: errors.New("encrypted by OpenTofu: its content needs the key")}
	case r.seen["planned_values"], r.seen["resource_changes"]:
		return &FormatError{Err: errors.New("a plan as JSON: give the raw state")}
	case r.seen["format_version"]:
		return &FormatError{Err: errors.New("the output of terraform show -json, which has no serial: give the raw state, as terraform state pull prints it")}
	case !r.seen["version"]:
		return &FormatError{Err: errors.New("no version")}
	}
	return nil
}

func (r *reader) member(name string) error {
	switch name {
	case "version":
		if err := r.value(&r.header.Format); err != nil {
			return err
		}
		if r.header.Format != 4 {
			return &VersionError{r.header.Format}
		}
		return nil
	case "terraform_version":
		return r.value(&r.header.TerraformVersion)
	case "serial":
		return r.value(&r.header.Serial)
	case "lineage":
		return r.value(&r.header.Lineage)
	case "resources":
		return r.resources()
	}
	return r.dec.SkipValue()
}

func (r *reader) value(into any) error {
	at := r.dec.InputOffset()
	v, err := r.dec.ReadValue()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(v, into, lenient); err != nil {
		return &FormatError{Offset: at, Err: err}
	}
	return nil
}

func (r *reader) resources() error {
	if r.dec.PeekKind() != '[' {
		return r.dec.SkipValue() // null: none
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for {
		switch r.dec.PeekKind() {
		case ']':
			_, err := r.dec.ReadToken()
			return err
		case jsontext.Kind(0):
			_, err := r.dec.ReadToken()
			return err
		}
		var res resource
		if err := r.value(&res); err != nil {
			return err
		}
		for _, i := range res.Instances {
			in, err := res.instance(i)
			if err != nil {
				return &FormatError{Offset: r.dec.InputOffset(), Err: err}
			}
			if r.taken = r.each(in); r.taken != nil {
				return r.taken
			}
		}
	}
}

// resource and object are a state's own, as far as they are used.
type resource struct {
	Module    string   `json:"module"`
	Mode      string   `json:"mode"`
	Type      string   `json:"type"`
	Name      string   `json:"name"`
	Provider  string   `json:"provider"`
	Instances []single `json:"instances"`
}

type single struct {
	IndexKey      jsontext.Value `json:"index_key"`
	Status        string         `json:"status"`
	Deposed       string         `json:"deposed"`
	Provider      string         `json:"provider"`
	SchemaVersion uint64         `json:"schema_version"`
	Attributes    jsontext.Value `json:"attributes"`
	Flat          jsontext.Value `json:"attributes_flat"`
	Sensitive     jsontext.Value `json:"sensitive_attributes"`
}

func (res *resource) instance(o single) (*Instance, error) {
	i := &Instance{
		Address:  Address{Module: res.Module, Data: res.Mode == "data", Type: res.Type, Name: res.Name, Deposed: o.Deposed},
		Provider: res.Provider, Tainted: o.Status == "tainted", SchemaVersion: o.SchemaVersion,
		Attributes: o.Attributes, Sensitive: sensitive(o.Sensitive),
	}
	if res.Type == "" || res.Name == "" {
		return nil, errors.New("a resource without type or name")
	}
	if o.Provider != "" {
		i.Provider = o.Provider
	}
	switch o.IndexKey.Kind() {
	case '"':
		key, err := jsontext.AppendUnquote(nil, o.IndexKey)
		if err != nil {
			return nil, err
		}
		i.Address.Key = quoteKey(string(key))
	case '0':
		i.Address.Key = string(o.IndexKey)
	}
	if i.Attributes.Kind() != '{' {
		i.Attributes = o.Flat
	}
	if i.Attributes.Kind() != '{' {
		i.Attributes = jsontext.Value("{}")
	}
	canonical := i.Attributes.Clone()
	if err := canonical.Compact(); err != nil {
		return nil, err
	}
	h := xxhash.New()
	_, _ = h.Write(canonical)
	_, _ = h.WriteString("\x00" + i.Provider + "\x00" + o.Status)
	i.Attributes, i.Hash = canonical, h.Sum64()
	return i, nil
}

// sensitive reads the marked paths: lists of steps, or, in early versions, nothing.
func sensitive(v jsontext.Value) []Path {
	var paths []Path
	array(v, func(steps jsontext.Value) bool {
		var p Path
		array(steps, func(s jsontext.Value) bool {
			p = p.marked(s)
			return true
		})
		if p != "" {
			paths = append(paths, p)
		}
		return true
	})
	slices.Sort(paths)
	return slices.Compact(paths)
}

// marked adds one step: {"type":"get_attr","value":"name"} or {"type":"index","value":{"value":0,"type":"number"}}.
func (p Path) marked(s jsontext.Value) Path {
	var st struct {
		Type  string         `json:"type"`
		Value jsontext.Value `json:"value"`
	}
	if json.Unmarshal(s, &st, lenient) != nil {
		return p
	}
	if st.Value.Kind() == '{' {
		st.Value, _ = get(st.Value, []step{{"value", -1}})
	}
	switch st.Value.Kind() {
	case '"':
		name, _ := jsontext.AppendUnquote(nil, st.Value)
		return p.member(string(name))
	case '0':
		return p + Path("["+string(st.Value)+"]")
	}
	return p
}

// ID is the attribute "id", by which the provider knows the instance; "" if it has none.
func (i *Instance) ID() string {
	v, ok := i.Get("id")
	if !ok || v.Kind() != '"' {
		return ""
	}
	id, _ := jsontext.AppendUnquote(nil, v)
	return string(id)
}

// Get is the value at a path; false where there is none.
func (i *Instance) Get(p Path) (jsontext.Value, bool) { return get(i.Attributes, p.steps()) }

// IsSensitive reports whether the state marks p, something p is part of, or something that is part of p.
func (i *Instance) IsSensitive(p Path) bool {
	steps := p.steps()
	for _, s := range i.Sensitive {
		marked := s.steps()
		n := min(len(marked), len(steps))
		if slices.Equal(marked[:n], steps[:n]) {
			return true
		}
	}
	return false
}

// Equal compares two JSON values as Terraform would: numbers as numbers of any size, objects without order. nil is only
// equal to nil.
func Equal(a, b jsontext.Value) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	if bytes.Equal(a, b) {
		return true
	}
	if a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case '{':
		x, y := membersOf(a), membersOf(b)
		if len(x) != len(y) {
			return false
		}
		for name, value := range x {
			if !Equal(value, y[name]) {
				return false
			}
		}
		return true
	case '[':
		return slices.EqualFunc(elementsOf(a), elementsOf(b), Equal)
	case '0':
		x, okX := new(big.Rat).SetString(string(a))
		y, okY := new(big.Rat).SetString(string(b))
		return okX && okY && x.Cmp(y) == 0
	case '"':
		x, errX := jsontext.AppendUnquote(nil, a)
		y, errY := jsontext.AppendUnquote(nil, b)
		return errX == nil && errY == nil && bytes.Equal(x, y)
	}
	return true // null, true and false have one spelling each
}

// Strings walks the attributes at the top level that are texts.
func (i *Instance) Strings(each func(name, value string)) {
	object(i.Attributes, func(name string, value jsontext.Value) bool {
		if value.Kind() == '"' {
			if s, err := jsontext.AppendUnquote(nil, value); err == nil {
				each(name, string(s))
			}
		}
		return true
	})
}
