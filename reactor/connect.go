//go:build linux

package reactor

import (
	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/internal/sock"
)

// Connect implements loop.Driver: it begins to connect and waits until the
// socket is writable, which is when the outcome can be asked for.
func (d *driver) Connect(c *loop.Conn) {
	s := d.of(c)
	d.loop.Count().Crossings++
	err := sock.Connect(c.FD(), c.Sockaddr())
	d.loop.Tell(loop.Call, "connect", 0, err)
	switch err {
	case unix.EINPROGRESS, unix.EINTR:
		s.connecting = true
		d.mark(s)
	default:
		d.reports = append(d.reports, report{kind: connected, key: s.key(), errno: err})
	}
}

// finishConnect asks for the outcome.
func (d *driver) finishConnect(s *conn) {
	s.connecting = false
	d.mark(s)
	d.loop.Connected(s.c, d.loop.SocketError(s.c))
}
