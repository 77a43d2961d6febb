//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/internal/sock"
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
		d.reports = append(d.reports, s.key(cancelOp))
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
	d.entry(newKey(cancelOp, 0, 0)).CancelUserData(uint64(k))
	d.queued(newKey(cancelOp, 0, 0), -1)
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
