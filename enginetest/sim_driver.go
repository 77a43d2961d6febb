//go:build linux

package enginetest

import (
	"fmt"
	"slices"
	"time"

	"couplet/internal/loop"
)

// simDriver is a loop.Driver over a SimNet. It is a proactor: what is asked of
// it is an operation in the network's hands, which meets its socket in some
// later step and leaves a completion; Wait reports those in their order.
//
// It is the judge of the loop above it as well: it holds every call against the
// rules of the seam, sends only what was not changed since Send, and spoils
// received memory once its report is over.
type simDriver struct {
	net  *SimNet
	loop *loop.Loop
	live bool // its loop has a goroutine: Wait sleeps
	wake chan struct{}

	// Under net.mu.
	conns     map[*loop.Conn]*simConn
	accepts   map[*loop.Listener]*simAccept
	done      []*simDone
	chunks    int          // of those, received chunks
	starved   []*simSocket // that wait for one to be reported
	woken     bool
	inWait    bool
	ended     bool
	breakdown error

	lent lentChunk
	free [][]byte // spoilt memory
}

var _ loop.Driver = (*simDriver)(nil)

func (n *SimNet) newDriver(l *loop.Loop, live bool) *simDriver {
	d := &simDriver{
		net: n, loop: l, live: live,
		wake:    make(chan struct{}, 1),
		conns:   make(map[*loop.Conn]*simConn),
		accepts: make(map[*loop.Listener]*simAccept),
	}
	d.lent.d = d
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drivers = append(n.drivers, d)
	return d
}

// Attach gives a loop of an engine that loop.Prepare made over Sockets a driver
// of this network. The loop is stepped by hand, on the calling thread.
func (n *SimNet) Attach(l *loop.Loop, clock func() time.Duration) {
	l.Simulate(n.newDriver(l, false), clock)
}

// enter begins a call of the driver: it takes the lock and checks the caller.
func (d *simDriver) enter(what string) {
	d.net.mu.Lock()
	if d.ended {
		d.net.fail("%s after Shutdown", what)
	}
}

// leave ends it. A network with live loops moves at once.
func (d *simDriver) leave() {
	if d.live {
		d.net.run()
	}
	d.net.mu.Unlock()
}

// known is what is kept of c, which the loop may use: it is neither closing nor
// closed, and its slot and descriptor are its own.
func (d *simDriver) known(c *loop.Conn, what string) *simConn {
	k := d.conns[c]
	if k == nil {
		k = &simConn{d: d, c: c, slot: c.Slot(), gen: c.Generation()}
		k.s = d.net.socket(c.FD())
		for _, o := range d.conns {
			if o.slot == k.slot {
				d.net.fail("%s: slot %d is in use by another connection", what, k.slot)
			}
			if o.s == k.s {
				d.net.fail("%s: descriptor %d is in use by another connection", what, c.FD())
			}
		}
		if k.s.conn != nil {
			d.net.fail("%s: descriptor %d belongs to another connection", what, c.FD())
		}
		k.s.conn = k
		d.conns[c] = k
	}
	switch {
	case k.closing:
		d.net.fail("%s after Close", what)
	case k.slot != c.Slot() || k.gen != c.Generation():
		d.net.fail("%s: the connection has moved from slot %d.%d to %d.%d", what, k.slot, k.gen, c.Slot(), c.Generation())
	case k.s != d.net.socket(c.FD()):
		d.net.fail("%s: the connection has another descriptor than before", what)
	}
	return k
}

// Listen implements loop.Driver.
func (d *simDriver) Listen(l *loop.Listener) {
	d.enter("Listen")
	defer d.leave()
	if d.accepts[l] != nil {
		d.net.fail("Listen while armed")
	}
	a := &simAccept{d: d, l: l, s: d.net.socket(l.FD())}
	if a.s.group == nil {
		d.net.fail("Listen on a socket that does not listen")
	}
	d.accepts[l] = a
	a.s.accept = a
	d.net.touch(a.s)
}

// StopAccept implements loop.Driver.
func (d *simDriver) StopAccept(l *loop.Listener) {
	d.enter("StopAccept")
	defer d.leave()
	a := d.accepts[l]
	if a == nil || a.stopping {
		d.net.fail("StopAccept while not armed")
		return
	}
	a.stopping = true
	if a.over { // an error was on its way, and it is the answer now
		for _, e := range d.done {
			if e.kind == simAccepted && e.accept == a && e.errno != 0 {
				e.kind, e.errno = simAcceptStopped, 0
			}
		}
	}
	d.net.touch(a.s)
}

// Connect implements loop.Driver.
func (d *simDriver) Connect(c *loop.Conn) {
	d.enter("Connect")
	defer d.leave()
	k := d.known(c, "Connect")
	if k.connecting || k.s.peer != nil {
		d.net.fail("Connect again")
	}
	k.connecting, k.to = true, c.Sockaddr().NetAddr()
	k.pending++
	d.net.touch(k.s)
	d.net.waiting = append(d.net.waiting, k.s)
}

// Receive implements loop.Driver.
func (d *simDriver) Receive(c *loop.Conn) {
	d.enter("Receive")
	defer d.leave()
	k := d.known(c, "Receive")
	switch {
	case k.wanted:
		d.net.fail("Receive again")
	case k.told:
		d.net.fail("Receive after ReceiveEnded")
	}
	k.wanted = true
	k.arm()
}

// StopReceive implements loop.Driver.
func (d *simDriver) StopReceive(c *loop.Conn) {
	d.enter("StopReceive")
	defer d.leave()
	k := d.known(c, "StopReceive")
	if !k.wanted {
		d.net.fail("StopReceive without Receive")
	}
	k.wanted = false
	k.cancelling = k.armed
	d.net.touch(k.s)
}

// Told implements loop.Driver.
func (d *simDriver) Told(c *loop.Conn) bool {
	d.enter("Told")
	defer d.leave()
	k := d.known(c, "Told")
	return slices.ContainsFunc(d.done, func(e *simDone) bool {
		return e.conn == k && (e.kind == simReceived || e.kind == simEnded)
	})
}

// Watch implements loop.Driver.
func (d *simDriver) Watch(c *loop.Conn) {
	d.enter("Watch")
	defer d.leave()
	k := d.known(c, "Watch")
	if !k.told || k.watched {
		d.net.fail("Watch before ReceiveEnded, or again")
	}
	k.watched, k.watching = true, true
	d.net.touch(k.s)
}

// Send implements loop.Driver.
func (d *simDriver) Send(c *loop.Conn) {
	d.enter("Send")
	defer d.leave()
	k := d.known(c, "Send")
	switch {
	case k.send != nil:
		d.net.fail("Send while one is in flight")
	case k.s.shut:
		d.net.fail("Send after ShutdownWrite")
	case k.s.peer == nil:
		d.net.fail("Send on a socket that is not connected")
	}
	o := &simSend{}
	limit := loop.MaxSend
	if !d.net.config.WaitAll || c.Unix() { // one try, which cannot take more than there is place for
		limit = min(limit, d.net.config.SendBuffer)
	}
	for seg := c.Head(); seg != nil && len(o.bufs) < loop.MaxGather && o.size < limit; seg = seg.Next() {
		b := seg.Bytes()
		if len(b) == 0 {
			d.net.fail("Send of an empty segment")
		}
		b = b[:min(len(b), limit-o.size)]
		o.bufs = append(o.bufs, b)
		o.size += len(b)
	}
	if o.size == 0 {
		d.net.fail("Send with nothing queued")
	}
	o.sum = o.check()
	k.send = o
	k.pending++
	d.net.touch(k.s)
}

// Close implements loop.Driver.
func (d *simDriver) Close(c *loop.Conn, how loop.CloseMode) {
	d.enter("Close")
	defer d.leave()
	k := d.known(c, "Close")
	k.closing, k.how, k.wanted = true, how, false
	if d.net.config.AtOnce {
		for _, e := range d.done {
			if e.conn == k {
				d.drop(e)
			}
		}
		k.release()
		return
	}
	d.net.touch(k.s)
	k.settle()
}

// Break makes the next Wait of a loop fail with err.
func (n *SimNet) Break(l *loop.Loop, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.drivers {
		if d.loop == l {
			d.breakdown = err
			d.signal()
		}
	}
}

// Shutdown implements loop.Driver.
func (d *simDriver) Shutdown() error {
	d.enter("Shutdown")
	defer d.net.mu.Unlock()
	d.ended = true
	n := d.net
	n.drivers = slices.DeleteFunc(n.drivers, func(o *simDriver) bool { return o == d })
	if d.breakdown != nil || !d.loop.Ended() {
		d.abandon()
		return nil
	}
	if len(d.conns) > 0 || len(d.accepts) > 0 {
		d.net.fail("Shutdown with %d connections and %d listeners left", len(d.conns), len(d.accepts))
	}
	for _, e := range d.done {
		if e.kind != simDropped {
			d.net.fail("Shutdown with a completion of kind %d left", e.kind)
		}
	}
	return nil
}

// abandon ends everything in flight of a loop that has failed. What the loop
// has not asked to close is the loop's.
func (d *simDriver) abandon() {
	for _, k := range d.conns {
		if k.closing && !k.closed {
			k.s.close(k.how == loop.Reset)
		}
		k.s.conn = nil
	}
	for _, a := range d.accepts {
		a.s.accept = nil
	}
	for _, e := range d.done {
		if e.kind == simAccepted && e.errno == 0 {
			d.net.socket(e.fd).close(false)
		}
	}
}

// Idle reports whether there is neither a step to make nor a completion to
// report.
func (n *SimNet) Idle() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.drivers {
		if len(d.done) > 0 {
			return false
		}
	}
	var can [8]simStep
	for _, s := range n.active {
		if len(s.steps(can[:0])) > 0 {
			return false
		}
	}
	return true
}

// String describes what a socket waits for.
func (s *simSocket) String() string {
	return fmt.Sprintf("socket %d fd %d %v-%v in %d out %d sent %d acked %d fin %v/%v/%v eof %v dead %v orphan %v",
		s.id, s.fd, s.local, s.remote, s.in.Len(), s.out.Len(), s.sent, s.acked,
		s.finQueued, s.finArrived, s.finAcked, s.eof, s.dead, s.orphan)
}
