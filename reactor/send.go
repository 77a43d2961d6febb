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
	total := min(len(bytes), loop.MaxSend)
	several := head.Next() != nil && total < loop.MaxSend
	if several {
		total = d.gather.Collect(head)
	}
	var r uintptr
	var err errno
	for {
		d.loop.Count().Crossings++
		name := "sendto"
		if !several {
			r, _, err = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.FD()), uintptr(unsafe.Pointer(&bytes[0])), uintptr(total),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		} else {
			name = "sendmsg"
			r, _, err = syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(c.FD()), uintptr(unsafe.Pointer(&d.gather.Message)),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
		d.loop.Tell(loop.Call, name, int(r), err)
		if err != unix.EINTR {
			break
		}
	}
	if several {
		d.gather.Clear()
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
