//go:build linux

package reactor

import (
	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/internal/sock"
)

// Close implements loop.Driver: the kernel holds nothing of ours, so it is done
// at once. The slot stays c's until that was reported.
func (d *driver) Close(c *loop.Conn, how loop.CloseMode) {
	s := d.of(c)
	if how == loop.Reset {
		sock.SetReset(c.FD())
		d.loop.Count().Crossings++
		d.loop.Tell(loop.Call, "setsockopt", -1, 0)
	}
	if s.watching {
		d.poller.set(remove, c.FD(), key{}, 0)
		d.loop.Count().Crossings++
	}
	err := unix.Close(c.FD())
	d.loop.Count().Crossings++
	d.loop.Returned("close", err)
	k := s.key()
	*s = conn{c: c, generation: s.generation}
	d.reports = append(d.reports, report{kind: closed, key: k})
}
