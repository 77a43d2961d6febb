//go:build linux

package loop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/sock"
)

// listening is one order of events on a listener that takes two connections at
// most, and what must be true after each of them.
type listening struct {
	b      *bench
	ln     *Listener
	broken string

	armed, stopping bool // what the driver was told
	taken           []int
	made            []*Conn // open connections
	closed, stopped bool
}

func (o *listening) fail(format string, args ...any) {
	if o.broken == "" {
		o.broken = fmt.Sprintf(format, args...)
	}
}

func (o *listening) called(call string) {
	switch call {
	case "listen":
		if o.armed {
			o.fail("Listen while armed")
		}
		o.armed = true
	case "stop accept":
		if !o.armed || o.stopping {
			o.fail("StopAccept while not armed, or again")
		}
		o.stopping = true
	}
}

// accept reports what an accept has brought: a descriptor, or an error, which
// disarms.
func (o *listening) accept(errno syscall.Errno) {
	fd := -1
	if errno == 0 {
		fd = o.b.fd()
		o.taken = append(o.taken, fd)
	} else {
		o.armed = false
	}
	o.b.loop.Accepted(o.ln, fd, errno)
}

func (o *listening) acceptStopped() {
	o.armed, o.stopping = false, false
	o.b.loop.AcceptStopped(o.ln)
}

// leave ends one connection.
func (o *listening) leave() {
	c := o.made[0]
	c.Abort()
	o.b.loop.Closed(c)
}

var listenEvents = []struct {
	name string
	can  func(o *listening) bool
	do   func(o *listening)
}{
	{"accept", func(o *listening) bool { return o.armed }, func(o *listening) { o.accept(0) }},
	{"aborted", func(o *listening) bool { return o.armed && !o.stopping }, func(o *listening) { o.accept(syscall.ECONNABORTED) }},
	{"exhausted", func(o *listening) bool { return o.armed && !o.stopping }, func(o *listening) { o.accept(syscall.EMFILE) }},
	{"broken", func(o *listening) bool { return o.armed && !o.stopping }, func(o *listening) { o.accept(syscall.EBADF) }},
	// The error was on its way when StopAccept came, whose AcceptStopped is due all the same.
	{"broken meanwhile", func(o *listening) bool { return o.stopping }, func(o *listening) { o.b.loop.Accepted(o.ln, -1, syscall.ENOSPC) }},
	{"stopped", func(o *listening) bool { return o.stopping }, (*listening).acceptStopped},
	{"leave", func(o *listening) bool { return len(o.made) > 0 }, (*listening).leave},
	{"time", func(o *listening) bool { return o.b.loop.timers.Len() > 0 }, nil},
	{"turn", func(o *listening) bool { return true }, nil},
	{"close", func(o *listening) bool { return !o.closed }, func(o *listening) { o.closed = true; o.ln.listener.Close() }},
	{"stop", func(o *listening) bool { return !o.stopped }, func(o *listening) { o.stopped = true; o.b.engine.Stop() }},
}

type roomer struct {
	notes
	o *listening
}

func (r *roomer) ConnectionMade(t couplet.Transport) { r.o.made = append(r.o.made, t.(*Conn)) }

func (r *roomer) ConnectionLost(t couplet.Transport, _ error) {
	r.o.made = slices.DeleteFunc(r.o.made, func(c *Conn) bool { return c == t })
}

const room = 2

func listenOrder(t *testing.T, names []int) (next []int, o *listening) {
	o = &listening{b: newBench(t, couplet.Config{})}
	o.b.onCall = o.called
	o.ln = o.b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &roomer{o: o} }), couplet.MaxConns(room))
	can := func() {
		next = nil
		for i, e := range listenEvents {
			if e.can(o) {
				next = append(next, i)
			}
		}
	}
	can()
	for at := 0; at < len(names); {
		if o.b.loop.Ended() {
			return nil, o
		}
		lapse := false
		o.b.turn(func() { // all up to the next turn or lapse of time is in one Wait
			for at < len(names) {
				e := listenEvents[names[at]]
				at++
				if e.do == nil {
					lapse = e.name == "time"
					return
				}
				e.do(o)
				can()
			}
		})
		if o.ln.fd >= 0 && o.b.loop.Posted() == 0 {
			o.check()
		}
		if when, ok := o.b.loop.timers.Next(); ok && lapse {
			o.b.now = max(o.b.now, when)
		}
		if at == len(names) && listenEvents[names[at-1]].do == nil {
			can()
		}
	}
	return next, o
}

// check is for the end of a turn.
func (o *listening) check() {
	ln := o.ln
	switch {
	case len(o.made) > room:
		o.fail("%d connections, %d are allowed", len(o.made), room)
	case ln.armed != o.armed || ln.stopping != o.stopping:
		o.fail("the loop and the driver do not agree about what is armed")
	case ln.armed && !ln.stopping && len(o.made) == room:
		o.fail("it accepts where there is no place")
	case ln.closing && !ln.armed:
		o.fail("closing, disarmed, and still open")
	case !ln.closing && !ln.armed && !ln.starving:
		o.fail("disarmed for ever")
	case !ln.closing && ln.starving && o.b.loop.timers.Len() == 0 && len(o.made) < room:
		o.fail("it waits, there is a place, and nothing wakes it")
	case !ln.closing && len(ln.parked) > 0 && !ln.starving:
		o.fail("somebody was parked and is forgotten")
	}
}

// finish ends the listener and its connections.
func (o *listening) finish() {
	o.ln.listener.Close()
	for i := 0; o.ln.fd >= 0 || len(o.made) > 0; i++ {
		if i > 20 {
			o.fail("it does not end")
			return
		}
		o.b.turn(func() {
			if o.stopping {
				o.acceptStopped()
			}
			for len(o.made) > 0 {
				o.leave()
			}
		})
	}
	select {
	case <-o.ln.listener.Closed():
	default:
		o.fail("Closed is not closed")
	}
	if o.ln.starving || o.b.loop.starving.Load() != 0 || o.b.engine.starving.Load() != 0 || o.ln.listener.open.Load() != 0 {
		o.fail("the counts are not zero at the end")
	}
	for _, fd := range o.b.released {
		o.taken = slices.DeleteFunc(o.taken, func(f int) bool { return f == fd })
	}
	seen := make(map[int]bool)
	for _, fd := range o.b.released {
		if seen[fd] {
			o.fail("descriptor %d was closed twice", fd)
		}
		seen[fd] = true
	}
}

// TestEveryOrderOfAccepts tries every order of what can happen to a listener.
func TestEveryOrderOfAccepts(t *testing.T) {
	depth := *orderDepth + 1
	if *orderDepth == 0 {
		depth = 5
		if checked || testing.Short() {
			depth = 4
		}
	}
	count := 0
	var try func(prefix []int, depth int)
	try = func(prefix []int, depth int) {
		next, o := listenOrder(t, prefix)
		count++
		made := o.b.loop.count.Accepted
		o.finish()
		if o.broken == "" && len(o.taken) != int(o.b.loop.count.Accepted) {
			o.fail("%d descriptors were given to connections, and %d connections were made, %d at the end",
				len(o.taken), made, o.b.loop.count.Accepted)
		}
		if o.broken != "" {
			var names []string
			for _, i := range prefix {
				names = append(names, listenEvents[i].name)
			}
			t.Fatalf("%s: %s", strings.Join(names, ", "), o.broken)
		}
		if depth == 0 {
			return
		}
		for _, i := range next {
			try(append(slices.Clone(prefix), i), depth-1)
		}
	}
	try(nil, depth)
	t.Logf("%d orders", count)
}

// TestAcceptBacksOff goes from 5 ms to a second while there are no descriptors,
// and begins anew once there were some.
func TestAcceptBacksOff(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 5} {
		if want == 5 {
			b.turn(func() { b.loop.Accepted(ln, b.fd(), 0) })
		}
		b.turn(func() { b.loop.Accepted(ln, -1, syscall.EMFILE) })
		b.calls = nil
		b.now += want*time.Millisecond - 1
		b.turn()
		if b.called("listen") {
			t.Fatalf("it tries again before %d ms", want)
		}
		b.now++
		b.turn()
		b.want("listen")
	}
}

// A listener was told to stop accepting, and there is a place again before the driver
// has let go of it: it goes on when the driver has.
func TestAPlaceBeforeAcceptStopped(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var made []couplet.Transport
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		return &notes{made: func(t couplet.Transport) { made = append(made, t) }}
	}), couplet.MaxConns(1))
	b.want("listen")
	for range 2 {
		b.turn(func() { b.loop.Accepted(ln, b.fd(), 0) })
	}
	b.want("stop accept")
	for i := range 2 {
		c := made[i].(*Conn)
		c.Abort()
		b.turn(b.closed(c))
		b.turn()
	}
	if len(made) != 2 || b.called("listen") {
		t.Fatalf("%d connections, of 2; calls of the driver %q", len(made), b.calls)
	}
	b.turn(func() { b.loop.AcceptStopped(ln) })
	b.want("listen")
}

// Connections that were gone before they could be accepted cost no time, unless
// there is no end of them.
func TestIgnoredAcceptsGoOnAtOnce(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	b.want("listen")
	for range 2 { // what is accepted between them begins the count anew
		for range sock.MaxIgnored - 1 {
			b.turn(func() { b.loop.Accepted(ln, -1, syscall.ECONNABORTED) })
			b.want("listen")
			if b.loop.Timers() != 0 || ln.starving {
				t.Fatal("it waits")
			}
		}
		b.turn(func() { b.loop.Accepted(ln, b.fd(), 0) })
	}
	for range sock.MaxIgnored {
		b.turn(func() { b.loop.Accepted(ln, -1, syscall.ECONNABORTED) })
	}
	b.calls = slices.DeleteFunc(b.calls, func(call string) bool { return call != "listen" })
	if len(b.calls) != sock.MaxIgnored-1 || b.loop.Timers() != 1 {
		t.Errorf("after %d failures it was armed %d times, and %d timers are", sock.MaxIgnored, len(b.calls), b.loop.Timers())
	}
	if n := b.loop.count.AcceptIgnored; n != 3*sock.MaxIgnored-2 {
		t.Errorf("%d counted", n)
	}
}

// A File that cannot be made hands nothing over: the path is the listener's still.
func TestAFileThatCannotBeMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	b := newBench(t, couplet.Config{})
	b.lastFD = 1 << 28 // none that is open
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	ln.listener.path = sock.OwnUnixPath(socket.Addr())
	if f, err := ln.listener.File(); err == nil {
		f.Close()
		t.Fatal("there is a file of a descriptor that is not open")
	}
	ln.listener.Close()
	b.turn()
	b.turn(func() { b.loop.AcceptStopped(ln) })
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is there after the listener's end: %v", err)
	}
}
