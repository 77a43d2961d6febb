//go:build linux

package reactor

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/loop"
)

// memorySize is the receive buffer's size: one for all connections of the loop,
// since only one is read at a time.
const memorySize = 64 << 10

var memories = sync.Pool{New: func() any { return new([memorySize]byte) }}

func newMemory() []byte { return memories.Get().(*[memorySize]byte)[:] }

// Receive implements loop.Driver: it waits until there may be something to read.
func (d *driver) Receive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = true
	d.mark(s)
}

// StopReceive implements loop.Driver.
func (d *driver) StopReceive(c *loop.Conn) {
	s := d.of(c)
	s.receiving = false
	d.mark(s)
}

// receive reads what is there, a turn's share at most: the rest stays in the
// socket, and the poller tells of it again.
func (d *driver) receive(s *conn) {
	generation := s.generation
	for budget := s.c.Budget(); budget > 0 && s.receiving && s.generation == generation; {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.c.FD()),
			uintptr(unsafe.Pointer(&d.memory[0])), uintptr(len(d.memory)), unix.MSG_DONTWAIT, 0, 0)
		d.loop.Count().Crossings++
		switch {
		case errno == unix.EAGAIN:
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
		d.filled = int(n)
		d.loop.Received(s.c, d.memory[:n], d)
		if int(n) < memorySize {
			return // there was no more
		}
	}
}

// Keep implements loop.Lent: little is copied, much is handed over, and the
// driver reads into fresh memory from then on.
func (d *driver) Keep() *couplet.Buffer {
	if d.filled <= memorySize/4 {
		return couplet.NewBuffer(append([]byte(nil), d.memory[:d.filled]...), nil)
	}
	m := d.memory
	d.memory = newMemory()
	return couplet.NewBuffer(m[:d.filled], func() { memories.Put((*[memorySize]byte)(m)) })
}
