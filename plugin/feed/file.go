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
	read   bool // at least once
	seen   int  // the walk that saw the file last
}

// head tells a file that was written anew from one that has grown.
type head struct {
	length int64
	hash   uint64
}

const headSize = 4096

func (h head) matches(f io.ReaderAt) bool {
	now, err := headOf(f, h.length)
	return err == nil && now == h
}

func headOf(f io.ReaderAt, size int64) (head, error) {
	buf := make([]byte, min(size, headSize))
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return head{}, err
	}
	return head{int64(n), xxhash.Sum64(buf[:n])}, nil
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
	if st.read && st.size == info.Size() && st.modified.Equal(info.ModTime()) {
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
		f.well("truncated", path)
		return nil
	}
	f.fault(faultKind(err), path, err)
	return nil
}

// rotated reports whether a file whose name is not ours is one that was read under its name before, and has grown since.
func (f *Feed) rotated(path string, info os.FileInfo) bool {
	st := f.files[idOf(info)]
	if st == nil || !st.read || !info.Mode().IsRegular() || info.Size() <= st.size {
		return false
	}
	handle, err := os.Open(path)
	if err != nil {
		return false
	}
	defer handle.Close() //nolint:errcheck // only read
	return st.head.length > 0 && st.head.matches(handle)
}

// readFrom takes st along as far as the file can be read. stop is the error of emit or of ctx, err anything else.
func (f *Feed) readFrom(ctx context.Context, path string, st *file, emit func(item) error) (stop, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError{p}
		}
	}()
	handle, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer handle.Close() //nolint:errcheck // only read
	info, err := handle.Stat()
	if err != nil {
		return nil, err
	}
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
	st.read, st.size, st.modified = true, info.Size(), info.ModTime()
	return f.readOpen(ctx, handle, st, emit)
}

// readOpen reads on from where st is. A compressed file can only be read from its start, so there the items handed out
// before are passed over; in a plain one only those of a top-level value that was cut off.
func (f *Feed) readOpen(ctx context.Context, handle *os.File, st *file, emit func(item) error) (stop, err error) {
	text, compressed, err := open(handle)
	if err != nil {
		return nil, err
	}
	base, skip := int64(0), st.items
	if !compressed {
		if _, err := handle.Seek(st.offset, io.SeekStart); err != nil {
			return nil, err
		}
		text, base, skip = handle, st.offset, st.within
	}
	r := newReader(bufio.NewReaderSize(text, 64<<10))
	err = r.run(func(it item) error {
		if skip > 0 {
			skip--
			return nil
		}
		if stop = ctx.Err(); stop == nil && it.aside == "" {
			stop = emit(it)
		}
		if stop == nil {
			st.items++
			f.count(it)
		}
		return stop
	})
	st.offset, st.within = base+r.start, r.within
	return stop, err
}

// open unpacks gzip, which shows in the first two bytes (https://www.rfc-editor.org/rfc/rfc1952#page-6).
func open(handle *os.File) (text io.Reader, compressed bool, err error) {
	var magic [2]byte
	if n, err := handle.ReadAt(magic[:], 0); n < 2 || magic != [2]byte{0x1f, 0x8b} {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return handle, false, err
	}
	text, err = gzip.NewReader(bufio.NewReaderSize(handle, 64<<10))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, true, gzipError{err}
	}
	return gzipText{text}, true, nil
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
