//go:build linux

package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"couplet"
)

// Listen makes up to n sockets that listen on one address. Several sockets
// share a TCP port by SO_REUSEPORT; the first is bound without it, so that a
// port in use is an error and not a share. One socket never has it. There is
// only one where the network is unix, and where o.File is adopted (by
// duplicating it; its network must fit and address is ignored).
//
// "tcp" without a host listens for both families on [::], or on 0.0.0.0 where
// the host has no IPv6. A host name listens on one of its addresses, IPv4 if
// it has one, and blocks; so does, for 0.1 s at most, a unix path whose directory
// somebody has locked (flock). Nothing else does.
//
// NoDelay, KeepAlive and the buffer sizes are set on the listening sockets:
// Linux copies them to every socket they accept. A unix path that a dead
// process left behind is replaced.
//
// addr has the real port. Errors are *net.OpError with the address, wrapping an
// *os.SyscallError where a system call failed.
func Listen(network, address string, o *couplet.Options, n int) (fds []int, addr net.Addr, err error) {
	MakeRoom()
	if o.File != nil {
		return adopt(network, o)
	}
	sa, err := listenAddr(network, address)
	if err != nil {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	if sa.Family() == unix.AF_UNIX {
		n = 1
	}
	for i := range max(n, 1) {
		fd, err := listenOne(network, &sa, o, i > 0, n > 1)
		if i == 0 && network == "tcp" && isUnspecified6(&sa) && noIPv6(err) {
			sa, _ = FromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), order(sa.inet6().Port)))
			fd, err = listenOne(network, &sa, o, false, n > 1)
		}
		if err != nil {
			CloseAll(fds)
			return nil, nil, err
		}
		fds = append(fds, fd)
		if i == 0 { // a port of the kernel's choice is the others' port too
			if errno := ask(unix.SYS_GETSOCKNAME, fd, &sa); errno != 0 {
				CloseAll(fds)
				return nil, nil, listenError(network, &sa, "getsockname", errno)
			}
		}
	}
	return fds, sa.NetAddr(), nil
}

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// listenAddr is the address to bind.
func listenAddr(network, address string) (Sockaddr, error) {
	sas, err := resolve(context.Background(), network, address, true)
	if err != nil {
		return Sockaddr{}, err
	}
	if i := slices.IndexFunc(sas, func(s Sockaddr) bool { return s.Family() == unix.AF_INET }); i > 0 {
		return sas[i], nil
	}
	return sas[0], nil
}

// listenOne makes one listening socket. With join it joins a port that has its
// first socket; with share the first lets others join once it has the port.
func listenOne(network string, sa *Sockaddr, o *couplet.Options, join, share bool) (int, error) {
	fd, err := open("listen", sa, o, func(fd int) error { return beforeBind(fd, network, sa, join) })
	if err != nil {
		return -1, err
	}
	path := ""
	if sa.Family() == unix.AF_UNIX && sa.path()[0] != '@' {
		path = sa.path()
		defer LockDirectory(path)()
	}
	call, errno := "bind", bind(fd, sa)
	if errno == unix.EADDRINUSE && path != "" && removeStale(sa, path) {
		errno = bind(fd, sa)
	}
	if errno == 0 {
		call, errno = "listen", errnoOf(unix.Listen(fd, o.Backlog))
	}
	if errno == 0 && share && !join {
		// Not before listen: that is where two sockets that were bound at the
		// same moment find out. The kernel makes the group when one joins.
		call, errno = "setsockopt", errnoOf(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if errno != 0 {
		unix.Close(fd)
		return -1, listenError(network, sa, call, errno)
	}
	return fd, nil
}

func beforeBind(fd int, network string, sa *Sockaddr, join bool) error {
	if sa.Family() == unix.AF_UNIX {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if sa.Family() == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, flag(network == "tcp6")); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if join {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	return nil
}

func bind(fd int, sa *Sockaddr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(sa.Ptr()), uintptr(sa.n))
	return errno
}

// adopt duplicates a listening socket that was handed over.
func adopt(network string, o *couplet.Options) ([]int, net.Addr, error) {
	fail := func(err error) ([]int, net.Addr, error) {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	rc, err := o.File.SyscallConn()
	if err != nil {
		return fail(err)
	}
	var fd int
	if cerr := rc.Control(func(f uintptr) {
		fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return fail(cerr)
	}
	if err != nil {
		return fail(SyscallError("fcntl", err))
	}
	var sa Sockaddr
	if err = checkAdopted(fd, network, &sa); err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
	}
	if err == nil {
		err = setOptions(fd, sa.Family(), o)
	}
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return []int{fd}, sa.NetAddr(), nil
}

func checkAdopted(fd int, network string, sa *Sockaddr) error {
	if errno := ask(unix.SYS_GETSOCKNAME, fd, sa); errno != 0 {
		return os.NewSyscallError("getsockname", errno)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	if listening == 0 || kind != unix.SOCK_STREAM {
		return errors.New("the file is not a listening stream socket")
	}
	var fit bool
	switch network {
	case "tcp":
		fit = sa.Family() == unix.AF_INET || sa.Family() == unix.AF_INET6
	case "tcp4":
		fit = sa.Family() == unix.AF_INET
	case "tcp6":
		fit = sa.Family() == unix.AF_INET6
	case "unix":
		fit = sa.Family() == unix.AF_UNIX
	default:
		return net.UnknownNetworkError(network)
	}
	if !fit {
		return errors.New("the file is not a " + network + " socket")
	}
	return nil
}

func listenError(network string, sa *Sockaddr, call string, errno unix.Errno) error {
	return &net.OpError{Op: "listen", Net: network, Addr: sa.NetAddr(), Err: os.NewSyscallError(call, errno)}
}

func isUnspecified6(sa *Sockaddr) bool {
	return sa.Family() == unix.AF_INET6 && sa.inet6().Addr == [16]byte{}
}

// noIPv6 reports whether err says that the host has no IPv6: the module is not
// there, or it is switched off by sysctl.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func errnoOf(err error) unix.Errno {
	errno, _ := err.(unix.Errno)
	return errno
}
