//go:build linux

package loop

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/sock"
)

// bench is a loop that a test steps by hand, over a driver that only takes
// notes: the test decides what the driver reports, and when.
type bench struct {
	t       *testing.T
	engine  *Engine
	loop    *Loop
	now     time.Duration
	calls   []string // of the driver
	onCall  func(call string)
	reports []func() // to be made in the next Wait
	early   []func() // ... and before it looks at the clock
	waitErr error

	released []int // descriptors that the loop has closed
	reset    []int // those of them by a reset
	unacked  bool  // what Acknowledged denies
	pending  bool  // what Pending reports
	torn     bool  // what Torn says
	lastFD   int

	resolve func() ([]sock.Sockaddr, error) // nil: no such host
	socket  func() error                    // what Socket says, if not nil
}

// newBench makes a bench of one loop.
func newBench(t *testing.T, config couplet.Config) *bench {
	b := &bench{t: t, lastFD: 100}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if b.engine, err = Prepare("fake", config, fakeSockets{b}); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	b.loop = b.engine.loops[0]
	b.loop.Simulate(fakeDriver{b}, func() time.Duration { return b.now })
	return b
}

// turn makes one turn in which the driver reports this.
func (b *bench) turn(reports ...func()) {
	b.t.Helper()
	b.reports = append(b.reports, reports...)
	b.loop.Step(0)
	if b.loop.calling {
		b.t.Fatal("the loop takes a callback to be running still")
	}
}

// listen gives the loop a listener.
func (b *bench) listen(f couplet.Factory, opts ...couplet.Option) *Listener {
	b.t.Helper()
	l, err := b.engine.Listen("tcp", "127.0.0.1:1", f, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.turn()
	return l.(*listener).sockets[0]
}

// accept makes a connection of p.
func (b *bench) accept(p couplet.Protocol, opts ...couplet.Option) *Conn {
	b.t.Helper()
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }), opts...)
	fd := b.fd()
	b.turn(func() { b.loop.Accepted(ln, fd, 0) })
	c := b.conn(fd)
	if c == nil {
		b.t.Fatal("no connection was made")
	}
	return c
}

func (b *bench) fd() int {
	b.lastFD++
	return b.lastFD
}

// conn is the loop's connection of a descriptor.
func (b *bench) conn(fd int) (found *Conn) {
	b.loop.slab.each(func(c *Conn) {
		if c.FD() == fd {
			found = c
		}
	})
	return found
}

// called reports whether the driver was called like this, and forgets it.
func (b *bench) called(call string) bool {
	i := slices.Index(b.calls, call)
	if i >= 0 {
		b.calls = slices.Delete(b.calls, i, i+1)
	}
	return i >= 0
}

// want fails the test unless the driver was called like this.
func (b *bench) want(call string) {
	b.t.Helper()
	if !b.called(call) {
		b.t.Fatalf("the driver was not called: %s; it was: %q", call, b.calls)
	}
}

// note is told of what is asked of the driver, and of the FIN.
func (b *bench) note(call string) {
	b.calls = append(b.calls, call)
	if b.onCall != nil {
		b.onCall(call)
	}
}

type fakeDriver struct{ b *bench }

func (d fakeDriver) note(format string, args ...any) { d.b.note(fmt.Sprintf(format, args...)) }

func (d fakeDriver) Listen(*Listener)     { d.note("listen") }
func (d fakeDriver) StopAccept(*Listener) { d.note("stop accept") }
func (d fakeDriver) Connect(c *Conn)      { d.note("connect") }
func (d fakeDriver) Receive(c *Conn)      { d.note("receive") }
func (d fakeDriver) StopReceive(c *Conn)  { d.note("stop receive") }
func (d fakeDriver) Told(*Conn) bool      { return false }
func (d fakeDriver) Watch(c *Conn)        { d.note("watch") }
func (d fakeDriver) Wake()                {}
func (d fakeDriver) Shutdown() error      { d.note("shutdown"); return nil }

func (d fakeDriver) Send(c *Conn) {
	n := 0
	for s := c.Head(); s != nil; s = s.Next() {
		n += len(s.Bytes())
	}
	d.note("send %d", n)
}

func (d fakeDriver) Close(c *Conn, how CloseMode) {
	d.note("close %s", [...]string{"graceful", "reset"}[how])
}

func (d fakeDriver) Wait(limit time.Duration) error {
	early := d.b.early
	d.b.early = nil
	for _, f := range early {
		f()
	}
	d.b.loop.Rest(limit)
	d.b.loop.Awake()
	if d.b.waitErr != nil {
		return d.b.waitErr
	}
	reports := d.b.reports
	d.b.reports = nil
	for _, f := range reports {
		f()
	}
	return nil
}

type fakeSockets struct{ b *bench }

var fakeAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

func (x fakeSockets) Listen(_, _ string, _ *couplet.Options, n int) (fds []int, addr net.Addr, err error) {
	for range n {
		fds = append(fds, x.b.fd())
	}
	return fds, fakeAddr, nil
}

func (x fakeSockets) Parse(network, address string) (sock.Sockaddr, bool, error) {
	return sock.Parse(network, address, false)
}

func (x fakeSockets) Resolve(_ context.Context, network, _ string) ([]sock.Sockaddr, error) {
	if x.b.resolve != nil {
		return x.b.resolve()
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (x fakeSockets) Socket(*sock.Sockaddr, *couplet.Options) (int, error) {
	if x.b.socket != nil {
		if err := x.b.socket(); err != nil {
			return -1, err
		}
	}
	return x.b.fd(), nil
}

func (x fakeSockets) Peer(int) (net.Addr, error) { return fakeAddr, nil }
func (x fakeSockets) Local(int) (net.Addr, error) {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2}, nil
}
func (x fakeSockets) Acknowledged(int, bool) bool   { return !x.b.unacked }
func (x fakeSockets) Torn(int, bool) bool           { return x.b.torn }
func (x fakeSockets) SocketError(int) syscall.Errno { return 0 }
func (x fakeSockets) Pending(int, bool) bool        { return x.b.pending }
func (x fakeSockets) Progress(int, bool) uint64     { return 0 }
func (x fakeSockets) Release(fd int)                { x.b.released = append(x.b.released, fd) }

func (x fakeSockets) ShutdownWrite(int) error {
	x.b.note("close write")
	if x.b.torn {
		return syscall.ENOTCONN
	}
	return nil
}

func (x fakeSockets) Reset(fd int) {
	x.Release(fd)
	x.b.reset = append(x.b.reset, fd)
}

// fakeLent is memory that a report lends.
type fakeLent []byte

func (p fakeLent) Keep() *couplet.Buffer {
	return couplet.NewBuffer(append([]byte(nil), p...), nil)
}

// ended is a report of the end of receiving.
func (b *bench) ended(c *Conn, errno syscall.Errno) func() {
	return func() { b.loop.ReceiveEnded(c, errno) }
}

// sent is a report of a send.
func (b *bench) sent(c *Conn, n int, errno syscall.Errno) func() {
	return func() { b.loop.Sent(c, n, errno) }
}

// closed is the report that c is closed.
func (b *bench) closed(c *Conn) func() { return func() { b.loop.Closed(c) } }

// notes is a protocol that takes notes.
type notes struct {
	got    []string
	reason error
	made   func(t couplet.Transport)
	data   func(t couplet.Transport, p []byte)
	lost   func(t couplet.Transport)
}

func (n *notes) ConnectionMade(t couplet.Transport) {
	n.got = append(n.got, "made")
	if n.made != nil {
		n.made(t)
	}
}

func (n *notes) DataReceived(t couplet.Transport, p []byte) {
	n.got = append(n.got, "data "+string(p))
	if n.data != nil {
		n.data(t, p)
	}
}

func (n *notes) ConnectionLost(t couplet.Transport, reason error) {
	n.got = append(n.got, "lost")
	n.reason = reason
	if n.lost != nil {
		n.lost(t)
	}
}

func (n *notes) WritePaused(couplet.Transport)  { n.got = append(n.got, "paused") }
func (n *notes) WriteResumed(couplet.Transport) { n.got = append(n.got, "resumed") }

// notesHalf is notes that goes on after its peer has closed its half.
type notesHalf struct{ notes }

func (n *notesHalf) ReadClosed(couplet.Transport)  { n.got = append(n.got, "read closed") }
func (n *notesHalf) WriteClosed(couplet.Transport) { n.got = append(n.got, "write closed") }
