//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"
	"unsafe"

	"couplet"
	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// zeroCopyLeast is how many bytes are worth a send without a copy: below, to pin
// the memory and to be told of its end costs more than a copy. A test lowers it.
var zeroCopyLeast = 16 << 10

// loan is a Buffer that the kernel sends from, without a copy, under
// couplet.Ablation. It is a reference of ours from the entry to the last
// completion, which is not the send's: that is when the network has let go of
// the bytes, after the peer has acknowledged them. By then the loop may long have
// dropped its own reference, and the connection and its slot may be gone. So a
// completion is for the place of its loan, which is used again only after the
// last.
type loan struct {
	buffer *couplet.Buffer // nil: a free place
	conn   key             // whose send it was
	taken  bool            // the send's own completion came
}

// lend sends the bytes of a Buffer from where they are, if they are such and
// many enough.
func (d *driver) lend(s *conn, head *loop.Segment) bool {
	b := head.Bytes()
	if head.Shared() == nil || len(b) < zeroCopyLeast || s.copies {
		return false
	}
	b = b[:min(len(b), loop.MaxSend)]
	if len(d.free) == 0 {
		d.free = append(d.free, uint32(len(d.loans)))
		d.loans = append(d.loans, loan{})
	}
	i := d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	d.loans[i] = loan{buffer: head.Shared().Retain(), conn: s.key(zeroCopyOp)}
	s.inFlight |= 1 << zeroCopyOp
	s.size = int32(len(b))
	d.entry(newKey(zeroCopyOp, 0, i)).SendZC(s.c.FD(), unsafe.Pointer(&b[0]), uint32(len(b)), s.sendFlags())
	d.loop.Count().ZeroCopies++
	d.queued(newKey(zeroCopyOp, 0, i), len(b))
	return true
}

// lent is a completion for a loan: of its send, or of the end of it.
func (d *driver) lent(k key, e *ring.CQE) {
	l := &d.loans[k.slot()]
	if e.Flags&ring.CQEFNotif != 0 {
		if e.Res == ring.NotifCopied {
			d.loop.Count().ZeroCopiesCopied++
		}
		d.settle(k.slot())
		return
	}
	l.taken = true
	s := d.known(l.conn) // it is there: it does not go before this
	if e.Flags&ring.CQEFMore == 0 {
		d.settle(k.slot())
	}
	switch syscall.Errno(-min(e.Res, 0)) {
	case syscall.EOPNOTSUPP, syscall.ENOMEM: // no such socket, or the memlock limit
		s.copies = true
		if !d.landed(s, zeroCopyOp) {
			d.Send(s.c)
		}
	default:
		d.sent(s, zeroCopyOp, e)
	}
}

// settle gives a loan's Buffer back, and its place.
func (d *driver) settle(i uint32) {
	b := d.loans[i].buffer
	d.loans[i] = loan{}
	d.free = append(d.free, i)
	d.loop.Release(b)
}

// loanTo is the key of the send without a copy that s has in flight.
func (d *driver) loanTo(s *conn) key {
	for i, l := range d.loans {
		if l.buffer != nil && !l.taken && l.conn == s.key(zeroCopyOp) {
			return newKey(zeroCopyOp, 0, uint32(i))
		}
	}
	panic("proactor: a send without a copy is in flight, and nothing was lent for it")
}

// lending reports whether the network still has something of ours.
func (d *driver) lending() bool { return len(d.free) < len(d.loans) }
