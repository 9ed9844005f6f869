package inventory

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// Role is what an identifier is to the instance that holds it.
type Role int

// The roles, the most telling first.
const (
	Self      Role = iota // its own id, ARN or name
	Parent                // the resource it is part of
	Reference             // something it uses
)

// Candidate is an instance that holds an identifier.
type Candidate struct {
	State    string
	Instance *tfstate.Instance
	Role     Role
	Path     tfstate.Path // the attribute that holds it
	// Account and Region are the instance's; "" where the state does not tell.
	Account, Region string
	Current         bool // in the newest serial, not only in an older one
}

type entry struct{ Candidate }

// Lookup gives the instances that an identifier names in an account and region, own holders first. An instance of
// another account or region is never among them, one whose account or region is not known is. "" asks for any.
func (v *Inventory) Lookup(account, region, identifier string) []Candidate {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var found []Candidate
	for _, e := range v.index[identifier] {
		if differ(account, e.Account) || differ(region, e.Region) {
			continue
		}
		found = append(found, e.Candidate)
	}
	slices.SortStableFunc(found, func(a, b Candidate) int {
		if a.Role != b.Role {
			return int(a.Role - b.Role)
		}
		return byState(a, b)
	})
	return found
}

func differ(asked, is string) bool { return asked != "" && is != "" && asked != is }

// reindex replaces the entries of one state. The caller holds mu.
func (v *Inventory) reindex(state string, h *history) {
	for id, entries := range v.index {
		kept := slices.DeleteFunc(entries, func(e *entry) bool { return e.State == state })
		if len(kept) == 0 {
			delete(v.index, id)
		} else {
			v.index[id] = kept
		}
	}
	seen := map[tfstate.Address]bool{}
	for n, s := range slices.Backward(h.snapshots) {
		for _, i := range s.all {
			if seen[i.Address] {
				continue // a newer serial has it
			}
			seen[i.Address] = true
			v.add(s, i, n == len(h.snapshots)-1)
		}
	}
}

func (v *Inventory) add(s *snapshot, i *tfstate.Instance, current bool) {
	account, region := placeOf(i)
	if account == "" {
		account = s.accounts[i.Provider]
	}
	c := Candidate{State: s.State, Instance: i, Account: account, Region: region, Current: current}
	own := map[string]Role{}
	identifiers(i, func(path tfstate.Path, role Role, id string) {
		if r, ok := own[id+"\x00"+string(path)]; ok && r <= role {
			return
		}
		own[id+"\x00"+string(path)] = role
		c.Role, c.Path = role, path
		v.index[id] = append(v.index[id], &entry{c})
	})
}

// identifiers gives each identifier that an instance holds at its top level, with what it is to the instance.
func identifiers(i *tfstate.Instance, each func(path tfstate.Path, role Role, id string)) {
	attributes := map[string]string{}
	i.Strings(func(name, value string) { attributes[name] = value })
	for name, value := range attributes {
		if value == "" {
			continue
		}
		role := roleOf(name, value, attributes)
		if role < 0 {
			continue
		}
		each(tfstate.Path(name), role, value)
		for _, short := range shorter(value) {
			each(tfstate.Path(name), role, short)
		}
	}
}

// own are the attributes in which a resource's own name stands; an attribute of the type's last word, such as bucket in
// a bucket, is one too.
var own = []string{"id", "arn", "name", "identifier", "function_name", "key_id", "url", "unique_id", "cluster_identifier"}

func roleOf(name, value string, attributes map[string]string) Role {
	switch {
	case slices.Contains(own, name):
		return Self
	case attributes["id"] == value:
		return Self
	case name == "bucket", name == "role", name == "user", name == "group", name == "cluster",
		name == "security_group_id", name == "route_table_id", name == "network_acl_id", name == "function_arn":
		return Parent
	case strings.HasSuffix(name, "_id"), strings.HasSuffix(name, "_arn"), strings.HasSuffix(name, "_name"):
		return Reference
	}
	return -1
}

// shorter are the identifiers that stand within one: the name at the end of an ARN or a queue's URL.
func shorter(value string) []string {
	switch {
	case strings.HasPrefix(value, "arn:"):
		parts := strings.SplitN(value, ":", 6)
		if len(parts) < 6 {
			return nil
		}
		resource := parts[5]
		cut := strings.LastIndexAny(resource, "/:")
		if cut < 0 {
			return []string{resource}
		}
		return []string{resource[cut+1:]}
	case strings.HasPrefix(value, "https://sqs."):
		return []string{value[strings.LastIndexByte(value, '/')+1:]}
	}
	return nil
}

// placeOf is the account and region of an instance's own ARN, else of the attributes that name them.
func placeOf(i *tfstate.Instance) (account, region string) {
	if arn, ok := i.Get("arn"); ok {
		account, region = placeOfARN(unquote(arn))
	}
	if account == "" {
		if owner, ok := i.Get("owner_id"); ok {
			account = unquote(owner)
		}
	}
	if region == "" {
		if at, ok := i.Get("region"); ok {
			region = unquote(at)
		}
	}
	return account, region
}

func placeOfARN(arn string) (account, region string) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return "", ""
	}
	return parts[4], parts[3]
}

// accounts gives the account of each provider configuration whose instances' ARNs all agree on it.
func accounts(all []*tfstate.Instance) map[string]string {
	known := map[string]string{}
	for _, i := range all {
		account, _ := placeOf(i)
		if account == "" || account == "aws" {
			continue
		}
		if other, ok := known[i.Provider]; ok && other != account {
			known[i.Provider] = "" // two accounts: which one an instance without ARN is in, is not known
			continue
		}
		known[i.Provider] = account
	}
	return known
}

func unquote(v jsontext.Value) string {
	if v.Kind() != '"' {
		return ""
	}
	s, _ := jsontext.AppendUnquote(nil, v)
	return string(s)
}
