package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"couplet"
)

// writingCases: what Write takes, and what arrives.
var writingCases = []Case{
	{ID: 23, Name: "Write in made is delivered", Run: writeInMade},
	{ID: 24, Name: "Write in data is delivered", Run: writeInData},
	{ID: 25, Name: "every method is inert in and after lost", Run: inertAfterLost},
	{ID: 26, Name: "Write never blocks and never calls back", Run: writeNeverBlocks},
	{ID: 27, Name: "bytes keep the order of the calls", Run: writeOrder},
	{ID: 28, Name: "60 MiB and a second write and Close", Run: hugeThenClose},
	{ID: 29, Name: "an empty write is nothing", Run: emptyWrite},
	{ID: 30, Name: "Write then Close in made", Run: writeThenClose},
	{ID: 31, Name: "Write after Close is refused", Run: writeAfterClose},
	{ID: 32, Name: "Write after Abort is refused", Run: writeAfterAbort},
	{ID: 33, Name: "Write to a peer that is gone while paused ends the connection", Run: writeWhilePaused},
	{ID: 34, Name: "the caller may reuse the slice", Run: sliceReuse},
	{ID: 136, Name: "a Buffer that was released is not queued", Run: writeReleased},
}

func writeInMade(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	for _, x := range []*conn{s, c} {
		x.onMade = func(t couplet.Transport) {
			if n, err := t.Write([]byte("hello from " + x.name)); err != nil || n != 11+len(x.name) {
				e.Errorf("Write in ConnectionMade: %d, %v", n, err)
			}
		}
	}
	e.pair(s, c)
	s.waitBytes(17)
	c.waitBytes(17)
	s.wantText("hello from client")
	c.wantText("hello from server")
}

func writeInData(e *Env) {
	const rounds = 50
	s, c := e.conn("server"), e.conn("client")
	s.onData = echo
	round := 0
	var want strings.Builder
	c.onMade = func(t couplet.Transport) { t.Write([]byte("0;")) }
	c.onData = func(t couplet.Transport, p []byte) {
		if !bytes.HasSuffix(p, []byte(";")) {
			return // the rest follows
		}
		if round++; round == rounds {
			t.Close()
			return
		}
		fmt.Fprintf(t, "%d;", round)
	}
	for i := range rounds {
		fmt.Fprintf(&want, "%d;", i)
	}
	e.pair(s, c)
	s.lostWith("eof")
	s.wantText(want.String())
	c.wantText(want.String())
}

// inert calls everything that a Transport has and checks that nothing happens.
func (e *Env) inert(where string, t couplet.Transport) {
	closed := func(call string, err error) {
		if !errors.Is(err, net.ErrClosed) {
			e.Errorf("%s: %s answers %v, not net.ErrClosed", where, call, err)
		}
	}
	n, err := t.Write([]byte("late"))
	closed("Write", err)
	m, err := t.Writev([][]byte{[]byte("la"), []byte("te")})
	closed("Writev", err)
	if n != 0 || m != 0 {
		e.Errorf("%s: writes took %d and %d bytes", where, n, m)
	}
	b := couplet.NewBuffer([]byte("late"), nil)
	closed("WriteBuffer", t.WriteBuffer(b))
	if b.Shared() {
		e.Errorf("%s: WriteBuffer kept a reference", where)
	}
	closed("CloseWrite", t.CloseWrite())
	closed("Close", t.Close())
	_, err = t.SyscallConn()
	closed("SyscallConn", err)
	if n := t.Buffered(); n != 0 {
		e.Errorf("%s: %d bytes are buffered", where, n)
	}
	t.Abort()
	t.PauseReading()
	t.ResumeReading()
	t.SetWatermarks(1, 2)
	timer := t.AfterFunc(0, func() { e.Errorf("%s: a timer fired", where) })
	if timer == nil {
		e.Errorf("%s: AfterFunc gives nil", where)
	} else {
		timer.Stop()
	}
	t.AfterFunc(time.Millisecond, func() { e.Errorf("%s: a timer fired", where) })
	if t.LocalAddr() == nil || t.RemoteAddr() == nil || t.Loop() == nil {
		e.Errorf("%s: addresses and Loop are %v, %v, %v", where, t.LocalAddr(), t.RemoteAddr(), t.Loop())
	}
	t.SetContext(1)
	h := t.Handle()
	_, err = h.Write([]byte("late"))
	closed("Handle.Write", err)
	closed("Handle.Close", h.Close())
	closed("Handle.Post", h.Post(func(couplet.Transport) { e.Errorf("%s: Handle.Post ran", where) }))
}

func inertAfterLost(e *Env) {
	for name, end := range map[string]func(t couplet.Transport){
		"close": func(t couplet.Transport) { t.Close() },
		"abort": func(t couplet.Transport) { t.Abort() },
		"panic": func(couplet.Transport) { panic(errPanic) },
		"peer":  func(couplet.Transport) {},
	} {
		s := e.conn("ended by " + name)
		s.onData = func(t couplet.Transport, _ []byte) { end(t) }
		s.onLost = func(t couplet.Transport, _ error) { e.inert("in lost, ended by "+name, t) }
		p := e.peer(s, 0)
		e.send(p, []byte("end"))
		p.CloseWrite()
		s.waitLost()
		s.do(func(t couplet.Transport) { e.inert("after lost, ended by "+name, t) })
		e.settle(s.loop)
		if rest, _ := io.ReadAll(p); len(rest) > 0 {
			e.Errorf("ended by %s, the peer still got %q", name, rest)
		}
	}
}

func writeNeverBlocks(e *Env) {
	const piece = 1 << 20
	total := bulk(32 << 20)
	s, other := e.conn("server"), e.conn("other")
	other.onData = echo
	s.flow = true
	var took time.Duration
	s.onMade = func(t couplet.Transport) {
		start := time.Now()
		for off := 0; off < total; off += piece {
			if n, err := t.Write(pattern(int64(off), piece)); n != piece || err != nil {
				e.Errorf("Write: %d, %v", n, err)
			}
		}
		took = time.Since(start)
	}
	l := e.serve([]*conn{s, other})
	p := e.dialPeer(l.Addr(), 4<<10)
	s.waitMade()
	s.waitFor("writePaused", 1)
	if took > 5*time.Second {
		e.Errorf("writing %d bytes to a peer that does not read took %v", total, took)
	}
	// The loop serves others meanwhile.
	q := e.dialPeer(l.Addr(), 0)
	for range 10 {
		e.send(q, []byte("ping"))
		e.expect(q, "ping")
	}
	s.do(func(t couplet.Transport) {
		if n := t.Buffered(); n == 0 || n > total {
			e.Errorf("%d of %d bytes are buffered", n, total)
		}
		t.Close()
	})
	e.expectStream(p, int64(total))
	s.lostWith("closed")

	// What is too much is refused, and the connection lives.
	const limit = 1 << 20
	s = e.conn("limited")
	taken := 0
	s.onMade = func(t couplet.Transport) {
		for {
			n, err := t.Write(pattern(int64(taken), 100_000))
			taken += n
			if err != nil {
				if n != 0 || err != couplet.ErrOutboundFull {
					e.Errorf("a write beyond MaxOutbound: %d, %v", n, err)
				}
				break
			}
			if taken > limit {
				e.Errorf("%d bytes are queued where %d are allowed", taken, limit)
				break
			}
		}
		if n, err := t.Write(pattern(int64(taken), 1)); n != 1 || err != nil {
			e.Errorf("a write within MaxOutbound after one beyond it: %d, %v", n, err)
		}
		taken++
		if n, err := t.Writev([][]byte{make([]byte, limit/2), make([]byte, limit/2)}); n != 0 || err != couplet.ErrOutboundFull {
			e.Errorf("a Writev beyond MaxOutbound: %d, %v", n, err)
		}
	}
	p = e.peer(s, 0, couplet.MaxOutbound(limit))
	if got, err := readPattern(p, 0, int64(taken)); err != nil {
		e.Fatalf("%d of %d bytes came: %v", got, taken, err)
	}
	s.do(func(t couplet.Transport) { t.Write([]byte("still alive")) })
	e.expect(p, "still alive")

	// What was sent does not count any more, once the engine has been told of it: the
	// peer may have the bytes before.
	for i := range 3 {
		drained := func() (empty bool) {
			s.do(func(t couplet.Transport) { empty = t.Buffered() == 0 })
			return empty
		}
		e.until("what the peer has read is not queued", drained)
		s.do(func(t couplet.Transport) {
			if n, err := t.Write(pattern(0, limit)); n != limit || err != nil {
				e.Errorf("write %d of MaxOutbound, with %d bytes queued: %d, %v", i, t.Buffered(), n, err)
			}
		})
		if got, err := readPattern(p, 0, limit); err != nil {
			e.Fatalf("%d of %d bytes came: %v", got, limit, err)
		}
	}
}

func writeOrder(e *Env) {
	s := e.conn("server")
	want := "onetwothree"
	s.onMade = func(t couplet.Transport) {
		// A Writev with nothing written before it.
		if n, err := t.Writev([][]byte{[]byte("one"), nil, []byte("two"), {}, []byte("three")}); n != 11 || err != nil {
			e.Errorf("Writev: %d, %v", n, err)
		}
	}
	p := e.peer(s, 0)
	e.expect(p, want)

	// Every way to write, across callbacks, timers and posts.
	const steps = 60
	var sent atomic.Int64
	off := int64(0)
	var released atomic.Int32
	step := 0
	done := make(chan struct{})
	var next func(t couplet.Transport)
	next = func(t couplet.Transport) {
		n := 1 + step*step*7%5000
		part := pattern(off, n)
		var err error
		switch step % 4 {
		case 0:
			_, err = t.Write(part)
		case 1:
			_, err = t.Writev([][]byte{part[:n/3], part[n/3 : n/2], part[n/2:]})
		case 2:
			b := couplet.NewBuffer(part, func() { released.Add(1) })
			err = t.WriteBuffer(b)
			b.Release()
		case 3:
			for _, b := range part[:min(n, 50)] {
				t.Write([]byte{b})
			}
			_, err = t.Write(part[min(n, 50):])
		}
		if err != nil {
			e.Errorf("write %d: %v", step, err)
		}
		off += int64(n)
		if step++; step == steps {
			sent.Store(off)
			t.Close()
			close(done)
			return
		}
		switch step % 3 {
		case 0:
			next(t)
		case 1:
			t.Loop().Post(func() { next(t) })
		case 2:
			t.AfterFunc(0, func() { next(t) })
		}
	}
	s = e.conn("every way")
	s.onMade = next
	p = e.peer(s, 0)
	recv(e, done, "last write")
	e.expectStream(p, sent.Load())
	s.lostWith("closed")
	e.until("the buffers are released", func() bool { return released.Load() == steps/4 })
}

func hugeThenClose(e *Env) {
	first, second := bulk(60<<20), 1<<20
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		t.Write(pattern(0, first))
		t.AfterFunc(time.Millisecond, func() {
			t.Write(pattern(int64(first), second))
			t.Close()
		})
	}
	p := e.peer(s, 0)
	e.expectStream(p, int64(first+second))
	s.lostWith("closed")
}

func emptyWrite(e *Env) {
	s := e.conn("server")
	s.flow, s.half = true, true
	var released atomic.Bool
	s.onMade = func(t couplet.Transport) {
		t.SetWatermarks(0, 0)
		for _, p := range [][]byte{nil, {}} {
			if n, err := t.Write(p); n != 0 || err != nil {
				e.Errorf("an empty Write: %d, %v", n, err)
			}
		}
		for _, bufs := range [][][]byte{nil, {}, {nil, {}}} {
			if n, err := t.Writev(bufs); n != 0 || err != nil {
				e.Errorf("an empty Writev: %d, %v", n, err)
			}
		}
		b := couplet.NewBuffer(nil, func() { released.Store(true) })
		if err := t.WriteBuffer(b); err != nil {
			e.Errorf("an empty WriteBuffer: %v", err)
		}
		b.Release()
		if n := t.Buffered(); n != 0 {
			e.Errorf("%d bytes are buffered after empty writes", n)
		}
	}
	p := e.peer(s, 0)
	e.settle(s.loop)
	s.wantOrder("build made")
	s.do(func(t couplet.Transport) {
		if !released.Load() {
			e.Errorf("an empty Buffer is still held")
		}
		t.Write([]byte("x"))
		t.Write(nil)
		t.Write([]byte("y"))
		t.Close()
	})
	e.expect(p, "xy")
	e.expectEOF(p)
}

func writeReleased(e *Env) {
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		b := couplet.NewBuffer([]byte("released"), nil)
		b.Release()
		func() {
			defer func() {
				if recover() == nil {
					e.Errorf("WriteBuffer takes a Buffer that was released")
				}
			}()
			t.WriteBuffer(b)
		}()
		if n := t.Buffered(); n != 0 {
			e.Errorf("%d bytes are buffered of a Buffer that was not taken", n)
		}
		t.Write([]byte("goes on"))
		t.Close()
	}
	p := e.peer(s, 0)
	e.expect(p, "goes on")
	e.expectEOF(p)
}

func writeThenClose(e *Env) {
	for _, n := range []int{1, 1000, 3 << 20} {
		s := e.conn(fmt.Sprintf("server of %d", n))
		s.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() }
		p := e.peer(s, 0)
		e.expectStream(p, int64(n))
		p.Close()
		s.lostWith("closed")

		// The side that dials does it too.
		s, c := e.conn("server"), e.conn("client")
		s.stream = true
		c.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() }
		e.pair(s, c)
		s.lostWith("eof")
		if s.total() != int64(n) {
			e.Errorf("%d of %d bytes came", s.total(), n)
		}
		c.lostWith("closed")
	}
}

// refused checks that a write is refused.
func (e *Env) refused(where string, t couplet.Transport) {
	if n, err := t.Write([]byte("refused")); n != 0 || !errors.Is(err, net.ErrClosed) {
		e.Errorf("%s: Write answers %d, %v", where, n, err)
	}
	if n, err := t.Writev([][]byte{[]byte("refused")}); n != 0 || !errors.Is(err, net.ErrClosed) {
		e.Errorf("%s: Writev answers %d, %v", where, n, err)
	}
	b := couplet.NewBuffer([]byte("refused"), nil)
	if err := t.WriteBuffer(b); !errors.Is(err, net.ErrClosed) || b.Shared() {
		e.Errorf("%s: WriteBuffer answers %v, a reference kept: %v", where, err, b.Shared())
	}
}

func writeAfterClose(e *Env) {
	const n = 2 << 20
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		t.Write(pattern(0, n))
		t.Close()
		e.refused("after Close, before the flush", t)
		t.Loop().Post(func() { e.refused("a turn after Close", t) })
	}
	p := e.peer(s, 0)
	s.do(func(t couplet.Transport) { e.refused("two turns after Close", t) })
	e.expectStream(p, n)
}

func writeAfterAbort(e *Env) {
	const n = 2 << 20
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		t.Write(pattern(0, n))
		t.Abort()
		e.refused("after Abort", t)
	}
	p := e.peer(s, 0)
	got, err := readPattern(p, 0, n+1)
	if err == nil || got > n || strings.Contains(err.Error(), "wrong") {
		e.Errorf("after Abort the peer read %d bytes and %v", got, err)
	}
	s.lostWith("aborted")
}

func writeWhilePaused(e *Env) {
	for name, leave := range map[string]func(p Peer){
		"a reset": func(p Peer) { p.Reset() },
		"a close": func(p Peer) { p.Close() },
	} {
		s := e.conn("server, the peer left by " + name)
		var again func()
		s.onMade = func(t couplet.Transport) {
			t.PauseReading()
			again = func() {
				t.Write([]byte("is anybody there?"))
				t.AfterFunc(5*time.Millisecond, again)
			}
		}
		p := e.peer(s, 0)
		leave(p)
		e.settle(s.loop)
		if s.count("lost") != 0 {
			e.Errorf("%s: ConnectionLost did not wait for ResumeReading", s.name)
		}
		s.do(func(couplet.Transport) { again() })
		s.lostWith("reset")
	}
}

func sliceReuse(e *Env) {
	const n, rounds = 1000, 100
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		buf := make([]byte, n)
		for i := range rounds {
			copy(buf, pattern(int64(i*n), n))
			if i%2 == 0 {
				t.Write(buf)
			} else {
				t.Writev([][]byte{buf[:n/2], buf[n/2:]})
			}
			clear(buf)
		}
		h := t.Handle()
		go func() {
			copy(buf, pattern(n*rounds, n))
			if _, err := h.Write(buf); err != nil {
				e.Errorf("Handle.Write: %v", err)
			}
			clear(buf)
			h.Close()
		}()
	}
	p := e.peer(s, 0)
	e.expectStream(p, n*(rounds+1))

	// A Buffer is not copied, and is released when its bytes were taken.
	released := make(chan struct{})
	s = e.conn("with a Buffer")
	b := couplet.NewBuffer(pattern(0, n), func() { close(released) })
	s.onMade = func(t couplet.Transport) {
		for range 3 {
			if err := t.WriteBuffer(b); err != nil {
				e.Errorf("WriteBuffer: %v", err)
			}
		}
		if !b.Shared() {
			e.Errorf("WriteBuffer took no reference")
		}
		b.Release()
		t.Close()
	}
	p = e.peer(s, 0)
	got, err := io.ReadAll(p)
	if err != nil || !bytes.Equal(got, bytes.Repeat(pattern(0, n), 3)) {
		e.Errorf("a Buffer written three times came as %d bytes, %v", len(got), err)
	}
	recv(e, released, "release of the Buffer")
}
