package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// ownCases: what the contract has beyond the list of cases.
var ownCases = []Case{
	{ID: 101, Name: "a Handle speaks from any goroutine", Run: handles},
	{ID: 102, Name: "BufferReceived may keep and forward", Run: buffers},
	{ID: 103, Name: "IdleTimeout ends what is idle", Run: idleTimeout},
	{ID: 104, Name: "FlushTimeout ends what makes no progress", Run: flushTimeout},
	{ID: 105, Name: "MaxConns leaves the rest in the backlog", Run: maxConns},
	{ID: 106, Name: "a listener is handed over by File", Needs: NeedsSockets, Run: handOver},
	{ID: 107, Name: "Go comes back to the loop", Needs: NeedsOne, Run: goWork},
	{ID: 108, Name: "several loops share the connections", Needs: NeedsSockets, Run: severalLoops},
	{ID: 109, Name: "arguments that cannot be right are refused", Needs: NeedsOne, Run: badArguments},
	{ID: 110, Name: "a wrapper forwards with the defaults", Run: wrapper},
	{ID: 111, Name: "Goexit in a callback fails the engine", Needs: NeedsOne, Run: goexit},
	{ID: 112, Name: "a panic may end the process", Needs: NeedsSockets | NeedsLinux | NeedsOne, Run: panicCrashes},
	{ID: 113, Name: "Stats add up", Run: statsAddUp},
	{ID: 114, Name: "no connection gets more than its share of a turn",
		Config: couplet.Config{BytesPerTurn: 16 << 10, RingBuffers: 64, RingBufferSize: 4 << 10}, Run: fairShare},
	{ID: 115, Name: "once sending has failed nothing is taken, and a pause ends it", Needs: NeedsTCP, Run: sendingFailed},
	{ID: 118, Name: "Shutdown gives up on a callback that does not return", Needs: NeedsSockets | NeedsTCP | NeedsOne | NeedsTime, Run: shutdownGivesUp},
	{ID: 120, Name: "who waits for a place is reset when the listener closes", Needs: NeedsTCP, Run: waitersAreReset},
	{ID: 121, Name: "a listener that is handed over at its limit keeps nobody back", Needs: NeedsSockets, Run: handOverAtLimit},
	{ID: 122, Name: "a listener that is handed over under load loses nobody", Needs: NeedsSockets, Run: handOverUnderLoad},
	{ID: 123, Name: "CloseWrite after a reset is no end in order", Needs: NeedsSockets | NeedsTCP, Run: closeWriteAfterReset},
	{ID: 124, Name: "an heir that waits already serves who comes as the other one closes", Needs: NeedsSockets, Run: heirIsWoken},
	{ID: 125, Name: "a listening socket that is shut down ends its listener", Needs: NeedsSockets | NeedsLinux | NeedsTCP, Run: listenerShutDown},
	{ID: 126, Name: "what is adopted must listen, and keeps its backlog", Needs: NeedsSockets | NeedsLinux | NeedsTCP, Run: adoptedAsItIs},
	{ID: 127, Name: "a dial is told what ended it", Needs: NeedsSockets, Run: timedOutDials},
	{ID: 128, Name: "urgent bytes are bytes like any others, in their place", Needs: NeedsSockets | NeedsLinux | NeedsTCP, Run: urgentBytes},
	{ID: 129, Name: "an adopted socket that another holder makes block does not hold the loop up", Needs: NeedsSockets | NeedsLinux | NeedsTCP, Run: adoptedMadeToBlock},
	{ID: 130, Name: "small Buffers that are queued in one turn leave together", Needs: NeedsLinux, Run: smallBuffersTogether},
	{ID: 131, Name: "CloseWrite loses nothing that came before a reset", Needs: NeedsSockets | NeedsTCP,
		Config: couplet.Config{BytesPerTurn: 64 << 10}, Run: closeWriteLosesNothing},
	{ID: 132, Name: "the memory of a released Buffer is let go", Needs: NeedsOne, Run: bufferMemory},
	{ID: 133, Name: "who has spoken is not idle, though the loop has not heard of it", Needs: NeedsSockets | NeedsTime, Run: spokenIsNotIdle},
	{ID: 134, Name: "a dial that was answered has not timed out, though the loop has not heard of it",
		Needs: NeedsSockets | NeedsTCP | NeedsTime, Run: answeredIsNotLate},
	{ID: 135, Name: "who is resumed is not idle, though what was sent is not delivered yet", Needs: NeedsSockets | NeedsTime, Run: resumedIsNotIdle},
	{ID: 136, Name: "a connection keeps nothing of its dial", Needs: NeedsOne, Run: dialsAreForgotten},
	{ID: 137, Name: "a FlushTimeout without end ends nothing", Needs: NeedsTime, Run: flushNever},
	{ID: 138, Name: "what a callback writes to another does not wait for its own peer", Run: writesToAnother},
	{ID: 139, Name: "a reset that a busy loop hears of late is no end in order", Needs: NeedsSockets | NeedsTCP | NeedsOne, Run: lateResets},
	{ID: 140, Name: "Goexit in Control fails the engine, and the dial", Needs: NeedsSockets | NeedsOne, Run: goexitInControl},
	{ID: 141, Name: "an engine that has ended keeps none of its timers", Needs: NeedsOne, Run: timersEndWithTheEngine},
	{ID: 142, Name: "LocalAddr is what the client dialled, of a listener for all addresses, too", Needs: NeedsSockets | NeedsTCP, Run: localAddresses},
	{ID: 143, Name: "a peer's stream is not read on while its reader is paused", Config: couplet.Config{BytesPerTurn: 128 << 10, RingBuffers: 16, RingBufferSize: 16 << 10}, Run: pausedTakesLittle},
	{ID: 144, Name: "a socket of which somebody has a duplicate keeps no loop awake after its end", Needs: NeedsSockets | NeedsLinux, Run: duplicates},
	{ID: 145, Name: "who is paused from the start keeps no loop awake", Run: sleepsPaused},
	{ID: 146, Name: "Goexit in an engine that stops ends its other loops", Needs: NeedsOne, Run: goexitWhileStopping},
}

func handles(e *Env) {
	var zero couplet.Handle
	if _, err := zero.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		e.Errorf("the zero Handle answers %v", err)
	}
	const goroutines, each = 8, 200
	s := e.conn("server")
	p := e.peer(s, 0)
	var h, again couplet.Handle
	s.do(func(t couplet.Transport) { h, again = t.Handle(), t.Handle() })
	if h != again {
		e.Errorf("two Handles of one connection differ")
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			buf := make([]byte, 2)
			for i := range each {
				buf[0], buf[1] = byte(g), byte(i)
				if n, err := h.Write(buf); n != 2 || err != nil {
					e.Errorf("Handle.Write: %d, %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	posted := make(chan bool, 1)
	e.check(h.Post(func(t couplet.Transport) { posted <- t == s.t }), "Handle.Post")
	if !recv(e, posted, "posted function") {
		e.Errorf("Handle.Post gave another Transport")
	}
	b := couplet.NewBuffer([]byte("shared"), nil)
	e.check(h.WriteBuffer(b), "Handle.WriteBuffer")
	b.Release()
	e.check(h.Close(), "Handle.Close")
	var next [goroutines]int
	got := make([]byte, 2)
	for range goroutines * each {
		if n, err := io.ReadFull(p, got); err != nil {
			e.Fatalf("the peer read %d bytes: %v", n, err)
		}
		if g := got[0]; int(got[1]) != next[g] {
			e.Fatalf("of goroutine %d write %d came where %d was due", g, got[1], next[g])
		}
		next[got[0]]++
	}
	e.expect(p, "shared")
	e.expectEOF(p)
	s.lostWith("closed")
	if err := h.Abort(); !errors.Is(err, net.ErrClosed) {
		e.Errorf("Abort by the Handle of a lost connection: %v", err)
	}

	// What a Handle hands over counts against MaxOutbound at once.
	s = e.conn("limited")
	e.peer(s, 0, couplet.MaxOutbound(1000))
	s.do(func(t couplet.Transport) {
		h := t.Handle()
		if _, err := h.Write(make([]byte, 900)); err != nil {
			e.Errorf("Handle.Write within MaxOutbound: %v", err)
		}
		if n, err := h.Write(make([]byte, 200)); n != 0 || err != couplet.ErrOutboundFull {
			e.Errorf("Handle.Write beyond MaxOutbound: %d, %v", n, err)
		}
	})

	// So does what is queued, whoever wrote it, and though a send under way does not
	// get on.
	const much = 4 << 20
	for name, write := range map[string]func(t couplet.Transport){
		"Write":        func(t couplet.Transport) { t.Write(make([]byte, much)) },
		"Handle.Write": func(t couplet.Transport) { t.Handle().Write(make([]byte, much)) },
	} {
		s := e.conn("limited, by " + name)
		s.flow = true
		e.peer(s, 4<<10, couplet.MaxOutbound(2*much), couplet.SendBuffer(16<<10))
		s.do(func(t couplet.Transport) { t.Write(make([]byte, much/2)) })
		s.waitFor("writePaused", 1)
		s.do(write)
		e.turns(s.loop, 2)
		s.do(func(t couplet.Transport) {
			queued := t.Buffered()
			if _, err := t.Handle().Write(make([]byte, 2*much-queued+1)); err != couplet.ErrOutboundFull {
				e.Errorf("%s: Handle.Write beyond MaxOutbound, with %d bytes queued: %v", s.name, queued, err)
			}
			if _, err := t.Handle().Write(make([]byte, 2*much-queued)); err != nil {
				e.Errorf("%s: Handle.Write up to MaxOutbound, with %d bytes queued: %v", s.name, queued, err)
			}
			t.Handle().Abort()
		})
		s.lostWith("aborted")
	}
}

func buffers(e *Env) {
	const n = 2 << 20
	// What is received is kept for a while and then sent back without a copy.
	s := e.conn("server")
	var kept []*couplet.Buffer
	s.onBuffer = func(t couplet.Transport, b *couplet.Buffer) {
		kept = append(kept, b.Retain())
		if len(kept) < 4 {
			return
		}
		for _, b := range kept {
			t.WriteBuffer(b)
			b.Release()
		}
		kept = kept[:0]
	}
	p := e.peer(s, 0)
	go p.Write(pattern(0, n))
	if got, err := readPattern(p, 0, n-1<<20); err != nil {
		e.Fatalf("the peer read back %d bytes: %v", got, err)
	}
	p.Close()
	s.waitLost()
	s.do(func(couplet.Transport) {
		for _, b := range kept {
			b.Release() // on the loop here, from any goroutine elsewhere
		}
	})

	// Retained longer than the connection lives, and released elsewhere.
	s = e.conn("keeper")
	var all []*couplet.Buffer
	s.onBuffer = func(_ couplet.Transport, b *couplet.Buffer) { all = append(all, b.Retain()) }
	p = e.peer(s, 0)
	e.send(p, pattern(0, n))
	p.Close()
	s.lostWith("eof")
	var got bytes.Buffer
	for _, b := range all {
		got.Write(b.Bytes())
		b.Release()
	}
	if !bytes.Equal(got.Bytes(), pattern(0, n)) {
		e.Errorf("buffers that were kept changed: %d bytes of %d, first wrong %d", got.Len(), n, checkPattern(0, got.Bytes()))
	}

	// Broadcast is one Buffer and many writes.
	released := make(chan struct{})
	b := couplet.NewBuffer(pattern(0, 100_000), func() { close(released) })
	ss := e.connsOf(8, "listener", nil)
	l := e.serve(ss)
	var peers []Peer
	for _, s := range ss {
		peers = append(peers, e.dialPeer(l.Addr(), 0))
		s.waitMade()
	}
	for _, s := range ss {
		s.do(func(t couplet.Transport) { t.WriteBuffer(b); t.Close() })
	}
	b.Release()
	for _, p := range peers {
		e.expectStream(p, 100_000)
	}
	recv(e, released, "release of the Buffer")
}

func idleTimeout(e *Env) {
	const limit = 120 * time.Millisecond
	s := e.conn("idle")
	var began time.Time
	s.onMade = func(t couplet.Transport) { began = t.Loop().Now() }
	s.onLost = func(t couplet.Transport, _ error) {
		if took := t.Loop().Now().Sub(began); took < limit {
			e.Errorf("an idle connection ended after %v", took)
		}
	}
	e.peer(s, 0, couplet.IdleTimeout(limit))
	s.lostWith("timeout")

	// One on which something moves stays, until nothing moved for so long.
	s = e.conn("busy")
	s.onMade = func(t couplet.Transport) {
		began = t.Loop().Now()
		n := 0
		var again func()
		again = func() {
			if n++; n < 12 {
				t.Write([]byte("."))
				began = t.Loop().Now()
				t.AfterFunc(limit/4, again)
			}
		}
		again()
	}
	s.onLost = func(t couplet.Transport, _ error) {
		if idle := t.Loop().Now().Sub(began); idle < limit {
			e.Errorf("a connection ended %v after something was sent", idle)
		}
	}
	e.peer(s, 0, couplet.IdleTimeout(limit))
	s.lostWith("timeout")

	s = e.conn("hearing")
	s.onMade = func(t couplet.Transport) { began = t.Loop().Now() }
	s.onData = func(t couplet.Transport, _ []byte) { began = t.Loop().Now() }
	s.onLost = func(t couplet.Transport, _ error) {
		if idle := t.Loop().Now().Sub(began); idle < limit {
			e.Errorf("a connection ended %v after something was received", idle)
		}
	}
	p := e.peer(s, 0, couplet.IdleTimeout(limit))
	for range 8 {
		p.Write([]byte("."))
		e.pass(s.loop, limit/4)
	}
	s.lostWith("timeout")

	// What a slow peer takes of a large send moves, long before the send is done. A
	// unix socket's buffer holds two of these pieces, and looks full every time.
	// An engine's peer takes more at once than it is read.
	if e.suite.Client == nil {
		const n, piece = 1 << 20, 2 * (16<<10 - 64)
		l := e.peerListener()
		slow, p := e.trickle(n, piece, 4*limit, func() (*conn, Peer) {
			c := e.conn("slow")
			c.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)) }
			e.dial(l.Addr().String(), c, couplet.SendBuffer(16<<10), couplet.IdleTimeout(4*limit))
			p, err := l.Accept()
			e.check(err, "a peer's accept")
			c.waitMade()
			return c, e.adopt(p)
		})
		p.Close()
		slow.lostWith("eof", "timeout") // the end may be long behind the last piece
	}

	// A dial takes the option too.
	s, c := e.conn("server"), e.conn("idle client")
	e.dial(e.serve([]*conn{s}).Addr().String(), c, couplet.IdleTimeout(limit))
	c.lostWith("timeout")
}

// trickle has a peer of what start makes read n bytes, little by little for a few
// times the limit, within which it takes something again and again.
func (e *Env) trickle(n, piece int64, limit time.Duration, start func() (*conn, Peer)) (*conn, Peer) {
	for {
		s, p := start()
		began, last, longest := time.Now(), time.Now(), time.Duration(0)
		for got := int64(0); ; {
			k, err := readPattern(p, got, min(piece, n-got))
			got += k
			longest = max(longest, time.Since(last))
			last = time.Now()
			if got == n {
				return s, p
			}
			if err != nil && longest < limit/2 {
				e.Fatalf("%s: the peer took something every %v, and after %d bytes it read %v", s.name, longest, got, err)
			}
			if err != nil {
				break // it was held up, and took nothing for too long: once more
			}
			if time.Since(began) < 4*limit {
				e.pass(s.loop, limit/8)
			}
		}
	}
}

func flushTimeout(e *Env) {
	const limit = 120 * time.Millisecond
	s := e.conn("stuck")
	s.onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)); t.Close() }
	p := e.peer(s, 4<<10, couplet.FlushTimeout(limit))
	s.lostWith("timeout")
	if !e.unix() {
		e.expectReset(p)
	}
	// Progress, however slow, is no reason to end.
	const n = 2 << 20
	s = e.conn("slow")
	s.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)); t.Close() }
	p = e.peer(s, 128<<10, couplet.FlushTimeout(limit), couplet.SendBuffer(16<<10))
	for got := int64(0); got < n; {
		k, err := readPattern(p, got, min(n/8, n-got))
		if err != nil {
			e.Fatalf("the peer read %d bytes: %v", got+k, err)
		}
		got += k
		if got < n/2 {
			e.pass(s.loop, limit/3)
		}
	}
	e.expectEOF(p)
	s.lostWith("closed")

	// So it is where the kernel has much of it, and long wants no more. A unix
	// socket tells of what was read only in pieces of what was written.
	if e.unix() || e.suite.Client != nil {
		return
	}
	const much = 3 << 20
	s, p = e.trickle(much, 2<<10, 4*limit, func() (*conn, Peer) {
		s := e.conn("slow, with a large buffer")
		s.onMade = func(t couplet.Transport) { t.Write(pattern(0, much)); t.Close() }
		return s, e.peer(s, 4<<10, couplet.FlushTimeout(4*limit), couplet.SendBuffer(1<<20))
	})
	e.expectEOF(p)
	s.lostWith("closed")
}

func maxConns(e *Env) {
	const limit, n = 2, 6
	var open, peak, built atomic.Int32
	l := e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		built.Add(1)
		peak.Store(max(peak.Load(), open.Add(1)))
		c := e.conn("limited")
		c.onData = echo
		c.onLost = func(couplet.Transport, error) { open.Add(-1) }
		return c.build(remote)
	}), couplet.MaxConns(limit))
	var peers []Peer
	for range n {
		peers = append(peers, e.dialPeer(l.Addr(), 0))
	}
	e.until("the limit is reached", func() bool { return built.Load() == limit })
	e.settle(e.Server.Loops()[0])
	if k := built.Load(); k != limit {
		e.Errorf("%d connections were built where %d are allowed", k, limit)
	}
	for _, p := range peers {
		e.send(p, []byte("my turn"))
		e.expect(p, "my turn")
		p.Close()
	}
	if k := peak.Load(); k > limit {
		e.Errorf("%d connections were open at once where %d are allowed", k, limit)
	}
}

// waitersAreReset: an end of the stream would be a complete answer of no bytes.
func waitersAreReset(e *Env) {
	l, p := e.atLimit()
	waiter := e.dialPeer(l.Addr(), 0)
	e.settle(e.Server.Loops()[0])
	e.check(l.Close(), "Close")
	recv(e, l.Closed(), "end of the listener")
	e.expectReset(waiter)
	e.send(p, []byte("goes on"))
	e.expect(p, "goes on")
}

func handOver(e *Env) {
	l := e.listen(e.echoes())
	f, err := l.File()
	e.check(err, "File")
	f.Fd() // as os/exec does for a child; the listener must not begin to block
	e.talk(l.Addr())
	l.Close()
	if _, err := l.File(); !errors.Is(err, net.ErrClosed) {
		e.Errorf("File after Close: %v", err)
	}
	recv(e, l.Closed(), "end of the listener")
	// The file keeps the socket listening: who comes now waits for the heir.
	p := e.dialPeer(l.Addr(), 0)
	e.send(p, []byte("patience"))
	before := e.Server.Stats().Turns
	e.settle(e.Server.Loops()[0])
	if turns := e.Server.Stats().Turns - before; turns > 100 {
		e.Errorf("with a connection that waits for the heir the loop made %d turns", turns)
	}
	heir := e.newEngine(couplet.Config{})
	l2, err := heir.Listen(e.network, "not used", e.echoes(), couplet.FromFile(f))
	e.check(err, "Listen with FromFile")
	e.check(f.Close(), "Close of the file, which was duplicated")
	if l2.Addr().String() != l.Addr().String() {
		e.Errorf("the heir of %v listens on %v", l.Addr(), l2.Addr())
	}
	e.expect(p, "patience")
	e.talk(l2.Addr())
	l2.Close()
	recv(e, l2.Closed(), "end of the heir")
	if e.unix() {
		e.check(os.Remove(l.Addr().String()), "a path that no listener bound is not a listener's to remove; it")
	}
}

// succeed closes l, and has an heir of an engine of its own listen on its socket for f.
func (e *Env) succeed(l couplet.Listener, f couplet.Factory) couplet.Listener {
	file, err := l.File()
	e.check(err, "File")
	l.Close()
	recv(e, l.Closed(), "end of the listener")
	heir, err := e.newEngine(couplet.Config{}).Listen(e.network, "not used", f, couplet.FromFile(file))
	e.check(err, "Listen with FromFile")
	e.check(file.Close(), "Close of the file")
	return heir
}

// atLimit is a listener with one place, which is taken by an echo to p.
func (e *Env) atLimit() (l couplet.Listener, p Peer) {
	s := e.conn("served")
	s.onData = echo
	l = e.listen(couplet.FactoryFunc(s.build), couplet.MaxConns(1))
	p = e.dialPeer(l.Addr(), 0)
	s.waitMade()
	return l, p
}

// handOverAtLimit: those for whom there was no place were accepted all the same, and
// reset when the listener closed, though an heir would have served them.
func handOverAtLimit(e *Env) {
	l, p := e.atLimit()
	var waiters []Peer
	for range 5 {
		w := e.dialPeer(l.Addr(), 0)
		e.send(w, []byte("patience"))
		waiters = append(waiters, w)
	}
	e.settle(e.Server.Loops()[0])
	e.succeed(l, e.echoes())
	for _, w := range waiters {
		e.expect(w, "patience")
	}
	e.send(p, []byte("goes on"))
	e.expect(p, "goes on")
}

// handOverUnderLoad: who was accepted while the listener was closing was reset.
func handOverUnderLoad(e *Env) {
	const heirs, each = 8, 8
	f := couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return echoProtocol{} })
	l := e.listen(f)
	addr := l.Addr()
	stop := make(chan struct{})
	var talks atomic.Int32
	var wg sync.WaitGroup
	for range each {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := e.Network.Dial(e.network, addr.String(), 0)
				if err != nil {
					e.Errorf("Dial: %v", err)
					return
				}
				deadline, _ := e.ctx.Deadline()
				p.SetDeadline(deadline)
				got := make([]byte, 4)
				if _, err = p.Write([]byte("ping")); err == nil {
					_, err = io.ReadFull(p, got)
				}
				p.Close()
				if err != nil || string(got) != "ping" {
					e.Errorf("%q came back, %v", got, err)
					return
				}
				talks.Add(1)
			}
		})
	}
	stopped := sync.OnceFunc(func() { close(stop); wg.Wait() })
	e.cleanup(stopped)
	for range heirs {
		began := talks.Load()
		e.until("they talk", func() bool { return talks.Load() >= began+3*each })
		l = e.succeed(l, f)
	}
	stopped()
}

// closeWriteAfterReset: WriteClosed was called where no FIN could be sent, and who was
// paused was not told of the reset at all.
func closeWriteAfterReset(e *Env) {
	for _, paused := range []bool{false, true} {
		s := e.conn(fmt.Sprintf("paused %t", paused))
		s.onMade = func(t couplet.Transport) {
			if paused {
				t.PauseReading()
			}
		}
		p := e.peer(s, 0)
		reset := make(chan struct{})
		s.loop.Post(func() {
			<-reset
			s.t.CloseWrite()
		})
		e.check(p.Reset(), "Reset")
		close(reset)
		s.lostWith("reset")
		if n := s.count("writeClosed"); n != 0 {
			e.Errorf("%s: WriteClosed was called, and there was no FIN", s.name)
		}
	}
}

// heirIsWoken: on io_uring a connection wakes only the accept that waits longest, and that
// one was being cancelled. Nobody served the connection until another one came.
func heirIsWoken(e *Env) {
	l := e.listen(e.echoes())
	f, err := l.File()
	e.check(err, "File")
	heir := e.newEngine(couplet.Config{})
	_, err = heir.Listen(e.network, "not used", e.echoes(), couplet.FromFile(f))
	e.check(err, "Listen with FromFile")
	e.check(f.Close(), "Close of the file")
	old := e.Server.Loops()[0]
	e.settle(old)
	e.settle(heir.Loops()[0]) // both wait for connections
	held, on := make(chan struct{}), make(chan struct{})
	hold := func() { held <- struct{}{}; <-on }
	old.Post(hold)
	<-held
	l.Close()
	old.Post(hold)
	on <- struct{}{}
	<-held // the close is under way, and the kernel does not know yet
	p := e.dialPeer(l.Addr(), 0)
	on <- struct{}{}
	recv(e, l.Closed(), "end of the listener")
	e.send(p, []byte("hello"))
	e.expect(p, "hello")
}

// listenerShutDown: an accept that can never succeed was tried for ever. That of a unix
// socket does not tell.
func listenerShutDown(e *Env) {
	l := e.listen(e.echoes())
	e.talk(l.Addr())
	f, err := l.File()
	e.check(err, "File")
	defer f.Close()
	rc, err := f.SyscallConn()
	e.check(err, "SyscallConn")
	rc.Control(func(fd uintptr) { err = rawShutdown(fd) })
	e.check(err, "shutdown")
	recv(e, l.Closed(), "end of the listener")
	if n := e.logs.count("listener failed and is closed"); n != 1 {
		e.Errorf("that the listener failed was logged %d times", n)
	}
}

func adoptedAsItIs(e *Env) {
	f, err := boundFile(e.network)
	e.check(err, "a bound socket")
	defer f.Close()
	if l, err := e.Server.Listen(e.network, "not used", e.echoes(), couplet.FromFile(f)); err == nil {
		l.Close()
		e.Errorf("a socket that does not listen is adopted")
	}

	const backlog = 33
	own, err := e.listen(e.echoes(), couplet.Backlog(backlog)).File()
	e.check(err, "File")
	defer own.Close()
	l, err := e.Server.Listen(e.network, "not used", e.echoes(), couplet.FromFile(own), couplet.Backlog(2*backlog))
	e.check(err, "Listen with FromFile")
	e.talk(l.Addr())
	rc, err := own.SyscallConn()
	e.check(err, "SyscallConn")
	var n int
	rc.Control(func(fd uintptr) { n, err = socketBacklog(fd) })
	e.check(err, "TCP_INFO")
	if n != backlog {
		e.Errorf("the backlog of an adopted socket was %d and is %d", backlog, n)
	}
}

// timedOutDials: where the socket had the deadline too, and was first, its error was
// told.
func timedOutDials(e *Env) {
	const n = 40
	address := e.stall()
	var timedOut, ended [n]<-chan outcome
	for i := range n {
		limit := 20*time.Millisecond + time.Duration(i)*100*time.Microsecond
		f, failed := e.failing()
		timedOut[i] = failed
		e.check(e.Client.Dial(e.ctx, e.network, address, f, couplet.ConnectTimeout(limit)), "Dial")
		ctx, cancel := context.WithTimeoutCause(e.ctx, limit, errPanic)
		e.cleanup(cancel)
		f, failed = e.failing()
		ended[i] = failed
		e.check(e.Client.Dial(ctx, e.network, address, f), "Dial")
	}
	for i := range n {
		err := recv(e, timedOut[i], "ConnectFailed").err
		if _, ok := errors.AsType[*couplet.TimeoutError](err); !ok {
			e.Errorf("ConnectTimeout is told as %T: %v", err, err)
		}
		if err := recv(e, ended[i], "ConnectFailed").err; err != errPanic {
			e.Errorf("a context's deadline is told as %T: %v", err, err)
		}
	}
}

func goWork(e *Env) {
	l := e.Server.Loops()[0]
	type result struct {
		err    error
		onLoop bool
	}
	results := make(chan result, 3)
	inside := false
	work := func(f func() error) {
		done := func(err error) {
			e.guarded(l, "done of Go", func() { results <- result{err, !inside} })
		}
		if !l.Go(func(context.Context) error { return f() }, done) {
			e.Errorf("Go refused while the engine runs")
		}
	}
	for _, try := range []struct {
		name string
		f    func() error
		ok   func(err error) bool
	}{
		{"nothing", func() error { return nil }, func(err error) bool { return err == nil }},
		{"an error", func() error { return errPanic }, func(err error) bool { return err == errPanic }},
		{"a panic", func() error { panic(errPanic) }, func(err error) bool {
			_, ok := errors.AsType[*couplet.PanicError](err)
			return ok && errors.Is(err, errPanic)
		}},
	} {
		e.on(l, func() {
			inside = true
			work(try.f)
			inside = false
		})
		r := recv(e, results, "end of work")
		if !try.ok(r.err) || !r.onLoop {
			e.Errorf("work that gives %s ended with %v, after Go returned: %v", try.name, r.err, r.onLoop)
		}
	}
	// From elsewhere, and while the loop does other things.
	for range 20 {
		go l.Go(func(context.Context) error { return nil }, func(err error) { results <- result{err, true} })
	}
	for range 20 {
		recv(e, results, "end of work")
	}
	// A panic in work is no panic in a callback.
	crashing := e.newEngine(couplet.Config{OnPanic: couplet.PanicCrashes})
	crashing.Loops()[0].Go(func(context.Context) error { panic(errPanic) }, func(err error) { results <- result{err, true} })
	if r := recv(e, results, "end of work that panics"); !errors.Is(r.err, errPanic) {
		e.Errorf("where panics crash, work that panics ended with %v", r.err)
	}
	e.turns(crashing.Loops()[0], 2)
	if n := crashing.Stats().Panics; n != 0 {
		e.Errorf("%d panics in callbacks", n)
	}
	// The engine's end cancels the context and waits for the work.
	eng := e.newEngine(couplet.Config{})
	started := make(chan struct{})
	var ended, told atomic.Bool
	eng.Loops()[0].Go(func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		if why := context.Cause(ctx); why != couplet.ErrShutdown {
			e.Errorf("the work's context ended with %v", why)
		}
		ended.Store(true)
		return nil
	}, func(error) { told.Store(true) })
	recv(e, started, "start of work")
	_, err := eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	if !ended.Load() || !told.Load() {
		e.Errorf("after Shutdown the work ended: %v, done was called: %v", ended.Load(), told.Load())
	}
	// However long that takes, up to the deadline of Shutdown.
	eng = e.newEngine(couplet.Config{})
	started, told = make(chan struct{}), atomic.Bool{}
	eng.Loops()[0].Go(func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		e.turns(eng.Loops()[0], 3)
		return nil
	}, func(error) { told.Store(true) })
	recv(e, started, "start of work")
	_, err = eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	if !told.Load() {
		e.Errorf("Shutdown did not wait for the work")
	}
	// Also for what the last callback of all begins.
	eng = e.newEngine(couplet.Config{})
	last, saved, answer := e.conn("last"), false, errPanic
	last.onLost = func(t couplet.Transport, _ error) {
		t.Loop().Go(func(context.Context) error { saved = true; return nil }, func(err error) { answer = err })
	}
	e.attach(eng, last)
	_, err = eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	if !saved || answer != nil {
		e.Errorf("work begun in the last ConnectionLost of a Shutdown was done: %v, and its done was told %v", saved, answer)
	}
	eng = e.newEngine(couplet.Config{})
	started, release := make(chan struct{}), make(chan struct{})
	eng.Loops()[0].Go(func(context.Context) error {
		close(started)
		<-release
		return nil
	}, func(error) { e.Errorf("done was called after the deadline of Shutdown") })
	recv(e, started, "start of work")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if _, err := eng.Shutdown(ctx); err != nil {
		e.Errorf("Shutdown, with work that takes longer, answers %v", err)
	}
	select {
	case <-eng.Done():
	default:
		e.Errorf("Shutdown has left an engine whose work takes longer")
	}
	close(release)
}

func severalLoops(e *Env) {
	const loops, n = 3, 12
	for name, spread := range map[string]couplet.Spread{
		"ReusePort": couplet.ReusePort, "RoundRobin": couplet.RoundRobin, "LeastConnections": couplet.LeastConnections,
	} {
		eng := e.newEngine(couplet.Config{Loops: loops, Spread: spread})
		if len(eng.Loops()) != loops {
			e.Fatalf("an engine of %d loops has %d", loops, len(eng.Loops()))
		}
		for i, l := range eng.Loops() {
			if l.Index() != i {
				e.Errorf("loop %d says it is %d", i, l.Index())
			}
		}
		ss := e.connsOf(n, "server "+name, func(_ int, c *conn) { c.onData = echo })
		ps := e.attach(eng, ss...)
		var on [loops]int
		for i, s := range ss {
			if !slices.Contains(eng.Loops(), s.loop) {
				e.Fatalf("%s lives on a loop that is none of the engine's", s.name)
			}
			on[s.loop.Index()]++
			e.send(ps[i], []byte("ping"))
			e.expect(ps[i], "ping")
		}
		if spread != couplet.ReusePort && on != [loops]int{n / loops, n / loops, n / loops} {
			e.Errorf("%s dealt %d connections out as %v", name, n, on)
		}
		// A dial goes where it is told.
		for _, l := range eng.Loops() {
			s, c := e.conn("server"), e.conn("client")
			s.onMade = func(t couplet.Transport) { t.Write([]byte("hello")) }
			ln := e.serve([]*conn{s})
			e.check(eng.Dial(e.ctx, e.network, ln.Addr().String(), couplet.FactoryFunc(c.build), couplet.OnLoop(l)), "Dial")
			c.waitBytes(5)
			if c.loop != l {
				e.Errorf("dialled on loop %d, the connection lives on %d", l.Index(), c.loop.Index())
			}
		}
		for _, p := range ps {
			p.Close()
		}
		_, err := eng.Shutdown(e.ctx)
		e.check(err, "Shutdown")
	}
}

func badArguments(e *Env) {
	if e.Server.Name() == "" || e.Server.Describe() == "" || strings.Contains(e.Server.Describe(), "\n") {
		e.Errorf("the engine is named %q and described %q", e.Server.Name(), e.Server.Describe())
	}
	f, _ := e.failing()
	for name, opt := range map[string]couplet.Option{
		"a negative backlog":     couplet.Backlog(-1),
		"no time to connect":     couplet.ConnectTimeout(0),
		"a negative limit":       couplet.MaxConns(-1),
		"nothing to queue":       couplet.MaxOutbound(0),
		"a negative buffer size": couplet.SendBuffer(-1),
	} {
		if l, err := e.Server.Listen(e.network, e.address(), f, opt); err == nil {
			l.Close()
			e.Errorf("Listen takes %s", name)
		}
		if err := e.Client.Dial(e.ctx, e.network, e.refuse(), f, opt); err == nil {
			e.Errorf("Dial takes %s", name)
		}
	}
	if err := e.Client.Dial(nil, e.network, e.refuse(), f); err == nil { //lint:ignore SA1012 that is the point
		e.Errorf("Dial takes no context")
	}
	other := e.newEngine(couplet.Config{})
	if err := e.Client.Dial(e.ctx, e.network, e.refuse(), f, couplet.OnLoop(other.Loops()[0])); err == nil {
		e.Errorf("Dial takes another engine's loop")
	}
	strange := struct{ couplet.Loop }{e.Client.Loops()[0]}
	if err := e.Client.Dial(e.ctx, e.network, e.refuse(), f, couplet.OnLoop(strange)); err == nil {
		e.Errorf("Dial takes a loop that is no engine's")
	}
	if l, err := e.Server.Listen("carrier pigeon", "coop", f); err == nil {
		l.Close()
		e.Errorf("Listen takes an unknown network")
	}
	if _, err := e.Server.ListenPacket("udp", "127.0.0.1:0", nil); !errors.Is(err, couplet.ErrNotSupported) {
		e.Errorf("ListenPacket: %v", err)
	}
}

// wrapped forwards everything to a protocol, as TLS would.
type wrapped struct{ inner couplet.Protocol }

func (w wrapped) ConnectionMade(t couplet.Transport)            { w.inner.ConnectionMade(t) }
func (w wrapped) DataReceived(t couplet.Transport, p []byte)    { w.inner.DataReceived(t, p) }
func (w wrapped) ConnectionLost(t couplet.Transport, err error) { w.inner.ConnectionLost(t, err) }
func (w wrapped) BufferReceived(t couplet.Transport, b *couplet.Buffer) {
	couplet.DeliverData(w.inner, t, b)
}
func (w wrapped) ReadClosed(t couplet.Transport)   { couplet.DeliverReadClosed(w.inner, t) }
func (w wrapped) WriteClosed(t couplet.Transport)  { couplet.DeliverWriteClosed(w.inner, t) }
func (w wrapped) WritePaused(t couplet.Transport)  { couplet.DeliverWritePaused(w.inner, t) }
func (w wrapped) WriteResumed(t couplet.Transport) { couplet.DeliverWriteResumed(w.inner, t) }
func (w wrapped) Draining(t couplet.Transport)     { couplet.DeliverDraining(w.inner, t) }

func wrapper(e *Env) {
	serve := func(c *conn) couplet.Listener {
		return e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol { return wrapped{c.build(remote)} }))
	}
	s := e.conn("plain inside")
	s.onData = echo
	p := e.dialPeer(serve(s).Addr(), 0)
	e.send(p, []byte("ping"))
	e.expect(p, "ping")
	p.CloseWrite()
	e.expectEOF(p)
	s.lostWith("eof")
	s.wantOrder("build made data lost")

	s = e.conn("aware inside")
	s.onReadClosed = func(t couplet.Transport) { t.Write([]byte("bye")); t.CloseWrite() }
	p = e.dialPeer(serve(s).Addr(), 0)
	s.waitMade()
	p.CloseWrite()
	e.expect(p, "bye")
	e.expectEOF(p)
	s.lostWith("eof")

	told := make(chan error, 1)
	inner := dialFactory{func(net.Addr) couplet.Protocol { return nil }, func(_ string, err error) { told <- err }}
	e.check(e.Client.Dial(e.ctx, e.network, e.refuse(), wrappedFactory{inner}), "Dial")
	e.wantReason("the dial", recv(e, told, "ConnectFailed"), "refused")
	couplet.DeliverConnectFailed(couplet.FactoryFunc(s.build), "", nil) // which does not want it
}

// wrappedFactory forwards everything to a Factory.
type wrappedFactory struct{ couplet.Factory }

func (f wrappedFactory) ConnectFailed(address string, err error) {
	couplet.DeliverConnectFailed(f.Factory, address, err)
}

func goexit(e *Env) {
	type exit struct {
		name  string
		loops int
		fail  func(s *conn, p Peer)
	}
	for _, x := range []exit{
		{"data", 1, func(s *conn, p Peer) { p.Write([]byte("x")) }},
		{"a post", 1, func(s *conn, p Peer) { s.loop.Post(runtime.Goexit) }},
		{"a post on another loop", 2, func(s *conn, p Peer) { s.loop.Post(runtime.Goexit) }},
	} {
		eng := e.newEngine(couplet.Config{Loops: x.loops, Spread: couplet.RoundRobin})
		s, other := e.conn("exits in "+x.name), e.conn("other")
		s.onData = func(couplet.Transport, []byte) { runtime.Goexit() }
		const buffers = 16
		var released atomic.Int32
		other.onMade = func(t couplet.Transport) {
			t.Write(make([]byte, 8<<20))
			for range buffers { // behind what is being sent: nobody else has them
				b := couplet.NewBuffer(make([]byte, 64<<10), func() { released.Add(1) })
				t.WriteBuffer(b)
				b.Release()
			}
		}
		if x.loops == 1 { // each is told of while the other is still there, and turns to it
			s.onLost = func(couplet.Transport, error) {
				for _, t := range []couplet.Transport{s.t, other.t} {
					t.PauseReading()
					t.Abort()
				}
			}
			other.onLost = s.onLost
		}
		ps := e.attach(eng, s, other)
		e.expect(ps[1], "\x00")
		if same := s.loop == other.loop; same != (x.loops == 1) {
			e.Errorf("on %d loops, the connections are on one: %v", x.loops, same)
		}
		x.fail(s, ps[0])
		recv(e, eng.Done(), "end of an engine whose loop is gone")
		if _, ok := errors.AsType[*couplet.EngineError](eng.Err()); !ok {
			e.Errorf("the engine says %v", eng.Err())
		}
		other.lostWith("engine")
		s.lostWith("engine")
		if n := released.Load(); n != buffers {
			e.Errorf("%d of %d Buffers that were queued are released", n, buffers)
		}
		if !e.unix() {
			e.expectReset(ps[1]) // what was cut must not look complete
		}
		if s := eng.Stats(); s.Panics != 0 || s.Held != 0 {
			e.Errorf("%d panics; %d bytes are held to receive into", s.Panics, s.Held)
		}
		if d, err := eng.Shutdown(e.ctx); err == nil || d != (couplet.Drained{}) {
			e.Errorf("Shutdown of an engine that failed answers %+v, %v", d, err)
		}
		if err := eng.Dial(e.ctx, e.network, e.refuse(), couplet.FactoryFunc(s.build)); err == nil {
			e.Errorf("an engine that failed still dials")
		}
		if eng.Loops()[0].Post(func() {}) {
			e.Errorf("an engine that failed still promises to run what is posted")
		}
	}
}

func goexitWhileStopping(e *Env) {
	eng := e.newEngine(couplet.Config{Loops: 2, Spread: couplet.RoundRobin})
	draining := make(chan bool, 2)
	cs := e.connsOf(2, "draining", func(_ int, c *conn) {
		c.onDraining = func(couplet.Transport) { draining <- true }
	})
	ps := e.attach(eng, cs...)
	eng.Stop()
	for range cs {
		recv(e, draining, "Draining")
	}
	cs[0].loop.Post(runtime.Goexit)
	recv(e, eng.Done(), "end of an engine whose loop is gone")
	for i, c := range cs {
		c.lostWith("engine")
		if !e.unix() {
			e.expectReset(ps[i])
		}
	}
}

func statsAddUp(e *Env) {
	const n = 100_000
	before := e.Server.Stats()
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)) }
	l := e.serve([]*conn{s})
	p := e.dialPeer(l.Addr(), 0)
	if got, err := readPattern(p, 0, n); err != nil {
		e.Fatalf("the peer read %d bytes: %v", got, err)
	}
	e.send(p, pattern(0, n))
	s.waitBytes(n)
	want := couplet.Stats{Open: 1, Listening: 1, Accepted: 1, BytesReceived: n, BytesSent: n}
	e.until("the counters agree", func() bool {
		now := e.Server.Stats()
		got := couplet.Stats{
			Open: now.Open, Listening: now.Listening, Accepted: now.Accepted - before.Accepted,
			BytesReceived: now.BytesReceived - before.BytesReceived, BytesSent: now.BytesSent - before.BytesSent,
		}
		return got == want
	})
	if now := e.Server.Stats(); now.Receives <= before.Receives || now.Sends <= before.Sends ||
		now.Events <= before.Events || now.Turns <= before.Turns {
		e.Errorf("after some work the counters say %+v", now)
	}
	timers := e.Server.Stats().Timers
	e.pass(s.loop, 0)
	e.until("a timer that fired is counted", func() bool { return e.Server.Stats().Timers == timers+1 })
	p.Close()
	s.lostWith("eof")
	refused := e.dialPeer(l.Addr(), 0)
	e.expectEOF(refused)
	refused.Close()
	l.Close()
	e.until("a connection that Build refuses is accepted, and refused", func() bool {
		now := e.Server.Stats()
		return now.Accepted-before.Accepted == 2 && now.Refused-before.Refused == 1
	})
	var now couplet.Stats
	if !eventually(e.ctx, func() bool { now = e.Server.Stats(); return now.Open == 0 && now.Listening == 0 }) {
		e.Errorf("with nothing open Stats says %+v", now)
	}
}

// fairShare has one connection flood the loop beside another. Loop.Now tells
// turns apart.
func fairShare(e *Env) {
	const total, share, chunk = 4 << 20, 16 << 10, 64 << 10
	s, other := e.conn("flooded"), e.conn("other")
	var turn time.Time
	inTurn := 0
	s.stream = true
	s.onData = func(t couplet.Transport, p []byte) {
		if now := t.Loop().Now(); !now.Equal(turn) {
			turn, inTurn = now, 0
		}
		// What waits from the turn before has a share of its own.
		if inTurn += len(p); inTurn > 2*share+chunk {
			e.Errorf("%d bytes in one turn; the share is %d", inTurn, share)
		}
		if t.Buffered() == 0 {
			blockLoop(20 * time.Microsecond) // so that the flood is ahead
		}
	}
	l := e.serve([]*conn{other, s})
	q := e.dialPeer(l.Addr(), 0)
	other.waitMade()
	other.onData = echo
	p := e.dialPeer(l.Addr(), 0)
	s.waitMade()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Write(pattern(0, total))
	}()
	for s.total() < total {
		e.send(q, []byte("ping"))
		e.expect(q, "ping")
	}
	recv(e, done, "end of the flood")
}

// sendingFailed has a send hear of a reset while what the peer sent before is not
// read yet.
func sendingFailed(e *Env) {
	for _, pause := range []bool{false, true} {
		s := e.conn(fmt.Sprint("server, pausing ", pause))
		s.half = true
		s.onData = func(t couplet.Transport, _ []byte) {
			if n, err := t.Write([]byte("more")); t.Buffered() < n {
				e.Errorf("%s: Write answers %d, %v, and %d bytes are queued", s.name, n, err, t.Buffered())
			}
			if pause {
				t.PauseReading()
			}
		}
		p := e.peer(s, 0, couplet.LingerTimeout(time.Hour))
		s.do(func(t couplet.Transport) { t.PauseReading() })
		busy, left := make(chan struct{}), make(chan struct{})
		s.loop.Post(func() {
			close(busy)
			<-left
			s.t.Write([]byte("more"))
			s.t.ResumeReading()
		})
		recv(e, busy, "posted function")
		e.send(p, []byte("last words"))
		p.Reset()
		close(left)
		s.lostWith("reset")
	}
}

func blockLoop(d time.Duration) { time.Sleep(d) }

// The goroutine engine's Shutdown waited for ever, whatever its ctx said.
func shutdownGivesUp(e *Env) {
	eng := e.newEngine(couplet.Config{})
	begun, release := make(chan struct{}), make(chan struct{})
	leave := sync.OnceFunc(func() { close(release) })
	e.cleanup(leave)
	eng.Loops()[0].Post(func() {
		close(begun)
		<-release
	})
	recv(e, begun, "run of a posted function")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if _, err := eng.Shutdown(ctx); err == nil || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "does not return") {
		e.Errorf("Shutdown while a callback does not return: %v", err)
	}
	leave()
	recv(e, eng.Done(), "end of the engine")
	if d, err := eng.Shutdown(e.ctx); err != nil || d != (couplet.Drained{}) {
		e.Errorf("Shutdown once it has returned: %+v, %v", d, err)
	}
}

// urgentBytes has a mark in the midst of what is there to be read at once. The byte was
// dropped.
func urgentBytes(e *Env) {
	var plain packageNet // also where the peers are an engine's
	f := func(c *conn) couplet.Factory { return couplet.FactoryFunc(c.build) }
	send := func(c *conn, l couplet.Listener) {
		p, err := plain.Dial(e.network, l.Addr().String(), 0)
		e.check(err, "a peer's dial")
		e.urgent(c, e.adopt(p))
	}
	accepted, adopted, dialled := e.conn("accepted"), e.conn("accepted from a File"), e.conn("dialled")
	send(accepted, e.listen(f(accepted)))

	adopt := func(multipath bool, f couplet.Factory) couplet.Listener {
		l, err := e.Server.Listen(e.network, "not used", f, couplet.FromFile(e.foreign(multipath)))
		e.check(err, "Listen with FromFile")
		return l
	}
	send(adopted, adopt(false, f(adopted)))
	e.talk(adopt(true, e.echoes()).Addr()) // it has no urgent data, and refuses the option

	l, err := plain.Listen(e.network, e.address())
	e.check(err, "a peer's listener")
	defer l.Close()
	e.dial(l.Addr().String(), dialled)
	p, err := l.Accept()
	e.check(err, "a peer's accept")
	e.urgent(dialled, e.adopt(p))
}

// foreign is a listening socket that no engine has made.
func (e *Env) foreign(multipath bool) *os.File {
	var lc net.ListenConfig
	lc.SetMultipathTCP(multipath)
	l, err := lc.Listen(e.ctx, e.network, e.address())
	e.check(err, "a listener of package net")
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	e.check(err, "File")
	e.cleanup(func() { file.Close() })
	return file
}

// urgent sends c what has a mark in it, while its loop is busy.
func (e *Env) urgent(c *conn, p Peer) {
	c.waitMade()
	// For io_uring the kernel may leave what is behind a mark until more comes.
	mayWait := e.Server.Name() == "uring" || e.Client.Name() == "uring"
	sent := ""
	for i, n := range []int{0, 1, 1000, 40_000} {
		before, behind := strings.Repeat("b", n), fmt.Sprint("behind mark ", i)
		free := e.hold(c.loop)
		e.send(p, []byte(before))
		err := sendUrgent(p, 'U')
		e.send(p, []byte(behind))
		free()
		e.check(err, "a send of urgent data")
		sent += before + "U" + behind
		for mayWait && e.ctx.Err() == nil {
			soon, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
			came := eventually(soon, func() bool { return c.total() == int64(len(sent)) })
			cancel()
			if came {
				break
			}
			e.send(p, []byte("more"))
			sent += "more"
		}
		c.waitBytes(int64(len(sent)))
		c.wantText(sent)
	}
	c.do(func(t couplet.Transport) { t.Abort() })
}

// On epoll the accept behind the last connection waited, and the loop with it; on
// package net the Close.
func adoptedMadeToBlock(e *Env) {
	file := e.foreign(false)
	s := e.conn("served")
	l, err := e.Server.Listen(e.network, "not used", couplet.FactoryFunc(s.build), couplet.FromFile(file))
	e.check(err, "Listen with FromFile")
	file.Fd() // has it block, as os/exec does with a child's ExtraFiles
	e.dialPeer(l.Addr(), 0)
	s.waitMade()
	l.Close()
	select {
	case <-l.Closed():
	case <-time.After(5 * time.Second):
		// A loop that waits in a system call holds up Go's collector, and so all that follows.
		e.check(rawShutdown(file.Fd()), "shutdown of the listening socket")
		e.Errorf("the listener does not close")
	}
}

// The goroutine engine made a system call for each, a broadcast's too.
func smallBuffersTogether(e *Env) {
	const n = 1000
	s := e.conn("server")
	var released atomic.Int32
	p := e.peer(s, 0)
	before := e.Server.Stats()
	s.do(func(t couplet.Transport) {
		for i := range n {
			b := couplet.NewBuffer(pattern(int64(10*i), 10), func() { released.Add(1) })
			e.check(t.WriteBuffer(b), "WriteBuffer")
			b.Release()
		}
	})
	if _, err := readPattern(p, 0, 10*n); err != nil {
		e.Fatalf("read: %v", err)
	}
	e.until("every Buffer is released", func() bool { return released.Load() == n })
	s.do(func(couplet.Transport) {}) // a turn later they are counted
	after := e.Server.Stats()
	sends := after.Sends - before.Sends - (after.ZeroCopies - before.ZeroCopies) // each of which is its own
	if sends > n/10 {
		e.Errorf("%d Buffers of 10 bytes left in %d sends", n, sends)
	}
}

// On io_uring what had waited for another turn was dropped, where the reset was known.
func closeWriteLosesNothing(e *Env) {
	const n = 400 << 10
	e.peer(e.conn("who waits for the rest of a turn"), 0)
	for from := int64(0); from < n; from += 64 << 10 {
		s := e.conn(fmt.Sprintf("server, half-closed behind byte %d", from))
		s.stream = true
		s.onMade = func(t couplet.Transport) { t.PauseReading() }
		s.onData = func(t couplet.Transport, _ []byte) {
			if s.total() > from {
				t.CloseWrite()
			}
		}
		l := e.serve([]*conn{s}, couplet.ReceiveBuffer(4<<20)) // or some would still be with the peer
		p, err := packageNet{}.Dial(e.network, l.Addr().String(), 0)
		e.check(err, "a peer's dial")
		e.adopt(p)
		s.waitMade()
		e.send(p, pattern(0, n))
		p.Reset()
		s.do(func(t couplet.Transport) { t.ResumeReading() })
		s.lostWith(e.gone()...)
		if got := s.total(); got != n {
			e.Errorf("%d bytes came of the %d before the reset", got, n)
		}
	}
}

// Each engine kept the list of what it had sent.
func bufferMemory(e *Env) {
	const n = 256 << 10
	var freed atomic.Bool
	s := e.conn("server")
	p := e.peer(s, 0)
	s.do(func(t couplet.Transport) {
		memory := bytes.Clone(pattern(6, n))
		tellFreed(&memory[0], &freed)
		b := couplet.NewBuffer(memory, nil)
		t.Write(pattern(0, 6)) // before a Buffer, so that they are sent by a list
		t.WriteBuffer(b)
		b.Release()
	})
	if _, err := readPattern(p, 0, n+6); err != nil {
		e.Fatalf("read: %v", err)
	}
	e.collected("the memory", &freed)
}

// dialsAreForgotten holds on to a connection, and looks whether what its dial was given is
// let go: a pool's connections kept the requests for which they were made.
func dialsAreForgotten(e *Env) {
	var freed [3]atomic.Bool
	mark := func(i int) *[64]byte {
		p := new([64]byte)
		tellFreed(p, &freed[i])
		return p
	}
	s, c := e.conn("server"), e.conn("client")
	l := e.serve([]*conn{s})
	func() {
		inContext, inFactory, inControl := mark(0), mark(1), mark(2)
		f := couplet.FactoryFunc(func(a net.Addr) couplet.Protocol { inFactory[0]++; return c.build(a) })
		err := e.Client.Dial(request{e.ctx, inContext}, e.network, l.Addr().String(), f,
			couplet.Control(func(uintptr) error { inControl[0]++; return nil }))
		e.check(err, "Dial")
	}()
	c.waitMade()
	for i, what := range []string{"context", "factory", "Control"} {
		e.collected("the "+what, &freed[i])
	}
	c.do(func(t couplet.Transport) { t.Close() })
	c.lostWith("closed")
}

// timersEndWithTheEngine holds on to an engine, its loop and its timers after the end.
func timersEndWithTheEngine(e *Env) {
	eng := e.newEngine(couplet.Config{})
	l := eng.Loops()[0]
	var freed [3]atomic.Bool
	var timers [2]couplet.Timer
	func() {
		var marks [len(freed)]*[64]byte
		for i := range marks {
			marks[i] = new([64]byte)
			tellFreed(marks[i], &freed[i])
		}
		e.on(l, func() {
			l.AfterFunc(time.Hour, func() { marks[0][0]++ })
			l.Every(time.Hour, func() { marks[1][0]++ })
			timers[0] = l.AfterFunc(time.Hour, func() { e.Errorf("a timer fired after the end") })
			timers[1] = l.Every(time.Hour, func() { e.Errorf("a timer fired after the end") })
			l.Post(func() { marks[2][0]++ })
		})
	}()
	_, err := eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	for i, what := range []string{"AfterFunc", "Every", "Post"} {
		e.collected("what "+what+" was given", &freed[i])
	}
	for _, t := range timers {
		if t.Stop() || t.Reset(time.Hour) {
			e.Errorf("a timer is pending after the end")
		}
	}
	runtime.KeepAlive(eng)
}

func pausedTakesLittle(e *Env) {
	const (
		n    = 16 << 20 // more than sockets hold
		most = 2 << 20  // a ring, or a turn's reads; the simulated network's is filled anew while it is reported
	)
	for _, from := range []int64{0, 1, n / 2} {
		s := e.conn(fmt.Sprintf("server that pauses at byte %d", from))
		s.stream = true
		pause := func(t couplet.Transport) {
			if s.total() >= from {
				t.PauseReading()
			}
		}
		s.onMade = pause
		s.onData = func(t couplet.Transport, _ []byte) { pause(t) }
		before := e.Server.Stats().BytesReceived
		p := e.peer(s, 0, couplet.ReceiveBuffer(64<<10))
		go p.Write(pattern(0, n))
		if from > 0 {
			s.waitBytes(from)
		}
		taken := func() int64 { return e.Server.Stats().BytesReceived - before }
		for last := int64(-1); last != taken(); e.settle(s.loop) {
			last = taken() // until no more comes
		}
		if got := taken(); got-s.total() > most {
			e.Errorf("%s: %d bytes were taken of the peer, %d delivered", s.name, got, s.total())
		}
		s.do(func(t couplet.Transport) {
			s.onData = nil
			t.ResumeReading()
		})
		s.waitBytes(n)
	}
}

func duplicates(e *Env) {
	c := e.conn("client")
	l := e.peerListener()
	e.dial(l.Addr().String(), c, couplet.Control(func(fd uintptr) error {
		dup, err := rawDup(fd)
		if err == nil {
			e.cleanup(func() { rawClose(dup) })
		}
		return err
	}))
	p, err := l.Accept()
	e.check(err, "accept")
	e.adopt(p)
	c.waitMade()
	c.do(func(t couplet.Transport) { t.Abort() })
	c.lostWith("aborted")
	e.send(p, []byte("to the duplicate"))
	p.CloseWrite()
	e.sleeps(e.Client, c)
}

// sleepsPaused has both sides paused before anything comes: what a dial waited for is there
// for good.
func sleepsPaused(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	for _, x := range []*conn{s, c} {
		x.onMade = func(t couplet.Transport) { t.PauseReading() }
	}
	e.pair(s, c)
	e.sleeps(e.Server, s)
	e.sleeps(e.Client, c)
}

func localAddresses(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	l, err := e.Server.Listen(e.network, ":0", couplet.FactoryFunc(s.build))
	e.check(err, "Listen")
	host, _, _ := net.SplitHostPort(e.address())
	_, port, _ := net.SplitHostPort(l.Addr().String())
	address := net.JoinHostPort(host, port)
	e.dial(address, c)
	s.waitMade()
	c.waitMade()
	if s.local.String() != address || c.peerAddr.String() != address {
		e.Errorf("of the connection to %s LocalAddr is %v at the server, RemoteAddr %v at the client", address, s.local, c.peerAddr)
	}
	if s.peerAddr.String() != c.local.String() {
		e.Errorf("the client is %v for the server, %v for itself", s.peerAddr, c.local)
	}
}

// A request is a context that has more than a time.
type request struct {
	context.Context
	more *[64]byte
}

// flushNever closes in the turn in which a loop that was held up finds the connection's
// idle timer due. The sum with the endless one was in the past, and the close a reset.
func flushNever(e *Env) {
	const limit = 100 * time.Millisecond
	s := e.conn("server")
	s.onData = func(t couplet.Transport, _ []byte) { t.Close() }
	p := e.peer(s, 0, couplet.IdleTimeout(limit), couplet.FlushTimeout(math.MaxInt64))
	free := e.hold(s.loop)
	e.send(p, []byte("x"))
	time.Sleep(limit + limit/2)
	free()
	e.expectEOF(p)
	s.lostWith("closed")
}

// writesToAnother has a peer stop reading when a callback of its connection, which has more
// for it, has written to another one. On package net that waited for the goroutine which
// waited for the peer.
func writesToAnother(e *Env) {
	const n = 8 << 20
	bulk, other := e.conn("bulk"), e.conn("other")
	q := e.peer(other, 0)
	bulk.onMade = func(t couplet.Transport) { t.Write(pattern(0, n)) }
	more := sync.OnceFunc(func() {
		bulk.t.Write(make([]byte, 4*n))
		other.t.Write([]byte("x"))
	})
	bulk.onWriteResumed = func(couplet.Transport) { more() }
	p := e.peer(bulk, 0, couplet.SendBuffer(64<<10))
	bulk.waitFor("writePaused", 1) // else a peer that reads soon enough would have it never come
	if _, err := readPattern(p, 0, n); err != nil {
		e.Fatalf("read: %v", err)
	}
	e.expect(q, "x")
}

// lateResets has connections be reset in the midst of a large send while their loop is held
// up. On package net the send may have taken the socket's error, and not have told of it, when
// the reader is told of an end.
func lateResets(e *Env) {
	for range 12 {
		s := e.conn("server")
		s.onMade = func(t couplet.Transport) { t.Write(make([]byte, 8<<20)) }
		s.onReadClosed = func(couplet.Transport) { e.Errorf("ReadClosed though the peer has sent no FIN") }
		p := e.peer(s, 0)
		e.expect(p, "\x00")
		free := e.hold(s.loop)
		p.Reset()
		time.Sleep(2 * time.Millisecond) // for all who wait in the kernel to be told, or else it proves nothing
		free()
		s.lostWith("reset")
	}
}

func goexitInControl(e *Env) {
	eng := e.newEngine(couplet.Config{})
	f, failed := e.failing()
	l := e.serve([]*conn{e.conn("server")})
	err := eng.Dial(e.ctx, e.network, l.Addr().String(), f, couplet.Control(func(uintptr) error { runtime.Goexit(); return nil }))
	e.check(err, "Dial")
	o := recv(e, failed, "outcome of the dial")
	recv(e, eng.Done(), "end of the engine")
	for _, err := range []error{o.err, eng.Err()} {
		if _, ok := errors.AsType[*couplet.EngineError](err); !ok {
			e.Errorf("what is told is %v", err)
		}
	}
}

// On io_uring, of which Linux hands over some 20 completions in one call, and on package
// net the timers of a loop that had been held up came before what was there.
func spokenIsNotIdle(e *Env) {
	const n, limit = 50, time.Second
	cs := e.connsOf(n, "who speaks", nil)
	l := e.serve(cs, couplet.IdleTimeout(limit))
	var peers []Peer
	var spoke []time.Time
	for i, c := range cs {
		peers = append(peers, e.dialPeer(l.Addr(), 0))
		c.waitMade()
		spoke = append(spoke, time.Now())
		e.send(peers[i], []byte("x"))
	}
	free := e.hold(e.Server.Loops()[0])
	open := 0
	for i := range cs {
		if time.Since(spoke[i]) > limit/2 { // on a busy machine it may be over already
			cs[i] = nil
			continue
		}
		open++
		e.send(peers[i], []byte("y"))
	}
	time.Sleep(limit + limit/2)
	free()
	for _, c := range cs {
		if c != nil {
			c.waitBytes(2)
		}
	}
	if open == 0 {
		e.Errorf("no connection was left to be tried")
	}
}

// On package net it was in the hands of the reading goroutine, which comes after the
// loop's own.
func resumedIsNotIdle(e *Env) {
	const limit = time.Second
	s := e.conn("server")
	s.onMade = func(t couplet.Transport) { t.PauseReading() }
	p := e.peer(s, 0, couplet.IdleTimeout(limit))
	e.send(p, []byte("x"))
	e.settle(s.loop)
	s.do(func(t couplet.Transport) {
		t.ResumeReading()
		time.Sleep(limit + limit/2)
	})
	s.waitBytes(1)
}

func answeredIsNotLate(e *Env) {
	const n, limit = 400, 300 * time.Millisecond
	l, err := packageNet{}.Listen(e.network, e.address())
	e.check(err, "a peer's listener")
	defer l.Close()
	cs := e.connsOf(n, "who dials", nil)
	loop := e.Client.Loops()[0]
	left := make(chan struct{})
	loop.Post(func() {
		for _, c := range cs {
			e.dial(l.Addr().String(), c, couplet.ConnectTimeout(limit))
		}
		loop.Post(func() { // the dials begin
			loop.Post(func() { // the kernel has them
				loop.Post(func() { <-left })
			})
		})
	})
	time.Sleep(2 * limit)
	close(left)
	for _, c := range cs {
		c.waitMade()
	}
}
