package bench

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// read and write do not tell the scheduler: these calls never wait, and the
// generator should cost little. p must not be empty; the kernel is done with it
// when the call returns, and the conversion in the call's arguments keeps it
// alive until then.

func read(fd int, p []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func write(fd int, p []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// A stamped is how bytes are read with the time at which they came.
type stamped struct {
	header  unix.Msghdr
	vector  unix.Iovec
	control [64]byte
}

// read reads from fd, of which SO_TIMESTAMPNS is asked. came is when the kernel
// got the last of the bytes, since 1970; 0 where it does not tell.
func (s *stamped) read(fd int, p []byte) (n int, came time.Duration, err error) {
	s.vector.Base = &p[0]
	s.vector.SetLen(len(p))
	s.header.Iov = &s.vector
	s.header.SetIovlen(1)
	s.header.Control = &s.control[0]
	s.header.SetControllen(len(s.control))
	r, _, e := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.header)), unix.MSG_DONTWAIT)
	s.vector.Base = nil // s would keep it alive
	if e != 0 {
		return 0, 0, e
	}
	return int(r), arrival(s.control[:s.header.Controllen]), nil
}

// arrival is the time in a control message of SO_TIMESTAMPNS, or 0.
func arrival(control []byte) time.Duration {
	const head, body = unix.SizeofCmsghdr, int(unsafe.Sizeof(unix.Timespec{}))
	if len(control) < head+body {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if h.Level != unix.SOL_SOCKET || h.Type != unix.SO_TIMESTAMPNS {
		return 0
	}
	sec, nsec := binary.NativeEndian.Uint64(control[head:]), binary.NativeEndian.Uint64(control[head+8:])
	return time.Duration(int64(sec)*int64(time.Second) + int64(nsec))
}
