package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"couplet"
)

// flowCases: backpressure, in both directions.
var flowCases = []Case{
	{ID: 52, Name: "PauseReading in made is honoured", Run: pauseInMade},
	{ID: 53, Name: "PauseReading in data holds the rest back", Run: pauseInData},
	{ID: 54, Name: "what came while paused comes after resume", Run: pausedInOrder},
	{ID: 55, Name: "pausing again and again loses nothing", Run: pauseOften},
	{ID: 56, Name: "ResumeReading after Close or lost does nothing", Run: resumeLate},
	{ID: 57, Name: "WritePaused and WriteResumed in turn", Run: watermarks},
	{ID: 116, Name: "flow control beside CloseWrite and moving marks", Run: flowAtTheEdges},
	{ID: 62, Name: "a proxy with a stalled sink stays small", Config: couplet.Config{BytesPerTurn: 128 << 10, RingBufferSize: 16 << 10}, Run: stalledProxy},
}

func pauseInMade(e *Env) {
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.PauseReading(); t.PauseReading() }
	p := e.peer(s, 0)
	e.send(p, []byte("patience"))
	e.settle(s.loop)
	s.wantOrder("build made")
	s.do(func(t couplet.Transport) {
		t.ResumeReading()
		s.note("resumed") // data comes after the call, never inside
	})
	s.waitBytes(8)
	s.wantOrder("build made resumed data")
	s.wantText("patience")

	// The side that dials, too.
	s, c := e.conn("server"), e.conn("client")
	s.onMade = func(t couplet.Transport) { t.Write([]byte("patience")) }
	c.onMade = func(t couplet.Transport) { t.PauseReading() }
	e.pair(s, c)
	e.settle(c.loop)
	c.wantOrder("build made")
	c.do(func(t couplet.Transport) { t.ResumeReading() })
	c.waitBytes(8)
}

func pauseInData(e *Env) {
	const n = 1 << 20
	s := e.conn("server")
	s.stream = true
	s.onData = func(t couplet.Transport, _ []byte) { t.PauseReading() }
	p := e.peer(s, 0)
	go p.Write(pattern(0, n))
	s.waitFor("data", 1)
	e.settle(s.loop)
	if k := s.count("data"); k != 1 {
		e.Errorf("%d pieces of data came after PauseReading", k-1)
	}
	for k := 2; s.total() < n; k++ {
		s.do(func(t couplet.Transport) { t.ResumeReading() })
		s.waitFor("data", k)
		if k < 6 {
			e.turns(s.loop, 5)
			if got := s.count("data"); got != k {
				e.Errorf("%d pieces of data after %d resumptions", got, k-1)
			}
		}
	}
}

func pausedInOrder(e *Env) {
	for _, aware := range []bool{false, true} {
		s := e.conn(fmt.Sprintf("server, half-aware %v", aware))
		s.half = aware
		s.onMade = func(t couplet.Transport) {
			t.PauseReading()
			s.note("paused")
		}
		p := e.peer(s, 0)
		e.send(p, []byte("one "))
		e.settle(s.loop)
		e.send(p, []byte("two"))
		p.CloseWrite()
		e.settle(s.loop)
		s.wantOrder("build made paused")
		s.do(func(t couplet.Transport) {
			s.note("resumed")
			t.ResumeReading()
		})
		if aware {
			s.waitFor("readClosed", 1)
			s.wantOrder("build made paused resumed data readClosed")
			s.do(func(t couplet.Transport) { t.Close() })
		}
		s.lostWith("eof")
		s.wantText("one two")
		if !aware {
			s.wantOrder("build made paused resumed data lost")
		}
	}

	// A pause in the last data holds the FIN back, also where the loop learns of
	// both at once because it was busy.
	for _, last := range []string{"FIN", "reset"} {
		if last == "reset" && e.unix() {
			continue
		}
		s := e.conn("paused in data before a " + last)
		s.half = true
		s.onData = func(t couplet.Transport, _ []byte) { t.PauseReading() }
		p := e.peer(s, 0)
		free := e.hold(s.loop)
		e.send(p, []byte("last"))
		if last == "FIN" {
			p.CloseWrite()
		} else {
			p.Reset()
		}
		free()
		s.waitBytes(4)
		e.settle(s.loop)
		s.wantOrder("build made data")
		s.do(func(t couplet.Transport) { t.ResumeReading() })
		if last == "FIN" {
			s.waitFor("readClosed", 1)
		} else {
			s.lostWith("reset")
		}
	}
}

func pauseOften(e *Env) {
	const piece, rounds = 16 << 10, 64
	s, c := e.conn("server"), e.conn("client")
	var want bytes.Buffer
	for i := range rounds {
		want.Write(bytes.Repeat([]byte{"xy"[i%2]}, piece))
	}
	c.onMade = func(t couplet.Transport) {
		for i := range rounds {
			t.Write(want.Bytes()[i*piece : (i+1)*piece])
		}
		t.Close()
	}
	pauses := 0
	s.onData = func(t couplet.Transport, _ []byte) {
		t.PauseReading()
		switch pauses++; pauses % 4 {
		case 0:
			t.ResumeReading()
		case 1:
			t.Loop().Post(t.ResumeReading)
		case 2:
			t.AfterFunc(0, t.ResumeReading)
		case 3:
			t.ResumeReading()
			t.PauseReading()
			t.AfterFunc(100*time.Microsecond, t.ResumeReading)
		}
	}
	e.pair(s, c)
	s.lostWith("eof")
	if s.text() != want.String() {
		e.Errorf("%d bytes came, not the %d that were sent", len(s.text()), want.Len())
	}
}

func resumeLate(e *Env) {
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.PauseReading() }
	s.onLost = func(t couplet.Transport, _ error) { t.ResumeReading(); t.PauseReading(); t.ResumeReading() }
	p := e.peer(s, 0)
	e.send(p, []byte("never read"))
	e.settle(s.loop)
	s.do(func(t couplet.Transport) {
		t.Close()
		t.ResumeReading()
		t.PauseReading()
		t.ResumeReading()
	})
	e.expectEOF(p)
	p.Close()
	s.lostWith("closed")
	s.do(func(t couplet.Transport) { t.PauseReading(); t.ResumeReading() })
	e.settle(s.loop)
	s.wantOrder("build made lost")
}

// producer writes the pattern, a piece each turn, until it is paused.
type producer struct {
	c       *conn
	off     int64
	stopped bool
	next    func() // instead of produce, if set
}

const pieceSize = 64 << 10

func (p *producer) produce() {
	if p.stopped {
		return
	}
	n, err := p.c.t.Write(pattern(p.off, pieceSize))
	if err != nil {
		return
	}
	p.off += int64(n)
	if p.next == nil {
		p.next = p.produce
	}
	p.c.loop.Post(p.next)
}

func watermarks(e *Env) {
	for _, marks := range []struct {
		name           string
		set            bool
		setLow, setHi  int // as given to SetWatermarks
		wantLow, hiOff int // what must hold
	}{
		{"by default", false, 0, 0, 0, 64 << 10},
		{"set", true, 32 << 10, 200 << 10, 32 << 10, 200 << 10},
		{"in the wrong order", true, 100 << 10, 50 << 10, 100 << 10, 50 << 10},
		{"negative", true, -5, -3, 0, 0},
	} {
		s := e.conn("server with watermarks " + marks.name)
		prod := &producer{c: s}
		s.onMade = func(t couplet.Transport) {
			if marks.set {
				t.SetWatermarks(marks.setLow, marks.setHi)
			}
		}
		s.onWritePaused = func(t couplet.Transport) {
			if n := t.Buffered(); n <= marks.hiOff {
				e.Errorf("%s: WritePaused with %d bytes queued", s.name, n)
			}
			prod.stopped = true
		}
		s.onWriteResumed = func(t couplet.Transport) {
			if n := t.Buffered(); n > marks.wantLow {
				e.Errorf("%s: WriteResumed with %d bytes queued", s.name, n)
			}
		}
		p := e.peer(s, 4<<10, couplet.SendBuffer(8<<10))
		read := int64(0)
		buf := make([]byte, 10_000)
		for round := 1; round <= 3; round++ {
			s.do(func(couplet.Transport) {
				prod.stopped = false
				prod.produce()
			})
			s.waitFor("writePaused", round)
			// Nothing more is written; the peer reads until it is all taken.
			for s.count("writeResumed") < round {
				p.SetDeadline(time.Now().Add(10 * time.Millisecond))
				n, err := p.Read(buf)
				if bad := checkPattern(read, buf[:n]); bad >= 0 {
					e.Fatalf("%s: byte %d is wrong", s.name, read+int64(bad))
				}
				read += int64(n)
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || e.ctx.Err() != nil {
					e.Fatalf("%s: the peer read %d bytes, then %v", s.name, read, err)
				}
			}
		}
		s.do(func(t couplet.Transport) { t.Close() })
		deadline, _ := e.ctx.Deadline()
		p.SetDeadline(deadline)
		rest := prod.off - read
		if got, err := readPattern(p, read, rest+1); got != rest {
			e.Errorf("%s: the peer read %d bytes more of %d, then %v", s.name, got, rest, err)
		}
		s.lostWith("closed")
		if got := strings.Count(s.order(), "writePaused writeResumed"); got != 3 {
			e.Errorf("%s: the callbacks were %s", s.name, s.order())
		}
	}
}

// flowAtTheEdges: CloseWrite keeps nothing from being told, and what the queue has
// drained to is told also where the mark is what moved.
func flowAtTheEdges(e *Env) {
	const n = 4 << 20
	for _, together := range []bool{false, true} {
		s := e.conn(fmt.Sprint("half-closing, with the write ", together))
		s.half, s.flow = true, true
		p := e.peer(s, 4<<10, couplet.SendBuffer(8<<10))
		s.do(func(t couplet.Transport) {
			t.Write(pattern(0, n))
			if together {
				t.CloseWrite()
			}
		})
		s.waitFor("writePaused", 1)
		if !together {
			s.do(func(t couplet.Transport) { t.CloseWrite() })
		}
		e.expectStream(p, n)
		s.waitFor("writeClosed", 1)
		s.wantOrder("build made writePaused writeResumed writeClosed")
		p.Close()
		s.lostWith("eof")
	}

	s := e.conn("with marks that move")
	s.flow = true
	e.peer(s, 4<<10, couplet.SendBuffer(8<<10))
	s.do(func(t couplet.Transport) { t.Write(make([]byte, n)) })
	s.waitFor("writePaused", 1)
	s.do(func(t couplet.Transport) {
		t.SetWatermarks(2*n, 4*n)
		s.note("raised") // nothing is told inside the call
	})
	s.waitFor("writeResumed", 1)
	s.do(func(t couplet.Transport) { t.SetWatermarks(0, n/2) })
	s.waitFor("writePaused", 2)
	s.wantOrder("build made writePaused raised writeResumed writePaused")
	s.do(func(t couplet.Transport) { t.Abort() })
	s.lostWith("aborted")
}

// stalledProxy pumps a fast source into a sink that does not read for a while.
// What the proxy holds must stay at the watermark and what one turn can bring.
func stalledProxy(e *Env) {
	const total = 12 << 20 // more than the sink's socket takes in
	const high = 64 << 10
	const most = high + 3*(128<<10) // BytesPerTurn, twice, and one piece
	in, out := e.conn("proxy, source side"), e.conn("proxy, sink side")
	in.stream = true
	sink := e.peerListener()
	var peak atomic.Int64
	in.onMade = func(t couplet.Transport) {
		t.PauseReading()
		out.onMade = func(couplet.Transport) { t.ResumeReading() }
		err := e.Server.Dial(e.ctx, e.network, sink.Addr().String(), couplet.FactoryFunc(out.build),
			couplet.OnLoop(t.Loop()), couplet.SendBuffer(64<<10))
		if err != nil {
			e.Errorf("Dial: %v", err)
		}
	}
	in.onData = func(_ couplet.Transport, p []byte) {
		out.t.Write(p)
		peak.Store(max(peak.Load(), int64(out.t.Buffered())))
	}
	in.onLost = func(couplet.Transport, error) { out.t.Close() }
	out.onWritePaused = func(couplet.Transport) { in.t.PauseReading() }
	out.onWriteResumed = func(couplet.Transport) { in.t.ResumeReading() }
	source := e.peer(in, 0)
	p, err := sink.Accept()
	e.check(err, "the sink's accept")
	e.adopt(p)
	sent := make(chan error, 1)
	go func() {
		_, err := source.Write(pattern(0, total))
		source.CloseWrite()
		sent <- err
	}()
	out.waitMade()
	if in.loop != out.loop {
		e.Errorf("OnLoop was not honoured")
	}
	out.waitFor("writePaused", 1)
	for last := int64(-1); last != in.total(); e.settle(out.loop) {
		last = in.total() // until the sink's socket is full
	}
	if in.total() == total {
		e.Errorf("the stalled sink did not hold the source back")
	}
	e.expectStream(p, total)
	e.check(recv(e, sent, "end of the source"), "the source's write")
	in.lostWith("eof")
	out.lostWith("closed", "eof")
	if got := peak.Load(); got > most {
		e.Errorf("the proxy held %d bytes; %d are allowed", got, most)
	}
}
