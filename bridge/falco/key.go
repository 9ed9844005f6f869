package falco

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tfdrift/tfdrift-falco/bridge/journal"
)

// eventKey is the key of a rule's alert about a CloudTrail event. Several Falcos may read one trail, and one Falco may read it
// again: it stays one alert.
func eventKey(a *journal.Alert, eventID string) string {
	return key("event", a.Rule, a.Source, eventID)
}

// alertKey is the key of any other alert. Falco gives its alerts no id, so everything that tells two of them apart is in
// it: many event sources tell the time to the second only, and the text has only some of the fields. The way an alert came
// must not be in it: Falco writes the same JSON document to both of its outputs, and what its settings change in that, the
// form of the time and the names of the time fields, is left out.
func alertKey(a *journal.Alert) string {
	parts := []string{
		"alert", a.Rule, a.Source, a.Hostname, strconv.FormatInt(a.Time.UnixNano(), 10), a.Priority, told(a.Output),
	}
	for _, name := range slices.Sorted(maps.Keys(a.Fields)) {
		if name != "evt.time" && name != "evt.time.iso8601" {
			parts = append(parts, name, a.Fields[name])
		}
	}
	return key(parts...)
}

// recordKey is the key of a record read without Falco.
func recordKey(eventID string, text []byte) string {
	if eventID != "" {
		return key("cloudtrail", eventID)
	}
	return key("cloudtrail", "", string(text))
}

// front is the time and the priority at the front of every output, the time as either value of time_format_iso_8601 has it.
var front = regexp.MustCompile(`^(?:\d{4}-\d{2}-\d{2}T)?\d{2}:\d{2}:\d{2}\.\d{9}(?:Z|[+-]\d{4})?: ([A-Z][a-z]+) `)

// told is what the rule says: an output without time and priority.
func told(output string) string {
	return strings.TrimPrefix(output, front.FindString(output))
}

// key hashes parts so that no two lists of parts have the same key, whatever is in them.
func key(parts ...string) string {
	var text []byte
	for _, part := range parts {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
