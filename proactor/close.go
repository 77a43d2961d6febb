//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/internal/sock"
	"couplet/proactor/ring"
)

// Close implements loop.Driver. To close a descriptor does not end what is in
// flight on it: that holds the socket open. So everything is cancelled first,
// and the descriptor closed with the last completion. Operations are cancelled
// by their key: the descriptor's number may be a stranger's by the time the
// kernel takes the entry.
func (d *driver) Close(c *loop.Conn, how loop.CloseMode) {
	s := d.of(c)
	s.closing, s.how, s.receiving = true, how, false
	if s.inFlight == 0 {
		d.closeFD(s)
		d.reports = append(d.reports, s.key(receiveOp)) // of any kind
		return
	}
	for _, k := range [...]kind{receiveOp, watchOp, sendOp, roomOp, pollOp, readOp, connectOp} {
		if s.inFlight.has(k) {
			d.cancel(s.key(k))
		}
	}
	if s.inFlight.has(zeroCopyOp) {
		d.cancel(d.loanTo(s))
	}
}

// cancel asks for the end of an operation, whose own last completion says when.
func (d *driver) cancel(k key) {
	d.entry(k | cancellation).CancelUserData(uint64(k))
	d.queued(k|cancellation, -1)
}

// cancelled is the completion of a cancellation. An operation that was not found is over,
// or it was about to be tried again: the kernel had told a send that there is room. That may
// end in another wait, so where its connection closes and it goes on once everything is
// reaped, it is cancelled anew.
func (d *driver) cancelled(k key, e *ring.CQE) {
	if e.Res == -int32(unix.ENOENT) {
		d.renewed = append(d.renewed, k)
	}
}

// unwanted reports whether an operation is in flight that a close waits for. Receives that
// are interrupted otherwise are multishot, which the kernel always finds, or there is
// something for them; and each may be interrupted more than once.
func (d *driver) unwanted(k key) bool {
	switch k.kind() {
	case acceptOp:
		n := d.listeners[k.slot()]
		return n != nil && n.armed && n.stopping
	case zeroCopyOp:
		l := d.loans[k.slot()]
		if l.buffer == nil || l.taken {
			return false
		}
		k = l.conn
	}
	s := d.living(k)
	return s != nil && s.closing && s.inFlight.has(k.kind())
}

// landed takes note of an operation's last completion. It reports whether the
// connection is closing, in which case this may have been what it waited for.
func (d *driver) landed(s *conn, k kind) bool {
	s.inFlight &^= 1 << k
	if s.closing && s.inFlight == 0 {
		c := s.c
		d.closeFD(s)
		s.c = nil
		d.loop.Closed(c)
		return true
	}
	return s.closing
}

func (d *driver) closeFD(s *conn) {
	if s.how == loop.Reset {
		sock.SetReset(s.c.FD())
		d.loop.Count().Crossings++
		d.loop.Tell(loop.Call, "setsockopt", -1, 0)
	}
	err := unix.Close(s.c.FD())
	d.loop.Count().Crossings++
	d.loop.Returned("close", err)
}
