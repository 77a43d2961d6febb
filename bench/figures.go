package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Figures are what one measurement gave.
type Figures struct {
	// Units is how many messages, chunks, MiB or connections there were, and
	// Wall the time they took.
	Units float64
	Wall  time.Duration
	// Bytes is what the requests and answers of a Custom came to.
	Bytes int64
	// Latency is in nanoseconds: per message, or a chunk's lateness.
	Latency *hdrhistogram.Histogram
	// GeneratorBusy is the share of the time in which the generator had something
	// to do. It never sleeps, so its CPU time says nothing.
	GeneratorBusy float64
	// Others is the share of one CPU that everything else on the server's machine
	// used, or that other machines of its host took from it, and GeneratorOthers
	// that of the generator's where that is another.
	Others, GeneratorOthers float64
	// Before and After are the server's reports at both ends. Where it was measured in
	// slices, All is the units between these, of which Units are a part, and CPU what the server
	// used for that part.
	Before, After Report
	All           float64
	CPU           time.Duration
	// Unsent is how many messages the clock of an open loop would have sent, and
	// the generator did not, because too many were in flight. They have no latency.
	Unsent int64
	// Recovery is what came after the steady part of a workload with a Surge, or
	// nil.
	Recovery *Recovery
	// Errors counts what went wrong, by kind. It should be empty.
	Errors map[string]int64
}

// ClientBound reports whether the generator was the limit: throughput then says
// nothing of the server.
func (f Figures) ClientBound() bool { return f.GeneratorBusy > 0.8 }

// Disturbed reports whether others took more than 15 % of a CPU. Some
// percent are there on a quiet machine too: kernel threads, and the rounding of
// /proc/stat.
func (f Figures) Disturbed() bool { return max(f.Others, f.GeneratorOthers) > disturbed }

const disturbed = 0.15
