package trailmap

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
	"github.com/tfdrift/tfdrift-falco/tfstate"
)

// policyText is a policy document as Terraform keeps it: a JSON text. CloudTrail has some services' policies as a text
// already, others' as an object.
func policyText(v jsontext.Value) jsontext.Value {
	if v.Kind() == '"' {
		return v
	}
	compact := v.Clone()
	if err := compact.Compact(); err != nil {
		return v
	}
	return quote(string(compact))
}

// samePolicy compares two policy documents, each a text or an object, as IAM reads them: a list of one is its element, the
// order of statements, actions, resources and principals means nothing, actions have no case, a condition's values are
// texts, everyone is "*" or {"AWS": "*"}, and an account is its number or its root user
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html). What is no document is compared as it is.
func samePolicy(a, b jsontext.Value) bool { return sameDocument(a, b, "") }

// sameDocument compares two documents, each a text or a value, as if they stood in a member of the name within: lists have no
// order, and in "operator", where conditions stand, numbers and truth values are texts.
func sameDocument(a, b jsontext.Value, within string) bool {
	x, okX := canonicalDocument(a, within)
	y, okY := canonicalDocument(b, within)
	if !okX || !okY {
		return tfstate.Equal(a, b)
	}
	return bytes.Equal(x, y)
}

// sameJSON compares two documents of which the order of lists and the kinds of values mean something.
func sameJSON(a, b string) bool {
	x, y := jsontext.Value(a), jsontext.Value(b)
	return x.IsValid() && y.IsValid() && tfstate.Equal(x, y)
}

func canonicalDocument(v jsontext.Value, within string) (jsontext.Value, bool) {
	if v.Kind() == '"' {
		v = jsontext.Value(trail.Text(v))
	}
	if v.Kind() != '{' && v.Kind() != '[' {
		return nil, false
	}
	var document any
	if json.Unmarshal(v, &document) != nil {
		return nil, false
	}
	text, err := json.Marshal(canonical(within, document), json.Deterministic(true))
	return text, err == nil
}

// canonical gives one form to all that mean the same; within is the name of the member that holds v.
func canonical(within string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if within == "Condition" || within == "operator" {
				v[name] = canonical("operator", member)
				continue
			}
			v[name] = canonical(name, member)
		}
		return v
	case []any:
		if len(v) == 1 {
			return canonical(within, v[0])
		}
		for i := range v {
			v[i] = canonical(within, v[i])
		}
		slices.SortFunc(v, func(a, b any) int {
			x, _ := json.Marshal(a, json.Deterministic(true))
			y, _ := json.Marshal(b, json.Deterministic(true))
			return bytes.Compare(x, y)
		})
		return v
	case string:
		switch {
		case within == "Action", within == "NotAction":
			return strings.ToLower(v)
		case within == "Principal" && v == "*":
			return map[string]any{"AWS": "*"}
		case within == "AWS" && root(v) != "":
			return root(v)
		}
		return v
	}
	if within == "operator" && v != nil {
		return fmt.Sprint(v)
	}
	return v
}
