//go:build linux

package reactor

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
)

// Receive implements loop.Driver: it waits until there may be something to read.
func (d *driver) Receive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = true
	d.mark(s)
	d.repeat(s)
}

// StopReceive implements loop.Driver.
func (d *driver) StopReceive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = false
	d.mark(s)
}

// Told implements loop.Driver: what there is to receive is in the socket until it is reported.
func (d *driver) Told(*loop.Conn) bool { return false }

// Watch implements loop.Driver: the poller tells of errors always.
func (d *driver) Watch(c *loop.Conn) {
	s := d.of(c)
	s.guarded = true
	d.mark(s)
	if d.edge { // it may have told already
		if errno := d.loop.SocketError(c); errno != 0 {
			d.reports = append(d.reports, report{kind: ended, key: s.key(), errno: errno})
		}
	}
}

// broken looks what it was that the poller told of a connection that is guarded.
func (d *driver) broken(s *conn) {
	s.guarded = false
	s.hung = true // it is told once
	d.mark(s)
	if errno := d.loop.SocketError(s.c); errno != 0 { // else a send has told it
		d.loop.ReceiveEnded(s.c, errno)
	}
}

// receive reads what is there, a turn's share at most: the rest stays in the
// socket, and the poller tells of it again.
func (d *driver) receive(s *conn) {
	generation := s.generation
	for budget := s.c.Budget(); budget > 0 && s.receiving && s.generation == generation; {
		room := d.memory.Room()
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.c.FD()),
			uintptr(unsafe.Pointer(&room[0])), uintptr(len(room)), unix.MSG_DONTWAIT, 0, 0)
		d.loop.Count().Crossings++
		d.loop.Tell(loop.Call, "recvfrom", int(n), errno)
		switch {
		case errno == unix.EAGAIN:
			s.unread = false
			return
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			s.receiving = false
			d.mark(s)
			d.loop.ReceiveEnded(s.c, errno)
			return
		}
		budget -= int(n)
		d.loop.Received(s.c, d.memory.Lend(int(n)), &d.memory)
		d.loop.Push(s.c)
		if int(n) < len(room) && !s.behind {
			s.unread = false
			return // there was no more
		}
	}
	if s.generation == generation {
		d.repeat(s)
	}
}

// repeat has s read in the next Wait, if it was left before its end and the
// poller, which is edge-triggered, will not tell of it again.
func (d *driver) repeat(s *conn) {
	if s.unread && s.receiving && !s.again {
		s.again = true
		d.again = append(d.again, s.key())
	}
}

// goOn reads from the first n of those whom the last Wait left.
func (d *driver) goOn(n int) {
	for i := 0; i < n; i++ {
		s := d.living(d.again[i])
		if s == nil {
			continue
		}
		s.again = false
		if s.receiving {
			d.receive(s)
			d.report()
		}
	}
	d.again = d.again[:copy(d.again, d.again[n:])]
}
