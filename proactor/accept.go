//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"syscall"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// Listen implements loop.Driver: one entry accepts until it ends, or where the
// number of connections is bounded, one of them. An accept waits exclusively: a
// connection wakes only who waits longest. Where others accept on the socket, too, that
// one may be about to be cancelled, or find no descriptor, and nobody would serve the
// connection. There the entry is a poll, which is always woken, and accept4 follows.
func (d *driver) Listen(l *loop.Listener) {
	for d.nextID++; d.listeners[d.nextID] != nil; d.nextID++ { // with limits they are used up
	}
	n := &listener{l: l, id: d.nextID, shared: l.Shared(), single: d.oneShot || l.Bounded()}
	d.listeners[n.id] = n
	d.armAccept(n)
}

func (d *driver) armAccept(n *listener) {
	e := d.entry(newKey(acceptOp, 0, n.id))
	switch {
	case n.shared:
		e.PollAdd(n.l.FD(), unix.POLLIN)
	case n.single:
		e.Accept(n.l.FD(), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	default:
		e.AcceptMultishot(n.l.FD(), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	}
	n.armed = true
	d.queued(newKey(acceptOp, 0, n.id), -1)
}

// StopAccept implements loop.Driver: the answer is the accept's last completion.
func (d *driver) StopAccept(l *loop.Listener) {
	for id, n := range d.listeners {
		if n.l == l {
			n.stopping = true
			if n.armed { // else its last completion is being told of
				d.cancel(newKey(acceptOp, 0, id))
			}
		}
	}
}

// accepted is a completion of an accept.
func (d *driver) accepted(k key, e *ring.CQE) {
	n := d.listeners[k.slot()]
	if n == nil {
		d.loop.Count().Stale++
		return
	}
	n.armed = e.Flags&ring.CQEFMore != 0
	errno := syscall.Errno(-min(e.Res, 0))
	switch {
	case errno != 0:
	case n.shared:
		errno = d.loop.AcceptAll(n.l, e.Res&theEnd != 0)
	default:
		d.loop.Accepted(n.l, int(e.Res), 0)
	}
	switch {
	case n.armed:
	case n.stopping:
		delete(d.listeners, n.id)
		d.loop.AcceptStopped(n.l)
	case errno == 0: // it ended by itself: once more
		if !n.single && !n.shared {
			d.loop.Count().Rearmed++
		}
		d.armAccept(n)
	default:
		delete(d.listeners, n.id)
		d.loop.Accepted(n.l, -1, errno)
	}
}
