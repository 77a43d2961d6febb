//go:build linux

package reactor

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
)

// Send implements loop.Driver. It tries at once, since a socket can mostly take
// more; only where it cannot does it wait until it may.
func (d *driver) Send(c *loop.Conn) {
	s := d.of(c)
	if s.full {
		s.sending = true
		d.mark(s)
		return
	}
	n, err := d.try(s)
	if err == unix.EAGAIN {
		s.sending = true
		d.mark(s)
		return
	}
	d.reports = append(d.reports, report{kind: sent, key: s.key(), bytes: n, errno: err})
}

// resume tries again now that the socket may take more.
func (d *driver) resume(s *conn) {
	s.full = false
	if !s.sending {
		return
	}
	n, err := d.try(s)
	if err == unix.EAGAIN {
		return
	}
	s.sending = false
	d.mark(s)
	d.loop.Sent(s.c, n, err)
}

// try makes one system call, for the head of the queue and what can be gathered
// behind it.
func (d *driver) try(s *conn) (n int, err errno) {
	iov := &d.gather
	total, count := 0, 0
	for seg := s.c.Head(); seg != nil && count < loop.MaxGather && total < loop.MaxSend; seg = seg.Next() {
		b := seg.Bytes()
		b = b[:min(len(b), loop.MaxSend-total)]
		iov[count].Base = &b[0]
		iov[count].SetLen(len(b))
		total += len(b)
		count++
	}
	var r uintptr
	for {
		d.loop.Count().Crossings++
		fd := uintptr(s.c.FD())
		name := "sendto"
		if count == 1 {
			r, _, err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(iov[0].Base)), uintptr(total),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		} else {
			name = "sendmsg"
			d.message.Iov = &iov[0]
			d.message.SetIovlen(count)
			r, _, err = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&d.message)),
				unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		}
		d.loop.Tell(loop.Call, name, int(r), err)
		if err != unix.EINTR {
			break
		}
	}
	clear(iov[:count]) // else they keep the memory of what was sent
	if err != 0 {
		s.full = err == unix.EAGAIN
		return 0, err
	}
	if n = int(r); n < total {
		s.full = true
		d.loop.Count().ShortSends++
	}
	return n, 0
}
