//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"fmt"
	"syscall"
	"time"

	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// Wait implements loop.Driver: it hands over what was asked for, waits until
// something of it is done, and reports that. Mostly this is one system call.
func (d *driver) Wait(limit time.Duration) error {
	d.report()
	if len(d.reports) > 0 || d.reading == 0 && (len(d.bulky) > 0 || d.turn != 0) {
		limit = 0
	}
	timeout := d.loop.Rest(limit)
	bulky := len(d.bulky)
	if d.reading == 0 {
		d.receiveNext(bulky)
	}
	d.enter(timeout)
	d.loop.Awake()
	d.inWait = true
	d.brought = 0
	d.reap()
	d.receiveBulk(bulky)
	d.inWait = false
	d.feed()
	d.renew()
	return d.err
}

// Wake implements loop.Driver.
func (d *driver) Wake() { d.waker.Wake() }

// enter submits, and waits for one completion.
func (d *driver) enter(timeout time.Duration) {
	if d.err != nil {
		return
	}
	d.entering()
	if timeout == 0 {
		d.err = d.ring.Poll()
	} else {
		d.err = d.ring.Wait(timeout, 1)
	}
	d.submitted()
}

// report reports what was done without the kernel; what the reports lead to
// waits for the next Wait.
func (d *driver) report() {
	n := len(d.reports)
	for i := 0; i < n; i++ {
		if s := d.known(d.reports[i]); s != nil {
			c := s.c
			s.c = nil
			d.loop.Closed(c)
		}
	}
	d.reports = d.reports[:copy(d.reports, d.reports[n:])]
}

// reap acts on every completion that is there.
func (d *driver) reap() {
	for d.err == nil {
		n := d.ring.Ready()
		if n == 0 {
			if !d.ring.Overflowed() {
				return
			}
			d.loop.Count().Overflows++
			d.entering()
			d.err = d.ring.Poll() // moves what did not fit into the queue
			d.submitted()
			if d.ring.Ready() == 0 {
				return
			}
			continue
		}
		d.loop.Brought(int(n))
		for i := range n {
			e := *d.ring.CQE(i)
			d.acted = i + 1
			d.completed(&e)
		}
		d.ring.Advance(n)
		d.acted = 0
	}
}

// completed acts on one completion.
func (d *driver) completed(e *ring.CQE) {
	k := key(e.UserData)
	if d.loop.Traced() {
		d.loop.Tell(loop.Told, d.describe(k, e), int(max(e.Res, 0)), syscall.Errno(-min(e.Res, 0)))
	}
	if k&cancellation != 0 {
		d.cancelled(k, e)
		return
	}
	switch k.kind() {
	case wakeOp:
		d.waking = false
		if e.Res < 0 && d.err == nil {
			d.err = fmt.Errorf("couplet: reading the wake-up descriptor: %w", syscall.Errno(-e.Res))
		}
		if !d.leaving {
			d.armWaker()
		}
	case acceptOp:
		d.accepted(k, e)
	case receiveOp:
		d.received(d.known(k), e)
	case pollOp:
		if s := d.known(k); s != nil {
			d.polled(s, e)
		}
	case readOp:
		if s := d.known(k); s != nil {
			d.read(s, e)
		}
	case sendOp:
		if s := d.known(k); s != nil {
			d.sent(s, sendOp, e)
		}
	case zeroCopyOp:
		d.lent(k, e)
	case watchOp:
		if s := d.known(k); s != nil {
			d.watched(s, e)
		}
	case roomOp:
		if s := d.known(k); s != nil {
			d.roomed(s, e)
		}
	case connectOp:
		if s := d.known(k); s != nil {
			d.connected(s, e)
		}
	}
}

// describe is a completion in a trace.
func (d *driver) describe(k key, e *ring.CQE) string {
	text := d.name(k)
	if e.Flags&ring.CQEFBuffer != 0 {
		text = fmt.Sprintf("%s, buffer %d", text, e.BufferID())
	}
	if e.Flags&ring.CQEFMore != 0 {
		text += ", more to come"
	}
	return text
}
