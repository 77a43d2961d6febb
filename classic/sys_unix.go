//go:build unix

package classic

import (
	"errors"
	"net"
	"os"
	"syscall"

	"couplet"
	"couplet/internal/sock"
)

func raw(nc net.Conn) (syscall.RawConn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// send sends as much of p as the kernel takes without a wait, maybe nothing.
func send(nc net.Conn, p []byte) (n int, err error) { return sendRaw(nc, p, true) }

// sendOrWait sends some of p, as soon as the kernel takes any.
func sendOrWait(nc net.Conn, p []byte) (n int, err error) { return sendRaw(nc, p, false) }

// sendRaw gives up, if it is told to, where the kernel takes nothing.
func sendRaw(nc net.Conn, p []byte, giveUp bool) (n int, err error) {
	rc, err := raw(nc)
	if err != nil {
		return 0, err
	}
	var serr error
	err = rc.Write(func(fd uintptr) bool {
		if !giveUp && !writable(fd) {
			return false
		}
		for {
			n, serr = syscall.Write(int(fd), p)
			switch serr {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				n, serr = 0, nil
				return giveUp
			}
			return true
		}
	})
	if serr != nil { // n is -1
		return 0, os.NewSyscallError("write", serr)
	}
	return n, err
}

// resetIfPipe is err with EPIPE turned into ECONNRESET.
func resetIfPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return os.NewSyscallError("write", syscall.ECONNRESET)
	}
	return err
}

// pendingError is the error that waits on the socket where a shutdown failed,
// or a reset: there is no connection any more.
func pendingError(nc net.Conn, err error) error {
	if errno := socketError(nc); errno != 0 {
		return os.NewSyscallError("shutdown", errno)
	}
	if errors.Is(err, syscall.ENOTCONN) {
		return os.NewSyscallError("shutdown", syscall.ECONNRESET)
	}
	return err
}

// socketError takes the error that waits on the socket; EPIPE is a reset.
func socketError(nc net.Conn) (errno syscall.Errno) {
	if rc, err := raw(nc); err == nil {
		rc.Control(func(fd uintptr) { errno = takeError(fd) })
	}
	return errno
}

func takeError(fd uintptr) syscall.Errno {
	n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil {
		return 0
	}
	if syscall.Errno(n) == syscall.EPIPE {
		return syscall.ECONNRESET
	}
	return syscall.Errno(n)
}

// awaitError waits for an error of a socket whose peer has sent its FIN. It
// returns nil when the descriptor's deadline passes.
func awaitError(nc net.Conn) error {
	rc, err := raw(nc)
	if err != nil {
		return nil
	}
	var errno syscall.Errno
	rc.Read(func(fd uintptr) bool {
		errno = takeError(fd)
		return errno != 0
	})
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError("read", errno)
}

// connected reports whether the socket still has a peer. A connection that was
// reset before it was accepted has none.
func connected(nc net.Conn) bool {
	ok := true
	if rc, err := raw(nc); err == nil {
		rc.Control(func(fd uintptr) {
			_, err := syscall.Getpeername(int(fd))
			ok = !errors.Is(err, syscall.ENOTCONN)
		})
	}
	return ok
}

// exhausted reports whether an accept failed for want of descriptors or memory.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS)
}

// broken reports whether an accept failed because the socket does not listen any more.
func broken(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK)
}

// inUse and refused tell a path that may be stale from one that is not.
func inUse(err error) bool   { return errors.Is(err, syscall.EADDRINUSE) }
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// backlogFull reports whether a unix listener has no room for a connection now.
func backlogFull(err error) bool { return errors.Is(err, syscall.EAGAIN) }

// duplicate is a duplicate of c's descriptor. That of package net would have the
// socket block, for all who have it, once its Fd is called, as os/exec does.
func duplicate(c syscall.Conn, name string) (f *os.File, err error) {
	cerr := control(c, func(fd uintptr) error {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		d, err := syscall.Dup(int(fd))
		if err != nil {
			return sock.SyscallError("dup", err)
		}
		syscall.CloseOnExec(d)
		f = os.NewFile(uintptr(d), name)
		return nil
	})
	return f, cerr
}

// unblock takes back what another holder of the listening socket may have done: os/exec
// does it with a File of package net. An accept that blocks does not hear of Close.
func unblock(l syscall.Conn) {
	control(l, func(fd uintptr) error { return syscall.SetNonblock(int(fd), true) })
}

// listening is an error if s does not listen. Package net takes it all the same.
func listening(s syscall.Conn) error {
	return control(s, func(fd uintptr) error {
		n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err == nil && n == 0 {
			return errors.New("the file is not a listening stream socket")
		}
		return nil // also where the system cannot tell
	})
}

// setBacklog changes the backlog that package net chose.
func setBacklog(l syscall.Conn, n int) error {
	return control(l, func(fd uintptr) error { return os.NewSyscallError("listen", syscall.Listen(int(fd), n)) })
}

// setOptions sets what package net does not: the buffers, before it is of use, for the
// window that is announced, and that urgent bytes are received like any others (RFC
// 6093). Connections get from their listener what it has, but for unix sockets.
func setOptions(fd uintptr, network string, o *couplet.Options) error {
	for _, s := range []struct {
		name, value int
		set         bool
	}{
		{syscall.SO_RCVBUF, o.ReceiveBuffer, o.ReceiveBuffer > 0},
		{syscall.SO_SNDBUF, o.SendBuffer, o.SendBuffer > 0},
		{syscall.SO_OOBINLINE, 1, network != "unix"},
	} {
		if !s.set {
			continue
		}
		err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, s.name, s.value)
		if err == syscall.EOPNOTSUPP && s.name == syscall.SO_OOBINLINE {
			continue // an adopted socket of Multipath TCP, as package net makes them
		}
		if err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
