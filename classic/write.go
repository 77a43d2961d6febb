package classic

import (
	"net"
	"sync"
	"time"

	"couplet"
)

// flusher is a goroutine's list of connections that its turns wrote to. Flushed
// between turns, outside the mutex, they get the system calls that cannot
// block; what is left then is for the connection's writing goroutine, which is
// started when it is first needed.
type flusher struct{ list []*conn }

// sendsPerFlush bounds how long one connection keeps the goroutine of another.
const sendsPerFlush = 16

// run flushes the list, and what the turns of doing so add to it.
func (f *flusher) run() {
	for i := 0; i < len(f.list); i++ {
		f.list[i].flush(f, sendsPerFlush, false)
	}
	f.list = trimmed(f.list)
}

// write is the goroutine that writes what would have blocked the others.
func (c *conn) write() {
	id := c.e.enter()
	defer c.e.leave(id)
	var f flusher
	defer c.finish(&f)
	for c.awaitHand() {
		c.flush(&f, -1, true)
		f.run()
	}
}

// awaitHand waits for something to write; false says that the connection dies.
func (c *conn) awaitHand() bool {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	for !c.handed && c.state < dying {
		c.writer.Wait()
	}
	c.handed = false
	return c.state < dying
}

// handOver leaves the rest to the writing goroutine. The mutex is held.
func (c *conn) handOver() {
	if c.state >= dying {
		return
	}
	c.handed = true
	if !c.writing {
		c.writing = true
		c.refs++
		c.e.running.Go(c.write)
	}
	c.writer.Signal()
}

// flush makes up to sends system calls (negative: any number) with what is
// queued. Only the writing goroutine may wait in one.
func (c *conn) flush(f *flusher, sends int, mayWait bool) {
	var room gathering
	for ; ; sends-- {
		if mayWait {
			f.run() // what callbacks have written to others does not wait for this peer
		}
		p, fin, wait := c.take(sends != 0, mayWait, &room)
		if p == nil || wait {
			room.giveBack()
		}
		switch {
		case fin:
			c.closed(f, closeWrite(c.nc))
		case p == nil:
			return
		case wait:
			n, err := sendOrWait(c.nc, p)
			c.sent(f, len(p), n, err)
		default:
			n, err := send(c.nc, p)
			c.sent(f, len(p), n, err)
		}
	}
}

// gathering is the memory in which small segments are brought together for a system
// call that does not wait, if there were any.
type gathering struct{ p *[chunk]byte }

var gatherings = sync.Pool{New: func() any { return new([chunk]byte) }}

func (g *gathering) memory() []byte {
	if g.p == nil {
		g.p = gatherings.Get().(*[chunk]byte)
	}
	return g.p[:]
}

func (g *gathering) giveBack() {
	if g.p != nil {
		gatherings.Put(g.p)
		g.p = nil
	}
}

// take gives the caller what to send next, or the FIN to send, unless somebody
// else is at it. wait says that the kernel took no more when it was last asked.
func (c *conn) take(goOn, mayWait bool, room *gathering) (p []byte, fin, wait bool) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	due := (c.halfClosed || c.state == closing) && !c.sentFIN && c.queue.empty()
	switch {
	case c.state >= dying, c.sendErr != nil, c.queue.sending, c.queue.empty() && !due:
		return nil, false, false
	case c.blocked && !mayWait:
		return nil, false, false
	case !goOn:
		c.handOver()
		return nil, false, false
	}
	c.queue.sending = true
	if due {
		return nil, true, false
	}
	if !c.blocked && c.queue.scattered() {
		return c.queue.gather(room.memory()), false, false
	}
	return c.queue.head(), false, c.blocked
}

// sent takes what one send of asked bytes gave. Less than that, without an
// error, says that the kernel takes no more for now.
func (c *conn) sent(f *flusher, asked, n int, err error) {
	l := c.l
	l.enter()
	defer l.leave(f)
	c.e.count.sends.Add(1)
	c.e.count.crossings.Add(1)
	c.e.count.bytesSent.Add(int64(n))
	if c.state >= dying {
		return
	}
	c.queue.sending = false
	c.reader.Signal() // see awaitSend
	c.blocked = n < asked && err == nil
	if n > 0 {
		c.active = l.now.Sub(l.epoch)
		c.progress = c.active
		owned, done := c.queue.sent(n)
		c.owned -= owned
		c.queued.Store(int64(c.queue.size))
		for _, b := range done {
			l.call(nil, "onRelease", b.Release)
		}
		clear(done) // else their memory is kept until the next send
	}
	switch {
	case err != nil:
		c.sendFailed(err)
	case c.blocked:
		c.e.count.shortSends.Add(1)
		c.handOver()
	}
	c.checkFlow()
}

// sendFailed takes an error of a send. What the peer sent before is delivered
// still; then the connection ends with this error, whatever the reads say.
func (c *conn) sendFailed(err error) {
	c.sendErr = c.opError("write", resetIfPipe(err))
	c.owned -= c.queue.drop()
	c.queued.Store(0)
	if c.state == closing || c.peerFIN || c.paused {
		c.end(c.sendErr, false)
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(drainPatience))
}

// closed takes the outcome of the shutdown that sends our FIN.
func (c *conn) closed(f *flusher, err error) {
	c.l.enter()
	defer c.l.leave(f)
	if c.state >= dying {
		return
	}
	c.queue.sending = false
	c.reader.Signal() // see awaitSend
	if err != nil {
		c.sendFailed(pendingError(c.nc, err))
		return
	}
	c.sentFIN = true
	if c.state == closing {
		c.lingerOn()
		return
	}
	if c.writeClosed != nil {
		c.l.call(c, "WriteClosed", func() { c.writeClosed.WriteClosed(c) })
	}
	c.bothClosed()
}

// touch has the end of this turn look after the connection.
func (c *conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.l.dirty = append(c.l.dirty, c)
	}
}

// checkFlow tells the protocol of a watermark that was crossed. Above the high
// one it counts only that the flush cannot take it all now: the kernel took no
// more, or another goroutine is in the midst of a send.
func (c *conn) checkFlow() {
	if c.flow == nil || c.state != open || c.sendErr != nil {
		return
	}
	switch {
	case !c.writePaused && (c.blocked || c.queue.sending) && c.queue.size > c.high:
		c.writePaused = true
		c.l.call(c, "WritePaused", func() { c.flow.WritePaused(c) })
	case c.writePaused && c.queue.size <= c.low:
		c.writePaused = false
		c.l.call(c, "WriteResumed", func() { c.flow.WriteResumed(c) })
	}
}

// room says whether n bytes may be queued now.
func (c *conn) room(n int) error {
	switch {
	case c.state != open || c.halfClosed || c.sendErr != nil:
		return net.ErrClosed
	case c.owned+n > c.o.MaxOutbound:
		return couplet.ErrOutboundFull
	}
	return nil
}

// closeWrite sends a FIN.
func closeWrite(nc net.Conn) error {
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return couplet.ErrNotSupported
}
