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
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return statusDone
	}
	if text := oneLine(err.Error()); text != "" {
		fmt.Fprintln(stderr, "couplet: "+text)
	}
	if errors.As(err, new(failure)) {
		return statusFailed
	}
	return statusUsage
}

// oneLine is text without line breaks, as in an error that cobra spreads over
// several.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, " ")
}
