package trailmap

import (
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// byIdentifier resolves a call that nobody wrote an entry for: every identifier-like text in the request, or else in the
// record's resources, is looked up. It answers with at most one resource, only touched: what the call changed about it
// is not known. A call that makes something new changes nothing that exists, so it resolves to nothing.
func (r *Resolver) byIdentifier(rec *trail.Record) []Target {
	if makesNew(rec.Action()) || rec.EventCategory == "Data" || rec.ManagementEvent != nil && !*rec.ManagementEvent {
		return nil
	}
	all := leaves(rec.Request)
	hits := r.hits(rec, all)
	hits = meant(rec, all, hits)
	if len(hits) == 0 {
		var named []leaf
		for _, res := range rec.Resources {
			named = append(named, leaf{"ARN", res.ARN})
		}
		hits = r.hits(rec, named)
	}
	hits = narrowed(rec, hits)
	var targets []Target
	for _, h := range hits {
		if v := r.view(h.candidate, rec.EventTime); !v.stale() {
			targets = append(targets, v.target())
		}
	}
	targets = merge(targets)
	if len(targets) > 1 {
		return nil // two resources, and nothing says which: neither is named
	}
	return targets
}

// meant keeps the hits that the call can change. Where the event's name speaks of members, it changes one of them; the others
// are what it refers to. Where it speaks of none, what another service has is referred to, and so is what stands in a list
// beside an identifier of something unmanaged.
func meant(rec *trail.Record, all []leaf, hits []hit) []hit {
	ofService := func(h hit) bool { own := service(h.candidate.Instance); return own == "" || own == serviceOf(rec) }
	if subject := spoken(rec.Action(), all); subject != "" {
		return only(hits, func(h hit) bool { return h.leaf.stem() == subject && (!h.leaf.listed() || ofService(h)) })
	}
	unmanaged := slices.ContainsFunc(all, func(l leaf) bool {
		return l.singular() && !slices.ContainsFunc(hits, func(h hit) bool { return h.leaf == l })
	})
	return only(hits, func(h hit) bool { return ofService(h) && (!unmanaged || !h.leaf.listed()) })
}

// listed reports a member that is called after several things.
func (l leaf) listed() bool {
	return strings.HasSuffix(l.name, "s") && !strings.HasSuffix(l.name, "ss")
}

// singular reports a member that is called after the identifier of one thing.
func (l leaf) singular() bool {
	return !l.listed() && l.stem() != "" && l.stem() != strings.ToLower(l.name)
}

// touched gives what each of some identifiers names, where it names one resource and no more.
func (r *Resolver) touched(rec *trail.Record, ids []leaf) []Target {
	var all []Target
	for _, id := range ids {
		for _, v := range r.whatever(rec, id) {
			all = append(all, v.target())
		}
	}
	return all
}

// whatever is the one resource that an identifier names, of whatever type, in each state that has it.
func (r *Resolver) whatever(rec *trail.Record, id leaf) []view {
	var views []view
	for _, h := range narrowed(rec, r.hits(rec, []leaf{id})) {
		if v := r.view(h.candidate, rec.EventTime); !v.stale() {
			views = append(views, v)
		}
	}
	if several(views) {
		return nil
	}
	return views
}

// spoken is the stem of the member whose thing a call changes, by the call's name: the first it speaks of, the longest of
// those that begin there, but what something comes to or is taken from comes first (AddRoleToInstanceProfile: the profile).
// "" if it speaks of none.
func spoken(action string, all []leaf) string {
	if m := towards.FindStringSubmatch(action); m != nil {
		if subject := spoken(m[1], all); subject != "" {
			return subject
		}
	}
	action = strings.ToLower(action)
	subject, at := "", len(action)
	for _, l := range all {
		stem := l.stem()
		if i := strings.Index(action, stem); stem != "" && i >= 0 && (i < at || i == at && len(stem) > len(subject)) {
			subject, at = stem, i
		}
	}
	return subject
}

// towards finds what a call's name says that something comes to or is taken from.
var towards = regexp.MustCompile(`^(?:.*[a-z]To|(?:Remove|Detach|Disassociate|Deregister|Delete|Revoke).*[a-z]From)([A-Z].*)`)

func makesNew(action string) bool { return newThing.MatchString(action) }

// newThing finds the names of calls that make something, also out of a copy of something else.
var newThing = regexp.MustCompile(`^(Create|Run|Register|Copy|Restore.+From|Restore.+ToPointInTime)`)

// leaf is a text in the request with the name of the member that holds it.
type leaf struct{ name, text string }

// leaves collects the request's texts that can be identifiers. A nesting deeper than any API's ends the search.
func leaves(request jsontext.Value) []leaf {
	var found []leaf
	var walk func(name string, v jsontext.Value, depth int)
	walk = func(name string, v jsontext.Value, depth int) {
		switch {
		case depth > maxDepth:
		case v.Kind() == '"':
			if s := trail.Text(v); len(s) >= minIdentifier && len(s) <= maxIdentifier && !strings.ContainsAny(s, " \n\t{") {
				found = append(found, leaf{name, s})
			}
		case v.Kind() == '{':
			trail.Members(v, func(n []byte, value jsontext.Value) {
				of := string(n)
				if of == numbered {
					of = name
				}
				walk(of, value, depth+1)
			})
		case v.Kind() == '[':
			for _, e := range elements(v) {
				walk(name, e, depth+1)
			}
		}
	}
	walk("", request, 0)
	return found
}

// numbered holds what has a number beside it: see scalars.
const numbered = "content"

const (
	maxDepth      = 12
	minIdentifier = 3
	maxIdentifier = 2048 // the longest ARN
)

// hit is an instance that a leaf names.
type hit struct {
	leaf      leaf
	candidate inventory.Candidate
}

// hits looks the leaves up and keeps the instances that are the named thing itself. Each instance is kept once.
func (r *Resolver) hits(rec *trail.Record, all []leaf) []hit {
	var hits []hit
	type instance struct{ state, address string }
	seen := map[instance]bool{}
	for _, l := range all {
		for _, c := range r.inventory.Lookup(rec.Account(), rec.Region, l.text) {
			if c.Role != inventory.Self || c.Instance.Address.Data || c.Instance.Address.Deposed != "" || !belongs(rec, l, c) {
				continue
			}
			k := instance{c.State, c.Instance.Address.String()}
			if !seen[k] {
				seen[k] = true
				hits = append(hits, hit{l, c})
			}
		}
	}
	return hits
}

// unique are identifiers that AWS makes and that no two services share: sg-0a1b2c3d4e5f60718, vpc-1234abcd.
var unique = regexp.MustCompile(`^[a-z]+-[0-9a-f]{8}([0-9a-f]{9})?$`)

// madeByAWS reports an id that AWS made: it looks like one, and no attribute says that somebody gave it as a name.
func madeByAWS(i *tfstate.Instance, text string) bool {
	is := unique.MatchString(text)
	i.Strings(func(name, value string) {
		if value == text && name != "id" && !strings.HasSuffix(name, "_id") {
			is = false
		}
	})
	return is
}

// belongs reports whether a bare name can mean an instance of this event's service: a table and a bucket may share one.
// The instance's service is that of its ARN, else the word after the provider's in its type.
func belongs(rec *trail.Record, l leaf, c inventory.Candidate) bool {
	if strings.HasPrefix(l.text, "arn:") || madeByAWS(c.Instance, l.text) {
		return true
	}
	if own := service(c.Instance); own != "" {
		return own == serviceOf(rec)
	}
	_, rest, _ := strings.Cut(c.Instance.Address.Type, "_")
	return strings.HasPrefix(rest, serviceOf(rec)+"_")
}

// service is the service in an instance's ARN, "" where the state has none.
func service(i *tfstate.Instance) string {
	arn, _ := i.Get("arn")
	if parts := strings.SplitN(trail.Text(arn), ":", 4); len(parts) == 4 {
		return parts[2]
	}
	return ""
}

// serviceOf is the service that a record comes from, as ARNs call it
// (https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html).
func serviceOf(rec *trail.Record) string {
	name, _, _ := strings.Cut(rec.EventSource, ".")
	if name == "monitoring" {
		return "cloudwatch"
	}
	return name
}

// narrowed keeps, of several hits, those whose member is spoken of in the event's name (groupId in
// AuthorizeSecurityGroupIngress), then those whose type is what the member is called after (roleName: a role, not the
// instance profile of that name), then those that have an ARN of their own, the others being parts of the thing.
func narrowed(rec *trail.Record, hits []hit) []hit {
	action := strings.ToLower(rec.Action())
	for _, telling := range []func(hit) bool{
		func(h hit) bool { return h.leaf.stem() != "" && strings.Contains(action, h.leaf.stem()) },
		func(h hit) bool {
			return h.leaf.stem() != "" && strings.HasSuffix(h.candidate.Instance.Address.Type, "_"+h.leaf.stem())
		},
		func(h hit) bool { _, ok := h.candidate.Instance.Get("arn"); return ok },
	} {
		if kept := only(hits, telling); len(hits) > 1 && len(kept) > 0 {
			hits = kept
		}
	}
	return hits
}

// stem is the member's name in lower case without the word that says which kind of identifier it holds.
func (l leaf) stem() string {
	stem := strings.ToLower(l.name)
	for _, suffix := range []string{"identifier", "arn", "name", "id"} {
		stem = strings.TrimSuffix(stem, suffix)
	}
	return stem
}

func only(hits []hit, keep func(hit) bool) []hit {
	var kept []hit
	for _, h := range hits {
		if keep(h) {
			kept = append(kept, h)
		}
	}
	return kept
}
