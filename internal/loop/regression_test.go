//go:build linux

package loop

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/sock"
	"couplet/internal/testpeer"
)

// Each test here is named after what broke once.

// The mark was looked at only where a send began: with one in flight that did
// not move, WritePaused never came.
func TestWritePausedCameOnlyWhenASendBegan(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	c.Write(make([]byte, 10))
	b.turn()
	b.want("send 10")
	c.Write(make([]byte, defaultHigh))
	b.turn()
	b.turn()
	if !slices.Contains(p.got, "paused") {
		t.Errorf("%d bytes are queued, and the callbacks were %q", c.Buffered(), p.got)
	}
}

// Stop overwrote the reason of a connection whose send had failed before: what
// was lost looked as if it had been sent.
func TestStopHidTheErrorOfASend(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	c.Write([]byte("hello"))
	b.turn()
	b.turn(b.sent(c, 0, syscall.ECONNRESET))
	b.engine.Stop()
	b.turn()
	b.want("close reset")
	b.turn(b.closed(c))
	if !errors.Is(p.reason, syscall.ECONNRESET) {
		t.Errorf("the reason is %v", p.reason)
	}
}

// A connection that one loop had accepted for another, whose last turn was
// over, was made and then forgotten: no ConnectionLost, a descriptor too many.
func TestAConnectionWasDealtToALoopThatHadEnded(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }))
	b.engine.Stop()
	b.turn()
	b.turn(func() { b.loop.AcceptStopped(ln) })
	fd := b.fd()
	ln.listener.enter()
	if !b.loop.Post(func() { b.loop.adopt(fd, &ln.listener.origin) }) {
		t.Fatal("the loop has ended already")
	}
	for b.loop.Step(0) {
	}
	if len(p.got) > 0 || !slices.Contains(b.released, fd) {
		t.Errorf("callbacks %q, descriptors closed %d, not %d", p.got, b.released, fd)
	}
}

// A connection of another loop ended between the look at MaxConns and the note
// that the listener waits: nobody woke it, ever.
func TestAPlaceThatBecameFreeMeanwhileWasMissed(t *testing.T) {
	for _, parked := range []bool{false, true} {
		b := newBench(t, couplet.Config{})
		made := 0
		ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { made++; return &notes{} }), couplet.MaxConns(1))
		b.onCall = func(call string) {
			if call == "stop accept" {
				ln.listener.open.Add(-1) // it had looked for listeners that wait before
			}
		}
		if parked {
			ln.listener.open.Add(1) // the other one took the last place
		}
		b.turn(func() { b.loop.Accepted(ln, b.fd(), 0) })
		b.want("stop accept")
		b.turn()
		if ln.starving != parked || made != 1 {
			t.Errorf("parked %t: %d connections were made, not 1; it waits: %t", parked, made, ln.starving)
		}
	}
}

// Each connection's end woke all loops while a listener of one of them waited.
func TestAConnectionsEndWokeLoopsOnWhichNoListenerWaits(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	b.engine.starving.Add(1) // another loop's
	b.engine.wakeStarving()
	if !b.loop.posts.empty() {
		t.Error("a loop was woken on which no listener waits")
	}
	ln.setStarving(true)
	b.engine.wakeStarving()
	if b.loop.posts.empty() {
		t.Error("a loop was not woken on which a listener waits")
	}
	ln.setStarving(false)
	b.engine.starving.Add(-1)
}

// Who was accepted after Close and before the driver had stopped was reset, though an
// heir of the socket would have served it.
func TestAnAcceptThatCrossedCloseWasReset(t *testing.T) {
	for _, stop := range []bool{false, true} {
		b := newBench(t, couplet.Config{})
		made := 0
		ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { made++; return &notes{} }))
		ln.listener.Close()
		if stop {
			b.engine.Stop()
		}
		b.turn()
		fd := b.fd()
		b.turn(func() {
			b.loop.Accepted(ln, fd, 0)
			b.loop.AcceptStopped(ln)
		})
		if reset := slices.Contains(b.released, fd); reset != stop || made == 1 != !stop {
			t.Errorf("with Stop %t: %d connections were made, reset: %t", stop, made, reset)
		}
		select {
		case <-ln.listener.Closed():
		default:
			t.Error("the listener is not closed")
		}
	}
}

// A loop that failed closed descriptors that its driver had closed: by then
// the number could be a stranger's.
func TestADescriptorWasClosedTwiceWhenTheLoopFailed(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	fd := c.FD()
	c.Abort()
	b.want("close reset")
	b.waitErr = errors.New("broken")
	b.turn()
	if slices.Contains(b.released, fd) {
		t.Error("the descriptor was closed by the loop, and it is the driver's")
	}
	if p.reason != couplet.ErrAborted {
		t.Errorf("the reason is %v", p.reason)
	}
}

// What was left of a batch of posted functions did not run when the loop
// failed, though Post had promised it.
func TestPostedFunctionsWereForgottenWhenTheLoopFailed(t *testing.T) {
	b := newBench(t, couplet.Config{PostsPerTurn: 1})
	ran := 0
	for range 3 {
		if !b.loop.Post(func() { ran++ }) {
			t.Fatal("Post refuses")
		}
	}
	b.turn()
	b.waitErr = errors.New("broken")
	b.turn()
	if ran != 3 {
		t.Errorf("%d of 3 posted functions ran", ran)
	}
}

// So it was with those behind a function that ended the loop's goroutine.
func TestPostedFunctionsWereForgottenAfterAGoexit(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ran := false
	b.loop.Post(func() { runtime.Goexit() })
	b.loop.Post(func() { ran = true })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer b.loop.fail(errGoexit)
		b.loop.Turn(0)
	}()
	<-ended
	if !ran {
		t.Error("the second function did not run")
	}
}

// A send heard the peer's reset first, so the receive said 0: a protocol that
// takes ReadClosed for "complete" was told so.
func TestAResetLookedLikeTheEndOfTheStream(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notesHalf{}
	c := b.accept(p)
	c.Write([]byte("hello"))
	b.turn()
	b.torn = true
	b.turn(b.ended(c, 0))
	if slices.Contains(p.got, "read closed") {
		t.Errorf("ReadClosed came for a reset: %v", p.got)
	}
	b.turn(b.closed(c))
	if !errors.Is(p.reason, syscall.ECONNRESET) {
		t.Errorf("the reason is %v", p.reason)
	}
}

// CloseWrite after a send had failed was answered by WriteClosed, which says
// that everything was sent.
func TestWriteClosedCameThoughSendingHadFailed(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notesHalf{}
	c := b.accept(p)
	c.Write([]byte("hello"))
	b.turn()
	b.turn(b.sent(c, 0, syscall.ECONNRESET))
	c.CloseWrite()
	b.turn()
	if slices.Contains(p.got, "write closed") || b.called("close write") {
		t.Errorf("callbacks %q", p.got)
	}
}

// What waited for a paused protocol was not released when the loop failed.
func TestReceivedBuffersWereKeptWhenTheLoopFailed(t *testing.T) {
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{made: func(t couplet.Transport) { t.PauseReading() }})
	released := false
	b.turn(func() { b.loop.Received(c, make([]byte, little+1), lentFunc(func() { released = true })) })
	b.waitErr = errors.New("broken")
	b.turn()
	if !released {
		t.Error("the Buffer was not released")
	}
}

// lentFunc is memory that tells when it is released.
type lentFunc func()

func (f lentFunc) Keep() *couplet.Buffer { return couplet.NewBuffer([]byte("x"), f) }

// A Listener's Close that was posted before its loop failed reached the driver
// after that had been shut down.
func TestAListenerOfAFailedLoopAskedItsDriver(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }), couplet.MaxConns(1))
	b.turn(func() { b.loop.Accepted(ln, b.fd(), 0) }, func() { b.loop.Accepted(ln, b.fd(), 0) })
	b.calls = nil
	ln.listener.Close()
	b.waitErr = errors.New("broken")
	b.turn()
	if !slices.Equal(b.calls, []string{"shutdown"}) {
		t.Errorf("calls of the driver: %q", b.calls)
	}
	if left := b.loop.Leftovers(); left != "" || len(b.released) != 3 {
		t.Errorf("left: %s; descriptors closed: %d", left, b.released)
	}
}

// A report made before the wait went by the time of the turn before. Where much
// had passed since (the process was stopped), what had just moved timed out.
func TestAReportBeforeTheWaitWentByAnOldClock(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p, couplet.IdleTimeout(time.Minute), couplet.FlushTimeout(time.Second))
	b.now = time.Minute
	b.early = []func(){b.ended(c, 0)}
	b.turn()
	b.turn()
	b.want("close graceful")
	b.turn(b.closed(c))
	if p.reason != io.EOF {
		t.Errorf("the reason is %v", p.reason)
	}
}

// A panic in a function posted to a connection was only logged: on the other
// engines it loses that connection, as in any of its callbacks.
func TestAPanicInAPostedFunctionLeftTheConnection(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	if err := c.Handle().Post(func(couplet.Transport) { panic("posted") }); err != nil {
		t.Fatal(err)
	}
	b.turn()
	b.turn(b.closed(c))
	if _, ok := errors.AsType[*couplet.PanicError](p.reason); !ok {
		t.Errorf("the reason is %v", p.reason)
	}
}

// A loop that failed closed its connections as usual: what was cut off in the
// middle came with a FIN and looked complete.
func TestAFailedLoopEndedItsStreamsWithAFIN(t *testing.T) {
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{})
	c.Write([]byte("half of it"))
	b.turn()
	b.turn(b.sent(c, 4, 0))
	fd := c.FD()
	b.waitErr = errors.New("broken")
	b.turn()
	if !slices.Equal(b.reset, []int{fd}) {
		t.Errorf("closed by a reset: %d, not %d", b.reset, fd)
	}
}

// ConnectionLost of one connection of a loop that failed may turn to another:
// that asked the driver, which was no more, and io_uring's panicked.
func TestAConnectionOfAFailedLoopAskedItsDriver(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var all []*Conn
	var protos []*notes
	for range 3 {
		p := &notes{lost: func(couplet.Transport) {
			for i, c := range all {
				c.PauseReading()
				c.Write([]byte("farewell"))
				if i%2 == 0 {
					c.Abort()
				}
				c.Close()
			}
		}}
		protos = append(protos, p)
		all = append(all, b.accept(p))
	}
	b.calls = nil
	b.waitErr = errors.New("broken")
	b.turn()
	if !slices.Equal(b.calls, []string{"shutdown"}) || len(b.released) != 3+3 { // and 3 listeners
		t.Errorf("calls of the driver: %q; descriptors closed: %d", b.calls, b.released)
	}
	for _, p := range protos {
		if _, ok := errors.AsType[*couplet.EngineError](p.reason); !ok {
			t.Errorf("the reason is %v", p.reason)
		}
	}
}

// After 16 million connections of one slot its generations began again, and a
// Handle of the first one reached another.
func TestAHandleReachedAStrangerAfterAllGenerations(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	accept := func() *Conn {
		fd := b.fd()
		b.turn(func() { b.loop.Accepted(ln, fd, 0) })
		return b.conn(fd)
	}
	end := func(c *Conn) {
		c.Abort()
		b.turn(b.closed(c))
	}
	first := accept()
	slot, h := first.Slot(), first.Handle()
	end(first)
	b.loop.slab.at(slot).generation.Store(GenerationMask)
	last := accept()
	if last.Slot() != slot || last.Generation() != GenerationMask {
		t.Fatalf("the last connection of slot %d is in slot %d, of generation %d", slot, last.Slot(), last.Generation())
	}
	lastHandle := last.Handle()
	end(last)
	stranger := accept()
	for _, h := range []couplet.Handle{h, lastHandle} {
		if err := h.Abort(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Abort of a stale Handle: %v", err)
		}
	}
	b.turn()
	if stranger.state != open {
		t.Error("it reached a stranger")
	}
}

// A connection that Build had refused, and that was still being closed, was counted
// among those that drained.
func TestARefusedConnectionCountedAsDrained(t *testing.T) {
	b := newBench(t, couplet.Config{})
	b.unacked = true
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil }))
	fd := b.fd()
	b.turn(func() { b.loop.Accepted(ln, fd, 0) })
	c := b.conn(fd)
	b.engine.Stop()
	b.turn()
	b.turn(b.ended(c, 0))
	b.want("close graceful")
	b.turn(b.closed(c))
	if b.engine.clean != 0 || b.engine.cut != 0 {
		t.Errorf("%d drained, %d were cut", b.engine.clean, b.engine.cut)
	}
}

// The descriptor was closed before it was asked for LocalAddr, which stays valid
// after ConnectionLost.
func TestNoLocalAddrAfterAFailure(t *testing.T) {
	b := newBench(t, couplet.Config{})
	d := &dialNotes{}
	if err := b.engine.Dial(t.Context(), "unix", "/there", d); err != nil {
		t.Fatal(err)
	}
	b.turn()
	c := b.attempt()
	b.turn(func() { b.loop.Connected(c, 0) })
	b.waitErr = errors.New("broken")
	b.turn()
	if len(d.proto.got) != 2 || c.LocalAddr() == nil {
		t.Errorf("callbacks %q, local address %v", d.proto.got, c.LocalAddr())
	}
}

// What Go had posted when its loop failed began after that, and its done was never called.
func TestGoThatWaitedWhenItsLoopFailedIsAnswered(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var got error
	b.loop.Go(func(context.Context) error { t.Error("the work began"); return nil }, func(err error) { got = err })
	b.waitErr = errors.New("broken")
	b.turn()
	if got != couplet.ErrEngineClosed || b.loop.works.Load() != 0 {
		t.Errorf("done was given %v; %d works run", got, b.loop.works.Load())
	}
}

// A brokenDriver waits to be woken and fails then. It counts how often it is shut down.
type brokenDriver struct {
	fakeDriver
	l     *Loop
	woken chan struct{}
	shut  *atomic.Int32
}

func (d brokenDriver) Wake() { d.woken <- struct{}{} }
func (d brokenDriver) Wait(limit time.Duration) error {
	if d.l.Rest(limit) != 0 {
		<-d.woken
	}
	d.l.Awake()
	return errors.New("broken")
}
func (d brokenDriver) Shutdown() error { d.shut.Add(1); return nil }

// The Goexit of a callback that heard of its engine's end had the driver shut down once
// more, which closes descriptors whose numbers may be others' by then.
func TestAFailedLoopsDriverIsShutDownOnce(t *testing.T) {
	var shut atomic.Int32
	e, err := NewEngine("fake", couplet.Config{Logger: slog.New(slog.DiscardHandler)}, Kernel{}, func(l *Loop) (Driver, error) {
		return brokenDriver{fakeDriver{new(bench)}, l, make(chan struct{}, 8), &shut}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Loops()[0].Post(runtime.Goexit)
	select {
	case <-e.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the engine does not end")
	}
	if n := shut.Load(); n != 1 {
		t.Errorf("the driver was shut down %d times", n)
	}
	// A loop that has ended kept its thread's number: on another thread with that,
	// Shutdown took itself to be on the loop.
	if id := e.loops[0].thread.Load(); id != 0 {
		t.Errorf("the loop, which has ended, runs on thread %d", id)
	}
}

// A successor binds a listener's path as soon as the socket is closed.
type successor struct {
	Kernel
	path string
	fds  []int
	err  error
}

func (s *successor) Release(fd int) {
	s.Kernel.Release(fd)
	if s.fds == nil {
		o, _ := couplet.NewOptions()
		s.fds, _, s.err = sock.Listen("unix", s.path, &o, 1)
	}
}

// A listener looked whether its socket's file was still its own when the socket was closed
// already: by then the file system may have given the inode's number to a successor's.
func TestAListenersEndLeavesItsSuccessorsFile(t *testing.T) {
	s := &successor{path: filepath.Join(t.TempDir(), "s")}
	b := newBench(t, couplet.Config{})
	b.engine.sockets, b.loop.sockets = s, s
	l, err := b.engine.Listen("unix", s.path, couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	b.turn()
	l.Close()
	b.turn()
	b.turn(func() { b.loop.AcceptStopped(l.(*listener).sockets[0]) })
	<-l.Closed()
	if s.err != nil {
		t.Fatal(s.err)
	}
	defer unix.Close(s.fds[0])
	if _, err := os.Lstat(s.path); err != nil {
		t.Errorf("the successor's file: %v", err)
	}
}

// Where one goroutine's Stop had marked the engine and another one's Shutdown, whose ctx
// was done, came before it on the loop, nobody counted who was cut, and the stop that
// followed had the loop wait for them.
func TestACutThatOvertakesTheStop(t *testing.T) {
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{})
	b.engine.stopped.Store(true) // the beginning of Stop
	cause := errors.New("no patience")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	type outcome struct {
		couplet.Drained
		error
	}
	got := make(chan outcome)
	go func() {
		d, err := b.engine.Shutdown(ctx)
		got <- outcome{d, err}
	}()
	for b.loop.Posted() == 0 {
		runtime.Gosched()
	}
	b.turn()
	b.want("close reset")
	b.turn(b.closed(c))
	b.loop.Post(b.loop.stop) // the rest of Stop
	b.turn()
	if b.loop.draining {
		t.Error("the loop, which was told to cut, waits again")
	}
	for ln := range b.loop.listeners {
		b.turn(func() { b.loop.AcceptStopped(ln) })
	}
	for b.loop.Step(0) {
	}
	if o := <-got; o.Drained != (couplet.Drained{Cut: 1}) || o.error != cause {
		t.Errorf("Shutdown says %+v, %v", o.Drained, o.error)
	}
}

// What a callback posted ran in the same turn, before what it had written was sent.
func TestPostFromACallbackRunsAfterTheFlush(t *testing.T) {
	for _, when := range []string{"received", "timer", "early"} {
		b := newBench(t, couplet.Config{})
		p := &notes{}
		c := b.accept(p)
		var sent bool
		ran := 0
		act := func() {
			c.Write([]byte("x"))
			b.loop.Post(func() { ran++; sent = b.called("send 1") })
		}
		p.data = func(couplet.Transport, []byte) { act() }
		received := func() { b.loop.Received(c, []byte("?"), fakeLent("?")) }
		switch when {
		case "received":
			b.turn(received)
		case "early": // before the wait
			b.early = append(b.early, received)
			b.turn()
		case "timer":
			b.loop.AfterFunc(0, act)
			b.turn()
		}
		if ran != 0 {
			t.Errorf("%s: ran in the same turn", when)
		}
		b.turn()
		if ran != 1 || !sent {
			t.Errorf("%s: ran %d times, after the send: %v", when, ran, sent)
		}
	}
}

// The number of a connection, which chooses its loop, was negative from 2^31 on where int
// has 32 bits.
func TestDealingGoesOnAfter2To31(t *testing.T) {
	e, err := Prepare("fake", couplet.Config{Loops: 3}, Kernel{})
	if err != nil {
		t.Fatal(err)
	}
	e.turn.Store(1 << 31)
	for range 3 {
		e.pick()
	}
}

// The connections of a socket that takes those to other addresses too, which Control may
// have asked for (IP_TRANSPARENT), were told the listener's address.
func TestLocalAddrIsAskedForWhereControlWas(t *testing.T) {
	b := newBench(t, couplet.Config{})
	if port := b.accept(&notes{}).LocalAddr().(*net.TCPAddr).Port; port != 1 {
		t.Errorf("the listener's connection is at port %d", port)
	}
	c := b.accept(&notes{}, couplet.Control(func(uintptr) error { return nil }))
	if port := c.LocalAddr().(*net.TCPAddr).Port; port != 2 {
		t.Errorf("the kernel's word is port 2, LocalAddr's %d", port)
	}
}

// Half of a Transport's methods, and all of a Loop's, were not looked at where builds
// promise to find a call off the loop: a timer that another goroutine armed was lost, or
// took the queue with it.
func TestCallsOffTheLoopWentUnnoticed(t *testing.T) {
	if !checked {
		t.Skip("this build does not look: -race or -tags couplet_debug does")
	}
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{})
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	timer := b.loop.AfterFunc(time.Hour, func() {})
	for name, call := range map[string]func(){
		"Transport.Write":         func() { c.Write(nil) },
		"Transport.Writev":        func() { c.Writev(nil) },
		"Transport.WriteBuffer":   func() { c.WriteBuffer(couplet.NewBuffer(nil, nil)) },
		"Transport.Buffered":      func() { c.Buffered() },
		"Transport.CloseWrite":    func() { c.CloseWrite() },
		"Transport.Close":         func() { c.Close() },
		"Transport.Abort":         func() { c.Abort() },
		"Transport.PauseReading":  func() { c.PauseReading() },
		"Transport.ResumeReading": func() { c.ResumeReading() },
		"Transport.SetWatermarks": func() { c.SetWatermarks(0, 1) },
		"Transport.AfterFunc":     func() { c.AfterFunc(0, func() {}) },
		"Transport.LocalAddr":     func() { c.LocalAddr() },
		"Transport.RemoteAddr":    func() { c.RemoteAddr() },
		"Transport.SyscallConn":   func() { c.SyscallConn() },
		"RawConn.Control":         func() { rc.Control(func(uintptr) {}) },
		"Transport.Loop":          func() { c.Loop() },
		"Transport.Handle":        func() { c.Handle() },
		"Transport.Context":       func() { c.Context() },
		"Transport.SetContext":    func() { c.SetContext(1) },
		"Loop.AfterFunc":          func() { b.loop.AfterFunc(0, func() {}) },
		"Loop.Every":              func() { b.loop.Every(1, func() {}) },
		"Loop.Now":                func() { b.loop.Now() },
		"Timer.Stop":              func() { timer.Stop() },
		"Timer.Reset":             func() { timer.Reset(0) },
		"Timer.Missed":            func() { timer.Missed() },
	} {
		told := make(chan any)
		go func() {
			runtime.LockOSThread() // not the loop's, which the test holds
			defer runtime.UnlockOSThread()
			defer func() { told <- recover() }()
			call()
		}()
		if <-told == nil {
			t.Errorf("%s off the loop went through", name)
		}
	}
}

// The Handle that a protocol asked for in ConnectionLost was the zero one, so that who
// keeps his connections in a map by their Handles could not take them out.
func TestTheHandleOfALostConnectionIsTheSame(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	h := c.Handle()
	var last couplet.Handle
	p.lost = func(t couplet.Transport) { last = t.Handle() }
	c.Abort()
	b.turn(b.closed(c))
	if last != h {
		t.Errorf("%v became %v", h, last)
	}
	if err := last.Close(); err != net.ErrClosed {
		t.Errorf("Close: %v", err)
	}
}

// What Handles had posted to a connection counted against the next one in its slot.
func TestPostsToAPredecessorCountedAgainstItsSuccessor(t *testing.T) {
	b := newBench(t, couplet.Config{PostsPerTurn: 1})
	first := b.accept(&notes{}, couplet.MaxOutbound(1000))
	h := first.Handle()
	for range 5 {
		b.loop.Post(func() {})
	}
	if _, err := h.Write(make([]byte, 900)); err != nil {
		t.Fatal(err)
	}
	first.Abort()
	b.turn(b.closed(first))
	second := b.accept(&notes{}, couplet.MaxOutbound(1000))
	if second.slot != first.slot {
		t.Fatal("it has another slot")
	}
	if _, err := second.Handle().Write(make([]byte, 900)); err != nil {
		t.Error(err)
	}
}

// File gave the socket away after Close had been called.
func TestFileAfterCloseGaveASocket(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	ln.listener.Close()
	if f, err := ln.listener.File(); err != net.ErrClosed {
		f.Close()
		t.Errorf("File: %v", err)
	}
}

// A loop that had been held up took for idle who had spoken, where the driver hands over
// what has come in several turns.
func TestWhoHadSpokenTimedOut(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p, couplet.IdleTimeout(time.Minute))
	pass := func(d time.Duration, wantReset bool) {
		t.Helper()
		b.now += d
		b.turn()
		if got := b.called("close reset"); got != wantReset {
			t.Fatalf("after %v more the connection is reset: %v", d, got)
		}
	}
	b.pending = true
	for range 3 {
		pass(time.Hour, false)
	}
	b.pending = false
	b.turn(func() { b.loop.Received(c, []byte("x"), fakeLent("x")) })
	pass(time.Minute-time.Millisecond, false)
	pass(2*time.Millisecond, true)
	b.turn(b.closed(c))
	if _, ok := errors.AsType[*couplet.TimeoutError](p.reason); !ok {
		t.Errorf("the reason is %v", p.reason)
	}
	b.pending = true // but of one that is paused nothing is to be told
	c = b.accept(&notes{}, couplet.IdleTimeout(time.Minute))
	c.PauseReading()
	pass(2*time.Minute, true)
	b.turn(b.closed(c))
}

// The wait for the peer's acknowledgement began with the turn: where a callback had taken
// as long as that may last, it was over at once.
func TestALingerWasOverBeforeItBegan(t *testing.T) {
	b := newBench(t, couplet.Config{})
	c := b.accept(&notes{}, couplet.LingerTimeout(time.Second), couplet.FlushTimeout(time.Second))
	b.unacked = true
	b.turn(func() {
		b.now += time.Minute // the callback of another connection
		c.Write([]byte("x"))
		c.Close()
	})
	b.turn()
	if b.called("close reset") {
		t.Fatal("the flush was over at once")
	}
	b.turn(func() { b.now += time.Minute }, b.sent(c, 1, 0))
	b.want("close write")
	b.turn()
	if b.called("close graceful") {
		t.Fatal("the linger was over at once")
	}
	b.now += 2 * time.Second
	b.turn()
	b.want("close graceful")
	b.turn(b.closed(c))
}

// What had come before a send failed was to be delivered, and was dropped where the loop
// had been held up for longer than LingerTimeout.
func TestWhatCameBeforeAFailedSendWasDropped(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p, couplet.LingerTimeout(time.Second))
	b.turn(func() { c.Write([]byte("x")) })
	b.turn(b.sent(c, 0, syscall.EPIPE))
	b.pending = true
	b.now += time.Minute
	b.turn()
	if b.called("close reset") {
		t.Fatal("what has come was not waited for")
	}
	b.pending = false
	b.now += time.Minute
	b.turn()
	b.want("close reset")
	b.turn(b.closed(c))
}

// CloseWrite behind a reset waits for what came before it. Who declined that then was left
// as it was, for ever.
func TestAPauseBehindACloseWriteAfterAReset(t *testing.T) {
	b := newBench(t, couplet.Config{BytesPerTurn: 1})
	p := &notes{}
	b.accept(&notes{}) // who has a share of the turn
	c := b.accept(p)
	chunk := func() { b.loop.Received(c, []byte("12345"), fakeLent("12345")) }
	b.turn(chunk, chunk, chunk, b.ended(c, syscall.ECONNRESET), func() { c.CloseWrite() })
	if b.called("close reset") {
		t.Fatal("what came before the reset was dropped")
	}
	b.turn(func() { c.PauseReading() })
	b.want("close reset")
	b.turn(b.closed(c))
}

// A FlushTimeout that never is made the end of a sum with it: where the idle timer was due in
// the turn in which a callback took its time and closed, that was a reset.
func TestAnEndlessFlushTimeoutWasOver(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{data: func(t couplet.Transport, _ []byte) { b.now++; t.Close() }}
	c := b.accept(p, couplet.IdleTimeout(time.Second), couplet.FlushTimeout(math.MaxInt64))
	b.now += 2 * time.Second
	b.turn(func() { c.received([]byte("x"), fakeLent("x")) })
	b.turn()
	if b.called("close reset") {
		t.Error("what was closed is reset")
	}
}

// What is not a callback can end the loop's goroutine, too: Control, where a dial goes on to
// its next address. The engine had ended then, without an error, and nobody was told.
func TestAGoexitOutsideOfCallbacksEndedTheEngineInSilence(t *testing.T) {
	var l *Loop
	e, err := NewEngine("fake", couplet.Config{Logger: slog.New(slog.DiscardHandler)}, Kernel{}, func(made *Loop) (Driver, error) {
		l = made
		return exitDriver{fakeDriver{new(bench)}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the engine does not end")
	}
	if _, ok := errors.AsType[*couplet.EngineError](e.Err()); !ok {
		t.Errorf("the engine says %v", e.Err())
	}
	if l.Post(func() {}) {
		t.Error("its loop promises to run what is posted")
	}
}

// An exitDriver's wait is the end of its goroutine.
type exitDriver struct{ fakeDriver }

func (exitDriver) Wake()                    {}
func (exitDriver) Wait(time.Duration) error { runtime.Goexit(); return nil }

// What connections had needed for their queues, one segment each, stayed for good when
// they were gone.
func TestSegmentsOutlivedTheirConnections(t *testing.T) {
	n := kept[0] + 100
	var p segments
	shared := couplet.NewBuffer([]byte("x"), nil)
	var owned, lent []*Segment
	for range n {
		p.serve(len(owned) + 1)
		owned, lent = append(owned, p.owned(1, nil)), append(lent, p.lent(shared.Retain()))
	}
	for i := range n {
		p.put(owned[i])
		p.put(lent[i])
	}
	if len(p.free[0]) != n || len(p.shared) != n {
		t.Errorf("%d connections have %d and %d segments", n, len(p.free[0]), len(p.shared))
	}
	for i := range n {
		p.serve(n - 1 - i)
	}
	if len(p.free[0]) != kept[0] || len(p.shared) != kept[0] {
		t.Errorf("no connection has %d and %d segments", len(p.free[0]), len(p.shared))
	}
}

// A seccomp or LSM profile that refuses accept was an outage without a line in the log.
func TestAcceptsThatWereRefusedForEverWereNotLogged(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EPROTO} {
		var log []string
		b := newBench(t, couplet.Config{Logger: testpeer.Logger(func(line string) { log = append(log, line) })})
		ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
		fail := func() { b.turn(func() { b.loop.Accepted(ln, -1, errno) }) }
		for range sock.MaxIgnored - 1 {
			fail()
		}
		if len(log) > 0 {
			t.Errorf("%v: few failures are logged: %q", errno, log)
		}
		for range 3 { // in one moment
			fail()
		}
		b.now += time.Second
		fail()
		if len(log) != 2 {
			t.Fatalf("%v: the log has %q, not 2 lines", errno, log)
		}
		for _, line := range log {
			cause := strings.Contains(line, "a seccomp or LSM filter may refuse accept")
			if !strings.HasPrefix(line, "WARN cannot accept") || !strings.Contains(line, errno.Error()) || cause != (errno != syscall.EPROTO) {
				t.Errorf("%v: the log has %q", errno, line)
			}
		}
	}
}

// Each loop's socket of one listener had a line a second of its own, and want of memory was
// to be mended by more descriptors.
func TestEachSocketOfAListenerWarned(t *testing.T) {
	var log []string
	b := newBench(t, couplet.Config{Loops: 2, Spread: couplet.ReusePort, Logger: testpeer.Logger(func(line string) { log = append(log, line) })})
	n := b.neighbour()
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	n.turn()
	other := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }))
	fail := func(errno syscall.Errno) {
		b.turn(func() { b.loop.Accepted(ln, -1, errno) })
		n.turn(func() { n.loop.Accepted(ln.listener.sockets[1], -1, errno) })
	}
	fail(syscall.EMFILE)
	b.now += time.Second
	fail(syscall.ENOMEM)
	b.turn(func() { b.loop.Accepted(other, -1, syscall.ENFILE) })
	remedies := []string{"ulimit -n", "memory", "fs.file-max"}
	if len(log) != len(remedies) {
		t.Fatalf("the log has %q", log)
	}
	for i, line := range log {
		_, told, _ := strings.Cut(line, "remedy=")
		for j, remedy := range remedies {
			if strings.Contains(told, remedy) != (i == j) {
				t.Errorf("the log has %q", line)
			}
		}
	}
}
