//go:build linux

package reactor

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
)

// Send implements loop.Driver. It tries at once, since a socket can mostly take
// more; only where it cannot does it wait until it may. It makes one system call,
// for the head of the queue and what can be gathered behind it.
func (d *driver) Send(c *loop.Conn) {
	s := d.of(c)
	if s.full {
		s.sending = true
		d.mark(s)
		return
	}
	head := c.Head()
	bytes := head.Bytes()
	total, count := min(len(bytes), loop.MaxSend), 1
	if head.Next() != nil && total < loop.MaxSend {
		total, count = d.collect(head) // two or more
	}
	var r uintptr
	var err errno
	for {
		d.loop.Count().Crossings++
		name := "sendto"
		if count == 1 {
			r, _, err = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.FD()), uintptr(unsafe.Pointer(&bytes[0])), uintptr(total),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		} else {
			name = "sendmsg"
			r, _, err = syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(c.FD()), uintptr(unsafe.Pointer(&d.message)),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
		d.loop.Tell(loop.Call, name, int(r), err)
		if err != unix.EINTR {
			break
		}
	}
	if count > 1 {
		clear(d.gather[:count]) // else they keep the memory of what was sent
	}
	n := int(r)
	switch {
	case err == unix.EAGAIN:
		s.full, s.sending = true, true
		d.mark(s)
		return
	case err != 0:
		n = 0
	case n < total:
		s.full = true
		d.loop.Count().ShortSends++
	}
	d.reports = append(d.reports, report{kind: sent, key: s.key(), bytes: n, errno: err})
}

// collect makes message of head and what is behind it, of count pieces.
func (d *driver) collect(head *loop.Segment) (total, count int) {
	for s := head; s != nil && count < loop.MaxGather && total < loop.MaxSend; s = s.Next() {
		b := s.Bytes()
		b = b[:min(len(b), loop.MaxSend-total)]
		d.gather[count].Base = &b[0]
		d.gather[count].SetLen(len(b))
		total += len(b)
		count++
	}
	d.message.Iov = &d.gather[0]
	d.message.SetIovlen(count)
	return total, count
}

// resume tries again now that the socket may take more.
func (d *driver) resume(s *conn) {
	s.full = false
	if s.sending {
		s.sending = false
		d.mark(s)
		d.Send(s.c)
		d.report() // before what was received is
	}
}
