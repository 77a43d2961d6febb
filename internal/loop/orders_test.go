//go:build linux

package loop

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/timers"
)

var orderDepth = flag.Int("orders.depth", 0, "how many events an order has (default 3, 2 with -short or -race)")

// An order is one sequence of what a driver may report and a protocol may call
// on one connection, event by event. Every legal one up to some length is
// tried, and after each event the rules of both seams are held against it.
type order struct {
	b      *bench
	c      *Conn
	half   bool
	broken string
	turned bool // a turn has ended since the last event

	// What the driver knows.
	wanted     bool // Receive was called
	late       int  // reports that a stopped receive may still make
	told       bool // ReceiveEnded was reported
	watching   bool // Watch was called, and not answered
	sending    int  // bytes of the send in flight
	fin        bool // CloseWrite was called, or the close brought it
	closing    bool // Close was called
	how        string
	sendFailed bool // a send was told an error
	heard      bool // somebody has taken the error of the socket

	// What the peer has done.
	peerFin, peerReset bool

	// What the protocol has seen and done.
	made, lost            int
	rclosed, wclosed      bool
	paused, wpaused       bool
	closed, aborted, shut bool
	panicked, bomb        bool
	stopped               bool
	resumedClosed         bool // Close came after ReadClosed
	taken, sent           int
	given, got            int // bytes reported, bytes delivered
	reason                error
	inside                bool
}

func (o *order) fail(format string, args ...any) {
	if o.broken == "" {
		o.broken = fmt.Sprintf(format, args...)
	}
}

// called is the driver's side.
func (o *order) called(call string) {
	what, arg, _ := strings.Cut(call, " ")
	switch {
	case what == "listen" || call == "stop accept" || what == "shutdown":
		return
	case o.closing:
		o.fail("%s after Close", call)
	case what == "receive":
		if o.wanted || o.told {
			o.fail("Receive again, or after the end")
		}
		o.wanted, o.late = true, 0
	case call == "stop receive":
		if !o.wanted {
			o.fail("StopReceive without Receive")
		}
		o.wanted, o.late = false, 1
	case what == "send":
		if o.sending > 0 || o.fin || o.sendFailed {
			o.fail("Send with one in flight, or after the FIN or an error")
		}
		fmt.Sscan(arg, &o.sending)
		if o.sending == 0 {
			o.fail("Send of nothing")
		}
	case what == "watch":
		if !o.told || o.watching {
			o.fail("Watch again, or before the end")
		}
		o.watching = true
	case call == "close write":
		if o.sending > 0 || o.c.head != nil || o.fin {
			o.fail("CloseWrite with something queued or in flight, or again")
		}
		o.fin = true
	case what == "close":
		o.closing, o.how = true, arg
		if arg == "graceful" && o.told && o.sending == 0 && o.c.head == nil {
			o.fin = true // a plain close brings it, and with the end received there is nothing to wait for
		}
	}
}

// The protocol.

func (o *order) enter(what string) {
	switch {
	case o.inside:
		o.fail("%s inside another callback", what)
	case o.lost > 0:
		o.fail("%s after lost", what)
	case o.made == 0 && what != "made":
		o.fail("%s before made", what)
	case (o.closed || o.aborted || o.panicked) && what != "lost":
		o.fail("%s after Close, Abort or a panic", what)
	}
}

// explode panics in a callback if that was asked for.
func (o *order) explode() {
	if o.bomb {
		o.bomb = false
		o.panicked = true
		panic("bomb")
	}
}

func (o *order) ConnectionMade(t couplet.Transport) {
	o.enter("made")
	o.made++
	t.SetWatermarks(0, orderHigh)
}

// orderHigh is the high watermark of the connections here.
const orderHigh = 10

func (o *order) DataReceived(_ couplet.Transport, p []byte) {
	o.enter("data")
	if o.paused || o.rclosed {
		o.fail("data while paused or after ReadClosed")
	}
	for _, x := range p {
		if int(x) != o.got%251 {
			o.fail("byte %d received is %d", o.got, x)
		}
		o.got++
	}
	o.explode()
}

func (o *order) ConnectionLost(_ couplet.Transport, reason error) {
	o.enter("lost")
	o.lost++
	o.reason = reason
}

func (o *order) WritePaused(couplet.Transport) {
	o.enter("writePaused")
	if o.wpaused || o.c.queued <= int(o.c.high) {
		o.fail("WritePaused out of turn")
	}
	o.wpaused = true
}

func (o *order) WriteResumed(couplet.Transport) {
	o.enter("writeResumed")
	if !o.wpaused || o.c.queued > int(o.c.low) {
		o.fail("WriteResumed out of turn")
	}
	o.wpaused = false
	o.explode()
}

func (o *order) WriteClosed(couplet.Transport) {
	o.enter("writeClosed")
	if o.wclosed || !o.shut || o.sent != o.taken {
		o.fail("WriteClosed out of place")
	}
	o.wclosed = true
}

type orderHalf struct{ *order }

func (o orderHalf) ReadClosed(couplet.Transport) {
	o.enter("readClosed")
	if o.rclosed || o.paused || !o.peerFin || o.got != o.given {
		o.fail("ReadClosed out of place: %d of %d bytes were delivered", o.got, o.given)
	}
	o.rclosed = true
}

// An event is one letter of an order: it is possible or it is not.
type event struct {
	name string
	can  func(o *order) bool
	do   func(o *order)
}

func (o *order) receiving() bool { return !o.closing && !o.told && (o.wanted || o.late > 0) }

func (o *order) end(errno syscall.Errno) {
	o.wanted, o.late, o.told = false, 0, true
	o.b.torn = o.peerReset
	o.b.loop.ReceiveEnded(o.c, errno)
}

func (o *order) sentNow(n int, errno syscall.Errno) {
	o.sending = 0
	o.sent += n
	o.sendFailed = errno == syscall.ECONNRESET || errno == syscall.EPIPE
	o.b.loop.Sent(o.c, n, errno)
}

// alive reports whether the model says that the connection can be written to.
func (o *order) alive() bool {
	return o.lost == 0 && !o.closed && !o.aborted && !o.panicked && !o.shut
}

var events = []event{
	{"turn", func(o *order) bool { return !o.turned }, nil},
	{"data", func(o *order) bool { return o.receiving() && !o.peerFin && !(o.peerReset && o.heard) },
		func(o *order) {
			if !o.wanted {
				o.late--
			}
			p := fakeLent{byte(o.given % 251), byte((o.given + 1) % 251)}
			o.given += 2
			o.b.loop.Received(o.c, p, p)
		}},
	{"fin", func(o *order) bool { return o.receiving() && !o.peerReset },
		func(o *order) { o.peerFin = true; o.end(0) }},
	{"reset", func(o *order) bool { return o.receiving() && !o.heard && !o.peerFin },
		func(o *order) { o.peerReset, o.heard = true, true; o.end(syscall.ECONNRESET) }},
	{"broken", func(o *order) bool { return o.watching && !o.closing && !o.heard },
		func(o *order) {
			o.watching, o.peerReset, o.heard = false, true, true
			o.b.loop.ReceiveEnded(o.c, syscall.EPIPE)
		}},
	{"false end", func(o *order) bool { return o.receiving() && o.heard },
		func(o *order) { o.end(0) }},
	{"sent", func(o *order) bool { return o.sending > 0 && !o.closing && !o.peerReset },
		func(o *order) { o.sentNow(o.sending, 0) }},
	{"sent short", func(o *order) bool { return o.sending > 1 && !o.closing && !o.peerReset },
		func(o *order) { o.sentNow(1, 0) }},
	{"sent short and reset", func(o *order) bool { return o.sending > 1 && !o.closing && !o.heard },
		func(o *order) { o.peerReset, o.heard = true, true; o.sentNow(1, 0) }},
	{"send reset", func(o *order) bool { return o.sending > 0 && !o.closing },
		func(o *order) {
			errno := syscall.ECONNRESET
			if o.heard {
				errno = syscall.EPIPE
			}
			o.peerReset, o.heard = true, true
			o.sentNow(0, errno)
		}},
	{"send again", func(o *order) bool { return o.sending > 0 && !o.closing },
		func(o *order) { o.sentNow(0, syscall.ENOBUFS) }},
	{"closed", func(o *order) bool { return o.closing && o.lost == 0 },
		func(o *order) { o.b.loop.Closed(o.c) }},
	{"time", func(o *order) bool { return o.b.loop.timers.Len() > 0 && o.lost == 0 }, nil},
	{"ack", func(o *order) bool { return o.b.unacked && o.lost == 0 }, func(o *order) { o.b.unacked = false }},
	{"write", func(o *order) bool { return true }, func(o *order) { o.write(3) }},
	{"write much", func(o *order) bool { return o.alive() }, func(o *order) { o.write(orderHigh + 1) }},
	{"pause", func(o *order) bool { return o.lost == 0 && !o.paused },
		func(o *order) {
			o.c.PauseReading()
			o.paused = true
		}},
	{"resume", func(o *order) bool { return o.lost == 0 && o.paused },
		func(o *order) {
			o.inside = true
			o.c.ResumeReading()
			o.inside, o.paused = false, false
		}},
	{"close write", func(o *order) bool { return !o.shut },
		func(o *order) {
			if o.alive() && o.c.state == open {
				o.shut = true
			}
			o.c.CloseWrite()
		}},
	{"close", func(o *order) bool { return true },
		func(o *order) {
			if o.alive() || o.shut && !o.closed {
				o.resumedClosed = o.rclosed
			}
			o.closed = true
			o.c.Close()
		}},
	{"abort", func(o *order) bool { return true },
		func(o *order) {
			o.aborted = o.aborted || !o.closing && o.lost == 0
			o.c.Abort()
		}},
	{"bomb", func(o *order) bool { return !o.bomb && o.alive() }, func(o *order) { o.bomb = true }},
	{"stop", func(o *order) bool { return !o.stopped }, func(o *order) { o.stopped = true; o.b.loop.stop() }},
}

func (o *order) write(n int) {
	got, err := o.c.Write(make([]byte, n))
	switch {
	case err == nil && (!o.alive() || got != n):
		o.fail("a write of %d gives %d", n, got)
	case err == nil:
		o.taken += n
	case !errors.Is(err, net.ErrClosed) || got != 0:
		o.fail("a write gives %d, %v", got, err)
	case o.alive() && !o.told && !o.heard && !o.closing && !o.stopped:
		o.fail("a write is refused for no reason")
	}
}

// orderBench is where orders are played, one after another: a new connection
// each, and a new loop after one that was stopped.
type orderBench struct {
	t     *testing.T
	b     *bench
	ln    *Listener
	o     *order
	proto couplet.Protocol
}

func (x *orderBench) open(half, unacked bool) *order {
	if x.b == nil {
		x.b = newBench(x.t, couplet.Config{})
		x.b.onCall = func(call string) {
			if x.o != nil {
				x.o.called(call)
			}
		}
		x.b.loop.Trace = func(e Event) { x.o.c = e.Conn }
		x.ln = x.b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return x.proto }),
			couplet.FlushTimeout(time.Second), couplet.LingerTimeout(time.Second))
	}
	b := x.b
	b.unacked, b.torn, b.calls = unacked, false, nil
	b.loop.timers = timers.Queue{} // tries of the order before
	x.o = &order{b: b, half: half}
	x.proto = x.o
	if half {
		x.proto = orderHalf{x.o}
	}
	b.turn(func() { b.loop.Accepted(x.ln, b.fd(), 0) })
	x.o.turned = true
	return x.o
}

// play plays one order: pick says what comes next, of what is possible, until
// it says no more. The events between two turns come in one Wait.
func (x *orderBench) play(half, unacked bool, pick func(o *order, can []int) (i int, ok bool)) *order {
	o := x.open(half, unacked)
	for more := true; more; {
		lapse := false
		o.b.turn(func() {
			for o.broken == "" {
				var i int
				if i, more = pick(o, o.next()); !more {
					return
				}
				if events[i].do == nil {
					lapse = events[i].name == "time"
					return
				}
				o.turned = false
				events[i].do(o)
			}
			more = false
		})
		o.turned = true
		o.afterTurn()
		if at, ok := o.b.loop.timers.Next(); ok && lapse {
			o.b.now = max(o.b.now, at)
		}
	}
	o.finish()
	o.verdict()
	if o.stopped || o.broken != "" {
		x.b = nil
	}
	return o
}

// afterTurn checks what a loop must have done by the end of a turn.
func (o *order) afterTurn() {
	c := o.c
	switch {
	case c.state == open && o.paused && o.wanted:
		o.fail("paused, and the driver receives")
	case c.state == open && !o.paused && !o.wanted && !o.told && c.inbound.len() == 0:
		o.fail("not paused, and the driver does not receive")
	case (c.state == flushing || c.state == lingering) && !o.wanted && !o.told:
		o.fail("closing, and nobody reads what the peer sends")
	case c.state < closing && c.head != nil && o.sending == 0 && o.b.loop.timers.Len() == 0:
		o.fail("%d bytes are queued and nothing sends them", c.queued)
	case (c.state == flushing || c.state == lingering) && o.b.loop.timers.Len() == 0:
		o.fail("closing, and no timer bounds it")
	case c.state == open && c.sendErr != nil && o.b.loop.timers.Len() == 0:
		o.fail("sending has failed, and no timer bounds the rest")
	case c.state == open && o.sendFailed && o.told && !o.paused && c.inbound.len() == 0:
		o.fail("both directions are over, and the connection is not")
	}
}

func (o *order) next() (next []int) {
	for i, e := range events {
		if e.can(o) {
			next = append(next, i)
		}
	}
	return next
}

// finish ends a connection as a good network and a good driver would.
func (o *order) finish() {
	o.b.unacked = false
	for i := 0; o.lost == 0; i++ {
		switch {
		case i > 60:
			o.fail("the connection does not end")
			return
		case o.closing:
			o.b.turn(func() { o.b.loop.Closed(o.c) })
		case o.sending > 0 && o.peerReset:
			o.b.turn(func() {
				errno := syscall.ECONNRESET
				if o.heard {
					errno = syscall.EPIPE
				}
				o.heard = true
				o.sentNow(0, errno)
			})
		case o.sending > 0:
			o.b.turn(func() { o.sentNow(o.sending, 0) })
		case o.wanted && o.peerReset:
			o.b.turn(func() {
				errno := syscall.ECONNRESET
				if o.heard {
					errno = 0
				}
				o.heard = true
				o.end(errno)
			})
		case o.paused:
			o.b.turn(func() { o.c.ResumeReading(); o.paused = false })
		case !o.closed && o.alive() && i > 10:
			o.b.turn(func() { events[eventNamed("close")].do(o) })
		case o.wanted && i > 20:
			o.b.turn(func() { o.peerFin = true; o.end(0) })
		default:
			if at, ok := o.b.loop.timers.Next(); ok && i > 30 {
				o.b.now = max(o.b.now, at)
			}
			o.b.turn()
		}
	}
}

func eventNamed(name string) int {
	return slices.IndexFunc(events, func(e event) bool { return e.name == name })
}

// verdict holds the outcome against the contract.
func (o *order) verdict() {
	if o.broken != "" {
		return
	}
	if o.made != 1 || o.lost != 1 {
		o.fail("made %d times, lost %d times", o.made, o.lost)
		return
	}
	var panicked *couplet.PanicError
	var op *net.OpError
	var got string
	switch {
	case errors.As(o.reason, &panicked):
		got = "panic"
	case o.reason == couplet.ErrAborted:
		got = "aborted"
	case o.reason == couplet.ErrShutdown:
		got = "shutdown"
	case errors.Is(o.reason, os.ErrDeadlineExceeded):
		got = "timeout"
	case errors.As(o.reason, &op):
		got = "reset"
	case o.reason == io.EOF:
		got = "eof"
	case o.reason == net.ErrClosed:
		got = "closed"
	}
	var want []string
	switch {
	case o.panicked:
		want = []string{"panic"}
	case o.aborted:
		want = []string{"aborted"}
	case o.heard:
		want = []string{"reset", "timeout"}
	case o.resumedClosed:
		want = []string{"eof", "timeout"}
	case o.closed && o.told:
		want = []string{"closed", "eof", "timeout"}
	case o.closed:
		want = []string{"closed", "timeout"}
	case o.told:
		want = []string{"eof", "timeout"}
	}
	if o.stopped && !o.aborted && !o.panicked {
		want = append(want, "shutdown", "timeout")
	}
	clean := got == "eof" || got == "closed" || got == "shutdown"
	switch {
	case !slices.Contains(want, got):
		o.fail("the reason is %v, not one of %v", o.reason, want)
	case clean && o.sent != o.taken:
		o.fail("the reason is %v, and %d of %d bytes were sent", o.reason, o.sent, o.taken)
	case clean && (!o.fin || o.how != "graceful"):
		o.fail("the reason is %v, and the close was a reset or came without a FIN", o.reason)
	case (got == "aborted" || got == "panic") && o.how != "reset" && !(got == "panic" && o.how == "graceful" && o.lost > 0 && o.fin):
		o.fail("the reason is %v, and the close was no reset", o.reason)
	case got == "eof" && !o.peerFin:
		o.fail("the reason is io.EOF, and there was no FIN")
	}
}

// prologues bring a connection to where orders begin.
var prologues = []string{
	"",
	"write,turn",
	"write much,turn,turn",
	"pause,data,turn",
	"close write,turn",
	"write,turn,close",
	"close,turn",
	"write,close write,turn,sent short,turn",
	"fin,turn",
}

func parseOrder(s string) (order []int) {
	for name := range strings.SplitSeq(s, ",") {
		if name != "" {
			order = append(order, eventNamed(name))
		}
	}
	return order
}

func orderString(order []int) string {
	var names []string
	for _, i := range order {
		names = append(names, events[i].name)
	}
	return strings.Join(names, ", ")
}

// TestEveryOrderOfEvents tries every order up to a length, from several
// beginnings.
func TestEveryOrderOfEvents(t *testing.T) {
	depth := *orderDepth
	if depth == 0 {
		depth = 3
		if checked || testing.Short() {
			depth = 2
		}
	}
	count := 0
	x := &orderBench{t: t}
	var try func(half, unacked bool, prefix []int, depth int)
	try = func(half, unacked bool, prefix []int, depth int) {
		var next []int
		at := 0
		o := x.play(half, unacked, func(o *order, can []int) (int, bool) {
			if at == len(prefix) {
				if o.lost == 0 {
					next = can
				}
				return 0, false
			}
			at++
			return prefix[at-1], true
		})
		count++
		if o.broken != "" {
			t.Fatalf("half %v, unacked %v: %s: %s", half, unacked, orderString(prefix), o.broken)
		}
		if depth == 0 {
			return
		}
		for _, i := range next {
			try(half, unacked, append(slices.Clone(prefix), i), depth-1)
		}
	}
	for _, p := range prologues {
		for _, half := range []bool{false, true} {
			for _, unacked := range []bool{false, true} {
				try(half, unacked, parseOrder(p), depth)
			}
		}
	}
	t.Logf("%d orders", count)
}

// TestLongOrdersOfEvents tries some long ones by chance.
func TestLongOrdersOfEvents(t *testing.T) {
	count := 10_000
	if checked || testing.Short() {
		count = 1000
	}
	x := &orderBench{t: t}
	rare := parseOrder("abort,stop,bomb,close,reset,send reset")
	for seed := range uint64(count) {
		r := rand.New(rand.NewPCG(seed, 7))
		half, unacked := r.IntN(2) == 0, r.IntN(2) == 0
		var names []int
		o := x.play(half, unacked, func(o *order, can []int) (int, bool) {
			// What ends things comes seldom, so that orders get long.
			can = slices.DeleteFunc(can, func(i int) bool { return slices.Contains(rare, i) && r.IntN(10) > 0 })
			if o.lost > 0 || len(names) == 30 || len(can) == 0 {
				return 0, false
			}
			names = append(names, can[r.IntN(len(can))])
			return names[len(names)-1], true
		})
		if o.broken != "" {
			t.Fatalf("half %v, unacked %v: %s: %s", half, unacked, orderString(names), o.broken)
		}
	}
}
