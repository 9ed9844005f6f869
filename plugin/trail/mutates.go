package trail

import (
	"regexp"
	"strings"
)

// ReadingVerbs are the first words of event names that only read. They decide where a record does not carry readOnly:
// event versions before 1.02 and trimmed exports. The rules file spells the same list, and a test holds the two together.
var ReadingVerbs = []string{
	"AdminGet", "AdminList", "BatchCheck", "BatchDescribe", "BatchGet", "Check", "Describe", "Discover", "Download",
	"Estimate", "Filter", "Get", "Head", "List", "Lookup", "Preview", "Query", "Scan", "Search", "Select", "Simulate",
	"Test", "Validate", "View",
}

// Mutating reports whether the call meant to change something, refused or not: what the record says, and where it says
// nothing, everything that does not start with a ReadingVerb.
func (r *Record) Mutating() bool {
	if r.ReadOnly != nil {
		return !*r.ReadOnly
	}
	for _, verb := range ReadingVerbs {
		if strings.HasPrefix(r.EventName, verb) {
			return false
		}
	}
	return true
}

// Refused reports whether the call failed, so that nothing changed.
func (r *Record) Refused() bool { return r.ErrorCode != "" }

// versionSuffix is the API version that Lambda and CloudFront append: UpdateFunctionCode20150331v2, CreateDistribution2020_05_31.
var versionSuffix = regexp.MustCompile(`(20\d{6}|20\d{2}_\d{2}_\d{2})(v\d+)?$`)

// Action is the event's name without a version suffix: the name of the API operation.
func (r *Record) Action() string { return versionSuffix.ReplaceAllString(r.EventName, "") }
