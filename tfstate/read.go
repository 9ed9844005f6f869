package tfstate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// lenient is as lenient as Terraform's own reader: bytes that are not UTF-8 become the replacement character.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Read reads one state and hands over each instance, deposed ones and data sources too. An error of each ends the reading
// and is returned as it is. Instances may have been handed over before an error shows. With an error the Header holds what
// was read of it by then; of a state that OpenTofu encrypted that is its serial and lineage, which stand in clear.
//
// Errors are ErrEmpty, ErrIncomplete, *VersionError, *FormatError, and whatever r returns. A single value above 64 MiB, such
// as one instance, is a *FormatError: no provider writes any, and it would have to be held in memory.
func Read(r io.Reader, each func(*Instance) error) (Header, error) {
	d := &reader{each: each, seen: map[string]bool{}, names: map[string]string{}}
	d.dec = jsontext.NewDecoder(&bounded{from: r, reader: d}, lenient)
	err := d.state()
	return d.header, d.explain(err)
}

// bounded ends the reading of a value that is too large.
type bounded struct {
	from   io.Reader
	reader *reader
	read   int64
}

// maxValue is the most that one value may need.
const maxValue = 64 << 20

var errTooLarge = fmt.Errorf("a single value of more than %d MiB: %s", maxValue>>20, wantRaw)

func (b *bounded) Read(p []byte) (int, error) {
	room := b.reader.dec.InputOffset() + maxValue - b.read
	if room <= 0 {
		return 0, errTooLarge
	}
	n, err := b.from.Read(p[:min(int64(len(p)), room)])
	b.read += int64(n)
	return n, err
}

type reader struct {
	dec    *jsontext.Decoder
	each   func(*Instance) error
	header Header
	seen   map[string]bool   // members at the top
	names  map[string]string // one copy of what many resources share: modules, types, providers
	buffer []byte            // for one instance, compact
	taken  error             // what each returned
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
	switch {
	case errors.Is(err, errTooLarge):
		return &FormatError{Offset: r.dec.InputOffset(), Err: errTooLarge}
	case errors.As(err, &syntax):
		return &FormatError{Offset: syntax.ByteOffset, Err: fmt.Errorf("%w: %s", syntax.Err, wantRaw)}
	}
	return err // the reader's own
}

func (r *reader) state() error {
	if kind := r.dec.PeekKind(); kind != '{' && kind != jsontext.KindInvalid {
		return &FormatError{Err: fmt.Errorf("a JSON %s, want an object: %s", kind, wantRaw)}
	}
	if err := r.object(r.member); err != nil {
		return err
	}
	var syntax *jsontext.SyntacticError
	switch _, err := r.dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return r.whole()
	case err == nil || errors.As(err, &syntax):
		return &FormatError{Offset: r.dec.InputOffset(), Err: errors.New("more text after the state's end, being overwritten or two documents: " + wantRaw)}
	default:
		return err
	}
}

// object reads one object; each reads the value of the member it is given the name of, which stands in its quotation marks
// as long as nothing more is read. No program that writes states escapes letters in names.
func (r *reader) object(each func(quoted jsontext.Value) error) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for r.dec.PeekKind() == '"' {
		quoted, err := r.dec.ReadValue()
		if err != nil {
			return err
		}
		if err := each(quoted); err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return err
}

// wantRaw is the way out of most faults.
const wantRaw = "give the raw state, as terraform state pull prints it"

// whole checks, at the end, that this was a raw state, and says what it is otherwise.
func (r *reader) whole() error {
	switch {
	case r.seen["encrypted_data"]:
		return &FormatError{Err: errors.New("encrypted by OpenTofu: give the decrypted state, as tofu state pull prints it")}
	case r.seen["planned_values"], r.seen["resource_changes"]:
		return &FormatError{Err: errors.New("a plan as JSON: " + wantRaw)}
	case r.seen["format_version"]:
		return &FormatError{Err: errors.New("the output of terraform show -json, which has no serial: " + wantRaw)}
	case !r.seen["version"]:
		return &FormatError{Err: errors.New("no version: " + wantRaw)}
	case !r.seen["serial"] && !r.seen["resources"]:
		return &FormatError{Err: errors.New("neither serial nor resources: " + wantRaw)}
	}
	return nil
}

func (r *reader) member(quoted jsontext.Value) error {
	r.seen[string(quoted[1:len(quoted)-1])] = true
	switch string(quoted) {
	case `"version"`:
		if err := r.value("version", "a whole number", &r.header.Format); err != nil {
			return err
		}
		if r.header.Format != 4 {
			return &VersionError{r.header.Format}
		}
		return nil
	case `"terraform_version"`:
		return r.value("terraform_version", "a text", &r.header.TerraformVersion)
	case `"serial"`:
		return r.value("serial", "a whole number", &r.header.Serial)
	case `"lineage"`:
		return r.value("lineage", "a text", &r.header.Lineage)
	case `"resources"`:
		return r.list("resources", r.resource)
	}
	return r.dec.SkipValue()
}

// value reads the next value, that of the member name, into a variable.
func (r *reader) value(name, want string, into any) error {
	at := r.dec.InputOffset()
	v, err := r.dec.ReadValue()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(v, into, lenient); err != nil {
		return &FormatError{Offset: at, Err: fmt.Errorf("%s is a JSON %s, want %s: %s", name, v.Kind(), want, wantRaw)}
	}
	return nil
}

// list reads a list whose elements each reads; null is an empty one.
func (r *reader) list(name string, each func() error) error {
	switch kind := r.dec.PeekKind(); kind {
	case 'n':
		return r.dec.SkipValue()
	case '[', jsontext.KindInvalid:
	default:
		return r.fault("%s is a JSON %s, want a list: %s", name, kind, wantRaw)
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for {
		switch kind := r.dec.PeekKind(); kind {
		case ']', jsontext.KindInvalid:
			_, err := r.dec.ReadToken()
			return err
		case '{':
			if err := each(); err != nil {
				return err
			}
		default:
			return r.fault("%s holds a JSON %s, want objects: %s", name, kind, wantRaw)
		}
	}
}

func (r *reader) fault(format string, args ...any) error {
	return &FormatError{Offset: r.dec.InputOffset(), Err: fmt.Errorf(format, args...)}
}

// resource reads one resource and hands over its instances, which have to wait for its end: a state that other programs
// wrote may name the module or the type behind them.
func (r *reader) resource() error {
	var of Instance
	var all []*Instance
	err := r.object(func(quoted jsontext.Value) error {
		switch string(quoted) {
		case `"module"`:
			return r.text("module", &of.Address.Module)
		case `"mode"`:
			var mode string
			err := r.text("mode", &mode)
			of.Address.Data = mode == "data"
			return err
		case `"type"`:
			return r.text("type", &of.Address.Type)
		case `"name"`:
			return r.text("name", &of.Address.Name)
		case `"provider"`:
			return r.text("provider", &of.Provider)
		case `"instances"`:
			return r.list("instances", func() error {
				i, err := r.instance()
				all = append(all, i)
				return err
			})
		}
		return r.dec.SkipValue()
	})
	if err != nil {
		return err
	}
	if len(all) > 0 && (of.Address.Type == "" || of.Address.Name == "") {
		return r.fault("a resource without type or name: %s", wantRaw)
	}
	for _, i := range all {
		i.Address.Module, i.Address.Data, i.Address.Type, i.Address.Name = of.Address.Module, of.Address.Data, of.Address.Type, of.Address.Name
		if i.Provider == "" {
			i.Provider = of.Provider
		}
		i.hashProvider()
		if r.taken = r.each(i); r.taken != nil {
			return r.taken
		}
	}
	return nil
}

// text reads a text or null, that of a resource's member name.
func (r *reader) text(name string, into *string) error {
	v, err := r.dec.ReadValue()
	if err != nil {
		return err
	}
	if kind := v.Kind(); kind != '"' && kind != 'n' {
		return r.fault("a resource's %s is a JSON %s, want a text: %s", name, kind, wantRaw)
	}
	*into = r.shared(v)
	return nil
}

// shared is textOf with one copy for all that read the same.
func (r *reader) shared(quoted jsontext.Value) string {
	if s, ok := r.names[string(quoted)]; ok {
		return s
	}
	s := strings.ToValidUTF8(textOf(quoted), "\uFFFD")
	if len(r.names) < maxShared {
		r.names[string(quoted)] = s
	}
	return s
}

// maxShared bounds what shared keeps; a state with more names gets a copy of each.
const maxShared = 10_000

// instance reads what a resource's instance says of itself.
func (r *reader) instance() (*Instance, error) {
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, err
	}
	r.buffer = appendCompact(r.buffer[:0], raw)
	if raw = r.buffer; !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	i := &Instance{}
	var flat, attributes jsontext.Value
	object(raw, func(quoted, v jsontext.Value) bool {
		switch string(quoted) {
		case `"index_key"`:
			err = i.key(v)
		case `"status"`:
			i.Tainted = textOf(v) == "tainted"
		case `"deposed"`:
			i.Address.Deposed = textOf(v)
		case `"provider"`:
			i.Provider = r.shared(v)
		case `"schema_version"`:
			if json.Unmarshal(v, &i.SchemaVersion, lenient) != nil {
				err = fmt.Errorf("the schema version is a JSON %s, want a whole number", v.Kind())
			}
		case `"attributes"`:
			attributes = v
		case `"attributes_flat"`:
			flat = v
		case `"sensitive_attributes"`:
			i.Sensitive = sensitive(v)
		}
		return err == nil
	})
	if err == nil {
		err = i.attributes(attributes, flat)
	}
	if err != nil {
		return nil, r.fault("instance: %w: %s", err, wantRaw)
	}
	return i, nil
}

// key reads an instance key: a number or a text, or null for none.
func (i *Instance) key(v jsontext.Value) error {
	switch v.Kind() {
	case '"':
		i.Address.Key = quoteKey(textOf(v))
	case '0':
		i.Address.Key = string(v) // as it stands: a whole number
	case 'n':
	default:
		return fmt.Errorf("the index key is a JSON %s, want a text or a number", v.Kind())
	}
	return nil
}

// attributes keeps a copy of the attributes, which are compact by now, and its hash. The flat form is that of Terraform before 0.12, whose
// names hold dots; it stays as it is until Terraform reads the resource again.
func (i *Instance) attributes(attributes, flat jsontext.Value) error {
	if attributes == nil || attributes.Kind() == 'n' {
		attributes = flat
	}
	if attributes == nil || attributes.Kind() == 'n' {
		attributes = jsontext.Value("{}")
	}
	if attributes.Kind() != '{' {
		return fmt.Errorf("the attributes are a JSON %s, want an object", attributes.Kind())
	}
	if mayWrap(attributes) {
		i.Attributes = slices.Clip(unwrapped(attributes))
	} else {
		i.Attributes = attributes.Clone()
	}
	i.Hash = xxhash.Sum64(i.Attributes)
	return nil
}

// hashProvider adds to the hash what is known at the resource's end.
func (i *Instance) hashProvider() {
	h := xxhash.NewWithSeed(i.Hash)
	_, _ = h.WriteString(i.Provider)
	if i.Tainted {
		_, _ = h.WriteString("\x00tainted")
	}
	i.Hash = h.Sum64()
}

// sensitive reads the marked paths: lists of steps. A step outside of a list is a path of its own. What cannot be read
// marks everything: better hidden than shown.
func sensitive(v jsontext.Value) []Path {
	if v.Kind() != '[' && v.Kind() != 'n' {
		return []Path{""}
	}
	var paths []Path
	array(v, func(steps jsontext.Value) bool {
		var p Path
		if steps.Kind() == '[' {
			array(steps, func(s jsontext.Value) bool {
				var whole bool
				p, whole = p.marked(s)
				return whole
			})
		} else {
			p, _ = p.marked(steps)
		}
		paths = append(paths, p)
		return true
	})
	slices.Sort(paths)
	return slices.Compact(paths)
}

// marked adds one step: {"type":"get_attr","value":"name"} or {"type":"index","value":{"value":0,"type":"number"}}. It
// is false where the path has to end, which marks all that is below: at an element of a set, named by its whole value, and
// at a step that is not understood.
func (p Path) marked(s jsontext.Value) (Path, bool) {
	v, _ := get(s, []step{{"value", -1}})
	if v.Kind() == '{' {
		v, _ = get(v, []step{{"value", -1}})
	}
	switch v.Kind() {
	case '"':
		return p.Member(textOf(v)), true
	case '0':
		if q := p + Path("["+string(v)+"]"); q.steps() != nil {
			return q, true
		}
	}
	return p, false
}
