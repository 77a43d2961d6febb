//go:build linux

package reactor

import "couplet/internal/loop"

// Listen implements loop.Driver: it waits until there may be connections.
func (d *driver) Listen(l *loop.Listener) {
	for d.nextID++; d.listeners[d.nextID] != nil; d.nextID++ { // with limits they are used up
	}
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

// accept takes the connections that are there.
func (d *driver) accept(id uint32, ended bool) {
	n := d.listeners[id] // a callback may have stopped it
	if n == nil {
		return
	}
	if errno := d.loop.AcceptAll(n.l, ended); errno != 0 {
		d.unlisten(n.l)
		d.loop.Accepted(n.l, -1, errno)
	}
}
