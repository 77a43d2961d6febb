//go:build linux

package reactor

import (
	"golang.org/x/sys/unix"

	"couplet/internal/loop"
)

// acceptBatch is how many connections one readiness event accepts, so that
// those who are served have their turn.
const acceptBatch = 64

// Listen implements loop.Driver: it waits until there may be connections.
func (d *driver) Listen(l *loop.Listener) {
	d.nextID++
	n := &listener{l, d.nextID}
	d.listeners[n.id] = n
	if err := d.poller.set(add, l.FD(), key{kind: listenKey, slot: n.id}, readable); err != 0 {
		d.reports = append(d.reports, report{kind: refused, l: l, errno: err})
		delete(d.listeners, n.id)
	}
}

// StopAccept implements loop.Driver.
func (d *driver) StopAccept(l *loop.Listener) {
	d.unlisten(l)
	d.reports = append(d.reports, report{kind: stopped, l: l})
}

func (d *driver) unlisten(l *loop.Listener) {
	for id, n := range d.listeners {
		if n.l == l {
			d.poller.set(remove, l.FD(), key{}, 0)
			delete(d.listeners, id)
		}
	}
}

// accept takes the connections that are there. A socket that somebody shut down has ended:
// then nobody comes any more, of which accept itself does not tell for unix sockets.
func (d *driver) accept(id uint32, ended bool) {
	if n := d.listeners[id]; n != nil && n.l.Shared() {
		unix.SetNonblock(n.l.FD(), true) // others may have changed that, and an accept would stop the loop
		d.loop.Count().Crossings++
	}
	for range acceptBatch {
		n := d.listeners[id] // a callback may have stopped it
		if n == nil {
			return
		}
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(n.l.FD()), 0, 0,
			unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
		d.loop.Count().Crossings++
		d.loop.Tell(loop.Call, "accept4", int(fd), errno)
		if errno == unix.EAGAIN && ended {
			errno = unix.EINVAL
		}
		switch errno {
		case 0:
			d.loop.Accepted(n.l, int(fd), 0)
		case unix.EAGAIN:
			return
		default:
			d.unlisten(n.l)
			d.loop.Accepted(n.l, -1, errno)
			return
		}
	}
}
