package enginetest

import "couplet"

// halfCloseCases: one direction ends before the other.
var halfCloseCases = []Case{
	{ID: 44, Name: "CloseWrite flushes then sends FIN and reading goes on", Run: closeWriteFlushes},
	{ID: 45, Name: "WriteClosed here and ReadClosed there", Run: bothTold},
	{ID: 46, Name: "a peer that is not aware closes", Run: notAware},
	{ID: 47, Name: "Write after CloseWrite is refused", Run: writeAfterCloseWrite},
	{ID: 48, Name: "half-closes on both sides end both", Run: doubleHalfClose},
	{ID: 49, Name: "a panic in readClosed or writeClosed is the reason", Run: panicInHalfClose},
	{ID: 50, Name: "CloseWrite to a peer that is gone is silent", Run: closeWriteGone},
	{ID: 117, Name: "a reset after the peer's FIN is told", Needs: NeedsTCP, Run: resetAfterFIN},
	{ID: 119, Name: "a loop sleeps while peers have closed their half", Run: sleepsHalfClosed},
	{ID: 51, Name: "with both halves closed the connection closes", Run: closesByItself},
}

func closeWriteFlushes(e *Env) {
	const n = 2 << 20
	s := e.conn("server")
	s.half = true
	p := e.peer(s, 4<<10, couplet.SendBuffer(16<<10))
	s.do(func(t couplet.Transport) {
		t.Write(pattern(0, n))
		if err := t.CloseWrite(); err != nil {
			e.Errorf("CloseWrite: %v", err)
		}
	})
	e.settle(s.loop)
	if s.count("writeClosed") != 0 {
		e.Errorf("WriteClosed came before the flush")
	}
	e.expectStream(p, n)
	s.waitFor("writeClosed", 1)
	e.send(p, []byte("one "))
	s.waitBytes(4)
	e.send(p, []byte("two"))
	p.CloseWrite()
	s.lostWith("eof")
	s.wantText("one two")
	if got := s.order(); got != "build made writeClosed data readClosed lost" && got != "build made writeClosed data lost" {
		e.Errorf("the callbacks were %q", got)
	}
}

func bothTold(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	s.onReadClosed = func(t couplet.Transport) {
		t.Write([]byte("the answer"))
		t.Close()
	}
	c.half = true
	c.onMade = func(t couplet.Transport) {
		t.Write([]byte("the question"))
		t.CloseWrite()
	}
	e.pair(s, c)
	s.lostWith("eof")
	c.lostWith("eof")
	s.wantText("the question")
	c.wantText("the answer")
	s.wantOrder("build made data readClosed lost")
	if c.count("writeClosed") != 1 {
		e.Errorf("the side that closed its half saw %s", c.history())
	}

	// A connection that is open in one direction stays open.
	s, c = e.conn("patient server"), e.conn("patient client")
	s.half, c.half = true, true
	e.pair(s, c)
	c.do(func(t couplet.Transport) { t.CloseWrite() })
	s.waitFor("readClosed", 1)
	c.waitFor("writeClosed", 1)
	e.settle(s.loop)
	for i := range 3 {
		s.do(func(t couplet.Transport) { t.Write([]byte("more")) })
		c.waitBytes(int64(4 * (i + 1)))
	}
	s.do(func(t couplet.Transport) { t.Close() })
	s.lostWith("eof")
	c.lostWith("eof")
}

func notAware(e *Env) {
	s, c := e.conn("plain server"), e.conn("client")
	s.onMade = func(t couplet.Transport) { t.Write(pattern(0, 1<<20)) }
	c.half, c.stream = true, true
	e.pair(s, c)
	c.do(func(t couplet.Transport) { t.CloseWrite() })
	s.lostWith("eof")
	s.wantOrder("build made lost")
	c.lostWith("eof")
	if c.total() != 1<<20 {
		e.Errorf("%d bytes came of what was written before the peer's FIN", c.total())
	}
}

func writeAfterCloseWrite(e *Env) {
	const n = 1 << 20
	s := e.conn("server")
	s.half = true
	s.onMade = func(t couplet.Transport) {
		t.Write(pattern(0, n))
		t.CloseWrite()
		e.refused("after CloseWrite, before the flush", t)
	}
	s.onWriteClosed = func(t couplet.Transport) { e.refused("in WriteClosed", t) }
	p := e.peer(s, 0)
	e.expectStream(p, n)
	s.waitFor("writeClosed", 1)
	s.do(func(t couplet.Transport) { e.refused("after WriteClosed", t) })
	e.send(p, []byte("x"))
	s.waitBytes(1)
	s.do(func(t couplet.Transport) { t.CloseWrite(); t.Close() })
	s.lostWith("closed")
}

func doubleHalfClose(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	s.onReadClosed = func(t couplet.Transport) { t.CloseWrite() }
	c.onMade = func(t couplet.Transport) { t.CloseWrite() }
	c.onWriteClosed = func(t couplet.Transport) { t.Close() }
	e.pair(s, c)
	s.lostWith("eof")
	c.lostWith("closed", "eof")
}

func panicInHalfClose(e *Env) {
	s := e.conn("panic in readClosed")
	s.onReadClosed = func(couplet.Transport) { panic(errPanic) }
	p := e.peer(s, 0)
	p.CloseWrite()
	e.wantPanic(s)

	s = e.conn("panic in writeClosed")
	s.onMade = func(t couplet.Transport) { t.CloseWrite() }
	s.onWriteClosed = func(couplet.Transport) { panic(errPanic) }
	e.peer(s, 0)
	e.wantPanic(s)
	e.wantLogged(2)
}

func closeWriteGone(e *Env) {
	// While the loop is kept busy, the peer leaves unnoticed.
	for name, leave := range map[string]func(p Peer){
		"a reset": func(p Peer) { p.Reset() },
		"a close": func(p Peer) { p.Close() },
	} {
		s := e.conn("server, the peer left by " + name)
		s.half = true
		busy, left := make(chan struct{}), make(chan struct{})
		p := e.peer(s, 0)
		s.loop.Post(func() {
			close(busy)
			<-left
			s.t.CloseWrite()
			s.t.CloseWrite()
		})
		recv(e, busy, "posted function")
		leave(p)
		close(left)
		// A FIN cannot fail, so a closed peer is EOF and a reset one a reset.
		if name == "a close" {
			s.lostWith("eof")
		} else {
			s.lostWith(e.gone()...)
		}
	}
	if n := e.Server.Stats().Panics; n != 0 {
		e.Errorf("%d panics", n)
	}
	for _, line := range e.logs.all() {
		e.Errorf("logged: %s", line)
	}
}

func closesByItself(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	c.half = true
	c.onMade = func(t couplet.Transport) { t.CloseWrite() }
	s.onReadClosed = func(t couplet.Transport) {
		t.Write([]byte("bye"))
		t.CloseWrite()
	}
	e.pair(s, c)
	s.lostWith("eof")
	c.lostWith("eof")
	c.wantText("bye")

	// The other way about: ours first, then the peer's.
	s = e.conn("server of a peer")
	s.onMade = func(t couplet.Transport) { t.CloseWrite() }
	s.half = true
	p := e.peer(s, 0)
	e.expectEOF(p)
	e.send(p, []byte("bye"))
	p.CloseWrite()
	s.lostWith("eof")
	s.wantText("bye")
}

// resetAfterFIN has peers break a connection of which they have closed their half,
// while our side has nothing to send that would find out.
func resetAfterFIN(e *Env) {
	pauses := func(t couplet.Transport) { t.PauseReading() }
	for name, set := range map[string]func(s *conn){
		"reading":                 func(s *conn) {},
		"paused from the start":   func(s *conn) { s.onMade = pauses },
		"paused in ReadClosed":    func(s *conn) { s.onReadClosed = pauses },
		"with our half closed":    func(s *conn) { s.onMade = func(t couplet.Transport) { t.CloseWrite(); t.PauseReading() } },
		"having written just now": func(s *conn) { s.onReadClosed = func(t couplet.Transport) { t.Write([]byte("answer")) } },
	} {
		s := e.conn(name)
		s.half = true
		set(s)
		p := e.peer(s, 0)
		e.send(p, []byte("request"))
		p.CloseWrite()
		if s.onMade == nil {
			s.waitFor("readClosed", 1)
		}
		e.settle(s.loop)
		p.Reset()
		e.settle(s.loop)
		if s.onMade != nil || s.onReadClosed != nil {
			s.do(func(t couplet.Transport) { t.ResumeReading() })
		}
		if name == "with our half closed" {
			s.lostWith("reset", "eof") // both halves were closed by then
		} else {
			s.lostWith("reset")
			s.wantOrder("build made data readClosed lost")
		}
		s.wantText("request")
	}
}

// sleepsHalfClosed has connections stay whose peers have closed their half: what is
// there for good must not keep a loop awake.
func sleepsHalfClosed(e *Env) {
	var all []*conn
	for name, set := range map[string]func(s *conn){
		"idle":                   func(s *conn) {},
		"paused from the start":  func(s *conn) { s.onMade = func(t couplet.Transport) { t.PauseReading() } },
		"paused in ReadClosed":   func(s *conn) { s.onReadClosed = func(t couplet.Transport) { t.PauseReading() } },
		"with output that waits": func(s *conn) { s.onReadClosed = func(t couplet.Transport) { t.Write(make([]byte, 8<<20)) } },
	} {
		s := e.conn(name)
		s.half = true
		set(s)
		all = append(all, s)
		p := e.peer(s, 4<<10, couplet.SendBuffer(16<<10))
		e.send(p, []byte("request"))
		p.CloseWrite()
		if s.onMade == nil {
			s.waitFor("readClosed", 1)
		}
		e.sleeps(e.Server, s)
	}
	for _, s := range all {
		s.do(func(t couplet.Transport) { t.Abort() })
		s.lostWith("aborted")
	}
}
