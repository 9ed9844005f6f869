package inventory

import (
	"cmp"
	"hash/maphash"
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
	// Near is the region that the ARNs of the managed instances of the same provider configuration agree on, "" if none: it is
	// the instance's too, unless what it is has no region.
	Near    string
	Current bool // in the newest serial, not only in an older one
}

// index finds the instances of all states by their identifiers. The inventory's mu guards it. It holds hashes of the
// identifiers under a seed of its own, not the texts: with 64 bits and a seed that nobody knows, two of a million collide
// once in 30 million runs.
type index struct {
	seed     maphash.Seed
	postings map[uint64][]posting
	names    []tfstate.Path // attributes, by posting.name
	byName   map[string]uint32
	size     int  // postings
	stored   bool // some identifier is a hash that was stored
}

// posting is one attribute of one instance that holds one identifier.
type posting struct {
	*held
	name uint32
	role Role
}

// held is one instance that some kept serial of a state has.
type held struct {
	state           *history
	instance        *tfstate.Instance
	account, region string // as the instance itself tells
	current         bool
}

// found is an identifier of an instance, before it is in the index.
type found struct {
	hash uint64
	name string
	role Role
}

func newIndex() index {
	return index{seed: maphash.MakeSeed(), postings: map[uint64][]posting{}, byName: map[string]uint32{}}
}

// Lookup gives the instances that an identifier names in an account and region, own holders first, then by state and
// address; an instance that holds it in several attributes is there once for each. An instance of another account or region
// is never among them, one whose account or region is not known is. "" asks for any.
//
// Of an instance that several serials have, the newest is given; one that only older serials have, also under its old id,
// is given as not Current.
func (v *Inventory) Lookup(account, region, identifier string) []Candidate {
	hash := maphash.String(v.index.seed, identifier)
	v.mu.RLock()
	defer v.mu.RUnlock()
	postings := v.index.postings[hash]
	if v.index.stored {
		postings = slices.Concat(postings, v.index.postings[maphash.String(v.index.seed, v.o.Redactor.Identifier(identifier))])
	}
	if len(postings) == 0 {
		return nil
	}
	all := make([]Candidate, 0, len(postings))
	for _, p := range postings {
		at := p.account
		if at == "" {
			at = p.state.accounts[p.instance.Provider]
		}
		if differ(account, at) || differ(region, p.region) {
			continue
		}
		all = append(all, Candidate{
			State: p.state.uri, Instance: p.instance, Role: p.role, Path: v.index.names[p.name],
			Account: at, Region: p.region, Near: p.state.regions[p.instance.Provider], Current: p.current,
		})
	}
	slices.SortFunc(all, compareCandidates)
	return all
}

func differ(asked, is string) bool { return asked != "" && is != "" && asked != is }

// compareCandidates orders candidates so that the same question gets the same answer.
func compareCandidates(a, b Candidate) int {
	if a.Role != b.Role {
		return cmp.Compare(a.Role, b.Role)
	}
	if a.Instance == b.Instance {
		return cmp.Or(pathRank(a.Path)-pathRank(b.Path), strings.Compare(string(a.Path), string(b.Path)))
	}
	if c := strings.Compare(a.State, b.State); c != 0 {
		return c
	}
	if a.Current != b.Current {
		if a.Current {
			return -1
		}
		return 1
	}
	if c := a.Instance.Address.Compare(b.Instance.Address); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Instance.ID(), b.Instance.ID()), strings.Compare(string(a.Path), string(b.Path)))
}

// pathRank puts the attributes that name a resource in every provider first.
func pathRank(p tfstate.Path) int {
	switch p {
	case "id":
		return 0
	case "arn":
		return 1
	case "name":
		return 2
	}
	return 3
}

// add puts an instance into the index under what find found.
func (x *index) add(h *held, identifiers []found) {
	x.stored = x.stored || tfstate.HasKept(h.instance.Attributes)
	for _, f := range identifiers {
		n, ok := x.byName[f.name]
		if !ok {
			n = uint32(len(x.names))
			name := strings.Clone(f.name) // not a part of the attributes, which are to be forgotten
			x.names, x.byName[name] = append(x.names, tfstate.Path(name)), n
		}
		x.postings[f.hash] = append(x.postings[f.hash], posting{h, n, f.role})
		x.size++
	}
}

// remove takes instances of a state out of the index. Thousands may share one identifier, so each list is walked once.
func (x *index) remove(state *history, gone map[*tfstate.Instance][]found) {
	hashes := map[uint64]bool{}
	for _, identifiers := range gone {
		for _, f := range identifiers {
			hashes[f.hash] = true
		}
	}
	for hash := range hashes {
		x.size -= len(x.postings[hash])
		kept := slices.DeleteFunc(x.postings[hash], func(p posting) bool {
			_, is := gone[p.instance]
			return is && p.state == state
		})
		if len(kept) == 0 {
			delete(x.postings, hash)
		} else {
			x.postings[hash] = kept
			x.size += len(kept)
		}
	}
}

// age marks an instance as one that the newest serial lacks.
func (x *index) age(state *history, i *tfstate.Instance, identifiers []found) {
	for _, f := range identifiers {
		for _, p := range x.postings[f.hash] {
			if p.state == state && p.instance == i {
				p.current = false
				return
			}
		}
	}
}

// find gives what an instance is to be found by. It takes no lock.
func (x *index) find(i *tfstate.Instance) []found {
	var all []found
	seen := map[found]bool{}
	identifiers(i, func(name string, role Role, id string) {
		f := found{maphash.String(x.seed, id), name, role}
		if !seen[f] {
			seen[f] = true
			all = append(all, f)
		}
	})
	return all
}

// identifiers gives each identifier that an instance holds at its top level, with what it is to the instance.
func identifiers(i *tfstate.Instance, each func(name string, role Role, id string)) {
	id := i.ID()
	i.Strings(func(name, value string) {
		if value == "" || len(value) > maxIdentifier {
			return
		}
		role := roleOf(name, value, id)
		if role < 0 {
			return
		}
		each(name, role, value)
		if short := Name(value); short != "" && short != value {
			each(name, role, short)
		}
	})
}

// maxIdentifier is the length of the longest ARN.
const maxIdentifier = 2048

// noRole is that of an attribute that identifies nothing.
const noRole Role = -1

// roleOf judges an attribute by its name and by what its value is to the instance's id, which holds for every type: an id
// made of several parts, such as role:policy, names its parents first.
func roleOf(name, value, id string) Role {
	switch name {
	case "id", "arn", "name", "identifier", "unique_id", "url":
		return Self
	case "owner_id", "account_id", "region":
		return noRole // thousands share it: it tells where, not which
	}
	if value == id {
		return Self
	}
	switch name {
	case "bucket", "role", "user", "group", "cluster", "function_name", "function_arn", "key_id", "cluster_identifier",
		"security_group_id", "route_table_id", "network_acl_id":
		return Parent
	}
	identifies := strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_arn") || strings.HasSuffix(name, "_name") ||
		strings.HasSuffix(name, "_identifier") || strings.HasSuffix(name, "_url")
	switch {
	case !identifies:
		return noRole
	case len(value) < len(id) && strings.HasPrefix(id, value) && strings.IndexByte(":/_,|", id[len(value)]) >= 0:
		return Parent
	}
	return Reference
}

// Name is the name within an identifier: at the end of an ARN, or of the URL of a queue. "" if there is none. What has a name
// is found by it too.
func Name(value string) string {
	switch {
	case strings.HasPrefix(value, "arn:"):
		parts := strings.SplitN(value, ":", 6)
		if len(parts) < 6 {
			return ""
		}
		return nameOf(strings.TrimSuffix(parts[5], ":*"))
	case strings.HasPrefix(value, "https://"):
		// https://sqs.eu-west-1.amazonaws.com/123456789012/name, under other hosts in other partitions and in tests
		if parts := strings.Split(value, "/"); len(parts) == 5 && isAccount(parts[3]) {
			return parts[4]
		}
	}
	return ""
}

// nameOf is the name in the last part of an ARN: what follows the type, without a path before it. A version's number is
// none.
func nameOf(resource string) string {
	name := resource
	if cut := strings.Index(resource, ":/"); cut >= 0 {
		name = resource[cut+1:] // log-group:/aws/lambda/name: the path is the name
	} else if cut := strings.LastIndexByte(resource, '/'); cut >= 0 {
		name = resource[cut+1:]
	} else if cut := strings.LastIndexByte(resource, ':'); cut >= 0 {
		name = resource[cut+1:]
	}
	if strings.Trim(name, "0123456789*") == "" {
		return ""
	}
	return name
}

// placeOf is the account and region of an instance's own ARN, else of the attributes that name them.
func placeOf(i *tfstate.Instance) (account, region string) {
	if arn, ok := i.Get("arn"); ok {
		account, region = placeOfARN(unquote(arn))
	}
	if account == "" {
		if owner, ok := i.Get("owner_id"); ok && isAccount(unquote(owner)) {
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

// placeOfARN reads arn:partition:service:region:account:resource; the account of what AWS itself owns is none.
func placeOfARN(arn string) (account, region string) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return "", ""
	}
	if isAccount(parts[4]) {
		account = parts[4]
	}
	return account, parts[3]
}

func isAccount(s string) bool { return len(s) == 12 && strings.Trim(s, "0123456789") == "" }

// places gives the account and the region of each provider configuration that the ARNs of all its managed instances agree
// on. Data sources may show what is another's.
func places(all []*tfstate.Instance) (accounts, regions map[string]string) {
	accounts, regions = map[string]string{}, map[string]string{}
	agree := func(known map[string]string, provider, value string) {
		if value == "" {
			return
		}
		if other, ok := known[provider]; ok && other != value {
			value = "" // two: which one an instance without ARN is in is not known
		}
		known[provider] = value
	}
	for _, i := range all {
		if i.Address.Data {
			continue
		}
		account, region := placeOf(i)
		agree(accounts, i.Provider, account)
		agree(regions, i.Provider, region)
	}
	return accounts, regions
}

func unquote(v jsontext.Value) string {
	if v.Kind() != '"' {
		return ""
	}
	s, _ := jsontext.AppendUnquote(nil, v)
	return string(s)
}
