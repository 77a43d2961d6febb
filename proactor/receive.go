//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// Receive implements loop.Driver: one entry receives until it ends, each time
// into a buffer that the kernel takes from the ring when there is data.
func (d *driver) Receive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = true
	d.armReceive(s)
}

// StopReceive implements loop.Driver.
func (d *driver) StopReceive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = false
	if s.inFlight.has(receiveOp) && !s.cancelling {
		s.cancelling = true
		d.cancel(s.key(receiveOp))
	}
}

// armReceive arms s, unless that is not wanted, or not possible before the
// cancellation of the receive in flight has come through.
func (d *driver) armReceive(s *conn) {
	if s.receiving && !s.inFlight.has(receiveOp) {
		d.start(s, receiveOp).RecvMultishot(s.c.FD(), bufferGroup)
	}
}

// received is a completion of a receive; s is nil if the connection is gone.
// Whatever it says, the buffer that it carries goes back.
func (d *driver) received(s *conn, e *ring.CQE) {
	if e.Flags&ring.CQEFBuffer != 0 {
		data := d.buffers.take(e)
		if s != nil && !s.closing && e.Res > 0 {
			d.loop.Received(s.c, data, d.buffers)
		}
		d.buffers.giveBack()
	}
	if s == nil || e.Flags&ring.CQEFMore != 0 {
		return
	}
	s.cancelling = false
	if d.landed(s, receiveOp) {
		return
	}
	switch errno := syscall.Errno(-min(e.Res, 0)); {
	case e.Res > 0:
		if s.receiving {
			d.loop.Count().Rearmed++
			d.armReceive(s)
		}
	case errno == syscall.ENOBUFS:
		d.loop.Count().BuffersExhausted++
		d.starved = append(d.starved, s.key(receiveOp))
	case errno == syscall.ECANCELED, errno == syscall.EINTR, errno == syscall.EAGAIN:
		d.armReceive(s)
	default: // the end, or an error, which the kernel tells only once
		s.receiving = false
		d.loop.ReceiveEnded(s.c, errno)
	}
}

// feed gives the kernel the buffers that came back, and arms those whom it had
// none for: to arm on an empty ring would fail at once.
func (d *driver) feed() {
	if len(d.starved) > 0 {
		d.buffers.grow()
	}
	d.buffers.publish()
	for _, k := range d.starved {
		if s := d.conns.At(k.slot()); s.c != nil && s.generation == k.generation() {
			d.armReceive(s)
		}
	}
	d.starved = d.starved[:0]
}
