package enginetest

import (
	"fmt"
	"net"
	"strings"
	"sync"

	"couplet"
)

// A conn is a Protocol that records every callback, checks their order, and
// passes them to the hooks that are set. The hooks run on the loop; they must
// not wait and must not call Env.Fatalf.
//
// Checked without a case asking: ConnectionMade comes first and once,
// ConnectionLost last and once with a reason, nothing overlaps on a loop or is
// called from inside a call, the Transport and the Loop stay the same, data is
// never empty and never follows ReadClosed, ReadClosed and WriteClosed come at
// most once, WritePaused and WriteResumed in strict turn.
type conn struct {
	e    *Env
	name string

	onBuild                   func(remote net.Addr)
	onMade                    func(t couplet.Transport)
	onData                    func(t couplet.Transport, p []byte)
	onLost                    func(t couplet.Transport, reason error)
	onReadClosed              func(t couplet.Transport)
	onWriteClosed             func(t couplet.Transport)
	onWritePaused             func(t couplet.Transport)
	onWriteResumed            func(t couplet.Transport)
	onDraining                func(t couplet.Transport)
	onBuffer                  func(t couplet.Transport, b *couplet.Buffer)
	half, flow, drain, buffer bool // implement the optional callbacks, hook or not

	// stream says that the bytes received are the pattern's: they are checked
	// and counted instead of kept.
	stream bool

	// t and loop are set by ConnectionMade. t may be used on the loop only.
	t    couplet.Transport
	loop couplet.Loop

	mu       sync.Mutex
	changed  chan struct{} // closed when something is recorded
	events   []string      // the first maxEvents
	counts   map[string]int
	builds   int
	mades    int
	losts    int
	reason   error
	received int64
	got      []byte
	paused   bool
	rClosed  bool
	wClosed  bool
	inside   bool     // a callback
	begun    bool     // ConnectionMade has returned
	ended    bool     // ConnectionLost has returned
	remote   net.Addr // as Build got it
	local    net.Addr // as the Transport said
	peerAddr net.Addr
}

// conn makes a recording protocol.
func (e *Env) conn(name string) *conn {
	c := &conn{e: e, name: name, changed: make(chan struct{}), counts: make(map[string]int)}
	e.mu.Lock()
	e.conns = append(e.conns, c)
	e.mu.Unlock()
	return c
}

// conns makes n of them.
func (e *Env) connsOf(n int, name string, set func(i int, c *conn)) []*conn {
	cs := make([]*conn, n)
	for i := range cs {
		cs[i] = e.conn(fmt.Sprintf("%s %d", name, i))
		if set != nil {
			set(i, cs[i])
		}
	}
	return cs
}

// echo answers everything with itself.
func echo(t couplet.Transport, p []byte) { t.Write(p) }

// build is a Factory's Build for this one connection.
func (c *conn) build(remote net.Addr) couplet.Protocol {
	c.note("build")
	c.mu.Lock()
	c.builds++
	c.remote = remote
	if c.builds > 1 {
		c.e.Errorf("%s: Build was called again", c.name)
	}
	c.mu.Unlock()
	if c.onBuild != nil {
		c.onBuild(remote)
	}
	return c.protocol()
}

// protocol is c with the optional callbacks that it has hooks for.
func (c *conn) protocol() couplet.Protocol {
	half := c.half || c.onReadClosed != nil || c.onWriteClosed != nil
	flow := c.flow || c.onWritePaused != nil || c.onWriteResumed != nil
	drain := c.drain || c.onDraining != nil
	buffer := c.buffer || c.onBuffer != nil
	switch [4]bool{half, flow, drain, buffer} {
	case [4]bool{}:
		return plain{c}
	case [4]bool{true}:
		return struct {
			plain
			halfAware
		}{plain{c}, halfAware{c}}
	case [4]bool{false, true}:
		return struct {
			plain
			flowAware
		}{plain{c}, flowAware{c}}
	case [4]bool{true, true}:
		return struct {
			plain
			halfAware
			flowAware
		}{plain{c}, halfAware{c}, flowAware{c}}
	case [4]bool{false, false, true}:
		return struct {
			plain
			drainAware
		}{plain{c}, drainAware{c}}
	case [4]bool{false, false, false, true}:
		return struct {
			plain
			bufferAware
		}{plain{c}, bufferAware{c}}
	}
	panic("enginetest: no protocol has these optional callbacks; add it to conn.protocol")
}

// maxEvents is how many events of a connection are kept in order.
const maxEvents = 256

// record notes an event, unless it is empty, and wakes who waits for it. It
// holds c.mu for f.
func (c *conn) record(event string, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if event != "" {
		if len(c.events) < maxEvents {
			c.events = append(c.events, event)
		}
		first, _, _ := strings.Cut(event, " ")
		c.counts[first]++
	}
	if f != nil {
		f()
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// note records an event of the case itself.
func (c *conn) note(event string) { c.record(event, nil) }

// callback runs one callback: it checks what holds for all of them, records it
// and calls the hook. The event is recorded before the hook runs.
func (c *conn) callback(t couplet.Transport, event string, record, hook func()) {
	loop := t.Loop()
	c.e.guarded(loop, c.name+": "+event, func() {
		c.record(event, func() {
			if c.inside {
				c.e.Errorf("%s: %s inside another callback of the connection:\n%s", c.name, event, allStacks())
			}
			c.inside = true
			switch {
			case event == "made":
				c.t, c.loop = t, loop
			case c.mades == 0:
				c.e.Errorf("%s: %s before ConnectionMade", c.name, event)
			case c.t != t:
				c.e.Errorf("%s: %s with another Transport than ConnectionMade", c.name, event)
			case c.loop != loop:
				c.e.Errorf("%s: %s on another Loop than ConnectionMade", c.name, event)
			}
			if c.losts > 0 {
				c.e.Errorf("%s: %s after ConnectionLost", c.name, event)
			}
			if record != nil {
				record()
			}
		})
		defer c.record("", func() {
			c.inside = false
			c.begun = c.begun || event == "made"
			c.ended = c.ended || c.losts > 0
		})
		if hook != nil {
			hook()
		}
	})
}

// do runs f on the connection's loop with its Transport and waits for it. The
// connection may be lost by then.
func (c *conn) do(f func(t couplet.Transport)) {
	c.e.on(c.loop, func() { f(c.t) })
}

// plain are the callbacks that every Protocol has.
type plain struct{ c *conn }

func (p plain) ConnectionMade(t couplet.Transport) {
	c := p.c
	c.callback(t, "made", func() {
		c.mades++
		if c.mades > 1 {
			c.e.Errorf("%s: ConnectionMade again", c.name)
		}
		c.local, c.peerAddr = t.LocalAddr(), t.RemoteAddr()
	}, func() {
		if c.onMade != nil {
			c.onMade(t)
		}
	})
}

func (p plain) DataReceived(t couplet.Transport, data []byte) {
	c := p.c
	c.dataReceived(t, data, func() {
		if c.onData != nil {
			c.onData(t, data)
		}
	})
}

func (c *conn) dataReceived(t couplet.Transport, data []byte, hook func()) {
	c.callback(t, fmt.Sprintf("data %d", len(data)), func() {
		if len(data) == 0 {
			c.e.Errorf("%s: data is empty", c.name)
		}
		if c.rClosed {
			c.e.Errorf("%s: data after ReadClosed", c.name)
		}
		if !c.stream {
			c.got = append(c.got, data...)
		} else if bad := checkPattern(c.received, data); bad >= 0 {
			c.e.Errorf("%s: byte %d received is wrong", c.name, c.received+int64(bad))
		}
		c.received += int64(len(data))
	}, hook)
}

func (p plain) ConnectionLost(t couplet.Transport, reason error) {
	c := p.c
	c.callback(t, fmt.Sprintf("lost (%v)", reason), func() {
		c.losts++
		c.reason = reason
		if reason == nil {
			c.e.Errorf("%s: ConnectionLost without a reason", c.name)
		}
	}, func() {
		if c.onLost != nil {
			c.onLost(t, reason)
		}
	})
}

// halfAware are the callbacks about half-closes.
type halfAware struct{ c *conn }

func (h halfAware) ReadClosed(t couplet.Transport) {
	c := h.c
	c.callback(t, "readClosed", func() {
		if c.rClosed {
			c.e.Errorf("%s: ReadClosed again", c.name)
		}
		c.rClosed = true
	}, func() {
		if c.onReadClosed != nil {
			c.onReadClosed(t)
		}
	})
}

func (h halfAware) WriteClosed(t couplet.Transport) {
	c := h.c
	c.callback(t, "writeClosed", func() {
		if c.wClosed {
			c.e.Errorf("%s: WriteClosed again", c.name)
		}
		c.wClosed = true
	}, func() {
		if c.onWriteClosed != nil {
			c.onWriteClosed(t)
		}
	})
}

// flowAware are the callbacks about backpressure.
type flowAware struct{ c *conn }

func (f flowAware) WritePaused(t couplet.Transport) { f.c.turnFlow(t, "writePaused", true) }

func (f flowAware) WriteResumed(t couplet.Transport) { f.c.turnFlow(t, "writeResumed", false) }

func (c *conn) turnFlow(t couplet.Transport, event string, paused bool) {
	c.callback(t, event, func() {
		if c.paused == paused {
			c.e.Errorf("%s: %s out of turn", c.name, event)
		}
		c.paused = paused
	}, func() {
		hook := c.onWriteResumed
		if paused {
			hook = c.onWritePaused
		}
		if hook != nil {
			hook(t)
		}
	})
}

// drainAware is the callback about the engine's end.
type drainAware struct{ c *conn }

func (d drainAware) Draining(t couplet.Transport) {
	c := d.c
	c.callback(t, "draining", nil, func() {
		if c.onDraining != nil {
			c.onDraining(t)
		}
	})
}

// bufferAware takes received bytes as Buffers.
type bufferAware struct{ c *conn }

func (b bufferAware) BufferReceived(t couplet.Transport, buf *couplet.Buffer) {
	c := b.c
	c.dataReceived(t, buf.Bytes(), func() {
		if c.onBuffer != nil {
			c.onBuffer(t, buf)
		}
	})
}

// wait waits until cond, which is called with c.mu held, is true.
func (c *conn) wait(what string, cond func() bool) {
	for {
		c.mu.Lock()
		ok, changed := cond(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-c.e.ctx.Done():
			c.e.Fatalf("%s: not in time: %s; it saw: %s", c.name, what, c.history())
		}
	}
}

// waitMade waits until ConnectionMade has returned.
func (c *conn) waitMade() { c.wait("ConnectionMade", func() bool { return c.begun }) }

// waitLost waits until ConnectionLost has returned, and gives its reason.
func (c *conn) waitLost() error {
	c.wait("ConnectionLost", func() bool { return c.ended })
	return c.reason
}

// lostWith waits for ConnectionLost with a reason of one of the classes.
func (c *conn) lostWith(classes ...string) {
	c.e.wantReason(c.name, c.waitLost(), classes...)
}

// waitBytes waits until n bytes have been received in all.
func (c *conn) waitBytes(n int64) {
	c.wait(fmt.Sprintf("%d bytes", n), func() bool { return c.received >= n })
}

// waitFor waits until the event has been recorded n times.
func (c *conn) waitFor(event string, n int) {
	c.wait(event, func() bool { return c.counts[event] >= n })
}

// count is how often an event was recorded: its first word tells.
func (c *conn) count(event string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[event]
}

// order is the first words of all events, runs of the same one as one.
func (c *conn) order() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, ev := range c.events {
		first, _, _ := strings.Cut(ev, " ")
		if len(out) == 0 || out[len(out)-1] != first {
			out = append(out, first)
		}
	}
	return strings.Join(out, " ")
}

// total is the number of bytes received.
func (c *conn) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received
}

// text is what was received.
func (c *conn) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.got)
}

// wantText fails the case unless want was received.
func (c *conn) wantText(want string) {
	if got := c.text(); got != want {
		c.e.Errorf("%s: received %q, not %q", c.name, shorten(got), shorten(want))
	}
}

func shorten(s string) string {
	if len(s) > 100 {
		return fmt.Sprintf("%s... (%d bytes)", s[:100], len(s))
	}
	return s
}

// wantOrder fails the case unless the events came in this order.
func (c *conn) wantOrder(want string) {
	if got := c.order(); got != want {
		c.e.Errorf("%s: the callbacks were %q, not %q", c.name, got, want)
	}
}

// history is every event.
func (c *conn) history() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	more := ""
	if len(events) > 60 {
		more = fmt.Sprintf(" ... (%d events)", len(events))
		events = events[:60]
	}
	return fmt.Sprintf("%s%s; %d bytes received", strings.Join(events, ", "), more, c.received)
}

// checkOver checks, after the engine's end, that what began has ended.
func (c *conn) checkOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mades != c.losts {
		c.e.Errorf("%s: %d times made, %d times lost, after the engine's end", c.name, c.mades, c.losts)
	}
}
