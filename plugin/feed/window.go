package feed

import (
	"bytes"
	"errors"
	"io"
	"regexp"
)

// window passes bytes on and keeps those since the end of the last item, to go on behind what is broken.
type window struct {
	from   io.Reader
	again  []byte // to be read once more before from
	kept   []byte
	keptAt int64 // offset of kept[0]
	read   int64 // offset of the next byte to be read
	done   int64 // offset of the end of the last item
}

// keepFrom forgets what stands before offset, the end of the last item.
func (w *window) keepFrom(offset int64) {
	w.done = offset
	// Moving the rest down at every item would copy each byte many times.
	if gone := int(offset - w.keptAt); gone > 4096 && 2*gone > len(w.kept) {
		rest := w.kept[gone:]
		if cap(w.kept) > 1<<20 { // of one large item: not for good
			w.kept = nil
		}
		w.kept = append(w.kept[:0], rest...)
		w.keptAt = offset
	}
}

// since is what was read behind offset and is kept.
func (w *window) since(offset int64) []byte {
	return w.kept[min(max(0, int(offset-w.keptAt)), len(w.kept)):]
}

// rewind serves the text again from offset on, which is kept.
func (w *window) rewind(offset int64) {
	w.again = append(bytes.Clone(w.since(offset)), w.again...)
	w.kept, w.keptAt, w.read, w.done = w.kept[:0], offset, offset, offset
}

// Read gives an error when an item grows beyond maxItem, which the item then cannot end any more.
func (w *window) Read(p []byte) (n int, err error) {
	if len(w.again) > 0 {
		n = copy(p, w.again)
		w.again = w.again[n:]
	} else {
		n, err = w.from.Read(p)
	}
	w.read += int64(n)
	w.kept = append(w.kept, p[:n]...)
	if w.read-w.done > maxItem {
		return 0, errTooLarge
	}
	return n, err
}

// firstMember is how records start and nothing within them does; in a string it would be escaped. CloudTrail itself writes
// eventVersion first, other exports sort or trim.
var firstMember = regexp.MustCompile(`^\{[ \t\r\n]{0,64}"(?:eventVersion|eventTime|eventID)"[ \t]{0,8}:`)

// maxStart is more than firstMember matches.
const maxStart = 128

// recordStart finds an object at the start of a line, or, within a line or indented, one with a firstMember; -1 for none.
func recordStart(text []byte) (at int, inLine bool) {
	for at = 0; ; at++ {
		n := bytes.IndexByte(text[at:], '{')
		if n < 0 {
			return -1, false
		}
		at += n
		if before := bytes.TrimSuffix(text[:at], []byte(byteOrderMark)); bytes.HasSuffix(before, []byte{'\n'}) {
			return at, false
		}
		if firstMember.Match(text[at:min(at+maxStart, len(text))]) {
			return at, true
		}
	}
}

// nextRecord finds where a record may start behind the last item; -1 if there is no such place. What it passes over is
// forgotten, so that its length does not matter. inLine tells that the record may be one of a list.
func (w *window) nextRecord() (offset int64, inLine bool, err error) {
	least := w.done + 1 // the item at hand is the broken one
	var chunk [16 << 10]byte
	for {
		w.done = max(least, w.keptAt)
		text := w.since(w.done)
		if at, inLine := recordStart(text); at >= 0 {
			return w.done + int64(at), inLine, nil
		}
		if passed := len(w.kept) - maxStart; passed > 0 {
			w.kept = append(w.kept[:0], w.kept[passed:]...)
			w.keptAt += int64(passed)
		}
		w.done = max(w.done, w.keptAt)
		if n, err := w.Read(chunk[:]); n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return -1, false, err
		}
	}
}
