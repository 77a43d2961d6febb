package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// adversaryCases: what is hostile, scarce or unlucky. The numbers are rows of
// the adversaries' list.
var adversaryCases = []Case{
	{ID: 1, Name: "64 descriptors and 120 dials", Needs: NeedsSockets | NeedsLinux | NeedsOne, Run: starved},
	{ID: 3, Name: "connections reset before they are accepted", Run: resetBeforeAccept},
	{ID: 4, Name: "a burst of connections through small queues", Config: smallQueues(8, 16), Run: acceptBurst},
	{ID: 6, Name: "a reset while receiving", Run: resetWhileReceiving},
	{ID: 7, Name: "a reset while sending", Run: resetWhileSending},
	{ID: 8, Name: "writing to a peer that is gone", Run: brokenPipe},
	{ID: 10, Name: "a peer that never reads", Run: zeroWindow},
	{ID: 11, Name: "a slow reader", Run: slowReader},
	{ID: 12, Name: "the peer ends first and we go on", Run: peerEndsFirst},
	{ID: 13, Name: "we end first and the peer goes on", Run: weEndFirst},
	{ID: 14, Name: "both end at once", Run: bothEnd},
	{ID: 15, Name: "a huge write beside small ones", Run: hugeWrite},
	{ID: 16, Name: "short sends", Run: shortSends},
	{ID: 17, Name: "a message split at every place", Run: everySplit},
	{ID: 18, Name: "16 MiB then Close and a reader that comes late", Run: lateReader},
	{ID: 19, Name: "Abort releases buffers when the kernel has", Run: abortReleases},
	{ID: 20, Name: "Shutdown under load", Run: shutdownUnderLoad},
	{ID: 21, Name: "Shutdown again and at once from everywhere", Needs: NeedsOne, Run: shutdownAgain},
	{ID: 22, Name: "two receive buffers for 100 connections", Config: couplet.Config{RingBuffers: 2, RingBufferSize: 4 << 10}, Run: fewBuffers},
	{ID: 23, Name: "long streams in small turns", Config: couplet.Config{BytesPerTurn: 4 << 10, RingBuffers: 4, RingBufferSize: 4 << 10}, Run: smallTurns},
	{ID: 24, Name: "a completion queue of 4", Config: smallQueues(4, 4), Run: manyConnections},
	{ID: 25, Name: "a submission queue of 2", Config: smallQueues(2, 4), Run: manyConnections},
	{ID: 28, Name: "connections that end with everything under way", Run: staleCompletions},
	{ID: 29, Name: "a stale Handle never reaches a stranger", Run: staleHandle},
	{ID: 31, Name: "Close in data and made and a timer", Run: closeEverywhere},
	{ID: 32, Name: "a write inside lost", Run: writeInLost},
	{ID: 33, Name: "a panic in each callback", Run: panicEverywhere},
	{ID: 35, Name: "64 goroutines write and close", Config: couplet.Config{Loops: 2}, Run: storm},
	{ID: 36, Name: "a storm of posts", Needs: NeedsOne, Run: postStorm},
	{ID: 42, Name: "each set of features", Needs: NeedsOne, Run: everyTier},
	{ID: 44, Name: "a storm of signals", Needs: NeedsLinux | NeedsOne, Run: signalStorm},
	{ID: 47, Name: "a child process inherits nothing", Needs: NeedsSockets | NeedsLinux | NeedsOne, Run: nothingInherited},
	{ID: 48, Name: "engines come and go without a trace", Needs: NeedsOne, Run: engineCycles},
}

func smallQueues(entries, completions int) couplet.Config {
	return couplet.Config{RingEntries: entries, CompletionEntries: completions}
}

func starved(e *Env) {
	c := e.start("starve")
	addr := c.ask("")
	usage := func() (cpu time.Duration, accepted, failed int) {
		answer := c.ask("?")
		if _, err := fmt.Sscan(answer, (*int64)(&cpu), &accepted, &failed); err != nil {
			e.Fatalf("the child says %q: %v", answer, err)
		}
		return cpu, accepted, failed
	}
	dial := func() Peer {
		p, err := e.Network.Dial(e.network, addr, 0)
		e.check(err, "a peer's dial")
		return e.adopt(p)
	}
	var ps []Peer
	for range 120 {
		ps = append(ps, dial())
	}
	e.until("the child runs out of descriptors", func() bool { _, _, failed := usage(); return failed > 0 })
	before, had, _ := usage()
	start := time.Now()
	<-time.After(400 * time.Millisecond)
	after, _, _ := usage()
	if used, wall := after-before, time.Since(start); used > wall/2 {
		e.Errorf("out of descriptors the process used %v of %v", used, wall)
	}
	if had < 20 || had > 64 {
		e.Errorf("%d connections were accepted with 64 descriptors", had)
	}
	// Those it has are served meanwhile.
	e.send(ps[0], []byte("ping"))
	e.expect(ps[0], "ping")
	for _, p := range ps[:60] {
		p.Close()
	}
	e.until("others are accepted instead", func() bool { _, n, _ := usage(); return n > 60 })
	for _, p := range ps[60:110] {
		p.Close()
	}
	for range 10 {
		p := dial()
		e.send(p, []byte("ping"))
		e.expect(p, "ping")
	}
}

func resetBeforeAccept(e *Env) {
	const n = 20
	var mu sync.Mutex
	var built []*conn
	l := e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		c := e.conn("short-lived")
		c.onData = echo
		mu.Lock()
		built = append(built, c)
		mu.Unlock()
		return c.build(remote)
	}))
	// The loop is kept busy while the connections come and go.
	free := e.hold(e.Server.Loops()[0])
	for i := range n {
		p := e.dialPeer(l.Addr(), 0)
		if i%2 == 0 {
			p.Write([]byte("never read"))
		}
		p.Reset()
	}
	free()
	e.talk(l.Addr())
	e.until("all are accounted for", func() bool {
		s := e.Server.Stats()
		return s.Accepted+s.AcceptIgnored >= n+1
	})
	mu.Lock()
	cs := built
	mu.Unlock()
	for _, c := range cs {
		c.lostWith("reset", "eof")
	}
	if s := e.Server.Stats(); s.Accepted != int64(len(cs)) {
		e.Errorf("%d connections were built, Stats counts %d accepted", len(cs), s.Accepted)
	}
}

func acceptBurst(e *Env) {
	n := scaled(400)
	l := e.listen(e.echoes())
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range n / 4 {
				p, err := e.Network.Dial(e.network, l.Addr().String(), 0)
				if err != nil {
					e.Errorf("a peer's dial: %v", err)
					return
				}
				e.adopt(p)
				want := fmt.Sprintf("%d/%d", g, i)
				got := make([]byte, len(want))
				p.Write([]byte(want))
				if _, err := io.ReadFull(p, got); err != nil || string(got) != want {
					e.Errorf("the echo of %s was %q, %v", want, got, err)
					return
				}
				if i%2 == 0 {
					p.Close()
				}
			}
		})
	}
	wg.Wait()
	e.until("each is counted once", func() bool { return e.Server.Stats().Accepted == int64(n/4*4) })
}

func resetWhileReceiving(e *Env) {
	s := e.conn("server")
	s.stream = true
	p := e.peer(s, 0)
	for off := 0; off < 4<<20; off += pieceSize {
		e.send(p, pattern(int64(off), pieceSize))
	}
	p.Reset()
	s.lostWith(e.gone()...)
	if n := s.count("lost"); n != 1 {
		e.Errorf("lost %d times", n)
	}
}

func resetWhileSending(e *Env) {
	for _, halfRead := range []bool{false, true} {
		var released atomic.Int32
		s := e.conn(fmt.Sprint("server, read before: ", halfRead))
		s.flow = true
		s.onMade = func(t couplet.Transport) {
			for range 4 {
				b := couplet.NewBuffer(make([]byte, 4<<20), func() { released.Add(1) })
				t.WriteBuffer(b)
				b.Release()
			}
		}
		p := e.peer(s, 4<<10)
		if halfRead {
			io.ReadFull(p, make([]byte, 1<<20))
		}
		s.waitFor("writePaused", 1)
		p.Reset()
		s.lostWith("reset")
		e.until("the buffers are released", func() bool { return released.Load() == 4 })
		if s.count("writeResumed") != 0 {
			e.Errorf("%s: writeResumed, though the peer is gone", s.name)
		}
	}
}

func brokenPipe(e *Env) {
	s := e.conn("server")
	s.half = true
	p := e.peer(s, 0)
	p.Close()
	s.waitFor("readClosed", 1)
	// The first write draws a reset, a later one meets it.
	var again func()
	s.do(func(t couplet.Transport) {
		again = func() {
			t.Write([]byte("is anybody there?"))
			t.AfterFunc(2*time.Millisecond, again)
		}
		again()
	})
	s.lostWith("reset")

	s = e.conn("closing server")
	p = e.peer(s, 4<<10)
	s.do(func(t couplet.Transport) { t.Write(make([]byte, 16<<20)); t.Close() })
	e.settle(s.loop)
	p.Reset() // and the flush has failed
	s.lostWith("reset")
}

func zeroWindow(e *Env) {
	const limit = 24 << 20
	s, other := e.conn("server"), e.conn("other")
	other.onData = echo
	full := make(chan struct{})
	taken := 0
	s.flow = true
	s.onMade = func(t couplet.Transport) {
		var again func()
		again = func() { // takes no notice of WritePaused
			n, err := t.Write(make([]byte, 1<<20))
			if taken += n; err == nil {
				t.Loop().Post(again)
				return
			}
			if err != couplet.ErrOutboundFull {
				e.Errorf("writing too much answers %v", err)
			}
			if t.Buffered() > limit {
				e.Errorf("%d bytes are queued where %d are allowed", t.Buffered(), limit)
			}
			close(full)
		}
		again()
	}
	l := e.serve([]*conn{s, other}, couplet.MaxOutbound(limit), couplet.FlushTimeout(100*time.Millisecond))
	e.dialPeer(l.Addr(), 1<<10)
	recv(e, full, "limit of the outbound queue")
	s.waitFor("writePaused", 1)
	q := e.dialPeer(l.Addr(), 0)
	e.send(q, []byte("ping"))
	e.expect(q, "ping")
	s.do(func(t couplet.Transport) { t.Close() })
	s.lostWith("timeout")
	e.send(q, []byte("pong"))
	e.expect(q, "pong")
}

func slowReader(e *Env) {
	total := int64(bulk(16 << 20))
	s := e.conn("server")
	prod := &producer{c: s}
	end := func() {
		if prod.off < total {
			prod.produce()
		}
		if prod.off >= total && !prod.stopped {
			prod.stopped = true
			s.t.Close()
		}
	}
	prod.next = end
	s.onMade = func(couplet.Transport) { end() }
	s.onWritePaused = func(couplet.Transport) { prod.stopped = true }
	s.onWriteResumed = func(couplet.Transport) { prod.stopped = false; end() }
	p := e.peer(s, 4<<10)
	for off, stalls := int64(0), 0; ; {
		want := int64(1 << 20)
		got, err := readPattern(p, off, want)
		off += got
		if err == io.EOF {
			if off < total {
				e.Errorf("%d bytes of %d came", off, total)
			}
			break
		}
		e.check(err, "the peer's read")
		if stalls++; stalls <= 4 {
			e.pass(s.loop, 10*time.Millisecond)
		}
	}
	s.lostWith("closed")
	if s.count("writePaused") == 0 {
		e.Errorf("a slow reader never paused the writer")
	}
}

func peerEndsFirst(e *Env) {
	const n = 4 << 20
	s := e.conn("server")
	s.onReadClosed = func(t couplet.Transport) {
		t.Write(pattern(0, n/2))
		t.AfterFunc(5*time.Millisecond, func() { t.Write(pattern(n/2, n/2)); t.Close() })
	}
	p := e.peer(s, 0)
	e.send(p, []byte("that is all"))
	p.CloseWrite()
	e.expectStream(p, n)
	s.lostWith("eof")
	s.wantText("that is all")
}

func weEndFirst(e *Env) {
	const n = 4 << 20
	s := e.conn("server")
	s.half, s.stream = true, true
	s.onMade = func(t couplet.Transport) { t.CloseWrite() }
	p := e.peer(s, 0)
	e.expectEOF(p)
	e.send(p, pattern(0, n))
	p.CloseWrite()
	s.lostWith("eof")
	if s.total() != n {
		e.Errorf("%d bytes of %d came after our half was closed", s.total(), n)
	}
}

func bothEnd(e *Env) {
	for i := range scaled(40) {
		s, c := e.conn(fmt.Sprint("server ", i)), e.conn(fmt.Sprint("client ", i))
		s.half, c.half = i%2 == 0, i%4 < 2
		e.pair(s, c)
		var hs, hc couplet.Handle
		s.do(func(t couplet.Transport) { hs = t.Handle() })
		c.do(func(t couplet.Transport) { hc = t.Handle() })
		end := func(t couplet.Transport) { t.Write([]byte("bye")); t.CloseWrite() }
		hs.Post(end)
		hc.Post(end)
		s.lostWith("eof")
		c.lostWith("eof")
		// One that is not aware closes at once, and may not have spoken before.
		if c.half {
			s.wantText("bye")
		}
		if s.half {
			c.wantText("bye")
		}
	}
}

func hugeWrite(e *Env) {
	const chunk = 16 << 20
	times := bulk(256<<20) / chunk
	if times == 0 {
		times = 1
	}
	content := pattern(0, chunk)
	b := couplet.NewBuffer(content, nil)
	s, other := e.conn("server"), e.conn("other")
	other.onData = echo
	s.onMade = func(t couplet.Transport) {
		for range times {
			if err := t.WriteBuffer(b); err != nil {
				e.Errorf("WriteBuffer: %v", err)
			}
		}
		t.Close()
	}
	live := func() int64 { // without what is yet to be collected: a peer makes garbage of what it reads
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := live()
	l := e.serve([]*conn{s, other})
	p := e.dialPeer(l.Addr(), 0)
	s.waitMade()
	q := e.dialPeer(l.Addr(), 0)
	buf := make([]byte, 1<<20)
	for i := range times {
		for off := 0; off < chunk; {
			n, err := p.Read(buf[:min(len(buf), chunk-off)])
			if !bytes.Equal(buf[:n], content[off:off+n]) {
				e.Fatalf("a wrong byte after %d", i*chunk+off)
			}
			off += n
			e.check(err, "the peer's read")
		}
		if i == 0 { // the rest is still queued
			if grown := live() - before; grown > 2*chunk {
				e.Errorf("the heap grew by %d bytes to send %d", grown, times*chunk)
			}
		}
		// Half-way others are served, whatever is queued here.
		e.send(q, []byte("ping"))
		e.expect(q, "ping")
	}
	e.expectEOF(p)
	s.lostWith("closed")
	b.Release()
}

func shortSends(e *Env) {
	total := bulk(2 << 20)
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) {
		for off, n := 0, 1; off < total; n = n*3%40_009 + 1 {
			n = min(n, total-off)
			part := pattern(int64(off), n)
			switch n % 3 {
			case 0:
				t.Write(part)
			case 1:
				t.Writev([][]byte{part[:n/2], part[n/2:]})
			default:
				b := couplet.NewBuffer(part, nil)
				t.WriteBuffer(b)
				b.Release()
			}
			off += n
		}
		t.Close()
	}
	p := e.peer(s, 2<<10, couplet.SendBuffer(4<<10))
	for got := int64(0); ; {
		n, err := readPattern(p, got, 1+got%1777)
		got += n
		if err == io.EOF {
			if got != int64(total) {
				e.Errorf("%d bytes of %d came", got, total)
			}
			break
		}
		e.check(err, "the peer's read")
	}
	s.lostWith("closed")
}

const couplets = "So long lives this,\nand this gives life to thee.\n"

func everySplit(e *Env) {
	n := len(couplets)
	ss := e.connsOf(n+1, "split", nil)
	for _, s := range ss {
		s.onData = func(t couplet.Transport, _ []byte) {
			if s.text() == couplets {
				t.Write([]byte("understood"))
				t.Close()
			}
		}
	}
	l := e.serve(ss)
	for k, s := range ss {
		p := e.dialPeer(l.Addr(), 0)
		if k == 0 { // byte by byte
			for i := range n {
				e.send(p, []byte(couplets[i:i+1]))
				if i%8 == 0 {
					s.waitMade()
					s.waitBytes(int64(i + 1))
				}
			}
		} else {
			e.send(p, []byte(couplets[:k]))
			s.waitMade()
			s.waitBytes(int64(k))
			if k < n {
				e.send(p, []byte(couplets[k:]))
			}
		}
		e.expect(p, "understood")
		e.expectEOF(p)
		p.Close()
		s.wantText(couplets)
	}
}

func lateReader(e *Env) {
	n := bulk(16 << 20)
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() }
	p := e.peer(s, 0)
	e.pass(s.loop, 500*time.Millisecond)
	e.expectStream(p, int64(n))
	s.lostWith("closed")
}

func abortReleases(e *Env) {
	const n = 1 << 20
	for i := range 10 {
		content := bytes.Clone(pattern(0, n))
		released := make(chan struct{})
		b := couplet.NewBuffer(content, func() {
			clear(content) // whoever still sends from it sends zeros
			close(released)
		})
		s := e.conn(fmt.Sprint("server ", i))
		s.onMade = func(t couplet.Transport) {
			t.WriteBuffer(b)
			b.Release()
			switch i % 3 {
			case 0:
				t.Abort()
			case 1:
				t.Loop().Post(t.Abort)
			case 2:
				t.Loop().AfterFunc(time.Millisecond, t.Abort)
			}
		}
		p := e.peer(s, 16<<10)
		got, err := readPattern(p, 0, n+1)
		if err != nil && strings.Contains(err.Error(), "wrong") || got > n {
			e.Errorf("after %d bytes: %v", got, err)
		}
		s.lostWith("aborted")
		recv(e, released, "release of the Buffer")
	}
}

func shutdownUnderLoad(e *Env) {
	n, each := scaled(200), 128<<10
	// Everybody is owed something when the end comes, and gets it.
	eng := e.newEngine(couplet.Config{})
	var built atomic.Int32
	made := make(chan struct{}, n)
	l, err := eng.Listen(e.network, e.address(), couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		c := e.conn(fmt.Sprint("server ", built.Add(1)))
		c.onMade = func(t couplet.Transport) { t.Write(pattern(0, each)); made <- struct{}{} }
		return c.build(remote)
	}))
	e.check(err, "Listen")
	var wg sync.WaitGroup
	for range n {
		p, err := e.engineNetwork(eng).Dial(e.network, l.Addr().String(), 0)
		e.check(err, "a peer's dial")
		e.adopt(p)
		wg.Go(func() {
			if got, err := readPattern(p, 0, int64(each)+1); got != int64(each) || err != io.EOF {
				e.Errorf("a client got %d bytes of %d, then %v", got, each, err)
			}
			p.Close()
		})
	}
	for range n {
		recv(e, made, "connection")
	}
	d, err := eng.Shutdown(e.ctx)
	if err != nil || d.Cut != 0 || d.Clean > n {
		e.Errorf("Shutdown under load: %+v, %v", d, err)
	}
	wg.Wait()
	if p, err := e.Network.Dial(e.network, l.Addr().String(), 0); err == nil {
		p.Close()
		e.Errorf("an engine that was shut down still takes connections")
	}

	// Those who do not read are cut at the deadline, and counted.
	eng = e.newEngine(couplet.Config{})
	cs := e.connsOf(10, "at the deadline", func(i int, c *conn) {
		if i%2 == 0 {
			c.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
		}
	})
	e.attach(eng, cs...)
	ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
	defer cancel()
	d, err = eng.Shutdown(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || d.Clean != 5 || d.Cut != 5 {
		e.Errorf("Shutdown with 5 of 10 stuck: %+v, %v", d, err)
	}
	for _, c := range cs {
		c.lostWith("shutdown")
	}
}

func shutdownAgain(e *Env) {
	for _, from := range []string{"everywhere", "a callback", "nowhere near"} {
		eng := e.newEngine(couplet.Config{})
		s := e.conn("server, stopped from " + from)
		var wg sync.WaitGroup
		switch from {
		case "everywhere":
			e.attach(eng, s)
			for range 8 {
				wg.Go(func() {
					if _, err := eng.Shutdown(e.ctx); err != nil {
						e.Errorf("Shutdown: %v", err)
					}
					eng.Stop()
				})
			}
		case "a callback":
			s.onMade = func(couplet.Transport) {
				for range 3 {
					if _, err := eng.Shutdown(e.ctx); err != couplet.ErrOnLoop {
						e.Errorf("Shutdown in a callback: %v", err)
					}
				}
			}
			e.attach(eng, s)
		case "nowhere near": // before it did anything
			eng.Stop()
		}
		wg.Wait()
		recv(e, eng.Done(), "end of the engine")
		if _, err := eng.Shutdown(e.ctx); err != nil {
			e.Errorf("Shutdown after the end: %v", err)
		}
		if from != "nowhere near" {
			s.lostWith("shutdown")
		}
	}
}

// exchange has n peers send each bytes of the pattern, a piece at a time, to an
// echo and check what comes back.
func (e *Env) exchange(n, each, piece int) {
	l := e.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return echoProtocol{} }))
	var wg sync.WaitGroup
	for i := range n {
		p := e.dialPeer(l.Addr(), 0)
		from := int64(i * 777)
		wg.Go(func() {
			for off := 0; off < each; off += piece {
				if _, err := p.Write(pattern(from+int64(off), min(piece, each-off))); err != nil {
					e.Errorf("peer %d wrote %d bytes: %v", i, off, err)
					return
				}
			}
			p.CloseWrite()
		})
		wg.Go(func() {
			got, err := readPattern(p, from, int64(each)+1)
			if got != int64(each) || err != io.EOF {
				e.Errorf("peer %d got %d of %d bytes back, then %v", i, got, each, err)
			}
			p.Close()
		})
	}
	wg.Wait()
}

func fewBuffers(e *Env)      { e.exchange(scaled(100), 64<<10, 64<<10) }
func smallTurns(e *Env)      { e.exchange(4, 512<<10, 100_000) }
func manyConnections(e *Env) { e.exchange(scaled(500), 2000, 700) }

func staleCompletions(e *Env) {
	rounds := scaled(150)
	ss := e.connsOf(rounds, "server", func(i int, c *conn) {
		c.onMade = func(t couplet.Transport) {
			t.Write(make([]byte, 300_000))
			if i%3 == 0 {
				t.Abort() // while a receive and a send are under way
			}
		}
		c.onData = func(t couplet.Transport, p []byte) {
			t.Write(p)
			if i%3 == 1 {
				t.Abort()
			} else {
				t.Close()
			}
		}
	})
	l := e.serve(ss)
	for i := range rounds {
		p := e.dialPeer(l.Addr(), 0)
		p.Write([]byte("something to receive"))
		if i%2 == 0 {
			p.Close()
		} else {
			p.Reset()
		}
	}
	e.talkAfter(l, rounds)
	for _, s := range ss {
		if s.count("made") > 0 {
			s.waitLost()
		}
	}
}

// talkAfter waits until the listener has dealt with n connections.
func (e *Env) talkAfter(l couplet.Listener, n int) {
	e.until("every connection was accepted or ignored", func() bool {
		s := e.Server.Stats()
		return s.Accepted+s.AcceptIgnored+s.Refused >= int64(n)
	})
	l.Close()
}

func staleHandle(e *Env) {
	rounds := scaled(200)
	var mu sync.Mutex
	var stale []couplet.Handle
	var strangers atomic.Int32
	handles := make(chan couplet.Handle, 1)
	l := e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		c := e.conn("server")
		c.onMade = func(t couplet.Transport) { handles <- t.Handle() }
		c.onData = echo
		return c.build(remote)
	}))
	var wg sync.WaitGroup
	done := make(chan struct{})
	// Stale handles are used all the time, in the hope to reach a successor.
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			mu.Lock()
			hs := stale[max(0, len(stale)-16):]
			mu.Unlock()
			for _, h := range hs {
				if _, err := h.Write([]byte("for somebody else")); err == nil {
					strangers.Add(1)
				}
				h.Post(func(t couplet.Transport) { strangers.Add(1) })
			}
			runtime.Gosched()
		}
	})
	for i := range rounds {
		p := e.dialPeer(l.Addr(), 0)
		h := recv(e, handles, "connection")
		name := fmt.Sprintf("%06d", i)
		e.send(p, []byte(name))
		e.expect(p, name)
		e.check(h.Close(), "Handle.Close")
		e.expectEOF(p)
		p.Close()
		e.until("the Handle is stale", func() bool { return h.Post(func(couplet.Transport) {}) != nil })
		mu.Lock()
		stale = append(stale, h)
		mu.Unlock()
	}
	close(done)
	wg.Wait()
	if n := strangers.Load(); n > 0 {
		e.Errorf("%d calls of stale handles were taken", n)
	}
	l.Close()

	// What a Handle queued before the end stays with the connection, even where
	// a successor is at the door and gets its slot.
	for i := range scaled(40) {
		s, next := e.conn(fmt.Sprint("ending ", i)), e.conn(fmt.Sprint("successor ", i))
		l := e.serve([]*conn{s, next})
		e.dialPeer(l.Addr(), 0)
		s.waitMade()
		busy, waiting := make(chan struct{}), make(chan struct{})
		s.loop.Post(func() {
			close(busy)
			<-waiting
			h := s.t.Handle()
			s.t.Abort()
			h.Write([]byte("for somebody else"))
			h.Post(func(t couplet.Transport) {
				if t != s.t {
					e.Errorf("what was posted to an aborted connection ran with another")
				}
			})
		})
		recv(e, busy, "posted function")
		q := e.dialPeer(l.Addr(), 0)
		close(waiting)
		next.waitMade()
		next.do(func(t couplet.Transport) { t.Write([]byte("own words")); t.Close() })
		e.expect(q, "own words")
		e.expectEOF(q)
		l.Close()
	}
}

func closeEverywhere(e *Env) {
	for name, end := range map[string]func(t couplet.Transport){
		"close": func(t couplet.Transport) { t.Close() },
		"abort": func(t couplet.Transport) { t.Abort() },
	} {
		for _, place := range []string{"made", "data", "timer", "a timer of the loop", "post"} {
			s := e.conn(name + " in " + place)
			var ended bool
			finish := func(t couplet.Transport) { end(t); ended = true }
			s.onMade = func(t couplet.Transport) {
				switch place {
				case "made":
					finish(t)
				case "timer":
					t.AfterFunc(time.Millisecond, func() { finish(t) })
				case "a timer of the loop":
					t.Loop().AfterFunc(time.Millisecond, func() { finish(t) })
				case "post":
					t.Loop().Post(func() { finish(t) })
				}
			}
			s.onData = func(t couplet.Transport, _ []byte) {
				if ended {
					e.Errorf("%s: data afterwards", s.name)
				}
				if place == "data" {
					finish(t)
				}
			}
			p := e.peer(s, 0)
			for range 3 {
				p.Write([]byte("x"))
			}
			s.lostWith(map[string]string{"close": "closed", "abort": "aborted"}[name])
			p.Close()
		}
	}
}

func writeInLost(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	for _, x := range []*conn{s, c} {
		x.onLost = func(t couplet.Transport, _ error) { e.refused(x.name+" in lost", t) }
	}
	e.pair(s, c)
	c.do(func(t couplet.Transport) { t.Close() })
	s.lostWith("eof")
	c.lostWith("closed")
}

func panicEverywhere(e *Env) {
	bystander := e.conn("bystander")
	bystander.onData = echo
	q := e.peer(bystander, 0)
	broken := func(couplet.Transport) { panic(errPanic) }
	places := map[string]func(c *conn){
		"made":        func(c *conn) { c.onMade = broken },
		"data":        func(c *conn) { c.onData = func(couplet.Transport, []byte) { panic(errPanic) } },
		"buffer":      func(c *conn) { c.onBuffer = func(couplet.Transport, *couplet.Buffer) { panic(errPanic) } },
		"readClosed":  func(c *conn) { c.onReadClosed = broken },
		"writeClosed": func(c *conn) { c.onWriteClosed = broken; c.onMade = func(t couplet.Transport) { t.CloseWrite() } },
		"writePaused": func(c *conn) {
			c.onWritePaused = broken
			c.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
		},
		"writeResumed": func(c *conn) {
			c.onWriteResumed = broken
			c.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
		},
		"timer": func(c *conn) {
			c.onMade = func(t couplet.Transport) { t.AfterFunc(0, func() { panic(errPanic) }) }
		},
	}
	for name, setup := range places {
		s := e.conn("panic in " + name)
		setup(s)
		p := e.peer(s, 4<<10)
		p.Write([]byte("x"))
		if name == "readClosed" {
			p.CloseWrite()
		}
		if name == "writeResumed" {
			io.Copy(io.Discard, p)
		}
		e.wantPanic(s)
		p.Close()
		e.send(q, []byte("ping"))
		e.expect(q, "ping")
	}
	e.wantLogged(len(places))
	e.until("each panic is counted", func() bool { return e.Server.Stats().Panics == int64(len(places)) })

	// What a Buffer is released with is no callback of a connection: this one goes
	// on, and so does one that ends with it.
	broke := func() *couplet.Buffer { return couplet.NewBuffer([]byte("pong"), func() { panic(errPanic) }) }
	for _, cut := range []bool{false, true} {
		s := e.conn(fmt.Sprint("panic in onRelease, aborted ", cut))
		p := e.peer(s, 0)
		s.do(func(t couplet.Transport) {
			b := broke()
			t.WriteBuffer(b)
			b.Release()
			if cut {
				t.Abort()
			}
		})
		if cut {
			s.lostWith("aborted")
		} else {
			e.expect(p, "pong")
			s.do(func(t couplet.Transport) { t.Write([]byte("more")) })
			e.expect(p, "more")
		}
	}
	e.send(q, []byte("ping"))
	e.expect(q, "ping")
	e.wantLogged(len(places) + 2)
}

func storm(e *Env) {
	const goroutines, conns = 64, 8
	each := scaled(200)
	ss := e.connsOf(conns, "server", nil)
	l := e.serve(ss)
	var hs []couplet.Handle
	var ps []Peer
	for _, s := range ss {
		ps = append(ps, e.dialPeer(l.Addr(), 0))
		s.waitMade()
		s.do(func(t couplet.Transport) { hs = append(hs, t.Handle()) })
	}
	var readers, writers sync.WaitGroup
	for i, p := range ps {
		readers.Go(func() {
			// Each line is goroutine and number; a goroutine's come in order.
			data, err := io.ReadAll(p)
			if err != nil && i%2 == 0 {
				e.Errorf("peer %d: %v", i, err)
			}
			next := make(map[byte]int)
			for ; len(data) >= 3; data = data[3:] {
				if n := int(data[1])<<8 | int(data[2]); n != next[data[0]] {
					e.Errorf("peer %d: of goroutine %d number %d came where %d was due", i, data[0], n, next[data[0]])
					return
				}
				next[data[0]]++
			}
			if i%2 == 0 {
				for g, n := range next {
					if n != each {
						e.Errorf("peer %d: of goroutine %d %d of %d came", i, g, n, each)
					}
				}
			}
			p.Close()
		})
	}
	for g := range goroutines {
		writers.Go(func() {
			for n := range each {
				for i, h := range hs {
					_, err := h.Write([]byte{byte(g), byte(n >> 8), byte(n)})
					if err != nil && (i%2 == 0 || !errors.Is(err, net.ErrClosed)) {
						e.Errorf("Handle.Write: %v", err)
						return
					}
					// Every other connection ends in the middle of it.
					if i%2 == 1 && g == i && n == each/2 {
						h.Close()
						h.Abort()
					}
				}
			}
		})
	}
	writers.Wait()
	for _, h := range hs {
		h.Close()
	}
	readers.Wait()
	for i, s := range ss {
		if i%2 == 0 {
			s.lostWith("closed")
		} else {
			s.lostWith("aborted", "closed")
		}
	}
}

func postStorm(e *Env) {
	const goroutines = 4
	each := scaled(100_000)
	l := e.Server.Loops()[0]
	e.pass(l, 10*time.Millisecond)
	before := e.Server.Stats()
	ran := 0
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				if !l.Post(func() { ran++ }) {
					e.Errorf("Post refused a function while the engine runs")
					return
				}
			}
		})
	}
	wg.Wait()
	e.on(l, func() {
		if ran != goroutines*each {
			e.Errorf("%d of %d functions ran", ran, goroutines*each)
		}
	})
	e.turns(l, 2)
	s := e.Server.Stats()
	posted, wakes := s.Posted-before.Posted, s.Wakes-before.Wakes
	if posted < goroutines*int64(each) {
		e.Errorf("Stats counts %d of %d posts", posted, goroutines*each)
	}
	if wakes > posted/2 {
		e.Errorf("%d posts in a storm took %d wake-ups", posted, wakes)
	}
	// No wake is lost: one at a time, each finds the loop asleep or about to.
	for range scaled(2000) {
		e.on(l, func() {})
	}
}

func everyTier(e *Env) {
	for _, f := range []couplet.Features{couplet.TierU2, couplet.TierU3, couplet.TierU5} {
		eng := e.newEngine(couplet.Config{Features: f})
		ss := e.connsOf(3, "server "+f.Tier(), func(_ int, c *conn) { c.onData = echo })
		for i, p := range e.attach(eng, ss...) {
			e.send(p, pattern(0, 1000))
			e.expect(p, string(pattern(0, 1000)))
			p.Close()
			ss[i].lostWith("eof")
		}
		_, err := eng.Shutdown(e.ctx)
		e.check(err, "Shutdown")
	}
}

func signalStorm(e *Env) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				signalSelf()
				time.Sleep(20 * time.Microsecond) // a pace, not a wait
			}
		}
	})
	l := e.Server.Loops()[0]
	ticks := make(chan struct{}, 64)
	e.on(l, func() {
		start, n := l.Now(), 0
		var t couplet.Timer
		t = l.Every(2*time.Millisecond, func() {
			n++
			if l.Now().Sub(start) < time.Duration(n)*2*time.Millisecond {
				e.Errorf("a timer is early among signals")
			}
			if ticks <- struct{}{}; n == 30 {
				t.Stop()
			}
		})
	})
	e.exchange(8, scaled(1<<20), 64<<10)
	for range 30 {
		recv(e, ticks, "timer")
	}
	close(done)
	wg.Wait()
}

func nothingInherited(e *Env) {
	before := strings.Join(inherited(), "\n")
	eng := e.newEngine(couplet.Config{Loops: 2})
	s, c := e.conn("server"), e.conn("client")
	e.attach(eng, s)
	l := e.serve([]*conn{e.conn("accepted")})
	e.dial(l.Addr().String(), c)
	c.waitMade()
	f, err := l.File()
	e.check(err, "File")
	defer f.Close()
	if now := strings.Join(inherited(), "\n"); now != before {
		e.Errorf("a child process would inherit\n%s\nand, before the engine, only\n%s", now, before)
	}
}

func engineCycles(e *Env) {
	before := takeSnapshot()
	for i := range scaled(16) {
		eng := e.newEngine(couplet.Config{Loops: 1 + i%2})
		s := e.conn(fmt.Sprint("server ", i))
		s.onMade = func(t couplet.Transport) { t.Write(make([]byte, 100_000)) }
		ps := e.attach(eng, s)
		if i%2 == 0 {
			ps[0].Close()
		}
		ctx, cancel := context.WithTimeout(e.ctx, 20*time.Millisecond)
		eng.Shutdown(ctx)
		cancel()
		ps[0].Close()
		recv(e, eng.Done(), "end of the engine")
	}
	before.check(e.t)
	if _, err := os.Stat(e.dir); e.unix() && err != nil {
		e.Errorf("the folder of sockets is gone: %v", err)
	}
}
