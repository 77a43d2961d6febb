//go:build linux

package enginetest

import (
	"bytes"
	"slices"
	"syscall"
	"time"

	"couplet"
)

// simDone is a completion that waits to be reported.
type simDone struct {
	kind   simKind
	conn   *simConn
	accept *simAccept
	data   []byte
	n      int
	fd     int
	errno  syscall.Errno
}

type simKind uint8

const (
	simDropped simKind = iota // nobody wants it any more
	simAccepted
	simAcceptStopped
	simConnected
	simReceived
	simEnded
	simCancelled // a receive that was stopped
	simBroken    // what a watch has met
	simSent
	simClosed
)

// complete leaves a completion for the next Wait.
func (d *simDriver) complete(e *simDone) {
	d.done = append(d.done, e)
	if d.live {
		d.signal()
	}
}

func (d *simDriver) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// drop takes a completion back that must not be reported.
func (d *simDriver) drop(e *simDone) {
	if e.kind == simReceived {
		d.chunkBack()
	}
	e.kind = simDropped
}

// chunkBack lets those receive that waited for a chunk's place.
func (d *simDriver) chunkBack() {
	d.chunks--
	d.net.touch(d.starved...)
	d.starved = d.starved[:0]
}

// Wake implements loop.Driver.
func (d *simDriver) Wake() {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.woken = true
	d.signal()
}

// Wait implements loop.Driver.
func (d *simDriver) Wait(limit time.Duration) error {
	n := d.net
	d.enter("Wait")
	if d.inWait {
		n.fail("Wait inside Wait")
	}
	d.inWait = true
	defer func() { d.inWait = false }()
	if n.config.Lazy && n.config.Choose == nil && n.pick(2) == 0 {
		d.early()
	}
	n.mu.Unlock()
	timeout := d.loop.Rest(limit)
	n.mu.Lock()
	switch {
	case d.live:
		n.run()
		if len(d.done) == 0 && !d.woken && timeout != 0 {
			n.mu.Unlock()
			d.sleep(timeout)
			n.mu.Lock()
		}
		d.woken = false
	case n.config.Lazy && n.config.Choose != nil:
		for n.pick(2) == 1 && n.step() {
		}
	case n.config.Lazy:
		for k := n.pick(12); k > 0 && n.step(); k-- {
		}
	default:
		n.run()
	}
	err := d.breakdown
	n.mu.Unlock()
	d.loop.Awake()
	if err != nil {
		return err
	}
	n.mu.Lock()
	count := len(d.done)
	if n.config.Lazy && (n.config.Choose != nil || n.pick(3) > 0) {
		count = n.pick(count + 1)
	}
	d.report(count)
	n.mu.Unlock()
	return nil
}

// early reports what needed no waiting, before the clock is looked at.
func (d *simDriver) early() {
	k := 0
	for k < len(d.done) && d.done[k].kind != simReceived {
		k++
	}
	d.report(d.net.pick(k + 1))
}

func (d *simDriver) sleep(timeout time.Duration) {
	if timeout < 0 {
		<-d.wake
		return
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-d.wake:
	case <-t.C:
	}
}

// report reports the first k completions; the lock is not held meanwhile.
func (d *simDriver) report(k int) {
	for ; k > 0; k-- {
		e := d.done[0]
		d.done[0] = nil
		d.done = d.done[1:]
		d.reportOne(e)
	}
}

func (d *simDriver) reportOne(e *simDone) {
	n, l := d.net, d.loop
	call := func(f func()) {
		n.mu.Unlock()
		f()
		n.mu.Lock()
	}
	if e.kind == simDropped {
		return
	}
	l.Count().Events++
	k, a := e.conn, e.accept
	switch e.kind {
	case simAccepted:
		if e.errno != 0 {
			delete(d.accepts, a.l)
			a.s.accept = nil
		}
		call(func() { l.Accepted(a.l, e.fd, e.errno) })
		return
	case simAcceptStopped:
		delete(d.accepts, a.l)
		a.s.accept = nil
		call(func() { l.AcceptStopped(a.l) })
		return
	case simClosed:
		delete(d.conns, k.c)
		call(func() { l.Closed(k.c) })
		return
	case simReceived:
		d.chunkBack()
		if k.closing {
			return
		}
		d.lend(k, e.data)
		return
	case simBroken:
		if !k.closing {
			call(func() { l.ReceiveEnded(k.c, e.errno) })
		}
		return
	}
	// The last completion of an operation.
	k.pending--
	if k.closing {
		if e.kind == simSent {
			k.unchanged()
			k.send = nil
		}
		k.settle()
		return
	}
	switch e.kind {
	case simConnected:
		call(func() { l.Connected(k.c, e.errno) })
	case simEnded:
		k.wanted, k.told = false, true
		call(func() { l.ReceiveEnded(k.c, e.errno) })
	case simCancelled:
		k.arm()
	case simSent:
		k.unchanged()
		k.send = nil
		call(func() { l.Sent(k.c, e.n, e.errno) })
	}
}

// lentChunk is memory lent for one report.
type lentChunk struct {
	d    *simDriver
	data []byte
	kept bool
}

// lend reports received bytes and spoils them afterwards, unless they were
// kept.
func (d *simDriver) lend(k *simConn, data []byte) {
	d.net.mu.Unlock()
	d.lent.data, d.lent.kept = data, false
	d.loop.Received(k.c, data, &d.lent)
	if !d.lent.kept {
		spoil(data)
	}
	d.lent.data = nil
	d.net.mu.Lock()
	if d.live && !d.lent.kept && len(d.free) < 16 {
		d.free = append(d.free, data)
	}
}

// memory is where k bytes are received. Live loops use theirs again, for the
// sake of cases that look at the heap; elsewhere what was spoilt stays so.
func (d *simDriver) memory(k int) []byte {
	for i, p := range d.free {
		if cap(p) >= k {
			d.free = slices.Delete(d.free, i, i+1)
			return p[:k]
		}
	}
	return make([]byte, k)
}

// Keep implements loop.Lent.
func (m *lentChunk) Keep() *couplet.Buffer {
	n, data := m.d.net, m.data
	n.mu.Lock()
	defer n.mu.Unlock()
	if data == nil || m.kept {
		n.fail("Keep outside of a report, or again")
	}
	m.kept = true
	n.kept++
	return couplet.NewBuffer(data, func() {
		spoil(data)
		n.mu.Lock()
		n.kept--
		n.mu.Unlock()
	})
}

// spoil makes it show if bytes are used that nobody may use any more.
func spoil(p []byte) {
	for len(p) > 0 {
		p = p[copy(p, spoilt):]
	}
}

var spoilt = bytes.Repeat([]byte{0xdd}, 4096)
