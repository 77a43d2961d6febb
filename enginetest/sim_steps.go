//go:build linux

package enginetest

import (
	"hash/maphash"
	"net"
	"syscall"

	"couplet/internal/loop"
)

// simConn is what a driver and the network keep of a loop.Conn.
type simConn struct {
	d          *simDriver
	c          *loop.Conn
	s          *simSocket
	slot, gen  uint32
	connecting bool
	to         net.Addr

	wanted     bool // the loop wants to receive
	armed      bool // a receive is in the network's hands
	cancelling bool // ... and is to be taken back
	told       bool // the end of receiving was reported
	ended      bool // ... or is about to be
	watched    bool // Watch was called ...
	watching   bool // ... and has met no error yet

	send    *simSend // in flight until it was reported
	closing bool
	closed  bool // Closed is about to be reported
	how     loop.CloseMode
	pending int // operations whose last completion was not reported
}

// simSend is a send in flight.
type simSend struct {
	bufs      [][]byte
	sum       uint64
	size      int
	taken     int
	completed bool
}

// simAccept is a listener that was told to accept.
type simAccept struct {
	d        *simDriver
	l        *loop.Listener
	s        *simSocket
	stopping bool
	over     bool // its last completion is there
}

// steps are the steps of an accept in flight.
func (a *simAccept) steps(can []simStep) []simStep {
	if a.over {
		return can
	}
	if a.stopping {
		can = append(can, stepStopAccept)
	}
	if len(a.s.queue) > 0 {
		can = append(can, stepAccept)
	}
	return can
}

func stepStopAccept(s *simSocket) {
	a := s.accept
	a.over = true
	a.d.complete(&simDone{kind: simAcceptStopped, accept: a})
}

func stepAccept(s *simSocket) {
	a, n := s.accept, s.net
	fail := func(errno syscall.Errno) {
		if !a.stopping {
			a.over = true
			a.d.complete(&simDone{kind: simAccepted, accept: a, fd: -1, errno: errno})
		}
	}
	n.touch(s)
	limit := n.config.MaxFiles > 0 && n.open() >= n.config.MaxFiles
	if !a.stopping && (limit || n.mishap()) {
		errno := syscall.EMFILE
		if !limit && n.pick(2) == 0 {
			errno = syscall.ECONNABORTED
			s.queue[0].drop()
			s.queue = s.queue[1:]
			n.roomToConnect()
		}
		fail(errno)
		return
	}
	if limit {
		return
	}
	c := s.queue[0]
	s.queue = s.queue[1:]
	n.roomToConnect()
	n.file(c)
	a.d.complete(&simDone{kind: simAccepted, accept: a, fd: c.fd})
	n.touch(c, c.peer)
}

// arm gives the network a receive, unless one is still being taken back.
func (k *simConn) arm() {
	if k.wanted && !k.armed && !k.closing && !k.ended {
		k.armed, k.cancelling = true, false
		k.pending++
		k.d.net.touch(k.s)
	}
}

var simSeed = maphash.MakeSeed()

// sum is over everything that a send covers.
func (o *simSend) check() uint64 {
	var h maphash.Hash
	h.SetSeed(simSeed)
	for _, b := range o.bufs {
		h.Write(b)
	}
	return h.Sum64()
}

// settle closes the descriptor of a closing connection with the last of its
// operations.
func (k *simConn) settle() {
	if k.closing && !k.closed && k.pending == 0 {
		k.release()
	}
}

func (k *simConn) release() {
	k.unchanged()
	k.closed = true
	k.s.close(k.how == loop.Reset)
	k.d.complete(&simDone{kind: simClosed, conn: k})
}

// unchanged checks that what a send covers is as it was.
func (k *simConn) unchanged() {
	if o := k.send; o != nil && o.check() != o.sum {
		k.d.net.fail("the bytes of a send in flight have changed")
		o.sum = o.check()
	}
}

// steps are the steps of the operations in flight on a connected socket.
func (k *simConn) steps(can []simStep) []simStep {
	if k.connecting {
		if k.s.answered(k.to) {
			can = append(can, stepConnect)
		}
		if k.closing {
			can = append(can, stepCancelConnect)
		}
	}
	if k.armed {
		switch {
		case !k.s.readable():
		case k.d.chunks < k.d.net.config.Chunks:
			can = append(can, stepReceive)
		default:
			k.d.starved = append(k.d.starved, k.s)
		}
		if k.cancelling || k.closing {
			can = append(can, stepCancelReceive)
		}
	}
	if k.watching && k.s.err != 0 && !k.closing {
		can = append(can, stepBreak)
	}
	if o := k.send; o != nil && !o.completed {
		if k.s.writable() {
			can = append(can, stepSend)
		}
		if k.closing {
			can = append(can, stepCancelSend)
		}
	}
	return can
}

func stepConnect(s *simSocket) {
	k := s.conn
	errno := s.connect(k.to)
	k.connecting = false
	k.d.complete(&simDone{kind: simConnected, conn: k, errno: errno})
}

func stepCancelConnect(s *simSocket) {
	s.conn.connecting = false
	s.conn.d.complete(&simDone{kind: simConnected, conn: s.conn, errno: syscall.ECANCELED})
}

func stepReceive(s *simSocket) {
	k, n := s.conn, s.net
	n.touch(s)
	var p []byte
	if s.in.Len() > 0 {
		p = k.d.memory(n.chunk(min(s.in.Len(), k.c.Budget())))
	}
	got, errno := s.receive(p)
	if got > 0 {
		k.d.chunks++
		k.d.complete(&simDone{kind: simReceived, conn: k, data: p[:got]})
		return
	}
	k.armed, k.ended = false, true
	k.d.complete(&simDone{kind: simEnded, conn: k, errno: errno})
}

func stepBreak(s *simSocket) {
	s.conn.watching = false
	s.conn.d.complete(&simDone{kind: simBroken, conn: s.conn, errno: s.takeError()})
}

func stepCancelReceive(s *simSocket) {
	s.conn.armed = false
	s.conn.d.complete(&simDone{kind: simCancelled, conn: s.conn})
}

func stepSend(s *simSocket) {
	k, n := s.conn, s.net
	o := k.send
	n.touch(s)
	finish := func(errno syscall.Errno) {
		if o.taken > 0 {
			errno = 0 // what was taken is told, and the error is not
		}
		o.completed = true
		k.unchanged()
		k.d.complete(&simDone{kind: simSent, conn: k, n: o.taken, errno: errno})
	}
	if o.taken == 0 && n.mishap() {
		finish([]syscall.Errno{syscall.EAGAIN, syscall.ENOBUFS, syscall.EINTR, syscall.ENOMEM}[n.pick(4)])
		return
	}
	left := n.chunk(o.size - o.taken)
	at := o.taken
	for _, b := range o.bufs {
		if at >= len(b) {
			at -= len(b)
			continue
		}
		for left > 0 && at < len(b) {
			got, errno := s.send(b[at:], left)
			if errno == syscall.EAGAIN {
				left = 0
				break
			}
			if errno != 0 {
				finish(errno)
				return
			}
			o.taken += got
			at += got
			left -= got
		}
		at = 0
	}
	if o.taken == o.size || o.taken > 0 && (!n.config.WaitAll || s.unix) {
		finish(0)
	}
}

func stepCancelSend(s *simSocket) {
	o := s.conn.send
	o.completed = true
	s.conn.d.complete(&simDone{kind: simSent, conn: s.conn, n: o.taken, errno: syscall.ECANCELED})
}
