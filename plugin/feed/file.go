package feed

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// fileID is what stays the same when a file is renamed.
type fileID struct{ dev, inode uint64 }

func idOf(info os.FileInfo) fileID {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(sys.Dev), uint64(sys.Ino)} //nolint:unconvert // their types differ by system
	}
	return fileID{}
}

// file is how far one file has been read.
type file struct {
	// size and modified are what the file showed just before it was last read: what came later shows as a difference.
	size     int64
	modified time.Time
	// offset is the end of the last whole top-level value of a plain file, within the items handed out of the one after
	// it, items those of the whole file.
	offset int64
	within int
	items  int
	head   head
	path   uint64 // its hash, where it was read last
	read   bool   // at least once
	seen   int    // the walk that saw the file last
}

// head tells a file that was written anew from one that has grown: by how it starts and by what stood at its end.
type head struct {
	size        int64
	start, last uint64
}

const headSize = 4096

func (h head) matches(f io.ReaderAt) bool {
	now, err := headOf(f, h.size)
	return err == nil && now == h
}

func headOf(f io.ReaderAt, size int64) (head, error) {
	buf := make([]byte, min(size, headSize))
	h := head{size: size}
	for _, part := range []struct {
		sum *uint64
		at  int64
	}{{&h.start, 0}, {&h.last, size - int64(len(buf))}} {
		n, err := f.ReadAt(buf, part.at)
		if err != nil && !errors.Is(err, io.EOF) {
			return head{}, err
		}
		*part.sum = xxhash.Sum64(buf[:n])
	}
	return h, nil
}

// read hands out what the file holds beyond what was handed out before. Only the error of emit and the end of ctx are
// returned; any other is a fault.
func (f *Feed) read(ctx context.Context, path string, info os.FileInfo, emit func(item) error) error {
	id := idOf(info)
	st := f.files[id]
	if st == nil {
		st = &file{}
		f.files[id] = st
	}
	st.seen = f.passes
	if st.read && st.size == info.Size() && st.modified.Equal(info.ModTime()) && st.found(path) {
		return nil
	}
	began := time.Now()
	stop, err := f.readFrom(ctx, path, st, emit)
	f.reading += time.Since(began)
	switch {
	case stop != nil:
		st.size = -1 // so that another Run takes up the rest
		return stop
	case errors.Is(err, os.ErrNotExist):
		if !st.read {
			delete(f.files, id)
		}
		return nil // moved away since it was listed: under its new name it goes on from here
	case err == nil:
		f.recovered(path)
		return nil
	}
	kind := faultKind(err)
	if kind == faultUnreadable {
		st.size = -1 // the file may be well and its disk not: no change of it tells when to try again
	}
	f.fault(kind, path, err)
	return nil
}

// found reports whether what lies at a path is the file, and notes the path: an inode may have been given to another file, whose
// size and time may be the same where a download sets them.
func (st *file) found(path string) bool {
	sum := xxhash.Sum64String(path)
	if sum == st.path {
		return true
	}
	handle, _, err := openFile(path)
	if err != nil {
		return false
	}
	defer handle.Close() //nolint:errcheck // only read
	if !st.head.matches(handle) {
		return false
	}
	st.path = sum
	return true
}

// errNoFile is what a pipe or a device is called: reading one may never end.
var errNoFile = errors.New("it is no regular file")

// openFile opens a regular file, and nothing that opening waits for.
func openFile(path string) (*os.File, os.FileInfo, error) {
	handle, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := handle.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		_ = handle.Close()
		return nil, nil, err
	}
	return handle, info, nil
}

// rotated reports whether a file whose name is not ours is one that was read under its name before, and has grown since.
func (f *Feed) rotated(path string, info os.FileInfo) bool {
	st := f.files[idOf(info)]
	if st == nil || !st.read || !info.Mode().IsRegular() || info.Size() <= st.size {
		return false
	}
	handle, _, err := openFile(path)
	if err != nil {
		return false
	}
	defer handle.Close() //nolint:errcheck // only read
	return st.head.size > 0 && st.head.matches(handle)
}

// readFrom takes st along as far as the file can be read. stop is the error of emit or of ctx, err anything else.
func (f *Feed) readFrom(ctx context.Context, path string, st *file, emit func(item) error) (stop, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError{p}
		}
	}()
	handle, info, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer handle.Close() //nolint:errcheck // only read
	if st.read && (info.Size() < st.size || !st.head.matches(handle)) {
		*st = file{seen: st.seen}
	}
	if st.head, err = headOf(handle, info.Size()); err != nil {
		return nil, err
	}
	if !st.read {
		f.mu.Lock()
		f.stats.Files++
		f.mu.Unlock()
	}
	st.read, st.size, st.modified, st.path = true, info.Size(), info.ModTime(), xxhash.Sum64String(path)
	return f.readOpen(ctx, handle, st, emit)
}

// readOpen reads on from where st is. A text that is packed can only be read from its start, so there the items handed out
// before are passed over; in a plain one only those of a top-level value that was cut off.
func (f *Feed) readOpen(ctx context.Context, handle *os.File, st *file, emit func(item) error) (stop, err error) {
	text, packed, err := unpacked(ctx, handle)
	if err != nil {
		return nil, err
	}
	base, skip := int64(0), st.items
	if !packed {
		if _, err := handle.Seek(st.offset, io.SeekStart); err != nil {
			return nil, err
		}
		base, skip = st.offset, st.within
	}
	r := newReader(bufio.NewReaderSize(text, 64<<10))
	err = r.run(func(it item) error {
		if skip > 0 {
			skip--
			return nil
		}
		if stop = f.hand(ctx, it, emit); stop == nil {
			st.items++
		}
		return stop
	})
	if stop == nil {
		stop = ctx.Err()
	}
	st.offset, st.within = base+r.start, r.within
	return stop, err
}

// hand gives one item to emit and counts it, unless it is a record that was handed out of late.
func (f *Feed) hand(ctx context.Context, it item, emit func(item) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var sum uint64
	repeatable := f.watch && it.aside == "" && it.named
	if repeatable {
		var known bool
		if sum, known = f.recent.has(it.record); known {
			it, repeatable = item{aside: asideRepeated}, false
		}
	}
	if it.aside == "" {
		if err := emit(it); err != nil {
			return err
		}
	}
	if repeatable {
		f.recent.note(sum)
	}
	f.count(it)
	return nil
}

// unpacked is the text in a file: that within gzip, which shows in the first two bytes
// (https://www.rfc-editor.org/rfc/rfc1952#page-6), and as UTF-8 what is UTF-16. Reading it ends with ctx.
func unpacked(ctx context.Context, handle *os.File) (text io.Reader, packed bool, err error) {
	text = untilDone{ctx, handle}
	magic := make([]byte, 2)
	n, err := handle.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	if magic = magic[:n]; string(magic) == "\x1f\x8b" {
		unzipped, err := unzip(text)
		if err != nil {
			return nil, true, err
		}
		if magic, err = unzipped.Peek(2); err != nil && !errors.Is(err, io.EOF) {
			return nil, true, err
		}
		text, packed = unzipped, true
	}
	if order, ok := utf16(magic); ok {
		return transform.NewReader(text, unicode.UTF16(order, unicode.UseBOM).NewDecoder()), true, nil
	}
	return text, packed, nil
}

func unzip(text io.Reader) (*bufio.Reader, error) {
	unzipped, err := gzip.NewReader(bufio.NewReaderSize(text, 64<<10))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, gzipError{err}
	}
	return bufio.NewReader(gzipText{unzipped}), nil
}

// utf16 knows UTF-16 by its byte order mark, or by how JSON starts in it; PowerShell writes what is redirected so.
func utf16(start []byte) (unicode.Endianness, bool) {
	switch string(start) {
	case "\xff\xfe", "{\x00", "[\x00":
		return unicode.LittleEndian, true
	case "\xfe\xff", "\x00{", "\x00[":
		return unicode.BigEndian, true
	}
	return unicode.LittleEndian, false
}

// untilDone ends a reading, however long it is, with its context.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}

// gzipError marks the errors of unpacking.
type gzipError struct{ err error }

func (e gzipError) Error() string { return fmt.Sprintf("unpack gzip: %v", e.err) }
func (e gzipError) Unwrap() error { return e.err }

func isGzip(err error) bool {
	var g gzipError
	return errors.As(err, &g)
}

type gzipText struct{ io.Reader }

func (g gzipText) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = gzipError{err}
	}
	return n, err
}
