//go:build linux

package loop

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/sock"
	"couplet/internal/timers"
)

// state is where a connection is in its life. It only ever goes forward.
type state uint8

const (
	connecting state = iota // a dial under way; no protocol yet
	open                    // the protocol is being served
	flushing                // Close was called: what is queued goes out, then the FIN
	lingering               // the FIN is out: discard until the peer has everything
	closing                 // the driver was told to close
	lost                    // the descriptor is closed and the slot is free
)

// Conn is one connection: the state machine behind a couplet.Transport. All of
// it belongs to its loop. There may be very many that do nothing, so it is small,
// two cache lines: what few of them need, or none for long, is in rare.
type Conn struct {
	loop  *Loop
	proto couplet.Protocol
	*rare // to be read; set returns it to be written

	head, tail *Segment
	queued     int           // bytes in the queue
	owned      int           // of those, bytes of our own
	active     time.Duration // when something last moved, if it has a timer

	slot       uint32
	generation uint32
	turn       uint32 // in which delivered counts
	delivered  uint32

	fd   int32
	peer sock.Remote // remote is the address where this does not hold it

	state      state
	paused     bool // by the protocol
	receiving  bool // the driver was told to receive
	ended      bool // the driver reported the end of receiving ...
	peerClosed bool // ... and it was the peer's FIN, which the protocol was told
	halfClosed bool // CloseWrite was called
	finSent    bool
	sending    bool // a send is in flight
	dirty      bool // in loop.dirty
	ready      bool // in loop.ready
	over       bool // WritePaused was called last, not WriteResumed
	overQueued bool // in loop.over
	watched    bool // a Handle was made: keep handled.queued
	made       bool // ConnectionMade was called
	cut        bool // aborted by the deadline of Shutdown
	buffers    bool // proto is a BufferReceiver
}

// rare is the part of a Conn that is made when the first of it is set. Until then
// the connections of a listener share one, its usual.
type rare struct {
	origin  *origin
	dial    *dial // while connecting
	context any

	inbound   *inbound // received while paused or set back
	low, high uint32   // watermarks

	endErrno syscall.Errno // of the end of receiving
	sendErr  error         // of sending; then only reading goes on
	reason   error

	own      *timer        // the protocol's, armed by AfterFunc: a list
	timer    *timers.Timer // idle, flush or linger: one at a time
	progress uint64        // Sockets.Progress at the last look

	remote, local net.Addr
}

func newRare(o *origin) *rare { return &rare{origin: o, high: defaultHigh} }

// newConn is a connection of nothing but its descriptor.
func newConn(l *Loop, fd int, o *origin) *Conn {
	r := o.usual
	if r == nil {
		r = newRare(o)
	}
	return &Conn{loop: l, fd: int32(fd), rare: r}
}

// set is c's own rare, to be written.
func (c *Conn) set() *rare {
	if c.rare == c.origin.usual {
		r := *c.rare
		c.rare = &r
	}
	return c.rare
}

// setRemote keeps the peer's address.
func (c *Conn) setRemote(a net.Addr) {
	var ok bool
	if c.peer, ok = sock.RemoteOf(a); ok {
		a = nil
	}
	if a != c.remote {
		c.set().remote = a
	}
}

// What a driver may ask of a Conn.

// FD is the descriptor.
func (c *Conn) FD() int { return int(c.fd) }

// Slot is the index of c among its loop's connections, reused after Closed.
func (c *Conn) Slot() uint32 { return c.slot }

// Generation tells the users of one slot apart.
func (c *Conn) Generation() uint32 { return c.generation }

// Sockaddr is where a dialled connection goes.
func (c *Conn) Sockaddr() *sock.Sockaddr { return &c.dial.addrs[c.dial.next-1] }

// Unix reports whether c's socket is a unix socket.
func (c *Conn) Unix() bool { return c.origin.unix }

// Head is the first segment to send; a Send covers it and those behind it, up
// to MaxSend bytes and MaxGather segments.
func (c *Conn) Head() *Segment { return c.head }

// Budget is the bytes that c may deliver in one turn.
func (c *Conn) Budget() int { return c.loop.config.BytesPerTurn }

// setReceive brings the driver's receiving in line with what c wants: data for
// the protocol while open and not paused or behind, data to discard once it was
// closed.
func (c *Conn) setReceive() {
	var want bool
	switch c.state {
	case open:
		want = !c.paused && c.inbound.len() == 0
	case flushing, lingering:
		want = true
	}
	want = want && !c.ended
	switch {
	case want && !c.receiving:
		c.receiving = true
		c.trace(TraceReceive, 0, 0)
		c.loop.driver.Receive(c)
	case !want && c.receiving:
		c.receiving = false
		c.loop.driver.StopReceive(c)
	}
}

// start makes c, whose descriptor is connected, a connection of its protocol.
func (c *Conn) start() {
	l := c.loop
	c.state = open
	proto, ok := l.build(c)
	if !ok {
		l.count.Refused++
		c.close() // nobody asks for the reason
		return
	}
	c.proto = proto
	_, c.buffers = proto.(couplet.BufferReceiver)
	c.made = true
	if d := c.origin.opts.IdleTimeout; d > 0 {
		c.setTimer(d)
	}
	c.trace(TraceMade, 0, 0)
	c.callMade()
	c.setReceive()
}

const defaultHigh = 64 << 10

// moved takes note of when data came or went, for the timer that asks.
func (c *Conn) moved() {
	if c.timer != nil {
		c.active = c.loop.time()
	}
}

// received takes a chunk that the driver lends: to the protocol, or into the
// inbound list, or nowhere.
func (c *Conn) received(data []byte, lent Lent) {
	if c.state != open {
		return // discarded: the protocol has said its last word
	}
	c.moved()
	if c.paused || c.inbound.len() > 0 || c.spent(len(data)) {
		c.keep(data, lent)
		c.setReceive()
		if !c.paused {
			c.markReady()
		}
		return
	}
	if !c.buffers {
		c.callData(data)
		return
	}
	b := lent.Keep()
	c.callBuffer(b)
	b.Release()
}

// spent reports whether c has had its share of this turn and others wait.
func (c *Conn) spent(n int) bool {
	l := c.loop
	if turn := uint32(l.turn); c.turn != turn {
		c.turn, c.delivered = turn, 0
	}
	if int(c.delivered) > l.config.BytesPerTurn && l.open > 1 {
		return true
	}
	c.delivered += uint32(n)
	return false
}

// drain delivers what waits in the inbound list, a turn's share at most, and
// then what waits behind it.
func (c *Conn) drain() {
	for c.state == open && !c.paused && c.inbound.len() > 0 {
		b := c.inbound.buffers[0]
		if c.spent(b.Len()) {
			c.markReady()
			return
		}
		c.inbound.buffers[0] = nil
		c.inbound.buffers = c.inbound.buffers[1:]
		if c.buffers {
			c.callBuffer(b)
		} else {
			c.callData(b.Bytes())
		}
		b.Release()
	}
	if c.state != open || c.paused {
		return
	}
	if c.inbound != nil {
		c.set().inbound = nil
	}
	if c.ended {
		c.readEnded()
		return
	}
	c.setReceive()
}

// receiveEnded takes the driver's report that no more will come, or after the
// peer's FIN that the connection is broken.
func (c *Conn) receiveEnded(errno syscall.Errno) {
	c.receiving = false
	if errno == 0 && c.head != nil && c.loop.sockets.Torn(c.FD(), c.origin.unix) {
		errno = syscall.ECONNRESET
	}
	c.ended = true
	if errno != 0 {
		c.set().endErrno = errno
	}
	if c.state == open && (c.paused || c.inbound.len() > 0) {
		return // it waits behind the data
	}
	c.readEnded()
}

// readEnded acts on the end of receiving, once everything before it was
// delivered.
func (c *Conn) readEnded() {
	switch {
	case c.sendErr != nil:
		c.fail(c.sendErr)
	case c.endErrno != 0:
		c.fail(c.opError("read", c.endErrno))
	case c.state == lingering:
		c.finish()
	case c.state == open && !c.peerClosed:
		c.peerClosed = true
		h, ok := c.proto.(couplet.ReadClosedHandler)
		if !ok {
			c.set().reason = io.EOF
			c.close()
			return
		}
		c.callReadClosed(h)
		c.bothClosed()
		if c.state == open {
			c.loop.driver.Watch(c)
		}
	}
}

// bothClosed ends a connection whose halves are both closed.
func (c *Conn) bothClosed() {
	if c.state == open && c.peerClosed && c.finSent {
		c.set().reason = io.EOF
		c.finish()
	}
}

// markReady puts c on the list of those who are served in the next turn.
func (c *Conn) markReady() {
	if !c.ready {
		c.ready = true
		c.loop.ready = append(c.loop.ready, c)
	}
}

// markDirty puts c on the list of those who are flushed at the turn's end.
func (c *Conn) markDirty() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// written has what was queued be sent at the turn's end.
func (c *Conn) written() {
	c.publish()
	c.markDirty()
}

// writable is nil or the reason why nothing may be queued.
func (c *Conn) writable(n int) error {
	c.loop.check()
	if c.state != open || c.halfClosed || c.sendErr != nil {
		return net.ErrClosed
	}
	if c.owned+n > c.origin.opts.MaxOutbound {
		return couplet.ErrOutboundFull
	}
	return nil
}

// push appends a copy of p to the queue.
func (c *Conn) push(p []byte) {
	l := c.loop
	c.queued += len(p)
	c.owned += len(p)
	for len(p) > 0 {
		if c.tail == nil || len(c.tail.room()) == 0 {
			c.link(l.segments.owned(len(p), c.tail))
		}
		n := copy(c.tail.room(), p)
		c.tail.bytes = c.tail.bytes[:len(c.tail.bytes)+n]
		p = p[n:]
	}
}

func (c *Conn) link(s *Segment) {
	if c.tail == nil {
		c.head = s
	} else {
		c.tail.next = s
	}
	c.tail = s
}

// publish tells Handles how much is queued.
func (c *Conn) publish() {
	if c.watched {
		c.loop.slab.at(c.slot).handle().queued.Store(int64(c.queued))
	}
}

// flush is the turn's end for a connection that was written to, or whose
// closing may go on.
func (c *Conn) flush() {
	if c.state >= closing {
		return
	}
	switch {
	case c.sending:
	case c.head == nil:
		c.flushed()
		return
	default:
		c.sending = true
		c.trace(TraceSend, c.queued, 0)
		c.loop.driver.Send(c)
	}
	if !c.over && c.crossed() {
		c.markOver()
	}
}

// crossed reports whether c is beyond the watermark that it is to be told of next.
func (c *Conn) crossed() bool {
	if c.over {
		return c.queued <= int(c.low)
	}
	return c.queued > int(c.high)
}

// markOver has the loop look, after the next reports, whether c is still beyond
// its watermark.
func (c *Conn) markOver() {
	if !c.overQueued && c.state == open {
		c.overQueued = true
		c.loop.over = append(c.loop.over, c)
	}
}

// tellFlow tells c's protocol of the watermark that was crossed, if one was.
func (c *Conn) tellFlow() {
	if c.state != open || !c.crossed() {
		return
	}
	c.over = !c.over
	h, ok := c.proto.(couplet.WriteFlow)
	switch {
	case !ok:
	case c.over:
		c.callFlow(h.WritePaused, "WritePaused")
	default:
		c.callFlow(h.WriteResumed, "WriteResumed")
	}
}

// sent takes the driver's report of a send: the kernel took n bytes.
func (c *Conn) sent(n int, errno syscall.Errno) {
	l := c.loop
	c.sending = false
	if n > 0 {
		l.count.BytesSent += int64(n)
		c.moved()
		c.consume(n)
		c.publish()
	}
	switch errno {
	case 0:
	case syscall.EAGAIN, syscall.EINTR, syscall.ENOBUFS, syscall.ENOMEM:
		l.afterFunc(sendRetry, c.retrySend)
		return
	default:
		c.sendFailed(errno)
		return
	}
	if c.head != nil {
		c.flush()
	}
	if c.over {
		c.tellFlow()
	}
	if c.head == nil && (c.state == flushing || c.halfClosed) {
		c.markDirty()
	}
}

const sendRetry = 5 * time.Millisecond

func (c *Conn) retrySend() {
	if c.state < closing && c.head != nil {
		c.markDirty()
	}
}

// consume drops n sent bytes from the queue.
func (c *Conn) consume(n int) {
	c.queued -= n
	for n > 0 {
		s := c.head
		k := min(n, len(s.bytes))
		s.bytes = s.bytes[k:]
		n -= k
		if s.shared == nil {
			c.owned -= k
		}
		if len(s.bytes) > 0 {
			return
		}
		if c.head = s.next; c.head == nil {
			c.tail = nil
		}
		c.loop.Release(c.loop.segments.put(s))
	}
}

// dropQueue gives up what was not sent. The kernel must hold none of it.
func (c *Conn) dropQueue() {
	for s := c.head; s != nil; {
		next := s.next
		c.loop.Release(c.loop.segments.put(s))
		s = next
	}
	c.head, c.tail = nil, nil
	c.queued, c.owned = 0, 0
}

// sendFailed stops sending for good: nothing is queued or in flight any more, so no
// second error follows. What the peer sent before is still delivered; then the
// connection is lost with this one.
func (c *Conn) sendFailed(errno syscall.Errno) {
	c.set().sendErr = c.opError("write", errno)
	c.dropQueue()
	c.publish()
	if c.state != open || c.paused || c.ended && c.inbound.len() == 0 {
		c.fail(c.sendErr)
		return
	}
	c.setTimer(c.origin.opts.LingerTimeout)
}

// flushed goes on when nothing is queued or in flight any more.
func (c *Conn) flushed() {
	if c.state != flushing && !c.halfClosed || c.sendErr != nil {
		return
	}
	if c.endErrno != 0 { // the connection is broken: there is nobody to send a FIN to
		if c.state == open && !c.paused && c.inbound.len() > 0 {
			return // drain tells of it, behind the data
		}
		c.fail(c.opError("read", c.endErrno))
		return
	}
	first := !c.finSent
	c.finSent = true
	if first && (c.state == open || !c.ended) { // else the close, which follows at once, brings the FIN
		if errno := c.sendFIN(); errno != 0 {
			c.sendFailed(errno) // who is paused was not told of it; who is closing hears of it by receiving
			return
		}
	}
	if c.state == flushing {
		c.startLinger()
		return
	}
	if first {
		if h, ok := c.proto.(couplet.WriteClosedHandler); ok {
			c.callWriteClosed(h)
		}
		c.bothClosed()
	}
}

// sendFIN returns why it cannot: the error that ended the connection, which nobody may
// have asked for yet. Of one that is closing the error is left for the receive.
func (c *Conn) sendFIN() syscall.Errno {
	l := c.loop
	l.count.Crossings++
	err := l.sockets.ShutdownWrite(c.FD())
	l.Returned("shutdown", err)
	if err == nil || c.state != open {
		return 0
	}
	if errno := l.SocketError(c); errno != 0 {
		return errno
	}
	return syscall.ECONNRESET // and it was asked for
}

// close begins the orderly end; c.reason says why.
func (c *Conn) close() {
	c.state = flushing
	c.dropInbound()
	c.setReceive()
	c.active = c.loop.clock() // not the turn's time: a callback may have held it up
	c.markDirty()
	if c.head != nil {
		c.set().progress = c.loop.sockets.Progress(c.FD(), c.origin.unix)
		c.setTimer(c.origin.opts.FlushTimeout)
	}
}

// startLinger waits, after the FIN, until the peer's kernel has everything.
func (c *Conn) startLinger() {
	c.state = lingering
	if c.ended {
		c.readEnded()
		return
	}
	c.setReceive()
	c.active = c.loop.clock()
	c.setTimer(0)
}

// pollLinger looks whether the peer has everything, and waits for as long again
// as it has waited.
func (c *Conn) pollLinger() {
	waited, limit := c.loop.time()-c.active, c.origin.opts.LingerTimeout
	switch {
	case c.loop.sockets.Acknowledged(c.FD(), c.origin.unix):
		c.finish()
	case waited >= limit:
		c.set().reason = &couplet.TimeoutError{Op: "linger"}
		c.finish()
	default:
		c.setTimer(min(max(waited, time.Millisecond), 50*time.Millisecond, limit-waited))
	}
}

// finish closes c after an orderly end.
func (c *Conn) finish() { c.closeFD(Graceful) }

// fail resets c with reason.
func (c *Conn) fail(reason error) {
	if c.state < closing {
		c.set().reason = reason
		c.closeFD(Reset)
	}
}

// closeFD hands c to the driver for the last time.
func (c *Conn) closeFD(how CloseMode) {
	if c.state >= closing {
		return
	}
	c.state = closing
	c.receiving = false
	c.stopTimer()
	c.dropInbound()
	if c.made {
		c.LocalAddr() // while there is a descriptor to ask
	}
	c.trace(TraceClose, 0, 0)
	c.loop.driver.Close(c, how)
}

// inbound is what was received and cannot be delivered yet.
type inbound struct{ buffers []*couplet.Buffer }

func (i *inbound) len() int {
	if i == nil {
		return 0
	}
	return len(i.buffers)
}

// little is the size up to which bytes that have to wait are copied: it would be
// a pity to hold a driver's memory for them.
const little = 4 << 10

func (c *Conn) keep(data []byte, lent Lent) {
	var b *couplet.Buffer
	if len(data) <= little {
		b = couplet.NewBuffer(bytes.Clone(data), nil)
	} else {
		b = lent.Keep()
	}
	if c.inbound == nil {
		c.set().inbound = new(inbound)
	}
	c.inbound.buffers = append(c.inbound.buffers, b)
}

func (c *Conn) dropInbound() {
	if c.inbound != nil {
		for _, b := range c.inbound.buffers {
			b.Release()
		}
		c.set().inbound = nil
	}
}

// closed takes the driver's report that the kernel holds nothing of c.
func (c *Conn) closed() {
	l := c.loop
	c.state = lost
	c.fd = -1
	c.dropQueue()
	for c.own != nil {
		l.timers.Remove(&c.own.Timer)
		c.own.disown()
	}
	l.slab.remove(c)
	if d := c.dial; d != nil {
		c.set().dial = nil
		d.connClosed()
		return
	}
	l.forget(c)
	if c.made {
		c.trace(TraceLost, 0, 0)
		c.callLost()
	}
	c.proto = nil
}

// setTimer makes onTimer come after d, in place of what it was set to.
func (c *Conn) setTimer(d time.Duration) {
	if c.timer == nil {
		c.set().timer = &timers.Timer{F: c.onTimer}
	}
	c.loop.setTimer(c.timer, d)
}

func (c *Conn) stopTimer() {
	if c.timer != nil {
		c.loop.timers.Remove(c.timer)
	}
}

// onTimer is the one timer of a connection; what it means follows from where
// the connection is.
func (c *Conn) onTimer() {
	opts := c.origin.opts
	switch {
	case c.answered():
		c.setTimer(unheard)
	case c.state == connecting:
		c.connected(syscall.ETIMEDOUT)
	case c.state == lingering:
		c.pollLinger()
	case c.state == flushing:
		c.expire("flush", opts.FlushTimeout)
	case c.state == open && c.sendErr != nil && c.spoken():
		c.setTimer(unheard)
	case c.state == open && c.sendErr != nil:
		c.fail(c.sendErr)
	case c.state == open && opts.IdleTimeout > 0:
		c.expire("idle", opts.IdleTimeout)
	}
}

// expire ends c if nothing moved for d, or sets the timer to when it may. What the
// peer takes of a send in flight moves too, though no report may tell for long, and so
// does what it has sent, though a loop that was held up was not told of it yet.
func (c *Conn) expire(op string, d time.Duration) {
	look := max(d/4, time.Millisecond)
	if c.sending {
		if p := c.loop.sockets.Progress(c.FD(), c.origin.unix); p != c.progress {
			c.set().progress, c.active = p, c.loop.time()
		}
	}
	left := timers.Deadline(c.active, d) - c.loop.time()
	switch {
	case left <= 0 && c.spoken():
		left = look
	case left <= 0:
		c.fail(&couplet.TimeoutError{Op: op})
		return
	case c.sending:
		left = min(left, look)
	}
	c.setTimer(left)
}

// spoken reports whether something has come that the protocol was not told of and will be.
func (c *Conn) spoken() bool {
	if c.state != open || c.paused {
		return false
	}
	return c.inbound.len() > 0 || c.receiving && (c.loop.sockets.Pending(c.FD(), false) || c.loop.driver.Told(c))
}

func (c *Conn) opError(op string, errno syscall.Errno) error {
	return sock.OpError(op, c.origin.network, c.LocalAddr(), c.RemoteAddr(), syscallName(op), errno)
}

func syscallName(op string) string {
	switch op {
	case "read":
		return "recv"
	case "write":
		return "send"
	}
	return op
}
