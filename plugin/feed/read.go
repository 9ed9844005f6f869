package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
// Anything else that is JSON, such as digests and notifications, is passed over. The whole text is never in memory at
// once, only one record. Each record is compact JSON in memory of its own. The error is the one of each, or says where the
// text is cut off (errors.Is io.ErrUnexpectedEOF), not JSON (*jsontext.SyntacticError) or has a record above 64 MiB. Gzip is
// not unpacked here.
func Read(r io.Reader, each func(record []byte) error) error {
	return newReader(r).run(func(it item) error {
		if it.aside != "" {
			return nil
		}
		return each(it.record)
	})
}

// maxItem is the largest record held in memory; CloudTrail's own limit is 256 KiB.
const maxItem = 64 << 20

var errTooLarge = errors.New("a record is larger than 64 MiB")

// item is one element of a list or one top-level value.
type item struct {
	record []byte
	time   time.Time // eventTime, zero where there is none
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

// run hands out all items. After a broken line it goes on with the next one and returns the first such error at the end.
func (r *reader) run(each func(item) error) error {
	var broken error
	for {
		r.window.keepFrom(r.start)
		err := r.top(each)
		switch {
		case r.stopped != nil:
			return r.stopped
		case err == nil:
			r.start, r.within = r.offset(), 0
		case errors.Is(err, io.EOF):
			return broken
		case !r.resume(err):
			return errors.Join(broken, err)
		case broken == nil:
			broken = err
		}
	}
}

// resume puts a new decoder at the line after the broken one, if the text that was read and is still kept has one.
func (r *reader) resume(err error) bool {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	next, ok := r.window.nextLine()
	if !ok {
		return false
	}
	r.start, r.base, r.within = next, next, 0
	r.dec = newDecoder(r.window)
	return true
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

// maxKept is how much of one item is kept to find the next line behind it.
const maxKept = 1 << 20

// window passes bytes on and keeps those since the end of the last item, to go on after a broken line.
type window struct {
	from   io.Reader
	again  []byte // to be read once more before from
	kept   []byte
	keptAt int64 // offset of kept[0]
	read   int64 // offset of the next byte to be read
	done   int64 // offset of the end of the last item
	lost   bool  // more than maxKept since done: kept is empty
}

// keepFrom forgets what stands before offset, the end of the last item. Behind an item so large that it was not kept, a
// broken line within what the decoder has read ahead takes the next line with it.
func (w *window) keepFrom(offset int64) {
	w.done = offset
	if w.lost {
		w.kept, w.keptAt, w.lost = w.kept[:0], w.read, false
		return
	}
	// Moving the rest down at every item would copy each byte many times.
	if gone := int(offset - w.keptAt); gone > 4096 {
		w.kept = w.kept[:copy(w.kept, w.kept[gone:])]
		w.keptAt = offset
	}
}

// nextLine finds the first line after the last item that starts with an object, and serves the text again from there.
func (w *window) nextLine() (offset int64, ok bool) {
	from := max(0, int(w.done-w.keptAt))
	for !w.lost {
		from = min(from, len(w.kept))
		if n := bytes.Index(w.kept[from:], []byte("\n{")); n >= 0 {
			offset = w.keptAt + int64(from+n+1)
			w.again = append(bytes.Clone(w.kept[from+n+1:]), w.again...)
			w.kept, w.keptAt, w.read, w.done = w.kept[:0], offset, offset, offset
			return offset, true
		}
		var chunk [4096]byte
		if n, err := w.Read(chunk[:]); n == 0 && err != nil {
			break
		}
	}
	return 0, false
}

func (w *window) Read(p []byte) (n int, err error) {
	if len(w.again) > 0 {
		n = copy(p, w.again)
		w.again = w.again[n:]
	} else {
		n, err = w.from.Read(p)
	}
	w.read += int64(n)
	if w.read-w.done > maxItem {
		return 0, errTooLarge
	}
	if len(w.kept)+n > maxKept && int64(len(w.kept)) > 0 && w.read-w.done > maxKept {
		w.kept, w.lost = w.kept[:0], true
	}
	if !w.lost {
		w.kept = append(w.kept, p[:n]...)
	}
	return n, err
}

// faultKind sorts an error of reading into the kinds that Stats counts.
func faultKind(err error) string {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, errTooLarge):
		return "too_large"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	case errors.As(err, &syntax):
		return "not_json"
	case isGzip(err):
		return "gzip"
	case isPanic(err):
		return "panic"
	}
	return "unreadable"
}

// panicError is what a recovered panic becomes.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func isPanic(err error) bool {
	var p panicError
	return errors.As(err, &p)
}
