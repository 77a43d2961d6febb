package ring

import "strings"

// Caps is the set of kernel abilities a functional probe found. See [Probe].
type Caps uint32

const (
	// CapMultishot is the least an engine needs (Linux 6.0): multishot accept and receive, registered
	// buffer rings, cancellation by descriptor, SUBMIT_ALL and waits with a timeout.
	CapMultishot Caps = 1 << iota
	// CapDeferTaskrun: completions are produced only when the loop enters the kernel (Linux 6.1).
	CapDeferTaskrun
	// CapIncremental: a provided buffer may be consumed piece by piece (Linux 6.12).
	CapIncremental
)

var capNames = [...]string{"multishot", "defer-taskrun", "incremental"}

// Has reports whether all of want are in c.
func (c Caps) Has(want Caps) bool { return c&want == want }

// String lists the abilities by name, separated by commas, or says "none".
func (c Caps) String() string {
	var names []string
	for i, name := range capNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}
