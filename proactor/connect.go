//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// Connect implements loop.Driver: one entry, whose completion is the outcome.
// The address is copied when the kernel takes the entry.
func (d *driver) Connect(c *loop.Conn) {
	s := d.of(c)
	sa := c.Sockaddr()
	d.start(s, connectOp).Connect(c.FD(), sa.Ptr(), sa.Len())
	d.queued(s.key(connectOp), -1)
}

// connected is the completion of a connect.
func (d *driver) connected(s *conn, e *ring.CQE) {
	if !d.landed(s, connectOp) {
		d.loop.Connected(s.c, syscall.Errno(-min(e.Res, 0)))
	}
}
