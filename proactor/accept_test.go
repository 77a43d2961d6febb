//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"math"
	"testing"

	"couplet/internal/testpeer"
)

// A listener's id is new each time that it is armed, and with a limit that is with each
// connection: after 2^32 of them it was another listener's, which served nobody from then on, or
// had its connections served by the wrong one.
func TestAListenersIDWasGivenTwice(t *testing.T) {
	e, d := driven(t, 0)
	testpeer.Three(t, e, func() { d.nextID = math.MaxUint32 })
}
