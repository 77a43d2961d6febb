package enginetest

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// closingCases: how our side ends a connection.
var closingCases = []Case{
	{ID: 35, Name: "Close flushes everything then sends FIN", Run: closeFlushes},
	{ID: 36, Name: "Close and Abort in any order", Run: closeTwice},
	{ID: 37, Name: "no data after Close", Run: noDataAfterClose},
	{ID: 38, Name: "Abort with a full queue ends at once", Run: abortFull},
	{ID: 39, Name: "Abort inside writePaused", Run: abortInPaused},
	{ID: 40, Name: "Close and Abort inside lost do nothing", Run: closeInLost},
	{ID: 41, Name: "Close with unread input loses no output", Run: closeUnread},
	{ID: 42, Name: "descriptors are released on both ends", Needs: NeedsSockets, Run: fdsReleased},
}

func closeFlushes(e *Env) {
	const n = 8 << 20
	s := e.conn("server")
	p := e.peer(s, 4<<10)
	s.do(func(t couplet.Transport) {
		t.Write(pattern(0, n))
		t.Close()
	})
	e.settle(s.loop) // the socket's buffers fill
	if s.count("lost") != 0 {
		e.Errorf("lost before the flush: %v", s.reason)
	}
	e.expectStream(p, n)
	s.lostWith("closed")
}

func closeTwice(e *Env) {
	closes := func(t couplet.Transport) { t.Close() }
	aborts := func(t couplet.Transport) { t.Abort() }
	for _, try := range []struct {
		name          string
		first, second func(t couplet.Transport)
		want          string
	}{
		{"abort and abort", aborts, aborts, "aborted"},
		{"abort and close", aborts, closes, "aborted"},
		{"close and close", closes, closes, "closed"},
		{"close and abort", closes, aborts, "aborted"},
	} {
		for _, place := range []string{"in made", "in data", "posted", "in two turns"} {
			s := e.conn(try.name + " " + place)
			both := func(t couplet.Transport) { try.first(t); try.second(t) }
			switch place {
			case "in made":
				s.onMade = both
			case "in data":
				s.onData = func(t couplet.Transport, _ []byte) { both(t) }
			}
			p := e.peer(s, 4<<10)
			switch place {
			case "in data":
				e.send(p, []byte("x"))
			case "posted":
				s.do(both)
			case "in two turns":
				// Something to flush keeps the first Close from ending.
				s.do(func(t couplet.Transport) { t.Write(make([]byte, 8<<20)); try.first(t) })
				s.do(try.second)
				if try.want == "closed" {
					io.Copy(io.Discard, p)
				}
			}
			s.lostWith(try.want)
			p.Close()
		}
	}
}

func noDataAfterClose(e *Env) {
	s := e.conn("server")
	var closed bool
	s.onData = func(couplet.Transport, []byte) {
		if closed {
			e.Errorf("data after Close")
		}
	}
	p := e.peer(s, 4<<10)
	s.do(func(t couplet.Transport) { t.PauseReading() })
	e.send(p, pattern(0, 10_000))
	s.do(func(t couplet.Transport) {
		t.Write(make([]byte, 8<<20)) // keeps the connection in its flush
		t.Close()
		closed = true
		t.ResumeReading()
	})
	e.send(p, pattern(0, 10_000))
	e.settle(s.loop)
	s.do(func(t couplet.Transport) { t.ResumeReading() })
	e.settle(s.loop)
	io.Copy(io.Discard, p)
	p.Close()
	s.lostWith("closed")
	if s.count("data") != 0 {
		e.Errorf("data came after Close: %s", s.history())
	}

	// The peer's FIN is not told either.
	s = e.conn("half-aware server")
	s.half = true
	p = e.peer(s, 4<<10)
	s.do(func(t couplet.Transport) { t.Write(make([]byte, 8<<20)); t.Close() })
	p.CloseWrite()
	io.Copy(io.Discard, p)
	s.lostWith("closed", "eof")
	s.wantOrder("build made lost")
}

func abortFull(e *Env) {
	released := make(chan struct{})
	b := couplet.NewBuffer(make([]byte, 8<<20), func() { close(released) })
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		t.WriteBuffer(b)
		t.Write(make([]byte, 8<<20))
		b.Release()
	}
	p := e.peer(s, 4<<10)
	e.settle(s.loop)
	start := time.Now()
	s.do(func(t couplet.Transport) { t.Abort() })
	s.lostWith("aborted")
	recv(e, released, "release of the Buffer")
	if took := time.Since(start); took > 3*time.Second {
		e.Errorf("Abort took %v", took)
	}
	if !e.unix() {
		e.expectReset(p)
	}
	// The same when Close had begun.
	s = e.conn("closing server")
	s.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)); t.Close() }
	e.peer(s, 4<<10)
	e.settle(s.loop)
	s.do(func(t couplet.Transport) { t.Abort() })
	s.lostWith("aborted")
}

func abortInPaused(e *Env) {
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
	s.onWritePaused = func(t couplet.Transport) {
		t.Abort()
		s.note("aborted")
	}
	e.peer(s, 4<<10)
	s.lostWith("aborted")
	s.wantOrder("build made writePaused aborted lost")
	e.turns(s.loop, 2)
	if s.count("writeResumed") != 0 {
		e.Errorf("writeResumed after Abort")
	}
}

func closeInLost(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	for _, x := range []*conn{s, c} {
		x.onLost = func(t couplet.Transport, _ error) { t.Close(); t.Abort(); t.CloseWrite(); t.Abort() }
	}
	e.pair(s, c)
	s.do(func(t couplet.Transport) { t.Close() })
	s.lostWith("closed", "eof")
	c.lostWith("eof")
	e.settle(s.loop)
}

func closeUnread(e *Env) {
	const n = 2 << 20
	s := e.conn("with 10 unread bytes")
	s.onMade = func(t couplet.Transport) { t.PauseReading() }
	p := e.peer(s, 0)
	e.send(p, make([]byte, 10))
	e.settle(s.loop)
	s.do(func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() })
	e.expectStream(p, n)
	p.Close()
	s.lostWith("closed")

	// A peer that goes on sending, and reads only when everything is on its way
	// to it, FIN included. An engine's would report the failure of what it sends
	// before it has read everything.
	if e.suite.Client != nil {
		return
	}
	s = e.conn("with a peer that sends")
	p = e.peer(s, 4<<10)
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(func() {
		for buf := make([]byte, 1<<10); !stop.Load(); {
			if _, err := p.Write(buf); err != nil {
				return // the connection is closed: that is when it may end
			}
		}
	})
	s.waitBytes(1)
	s.do(func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() })
	e.settle(s.loop)
	e.expectStream(p, n)
	stop.Store(true)
	p.Close()
	wg.Wait()
	s.lostWith("closed")
}

func fdsReleased(e *Env) {
	e.turns(e.Server.Loops()[0], 2)
	e.turns(e.Client.Loops()[0], 2)
	l := e.serve(e.connsOf(9, "server", nil))
	address := l.Addr().String()
	refused := e.refuse()
	before := takeSnapshot()
	for i := range 9 {
		c := e.conn("client")
		e.dial(address, c)
		c.waitMade()
		switch i % 3 {
		case 0:
			c.do(func(t couplet.Transport) { t.Close() })
		case 1:
			c.do(func(t couplet.Transport) { t.Abort() })
		case 2:
			c.do(func(t couplet.Transport) { t.CloseWrite() })
		}
		c.waitLost()
		if err := e.dialError(e.network, refused); class(err) != "refused" {
			e.Errorf("a refused dial fails with %v", err)
		}
	}
	before.check(e.t)
}
