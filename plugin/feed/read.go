package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// Read hands out every record in r, which may hold
//
//   - {"Records":[...]}, as CloudTrail writes its files
//   - a bare array of records, or one record alone
//   - JSON lines: any number of these, one after the other
//   - EventBridge envelopes, whose detail is the record
//   - what aws cloudtrail lookup-events prints: {"Events":[{"CloudTrailEvent":"..."}]}
//
// Anything else that is JSON, such as digests and notifications, is passed over, and so is a byte order mark before a
// value. The whole text is never in memory at once, only one record. Each record is compact JSON in memory of its own.
//
// Behind what cannot be read, however long it is, reading goes on at the next record: at a line that starts with an object,
// or within a line at an object whose first member is one that a record has. The error is the one of each, or the first of
// these: where the text is cut off (errors.Is io.ErrUnexpectedEOF), not JSON (*jsontext.SyntacticError, whose offset is that
// in r) or has an item above 16 MiB. Gzip and UTF-16 are not unpacked here.
func Read(r io.Reader, each func(record []byte) error) error {
	return newReader(r).run(func(it item) error {
		if it.aside != "" {
			return nil
		}
		return each(it.record)
	})
}

// maxItem is the largest item held in memory; CloudTrail's own limit of a record is 256 KiB.
const maxItem = 16 << 20

var errTooLarge = errors.New("a record is larger than 16 MiB")

// item is one element of a list or one top-level value.
type item struct {
	record []byte
	time   time.Time // eventTime, zero where there is none
	named  bool      // with an eventID
	aside  string    // why this is not a record, "" for a record
}

// reader walks a text of one or more top-level values.
type reader struct {
	window *window
	dec    *jsontext.Decoder
	base   int64 // offset in the text at which dec started
	// start is the offset at which the top-level value at hand starts; the text before it is done with.
	start int64
	// within counts the items handed out of that value.
	within int
	// inLine says that the value at hand was found within a line and is read as a list that nothing need end.
	inLine bool
	// stopped is the error of each: it ends the run, whatever it is.
	stopped error
}

func newReader(r io.Reader) *reader {
	w := &window{from: r}
	return &reader{window: w, dec: newDecoder(w)}
}

func newDecoder(r io.Reader) *jsontext.Decoder {
	return jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

func (r *reader) offset() int64 { return r.base + r.dec.InputOffset() }

// run hands out all items. Behind what is broken it goes on with the next record, and returns the first such error at the
// end.
func (r *reader) run(each func(item) error) error {
	var broken error
	for {
		r.window.keepFrom(r.start)
		err := r.top(each)
		switch {
		case r.stopped != nil:
			return r.stopped
		case err == nil:
			r.start, r.within, r.inLine = r.offset(), 0, false
		case errors.Is(err, io.EOF), r.inLine && r.atEnd(err):
			return broken
		case !isBroken(err):
			return errors.Join(broken, err)
		case r.skipMark():
		default:
			if broken == nil {
				broken = r.inText(err)
			}
			if found, err := r.resume(); !found {
				return errors.Join(broken, err)
			}
		}
	}
}

// isBroken tells what is wrong with a place in the text from what ends it.
func isBroken(err error) bool {
	var syntax *jsontext.SyntacticError
	return errors.Is(err, errTooLarge) || errors.As(err, &syntax) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// atEnd reports whether the text ended behind an item, not within one.
func (r *reader) atEnd(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) && !isGzip(err) && len(bytes.TrimSpace(r.window.since(r.window.done))) == 0
}

// inText makes the offset in a decoder's error that in the text.
func (r *reader) inText(err error) error {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return err
	}
	moved := *syntax
	moved.ByteOffset += r.base
	return &moved
}

// byteOrderMark may stand at the start of a text (https://www.rfc-editor.org/rfc/rfc8259#section-8.1), and further on
// where files were joined.
const byteOrderMark = "\uFEFF"

// skipMark passes over a byte order mark before the value at hand, and reports whether there was one.
func (r *reader) skipMark() bool {
	text := r.window.since(r.start)
	value := bytes.TrimLeft(text, " \t\r\n")
	if r.within > 0 || !bytes.HasPrefix(value, []byte(byteOrderMark)) {
		return false
	}
	r.restart(r.start + int64(len(text)-len(value)+len(byteOrderMark)))
	return true
}

// resume puts a new decoder at the next record. One within a line is read as an element of a list that goes on behind it.
func (r *reader) resume() (found bool, err error) {
	next, inLine, err := r.window.nextRecord()
	if next < 0 {
		return false, err
	}
	r.restart(next)
	if r.inLine = inLine; inLine {
		r.base--
		r.dec = newDecoder(io.MultiReader(strings.NewReader("["), r.window))
	}
	return true, nil
}

func (r *reader) restart(offset int64) {
	r.window.rewind(offset)
	r.start, r.base, r.within, r.inLine = offset, offset, 0, false
	r.dec = newDecoder(r.window)
}

// top reads one top-level value.
func (r *reader) top(each func(item) error) error {
	switch r.dec.PeekKind() {
	case '[':
		return r.list(each)
	case '{':
		return r.object(each)
	}
	v, err := r.dec.ReadValue()
	if err != nil {
		return err
	}
	return r.hand(each, v)
}

func (r *reader) hand(each func(item) error, v jsontext.Value) error {
	if r.stopped = each(classify(compact(v))); r.stopped != nil {
		return r.stopped
	}
	r.within++
	r.window.keepFrom(r.offset())
	return nil
}

// list hands out the elements of the array at hand.
func (r *reader) list(each func(item) error) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	for r.dec.PeekKind() != ']' {
		v, err := r.dec.ReadValue()
		if err != nil {
			return cutOff(err)
		}
		if err := r.hand(each, v); err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return cutOff(err)
}

// object streams the array named Records or Events of a wrapper, and gathers any other object to hand it out whole.
func (r *reader) object(each func(item) error) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	whole, wrapper := []byte{'{'}, false
	for r.dec.PeekKind() != '}' {
		name, err := r.dec.ReadValue()
		if err != nil {
			return cutOff(err)
		}
		key := string(name)
		if (key == `"Records"` || key == `"Events"`) && r.dec.PeekKind() == '[' {
			if err := r.list(each); err != nil {
				return err
			}
			wrapper = true
			continue
		}
		v, err := r.dec.ReadValue()
		if err != nil {
			return cutOff(err)
		}
		if wrapper {
			continue
		}
		if len(whole) > 1 {
			whole = append(whole, ',')
		}
		whole = append(append(append(whole, key...), ':'), v...)
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return cutOff(err)
	}
	if wrapper {
		return nil
	}
	return r.hand(each, append(whole, '}'))
}

// cutOff makes the end of the text inside a value an io.ErrUnexpectedEOF.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// compact copies v without the white space between its tokens; v must be valid.
func compact(v jsontext.Value) []byte {
	out := make([]byte, 0, len(v))
	for len(v) > 0 {
		switch v[0] {
		case ' ', '\t', '\r', '\n':
			v = v[1:]
		case '"':
			n := stringLength(v)
			out = append(out, v[:n]...)
			v = v[n:]
		default:
			n := bytes.IndexAny(v, "\" \t\r\n")
			if n < 0 {
				n = len(v)
			}
			out = append(out, v[:n]...)
			v = v[n:]
		}
	}
	return out
}

// stringLength measures the string at the start of v, with its quotes.
func stringLength(v []byte) int {
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(v)
}

// The reasons for which something is not a record.
const (
	asideNotification = "notification" // S3, SNS or SQS tells of a file
	asideDigest       = "digest"       // CloudTrail's digest of a file
	asideEnvelope     = "envelope"     // an EventBridge event of another kind
	asideUnknown      = "unknown"      // any other JSON
	asideRepeated     = "repeated"     // a record of a file that was copied
)

// classify tells a record from what else lies in buckets and queues, and takes it out of its envelope.
func classify(v []byte) item {
	var seen struct{ record, digest, notification, envelope bool }
	var detail, nested jsontext.Value
	it := item{record: v}
	trail.Members(v, func(name []byte, value jsontext.Value) {
		switch string(name) {
		case "eventName", "eventType":
			seen.record = seen.record || value.Kind() == '"'
		case "eventID":
			it.named = value.Kind() == '"' && len(value) > 2
		case "eventTime":
			if t, err := time.Parse(time.RFC3339, trail.Text(value)); err == nil {
				it.time = t
			}
		case "eventSource", "EventSource": // lookup-events writes the latter too, with the service's name
			seen.notification = seen.notification || strings.HasPrefix(string(value), `"aws:`)
		case "receiptHandle", "TopicArn", "s3Bucket":
			seen.notification = true
		case "Event":
			seen.notification = seen.notification || string(value) == `"s3:TestEvent"`
		case "digestStartTime", "digestS3Object":
			seen.digest = true
		case "detail-type":
			seen.envelope = true
		case "detail":
			detail = value
		case "CloudTrailEvent":
			nested = value
		}
	})
	switch {
	case seen.notification:
		return item{aside: asideNotification}
	case seen.digest:
		return item{aside: asideDigest}
	case seen.record:
		return it
	case seen.envelope && detail != nil:
		return unwrap(detail)
	case nested.Kind() == '"':
		return lookedUp(nested)
	case seen.envelope:
		return item{aside: asideEnvelope}
	}
	return item{aside: asideUnknown}
}

// unwrap takes the record out of an EventBridge envelope.
func unwrap(detail jsontext.Value) item {
	it := classify(bytes.Clone(detail))
	if it.aside != "" {
		return item{aside: asideEnvelope}
	}
	return it
}

// lookedUp takes the record out of the string that lookup-events wraps it in.
func lookedUp(text jsontext.Value) item {
	inner, err := jsontext.AppendUnquote(nil, text)
	if err != nil || !jsontext.Value(inner).IsValid() {
		return item{aside: asideUnknown}
	}
	return classify(compact(inner))
}

// faultUnreadable is the kind of what the file system refuses, whether that passes or not.
const faultUnreadable = "unreadable"

// faultKind sorts an error of reading into the kinds that Stats counts.
func faultKind(err error) string {
	var syntax *jsontext.SyntacticError
	var system *fs.PathError
	switch {
	case errors.Is(err, errTooLarge):
		return "too_large"
	case errors.Is(err, errNoFile):
		return "no_file"
	case errors.As(err, &system):
		return faultUnreadable
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	case errors.As(err, &syntax):
		return "not_json"
	case isGzip(err):
		return "gzip"
	case isPanic(err):
		return "panic"
	}
	return faultUnreadable
}

// panicError is what a recovered panic becomes.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func isPanic(err error) bool {
	var p panicError
	return errors.As(err, &p)
}
