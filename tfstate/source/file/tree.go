package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bmatcuk/doublestar/v4"
)

// tree is the file system below base as a glob walks it. It follows links to directories, save those that lead back up to
// one the walk came through: with two of these a walk would never end.
type tree struct {
	base   string
	closed map[string]error // takes the directories that cannot be listed
}

var (
	_ fs.ReadDirFS = tree{}
	_ fs.StatFS    = tree{}
)

// glob lists the files that match an absolute pattern below base.
func (t tree) glob(pattern string) ([]string, error) {
	_, rest := doublestar.SplitPattern(filepath.ToSlash(pattern))
	found, err := doublestar.Glob(t, rest, doublestar.WithFilesOnly())
	for i, name := range found {
		found[i] = t.path(name)
	}
	return found, err
}

func (t tree) path(name string) string { return filepath.Join(t.base, filepath.FromSlash(name)) }

// Open implements fs.FS, which nothing here calls: reading is scan's.
func (t tree) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.ErrUnsupported}
}

// Stat implements fs.StatFS.
func (t tree) Stat(name string) (fs.FileInfo, error) { return os.Stat(t.path(name)) }

// ReadDir implements fs.ReadDirFS.
func (t tree) ReadDir(name string) ([]fs.DirEntry, error) {
	dir := t.path(name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.closed[dir] = err
	}
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return e.Type()&fs.ModeSymlink != 0 && leadsUp(dir, e.Name())
	}), err
}

// leadsUp reports whether the link called name leads to dir or a directory above it.
func leadsUp(dir, name string) bool {
	target, err := os.Stat(filepath.Join(dir, name))
	if err != nil || !target.IsDir() {
		return false
	}
	for {
		if info, err := os.Stat(dir); err == nil && os.SameFile(info, target) {
			return true
		}
		above := filepath.Dir(dir)
		if above == dir {
			return false
		}
		dir = above
	}
}
