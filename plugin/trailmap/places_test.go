package trailmap_test

import (
	"bufio"
	"compress/gzip"
	"os"
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
	file, err := os.Open("../../../shared/data/aws/api-operations.jsonl.gz")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Log("the table of the operations is not at hand")
		return nil
	}
	defer func() { _ = file.Close() }()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	operations := map[[2]string][]any{}
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var row struct {
			Source    string `json:"event_source"`
			Operation string `json:"operation"`
			Input     any    `json:"input"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		key := [2]string{row.Source, row.Operation}
		operations[key] = append(operations[key], row.Input)
	}
	if len(operations) < 5000 || lines.Err() != nil {
		t.Fatalf("%d operations: %v", len(operations), lines.Err())
	}
	return operations
}
