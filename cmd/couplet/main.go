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
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
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
	root := newRoot(out, &output{Writer: stderr})
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
	impatient <-chan struct{} // once it is closed who does not read for lastWait is given up
	mu        sync.Mutex
	err       error
}

var errUnread = errors.New("interrupted, and nobody reads")

func (o *output) Write(p []byte) (n int, err error) {
	if o.impatient == nil {
		n, err = o.Writer.Write(p)
	} else {
		n, err = o.writePieces(p)
	}
	if err != nil {
		o.mu.Lock()
		if o.err == nil {
			o.err = err
		}
		o.mu.Unlock()
	}
	return n, err
}

// writePieces writes p in pieces that a reader takes soon.
func (o *output) writePieces(p []byte) (total int, err error) {
	for err == nil && total < len(p) {
		o.mu.Lock()
		unread := o.err == errUnread
		o.mu.Unlock()
		if unread { // and waited for it
			return total, errUnread
		}
		piece := bytes.Clone(p[total:min(total+64<<10, len(p))]) // which stays behind, if it is stuck
		var n int
		var failed error
		done := make(chan struct{})
		go func() {
			defer close(done)
			n, failed = o.Writer.Write(piece)
		}()
		if !o.taken(done) {
			return total, errUnread
		}
		total, err = total+n, failed
	}
	return total, err
}

// taken waits for done, and reports whether it came.
func (o *output) taken(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-o.impatient:
	}
	select {
	case <-done:
		return true
	case <-time.After(lastWait):
		return false
	}
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
