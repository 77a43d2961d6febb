//go:build linux

package enginetest

import (
	"bytes"
	"net"
	"slices"
	"syscall"
)

// simGroup is the listening sockets of one address.
type simGroup struct {
	addr    net.Addr
	sockets []*simSocket
}

func (n *SimNet) newSocket(unix bool) *simSocket {
	n.lastID++
	return &simSocket{
		net: n, id: n.lastID, fd: -1, unix: unix,
		rcvbuf: n.config.ReceiveBuffer, sndbuf: n.config.SendBuffer,
	}
}

// simSocket is a socket: fresh, listening, connecting or connected, and then
// dead (reset) or orphaned (closed by its user).
type simSocket struct {
	net           *SimNet
	id            int
	fd            int
	unix          bool
	listed        bool // in net.active
	frozen        bool // nothing that it sends travels
	local, remote net.Addr

	rcvbuf, sndbuf int

	// Of a listening socket.
	group   *simGroup
	backlog int
	queue   []*simSocket // connected and not accepted
	accept  *simAccept

	// Of a connected socket.
	peer   *simSocket
	in     bytes.Buffer // arrived and not read
	out    bytes.Buffer // sent and not arrived
	dead   bool         // reset, by either side
	orphan bool
	err    syscall.Errno // waits to be told

	sent, acked, owed int64 // owed: what arrived here and is not acknowledged
	received          int64
	finQueued         bool
	finArrived        bool // at the peer
	finOwed           bool // the peer's arrived here and is not acknowledged
	finAcked          bool
	eof               bool // the peer's arrived here
	rst               bool // a reset is on its way to the peer
	wasReset          bool // the peer's reset arrived here
	told              bool

	// Of a loop and its driver.
	shut bool // ShutdownWrite was called
	conn *simConn
}

type simStep func(*simSocket)

// steps are the steps that s can make.
func (s *simSocket) steps(can []simStep) []simStep {
	if s.peer != nil && !s.frozen {
		switch {
		case s.rst:
			can = append(can, (*simSocket).sendReset)
		case s.dead:
		case s.out.Len() > 0:
			if s.peer.orphan || s.peer.dead || s.room() > 0 {
				can = append(can, (*simSocket).travel)
			}
		case s.finQueued && !s.finArrived:
			can = append(can, (*simSocket).travelFin)
		}
		if (s.owed > 0 || s.finOwed) && !s.dead {
			can = append(can, (*simSocket).acknowledge)
		}
	}
	if s.accept != nil {
		can = s.accept.steps(can)
	}
	if s.conn != nil {
		can = s.conn.steps(can)
	}
	return can
}

// room is what the peer takes.
func (s *simSocket) room() int { return s.peer.rcvbuf - s.peer.in.Len() }

// travel moves bytes to the peer. Where its user has closed there is nobody to
// read them, and the answer is a reset.
func (s *simSocket) travel() {
	p := s.peer
	if p.orphan || p.dead {
		s.out.Reset()
		if !p.dead {
			p.die()
		}
		p.rst = true
		s.net.touch(s, p)
		return
	}
	k := s.net.chunk(min(s.out.Len(), s.room()))
	p.in.Write(s.out.Next(k))
	p.owed += int64(k)
	s.net.touch(s, p)
}

func (s *simSocket) travelFin() {
	s.finArrived = true
	s.peer.eof, s.peer.finOwed = true, true
	s.net.touch(s, s.peer)
}

// acknowledge tells the peer what has arrived.
func (s *simSocket) acknowledge() {
	s.peer.acked += s.owed
	s.owed = 0
	if s.finOwed {
		s.finOwed = false
		s.peer.finAcked = true
	}
	s.net.touch(s, s.peer)
}

// sendReset brings the peer the news.
func (s *simSocket) sendReset() {
	s.rst = false
	p := s.peer
	s.net.touch(s, p)
	if p.dead {
		return
	}
	p.die()
	p.wasReset = true
	p.err = syscall.ECONNRESET
	if p.eof { // the end was there before: only writing is wrong
		p.err = syscall.EPIPE
	}
}

// die drops what was to be sent.
func (s *simSocket) die() {
	s.dead = true
	s.out.Reset()
	s.rst = false
}

// readable reports whether a receive has something to say.
func (s *simSocket) readable() bool { return s.in.Len() > 0 || s.eof || s.err != 0 || s.dead }

// receive reads into p: what arrived, then an end or an error. An error is told
// once; what comes after it looks like an end.
func (s *simSocket) receive(p []byte) (int, syscall.Errno) {
	s.net.touch(s, s.peer) // there is room again
	switch {
	case s.in.Len() > 0:
		k, _ := s.in.Read(p)
		s.received += int64(k)
		return k, 0
	case s.eof && !s.unix:
		return 0, 0
	}
	return 0, s.takeError()
}

func (s *simSocket) takeError() syscall.Errno {
	e := s.err
	s.err = 0
	s.told = s.told || e != 0
	return e
}

// space is what a send can put into the socket.
func (s *simSocket) space() int {
	if s.unix { // it goes straight into the peer's queue
		return min(s.sndbuf, s.peer.rcvbuf) - s.out.Len() - s.peer.in.Len()
	}
	return s.sndbuf - int(s.sent-s.acked)
}

// writable reports whether a send has something to do or to say.
func (s *simSocket) writable() bool {
	return s.err != 0 || s.dead || s.finQueued || s.unix && s.peer.orphan || s.space() > 0
}

// send takes the beginning of p, at most k bytes.
func (s *simSocket) send(p []byte, k int) (int, syscall.Errno) {
	if e := s.takeError(); e != 0 {
		return 0, e
	}
	if s.dead || s.finQueued || s.unix && s.peer.orphan {
		s.told = true
		return 0, syscall.EPIPE
	}
	k = min(k, len(p), s.space())
	if k <= 0 {
		return 0, syscall.EAGAIN
	}
	s.out.Write(p[:k])
	s.sent += int64(k)
	if s.unix {
		s.peer.in.Write(s.out.Next(k))
		s.acked += int64(k)
	}
	s.net.touch(s, s.peer)
	return k, 0
}

// closeWrite sends a FIN behind what was sent.
func (s *simSocket) closeWrite() {
	if s.dead || s.finQueued || s.peer == nil {
		return
	}
	s.finQueued = true
	if s.unix {
		s.travelFin()
	}
	s.net.touch(s)
}

// acknowledged is what SIOCOUTQ says, or SIOCINQ on a unix socket.
func (s *simSocket) acknowledged() bool {
	if s.unix {
		return s.in.Len() == 0
	}
	return s.sent == s.acked && (!s.finQueued || s.finAcked)
}

// close gives the descriptor back.
func (s *simSocket) close(reset bool) {
	n := s.net
	n.files[s.fd-simBase] = nil
	s.fd = -1
	s.orphan = true
	s.conn = nil
	n.touch(s, s.peer)
	if s.group != nil {
		s.stopListening()
		return
	}
	if s.peer == nil {
		return
	}
	if n.config.Closed != nil && s.local != nil {
		n.config.Closed(SimEnd{s.id, s.peer.id, s.local, s.remote, s.sent, s.acked, s.received,
			s.finQueued, s.finAcked, s.eof, s.wasReset, reset || s.in.Len() > 0, s.told})
	}
	switch {
	case s.dead:
	case s.unix:
		if s.in.Len() > 0 {
			s.peer.err = syscall.ECONNRESET
		}
		s.peer.eof = true
		s.finQueued, s.finArrived = true, true
	case reset || s.in.Len() > 0:
		s.die()
		s.rst = true
	default:
		s.finQueued = true
	}
}

func (s *simSocket) stopListening() {
	g := s.group
	g.sockets = slices.DeleteFunc(g.sockets, func(o *simSocket) bool { return o == s })
	if len(g.sockets) == 0 {
		delete(s.net.ports, simKey(g.addr))
	}
	for _, c := range s.queue {
		c.drop()
	}
	s.queue = nil
	s.net.roomToConnect()
}

// drop ends a connection that nobody has accepted.
func (s *simSocket) drop() {
	s.orphan = true
	s.die()
	s.rst = true
	s.net.touch(s, s.peer)
}

// answered reports whether a connect to an address has an outcome now: a TCP
// connect waits for a place in the queue.
func (s *simSocket) answered(to net.Addr) bool {
	if s.unix {
		return true
	}
	if s.net.stalled[simKey(to)] {
		return false
	}
	g := s.net.group(to)
	return g == nil || g.free() != nil
}

// roomToConnect has those that wait for a place try again.
func (n *SimNet) roomToConnect() {
	n.waiting = slices.DeleteFunc(n.waiting, func(s *simSocket) bool {
		return s.fd < 0 || s.peer != nil
	})
	n.touch(n.waiting...)
}

// free is the sockets of g that have a place in their queue.
func (g *simGroup) free() (free []*simSocket) {
	for _, l := range g.sockets {
		if len(l.queue) < l.backlog {
			free = append(free, l)
		}
	}
	return free
}

// connect connects s to the listener at an address, or tells why not.
func (s *simSocket) connect(to net.Addr) syscall.Errno {
	n := s.net
	if n.stalled[simKey(to)] {
		return syscall.EAGAIN
	}
	g := n.group(to)
	if g == nil {
		if s.unix && !n.refusing[simKey(to)] {
			return syscall.ENOENT
		}
		return syscall.ECONNREFUSED
	}
	free := g.free()
	if free == nil {
		return syscall.EAGAIN
	}
	l := free[n.pick(len(free))]
	p := n.newSocket(s.unix)
	p.rcvbuf, p.sndbuf = l.rcvbuf, l.sndbuf
	p.peer, s.peer = s, p
	s.remote, p.local = to, to
	if s.local == nil {
		s.local = n.freshAddr(to)
	}
	p.remote = s.local
	l.queue = append(l.queue, p)
	n.touch(l, s, p)
	return 0
}

// group is who listens at an address, if anybody.
func (n *SimNet) group(to net.Addr) *simGroup {
	if g := n.ports[simKey(to)]; g != nil {
		return g
	}
	if a, ok := to.(*net.TCPAddr); ok {
		if g := n.ports[simKey(&net.TCPAddr{IP: net.IPv4zero, Port: a.Port})]; g != nil && a.IP.To4() != nil {
			return g
		}
		return n.ports[simKey(&net.TCPAddr{IP: net.IPv6zero, Port: a.Port})]
	}
	return nil
}

func simKey(a net.Addr) string { return a.Network() + " " + a.String() }

// freshAddr is an address that nobody had before, on the host of another.
func (n *SimNet) freshAddr(like net.Addr) net.Addr {
	a, ok := like.(*net.TCPAddr)
	if !ok {
		return &net.UnixAddr{Name: "@", Net: "unix"}
	}
	n.lastPort++
	return &net.TCPAddr{IP: a.IP, Port: n.lastPort, Zone: a.Zone}
}

// setBuffers sets the socket's buffers as SO_RCVBUF and SO_SNDBUF do.
func (s *simSocket) setBuffers(receive, send int) {
	if receive > 0 {
		s.rcvbuf = receive
	}
	if send > 0 {
		s.sndbuf = send
	}
}

// listen makes k sockets that listen at an address.
func (n *SimNet) listen(addr net.Addr, backlog, k int) ([]*simSocket, net.Addr, syscall.Errno) {
	if a, ok := addr.(*net.TCPAddr); ok && a.Port == 0 {
		addr = n.freshAddr(a)
	}
	if n.ports[simKey(addr)] != nil || n.stalled[simKey(addr)] {
		return nil, addr, syscall.EADDRINUSE
	}
	g := &simGroup{addr: addr}
	for range k {
		s := n.newSocket(addr.Network() == "unix")
		s.local, s.group, s.backlog = addr, g, max(backlog, 1)
		n.file(s)
		g.sockets = append(g.sockets, s)
	}
	n.ports[simKey(addr)] = g
	n.roomToConnect()
	return g.sockets, addr, 0
}
