package bench

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// An Output is a file that is written when all that goes into it is known. Until then
// what is there stays as it was, and then the whole of the new file takes its place. A
// device or a pipe is written as it is.
type Output struct {
	path string   // where a link leads to
	file *os.File // a device or a pipe, or nil
}

// OpenOutput finds out what would keep Write from writing path, which takes what is there
// to be a file that may be written, and its directory to be one in which files may be made.
// The error says which is not so, and what to do. A pipe is waited for until it has a reader.
// The caller has to call Close.
func OpenOutput(path string) (*Output, error) {
	o := &Output{path: path}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	switch {
	case err == nil:
		if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
			o.file = f
			return o, nil
		}
		f.Close()
		if o.path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, cannot(path, err, "a file that can be written")
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, cannot(path, err, "a file that can be written")
	default:
		if _, err := os.Lstat(path); err == nil {
			return nil, cannot(path, errors.New("it is a link to what is not there"), "a file")
		}
	}
	part, err := o.part(0o600)
	if err == nil {
		err = errors.Join(part.Close(), os.Remove(part.Name()))
	}
	if err != nil {
		return nil, cannot(path, err, "a file in a directory that is there and yours to write to")
	}
	return o, nil
}

// cannot is the error for a path that err keeps from being written.
func cannot(path string, err error, want string) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("cannot write %s: %w; want %s", path, err, want)
}

// part makes the file that is to take the place of path. A name that is drawn is in nobody's
// way, and what a process that was killed has left is not in the way of others.
func (o *Output) part(mode fs.FileMode) (*os.File, error) {
	name := fmt.Sprintf(".couplet-%016x.part", rand.Uint64())
	return os.OpenFile(filepath.Join(filepath.Dir(o.path), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Write makes the file of what write writes. If that fails a file that was there is as it
// was, and nothing is left of the new one. It is called once.
func (o *Output) Write(write func(io.Writer) error) error {
	if o.file != nil {
		return errors.Join(write(o.file), o.file.Close())
	}
	mode := fs.FileMode(0o666)
	before, _ := os.Stat(o.path)
	if before != nil {
		mode = before.Mode().Perm()
	}
	f, err := o.part(mode)
	if err != nil {
		return err
	}
	if before != nil {
		f.Chmod(mode) // what the umask took; without it the file is less open, and no worse
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), o.path); err != nil { // as onto a mount point: it is worth too much to remove it
		return fmt.Errorf("%w; all of it is in %s", err, f.Name())
	}
	return nil
}

// Close lets go of a device or a pipe. It may be called after Write, and does nothing then.
func (o *Output) Close() {
	if o.file != nil {
		o.file.Close()
	}
}
