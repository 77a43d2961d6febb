//go:build linux

package enginetest

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"net"
	"slices"
	"syscall"
	"time"

	"couplet"
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
}

var _ loop.Driver = (*simDriver)(nil)

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
	simSent
	simClosed
)

// simConn is what a driver and the network keep of a loop.Conn.
type simConn struct {
	d          *simDriver
	c          *loop.Conn
	s          *simSocket
	slot, gen  uint32
	connecting bool
	to         net.Addr

	wanted     bool // the loop wants to receive
	armed      bool // a receive is in the network's hands
	cancelling bool // ... and is to be taken back
	told       bool // the end of receiving was reported
	ended      bool // ... or is about to be

	send    *simSend // in flight until it was reported
	fin     bool
	closing bool
	closed  bool // Closed is about to be reported
	how     loop.CloseMode
	pending int // operations whose last completion was not reported
}

// simSend is a send in flight.
type simSend struct {
	bufs      [][]byte
	sum       uint64
	size      int
	taken     int
	completed bool
}

// simAccept is a listener that was told to accept.
type simAccept struct {
	d        *simDriver
	l        *loop.Listener
	s        *simSocket
	stopping bool
	over     bool // its last completion is there
}

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

// steps are the steps of an accept in flight.
func (a *simAccept) steps(can []simStep) []simStep {
	if a.over {
		return can
	}
	if a.stopping {
		can = append(can, stepStopAccept)
	}
	if len(a.s.queue) > 0 {
		can = append(can, stepAccept)
	}
	return can
}

func stepStopAccept(s *simSocket) {
	a := s.accept
	a.over = true
	a.d.complete(&simDone{kind: simAcceptStopped, accept: a})
}

func stepAccept(s *simSocket) {
	a, n := s.accept, s.net
	fail := func(errno syscall.Errno) {
		if !a.stopping {
			a.over = true
			a.d.complete(&simDone{kind: simAccepted, accept: a, fd: -1, errno: errno})
		}
	}
	n.touch(s)
	limit := n.config.MaxFiles > 0 && n.open() >= n.config.MaxFiles
	if !a.stopping && (limit || n.mishap()) {
		errno := syscall.EMFILE
		if !limit && n.pick(2) == 0 {
			errno = syscall.ECONNABORTED
			s.queue[0].drop()
			s.queue = s.queue[1:]
			n.roomToConnect()
		}
		fail(errno)
		return
	}
	if limit {
		return
	}
	c := s.queue[0]
	s.queue = s.queue[1:]
	n.roomToConnect()
	n.file(c)
	a.d.complete(&simDone{kind: simAccepted, accept: a, fd: c.fd})
	n.touch(c, c.peer)
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

// arm gives the network a receive, unless one is still being taken back.
func (k *simConn) arm() {
	if k.wanted && !k.armed && !k.closing && !k.ended {
		k.armed, k.cancelling = true, false
		k.pending++
		k.d.net.touch(k.s)
	}
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

var simSeed = maphash.MakeSeed()

// sum is over everything that a send covers.
func (o *simSend) check() uint64 {
	var h maphash.Hash
	h.SetSeed(simSeed)
	for _, b := range o.bufs {
		h.Write(b)
	}
	return h.Sum64()
}

// Send implements loop.Driver.
func (d *simDriver) Send(c *loop.Conn) {
	d.enter("Send")
	defer d.leave()
	k := d.known(c, "Send")
	switch {
	case k.send != nil:
		d.net.fail("Send while one is in flight")
	case k.fin:
		d.net.fail("Send after CloseWrite")
	case k.s.peer == nil:
		d.net.fail("Send on a socket that is not connected")
	}
	o := &simSend{}
	limit := loop.MaxSend
	if !d.net.config.WaitAll { // one try, which cannot take more than there is place for
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

// CloseWrite implements loop.Driver.
func (d *simDriver) CloseWrite(c *loop.Conn) {
	d.enter("CloseWrite")
	defer d.leave()
	k := d.known(c, "CloseWrite")
	if k.send != nil || c.Head() != nil {
		d.net.fail("CloseWrite with something queued or in flight")
	}
	if k.fin {
		d.net.fail("CloseWrite again")
	}
	k.fin = true
	k.s.closeWrite()
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

// settle closes the descriptor of a closing connection with the last of its
// operations.
func (k *simConn) settle() {
	if k.closing && !k.closed && k.pending == 0 {
		k.release()
	}
}

func (k *simConn) release() {
	k.unchanged()
	k.closed = true
	k.s.close(k.how == loop.Reset)
	k.d.complete(&simDone{kind: simClosed, conn: k})
}

// unchanged checks that what a send covers is as it was.
func (k *simConn) unchanged() {
	if o := k.send; o != nil && o.check() != o.sum {
		k.d.net.fail("the bytes of a send in flight have changed")
		o.sum = o.check()
	}
}

// steps are the steps of the operations in flight on a connected socket.
func (k *simConn) steps(can []simStep) []simStep {
	if k.connecting {
		if k.s.answered(k.to) {
			can = append(can, stepConnect)
		}
		if k.closing {
			can = append(can, stepCancelConnect)
		}
	}
	if k.armed {
		switch {
		case !k.s.readable():
		case k.d.chunks < k.d.net.config.Chunks:
			can = append(can, stepReceive)
		default:
			k.d.starved = append(k.d.starved, k.s)
		}
		if k.cancelling || k.closing {
			can = append(can, stepCancelReceive)
		}
	}
	if o := k.send; o != nil && !o.completed {
		if k.s.writable() {
			can = append(can, stepSend)
		}
		if k.closing {
			can = append(can, stepCancelSend)
		}
	}
	return can
}

func stepConnect(s *simSocket) {
	k := s.conn
	errno := s.connect(k.to)
	k.connecting = false
	k.d.complete(&simDone{kind: simConnected, conn: k, errno: errno})
}

func stepCancelConnect(s *simSocket) {
	s.conn.connecting = false
	s.conn.d.complete(&simDone{kind: simConnected, conn: s.conn, errno: syscall.ECANCELED})
}

func stepReceive(s *simSocket) {
	k, n := s.conn, s.net
	n.touch(s)
	size := n.config.MaxChunk
	if s.in.Len() > 0 {
		size = n.chunk(s.in.Len())
	}
	p, errno := s.receive(size)
	if len(p) > 0 {
		k.d.chunks++
		k.d.complete(&simDone{kind: simReceived, conn: k, data: p})
		return
	}
	k.armed, k.ended = false, true
	k.d.complete(&simDone{kind: simEnded, conn: k, errno: errno})
}

func stepCancelReceive(s *simSocket) {
	s.conn.armed = false
	s.conn.d.complete(&simDone{kind: simCancelled, conn: s.conn})
}

func stepSend(s *simSocket) {
	k, n := s.conn, s.net
	o := k.send
	n.touch(s)
	finish := func(errno syscall.Errno) {
		if o.taken > 0 {
			errno = 0 // what was taken is told, and the error is not
		}
		o.completed = true
		k.unchanged()
		k.d.complete(&simDone{kind: simSent, conn: k, n: o.taken, errno: errno})
	}
	if o.taken == 0 && n.mishap() {
		finish([]syscall.Errno{syscall.EAGAIN, syscall.ENOBUFS, syscall.EINTR, syscall.ENOMEM}[n.pick(4)])
		return
	}
	left := n.chunk(o.size - o.taken)
	at := o.taken
	for _, b := range o.bufs {
		if at >= len(b) {
			at -= len(b)
			continue
		}
		for left > 0 && at < len(b) {
			got, errno := s.send(b[at:], left)
			if errno == syscall.EAGAIN {
				left = 0
				break
			}
			if errno != 0 {
				finish(errno)
				return
			}
			o.taken += got
			at += got
			left -= got
		}
		at = 0
	}
	if o.taken == o.size || !n.config.WaitAll && o.taken > 0 {
		finish(0)
	}
}

func stepCancelSend(s *simSocket) {
	o := s.conn.send
	o.completed = true
	s.conn.d.complete(&simDone{kind: simSent, conn: s.conn, n: o.taken, errno: syscall.ECANCELED})
}

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
func (d *simDriver) Wait(timeout time.Duration) error {
	n := d.net
	d.enter("Wait")
	if d.inWait {
		n.fail("Wait inside Wait")
	}
	d.inWait = true
	defer func() { d.inWait = false }()
	switch {
	case d.live:
		n.run()
		if len(d.done) == 0 && !d.woken && timeout != 0 {
			n.mu.Unlock()
			d.sleep(timeout)
			n.mu.Lock()
		}
		d.woken = false
	case n.config.Lazy:
		if n.pick(2) == 0 {
			d.early()
		}
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
	if n.config.Lazy && n.pick(3) > 0 {
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
	d.net.mu.Unlock()
	d.loop.Recheck(-1)
	d.net.mu.Lock()
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
	if d.breakdown != nil { // nothing is in flight any more
		for _, k := range d.conns {
			k.s.conn = nil
		}
		for _, a := range d.accepts {
			a.s.accept = nil
		}
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
