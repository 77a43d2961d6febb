//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// sendFlags: WAITALL has the kernel go on by itself until all was taken. Not on a unix
// socket: nothing but the reports of sends tells there that the peer takes data. Behind
// the peer's FIN the kernel is not to wait at all: see room.
func (s *conn) sendFlags() uint32 {
	switch {
	case s.ended || s.inFlight.has(roomOp):
		return unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT
	case s.c.Unix():
		return unix.MSG_NOSIGNAL
	}
	return unix.MSG_NOSIGNAL | unix.MSG_WAITALL
}

// Send implements loop.Driver: one entry for the head of the queue and what can
// be gathered behind it. The kernel waits by itself until the socket takes it.
func (d *driver) Send(c *loop.Conn) {
	s := d.of(c)
	s.room = unknown
	head := c.Head()
	if d.zeroCopy && d.lend(s, head) {
		return
	}
	e := d.start(s, sendOp)
	if b := head.Bytes(); head.Next() == nil || len(b) >= loop.MaxSend {
		b = b[:min(len(b), loop.MaxSend)]
		s.size = int32(len(b))
		e.Send(c.FD(), unsafe.Pointer(&b[0]), uint32(len(b)), s.sendFlags())
	} else {
		g := d.nextGather()
		s.size = int32(g.Collect(head))
		e.SendMsg(c.FD(), &g.Message, s.sendFlags())
	}
	d.queued(s.key(sendOp), int(s.size))
}

// nextGather is one that no queued entry points at. The kernel copies it when it takes the entry.
func (d *driver) nextGather() *loop.Gather {
	if d.gathered == len(d.gathers) {
		d.gathers = append(d.gathers, new(loop.Gather))
	}
	d.gathered++
	return d.gathers[d.gathered-1]
}

// sent is the completion of a send, k.
func (d *driver) sent(s *conn, k kind, e *ring.CQE) {
	if d.landed(s, k) {
		return
	}
	if errno := syscall.Errno(-min(e.Res, 0)); errno == syscall.EAGAIN {
		d.full(s)
		return
	} else if errno != 0 {
		d.loop.Sent(s.c, 0, errno)
		return
	}
	if e.Res < s.size {
		d.loop.Count().ShortSends++
	}
	d.loop.Sent(s.c, int(e.Res), 0)
}

// room is what is known of the room for a send.
//
// The kernel waits for it by a poll of its own, to which it adds RDHUP: behind the
// peer's FIN that is over at once, each time, and after some 128 times the send ends with
// EAGAIN. From then on a connection has a multishot poll, which tells of changes, and
// its sends do not wait. To the loop a send that found no room is still in flight.
type room uint8

const (
	unknown room = iota // since the send was queued
	wanted              // the send found none
	found               // the poll has told of some, and the send not yet of none
)

// full goes on with a send that found no room.
func (d *driver) full(s *conn) {
	if s.room == found {
		d.Send(s.c)
		return
	}
	s.room = wanted
	d.renewed = append(d.renewed, s.key(roomOp)) // where the poll is not in flight
}

func (d *driver) armRoom(s *conn) {
	d.start(s, roomOp).PollMultishot(s.c.FD(), unix.POLLOUT)
	d.queued(s.key(roomOp), -1)
}

// roomed is a completion of the poll for room.
func (d *driver) roomed(s *conn, e *ring.CQE) {
	last := e.Flags&ring.CQEFMore == 0
	switch {
	case last && d.landed(s, roomOp), s.closing:
	case e.Res > 0 && e.Res&(unix.POLLOUT|broken) != 0:
		if s.room == wanted {
			d.Send(s.c)
		} else {
			s.room = found
		}
	case last && s.room == wanted:
		d.renewed = append(d.renewed, s.key(roomOp))
	}
}
