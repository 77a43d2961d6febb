//go:build linux

package enginetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"

	"couplet"
	"couplet/internal/loop"
)

// SimConfig is how a simulated network behaves. The zero value is a friendly
// one: every step happens as soon as it can, in an order drawn from Seed 0.
type SimConfig struct {
	// Seed is where all chance comes from.
	Seed uint64
	// Choose, if not nil, takes every decision in place of chance: it returns
	// a number below n. With it nothing is random.
	Choose func(n int) int

	// SendBuffer and ReceiveBuffer are what a socket takes in each direction
	// (64 KiB each by default).
	SendBuffer, ReceiveBuffer int
	// MaxChunk is the most bytes that one step of the network or one receive
	// moves (64 KiB by default).
	MaxChunk int
	// Chunks is how many received chunks may wait to be reported on a loop (16
	// by default): beyond that receiving pauses, as for want of buffers.
	Chunks int
	// MaxFiles is the most descriptors there are; beyond it accept meets
	// EMFILE. Zero: no limit.
	MaxFiles int

	// Mishaps is how many in a thousand operations meet an error that passes:
	// EAGAIN or ENOBUFS for a send, ECONNABORTED or EMFILE for an accept.
	Mishaps int
	// AtOnce has drivers close a descriptor within Close, as a reactor does,
	// and not when the last operation has ended, as a proactor does.
	AtOnce bool
	// WaitAll has a send go on until all was taken, and complete short only
	// where an error ends it.
	WaitAll bool
	// Lazy has network and drivers do only a part of what they could before a
	// Wait reports, and report only a part of that. It is for loops that are
	// stepped by hand: what is left needs another Wait.
	Lazy bool

	// Fail is called when a rule of the Driver seam or of a descriptor's life
	// is broken; panic by default.
	Fail func(what string)
	// Closed is called with what became of every connected socket when its
	// descriptor is closed.
	Closed func(SimEnd)
}

// SimEnd is what a simulated kernel knows of a socket whose descriptor is
// closed.
type SimEnd struct {
	Local, Remote net.Addr
	// Sent bytes were taken from the user, Acked of them are with the peer's
	// kernel as far as this one knows, Received were given to the user.
	Sent, Acked, Received int64
	// FinSent, FinAcked and FinReceived tell of the ends of both halves.
	FinSent, FinAcked, FinReceived bool
	// Reset says that the peer's reset had arrived.
	Reset bool
	// Unclean says that the close was a reset, by SO_LINGER or for input that
	// nobody had read.
	Unclean bool
	// ErrorTold says that a call or a completion told the user of it.
	ErrorTold bool
}

// SimNet is a network that exists in memory only: listeners, streams with
// bounded buffers, and the ends a TCP connection can come to. It is a Network
// for plain peers, and the loop.Sockets of engines; each loop reaches it
// through a driver of its own.
//
// Nothing happens by itself. The network moves on by small steps (a chunk
// travels, an acknowledgement, a reset, an operation meets its socket), each
// chosen among those that are possible.
type SimNet struct {
	mu      sync.Mutex
	changed sync.Cond // something happened: for peers that block
	config  SimConfig
	rng     *rand.Rand

	files    []*simSocket // by descriptor less simBase
	ports    map[string]*simGroup
	lastPort int
	lastID   int
	active   []*simSocket // those that may have a step to make
	drivers  []*simDriver
	waiting  []*simSocket // connecting
	frozen   []*simSocket
	kept     int // received Buffers handed over and not released
	stalled  map[string]bool
}

// simBase is the first descriptor: numbers that no real one has.
const simBase = 1 << 24

// simGroup is the listening sockets of one address.
type simGroup struct {
	addr    net.Addr
	sockets []*simSocket
}

// NewSimNet makes a network without any hosts.
func NewSimNet(config SimConfig) *SimNet {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&config.SendBuffer, 64<<10)
	def(&config.ReceiveBuffer, 64<<10)
	def(&config.MaxChunk, 64<<10)
	def(&config.Chunks, 16)
	if config.Fail == nil {
		config.Fail = func(what string) { panic("enginetest: simulation: " + what) }
	}
	n := &SimNet{
		config:   config,
		rng:      rand.New(rand.NewPCG(config.Seed, 0x5eed)),
		ports:    make(map[string]*simGroup),
		lastPort: 10000,
		stalled:  make(map[string]bool),
	}
	n.changed.L = &n.mu
	return n
}

// NewSim starts the engine "sim": loops of their own goroutines, in real time,
// over a simulated network of their own.
func NewSim(seed uint64, config couplet.Config) (couplet.Engine, *SimNet, error) {
	n := NewSimNet(SimConfig{Seed: seed, WaitAll: seed%2 == 0, AtOnce: seed%4 >= 2})
	e, err := n.Engine(config)
	return e, n, err
}

// Engine starts an engine on the network.
func (n *SimNet) Engine(config couplet.Config) (couplet.Engine, error) {
	e, err := loop.NewEngine("sim", config, simSockets{n}, func(l *loop.Loop) (loop.Driver, error) {
		return n.newDriver(l, true), nil
	})
	if err != nil {
		return nil, err
	}
	e.SetDescription(fmt.Sprintf("simulated network, seed %d, loops %d", n.config.Seed, len(e.Loops())))
	return e, nil
}

// pick is a number below k.
func (n *SimNet) pick(k int) int {
	if k <= 1 {
		return 0
	}
	if n.config.Choose != nil {
		return n.config.Choose(k)
	}
	return n.rng.IntN(k)
}

// mishap reports whether an operation is to meet an error that passes.
func (n *SimNet) mishap() bool {
	return n.config.Mishaps > 0 && n.pick(1000) < n.config.Mishaps
}

// chunk is how many of at most k bytes a step moves, at least one.
func (n *SimNet) chunk(k int) int {
	k = min(k, n.config.MaxChunk)
	if n.config.Choose != nil {
		return k - n.pick(k)
	}
	switch n.rng.IntN(8) {
	case 0:
		return 1 + n.rng.IntN(min(k, 4))
	case 1, 2:
		return 1 + n.rng.IntN(k)
	}
	return k
}

// fail notes a broken rule.
func (n *SimNet) fail(format string, args ...any) {
	n.config.Fail(fmt.Sprintf(format, args...))
}

// Files is the number of open descriptors.
func (n *SimNet) Files() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open()
}

func (n *SimNet) open() int {
	open := 0
	for _, s := range n.files {
		if s != nil {
			open++
		}
	}
	return open
}

// Kept is the number of received Buffers that a loop or a protocol has taken
// over and not released.
func (n *SimNet) Kept() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept
}

// Step makes one step, and reports whether there was one to make.
func (n *SimNet) Step() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.step()
}

// step makes one step of a socket chosen among those that can.
func (n *SimNet) step() bool {
	for len(n.active) > 0 {
		i := n.pick(len(n.active))
		s := n.active[i]
		var can [8]simStep
		steps := s.steps(can[:0])
		if len(steps) == 0 {
			n.active[i] = n.active[len(n.active)-1]
			n.active = n.active[:len(n.active)-1]
			s.listed = false
			continue
		}
		steps[n.pick(len(steps))](s)
		return true
	}
	return false
}

// run makes steps until there are none.
func (n *SimNet) run() {
	for n.step() {
	}
	n.changed.Broadcast()
}

// touch has step look at sockets whose state has changed.
func (n *SimNet) touch(sockets ...*simSocket) {
	for _, s := range sockets {
		if s != nil && !s.listed {
			s.listed = true
			n.active = append(n.active, s)
		}
	}
}

// socket is the open socket of a descriptor.
func (n *SimNet) socket(fd int) *simSocket {
	if i := fd - simBase; i >= 0 && i < len(n.files) && n.files[i] != nil {
		return n.files[i]
	}
	n.fail("descriptor %d is used and is not open", fd)
	return new(simSocket)
}

// file gives s the lowest descriptor that is free, as a kernel does.
func (n *SimNet) file(s *simSocket) {
	for i, f := range n.files {
		if f == nil {
			n.files[i], s.fd = s, simBase+i
			return
		}
	}
	s.fd = simBase + len(n.files)
	n.files = append(n.files, s)
}

func (n *SimNet) newSocket(unix bool) *simSocket {
	n.lastID++
	return &simSocket{net: n, id: n.lastID, fd: -1, unix: unix}
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

	// Of a driver.
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
func (s *simSocket) room() int { return s.net.config.ReceiveBuffer - s.peer.in.Len() }

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

// receive reads up to k bytes: what arrived, then an end or an error. An error
// is told once; what comes after it looks like an end.
func (s *simSocket) receive(k int) ([]byte, syscall.Errno) {
	s.net.touch(s, s.peer) // there is room again
	switch {
	case s.in.Len() > 0:
		p := bytes.Clone(s.in.Next(k))
		s.received += int64(len(p))
		return p, 0
	case s.eof && !s.unix:
		return nil, 0
	}
	return nil, s.takeError()
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
		return s.net.config.SendBuffer - s.out.Len() - s.peer.in.Len()
	}
	return s.net.config.SendBuffer - int(s.sent-s.acked)
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
		n.config.Closed(SimEnd{s.local, s.remote, s.sent, s.acked, s.received,
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
		if s.unix {
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

// Freeze holds back all that the connected socket with this local address
// sends from now on, acknowledgements too, until Thaw.
func (n *SimNet) Freeze(local net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.files {
		if s != nil && s.peer != nil && simKey(s.local) == simKey(local) {
			s.frozen = true
			n.frozen = append(n.frozen, s)
		}
	}
}

// Thaw lets everything travel again.
func (n *SimNet) Thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.frozen {
		s.frozen = false
		n.touch(s)
	}
	n.frozen = nil
}
