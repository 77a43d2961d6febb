//go:build linux

package reactor

import (
	"os"
	"time"

	"couplet/internal/loop"
)

// Wait implements loop.Driver: it reports what was done at once, waits until
// something may be done, does it, and reports that.
func (d *driver) Wait(limit time.Duration) error {
	d.report()
	d.update() // which may have something to report
	if len(d.reports) > 0 || len(d.again) > 0 {
		limit = 0
	}
	events, err := d.poller.wait(d.loop.Rest(limit))
	d.loop.Awake()
	if err != 0 {
		return os.NewSyscallError("epoll_pwait", err)
	}
	left := len(d.again)
	for i := range events {
		d.ready(&events[i])
		if len(d.reports) > 0 {
			d.report()
		}
	}
	d.goOn(left)
	return nil
}

// Wake implements loop.Driver.
func (d *driver) Wake() { d.waker.Wake() }

// report reports what has been done by now; what the reports lead to waits for
// the next Wait.
func (d *driver) report() {
	n := len(d.reports)
	for i := 0; i < n; i++ {
		r := d.reports[i]
		switch r.kind {
		case stopped:
			d.loop.AcceptStopped(r.l)
			continue
		case refused:
			d.loop.Accepted(r.l, -1, r.errno)
			continue
		}
		s := d.known(r.key)
		if s == nil {
			continue
		}
		c := s.c
		switch r.kind {
		case connected:
			d.loop.Connected(c, r.errno)
		case ended:
			d.loop.ReceiveEnded(c, r.errno)
		case sent:
			d.loop.Sent(c, r.bytes, r.errno)
		case closed:
			s.c = nil
			d.loop.Closed(c)
		}
	}
	left := copy(d.reports, d.reports[n:])
	clear(d.reports[left:])
	d.reports = d.reports[:left]
}

// ready acts on one event.
func (d *driver) ready(e *event) {
	k := e.key()
	if d.loop.Traced() {
		d.loop.Tell(loop.Told, describe(k, e), -1, 0)
	}
	switch k.kind {
	case wakeKey:
		d.poller.drain(d.waker.FD())
		return
	case listenKey:
		d.accept(k.slot, e.ending())
		return
	}
	s := d.known(k)
	if s == nil {
		return
	}
	broken := e.broken()
	if d.edge {
		s.unread = s.unread || e.readable() || broken
		s.behind = s.behind || e.ending() || e.urgent()
	}
	if s.connecting {
		d.finishConnect(s)
		return
	}
	if e.writable() || broken {
		d.resume(s)
	}
	if s.c == nil || s.generation != k.generation {
		return
	}
	if s.receiving && (e.readable() || broken) {
		if !s.again { // goOn gives it its share
			d.receive(s)
		}
	} else if broken && s.guarded && !s.sending {
		d.broken(s)
	} else if broken && !s.sending && !d.edge {
		s.hung = true // nobody wants to know yet, and it would be told without end
		d.mark(s)
	}
}

// mark has update look at what s wants of the poller.
func (d *driver) mark(s *conn) {
	if !s.changed {
		s.changed = true
		d.changed = append(d.changed, s.key())
	}
}

// update tells the poller what has changed, once per wait and connection.
func (d *driver) update() {
	for _, k := range d.changed {
		s := d.living(k)
		if s == nil || !s.changed {
			continue
		}
		s.changed = false
		var want interest
		if s.receiving {
			want |= readable
		}
		if s.sending || s.connecting {
			want |= writable
		}
		if want != 0 || s.guarded {
			s.hung = false
		}
		if d.edge {
			if want == 0 || s.watching {
				continue
			}
			want = changes
		}
		switch {
		case s.hung && s.watching:
			s.watching = false
			d.set(remove, s, 0)
		case !s.watching && (want != 0 || s.guarded):
			s.watching = true
			d.set(add, s, want)
		case s.watching && s.interest != want:
			d.set(modify, s, want)
		}
		s.interest = want
	}
	d.changed = d.changed[:0]
}

func (d *driver) set(op operation, s *conn, want interest) {
	d.loop.Count().Crossings++
	if err := d.poller.set(op, s.c.FD(), s.key(), want); err != 0 {
		// Out of memory, or the user's limit on watches: this connection cannot
		// be served.
		r := report{kind: ended, key: s.key(), errno: err}
		if s.connecting {
			r.kind = connected
		}
		if s.sending { // while it is paused nobody would hear of the end
			d.reports = append(d.reports, report{kind: sent, key: s.key(), errno: err})
		}
		if s.receiving || !s.sending { // a connect does not send
			d.reports = append(d.reports, r)
		}
		s.watching, s.connecting, s.receiving, s.sending, s.full = false, false, false, false, false
	}
}

// describe is a readiness event in a trace.
func describe(k key, e *event) string {
	text := [...]string{"connection", "listener", "wake-ups"}[k.kind]
	if e.readable() {
		text += ", may be read"
	}
	if e.writable() {
		text += ", may be written"
	}
	if e.broken() {
		text += ", broken"
	}
	return text
}
