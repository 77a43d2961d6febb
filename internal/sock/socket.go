//go:build linux

package sock

import (
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet"
)

// open makes a socket of sa's family and sets what o says, before bind or
// connect.
func open(op string, sa *Sockaddr, o *couplet.Options, prepare func(fd int) error) (int, error) {
	fd, err := unix.Socket(sa.Family(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, &net.OpError{Op: op, Net: sa.Network(), Addr: sa.NetAddr(), Err: SyscallError("socket", err)}
	}
	opened := false
	defer func() {
		if !opened { // an error, or Control does not come back
			unix.Close(fd)
		}
	}()
	err = setOptions(fd, sa.Family(), o)
	if err == nil && prepare != nil {
		err = prepare(fd)
	}
	if err == nil && o.Control != nil {
		err = o.Control(uintptr(fd))
	}
	if err != nil {
		return -1, &net.OpError{Op: op, Net: sa.Network(), Addr: sa.NetAddr(), Err: err}
	}
	opened = true
	return fd, nil
}

// setOptions sets on a socket what o says of its connections. Linux copies all
// of it from a listener to the sockets it accepts, but for the buffers of unix sockets.
// Urgent bytes are received like any others, as RFC 6093 has it; else they are dropped.
func setOptions(fd, family int, o *couplet.Options) error {
	type option struct {
		level, name, value int
		set                bool
	}
	tcp := family != unix.AF_UNIX
	period := int((o.KeepAlive + time.Second - 1) / time.Second) // of what is alive
	alive := tcp && o.KeepAlive > 0
	for _, s := range []option{
		{unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer, o.ReceiveBuffer > 0},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer, o.SendBuffer > 0},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, flag(o.NoDelay), tcp},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, flag(alive), tcp},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, period, alive},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, period, alive},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9, alive},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1, tcp},
	} {
		if !s.set {
			continue
		}
		err := unix.SetsockoptInt(fd, s.level, s.name, s.value)
		if err == unix.EOPNOTSUPP && s.name == unix.SO_OOBINLINE {
			continue // an adopted socket of Multipath TCP, as package net makes them
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// Socket makes a socket to connect to sa, with o's options set and o.Control
// called. Errors are *net.OpError.
func Socket(sa *Sockaddr, o *couplet.Options) (fd int, err error) {
	return open("dial", sa, o, nil)
}

// Connect begins to connect fd. It returns 0 or an errno: EINPROGRESS where the
// outcome is to come (then SocketError tells it), EAGAIN where a unix
// listener's backlog is full.
func Connect(fd int, sa *Sockaddr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa.Ptr()), uintptr(sa.n))
	return errno
}

// Peer is the address of the other end. It fails with ENOTCONN where the peer
// has reset the connection already.
func Peer(fd int) (net.Addr, error) { return name(unix.SYS_GETPEERNAME, "getpeername", fd) }

// Local is the socket's own address.
func Local(fd int) (net.Addr, error) { return name(unix.SYS_GETSOCKNAME, "getsockname", fd) }

func name(trap uintptr, call string, fd int) (net.Addr, error) {
	var s Sockaddr
	if errno := ask(trap, fd, &s); errno != 0 {
		return nil, os.NewSyscallError(call, errno)
	}
	return s.NetAddr(), nil
}

// ask is getsockname or getpeername.
func ask(trap uintptr, fd int, s *Sockaddr) unix.Errno {
	s.n = uint32(unsafe.Sizeof(s.raw))
	_, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), uintptr(unsafe.Pointer(&s.n)))
	return errno
}

// SocketError takes the error that waits on a socket (SO_ERROR); 0 if none
// does. After a connect that was in progress it is the outcome.
func SocketError(fd int) unix.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if errno, ok := err.(unix.Errno); ok {
		return errno
	}
	return unix.Errno(n)
}

// SetReset makes the close of fd a reset that drops what is queued
// (SO_LINGER 0). On a unix socket it has no effect: the peer sees an
// end, or a reset where input was left unread.
func SetReset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// ShutdownWrite sends a FIN after all that was sent.
func ShutdownWrite(fd int) error {
	return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR))
}

// Acknowledged reports whether the peer's kernel has everything that was sent,
// the FIN included, so that a close loses none of it. On TCP that is
// SIOCOUTQ, which is 0 once all is acknowledged. A unix socket puts what it
// sends straight into the peer's queue; but to close it with input unread would
// turn that into ECONNRESET. So there its own queue (SIOCINQ) must be empty and
// stay so: reading is shut down first, and where the peer was quicker, what it
// sent is to be read until its end, which is certain to come.
func Acknowledged(fd int, isUnix bool) bool {
	if !isUnix {
		return queued(fd, unix.SIOCOUTQ) == 0
	}
	if queued(fd, unix.SIOCINQ) > 0 {
		return false
	}
	unix.Shutdown(fd, unix.SHUT_RD)
	return queued(fd, unix.SIOCINQ) == 0
}

// Pending reports whether there is something to be told of a socket: data, its end or
// an error, or where it connects the outcome. An error ends a socket, too; POLLERR alone is
// of what its error queue holds, such as time stamps, which nobody may ever take.
func Pending(fd int, connecting bool) bool {
	events := int16(unix.POLLIN | unix.POLLRDHUP)
	if connecting {
		events = unix.POLLOUT
	}
	return poll(fd, events)&(events|unix.POLLHUP) != 0
}

// HungUp reports whether both directions of a socket are over.
func HungUp(fd int) bool { return poll(fd, 0)&unix.POLLHUP != 0 }

// poll is which of events there are now, and of those that are always told.
func poll(fd int, events int16) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(p, 0); err != unix.EINTR {
			return p[0].Revents
		}
	}
}

// Progress is a number that changes while the peer takes data: the bytes that it
// has acknowledged, or for a unix socket those that it has not read, in steps of up
// to a few hundred KiB.
func Progress(fd int, isUnix bool) uint64 {
	if isUnix {
		return uint64(queued(fd, unix.SIOCOUTQ))
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return info.Bytes_acked
}

// queued is the number of bytes in one of a socket's queues, 0 where it cannot
// be told.
func queued(fd int, request uint) int {
	n, err := unix.IoctlGetInt(fd, request)
	if err != nil {
		return 0
	}
	return n
}

// File is a duplicate of fd, close-on-exec, as a file that the caller closes.
func File(fd int, name string) (*os.File, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, SyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(d), name), nil
}
