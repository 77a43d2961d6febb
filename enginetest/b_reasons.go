package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"couplet"
)

// reasonCases: why a connection ended, and why a dial failed.
var reasonCases = []Case{
	{ID: 14, Name: "the peer's FIN is EOF", Run: peerFIN},
	{ID: 15, Name: "our Close is ErrClosed after the flush", Run: localClose},
	{ID: 16, Name: "the peer's reset is ECONNRESET after the data", Needs: NeedsTCP, Run: peerReset},
	{ID: 17, Name: "Abort is ErrAborted here and a reset there", Needs: NeedsTCP, Run: abortReasons},
	{ID: 18, Name: "a panic in data ends that connection only", Run: panicInData},
	{ID: 19, Name: "a panic in made is the reason on both sides", Run: panicInMade},
	{ID: 20, Name: "a panic in lost leaves nothing open", Run: panicInLost},
	{ID: 21, Name: "a panic wins over Abort", Run: panicAfterAbort},
	{ID: 22, Name: "failures of calls are told apart", Run: distinctErrors},
}

func peerFIN(e *Env) {
	s := e.conn("server of a peer")
	p := e.peer(s, 0)
	e.send(p, []byte("last words"))
	p.Close()
	s.lostWith("eof")
	s.wantText("last words")

	s, c := e.conn("server"), e.conn("client")
	c.onMade = func(t couplet.Transport) { t.Write([]byte("last words")); t.Close() }
	e.pair(s, c)
	s.lostWith("eof")
	s.wantText("last words")
	c.lostWith("closed")

	// A client of a server that is no engine.
	l := e.peerListener()
	c = e.conn("client of a peer")
	e.dial(l.Addr().String(), c)
	p, err := l.Accept()
	e.check(err, "a peer's accept")
	c.waitMade()
	e.adopt(p).Close()
	c.lostWith("eof")
}

func localClose(e *Env) {
	n := bulk(4 << 20)
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() }
	p := e.peer(s, 0)
	e.expectStream(p, int64(n))
	p.Close()
	if reason := s.waitLost(); class(reason) != "closed" || !errors.Is(reason, net.ErrClosed) {
		e.Errorf("after Close the reason is %v (%s)", reason, class(reason))
	}
	// Where the peer's FIN came first it is EOF.
	s = e.conn("second server")
	s.onReadClosed = func(t couplet.Transport) { t.Write([]byte("bye")); t.Close() }
	p = e.peer(s, 0)
	p.CloseWrite()
	e.expect(p, "bye")
	e.expectEOF(p)
	s.lostWith("eof")
}

func peerReset(e *Env) {
	s := e.conn("idle")
	e.peer(s, 0).Reset()
	s.lostWith("reset")

	s = e.conn("with data before")
	p := e.peer(s, 0)
	e.send(p, []byte("before the reset"))
	p.Reset()
	s.lostWith("reset")
	s.wantText("before the reset")
	s.wantOrder("build made data lost")

	s = e.conn("half-aware")
	s.half = true
	p = e.peer(s, 0)
	p.Reset()
	s.lostWith("reset")
	if s.count("readClosed") != 0 {
		e.Errorf("a reset was told as the peer's FIN: %s", s.history())
	}

	// A reset while paused waits, and the data comes before it.
	s = e.conn("paused")
	s.onMade = func(t couplet.Transport) { t.PauseReading() }
	p = e.peer(s, 0)
	e.send(p, []byte("before the reset"))
	p.Reset()
	e.settle(s.loop)
	s.wantOrder("build made")
	s.do(func(t couplet.Transport) { t.ResumeReading() })
	s.lostWith("reset")
	s.wantText("before the reset")
}

func abortReasons(e *Env) {
	s := e.conn("server of a peer")
	p := e.peer(s, 0)
	s.do(func(t couplet.Transport) { t.Abort() })
	reason := s.waitLost()
	e.wantReason(s.name, reason, "aborted")
	if !errors.Is(reason, net.ErrClosed) {
		e.Errorf("%v is not net.ErrClosed", reason)
	}
	e.expectReset(p)

	s, c := e.conn("server"), e.conn("client")
	e.pair(s, c)
	c.do(func(t couplet.Transport) { t.Abort() })
	c.lostWith("aborted")
	s.lostWith("reset")
	if op, ok := errors.AsType[*net.OpError](s.reason); !ok || !errors.Is(op, syscall.ECONNRESET) {
		e.Errorf("the peer of an Abort got %#v", s.reason)
	}
}

// errPanic is what the callbacks of these cases panic with.
var errPanic = errors.New("the callback is broken")

// wantPanic waits for the end of c by panic and checks its reason.
func (e *Env) wantPanic(c *conn) {
	reason := c.waitLost()
	p, ok := errors.AsType[*couplet.PanicError](reason)
	if !ok {
		e.Errorf("%s: the reason is %v, not a PanicError", c.name, reason)
		return
	}
	if p.Value != errPanic || !errors.Is(reason, errPanic) {
		e.Errorf("%s: the PanicError has the value %v", c.name, p.Value)
	}
	if !strings.Contains(string(p.Stack), "enginetest.") {
		e.Errorf("%s: the PanicError's stack does not lead to the callback:\n%s", c.name, p.Stack)
	}
}

// wantLogged fails the case unless the panic was logged n times.
func (e *Env) wantLogged(n int) {
	if got := e.logs.count(errPanic.Error()); got != n {
		e.Errorf("%d panics were logged %d times:\n%s", n, got, strings.Join(e.logs.all(), "\n"))
	}
}

func panicInData(e *Env) {
	s, other := e.conn("broken"), e.conn("other")
	s.onData = func(couplet.Transport, []byte) { panic(errPanic) }
	other.onData = echo
	l := e.serve([]*conn{other, s})
	bystander := e.dialPeer(l.Addr(), 0)
	other.waitMade()
	p := e.dialPeer(l.Addr(), 0)
	e.send(bystander, []byte("one"))
	e.expect(bystander, "one")
	e.send(p, []byte("trigger"))
	e.wantPanic(s)
	e.send(bystander, []byte("two"))
	e.expect(bystander, "two")
	if _, err := p.Read(make([]byte, 1)); err == nil {
		e.Errorf("the peer of a broken connection is still connected")
	}
	e.wantLogged(1)
	e.until("the panic is counted", func() bool { return e.Server.Stats().Panics == 1 })
}

func panicInMade(e *Env) {
	s := e.conn("broken server")
	s.onMade = func(couplet.Transport) { panic(errPanic) }
	p := e.peer(s, 0)
	e.wantPanic(s)
	s.wantOrder("build made lost")
	if _, err := p.Read(make([]byte, 1)); err == nil {
		e.Errorf("the peer of a broken connection is still connected")
	}
	s, c := e.conn("server"), e.conn("broken client")
	c.onMade = func(couplet.Transport) { panic(errPanic) }
	l := e.serve([]*conn{s})
	e.dial(l.Addr().String(), c)
	e.wantPanic(c)
	e.until("the server has seen it come and go", func() bool {
		// Reset before it was accepted, it is ignored.
		return s.count("lost") == 1 || e.Server.Stats().AcceptIgnored == 1
	})
	e.wantLogged(2)
}

func panicInLost(e *Env) {
	e.turns(e.Server.Loops()[0], 2)
	for _, end := range []func(s *conn, p Peer){
		func(s *conn, p Peer) { p.Close() },
		func(s *conn, p Peer) { p.Reset() },
		func(s *conn, p Peer) { s.do(func(t couplet.Transport) { t.Close() }) },
		func(s *conn, p Peer) { s.do(func(t couplet.Transport) { t.Abort() }) },
	} {
		before := takeSnapshot()
		s := e.conn("broken")
		s.onLost = func(couplet.Transport, error) { panic(errPanic) }
		p := e.peer(s, 0)
		end(s, p)
		s.waitLost()
		p.Close()
		before.check(e.t)
	}
	e.until("the panics are logged", func() bool { return e.logs.count(errPanic.Error()) == 4 })
	s := e.conn("next")
	s.onData = echo
	p := e.peer(s, 0)
	e.send(p, []byte("works"))
	e.expect(p, "works")
	if n := e.Server.Stats().Open; n != 1 && e.Server != e.Client {
		e.Errorf("%d connections are open", n)
	}
}

func panicAfterAbort(e *Env) {
	for name, before := range map[string]func(t couplet.Transport){
		"abort": func(t couplet.Transport) { t.Abort() },
		"close": func(t couplet.Transport) { t.Close() },
		"both":  func(t couplet.Transport) { t.Write([]byte("x")); t.Close(); t.Abort() },
	} {
		s := e.conn("panic after " + name)
		s.onData = func(t couplet.Transport, _ []byte) { before(t); panic(errPanic) }
		p := e.peer(s, 0)
		e.send(p, []byte("trigger"))
		e.wantPanic(s)
	}
	e.wantLogged(3)
}

// dialError dials where that cannot work and returns the error, wherever it
// came from.
func (e *Env) dialError(network, address string, opts ...couplet.Option) error {
	f, failed := e.failing()
	if err := e.Client.Dial(e.ctx, network, address, f, opts...); err != nil {
		return err
	}
	return recv(e, failed, "ConnectFailed for "+address).err
}

func distinctErrors(e *Env) {
	errs := make(map[string]error)

	errs["refused"] = e.dialError(e.network, e.refuse())
	e.wantReason("a refused dial", errs["refused"], "refused")

	errs["timeout"] = e.dialError(e.network, e.stall(), couplet.ConnectTimeout(30*time.Millisecond))
	e.wantReason("a dial that stalls", errs["timeout"], "timeout")

	ctx, cancel := context.WithCancelCause(e.ctx)
	f, failed := e.failing()
	e.check(e.Client.Dial(ctx, e.network, e.stall(), f), "Dial")
	cancel(errPanic)
	if errs["cancel"] = recv(e, failed, "ConnectFailed").err; !errors.Is(errs["cancel"], errPanic) {
		e.Errorf("a cancelled dial fails with %v", errs["cancel"])
	}

	if e.unix() {
		errs["no such file"] = e.dialError(e.network, e.address())
		if !errors.Is(errs["no such file"], os.ErrNotExist) {
			e.Errorf("a dial to a path that does not exist fails with %v", errs["no such file"])
		}
	} else {
		// Not a name at all, so no name server is asked.
		errs["no such host"] = e.dialError("tcp", "no..such..host:80")
		if d, ok := errors.AsType[*net.DNSError](errs["no such host"]); !ok || !d.IsNotFound {
			e.Errorf("a dial to an unknown host fails with %#v", errs["no such host"])
		}
		errs["unknown service"] = e.dialError("tcp", "127.0.0.1:no-such-service")
		if !strings.Contains(fmt.Sprint(errs["unknown service"]), "no-such-service") {
			e.Errorf("a dial to an unknown service fails with %v", errs["unknown service"])
		}
		f, _ = e.failing()
		if err := e.Client.Dial(e.ctx, e.network, "127.0.0.1", f); err == nil {
			e.Errorf("a dial to an address without a port is taken")
		}
	}
	f, _ = e.failing()
	if errs["network"] = e.Client.Dial(e.ctx, "carrier pigeon", "coop", f); errs["network"] == nil {
		e.Errorf("a dial on an unknown network is taken")
	}

	l := e.serve(nil)
	_, errs["in use"] = e.Server.Listen(e.network, l.Addr().String(), f)
	if op, ok := errors.AsType[*net.OpError](errs["in use"]); !ok || !errors.Is(op, syscall.EADDRINUSE) {
		e.Errorf("a listener in the way gives %#v", errs["in use"])
	}

	for a, x := range errs {
		for b, y := range errs {
			if a != b && x != nil && y != nil && (errors.Is(x, y) || x.Error() == y.Error()) {
				e.Errorf("%q and %q are the same error: %v", a, b, x)
			}
		}
	}
	for name, err := range errs {
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			e.Errorf("%q looks like the end of a connection: %v", name, err)
		}
	}
}
