package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"couplet/bench"
)

// An outfile is a file that a flag names, and what writes it.
type outfile struct {
	flag, path string // path may be "": none is wanted
	write      func(io.Writer) error
	output     *bench.Output
}

// outfiles are those of a run.
type outfiles []outfile

// openOutfiles opens the files of --json and --html that are wanted, so that one which cannot
// be written is found out before there is anything to write. They have to be closed.
func openOutfiles(json, html outfile) (files outfiles, err error) {
	if samePath(json.path, html.path) {
		return nil, fmt.Errorf("--json and --html are both %q; want two files", json.path)
	}
	for _, f := range []outfile{json, html} {
		if f.path == "" {
			continue
		}
		if f.output, err = bench.OpenOutput(f.path); err != nil {
			files.close()
			return nil, fmt.Errorf("--%s: %w", f.flag, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// write writes all of them, and tells of each that is written. One that cannot be does not
// cost the other.
func (files outfiles) write(told io.Writer) error {
	var errs []error
	for _, f := range files {
		if err := f.output.Write(f.write); err != nil {
			errs = append(errs, fmt.Errorf("writing --%s %q: %w", f.flag, f.path, err))
		} else {
			fmt.Fprintf(told, "couplet: wrote %s\n", f.path)
		}
	}
	return errors.Join(errs...)
}

func (files outfiles) close() {
	for _, f := range files {
		f.output.Close()
	}
}

// samePath reports whether two names, if both are given, are of one file.
func samePath(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, errX := filepath.Abs(a)
	y, errY := filepath.Abs(b)
	if errX == nil && errY == nil && x == y {
		return true
	}
	i, errI := os.Stat(a)
	j, errJ := os.Stat(b)
	return errI == nil && errJ == nil && os.SameFile(i, j)
}
