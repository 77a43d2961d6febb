//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"

	"golang.org/x/sys/unix"

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
	d.interrupt(s)
}

// Told implements loop.Driver. A completion that is not reaped may have emptied the socket:
// an entry that is submitted while the queue is full is tried at once.
func (d *driver) Told(c *loop.Conn) bool {
	if d.ring.Overflowed() {
		return true
	}
	s := d.of(c)
	for i := range d.ring.Ready() {
		if k := key(d.ring.CQE(i).UserData); k == s.key(receiveOp) || k == s.key(readOp) {
			return true
		}
	}
	return false
}

// interrupt cancels what s is received from by; where that is wanted still, it is armed
// anew after its last completion.
func (d *driver) interrupt(s *conn) {
	for _, k := range [...]kind{receiveOp, pollOp} {
		if s.inFlight.has(k) && !s.cancelling {
			s.cancelling = true
			d.cancel(s.key(k))
		}
	}
}

// armReceive arms s, unless that is not wanted, or not possible before the
// cancellation of the receive in flight has come through.
func (d *driver) armReceive(s *conn) {
	if s.receiving && !s.inFlight.has(receiveOp) && !s.inFlight.has(pollOp) {
		switch {
		case s.bulk || s.inFlight.has(readOp):
			d.armPoll(s)
		case d.oneShot:
			d.start(s, receiveOp).RecvSelect(s.c.FD(), bufferGroup)
			d.queued(s.key(receiveOp), -1)
		default:
			d.start(s, receiveOp).RecvMultishot(s.c.FD(), bufferGroup)
			d.queued(s.key(receiveOp), -1)
		}
		if !s.inFlight.has(watchOp) {
			d.armWatch(s)
		}
	}
}

// theEnd is what a watch waits for: the peer's FIN or a reset, but no data.
//
// A multishot receive can lose that end. Linux 6.18 does where more than 32
// buffers of data and the end were there when it was armed: it receives, finds
// the socket empty, and waits for a wake-up that has been. Others lose it where
// data and end come at once. The watch sees what is, and is woken by nothing
// else; it costs one entry and one completion per connection.
const theEnd = unix.POLLRDHUP | broken

// broken is what a watch waits for after the peer's FIN.
const broken = unix.POLLHUP | unix.POLLERR

// watched is a completion of a watch, mostly the only one.
func (d *driver) watched(s *conn, e *ring.CQE) {
	last := e.Flags&ring.CQEFMore == 0
	switch {
	case last && d.landed(s, watchOp), s.closing:
	case !s.ended && s.bulk:
		s.behind = true
		d.list(s)
	case !s.ended:
		d.renewed = append(d.renewed, s.key(receiveOp))
	case e.Res >= 0 && e.Res&broken == 0: // it was for the FIN
		if last {
			d.renewed = append(d.renewed, s.key(watchOp))
		}
	default:
		if errno := d.loop.SocketError(s.c); errno != 0 { // else a send has told it
			d.loop.ReceiveEnded(s.c, errno)
		}
	}
}

// Watch implements loop.Driver.
func (d *driver) Watch(c *loop.Conn) {
	s := d.of(c)
	s.ended = true
	if !s.inFlight.has(watchOp) {
		d.armWatch(s)
	}
}

// armWatch arms s's watch. After the peer's FIN it is a multishot poll: the kernel
// adds RDHUP to what any poll is for, which then is there for good, and a poll that
// completes once would do so each time, at once. This one tells of changes.
func (d *driver) armWatch(s *conn) {
	if e := d.start(s, watchOp); s.ended {
		e.PollMultishot(s.c.FD(), broken)
	} else {
		e.PollAdd(s.c.FD(), theEnd)
	}
	d.queued(s.key(watchOp), -1)
}

// renew has receives that still wait, though the end is there, look again: once
// cancelled they are armed anew. Each time they get further, if not to the end. And it
// arms the polls that go on, and repeats the cancellations that missed. Had it been done
// while completions were reaped, a queue that overflows would end each of them again.
func (d *driver) renew() {
	for _, k := range d.renewed {
		if k&cancellation != 0 {
			if k &^= cancellation; d.unwanted(k) {
				d.cancel(k)
			}
			continue
		}
		s := d.living(k)
		if s == nil || s.closing {
			continue
		}
		switch in := s.inFlight.has(k.kind()); {
		case k.kind() == receiveOp:
			d.interrupt(s)
		case in:
		case k.kind() == pollOp:
			d.armReceive(s)
		case k.kind() == watchOp:
			d.armWatch(s)
		case k.kind() == roomOp:
			d.armRoom(s)
		}
	}
	d.renewed = d.renewed[:0]
}

// received is a completion of a receive; s is nil if the connection is gone.
// Whatever it says, the buffer that it carries goes back.
func (d *driver) received(s *conn, e *ring.CQE) {
	if e.Flags&ring.CQEFBuffer != 0 {
		data := d.buffers.take(e)
		if s != nil && !s.closing && e.Res > 0 {
			d.loop.Received(s.c, data, d.buffers)
			d.brought += len(data)
		}
		d.buffers.giveBack()
	}
	if s == nil {
		return
	}
	if d.brought > cacheful && int(e.Res) >= much && !d.batched {
		s.bulk, s.little = true, 0
	}
	if e.Flags&ring.CQEFMore != 0 {
		if s.bulk && !s.closing {
			d.interrupt(s)
		}
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
	d.buffers.adapt(len(d.starved) > 0, d.loop.Now)
	d.buffers.publish()
	d.loop.Count().Held = d.buffers.held() + d.memory.Held()
	for _, k := range d.starved {
		if s := d.living(k); s != nil {
			d.armReceive(s)
		}
	}
	d.starved = d.starved[:0]
}
