package poetry

import (
	"fmt"
	"math"
	"time"
)

// A Pace says how fast a [Server] recites: NumBytes bytes, then Delay, and so
// on, with a Delay after the last bytes too.
type Pace struct {
	// NumBytes are sent at a time. They are bytes, not characters.
	NumBytes int
	// Delay follows each send. Zero: the whole poem at once.
	Delay time.Duration
}

// AllAtOnce is the pace of a fast server.
var AllAtOnce = Pace{}

// Sends is the number of sends that n bytes take.
func (p Pace) Sends(n int) int {
	if p.Delay <= 0 {
		return min(n, 1)
	}
	sends := n / p.NumBytes
	if n%p.NumBytes > 0 {
		sends++
	}
	return sends
}

// Duration is how long n bytes take from the first send to the end of the poem:
// ceil(n/NumBytes) delays, or the longest duration where they are longer.
func (p Pace) Duration(n int) time.Duration {
	sends := time.Duration(p.Sends(n))
	if sends > 0 && p.Delay > math.MaxInt64/sends {
		return math.MaxInt64
	}
	return sends * p.Delay
}

// check says what is wrong with p.
func (p Pace) check() error {
	switch {
	case p.Delay < 0:
		return fmt.Errorf("poetry: Pace.Delay is %v; it must not be negative", p.Delay)
	case p.Delay > 0 && p.NumBytes < 1:
		return fmt.Errorf("poetry: Pace.NumBytes is %d; it must be at least 1", p.NumBytes)
	}
	return nil
}
