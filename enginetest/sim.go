//go:build linux

package enginetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"

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
	// Whole is the size up to which a piece is never split.
	Whole int
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
	// WaitAll has a send of TCP go on until all was taken, and complete short only
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
	// ID and PeerID number the two sockets of the connection.
	ID, PeerID    int
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
	kept     int             // received Buffers handed over and not released
	stalled  map[string]bool // addresses that never answer ...
	refusing map[string]bool // ... and paths that exist, where nobody listens
}

// simBase is the first descriptor: numbers that no real one has.
const simBase = 1 << 24

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
		refusing: make(map[string]bool),
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
	if k <= n.config.Whole {
		return k
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

// Freeze holds back all that a connected socket sends from now on,
// acknowledgements too, until Thaw. The socket has the number that SimEnd will
// tell.
func (n *SimNet) Freeze(id int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.files {
		if s != nil && s.id == id {
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
