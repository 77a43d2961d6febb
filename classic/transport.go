package classic

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"couplet"
)

var _ couplet.Transport = (*conn)(nil)

// Write queues a copy of p.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.room(len(p)); err != nil {
		return 0, err
	}
	c.enqueue(p)
	return len(p), nil
}

// enqueue queues a copy of bytes that there is room for.
func (c *conn) enqueue(p []byte) {
	if len(p) > 0 {
		c.queue.add(p)
		c.owned += len(p)
		c.written()
	}
}

// written has what was queued be sent at the end of this turn.
func (c *conn) written() {
	c.queued.Store(int64(c.queue.size))
	c.touch()
}

// Writev queues copies of bufs, all or none.
func (c *conn) Writev(bufs [][]byte) (int, error) {
	n := 0
	for _, p := range bufs {
		n += len(p)
	}
	if err := c.room(n); err != nil {
		return 0, err
	}
	for _, p := range bufs {
		c.enqueue(p)
	}
	return n, nil
}

// WriteBuffer queues b without a copy.
func (c *conn) WriteBuffer(b *couplet.Buffer) error {
	if err := c.room(0); err != nil {
		return err
	}
	if b.Len() > 0 {
		c.queue.share(b)
		c.written()
	}
	return nil
}

// Buffered is the number of bytes queued.
func (c *conn) Buffered() int { return c.queue.size }

// CloseWrite closes our half once what is queued was sent.
func (c *conn) CloseWrite() error {
	if c.state != open {
		return net.ErrClosed
	}
	if !c.halfClosed {
		c.halfClosed = true
		c.touch()
	}
	return nil
}

// Close ends the connection once what is queued was sent.
func (c *conn) Close() error {
	if c.state == lost {
		return net.ErrClosed
	}
	if c.peerFIN {
		c.close(io.EOF)
	} else {
		c.close(net.ErrClosed)
	}
	return nil
}

// Abort resets the connection, also one whose clean end is on its way.
func (c *conn) Abort() {
	if c.state == dying && c.refs > 0 && !c.reset && (c.reason == io.EOF || errors.Is(c.reason, net.ErrClosed)) {
		c.reason, c.reset = couplet.ErrAborted, true
	}
	c.end(couplet.ErrAborted, true)
}

// PauseReading stops delivery.
func (c *conn) PauseReading() {
	if c.state != open {
		return
	}
	c.paused = true
	if c.sendErr != nil {
		c.end(c.sendErr, false)
	}
}

// ResumeReading takes PauseReading back.
func (c *conn) ResumeReading() {
	c.paused = false
	c.reader.Signal()
}

// SetWatermarks sets the limits of WritePaused and WriteResumed.
func (c *conn) SetWatermarks(low, high int) {
	c.high = max(high, 0)
	c.low = min(max(low, 0), c.high)
	if c.state == open {
		c.touch()
	}
}

// AfterFunc calls f after d, if the connection is still open then.
func (c *conn) AfterFunc(d time.Duration, f func()) couplet.Timer {
	t := c.l.newTimer(c, f)
	t.arm(d)
	return t
}

// LocalAddr is our address.
func (c *conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the peer's.
func (c *conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Loop is the connection's loop.
func (c *conn) Loop() couplet.Loop { return c.l }

// Handle names the connection for other goroutines.
func (c *conn) Handle() couplet.Handle { return couplet.NewHandle(c.l, c.id) }

// Context is what SetContext stored.
func (c *conn) Context() any { return c.context }

// SetContext stores v.
func (c *conn) SetContext(v any) { c.context = v }

// SyscallConn gives access to the descriptor's options.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.nc.(syscall.Conn)
	if !ok {
		return nil, couplet.ErrNotSupported
	}
	if c.state == lost {
		return nil, net.ErrClosed
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	return rawConn{rc}, nil
}

// rawConn is a syscall.RawConn without reading and writing.
type rawConn struct{ rc syscall.RawConn }

// Control calls f with the descriptor.
func (r rawConn) Control(f func(fd uintptr)) error { return r.rc.Control(f) }

// Read is not supported: reading belongs to the engine.
func (rawConn) Read(func(fd uintptr) bool) error { return couplet.ErrNotSupported }

// Write is not supported: writing belongs to the engine.
func (rawConn) Write(func(fd uintptr) bool) error { return couplet.ErrNotSupported }
