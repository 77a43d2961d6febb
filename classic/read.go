package classic

import (
	"io"
	"time"

	"couplet"
)

// The receive buffer grows as long as it is filled.
const (
	leastRead = 4 << 10
	mostRead  = 64 << 10
)

// read is the goroutine that reads. It runs until the connection dies, also
// after the peer's FIN: a reset may still come.
func (c *conn) read() {
	id := c.e.enter()
	defer c.e.leave(id)
	var f flusher
	defer c.finish(&f)
	var (
		mem []byte
		b   *couplet.Buffer
	)
	size := leastRead
	for on := true; on; f.run() {
		if c.peerFIN { // only this goroutine sets it
			on = c.watched(&f, c.watch())
			continue
		}
		if len(mem) != size {
			mem, b = make([]byte, size), new(couplet.Buffer)
		}
		n, err := c.nc.Read(mem)
		c.came.Store(true)
		b.Reset(mem[:n], nil)
		on = c.received(&f, b, err)
		if b.Shared() {
			mem = nil // the protocol has it
		}
		b.Release()
		if n == size && size < mostRead {
			size *= 2
		}
	}
}

// received takes what one read gave.
func (c *conn) received(f *flusher, b *couplet.Buffer, err error) bool {
	l := c.l
	l.enter()
	defer l.leave(f)
	c.e.count.crossings.Add(1)
	if n := b.Len(); n > 0 {
		c.active = l.now.Sub(l.epoch)
		c.e.count.bytesReceived.Add(int64(n))
		c.e.count.receives.Add(1)
	}
	c.awaitResume()
	for c.awaitSend(err) {
		c.awaitResume() // who was told of the send may have paused
	}
	c.came.Store(false)
	if b.Len() > 0 && c.state == open {
		c.deliver(b)
	}
	switch {
	case err == nil:
		if c.sendErr != nil && c.state == open {
			c.nc.SetReadDeadline(time.Now().Add(drainPatience))
		}
	case c.state >= dying:
	case c.sendErr != nil:
		c.end(c.sendErr, false)
	case err == io.EOF:
		c.ended()
	default:
		c.broken(err)
	}
	return c.state < dying
}

// awaitResume waits while reading is paused. The turn ends meanwhile.
func (c *conn) awaitResume() {
	for c.paused && c.state == open {
		c.reader.Wait()
		c.l.now = time.Now()
	}
}

// awaitSend waits at the end of a stream for a send that is under way, and cannot block where
// both directions are over. That may have been a reset: who asks the socket first is told,
// and the other one takes it for an end in order. It reports whether it has waited.
func (c *conn) awaitSend(err error) bool {
	if err != io.EOF || !c.queue.sending || c.state >= dying || !hungUp(c.nc) {
		return false
	}
	for c.queue.sending && c.state < dying {
		c.reader.Wait()
	}
	c.l.now = time.Now()
	return true
}

// deliver calls DataReceived or BufferReceived, without a closure.
func (c *conn) deliver(b *couplet.Buffer) {
	ok := false
	defer c.l.protect(c, "DataReceived", &ok)
	if c.receiver != nil {
		c.receiver.BufferReceived(c, b)
	} else {
		c.proto.DataReceived(c, b.Bytes())
	}
	ok = true
}

// ended takes the peer's FIN.
func (c *conn) ended() {
	c.peerFIN = true
	switch {
	case c.state == closing:
		if c.sentFIN {
			c.end(c.reason, false)
		}
	case c.readClosed != nil:
		c.l.call(c, "ReadClosed", func() { c.readClosed.ReadClosed(c) })
		c.bothClosed()
	default:
		c.close(io.EOF)
	}
}

// bothClosed ends an open connection whose halves are both closed.
func (c *conn) bothClosed() {
	if c.state == open && c.peerFIN && c.sentFIN {
		c.end(io.EOF, false)
	}
}

// broken takes an error of the socket that the reading goroutine met.
func (c *conn) broken(err error) {
	if c.state == closing && c.sentFIN && acknowledged(c.nc) {
		c.end(c.reason, false) // it came after all that mattered
		return
	}
	c.end(err, false)
}

// watched takes an error that came after the peer's FIN; nil says that the
// connection dies.
func (c *conn) watched(f *flusher, err error) bool {
	c.l.enter()
	defer c.l.leave(f)
	c.awaitResume()
	if err != nil && c.state < dying {
		c.broken(err)
	}
	return c.state < dying
}

// watch waits, after the peer's FIN, for an error of the socket or for the end
// of the connection.
func (c *conn) watch() error {
	if errno := awaitError(c.nc); errno != nil {
		return c.opError("read", errno)
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	for c.state < dying {
		c.reader.Wait()
	}
	return nil
}
