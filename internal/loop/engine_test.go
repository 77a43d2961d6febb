//go:build linux

package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/sock"
)

// An idleDriver waits to be woken.
type idleDriver struct {
	fakeDriver
	l     *Loop
	woken chan struct{}
	shut  *atomic.Int32
}

func (d idleDriver) Wake() { d.woken <- struct{}{} }
func (d idleDriver) Wait(limit time.Duration) error {
	if d.l.Rest(limit) != 0 {
		<-d.woken
	}
	d.l.Awake()
	return nil
}
func (d idleDriver) Shutdown() error { d.shut.Add(1); return nil }

// startIdle makes an engine of idle drivers, of which that of one loop (-1: of none)
// cannot be made. shut counts those that were shut down.
func startIdle(t *testing.T, config couplet.Config, fails int, cannot error) (e *Engine, shut *atomic.Int32, err error) {
	t.Helper()
	config.Logger = slog.New(slog.DiscardHandler)
	shut = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e, err = NewEngine("idle", config, Kernel{}, func(l *Loop) (Driver, error) {
			if l.index == fails {
				return nil, cannot
			}
			return idleDriver{fakeDriver{new(bench)}, l, make(chan struct{}, 8), shut}, nil
		})
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("NewEngine does not return")
	}
	return e, shut, err
}

func TestALoopThatCannotStartEndsTheOthers(t *testing.T) {
	cannot := errors.New("no driver")
	for fails := range 3 {
		e, shut, err := startIdle(t, couplet.Config{Loops: 3}, fails, cannot)
		if e != nil || err != cannot {
			t.Errorf("where loop %d cannot start NewEngine answers %v, %v", fails, e, err)
		}
		if n := int(shut.Load()); n != fails {
			t.Errorf("where loop %d cannot start %d drivers were shut down", fails, n)
		}
	}
}

func TestLoopsArePinnedToTheirCPUs(t *testing.T) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := range 1024 {
		if may.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	cpus = cpus[:min(len(cpus), 2)]
	e, _, err := startIdle(t, couplet.Config{Loops: 3, CPUs: cpus}, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range e.Loops() {
		set := make(chan unix.CPUSet, 1)
		l.Post(func() {
			var is unix.CPUSet
			unix.SchedGetaffinity(0, &is)
			set <- is
		})
		if is, cpu := <-set, cpus[i%len(cpus)]; is.Count() != 1 || !is.IsSet(cpu) {
			t.Errorf("loop %d of CPUs %d runs on %d of them, on its own: %v", i, cpus, is.Count(), is.IsSet(cpu))
		}
	}
	e.Stop()
	<-e.Done()

	const none = 1 << 20
	if _, shut, err := startIdle(t, couplet.Config{Loops: 2, CPUs: []int{cpus[0], none}}, -1, nil); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("loop 1 cannot be pinned to CPU %d ", none)) || shut.Load() != 1 {
		t.Errorf("with a CPU that there is not NewEngine answers %v, and %d drivers were shut down", err, shut.Load())
	}
}

// neighbour is a bench of the engine's second loop.
func (b *bench) neighbour() *bench {
	n := &bench{t: b.t, engine: b.engine, loop: b.engine.loops[1], lastFD: 200}
	n.loop.Simulate(fakeDriver{n}, func() time.Duration { return b.now })
	return n
}

// TestAFailureIsToldOnEveryLoop fails an engine with a connection and with dials in each
// of their states, on the loop that fails and on another.
func TestAFailureIsToldOnEveryLoop(t *testing.T) {
	b := newBench(t, couplet.Config{Loops: 2})
	n := b.neighbour()
	p := &notes{}
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p })).listener.sockets[1]
	n.turn()
	n.turn(func() { n.loop.Accepted(ln, n.fd(), 0) })
	go1 := make(chan struct{})
	b.resolve = func() ([]sock.Sockaddr, error) {
		<-go1
		return nil, errors.New("too late")
	}
	dials := map[string]*dialNotes{}
	dial := func(what, address string, on *bench) {
		d := &dialNotes{}
		dials[what] = d
		if err := b.engine.Dial(context.Background(), "tcp", address, d, couplet.OnLoop(on.loop)); err != nil {
			t.Fatal(err)
		}
	}
	for _, on := range []*bench{b, n} {
		name := fmt.Sprintf(" on loop %d", on.loop.index)
		dial("connecting"+name, "10.0.0.1:80", on)
		dial("resolving"+name, "name:80", on)
		on.turn()
		on.want("connect")
	}
	for _, on := range []*bench{b, n} {
		dial(fmt.Sprintf("posted on loop %d", on.loop.index), "10.0.0.1:80", on)
	}
	b.waitErr = errors.New("broken")
	b.turn()
	for n.loop.Step(0) {
		if n.called("stop accept") {
			n.reports = append(n.reports, func() { n.loop.AcceptStopped(ln) })
		}
		n.loop.slab.each(func(c *Conn) {
			if n.called("close reset") {
				n.reports = append(n.reports, n.closed(c))
			}
		})
		if n.loop.count.Turns > 20 {
			t.Fatal("the other loop does not end")
		}
	}
	close(go1)
	if _, ok := errors.AsType[*couplet.EngineError](p.reason); !ok {
		t.Errorf("the connection on the other loop: %q, %v", p.got, p.reason)
	}
	for what, d := range dials {
		if len(d.errs) != 1 || d.builds != 0 {
			t.Errorf("%s: %d builds, errors %v", what, d.builds, d.errs)
			continue
		}
		if _, ok := errors.AsType[*couplet.EngineError](d.errs[0]); !ok {
			t.Errorf("%s: the error is %v", what, d.errs[0])
		}
	}
	for _, l := range b.engine.loops {
		if left := l.Leftovers(); left != "" {
			t.Errorf("left on loop %d: %s", l.index, left)
		}
	}
}

// What was asked of an engine as it was being stopped, by another goroutine, is begun
// on a loop that stops, or not at all.
func TestCallsThatMeetTheEnd(t *testing.T) {
	refuse := couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil })
	b := newBench(t, couplet.Config{})
	d := &dialNotes{}
	if err := b.engine.Dial(context.Background(), "tcp", "10.0.0.1:80", d); err != nil {
		t.Fatal(err)
	}
	l, err := b.engine.Listen("tcp", "127.0.0.1:1", refuse)
	if err != nil {
		t.Fatal(err)
	}
	b.loop.stop()
	b.turn()
	if len(d.errs) != 1 || d.errs[0] != couplet.ErrShutdown {
		t.Errorf("a dial begun on a loop that stops: %v", d.errs)
	}
	select {
	case <-l.Closed():
	default:
		t.Error("a listener begun on a loop that stops is open")
	}
	if !slices.Equal(b.calls, []string{"shutdown"}) || len(b.released) != 1 {
		t.Errorf("calls of the driver %q, descriptors closed %d", b.calls, b.released)
	}

	// The loop has ended, and the engine was not told yet.
	if err := b.engine.Dial(context.Background(), "tcp", "10.0.0.1:80", d); err != couplet.ErrEngineClosed || len(d.errs) != 1 {
		t.Errorf("Dial on a loop that has ended answers %v and tells %v", err, d.errs)
	}
	if l, err := b.engine.Listen("tcp", "127.0.0.1:1", refuse); l != nil || err != couplet.ErrEngineClosed {
		t.Errorf("Listen on a loop that has ended answers %v, %v", l, err)
	}
	if left := b.loop.Leftovers(); left != "" || len(b.released) != 2 {
		t.Errorf("left: %s; descriptors closed: %d", left, b.released)
	}
}

// A connection that is dealt to a loop that has ended meanwhile is closed.
func TestAConnectionForALoopThatHasEnded(t *testing.T) {
	b := newBench(t, couplet.Config{Loops: 2, Spread: couplet.RoundRobin})
	n := b.neighbour()
	p := &notes{}
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }))
	b.engine.Stop()
	for n.loop.Step(0) {
	}
	b.engine.turn.Store(1)
	fd := b.fd()
	b.turn(func() { b.loop.Accepted(ln, fd, 0) })
	if len(p.got) > 0 || !slices.Contains(b.released, fd) || ln.listener.open.Load() != 0 || n.loop.Leftovers() != "" {
		t.Errorf("callbacks %q, closed %d, not %d; %d counted open; on the other loop: %s",
			p.got, b.released, fd, ln.listener.open.Load(), n.loop.Leftovers())
	}
}

// Without a slot there is no connection, accepted or dialled.
func TestALoopWithoutASlot(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }))
	b.loop.slab.size = maxChunks * chunkSize
	fd := b.fd()
	d := &dialNotes{}
	if err := b.engine.Dial(context.Background(), "tcp", "10.0.0.1:80", d); err != nil {
		t.Fatal(err)
	}
	b.turn(func() { b.loop.Accepted(ln, fd, 0) })
	b.loop.slab.size = 0
	if len(p.got) > 0 || !slices.Contains(b.released, fd) || ln.listener.open.Load() != 0 {
		t.Errorf("callbacks %q, closed %d, not %d; %d counted open", p.got, b.released, fd, ln.listener.open.Load())
	}
	if len(d.errs) != 1 || !errors.Is(d.errs[0], syscall.ENOBUFS) || len(b.released) != 2 || b.called("connect") {
		t.Errorf("the dial: %v; descriptors closed: %d", d.errs, b.released)
	}
	if n := b.loop.load.Load(); n != 0 {
		t.Errorf("%d counted for LeastConnections", n)
	}
}

// RawConns have nothing of a connection once Abort was called: the driver may have
// closed its descriptor.
func TestNoDescriptorAfterAbort(t *testing.T) {
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{})
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c.Abort()
	err = raw.Control(func(fd uintptr) { t.Errorf("Control gives descriptor %d", fd) })
	if err != net.ErrClosed {
		t.Errorf("Control answers %v", err)
	}
	if _, err := c.SyscallConn(); err != net.ErrClosed {
		t.Errorf("SyscallConn answers %v", err)
	}
}

// Go that comes after the deadline of Shutdown is answered, and nothing is begun.
func TestGoThatMeetsTheEnd(t *testing.T) {
	b := newBench(t, couplet.Config{})
	b.engine.Stop()
	b.turn()
	b.loop.cut()
	var answers []error
	if !b.loop.Go(
		func(context.Context) error { t.Error("work was begun"); return nil },
		func(err error) { answers = append(answers, err) },
	) {
		t.Fatal("the loop has ended already")
	}
	for b.loop.Step(0) {
	}
	if len(answers) != 1 || answers[0] != couplet.ErrEngineClosed {
		t.Errorf("answers %v", answers)
	}
	if b.loop.Go(func(context.Context) error { t.Error("work was begun"); return nil }, func(error) { t.Error("done was called") }) {
		t.Error("a loop that has ended promises to run work")
	}
	if n := b.loop.works.Load(); n != 0 {
		t.Errorf("%d works are counted after the end", n)
	}
}
