//go:build linux

package enginetest

import (
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"couplet/internal/sock"
)

var _ Network = (*SimNet)(nil)

// address is the numeric address of a peer's call.
func (n *SimNet) address(op, network, address string) (net.Addr, error) {
	sa, ok, err := sock.Parse(network, address, op == "listen")
	if err == nil && !ok {
		err = &net.OpError{Op: op, Net: network, Err: &net.AddrError{Err: "not numeric", Addr: address}}
	}
	return sa.NetAddr(), err
}

// await waits, with the lock held, until cond or deadline.
func (n *SimNet) await(deadline time.Time, cond func() bool) error {
	if cond() {
		return nil
	}
	if !deadline.IsZero() {
		t := time.AfterFunc(time.Until(deadline), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.changed.Broadcast()
		})
		defer t.Stop()
	}
	for !cond() {
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return os.ErrDeadlineExceeded
		}
		n.changed.Wait()
	}
	return nil
}

// Listen implements Network.
func (n *SimNet) Listen(network, address string) (PeerListener, error) {
	addr, err := n.address("listen", network, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	sockets, addr, errno := n.listen(addr, 128, 1)
	if errno != 0 {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: os.NewSyscallError("bind", errno)}
	}
	return &simListener{net: n, s: sockets[0]}, nil
}

// Dial implements Network.
func (n *SimNet) Dial(network, address string, readBuffer int) (Peer, error) {
	to, err := n.address("dial", network, address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.newSocket(to.Network() == "unix")
	s.setBuffers(readBuffer, 0)
	n.file(s)
	n.waiting = append(n.waiting, s)
	fail := func(err error) error {
		s.close(false)
		return &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
	}
	if err := n.await(time.Now().Add(caseTime()), func() bool { return s.answered(to) }); err != nil {
		return nil, fail(err)
	}
	if errno := s.connect(to); errno != 0 {
		return nil, fail(os.NewSyscallError("connect", errno))
	}
	n.run()
	return &simPlain{net: n, s: s, local: s.local, remote: s.remote}, nil
}

// Refuse implements Network.
func (n *SimNet) Refuse(network string) (string, func(), error) {
	return n.reserve(network, n.refusing)
}

// Stall implements Network.
func (n *SimNet) Stall(network string) (string, func(), error) {
	return n.reserve(network, n.stalled)
}

// reserve notes an address that nobody has.
func (n *SimNet) reserve(network string, as map[string]bool) (string, func(), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastPort++
	port := strconv.Itoa(n.lastPort)
	address, ok := map[string]string{
		"tcp4": "127.0.0.1:" + port, "tcp6": "[::1]:" + port, "unix": "/simulated/" + port,
	}[network]
	if !ok {
		return "", nil, net.UnknownNetworkError(network)
	}
	addr, err := n.address("dial", network, address)
	if err != nil {
		return "", nil, err
	}
	as[simKey(addr)] = true
	return address, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(as, simKey(addr))
		n.roomToConnect()
		n.run()
	}, nil
}

// simListener is a listener that is no engine's.
type simListener struct {
	net *SimNet
	s   *simSocket
}

// Addr implements PeerListener.
func (l *simListener) Addr() net.Addr { return l.s.local }

// Accept implements PeerListener.
func (l *simListener) Accept() (Peer, error) {
	n := l.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.await(time.Time{}, func() bool { return l.s.fd < 0 || len(l.s.queue) > 0 })
	if l.s.fd < 0 {
		return nil, &net.OpError{Op: "accept", Net: l.s.local.Network(), Addr: l.s.local, Err: net.ErrClosed}
	}
	s := l.s.queue[0]
	l.s.queue = l.s.queue[1:]
	n.roomToConnect()
	n.file(s)
	n.touch(s, s.peer)
	n.run()
	return &simPlain{net: n, s: s, local: s.local, remote: s.remote}, nil
}

// Close implements PeerListener.
func (l *simListener) Close() error {
	n := l.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.s.fd < 0 {
		return net.ErrClosed
	}
	l.s.close(false)
	n.run()
	return nil
}

// simPlain is a connection that is no engine's.
type simPlain struct {
	net           *SimNet
	s             *simSocket
	local, remote net.Addr

	writing  sync.Mutex // one Write at a time
	deadline time.Time  // under net.mu
}

// LocalAddr implements Peer.
func (c *simPlain) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements Peer.
func (c *simPlain) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements Peer.
func (c *simPlain) SetDeadline(t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	c.deadline = t
	c.net.changed.Broadcast()
	return nil
}

func (c *simPlain) error(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// Read implements Peer.
func (c *simPlain) Read(p []byte) (int, error) {
	n, s := c.net, c.s
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.await(c.deadline, func() bool { return s.fd < 0 || s.readable() }); err != nil {
		return 0, c.error("read", err)
	}
	if s.fd < 0 {
		return 0, c.error("read", net.ErrClosed)
	}
	got, errno := s.receive(p)
	n.run()
	switch {
	case errno != 0:
		return 0, c.error("read", errno)
	case got == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return got, nil
}

// Write implements Peer.
func (c *simPlain) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, s := c.net, c.s
	n.mu.Lock()
	defer n.mu.Unlock()
	done := 0
	for done < len(p) {
		if err := n.await(c.deadline, func() bool { return s.fd < 0 || s.writable() }); err != nil {
			return done, c.error("write", err)
		}
		if s.fd < 0 {
			return done, c.error("write", net.ErrClosed)
		}
		k, errno := s.send(p[done:], len(p))
		done += k
		n.run()
		if errno != 0 && errno != syscall.EAGAIN {
			return done, c.error("write", errno)
		}
	}
	return done, nil
}

// CloseWrite implements Peer.
func (c *simPlain) CloseWrite() error {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.s.fd < 0 {
		return c.error("close", net.ErrClosed)
	}
	if c.s.dead {
		return c.error("shutdown", syscall.ENOTCONN)
	}
	c.s.closeWrite()
	n.run()
	return nil
}

// Close implements Peer.
func (c *simPlain) Close() error { return c.end(false) }

// Reset implements Peer.
func (c *simPlain) Reset() error { return c.end(true) }

func (c *simPlain) end(reset bool) error {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.s.fd < 0 {
		return c.error("close", net.ErrClosed)
	}
	c.s.close(reset)
	n.run()
	return nil
}
