package field

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/plugin/trailmap"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// The tf.* fields. For a record they tell of the first managed resource instance it changed, except tf.addresses,
// tf.attributes and tf.sensitive, which take in all of them. What is not known is absent, never guessed.
var terraformFields = []Field{
	terraform("tf.kind", "Event Kind", "'record' for a CloudTrail record, 'tfstate' for a change between two serials of a Terraform state or a finding about one.",
		func(*Extractor) string { return "record" },
		func(*Document) string { return "tfstate" }),
	terraform("tf.managed", "Managed", "'true' if a Terraform state holds a resource that the call is about, 'false' if none does; absent if the plugin has no states.",
		func(x *Extractor) string {
			if x.resolver == nil {
				return ""
			}
			if len(x.targets()) > 0 {
				return "true"
			}
			return "false"
		},
		func(d *Document) string {
			if d.Address == "" {
				return "" // a finding is about no resource
			}
			return "true"
		}),
	ofTarget("tf.address", "Resource Address", "the address of the resource instance, as Terraform prints it.",
		func(t *trailmap.Target) string { return t.Instance.Address.String() },
		func(d *Document) string { return d.Address }).with("conversation"),
	terraform("tf.address.previous", "Previous Address", "the address that a moved resource instance had before; tfstate events only.",
		nil,
		func(d *Document) string { return d.PreviousAddress }),
	{
		Name: "tf.addresses", Display: "Resource Addresses", Desc: "the addresses of all resource instances that the event is about.", List: true,
		get: addresses,
	},
	ofTarget("tf.type", "Resource Type", "the Terraform type of the resource, such as aws_s3_bucket.",
		func(t *trailmap.Target) string { return t.Instance.Address.Type },
		func(d *Document) string { return d.Type }),
	ofTarget("tf.id", "Resource ID", "the provider's id of the resource.",
		func(t *trailmap.Target) string { return t.ID },
		func(d *Document) string { return d.ID }).masked(false),
	ofTarget("tf.module", "Module", "the address of the module that has the resource; absent in the root module.",
		func(t *trailmap.Target) string { return t.Instance.Address.Module },
		func(d *Document) string { return d.Module }),
	ofTarget("tf.provider", "Provider", "the provider of the resource, as the state has it; record events only.",
		func(t *trailmap.Target) string { return t.Instance.Provider },
		nil),
	ofTarget("tf.state", "State", "the URI of the state.",
		func(t *trailmap.Target) string { return t.State },
		func(d *Document) string { return d.State }),
	serial("tf.serial", "Serial", "the serial of the state: for a record that of the snapshot before it, for a tfstate event the new one.",
		func(t *trailmap.Target) (uint64, bool) { return t.Snapshot.Serial, true },
		func(d *Document) (uint64, bool) { return d.Serial, true }),
	serial("tf.serial.previous", "Previous Serial", "the serial before the change; tfstate events only.",
		nil,
		func(d *Document) (uint64, bool) { return d.Previous, true }),
	ofTarget("tf.lineage", "Lineage", "the lineage of the state.",
		func(t *trailmap.Target) string { return t.Snapshot.Lineage },
		func(d *Document) string { return d.Lineage }),
	terraform("tf.action", "Action", "what happened to the resource. For a record: modified, deleted, unchanged (set to what it was), attempted (the call was refused) or read. For a tfstate event: created, modified, replaced, deleted, moved, tainted, untainted, or a finding: serial_backwards, lineage_changed, same_serial.",
		recordAction,
		func(d *Document) string { return d.Action }),
	terraform("tf.detail", "Detail", "what a finding about a state is, in words; tfstate events only.",
		nil,
		func(d *Document) string { return d.Detail }),
	{
		Name: "tf.attributes", Display: "Changed Attributes", Desc: "the paths of the changed attributes, as Terraform spells them.", List: true,
		get: attributePaths,
	},
	valueField("tf.attribute", "New Value", "the new value of the attribute with that path (ingress.0.to_port stands for ingress[0].to_port), or of the first one below it: text as it is, anything else as JSON, 'null' for an attribute that is gone; absent where it is not known.",
		func(a attribute) (jsontext.Value, bool) { return a.New, a.NewKnown }),
	valueField("tf.old", "Old Value", "the old value of the attribute with that path, in the same form as tf.attribute.",
		func(a attribute) (jsontext.Value, bool) { return a.Old, a.OldKnown }),
	terraform("tf.by_terraform", "By Terraform", "'true' if the user agent says that Terraform or OpenTofu made the call, 'false' if not; a user agent can be forged. Record events only.",
		func(x *Extractor) string { return truth(x.record.Tool() == trail.ToolTerraform) },
		nil),
	terraform("tf.actor", "Actor", "who made the call, in short: a user's name, a role session's name, a service. Record events only.",
		func(x *Extractor) string { return x.record.Name() },
		nil),
	terraform("tf.precision", "Precision", "how much is known: 'exact' (attribute, old and new value), 'partial' (a value is unknown), 'touched' (the resource only), 'unresolved' (a change that no state explains). Record events only.",
		precision,
		nil),
	terraform("tf.sensitive", "Sensitive", "'true' if a changed attribute is marked sensitive in the state, 'false' if none is; absent if no attribute is known.",
		func(x *Extractor) string { return anySensitive(x.attributes()) },
		func(d *Document) string { return anySensitive(documentAttributes(d)) }),
}

// terraform makes a field from a function for records and one for state changes; nil is absent, and so is "".
func terraform(name, display, desc string, ofRecord func(x *Extractor) string, ofState func(d *Document) string) Field {
	return Field{Name: name, Display: display, Desc: desc, get: func(x *Extractor, _ string) (any, bool) {
		switch x.decode(); {
		case x.record != nil && ofRecord != nil:
			return present(ofRecord(x))
		case x.change != nil && ofState != nil:
			return present(ofState(x.change))
		}
		return nil, false
	}}
}

// ofTarget makes a field from the first managed resource instance of a record.
func ofTarget(name, display, desc string, get func(t *trailmap.Target) string, ofState func(d *Document) string) Field {
	return terraform(name, display, desc, func(x *Extractor) string {
		if targets := x.targets(); len(targets) > 0 {
			return get(&targets[0])
		}
		return ""
	}, ofState)
}

func serial(name, display, desc string, get func(t *trailmap.Target) (uint64, bool), ofState func(d *Document) (uint64, bool)) Field {
	return Field{Name: name, Kind: Uint64, Display: display, Desc: desc, get: func(x *Extractor, _ string) (any, bool) {
		x.decode()
		if x.change != nil {
			return ofState(x.change)
		}
		if targets := x.targets(); len(targets) > 0 && get != nil {
			return get(&targets[0])
		}
		return nil, false
	}}
}

// targets resolves the record the first time a field needs it.
func (x *Extractor) targets() []trailmap.Target {
	if x.decode(); x.record == nil || x.resolver == nil {
		return nil
	}
	if !x.resolved {
		x.resolved = true
		x.resolution = x.resolver.Resolve(x.record)
	}
	return x.resolution.Targets
}

func addresses(x *Extractor, _ string) (any, bool) {
	var all []string
	if x.decode(); x.change != nil && x.change.Address != "" {
		all = []string{x.change.Address}
	}
	for _, t := range x.targets() {
		all = append(all, t.Instance.Address.String())
	}
	return all, len(all) > 0
}

func recordAction(x *Extractor) string {
	targets := x.targets()
	switch {
	case len(targets) == 0:
		return ""
	case !x.record.Mutating():
		return "read"
	case x.record.Refused():
		return "attempted"
	case targets[0].Deleted:
		return "deleted"
	case targets[0].Unchanged:
		return "unchanged"
	}
	return "modified"
}

func precision(x *Extractor) string {
	targets := x.targets()
	switch {
	case len(targets) > 0:
		return string(targets[0].Precision)
	case x.resolver != nil && x.record.Mutating():
		return "unresolved"
	}
	return ""
}

// attribute is a changed attribute of either kind of event.
type attribute = trailmap.Attribute

// attributes are those of all resource instances the event changed.
func (x *Extractor) attributes() []attribute {
	if x.decode(); x.change != nil {
		return documentAttributes(x.change)
	}
	var all []attribute
	for _, t := range x.targets() {
		all = append(all, t.Attributes...)
	}
	return all
}

func documentAttributes(d *Document) []attribute {
	all := make([]attribute, len(d.Attributes))
	for i, a := range d.Attributes {
		all[i].Path, all[i].Sensitive = tfstate.Path(a.Path), a.Sensitive
		all[i].Old, all[i].New, all[i].OldKnown, all[i].NewKnown = a.Old, a.New, true, true
	}
	return all
}

func attributePaths(x *Extractor, _ string) (any, bool) {
	var paths []string
	for _, a := range x.attributes() {
		if path := string(a.Path); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, len(paths) > 0
}

func anySensitive(attributes []attribute) string {
	if len(attributes) == 0 {
		return ""
	}
	return truth(slices.ContainsFunc(attributes, func(a attribute) bool { return a.Sensitive }))
}

// valueField makes a field that gives one side of the attribute its argument names.
func valueField(name, display, desc string, side func(a attribute) (jsontext.Value, bool)) Field {
	return Field{Name: name, Display: display, Desc: desc, Arg: true, get: func(x *Extractor, arg string) (any, bool) {
		a, ok := find(x.attributes(), arg)
		if !ok {
			return nil, false
		}
		v, known := side(a)
		switch {
		case !known:
			return nil, false
		case v == nil:
			return "null", true
		}
		return text(v), true
	}}
}

// find gives the attribute with the path, else the first one below it. An argument in a condition of Falco cannot have
// brackets, so ingress.0.cidr_blocks stands for ingress[0].cidr_blocks too.
func find(attributes []attribute, path string) (attribute, bool) {
	path = dotted(path)
	for _, exact := range []bool{true, false} {
		for _, a := range attributes {
			rest, ok := strings.CutPrefix(dotted(string(a.Path)), path)
			if ok && path != "" && (rest == "" || !exact && rest[0] == '.') {
				return a, true
			}
		}
	}
	return attribute{}, false
}

// dotted spells a path with a dot before every step.
func dotted(path string) string {
	if !strings.ContainsRune(path, '[') {
		return path
	}
	return strings.NewReplacer(`["`, ".", `"]`, "", "[", ".", "]", "").Replace(path)
}
