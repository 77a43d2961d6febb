//go:build linux

package loop

import (
	"io"
	"math"
	"net"
	"syscall"
	"time"

	"couplet"
)

var _ couplet.Transport = (*Conn)(nil)

// Write implements couplet.Transport.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.writable(len(p)); err != nil {
		return 0, err
	}
	c.loop.Tell(Asked, "Write", len(p), 0)
	if len(p) > 0 {
		c.push(p)
		c.written()
	}
	return len(p), nil
}

// Writev implements couplet.Transport.
func (c *Conn) Writev(bufs [][]byte) (int, error) {
	n := 0
	for _, p := range bufs {
		n += len(p)
	}
	if err := c.writable(n); err != nil {
		return 0, err
	}
	c.loop.Tell(Asked, "Writev", n, 0)
	for _, p := range bufs {
		c.push(p)
	}
	if n > 0 {
		c.written()
	}
	return n, nil
}

// WriteBuffer implements couplet.Transport.
func (c *Conn) WriteBuffer(b *couplet.Buffer) error {
	if err := c.writable(0); err != nil {
		return err
	}
	c.loop.Tell(Asked, "WriteBuffer", b.Len(), 0)
	if b.Len() > 0 {
		b.Retain() // or it panics, with nothing queued yet
		c.queued += b.Len()
		c.link(c.loop.segments.lent(b))
		c.written()
	}
	return nil
}

// Buffered implements couplet.Transport.
func (c *Conn) Buffered() int {
	c.loop.check()
	return c.queued
}

// CloseWrite implements couplet.Transport.
func (c *Conn) CloseWrite() error {
	c.loop.check()
	if c.state != open {
		return net.ErrClosed
	}
	if !c.halfClosed {
		c.loop.Tell(Asked, "CloseWrite", -1, 0)
		c.halfClosed = true
		c.markDirty()
	}
	return nil
}

// Close implements couplet.Transport.
func (c *Conn) Close() error {
	c.loop.check()
	c.loop.Tell(Asked, "Close", -1, 0)
	switch {
	case c.state == lost:
		return net.ErrClosed
	case c.state != open:
		return nil
	case c.sendErr != nil:
		c.fail(c.sendErr)
		return nil
	}
	c.set().reason = net.ErrClosed
	if c.peerClosed {
		c.set().reason = io.EOF
	}
	c.close()
	return nil
}

// Abort implements couplet.Transport.
func (c *Conn) Abort() {
	c.loop.check()
	c.loop.Tell(Asked, "Abort", -1, 0)
	c.fail(couplet.ErrAborted)
}

// PauseReading implements couplet.Transport.
func (c *Conn) PauseReading() {
	c.loop.check()
	if c.state == open {
		c.loop.Tell(Asked, "PauseReading", -1, 0)
		c.paused = true
		c.setReceive()
		if c.sendErr != nil {
			c.fail(c.sendErr) // what is declined now is never delivered
		}
		if c.halfClosed && c.endErrno != 0 {
			c.markDirty() // likewise: flushed waited for that alone
		}
	}
}

// ResumeReading implements couplet.Transport.
func (c *Conn) ResumeReading() {
	c.loop.check()
	if c.state != open || !c.paused {
		return
	}
	c.loop.Tell(Asked, "ResumeReading", -1, 0)
	c.paused = false
	if c.inbound.len() > 0 || c.ended {
		c.markReady()
		return
	}
	c.setReceive()
}

// SetWatermarks implements couplet.Transport.
func (c *Conn) SetWatermarks(low, high int) {
	c.loop.check()
	high = max(high, 0)
	r := c.set()
	r.high, r.low = watermark(high), watermark(min(max(low, 0), high))
	if c.crossed() {
		c.markOver()
	}
}

// watermark is n, or what there is place for.
func watermark(n int) uint32 { return uint32(min(uint64(n), math.MaxUint32)) }

// AfterFunc implements couplet.Transport.
func (c *Conn) AfterFunc(d time.Duration, f func()) couplet.Timer {
	c.loop.check()
	t := &timer{loop: c.loop, conn: c}
	t.F = func() {
		t.disown()
		if c.state == open {
			c.callTimer(f)
		}
	}
	t.Reset(d)
	return t
}

// LocalAddr implements couplet.Transport.
func (c *Conn) LocalAddr() net.Addr {
	c.loop.check()
	if c.local != nil {
		return c.local
	}
	if n := c.origin.listener; n != nil && n.local != nil {
		return n.local
	}
	if c.fd >= 0 {
		c.set().local, _ = c.loop.sockets.Local(c.FD())
	}
	return c.local
}

// RemoteAddr implements couplet.Transport.
func (c *Conn) RemoteAddr() net.Addr {
	c.loop.check()
	if c.remote != nil {
		return c.remote
	}
	return c.peer.NetAddr()
}

// Loop implements couplet.Transport.
func (c *Conn) Loop() couplet.Loop {
	c.loop.check()
	return c.loop
}

// Handle implements couplet.Transport.
func (c *Conn) Handle() couplet.Handle {
	c.loop.check()
	if c.state != lost && !c.watched { // the Handle of one that is lost is what it was, and refuses
		c.watched = true
		c.loop.slab.at(c.slot).handle().limit.Store(int64(c.origin.opts.MaxOutbound))
		c.publish()
	}
	return couplet.NewHandle(c.loop, uint64(c.generation)<<32|uint64(c.slot))
}

// Context implements couplet.Transport.
func (c *Conn) Context() any {
	c.loop.check()
	return c.context
}

// SetContext implements couplet.Transport.
func (c *Conn) SetContext(v any) {
	c.loop.check()
	c.set().context = v
}

// SyscallConn implements couplet.Transport.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.loop.check()
	if c.state >= closing {
		return nil, net.ErrClosed
	}
	return rawConn{c}, nil
}

// rawConn lets options be set and nothing be read.
type rawConn struct{ c *Conn }

// Control implements syscall.RawConn.
func (r rawConn) Control(f func(fd uintptr)) error {
	r.c.loop.check()
	if r.c.state >= closing { // the driver may have closed it
		return net.ErrClosed
	}
	f(uintptr(r.c.fd))
	return nil
}

// Read implements syscall.RawConn: reading belongs to the engine.
func (r rawConn) Read(func(fd uintptr) bool) error { return couplet.ErrNotSupported }

// Write implements syscall.RawConn: writing belongs to the engine.
func (r rawConn) Write(func(fd uintptr) bool) error { return couplet.ErrNotSupported }

// PostConn implements couplet.HandleOwner, for any goroutine.
func (l *Loop) PostConn(id uint64, n int, f func(t couplet.Transport)) error {
	generation := uint32(id >> 32)
	s := l.slab.at(uint32(id))
	if s == nil || s.generation.Load() != generation {
		return net.ErrClosed
	}
	h := s.handled.Load()
	if h == nil {
		return net.ErrClosed // there is no such Handle
	}
	if n > 0 && h.posted.Add(int64(n))+h.queued.Load() > h.limit.Load() {
		h.posted.Add(-int64(n))
		return couplet.ErrOutboundFull
	}
	ok := l.Post(func() {
		h.posted.Add(-int64(n))
		c := s.conn
		if c == nil || s.generation.Load() != generation {
			f(nil)
			return
		}
		c.callPosted(f)
	})
	if !ok {
		return net.ErrClosed
	}
	return nil
}
