//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// A completion brings its bytes along: the kernel has copied them for all
// connections of the batch before the first of them is looked at, and they, and what
// is sent in answer, drive each other out of the cache. With little that is nothing.
// With much it cost a fifth of the CPU time (echoes of 64 KiB, see
// bench/RESULTS.md), and there the second call per message, which completions save,
// is cheap.
//
// So a connection whose receive brought much, in a wait that brought more than the
// cache may hold, is received from one by one from then on: a poll tells that
// there is something, and when its turn comes a receive fetches it, into memory that
// was used a moment ago. What was answered to the one before is sent by the same call.
// Its turn lasts until it has no more, or its share was delivered (BytesPerTurn). The
// answer to the first receive, if that is much, goes with the next, so that the peer has
// something to do, and those to all others go together at the turn's end: the larger a
// send, the less the peer's acknowledgements and its next segments cost, which over
// loopback are this CPU's work.
//
// There is one such receive at a time in the whole driver, and d.memory is the
// kernel's while it is in flight. It does not wait, so mostly it is over when the call
// that submits it returns; where the kernel took no entry, or had no room for its
// completion, nothing else is received into d.memory until that comes. It never overlaps
// with a multishot receive of the same connection, which would mix up the order of the
// bytes: the poll is armed after the last completion of that, and that after the poll's
// and the receive's.
//
// The poll tells of changes, so who is received from must be again until there is
// nothing: where the kernel says that there is more, where the memory was filled
// (Multipath TCP says nothing), where the end is behind, and on unix sockets always. A
// poll that tells of more during a turn lists the connection for another, mostly in vain.

// bulkPerTurn is how many such receives there are before all else has a turn.
const bulkPerTurn = 32

// When this is done; a test exchanges them.
var (
	// cacheful is how many bytes a wait may bring by multishot receives: with the
	// kernel's two copies they take three times their place in the cache.
	cacheful = 256 << 10
	// much is how many bytes a receive brings that is worth a call of its own.
	much = loop.Bulk
	// littleInRow is how many receives in a row bring less before a connection goes
	// back to the multishot receive.
	littleInRow = 8
)

// armPoll has the kernel tell that there is something, now and each time more comes.
func (d *driver) armPoll(s *conn) {
	d.start(s, pollOp).PollMultishot(s.c.FD(), unix.POLLIN)
	d.queued(s.key(pollOp), -1)
}

// polled is a completion of the poll for data.
func (d *driver) polled(s *conn, e *ring.CQE) {
	if e.Flags&ring.CQEFMore == 0 {
		s.cancelling = false
		if d.landed(s, pollOp) {
			return
		}
		switch errno := syscall.Errno(-min(e.Res, 0)); {
		case errno == 0:
			d.loop.Count().Rearmed++
		case errno != syscall.ECANCELED:
			s.bulk = false // a receive will say what it is
		}
		d.renewed = append(d.renewed, s.key(pollOp))
	}
	if e.Res > 0 {
		s.behind = s.behind || e.Res&theEnd != 0
		d.list(s)
	}
}

// list gives s a turn.
func (d *driver) list(s *conn) {
	if !s.listed {
		s.listed = true
		d.bulky = append(d.bulky, s.key(readOp))
	}
}

// receiveNext queues the next receive of whose turn it is, or the first of the next
// among the first n of d.bulky that has something.
func (d *driver) receiveNext(n int) {
	for d.turn != 0 || d.served < n {
		k := d.turn
		if d.turn = 0; k == 0 {
			k = d.bulky[d.served]
			d.served++
			d.delivered = 0
		}
		s := d.living(k)
		if s == nil {
			continue
		}
		if d.delivered == 0 {
			s.listed = false
		}
		if s.closing || !s.receiving || s.inFlight.has(receiveOp) {
			continue
		}
		room := d.memory.Room()
		d.reading = len(room)
		d.start(s, readOp).Recv(s.c.FD(), unsafe.Pointer(&room[0]), uint32(len(room)), unix.MSG_DONTWAIT)
		d.queued(k, -1)
		return
	}
}

// receiveBulk goes on with whose turn it is and then has the first n of d.bulky take
// theirs, bulkPerTurn receives in all: one after the other, and with the first of each
// what the one before was answered is sent.
func (d *driver) receiveBulk(n int) {
	for i := 1; i < bulkPerTurn && d.reading == 0 && d.err == nil; i++ {
		if d.receiveNext(n); d.reading == 0 || d.err != nil {
			break
		}
		d.buffers.publish() // who is armed anew may find them
		d.entering()
		d.err = d.ring.Submit()
		d.submitted()
		d.reap()
	}
	d.bulky = d.bulky[:copy(d.bulky, d.bulky[d.served:])]
	d.served = 0
}

// read is the completion of such a receive.
func (d *driver) read(s *conn, e *ring.CQE) {
	filled := int(e.Res) == d.reading
	d.reading = 0
	if d.landed(s, readOp) {
		return
	}
	c := s.c
	switch errno := syscall.Errno(-min(e.Res, 0)); {
	case e.Res > 0:
		data := d.memory.Lend(int(e.Res))
		d.delivered += len(data)
		switch more := e.Flags&ring.CQEFSockNonempty != 0 || filled || s.behind || c.Unix(); {
		case more && d.delivered < c.Budget():
			d.turn = s.key(readOp)
		case more:
			d.list(s)
		}
		if s.little++; len(data) >= much {
			s.little = 0
		} else if int(s.little) >= littleInRow {
			s.bulk = false
			d.interrupt(s)
		}
		d.loop.Received(c, data, &d.memory)
		if d.turn == 0 || d.delivered == len(data) { // the last, or the first
			d.loop.Push(c)
		}
	case errno == syscall.EINTR:
		d.list(s)
	case errno == syscall.EAGAIN:
		d.loop.Push(c)
	default: // the end, or an error
		s.receiving = false
		d.interrupt(s)
		d.loop.ReceiveEnded(c, errno)
	}
}
