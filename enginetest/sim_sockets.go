//go:build linux

package enginetest

import (
	"context"
	"net"
	"os"
	"slices"
	"syscall"

	"couplet"
	"couplet/internal/loop"
	"couplet/internal/sock"
)

// simSockets is the loop.Sockets of a SimNet. The only name there is is
// "localhost".
type simSockets struct{ net *SimNet }

var _ loop.Sockets = simSockets{}

// Sockets is what loop.Prepare needs of the network.
func (n *SimNet) Sockets() loop.Sockets { return simSockets{n} }

// Listen implements loop.Sockets.
func (x simSockets) Listen(network, address string, o *couplet.Options, k int) ([]int, net.Addr, error) {
	n := x.net
	if o.File != nil {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Err: couplet.ErrNotSupported}
	}
	sa, ok, err := sock.Parse(network, address, true)
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		sa, _, _ = sock.Parse(network, "127.0.0.1:0", true)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	sockets, addr, errno := n.listen(sa.NetAddr(), o.Backlog, k)
	if errno != 0 {
		return nil, nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: os.NewSyscallError("bind", errno)}
	}
	var fds []int
	for _, s := range sockets {
		s.setBuffers(o.ReceiveBuffer, o.SendBuffer)
		fds = append(fds, s.fd)
	}
	return fds, addr, nil
}

// Parse implements loop.Sockets.
func (simSockets) Parse(network, address string) (sock.Sockaddr, bool, error) {
	return sock.Parse(network, address, false)
}

// Resolve implements loop.Sockets.
func (simSockets) Resolve(ctx context.Context, network, address string) ([]sock.Sockaddr, error) {
	host, port, err := net.SplitHostPort(address)
	ip := "127.0.0.1"
	if network == "tcp6" {
		ip = "::1"
	}
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case host != "localhost":
		err = &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	sa, _, err := sock.Parse(network, net.JoinHostPort(ip, port), false)
	return []sock.Sockaddr{sa}, err
}

// Socket implements loop.Sockets.
func (x simSockets) Socket(sa *sock.Sockaddr, o *couplet.Options) (int, error) {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.config.MaxFiles > 0 && n.open() >= n.config.MaxFiles {
		return -1, &net.OpError{Op: "dial", Net: sa.Network(), Addr: sa.NetAddr(), Err: os.NewSyscallError("socket", syscall.EMFILE)}
	}
	s := n.newSocket(sa.Network() == "unix")
	s.setBuffers(o.ReceiveBuffer, o.SendBuffer)
	n.file(s)
	return s.fd, nil
}

// Peer implements loop.Sockets.
func (x simSockets) Peer(fd int) (net.Addr, error) {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.socket(fd)
	if s.peer == nil || s.dead {
		return nil, os.NewSyscallError("getpeername", syscall.ENOTCONN)
	}
	return s.remote, nil
}

// Local implements loop.Sockets.
func (x simSockets) Local(fd int) (net.Addr, error) {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.socket(fd).local, nil
}

// Acknowledged implements loop.Sockets.
func (x simSockets) Acknowledged(fd int, unix bool) bool {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.socket(fd).acknowledged()
}

// Torn implements loop.Sockets.
func (x simSockets) Torn(fd int, unix bool) bool {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.socket(fd).dead
}

// ShutdownWrite implements loop.Sockets.
func (x simSockets) ShutdownWrite(fd int) error {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.socket(fd)
	if k := s.conn; k != nil && (k.closing || k.send != nil || k.c.Head() != nil) {
		n.fail("ShutdownWrite with something queued or in flight, or after Close")
	}
	if s.shut {
		n.fail("ShutdownWrite again")
	}
	s.shut = true
	if s.dead && !s.unix {
		return os.NewSyscallError("shutdown", syscall.ENOTCONN)
	}
	s.closeWrite()
	n.moved()
	return nil
}

// SocketError implements loop.Sockets.
func (x simSockets) SocketError(fd int) syscall.Errno {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.socket(fd).takeError()
}

// Pending implements loop.Sockets.
func (x simSockets) Pending(fd int, connecting bool) bool {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.socket(fd)
	if connecting {
		return !s.conn.connecting || s.answered(s.conn.to)
	}
	return s.readable()
}

// Progress implements loop.Sockets.
func (x simSockets) Progress(fd int, unix bool) uint64 {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.socket(fd)
	if unix && s.peer != nil {
		return uint64(s.peer.in.Len())
	}
	return uint64(s.acked)
}

// Release implements loop.Sockets.
func (x simSockets) Release(fd int) { x.release(fd, false) }

// Reset implements loop.Sockets.
func (x simSockets) Reset(fd int) { x.release(fd, true) }

func (x simSockets) release(fd int, reset bool) {
	n := x.net
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.socket(fd)
	if s.fd != fd {
		return // told already
	}
	if s.conn != nil || s.accept != nil {
		n.fail("descriptor %d is closed while a driver works on it", fd)
	}
	s.close(reset)
	n.moved()
}

// moved is called after a change that no driver has made: a network with live loops
// moves at once.
func (n *SimNet) moved() {
	if slices.ContainsFunc(n.drivers, func(d *simDriver) bool { return d.live }) {
		n.run()
	}
}
