//go:build linux

package sock

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// OpError is the error of a system call on a socket, as package net reports
// it: a *net.OpError that wraps an *os.SyscallError that wraps errno. EPIPE is
// reported as ECONNRESET: both say that the peer is gone, and which of them a
// send meets depends on who asked first.
func OpError(op, network string, local, remote net.Addr, syscall string, errno unix.Errno) error {
	if errno == unix.EPIPE {
		errno = unix.ECONNRESET
	}
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: os.NewSyscallError(syscall, errno)}
}

// AcceptVerdict says what an error of accept means for the listener.
type AcceptVerdict int

const (
	// Ignore: that connection was gone before it was accepted, or the call was
	// interrupted. The listener is as good as before.
	Ignore AcceptVerdict = iota
	// Exhausted: out of descriptors or memory. The backlog keeps the
	// connection; try again when something was freed.
	Exhausted
	// Fatal: this listener will never accept again.
	Fatal
)

// JudgeAccept judges an errno of accept. An error that is not known as an end
// of the listener is ignored: Linux passes errors that wait on the new
// connection on to accept (accept(2), "Error handling").
func JudgeAccept(errno unix.Errno) AcceptVerdict {
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ENOSPC:
		return Exhausted
	case unix.EBADF, unix.EINVAL, unix.ENOTSOCK, unix.EFAULT, unix.ENOSYS, unix.ECANCELED:
		return Fatal
	}
	return Ignore
}
