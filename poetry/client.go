package poetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"couplet"
)

// DefaultMaxBytes bounds a poem where FetchOptions do not: 64 MiB.
const DefaultMaxBytes = 64 << 20

// ErrTooLong is the error of a poem that exceeds FetchOptions.MaxBytes.
var ErrTooLong = errors.New("the poem is longer than allowed")

// FetchOptions say how poems are fetched. The hooks are called on the loop, one
// at a time, so they need no locks and must not block.
type FetchOptions struct {
	// Timeout bounds each fetch, from its start to its last byte (zero: none;
	// connecting has couplet's ConnectTimeout in any case).
	Timeout time.Duration
	// MaxBytes bounds each poem (zero: DefaultMaxBytes).
	MaxBytes int
	// Record keeps the arrivals in the Report, so that interleaving can be
	// seen.
	Record bool
	// OnStart is called when the fetch of a task begins.
	OnStart func(task int, addr Addr)
	// OnData is called at each arrival.
	OnData func(a Arrival)
	// OnDone is called when a task has ended.
	OnDone func(r Result)
	// Dial are options for the connections.
	Dial []couplet.Option
}

// An Arrival is one delivery of bytes of a poem.
type Arrival struct {
	// Task is the poem's number, from 1, in the order of the addresses.
	Task int
	// Addr is where it comes from.
	Addr Addr
	// Bytes came now, Total so far.
	Bytes, Total int
	// At is the time since the first fetch began.
	At time.Duration
}

// A Result is the end of one fetch.
type Result struct {
	// Task is the poem's number, from 1, in the order of the addresses.
	Task int
	// Addr is where it came from.
	Addr Addr
	// Poem is what arrived; it is the whole poem if and only if Err is nil.
	Poem []byte
	// Err says why the poem is not whole. It is a *CutError if the connection
	// was made, else the error of the dial.
	Err error
	// Elapsed is how long this fetch took.
	Elapsed time.Duration
}

// A CutError says that a connection ended before the poem did.
type CutError struct {
	// Got is the number of bytes that had arrived.
	Got int
	// Err is the reason: the reason of ConnectionLost, or what cancelled the
	// fetch, or ErrTooLong.
	Err error
}

// Error tells the number of bytes and the reason.
func (e *CutError) Error() string {
	return fmt.Sprintf("cut short after %d bytes: %v", e.Got, e.Err)
}

// Unwrap gives the reason.
func (e *CutError) Unwrap() error { return e.Err }

// A Report is the outcome of FetchAll or FetchEach.
type Report struct {
	// Results are in the order of the addresses, one for each.
	Results []Result
	// Arrivals are in the order in which they came, if FetchOptions.Record.
	Arrivals []Arrival
	// Elapsed is the time from the first start to the last end.
	Elapsed time.Duration
}

// Got is the number of poems that arrived whole.
func (r Report) Got() int {
	n := 0
	for _, p := range r.Results {
		if p.Err == nil {
			n++
		}
	}
	return n
}

// Bytes is the number of bytes that arrived.
func (r Report) Bytes() int {
	n := 0
	for _, p := range r.Results {
		n += len(p.Poem)
	}
	return n
}

// timeoutError says that FetchOptions.Timeout ran out.
type timeoutError struct{ limit time.Duration }

func (e timeoutError) Error() string        { return fmt.Sprintf("no whole poem within %v", e.limit) }
func (e timeoutError) Timeout() bool        { return true }
func (e timeoutError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// A fetch is one poem on its way: the Factory of its dial, and the Protocol of
// its connection. Everything happens on its loop.
type fetch struct {
	group   *group
	task    int
	addr    Addr
	began   time.Time
	abandon context.CancelCauseFunc // ends the dial
	timer   couplet.Timer
	t       couplet.Transport // nil until connected
	poem    []byte
	cause   error // why we ended it ourselves
	ended   bool
}

var (
	_ couplet.Factory              = (*fetch)(nil)
	_ couplet.Protocol             = (*fetch)(nil)
	_ couplet.ConnectFailedHandler = (*fetch)(nil)
)

// start dials. It is called on the loop.
func (f *fetch) start() {
	g := f.group
	f.began = g.loop.Now()
	ctx, abandon := context.WithCancelCause(context.Background())
	f.abandon = abandon
	f.announce()
	if d := g.options.Timeout; d > 0 {
		f.timer = g.loop.AfterFunc(d, func() { f.cancel(timeoutError{d}) })
	}
	opts := append(slices.Clone(g.options.Dial), couplet.OnLoop(g.loop)) // whatever they say
	if err := g.engine.Dial(ctx, f.addr.Network, f.addr.Address, f, opts...); err != nil {
		f.end(err)
	}
}

// errHook is why a fetch ends whose OnStart did not return.
var errHook = errors.New("poetry: OnStart panicked; the engine's log has more")

// announce calls OnStart, and ends the fetch if that panics.
func (f *fetch) announce() {
	if f.group.options.OnStart == nil {
		return
	}
	returned := false
	defer func() {
		if !returned {
			f.end(errHook)
		}
	}()
	f.group.options.OnStart(f.task, f.addr)
	returned = true
}

// cancel ends the fetch; the dial's or the connection's end reports it.
func (f *fetch) cancel(cause error) {
	if f.cause != nil {
		return
	}
	f.cause = cause
	if f.t != nil {
		f.t.Abort()
		return
	}
	f.abandon(cause)
}

// Build makes the fetch the Protocol of its connection.
func (f *fetch) Build(net.Addr) couplet.Protocol { return f }

// ConnectFailed ends a fetch that had no connection.
func (f *fetch) ConnectFailed(_ string, err error) {
	if f.cause != nil {
		err = f.cause
	}
	f.end(err)
}

// ConnectionMade has nothing to say: a poem comes unasked.
func (f *fetch) ConnectionMade(t couplet.Transport) {
	f.t = t
	if f.cause != nil {
		t.Abort()
	}
}

// DataReceived adds bytes to the poem.
func (f *fetch) DataReceived(t couplet.Transport, data []byte) {
	g := f.group
	if len(f.poem)+len(data) > g.options.MaxBytes {
		f.cancel(ErrTooLong)
		return
	}
	f.poem = append(f.poem, data...)
	if !g.options.Record && g.options.OnData == nil {
		return
	}
	a := Arrival{f.task, f.addr, len(data), len(f.poem), g.loop.Now().Sub(g.began)}
	if g.options.Record {
		g.arrivals = append(g.arrivals, a)
	}
	if g.options.OnData != nil {
		g.options.OnData(a)
	}
}

// ConnectionLost ends the fetch. Only the server's FIN, io.EOF, means that the
// poem is whole.
func (f *fetch) ConnectionLost(_ couplet.Transport, reason error) {
	switch {
	case f.cause != nil:
		f.end(&CutError{len(f.poem), f.cause})
	case reason == io.EOF:
		f.end(nil)
	default:
		f.end(&CutError{len(f.poem), reason})
	}
}

// end tells the group.
func (f *fetch) end(err error) {
	if f.timer != nil {
		f.timer.Stop()
	}
	f.abandon(nil)
	g := f.group
	g.ended(f, Result{f.task, f.addr, f.poem, err, g.loop.Now().Sub(f.began)})
}
