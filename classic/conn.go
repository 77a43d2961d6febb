package classic

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
	"couplet/internal/timers"
)

// state is how far a connection's life has come; it only grows.
type state int

const (
	fresh   state = iota // Build was not called yet
	open                 // callbacks flow
	closing              // no more data: flush, then FIN, then linger
	dying                // its goroutines are to end
	lost                 // the descriptor is closed
)

// conn is one connection, and the Transport of its protocol. All of it is
// guarded by its loop's mutex, except nc, whose system calls are made outside
// it, and what is atomic.
type conn struct {
	e     *engine
	l     *loop
	nc    net.Conn
	o     *couplet.Options
	f     couplet.Factory
	id    uint64
	birth birth

	state   state
	made    bool // ConnectionMade was called
	reason  error
	reset   bool // close by a reset
	counted bool // open when the engine was stopped
	cut     bool // aborted by Shutdown
	refs    int  // goroutines
	context any

	proto       couplet.Protocol // nil once lost, or where Build refused
	receiver    couplet.BufferReceiver
	readClosed  couplet.ReadClosedHandler
	writeClosed couplet.WriteClosedHandler
	flow        couplet.WriteFlow
	draining    couplet.DrainHandler

	// Reading.
	reader  sync.Cond // the reading goroutine waits for paused to end, or for the end
	paused  bool
	peerFIN bool
	came    atomic.Bool // what was read waits for its turn

	// Writing.
	writer      sync.Cond // the writing goroutine waits for work
	queue       queue
	owned       int          // of the bytes queued
	queued      atomic.Int64 // bytes queued, for Handles ...
	posted      atomic.Int64 // ... and on their way from them
	low, high   int
	writePaused bool
	blocked     bool // the kernel takes no more for now
	writing     bool // the writing goroutine was started
	handed      bool // and has something to do
	halfClosed  bool // CloseWrite was called
	sentFIN     bool
	sendErr     error // the first
	dirty       bool  // in the loop's list

	// Time, on the loop's clock.
	timers   *timer
	active   time.Duration // bytes moved
	progress time.Duration // bytes left, or the flush began
	taken    uint64        // by the peer, at the last look
	linger   time.Duration // until when to wait after our FIN
	pause    time.Duration // between two looks for the acknowledgement
	idle     timers.Timer
	closer   timers.Timer
}

// birth is where a connection comes from: an accept or a dial.
type birth interface {
	// late is why the connection must not come to life, if so. It is called on the
	// loop, right before Build.
	late(nc net.Conn) error
	// born counts a connection that comes to life. It is called between the two.
	born()
	// died is called instead of Build, on the loop, with what late said or
	// with why the connection was ended before its first turn.
	died(err error)
	// over is called when the connection is closed.
	over()
}

// defaultHigh is the high watermark at first.
const defaultHigh = 64 << 10

// drainPatience bounds the wait for what the peer had sent before a send
// failed. A socket whose connection is gone answers at once.
const drainPatience = time.Second

// start makes a connection on l and gives it its first turn, so that
// connections are built in the order they came. The engine's begin was called
// for it, and enter by this goroutine.
func (e *engine) start(l *loop, nc net.Conn, o *couplet.Options, factory couplet.Factory, b birth) {
	c := &conn{e: e, l: l, nc: nc, o: o, f: factory, birth: b, refs: 1, high: defaultHigh}
	c.reader.L, c.writer.L = &l.mu, &l.mu
	l.load.Add(1)
	l.postMu.Lock()
	l.nextID++
	c.id = l.nextID
	l.conns[c.id] = c
	l.postMu.Unlock()
	var f flusher
	alive := false
	defer func() {
		if !alive {
			c.finish(&f)
		}
	}()
	if alive = c.begin(&f); alive {
		e.running.Go(c.read)
		f.run()
	}
}

// begin is the connection's first turn: Build and ConnectionMade. It
// reports whether the connection lives.
func (c *conn) begin(f *flusher) bool {
	l := c.l
	l.enter()
	defer l.leave(f)
	err := c.birth.late(c.nc)
	if c.state != fresh { // the engine was cut or failed
		err = c.reason
	}
	if err != nil {
		c.end(err, true)
		c.birth.died(err)
		return false
	}
	c.birth.born()
	var p couplet.Protocol
	factory := c.f
	c.f = nil // who dials may have it for this one alone
	l.call(nil, "Build", func() { p = factory.Build(c.nc.RemoteAddr()) })
	c.active = l.now.Sub(l.epoch)
	c.state = open
	if p == nil {
		c.e.count.refused.Add(1)
		c.close(net.ErrClosed)
		return true
	}
	c.proto = p
	c.receiver, _ = p.(couplet.BufferReceiver)
	c.readClosed, _ = p.(couplet.ReadClosedHandler)
	c.writeClosed, _ = p.(couplet.WriteClosedHandler)
	c.flow, _ = p.(couplet.WriteFlow)
	c.draining, _ = p.(couplet.DrainHandler)
	c.made = true
	c.e.count.open.Add(1)
	if d := c.o.IdleTimeout; d > 0 {
		c.idle.F = c.checkIdle
		l.schedule(&c.idle, timers.Deadline(c.active, d))
	}
	l.call(c, "ConnectionMade", func() { p.ConnectionMade(c) })
	return c.state < dying
}

// close begins a clean end, with reason unless something better turns up.
func (c *conn) close(reason error) {
	if c.state != open {
		return
	}
	c.state, c.reason = closing, reason
	c.dropTimers()
	c.l.timers.Remove(&c.idle)
	if c.sendErr != nil {
		c.end(c.sendErr, false)
		return
	}
	c.progress = c.l.since()
	c.closer.F = c.checkClose
	if c.sentFIN {
		c.lingerOn()
	} else {
		if !c.queue.empty() {
			c.taken = taken(c.nc)
		}
		c.l.schedule(&c.closer, timers.Deadline(c.progress, c.o.FlushTimeout))
	}
	c.reader.Signal() // reads on and discards
	c.touch()
}

// lingerOn waits, after our FIN, for the peer to have everything.
func (c *conn) lingerOn() {
	if c.peerFIN {
		c.end(c.reason, false)
		return
	}
	now := c.l.since()
	c.linger = timers.Deadline(now, c.o.LingerTimeout)
	c.pause = time.Millisecond / 4
	c.l.schedule(&c.closer, min(now+c.pause, c.linger))
}

// checkClose is the timer of a closing connection.
func (c *conn) checkClose() {
	now := c.l.since()
	switch {
	case !c.sentFIN:
		c.lookForProgress(now)
		if due := timers.Deadline(c.progress, c.o.FlushTimeout); due > now {
			c.l.schedule(&c.closer, min(due, now+max(c.o.FlushTimeout/4, time.Millisecond)))
		} else {
			c.end(&couplet.TimeoutError{Op: "flush"}, true)
		}
	case acknowledged(c.nc):
		c.end(c.reason, false)
	case now >= c.linger:
		c.end(&couplet.TimeoutError{Op: "linger"}, false)
	default:
		c.pause = min(2*c.pause, 50*time.Millisecond)
		c.l.schedule(&c.closer, min(now+c.pause, c.linger))
	}
}

// checkIdle is the timer of a connection with an IdleTimeout. It is armed once
// for each timeout, not for each byte.
func (c *conn) checkIdle() {
	now := c.l.since()
	if !c.queue.empty() {
		c.lookForProgress(now)
	}
	due := timers.Deadline(c.active, c.o.IdleTimeout)
	if due > now || c.dirty { // what this turn wrote is not sent yet: look again in the next
		c.l.schedule(&c.idle, max(due, now))
		return
	}
	if !c.paused && !c.peerFIN && (c.came.Load() || arrived(c.nc)) {
		c.l.schedule(&c.idle, now+max(c.o.IdleTimeout/4, time.Millisecond)) // the protocol will be told
		return
	}
	c.end(&couplet.TimeoutError{Op: "idle"}, true)
}

// lookForProgress takes note where the peer has taken data, though not so much yet
// that the kernel wants more.
func (c *conn) lookForProgress(now time.Duration) {
	if n := taken(c.nc); n != c.taken {
		c.taken, c.progress, c.active = n, now, now
	}
}

// end makes the connection's goroutines end; the last of them closes the
// descriptor and calls ConnectionLost, in a turn of its own.
func (c *conn) end(reason error, reset bool) {
	if c.state >= dying {
		return
	}
	c.state, c.reason, c.reset = dying, reason, reset
	c.dropTimers()
	c.l.timers.Remove(&c.idle)
	c.l.timers.Remove(&c.closer)
	c.nc.SetDeadline(past)
	c.reader.Signal()
	c.writer.Signal()
}

// panicked ends the connection because a callback of it panicked. That is its
// reason even after an Abort in the same callback.
func (c *conn) panicked(err *couplet.PanicError) {
	if c.state == dying {
		c.reason, c.reset = err, true
	}
	c.end(err, true)
}

// finish is the end of one of the connection's goroutines.
func (c *conn) finish(f *flusher) {
	if c.e.crashing.Load() {
		return
	}
	c.l.mu.Lock()
	if c.state < dying { // by runtime.Goexit in a callback: all are lost, before one is told
		c.l.loseAll(c.e.Err())
	}
	c.refs--
	last, reset := c.refs == 0, c.reset
	c.l.mu.Unlock()
	if last {
		c.bury(f, reset)
	}
	f.run()
}

// bury closes the descriptor and tells the protocol.
func (c *conn) bury(f *flusher, reset bool) {
	if t, ok := c.nc.(*net.TCPConn); ok && reset {
		t.SetLinger(0)
	}
	c.nc.Close()
	defer c.e.end()
	defer c.e.gone()
	defer c.birth.over()
	c.l.enter()
	defer c.l.leave(f)
	c.l.postMu.Lock()
	delete(c.l.conns, c.id)
	c.l.postMu.Unlock()
	c.l.load.Add(-1)
	c.state = lost
	for _, b := range c.queue.release() {
		c.l.call(nil, "onRelease", b.Release)
	}
	p := c.proto
	c.proto, c.receiver, c.readClosed, c.writeClosed, c.flow, c.draining = nil, nil, nil, nil, nil, nil
	c.f, c.birth = nil, nil
	if c.made {
		c.e.count.open.Add(-1)
		if c.counted {
			c.e.report(c.cut)
		}
		c.l.call(nil, "ConnectionLost", func() { p.ConnectionLost(c, c.reason) })
	}
}

// opError is an error of the socket as package net would report it.
func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: networkOf(c.nc.LocalAddr()), Source: c.nc.LocalAddr(), Addr: c.nc.RemoteAddr(), Err: err}
}
