package trailmap_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// spelledLikeTheAPI are the services whose records name the members of a request as the API does, apart from the first
// letter.
var spelledLikeTheAPI = []string{"cloudtrail", "iam", "kms", "lambda", "logs", "rds", "sns", "sqs"}

// TestPlacesAreTheAPIs: every place that the knowledge looks at in a request stands in the API's own model of it.
func TestPlacesAreTheAPIs(t *testing.T) {
	operations := apiOperations(t)
	if operations == nil {
		return
	}
	// Seen in records, though no caller sends it.
	added := map[string]string{"fullyQualifiedArn": "lambda.amazonaws.com"}
	for path, list := range entries(t) {
		if !slices.Contains(spelledLikeTheAPI, strings.TrimSuffix(filepath.Base(path), ".json")) {
			continue
		}
		for _, e := range list {
			source, event := e["source"].(string), e["event"].(string)
			inputs := operations[[2]string{source, event}]
			for _, place := range placesOf(e) {
				if added[place] == source || slices.ContainsFunc(inputs, func(input any) bool { return hasPlace(input, place) }) {
					continue
				}
				t.Errorf("%s: %s has no member %q", path, event, place)
			}
		}
	}
}

// placesOf are the places in the request that an entry speaks of.
func placesOf(e map[string]any) []string {
	var all []string
	texts := func(list any) {
		places, _ := list.([]any)
		for _, place := range places {
			all = append(all, place.(string))
		}
	}
	conditions := func(of map[string]any) {
		when, _ := of["when"].(map[string]any)
		for place := range when {
			all = append(all, place)
		}
	}
	texts(e["id"])
	texts(e["items"])
	texts(e["moot"])
	shapes, _ := e["shapes"].([]any)
	for _, s := range shapes {
		shape := s.(map[string]any)
		texts(shape["id"])
		conditions(shape)
		match, _ := shape["match"].(map[string]any)
		for _, places := range match {
			texts(places)
		}
		set, _ := shape["set"].([]any)
		for _, a := range set {
			assignment := a.(map[string]any)
			conditions(assignment)
			if from, ok := assignment["from"].(string); ok {
				all = append(all, from)
			}
		}
	}
	return slices.DeleteFunc(all, func(place string) bool {
		return place == "" || place == "resources" || place == "account" || place == "invokedBy" || strings.ContainsAny(place, ":=")
	})
}

// hasPlace follows a place through the model of an input: an object, a list of one element, a map under "*", or a kind of
// scalar; "struct" where the table stops.
func hasPlace(input any, place string) bool {
	if list, ok := input.([]any); ok && len(list) == 1 {
		return hasPlace(list[0], place)
	}
	if place == "" || input == "struct" {
		return true
	}
	members, _ := input.(map[string]any)
	name, rest, _ := strings.Cut(place, ".")
	for member, value := range members {
		if member == "*" || strings.ToLower(member[:1])+member[1:] == strings.ToLower(name[:1])+name[1:] {
			return hasPlace(value, rest)
		}
	}
	return false
}

// apiOperations has the inputs of the changing operations by event source and name, nil where the table is not at hand.
func apiOperations(t *testing.T) map[[2]string][]any {
	t.Helper()
	operations := map[[2]string][]any{}
	at := table(t, "api-operations", func(line []byte) error {
		var row struct {
			Source    string `json:"event_source"`
			Operation string `json:"operation"`
			Input     any    `json:"input"`
		}
		err := json.Unmarshal(line, &row)
		key := [2]string{row.Source, row.Operation}
		operations[key] = append(operations[key], row.Input)
		return err
	})
	if !at {
		return nil
	}
	if len(operations) < 5000 {
		t.Fatalf("%d operations", len(operations))
	}
	return operations
}
