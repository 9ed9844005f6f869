package trailmap

import (
	"bytes"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
	"github.com/tfdrift/tfdrift-falco/tfstate/inventory"
)

// call is what a record says of the call, ready to be asked for places: see entry.
type call struct {
	rec               *trail.Record
	request, response jsontext.Value
	global            bool // see document
}

func newCall(rec *trail.Record, e entry) call {
	return call{rec, unwrapped(given(rec.Request), "Request", "Req"), unwrapped(given(rec.Response), "Response"), e.Global}
}

// given is a part of a record, nil for one that was left out because the record was too large: that is not the same as one
// that leaves everything to its defaults
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html).
func given(v jsontext.Value) jsontext.Value {
	if omitted := member(v, "omitted"); omitted.Kind() == 't' {
		return nil
	}
	return v
}

// unwrapped is what stands in an object's only member, if that has the name of a wrapper:
// {"DeleteFlowLogsRequest":{"FlowLogId":...}}.
func unwrapped(v jsontext.Value, suffixes ...string) jsontext.Value {
	_, rest, _ := bytes.Cut(v, []byte{'"'})
	first, _, _ := bytes.Cut(rest, []byte{'"'})
	if !slices.ContainsFunc(suffixes, func(s string) bool { return bytes.HasSuffix(first, []byte(s)) }) {
		return v
	}
	inner, n := v, 0
	trail.Members(v, func(_ []byte, value jsontext.Value) { inner, n = value, n+1 })
	if n != 1 || inner.Kind() != '{' {
		return v
	}
	return inner
}

// How places begin that are not in the request: a place that is a text itself, and one in the response.
const (
	constantPlace = "="
	responsePlace = "response:"
)

// at gives the values at a place.
func (c call) at(place string) []jsontext.Value {
	switch place {
	case "account":
		return []jsontext.Value{quote(c.rec.Account())}
	case "invokedBy":
		if c.rec.User.InvokedBy == "" {
			return nil
		}
		return []jsontext.Value{quote(c.rec.User.InvokedBy)}
	case "resources":
		var arns []jsontext.Value
		for _, res := range c.rec.Resources {
			arns = append(arns, quote(res.ARN))
		}
		return arns
	}
	if text, ok := strings.CutPrefix(place, constantPlace); ok {
		return []jsontext.Value{quote(text)}
	}
	if rest, ok := strings.CutPrefix(place, responsePlace); ok {
		return at(c.response, rest)
	}
	if rest, ok := strings.CutPrefix(place, "additional:"); ok {
		return at(c.rec.Additional, rest)
	}
	return at(c.request, place)
}

// first gives the texts at the first of the places that holds any, with the last name of that place.
func (c call) first(places []string) []leaf {
	for _, place := range places {
		texts := scalars(c.at(place))
		if len(texts) == 0 {
			continue
		}
		all := make([]leaf, len(texts))
		for i, text := range texts {
			all[i] = leaf{place[strings.LastIndexAny(place, ".:")+1:], text}
			if strings.HasPrefix(place, constantPlace) {
				all[i].name = constantPlace
			}
		}
		return all
	}
	return nil
}

// when reports whether the places hold what they must.
func (c call) when(conditions map[string]string) bool {
	for place, want := range conditions {
		values := c.at(place)
		switch want {
		case "":
			if len(values) > 0 {
				return false
			}
		case "*":
			if len(values) == 0 {
				return false
			}
		default:
			if !slices.Contains(scalars(values), want) {
				return false
			}
		}
	}
	return true
}

// matches reports whether an instance says what the request says: see shape.Match.
func (c call) matches(i *tfstate.Instance, match map[string][]string) bool {
	said := len(match) == 0
	for attribute, places := range match {
		v, _ := i.Get(tfstate.Path(attribute))
		own := scalars([]jsontext.Value{v})
		texts := c.first(places)
		if len(texts) == 0 {
			if len(own) > 0 && own[0] != "false" {
				return false
			}
			continue
		}
		said = true
		names := func(l leaf) bool { return slices.ContainsFunc(own, func(s string) bool { return sameName(l, s) }) }
		if !slices.ContainsFunc(texts, names) {
			return false
		}
	}
	return said
}

// sameName reports whether a request and a state name the same: a name and its ARN, two spellings of an address range.
func sameName(asked leaf, own string) bool {
	if slices.Contains(asked.spellings(), own) || slices.Contains(spellings(own), asked.text) {
		return own != ""
	}
	p, errA := netip.ParsePrefix(asked.text)
	q, errB := netip.ParsePrefix(own)
	return errA == nil && errB == nil && p.Masked() == q.Masked()
}

// partialARN is how Lambda takes a function beside its ARN: the end of the ARN, with or without the account, or, in a member
// called qualifiedMember, the name, each with a version or an alias behind it
// (https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html). In other services' names a colon means nothing.
var partialARN = regexp.MustCompile(`^((?:\d{12}:)?function:)?([A-Za-z0-9_-]+)(?::[A-Za-z0-9_$-]+)?$`)

const qualifiedMember = "functionName"

// spellings are those of a text in a member.
func (l leaf) spellings() []string {
	all := spellings(l.text)
	m := partialARN.FindStringSubmatch(l.text)
	if m != nil && (m[1] != "" || strings.EqualFold(l.name, qualifiedMember)) && m[2] != l.text {
		all = append(all, m[2])
	}
	return all
}

// spellings are the forms under which a state may hold an identifier that a request has, the request's own first: an ARN's
// name, without the version or alias of a function or the ":*" of a log group, the name at the end of a queue's URL.
func spellings(id string) []string {
	all := []string{id}
	add := func(s string) {
		if s != "" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	switch {
	case strings.HasPrefix(id, "arn:"):
		arn := strings.TrimSuffix(id, ":*")
		if parts := strings.SplitN(arn, ":", 8); len(parts) == 8 && parts[5] == "function" {
			arn = strings.Join(parts[:7], ":")
		}
		add(arn)
		add(inventory.Name(arn))
	case strings.HasPrefix(id, "https:"):
		add(inventory.Name(id))
	}
	return all
}

// elsewhere reports an instance of another account or region than the call says, by the region of those beside it where it
// tells none, and by the identifier: an ARN, also one of another path, a queue's URL, a function with its account before it.
// What each account has one of is elsewhere while either account is not known.
func (c call) elsewhere(id leaf, found inventory.Candidate) bool {
	differ := func(said, is string) bool { return said != "" && is != "" && said != is }
	if found.Region == "" && !c.global && differ(found.Near, c.rec.Region) {
		return true
	}
	if id.name == constantPlace {
		return found.Account == "" || c.rec.Account() == ""
	}
	if m := owned.FindStringSubmatch(id.text); m != nil {
		return differ(m[1]+m[2], found.Account)
	}
	parts := strings.SplitN(id.text, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return false
	}
	if own := ownARN(found); own != "" && !sameName(id, own) {
		return true // the same name, in another path or on another bus
	}
	return differ(parts[3], found.Region) || differ(parts[4], found.Account) && parts[4] != "aws"
}

// ownARN is the ARN of an instance that was found as itself, "" where the state has none.
func ownARN(found inventory.Candidate) string {
	v, _ := found.Instance.Get("arn")
	if arn := trail.Text(v); found.Role == inventory.Self && strings.HasPrefix(arn, "arn:") {
		return arn
	}
	return ""
}

// owned finds the account in a queue's URL, and in a function's name.
var owned = regexp.MustCompile(`^(?:https://[^/]+/(\d{12})/|(\d{12}):function:)`)
