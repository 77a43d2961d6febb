package bench

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what a workload does.
type Kind string

// The kinds of workload.
const (
	// Echo sends messages and waits for each to come back: Depth of them are in
	// flight on every connection. A message is the unit.
	Echo Kind = "echo"
	// Pipelined is Echo with a Depth of 16 where none is given.
	Pipelined Kind = "pipelined"
	// Stream sends Total bytes, spread over the connections, as fast as they
	// take them. A MiB is the unit.
	Stream Kind = "stream"
	// Poems sends Size bytes to each connection every Delay; latency is how late
	// each of these chunks is against its own schedule. A chunk is the unit.
	Poems Kind = "slow-poems"
	// Churn connects, has one message echoed, closes, and begins again, on
	// Connections at a time. A connection is the unit.
	Churn Kind = "churn"
	// Broadcast sends each message that comes in to every connection. A message
	// that was received is the unit.
	Broadcast Kind = "broadcast"
	// Mixed is Echo with small, middling and large messages side by side: of
	// twenty messages in a row one has 64 KiB, five have 4 KiB, and the others Size
	// bytes. Each connection begins elsewhere in that row. So a server that has the
	// large wait serves no more of the small, and all have the same to do.
	Mixed Kind = "mixed"
	// Idle has every connection echo one message and then do nothing. It gives
	// BytesPerConn and no times.
	Idle Kind = "idle"
	// Custom is what a Spec says. A message, a request with its answer, is the
	// unit; it counts when the last byte of the answer is there, from the time at
	// which the request was to be sent: where that waits for a new connection, the
	// wait is part of it.
	Custom Kind = "custom"
)

// Kinds are all kinds of workload that their name is enough for: all but Custom.
var Kinds = []Kind{Echo, Pipelined, Stream, Poems, Churn, Broadcast, Mixed, Idle}

// A Workload is one shape of load.
type Workload struct {
	// Kind says what is done.
	Kind Kind `json:"kind"`
	// Connections is how many connections there are (64 by default).
	Connections int `json:"connections"`
	// Size is the bytes of a message or chunk (64 by default; 10 for Poems).
	Size int `json:"size"`
	// Depth is how many messages are in flight on each connection of an Echo, a Mixed
	// or a Custom (1 by default).
	Depth int `json:"depth,omitempty"`
	// Delay is the time between two chunks of Poems (100 ms by default).
	Delay time.Duration `json:"delay_ns,omitempty"`
	// Rate is the messages per second of all connections of an Echo, a Mixed or a
	// Custom together, sent by the clock whether answers come or not: an open loop, in which
	// latency counts from the time at which a message was to be sent. Zero is a
	// closed loop.
	Rate float64 `json:"rate,omitempty"`
	// Surge, where it is not 0, is a Rate that is too much: after the time that is
	// measured the clock sends at Surge for as long again, then at Rate, and the
	// sample tells how long latency took to come back (Recovery).
	Surge float64 `json:"surge,omitempty"`
	// Share is what part of a knee Rate is, where it was chosen so (Result.Knee).
	Share float64 `json:"share_of_knee,omitempty"`
	// Total is the bytes of a Stream to all readers together (1 GiB by default).
	Total int64 `json:"total,omitempty"`
	// Spec is what a Custom does, and nil for every other Kind.
	Spec *Spec `json:"spec,omitempty"`
	// Seed is what the draws of a Custom begin with: equal seeds give each
	// connection the same sequences. A Plan sets it, from its own and the round.
	Seed uint64 `json:"-"`
}

// WithDefaults returns w with its zero fields filled in, or an error that says
// what cannot be right.
func (w Workload) WithDefaults() (Workload, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&w.Connections, 64)
	switch w.Kind {
	case Pipelined:
		w.Kind = Echo
		def(&w.Depth, 16)
	case Stream:
		if w.Total == 0 {
			w.Total = 1 << 30
		}
	case Poems:
		def(&w.Size, 10)
		if w.Delay == 0 {
			w.Delay = 100 * time.Millisecond
		}
	case Echo, Churn, Broadcast, Mixed, Idle, Custom:
	default:
		return w, fmt.Errorf("there is no workload %q; there are %v", w.Kind, Kinds)
	}
	if w.Kind == Custom {
		if err := w.checkCustom(); err != nil {
			return w, err
		}
	} else {
		def(&w.Size, 64)
	}
	def(&w.Depth, 1)
	switch {
	case w.Connections < 1 || w.Connections > 500_000:
		return w, fmt.Errorf("connections is %d; it must be from 1 to 500000", w.Connections)
	case w.Kind != Custom && (w.Size < 1 || w.Size > 1<<24):
		return w, fmt.Errorf("size is %d; it must be from 1 to 16 MiB", w.Size)
	case w.Kind == Poems && w.Size > patternPeriod:
		return w, fmt.Errorf("size is %d; a chunk of a poem has at most %d bytes", w.Size, patternPeriod)
	case w.Depth < 1 || w.Depth > 1<<16:
		return w, fmt.Errorf("depth is %d; it must be from 1 to 65536", w.Depth)
	case w.Delay < 0, w.Total < 0, w.Rate < 0, w.Surge < 0:
		return w, fmt.Errorf("delay, total, rate and surge must not be negative")
	case w.Surge > 0 && w.Rate == 0:
		return w, fmt.Errorf("a surge is for an open loop; want a rate to come back to")
	case w.Depth > 1 && !w.echoes():
		return w, fmt.Errorf("depth is for echo, pipelined, mixed and files; %s has no more than one message in flight on a connection", w.Kind)
	case w.Rate > 0 && !w.echoes():
		return w, fmt.Errorf("rate is for echo, mixed and files; %s has a pace of its own", w.Kind)
	}
	return w, nil
}

// echoes reports whether messages are sent and come back, over and over.
func (w Workload) echoes() bool { return w.Kind == Echo || w.Kind == Mixed || w.Kind == Custom }

// checkCustom is nil if the parts of a Custom go together.
func (w Workload) checkCustom() error {
	switch {
	case w.Spec == nil:
		return errors.New("custom is what a workload file is called inside; name the file")
	case w.Size != 0:
		return errors.New("a size does not go with a workload file, where request and response say it")
	case w.Rate > 0 && !w.Spec.Think.IsZero():
		return errors.New("a rate sends by the clock, so there is no think time beside it; use one of them")
	case w.Rate > 0 && w.Depth > 1:
		return errors.New("a rate sends by the clock, so there is no depth beside it; use one of them")
	}
	return w.Spec.check()
}

// row is how many messages of different sizes there are before they repeat.
func (w Workload) row() int {
	if w.Kind == Mixed {
		return 20
	}
	return 1
}

// periods are where the messages of a row end, for connections that begin with its first,
// its second and so on.
func (w Workload) periods() [][]int64 {
	all := make([][]int64, w.row())
	for first := range all {
		end := int64(0)
		for i := range all {
			end += w.size((first + i) % len(all))
			all[first] = append(all[first], end)
		}
	}
	return all
}

// size is the bytes of message i of a row.
func (w Workload) size(i int) int64 {
	switch {
	case w.Kind != Mixed:
		return int64(w.Size)
	case i%20 == 0:
		return 64 << 10
	case i%4 == 1:
		return 4 << 10
	}
	return int64(w.Size)
}

// Unit is what one unit of the workload is called.
func (w Workload) Unit() string {
	switch w.Kind {
	case Stream:
		return "MiB"
	case Poems:
		return "chunk"
	case Churn:
		return "connection"
	}
	return "message"
}

// String names the shape, for tables: equal workloads have equal names.
func (w Workload) String() string {
	switch w.Kind {
	case Echo:
		if w.Rate > 0 {
			return fmt.Sprintf("%s at %s", w.shape(), w.pace())
		}
		return fmt.Sprintf("echo %d x %s, depth %d", w.Connections, bytesText(int64(w.Size)), w.Depth)
	case Mixed:
		at := fmt.Sprintf("depth %d", w.Depth)
		if w.Rate > 0 {
			at = w.pace()
		}
		return fmt.Sprintf("mixed %d x %s to 64 KiB, %s", w.Connections, bytesText(int64(w.Size)), at)
	case Stream:
		return fmt.Sprintf("stream %s to %d", bytesText(w.Total), w.Connections)
	case Poems:
		return fmt.Sprintf("poems %d x %s per %v", w.Connections, bytesText(int64(w.Size)), w.Delay)
	case Custom:
		return w.specText()
	}
	return w.shape()
}

// pace is the rate of an open loop, for tables.
func (w Workload) pace() string {
	if w.Surge > 0 {
		return fmt.Sprintf("%.0f/s, surge %.0f/s", w.Rate, w.Surge)
	}
	if w.Share > 0 {
		return fmt.Sprintf("%.0f/s, %.0f %% of the knee", w.Rate, 100*w.Share)
	}
	return fmt.Sprintf("%.0f/s", w.Rate)
}

// shape names what an open loop has whatever its rate is.
func (w Workload) shape() string {
	if w.Kind == Custom {
		w.Rate = 0
		return w.String()
	}
	return fmt.Sprintf("%s %d x %s", w.Kind, w.Connections, bytesText(int64(w.Size)))
}

func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// Table is the shapes that the project's targets are about.
func Table() []Workload {
	var table []Workload
	for _, s := range [][3]int{
		{1, 64, 1}, {64, 64, 1}, {1000, 64, 1}, {8000, 64, 1}, {64, 64, 16}, {1000, 64, 16},
		{64, 4 << 10, 1}, {64, 4 << 10, 16}, {64, 64 << 10, 1},
	} {
		table = append(table, Workload{Kind: Echo, Connections: s[0], Size: s[1], Depth: s[2]})
	}
	return append(table,
		Workload{Kind: Poems, Connections: 10_000, Size: 10, Delay: 100 * time.Millisecond},
		Workload{Kind: Idle, Connections: 8000, Size: 64},
		Workload{Kind: Stream, Connections: 1},
		Workload{Kind: Stream, Connections: 64},
		Workload{Kind: Broadcast, Connections: 5000},
		Workload{Kind: Churn, Connections: 64},
	)
}
