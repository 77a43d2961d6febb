// Package enginetest is the conformance suite that any couplet.Engine must
// pass, and the simulated engine that runs without a kernel.
//
// # Basics
//
// A test of an engine describes itself as a [Suite] and calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		enginetest.Run(t, enginetest.Suite{
//			Name:     "mine",
//			Server:   func(t testing.TB, cfg couplet.Config) couplet.Engine { ... },
//			Networks: []string{"tcp4", "tcp6", "unix"},
//		})
//	}
//
// The cases are written once and never name an engine. They stand in tables,
// one file per group, and keep the numbers of the list they come from: groups A
// to H number their cases 1 to 86, group I adds what only Couplet has from 101
// on, and the adversaries are called rows. With two constructors (Server and
// Client) the same cases run with two engines against each other. [Model] runs
// random scripts against a plain model of two byte streams.
//
// Each case has its own engines and its own deadline: an engine that hangs
// fails the case with a dump of all goroutines and the recorded callbacks, and
// the suite goes on. After each case the engines are shut down and descriptors,
// goroutines and anonymous mappings must be as they were before.
//
// # Caveats
//
//   - The cases run one after another and must not run beside other tests of
//     the same process: the leak check would count those.
//   - Where a case shows that something does not happen, it gives the loop a
//     short while to do it; everything else waits for events.
package enginetest

import (
	"fmt"
	"strings"
)

// dropped are the numbers of the list that have no case: they are about
// things which Couplet does not have.
var dropped = []struct {
	ids string
	why string
}{
	{"43", "a producer that is registered delays Close: Couplet has no registered producers"},
	{"58", "a pull producer is resumed once per drained buffer: there are no pull producers"},
	{"59", "a second producer is refused: there is no registration to refuse"},
	{"60", "a lost connection stops its producer: ConnectionLost is that call"},
	{"61", "to unregister after the end does not arm writing: there is nothing to unregister"},
	{"79", "start-up hooks run in order: an engine runs from the moment it was made"},
	{"81, in part", "shutdown hooks run before, during, after: there are none; that Stop returns first is kept"},
	{"85", "a removed descriptor gets no callbacks: users register no descriptors"},
}

func droppedTable() string {
	var b strings.Builder
	b.WriteString("cases of the list that fall away:\n")
	for _, d := range dropped {
		fmt.Fprintf(&b, "  %-12s %s\n", d.ids, d.why)
	}
	return b.String()
}
