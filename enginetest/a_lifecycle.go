package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// lifecycleCases: what is called when, and in which order.
var lifecycleCases = []Case{
	{ID: 1, Name: "made comes once and first", Run: madeOnce},
	{ID: 2, Name: "lost comes once and last", Run: lostOnce},
	{ID: 3, Name: "build then made then data then lost", Run: clientOrder},
	{ID: 4, Name: "a failed dial builds no protocol", Run: failedDial},
	{ID: 5, Name: "a dial never fails inside Dial", Run: neverInsideDial},
	{ID: 6, Name: "cancelling a dial gives the cause once", Run: cancelDial},
	{ID: 7, Name: "a dial times out and leaves no socket", Run: dialTimeout},
	{ID: 8, Name: "Build gets the peer's address", Run: buildAddress},
	{ID: 9, Name: "Build may refuse", Run: buildRefuses},
	{ID: 10, Name: "dialling again inside ConnectionLost", Run: redial},
	{ID: 11, Name: "Stop from made and from ConnectFailed and from a timer", Run: stopAnywhere},
	{ID: 12, Name: "nothing keeps the protocol after lost", Run: protocolIsFreed},
	{ID: 13, Name: "callbacks never overlap nor re-enter", Run: noReentry},
}

func madeOnce(e *Env) {
	const n = 8
	ss := e.connsOf(n, "server", func(_ int, c *conn) { c.onData = echo })
	cs := e.connsOf(n, "client", func(_ int, c *conn) {
		c.onMade = func(t couplet.Transport) { t.Write([]byte("first")) }
		c.onData = func(t couplet.Transport, _ []byte) { t.Close() }
	})
	l := e.serve(ss)
	for _, c := range cs {
		e.dial(l.Addr().String(), c)
	}
	for _, c := range append(ss, cs...) {
		c.waitLost()
		c.wantOrder("build made data lost")
		if c.mades != 1 {
			e.Errorf("%s: made %d times", c.name, c.mades)
		}
	}
}

// lostOnce ends connections in every way there is, from both sides.
func lostOnce(e *Env) {
	for _, way := range []struct {
		name string
		end  func(t couplet.Transport)
	}{
		{"close", func(t couplet.Transport) { t.Close() }},
		{"abort", func(t couplet.Transport) { t.Abort() }},
		{"half-close", func(t couplet.Transport) { t.CloseWrite() }},
		{"everything", func(t couplet.Transport) { t.CloseWrite(); t.Close(); t.Abort(); t.Close() }},
		{"panic", func(couplet.Transport) { panic("ends the connection") }},
		{"write and abort", func(t couplet.Transport) { t.Write(make([]byte, 1<<20)); t.Abort() }},
	} {
		s, c := e.conn("server, "+way.name), e.conn("client, "+way.name)
		e.pair(s, c)
		c.loop.Post(func() {}) // whatever a turn does beside
		s.do(func(t couplet.Transport) { t.Write([]byte("to the client")) })
		c.waitBytes(13)
		if way.name == "panic" {
			c.loop.Post(func() { c.t.AfterFunc(0, func() { way.end(c.t) }) })
		} else {
			c.do(way.end)
		}
		for _, x := range []*conn{s, c} {
			x.waitLost()
			x.do(func(t couplet.Transport) {
				t.ResumeReading()
				t.Write([]byte("late"))
				t.Close()
				t.Abort()
			})
			e.turns(x.loop, 3)
			if n := x.count("lost"); n != 1 {
				e.Errorf("%s: lost %d times", x.name, n)
			}
		}
	}
}

func clientOrder(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	s.onMade = func(t couplet.Transport) {
		t.Write([]byte("data"))
		t.Close()
	}
	l := e.serve([]*conn{s})
	e.dial(l.Addr().String(), c)
	c.lostWith("eof")
	s.lostWith("closed", "eof")
	c.wantOrder("build made data lost")
	s.wantOrder("build made lost")
	if c.builds != 1 || s.builds != 1 {
		e.Errorf("built %d and %d times", s.builds, c.builds)
	}
}

// outcome is what a dial that should fail comes to.
type outcome struct {
	address string
	err     error
}

// failing is a Factory for a dial that should fail: the outcomes come on the
// channel.
func (e *Env) failing() (couplet.Factory, <-chan outcome) {
	ch := make(chan outcome, 8)
	return dialFactory{
		func(net.Addr) couplet.Protocol {
			e.Errorf("Build was called for a dial that cannot succeed")
			return nil
		},
		func(address string, err error) { ch <- outcome{address, err} },
	}, ch
}

// onlyOne fails the case if a dial has another outcome.
func (e *Env) onlyOne(ch <-chan outcome) {
	e.settle(e.Client.Loops()[0])
	select {
	case o := <-ch:
		e.Errorf("ConnectFailed again: %v", o.err)
	default:
	}
}

func failedDial(e *Env) {
	address := e.refuse()
	before := e.Client.Stats()
	f, failed := e.failing()
	e.check(e.Client.Dial(e.ctx, e.network, address, f), "Dial")
	o := recv(e, failed, "ConnectFailed")
	if o.err == nil || o.address != address {
		e.Errorf("ConnectFailed(%q, %v); dialled %q", o.address, o.err, address)
	}
	e.onlyOne(failed)
	if n := e.Client.Stats().DialsFailed - before.DialsFailed; n != 1 {
		e.Errorf("Stats counts %d failed dials", n)
	}
}

func neverInsideDial(e *Env) {
	address := e.refuse()
	l := e.Client.Loops()[0]
	var inside atomic.Bool
	failed := make(chan bool, 2)
	f := dialFactory{
		func(net.Addr) couplet.Protocol { return nil },
		func(string, error) { failed <- inside.Load() },
	}
	e.on(l, func() {
		inside.Store(true)
		err := e.Client.Dial(e.ctx, e.network, address, f)
		inside.Store(false)
		if err != nil {
			e.Errorf("Dial: %v; a refusal must come through ConnectFailed", err)
		}
	})
	if recv(e, failed, "ConnectFailed") {
		e.Errorf("ConnectFailed was called inside Dial")
	}
	// Neither is a dial that was cancelled before it began.
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	e.on(l, func() {
		inside.Store(true)
		e.Client.Dial(ctx, e.network, address, f)
		inside.Store(false)
	})
	if recv(e, failed, "ConnectFailed") {
		e.Errorf("ConnectFailed was called inside Dial")
	}
}

func cancelDial(e *Env) {
	address := e.stall()
	userError := errors.New("the user changed her mind")
	ctx, cancel := context.WithCancelCause(e.ctx)
	f, failed := e.failing()
	e.check(e.Client.Dial(ctx, e.network, address, f), "Dial")
	e.settle(e.Client.Loops()[0])
	select {
	case o := <-failed:
		e.Fatalf("a dial that stalls failed by itself: %v", o.err)
	default:
	}
	cancel(userError)
	if o := recv(e, failed, "ConnectFailed"); !errors.Is(o.err, userError) {
		e.Errorf("ConnectFailed with %v, not with the cause", o.err)
	}
	e.onlyOne(failed)

	// After ConnectionMade the context has no effect.
	ctx, cancel = context.WithCancelCause(e.ctx)
	s, c := e.conn("server"), e.conn("client")
	s.onData = echo
	ln := e.serve([]*conn{s})
	e.check(e.Client.Dial(ctx, e.network, ln.Addr().String(), couplet.FactoryFunc(c.build)), "Dial")
	c.waitMade()
	cancel(userError)
	c.do(func(t couplet.Transport) { t.Write([]byte("still there")) })
	c.waitBytes(11)
}

func dialTimeout(e *Env) {
	address := e.stall()
	l := e.Client.Loops()[0]
	e.turns(l, 2)
	before := len(fdNumbers())
	const limit = 60 * time.Millisecond
	failed := make(chan error, 4)
	var took time.Duration
	e.on(l, func() {
		start := l.Now()
		e.Client.Dial(e.ctx, e.network, address, dialFactory{
			func(net.Addr) couplet.Protocol { e.Errorf("Build was called"); return nil },
			func(_ string, err error) { took = l.Now().Sub(start); failed <- err },
		}, couplet.ConnectTimeout(limit))
	})
	err := recv(e, failed, "ConnectFailed")
	if class(err) != "timeout" {
		e.Errorf("ConnectFailed with %v; it must be os.ErrDeadlineExceeded", err)
	}
	if nerr, ok := errors.AsType[net.Error](err); !ok || !nerr.Timeout() {
		e.Errorf("%v is no net.Error with Timeout", err)
	}
	if took < limit || took > limit+5*time.Second {
		e.Errorf("a timeout of %v took %v", limit, took)
	}
	e.until("the socket of the dial is closed", func() bool { return len(fdNumbers()) <= before })
}

func buildAddress(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	e.pair(s, c)
	for _, x := range []*conn{s, c} {
		if x.remote == nil || x.peerAddr == nil {
			e.Fatalf("%s: Build got %v, RemoteAddr says %v", x.name, x.remote, x.peerAddr)
		}
		if x.remote.String() != x.peerAddr.String() || x.remote.Network() != x.peerAddr.Network() {
			e.Errorf("%s: Build got %v, RemoteAddr says %v", x.name, x.remote, x.peerAddr)
		}
	}
}

func buildRefuses(e *Env) {
	for _, refusal := range []struct {
		name  string
		build func(net.Addr) couplet.Protocol
	}{
		{"nil", func(net.Addr) couplet.Protocol { return nil }},
		{"panic", func(net.Addr) couplet.Protocol { panic("Build panics") }},
	} {
		before := e.Server.Stats().Refused
		l := e.listen(couplet.FactoryFunc(refusal.build))
		p := e.dialPeer(l.Addr(), 0)
		e.expectEOF(p)
		// A peer that sent something sees a clean end too.
		p = e.dialPeer(l.Addr(), 0)
		p.Write([]byte("hello"))
		e.expectEOF(p)
		c := e.conn("client, " + refusal.name)
		e.dial(l.Addr().String(), c)
		c.lostWith("eof")
		e.until("three refusals are counted", func() bool { return e.Server.Stats().Refused-before == 3 })
		l.Close()

		// The side that dials may refuse as well.
		s := e.conn("server, " + refusal.name)
		l = e.serve([]*conn{s})
		e.check(e.Client.Dial(e.ctx, e.network, l.Addr().String(), dialFactory{refusal.build, func(_ string, err error) {
			e.Errorf("ConnectFailed after Build: %v", err)
		}}), "Dial")
		s.lostWith("eof")
		l.Close()
	}
	if e.logs.count("Build panics") < 4 {
		e.Errorf("a panic in Build was not logged")
	}
}

func redial(e *Env) {
	const n = 4
	ss := e.connsOf(n, "server", func(_ int, c *conn) {
		c.onMade = func(t couplet.Transport) { t.Close() }
	})
	l := e.serve(ss)
	address := l.Addr().String()
	cs := e.connsOf(n, "client", nil)
	for i := range n - 1 {
		cs[i].onLost = func(couplet.Transport, error) { e.dialOnLoop(address, cs[i+1]) }
	}
	e.dial(address, cs[0])
	for _, c := range cs {
		c.lostWith("eof")
		c.wantOrder("build made lost")
	}
	// The same after a failure.
	refused := e.refuse()
	done := make(chan struct{})
	tries := 0
	var f dialFactory
	f = dialFactory{
		func(net.Addr) couplet.Protocol { return nil },
		func(string, error) {
			if tries++; tries == n {
				close(done)
			} else if err := e.Client.Dial(e.ctx, e.network, refused, f); err != nil {
				e.Errorf("Dial inside ConnectFailed: %v", err)
			}
		},
	}
	e.check(e.Client.Dial(e.ctx, e.network, refused, f), "Dial")
	recv(e, done, "last of the failures")
}

// dialOnLoop is dial for a callback, where nothing may end the goroutine.
func (e *Env) dialOnLoop(address string, c *conn, opts ...couplet.Option) {
	if err := e.Client.Dial(e.ctx, e.network, address, couplet.FactoryFunc(c.build), opts...); err != nil {
		e.Errorf("%s: Dial: %v", c.name, err)
	}
}

func stopAnywhere(e *Env) {
	for _, place := range []string{"made", "ConnectFailed", "timer", "lost"} {
		eng := e.newEngine(couplet.Config{})
		s := e.conn("server, " + place)
		switch place {
		case "made":
			s.onMade = func(couplet.Transport) { eng.Stop() }
		case "lost":
			s.onMade = func(t couplet.Transport) { t.Close() }
			s.onLost = func(couplet.Transport, error) { eng.Stop() }
		case "ConnectFailed":
			err := eng.Dial(e.ctx, e.network, e.refuse(), dialFactory{
				func(net.Addr) couplet.Protocol { return nil },
				func(string, error) { eng.Stop() },
			})
			e.check(err, "Dial")
		case "timer":
			eng.Loops()[0].Post(func() { eng.Loops()[0].AfterFunc(time.Millisecond, eng.Stop) })
		}
		if place == "made" || place == "lost" {
			l, err := eng.Listen(e.network, e.address(), couplet.FactoryFunc(s.build))
			e.check(err, "Listen")
			p, err := e.engineNetwork(eng).Dial(e.network, l.Addr().String(), 0)
			e.check(err, "a peer's dial")
			e.adopt(p)
			s.waitLost()
		}
		recv(e, eng.Done(), "end of an engine stopped from "+place)
		if err := eng.Err(); err != nil {
			e.Errorf("stopped from %s, the engine says: %v", place, err)
		}
	}
}

// engineNetwork is where peers of one more engine live.
func (e *Env) engineNetwork(eng couplet.Engine) Network {
	if e.suite.Peers != nil {
		return e.suite.Peers(eng, eng)
	}
	return e.Network
}

// freed is a protocol without a recorder, so that only the engine keeps it.
type freed struct {
	made chan couplet.Handle
	lost chan error
	body [1 << 10]byte
}

func (f *freed) ConnectionMade(t couplet.Transport) {
	t.SetContext(f)
	t.AfterFunc(time.Hour, func() { f.body[0]++ })
	f.made <- t.Handle()
}
func (f *freed) DataReceived(t couplet.Transport, p []byte)    { t.Write(p) }
func (f *freed) ConnectionLost(_ couplet.Transport, err error) { f.lost <- err }

func protocolIsFreed(e *Env) {
	const n = 8
	var gone atomic.Int32
	made, lost := make(chan couplet.Handle, 2*n), make(chan error, 2*n)
	f := couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		p := &freed{made: made, lost: lost}
		runtime.AddCleanup(p, func(int) { gone.Add(1) }, 0)
		return p
	})
	l := e.listen(f)
	before := takeSnapshot()
	var handles []couplet.Handle
	for i := range n {
		e.check(e.Client.Dial(e.ctx, e.network, l.Addr().String(), f), "Dial")
		a, b := recv(e, made, "ConnectionMade"), recv(e, made, "ConnectionMade")
		a.Write([]byte("ping"))
		handles = append(handles, a, b)
		if i%2 == 0 {
			a.Close()
		} else {
			a.Abort()
		}
		recv(e, lost, "ConnectionLost")
		recv(e, lost, "ConnectionLost")
	}
	e.until("all protocols are freed", func() bool {
		// Later work moves what the last work left in buffers of the loop.
		for _, eng := range []couplet.Engine{e.Server, e.Client} {
			e.turns(eng.Loops()[0], 2)
		}
		runtime.GC()
		return gone.Load() == 2*n
	})
	for _, h := range handles {
		if _, err := h.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			e.Errorf("a Handle of a lost connection answers %v", err)
		}
	}
	before.check(e.t)
}

// noReentry makes calls in callbacks which a careless engine would answer by
// calling back at once. The recorder checks that it does not.
func noReentry(e *Env) {
	big := make([]byte, 1<<20)
	for _, in := range []struct {
		name  string
		setup func(s *conn)
	}{
		{"close in made", func(s *conn) { s.onMade = func(t couplet.Transport) { t.Close() } }},
		{"abort in made", func(s *conn) { s.onMade = func(t couplet.Transport) { t.Abort() } }},
		{"write and abort in made", func(s *conn) {
			s.onMade = func(t couplet.Transport) { t.Write(big); t.Abort() }
		}},
		{"write and close in data", func(s *conn) {
			s.onData = func(t couplet.Transport, p []byte) { t.Write(p); t.Close() }
		}},
		{"abort in data", func(s *conn) { s.onData = func(t couplet.Transport, _ []byte) { t.Abort() } }},
		{"pause and resume in data", func(s *conn) {
			s.onData = func(t couplet.Transport, _ []byte) { t.PauseReading(); t.ResumeReading(); t.Close() }
		}},
		{"close in readClosed", func(s *conn) {
			s.onReadClosed = func(t couplet.Transport) { t.Close() }
		}},
		{"half-close in readClosed", func(s *conn) {
			s.onReadClosed = func(t couplet.Transport) { t.CloseWrite() }
		}},
		{"close in writeClosed", func(s *conn) {
			s.onMade = func(t couplet.Transport) { t.CloseWrite() }
			s.onWriteClosed = func(t couplet.Transport) { t.Close() }
		}},
		{"close after both halves are closed", func(s *conn) {
			s.onMade = func(t couplet.Transport) { t.CloseWrite() }
			s.onReadClosed = func(t couplet.Transport) { t.Close() }
		}},
		{"write and abort in writePaused", func(s *conn) {
			s.onMade = func(t couplet.Transport) { t.SetWatermarks(0, 0); t.Write(make([]byte, 16<<20)) }
			s.onWritePaused = func(t couplet.Transport) { t.Write(big); t.Abort() }
		}},
		{"everything in lost", func(s *conn) {
			s.onMade = func(t couplet.Transport) { t.Abort() }
			s.onLost = func(t couplet.Transport, _ error) {
				t.Write(big)
				t.ResumeReading()
				t.CloseWrite()
				t.Close()
				t.Abort()
			}
		}},
		{"panic in made", func(s *conn) { s.onMade = func(couplet.Transport) { panic("in made") } }},
	} {
		s := e.conn(in.name)
		in.setup(s)
		p := e.peer(s, 4<<10)
		p.Write([]byte("something"))
		if !strings.Contains(in.name, "Paused") {
			p.CloseWrite()
		}
		s.waitLost()
		p.Close()
	}

	// Many connections of one loop at once, each a reason to overlap.
	var wg sync.WaitGroup
	n := scaled(64)
	ss := e.connsOf(n, "echo", func(_ int, c *conn) { c.onData = echo })
	l := e.serve(ss)
	for range n {
		wg.Go(func() {
			p, err := e.Network.Dial(e.network, l.Addr().String(), 0)
			if err != nil {
				e.Errorf("a peer's dial: %v", err)
				return
			}
			e.adopt(p)
			for i := range 10 {
				want := fmt.Sprint("message ", i)
				p.Write([]byte(want))
				got := make([]byte, len(want))
				if _, err := io.ReadFull(p, got); err != nil || string(got) != want {
					e.Errorf("the echo was %q, %v", got, err)
					return
				}
			}
			p.Close()
		})
	}
	wg.Wait()
	for _, s := range ss {
		s.waitLost()
	}
}
