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
	"errors"
	"fmt"
	"slices"

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
	// Attributes is a compact object. Values of open type stand in it without their wrapping: see dynamic.go.
	Attributes jsontext.Value
	Sensitive  []Path // marked by the configuration or the provider, sorted; "" marks everything
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
	if e.Offset == 0 {
		return fmt.Sprintf("not a raw Terraform state: %v", e.Err)
	}
	return fmt.Sprintf("not a raw Terraform state (at byte %d): %v", e.Offset, e.Err)
}

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Err }

var idPath = []step{{"id", -1}}

// ID is the attribute "id", by which the provider knows the instance; "" if it has none.
func (i *Instance) ID() string {
	v, _ := get(i.Attributes, idPath)
	return textOf(v)
}

// Get is the value at a path, all attributes at "" and false where there is none. The value is part of Attributes: it must
// not be changed.
func (i *Instance) Get(p Path) (jsontext.Value, bool) {
	steps := p.steps()
	if steps == nil && p != "" {
		return nil, false
	}
	return get(i.Attributes, steps)
}

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

// Strings walks the attributes at the top level that are texts.
func (i *Instance) Strings(each func(name, value string)) {
	object(i.Attributes, func(quoted, value jsontext.Value) bool {
		if value.Kind() == '"' {
			each(textOf(quoted), textOf(value))
		}
		return true
	})
}
