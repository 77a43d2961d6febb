// Command couplet serves and fetches poems on every engine of module couplet,
// and tells what this machine can do.
//
//	couplet demo                    three slow poems, on each engine
//	couplet trace                   what two engines say to the kernel, side by side
//	couplet serve poem --port 10000 a slow poem server
//	couplet serve echo --upper      an echo server
//	couplet fetch 10000 10001       fetches poems, all at once
//	couplet doctor                  what stands in the way, and what removes it
//
// Exit status: 0 done; 1 the work failed; 2 the command line or an input was
// wrong, said in one line on standard error.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Exit statuses.
const (
	statusDone   = 0
	statusFailed = 1
	statusUsage  = 2
)

// failure is an error of the work, not of the command line: exit status 1.
type failure struct{ err error }

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// errToldAlready is a failure of which everything was said.
var errToldAlready = failure{errors.New("")}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command without the process around it.
func run(args []string, stdout, stderr io.Writer) int {
	out := &output{Writer: stdout}
	root := newRoot(out, stderr)
	root.SetArgs(args)
	err := out.lost(root.Execute())
	if err == nil {
		return statusDone
	}
	if text := oneLine(err.Error()); text != "" {
		last := newPatientWriter(stderr, nil) // whoever reads it, or not, the process ends
		fmt.Fprintln(last, "couplet: "+text)
		last.end()
	}
	if errors.As(err, new(failure)) {
		return statusFailed
	}
	return statusUsage
}

// An output keeps the first error of what is written, so that nothing is lost with
// exit status 0.
type output struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		o.mu.Lock()
		if o.err == nil {
			o.err = err
		}
		o.mu.Unlock()
	}
	return n, err
}

// lost is err, or the failure to write where that is all there was.
func (o *output) lost(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.err == nil:
		return err
	case err == nil, err.Error() == "", err.Error() == o.err.Error():
		return failure{fmt.Errorf("%w; what was to be printed is lost, print it elsewhere", o.err)}
	}
	return err
}

// oneLine is text without line breaks, as in several errors, or one that cobra spreads.
func oneLine(text string) string {
	all := ""
	for line := range strings.Lines(text) {
		choice := strings.HasPrefix(line, "\t") // of those that cobra suggests
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case all == "":
			all = line
		case strings.HasSuffix(all, "?"):
			all += " " + line
		case choice:
			all += ", " + line
		default:
			all += "; " + line
		}
	}
	return all
}
