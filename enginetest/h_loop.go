package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// loopCases: timers, posted work, and the engine's end.
var loopCases = []Case{
	{ID: 72, Name: "timers fire in order and never early", Needs: NeedsOne, Run: timerOrder},
	{ID: 73, Name: "a timer of zero comes after those before it and starves nobody", Run: nestedTimers},
	{ID: 74, Name: "a timer that was stopped never fires", Needs: NeedsOne, Run: stopTimer},
	{ID: 75, Name: "negative and endless delays", Needs: NeedsOne, Run: oddDelays},
	{ID: 76, Name: "a panic in a timer or post harms nothing", Run: panicInTimer},
	{ID: 77, Name: "Post from other goroutines keeps order and wakes the loop", Needs: NeedsOne, Run: postOrder},
	{ID: 78, Name: "Post on the loop runs in the next turn", Needs: NeedsOne, Run: postOnLoop},
	{ID: 80, Name: "after Shutdown every call says so", Run: callsAfterShutdown},
	{ID: 81, Name: "Stop returns first and then connections drain", Run: stopThenDrain},
	{ID: 82, Name: "open connections are lost once at the end", Run: openAtStop},
	{ID: 83, Name: "one panic at the end keeps nobody from lost", Run: panicAtStop},
	{ID: 84, Name: "a descriptor's next owner gets nothing of the last", Run: reusedDescriptor},
	{ID: 86, Name: "nothing is left after the end", Needs: NeedsOne, Run: nothingLeft},
}

func timerOrder(e *Env) {
	l := e.Server.Loops()[0]
	type firing struct {
		name  string
		after time.Duration
	}
	fired := make(chan firing, 64)
	inside := false
	var order []string
	// Who takes longer to arm them has deadlines in another order.
	for arming := time.Hour; arming > 9*time.Millisecond; {
		e.on(l, func() {
			inside, order = true, nil
			start, begun := l.Now(), time.Now()
			for i, d := range []time.Duration{30, 10, 0, 20, 10, 0, 20} {
				d *= time.Millisecond
				name := fmt.Sprintf("%v#%d", d, i)
				l.AfterFunc(d, func() {
					if inside {
						e.Errorf("timer %s fired inside AfterFunc", name)
					}
					if l.Now().Sub(start) < d {
						e.Errorf("timer %s fired after %v", name, l.Now().Sub(start))
					}
					order = append(order, name)
					fired <- firing{name, d}
				})
			}
			inside, arming = false, time.Since(begun)
		})
		for range 7 {
			recv(e, fired, "timer")
		}
	}
	want := []string{"0s#2", "0s#5", "10ms#1", "10ms#4", "20ms#3", "20ms#6", "30ms#0"}
	e.on(l, func() {
		if !slices.Equal(order, want) {
			e.Errorf("the timers fired in the order %v, not %v", order, want)
		}
	})

	// Every keeps its schedule, and Reset restarts.
	const period = 4 * time.Millisecond
	done := make(chan struct{})
	e.on(l, func() {
		start, n := l.Now(), 0
		var t couplet.Timer
		t = l.Every(period, func() {
			n++
			if l.Now().Sub(start) < time.Duration(n)*period {
				e.Errorf("call %d of Every came after %v", n, l.Now().Sub(start))
			}
			if n == 5 {
				if !t.Stop() {
					e.Errorf("Stop of an Every inside it says that it was stopped before")
				}
				close(done)
			}
		})
	})
	recv(e, done, "fifth call of Every")
	e.pass(l, 3*period)

	// Reset gives it another period.
	done = make(chan struct{})
	e.on(l, func() {
		start, n := l.Now(), 0
		t := l.Every(time.Hour, func() {
			if n++; l.Now().Sub(start) < time.Duration(n)*period {
				e.Errorf("call %d of an Every that was Reset came after %v", n, l.Now().Sub(start))
			}
			if n == 3 {
				close(done)
			}
		})
		if !t.Reset(period) {
			e.Errorf("Reset of an Every says that it was not pending")
		}
		e.cleanup(func() { l.Post(func() { t.Stop() }) })
	})
	recv(e, done, "third call of an Every that was Reset")

	// Held up, it tells how many calls it skips.
	done = make(chan struct{})
	e.on(l, func() {
		start, last, periods, n := l.Now(), l.Now(), 0, 0
		var t couplet.Timer
		t = l.Every(period, func() {
			n++
			missed, gap := t.Missed(), l.Now().Sub(last)
			last = l.Now()
			periods += 1 + missed
			if n > 1 && gap >= time.Duration(missed+2)*period {
				e.Errorf("after %v Every says that it missed %d calls", gap, missed)
			}
			if d := last.Sub(start); d < time.Duration(periods)*period {
				e.Errorf("Every says that %d periods were over after %v", periods, d)
			}
			if n == 2 {
				time.Sleep(4 * period) // the loop is held up
			}
			if n == 5 {
				t.Stop()
				close(done)
			}
		})
	})
	recv(e, done, "fifth call of an Every that was held up")

	done = make(chan struct{})
	e.on(l, func() {
		start := l.Now()
		t := l.AfterFunc(time.Millisecond, func() {
			if l.Now().Sub(start) < 15*time.Millisecond {
				e.Errorf("a timer that was Reset fired by its old deadline")
			}
			close(done)
		})
		if !t.Reset(15 * time.Millisecond) {
			e.Errorf("Reset of a pending timer says that it was not")
		}
	})
	recv(e, done, "timer that was Reset")
}

func nestedTimers(e *Env) {
	l := e.Server.Loops()[0]
	order := make(chan string, 8)
	e.on(l, func() {
		l.AfterFunc(0, func() {
			order <- "a"
			l.AfterFunc(0, func() { order <- "c" })
		})
		l.AfterFunc(0, func() { order <- "b" })
	})
	for _, want := range []string{"a", "b", "c"} {
		if got := recv(e, order, "timer"); got != want {
			e.Errorf("timer %s fired where %s was due", got, want)
		}
	}

	// Chains without an end, beside I/O.
	for name, again := range map[string]func(f func()){
		"timers": func(f func()) { l.AfterFunc(0, f) },
		"posts":  func(f func()) { l.Post(f) },
	} {
		s := e.conn("server beside " + name)
		s.onData = echo
		p := e.peer(s, 0)
		links, stopped := 0, false
		var chain func()
		chain = func() {
			links++
			if !stopped {
				again(chain)
			}
		}
		e.on(l, chain)
		for range 20 {
			e.send(p, []byte("ping"))
			e.expect(p, "ping")
		}
		e.on(l, func() {
			if stopped = true; links < 2 {
				e.Errorf("a chain of %s ran %d times", name, links)
			}
		})
		p.Close()
		s.lostWith("eof")
	}
}

func stopTimer(e *Env) {
	l := e.Server.Loops()[0]
	never := func() { e.Errorf("a timer fired that was stopped") }
	var once couplet.Timer
	fired := make(chan struct{}, 1)
	e.on(l, func() {
		t := l.AfterFunc(2*time.Millisecond, never)
		if !t.Stop() {
			e.Errorf("Stop of a pending timer says that it prevented nothing")
		}
		if t.Stop() {
			e.Errorf("the second Stop says that it prevented a call")
		}
		// One that is due already.
		t = l.AfterFunc(0, never)
		if !t.Stop() {
			e.Errorf("Stop of a timer that is due says that it prevented nothing")
		}
		// One is stopped by another of the same moment.
		var second couplet.Timer
		l.AfterFunc(0, func() {
			if !second.Stop() {
				e.Errorf("Stop by a timer of the same moment prevented nothing")
			}
		})
		second = l.AfterFunc(0, never)
		once = l.AfterFunc(0, func() { fired <- struct{}{} })
	})
	recv(e, fired, "timer")
	e.on(l, func() {
		if once.Stop() {
			e.Errorf("Stop after the call says that it prevented it")
		}
		if once.Reset(0) {
			e.Errorf("Reset after the call says that the timer was pending")
		}
	})
	recv(e, fired, "timer that was Reset")
	e.settle(l)

	// A connection's timer ends with it: when it is lost, and when it begins to
	// close.
	for name, end := range map[string]func(t couplet.Transport){
		"close":            func(t couplet.Transport) { t.Close() },
		"abort":            func(t couplet.Transport) { t.Abort() },
		"close in a flush": func(t couplet.Transport) { t.Write(make([]byte, 16<<20)); t.Close() },
	} {
		s := e.conn("server ended by " + name)
		loopTimer := make(chan struct{})
		s.onMade = func(t couplet.Transport) {
			t.AfterFunc(3*time.Millisecond, func() { e.Errorf("a timer of a connection fired after %s", name) })
			t.Loop().AfterFunc(3*time.Millisecond, func() { close(loopTimer) })
			never := func() { e.Errorf("a timer of a connection fired after %s", name) }
			stopped, reset := t.AfterFunc(time.Millisecond, never), t.AfterFunc(time.Millisecond, never)
			end(t)
			if stopped.Stop() || reset.Reset(time.Millisecond) || t.AfterFunc(time.Millisecond, never).Stop() {
				e.Errorf("after %s a timer of the connection says that it was pending", name)
			}
		}
		p := e.peer(s, 4<<10)
		recv(e, loopTimer, "timer of the loop, which outlives the connection")
		e.settle(s.loop)
		p.Reset()
		s.waitLost()
	}

	// So do those that are left when others have fired, were stopped or were Reset.
	for i := range 3 {
		s := e.conn(fmt.Sprintf("server that stopped timer %d", i))
		p := e.peer(s, 0)
		again := make(chan struct{})
		s.do(func(t couplet.Transport) {
			ended := false
			late := func() {
				if ended {
					e.Errorf("%s: a timer fired after the connection's end", s.name)
				}
			}
			var ts [3]couplet.Timer
			for i := range ts {
				ts[i] = t.AfterFunc(settleTime/2, late)
			}
			ts[i].Stop()
			ts[(i+1)%3].Reset(settleTime / 2)
			ts[i].Reset(settleTime / 2)
			ts[i].Stop()
			n := 0
			var twice couplet.Timer
			twice = t.AfterFunc(0, func() {
				if n++; n == 1 {
					t.AfterFunc(settleTime/2, late)
					twice.Reset(0)
					return
				}
				t.AfterFunc(settleTime/2, late)
				t.Abort()
				ended = true
				close(again)
			})
		})
		recv(e, again, "timer that was Reset when it had fired")
		s.lostWith("aborted")
		e.settle(s.loop)
		p.Close()
	}
}

func oddDelays(e *Env) {
	l := e.Server.Loops()[0]
	fired := make(chan string, 4)
	e.on(l, func() {
		inside := true
		l.AfterFunc(-time.Hour, func() {
			if inside {
				e.Errorf("a timer fired inside AfterFunc")
			}
			fired <- "negative"
		})
		l.AfterFunc(0, func() { fired <- "zero" })
		inside = false
	})
	for _, want := range []string{"negative", "zero"} {
		if got := recv(e, fired, "timer"); got != want {
			e.Errorf("%s fired where %s was due", got, want)
		}
	}
	var far []couplet.Timer
	arm := func(d time.Duration) {
		far = append(far, l.AfterFunc(d, func() { e.Errorf("the timer of %v fired", d) }))
	}
	check := func(which string) {
		before := e.Server.Stats().Turns
		<-time.After(settleTime) // a timer of the loop's would be the next
		if turns := e.Server.Stats().Turns - before; turns > 1000 {
			e.Errorf("with %s the loop made %d turns in %v", which, turns, settleTime)
		}
		e.on(l, func() {
			for _, t := range far {
				if !t.Stop() {
					e.Errorf("a timer far away was not pending")
				}
			}
		})
		far = nil
	}
	odd := []time.Duration{time.Hour, 1000 * 24 * time.Hour, math.MaxInt64 / 2, math.MaxInt64 - 1, math.MaxInt64}
	for _, d := range odd {
		e.on(l, func() { arm(d) })
		check(fmt.Sprintf("a timer of %v alone", d))
	}
	e.on(l, func() {
		for _, d := range odd {
			arm(d)
		}
		far = append(far, l.Every(math.MaxInt64, func() { e.Errorf("an endless Every fired") }))
	})
	check("timers far away")
}

func panicInTimer(e *Env) {
	l := e.Server.Loops()[0]
	s := e.conn("bystander")
	s.onData = echo
	p := e.peer(s, 0)
	e.on(l, func() { l.AfterFunc(0, func() { panic(errPanic) }) })
	done := make(chan struct{})
	e.on(l, func() { l.AfterFunc(time.Millisecond, func() { close(done) }) })
	recv(e, done, "timer after one that panicked")
	e.until("the panic is logged", func() bool { return e.logs.count(errPanic.Error()) == 1 })
	l.Post(func() { panic(errPanic) })
	e.turns(l, 2)
	e.until("the panic is logged", func() bool { return e.logs.count(errPanic.Error()) == 2 })
	calls := make(chan struct{}, 8)
	e.on(l, func() {
		n := 0
		var t couplet.Timer
		t = l.Every(time.Millisecond, func() {
			calls <- struct{}{}
			if n++; n == 1 {
				panic(errPanic)
			}
			if n == 2 {
				t.Stop()
			}
		})
	})
	recv(e, calls, "call of Every")
	recv(e, calls, "call of Every after one that panicked")
	e.wantLogged(3)
	e.send(p, []byte("ping"))
	e.expect(p, "ping")

	// One made by a connection is the connection's.
	s.do(func(t couplet.Transport) { t.AfterFunc(0, func() { panic(errPanic) }) })
	e.wantPanic(s)
	e.wantLogged(4)
	// And so is a function posted to it.
	s = e.conn("posted to")
	e.peer(s, 0)
	s.do(func(t couplet.Transport) { t.Handle().Post(func(couplet.Transport) { panic(errPanic) }) })
	e.settle(s.loop)
	e.wantLogged(5)
}

func postOrder(e *Env) {
	const goroutines = 4
	n := scaled(20_000)
	l := e.Server.Loops()[0]
	e.pass(l, 30*time.Millisecond) // it sleeps by now
	start := time.Now()
	e.on(l, func() {})
	if took := time.Since(start); took > time.Second {
		e.Errorf("an idle loop took %v to run a posted function", took)
	}
	var got [goroutines][]int
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range n {
				if !l.Post(func() { got[g] = append(got[g], i) }) {
					e.Errorf("Post refused a function while the engine runs")
					return
				}
			}
		})
	}
	wg.Wait()
	e.on(l, func() {
		for g := range got {
			if len(got[g]) != n || !slices.IsSorted(got[g]) {
				e.Errorf("of %d functions that one goroutine posted %d ran, in order: %v", n, len(got[g]), slices.IsSorted(got[g]))
			}
		}
	})
}

func postOnLoop(e *Env) {
	l := e.Server.Loops()[0]
	order := make(chan string, 8)
	inside := false
	start := time.Now()
	e.on(l, func() {
		inside = true
		l.Post(func() {
			if inside {
				e.Errorf("Post ran its function inside the call")
			}
			order <- "a"
			l.Post(func() { order <- "c" })
		})
		l.Post(func() { order <- "b" })
		inside = false
	})
	for _, want := range []string{"a", "b", "c"} {
		if got := recv(e, order, "posted function"); got != want {
			e.Errorf("function %s ran where %s was due", got, want)
		}
	}
	if took := time.Since(start); took > time.Second {
		e.Errorf("functions posted on the loop took %v", took)
	}
}

func callsAfterShutdown(e *Env) {
	eng := e.newEngine(couplet.Config{})
	l := eng.Loops()[0]
	ln, err := eng.Listen(e.network, e.address(), e.echoes())
	e.check(err, "Listen")
	p, err := e.engineNetwork(eng).Dial(e.network, ln.Addr().String(), 0)
	e.check(err, "a peer's dial")
	e.adopt(p)
	e.send(p, []byte("ping"))
	e.expect(p, "ping")
	p.Close()
	if err := eng.Err(); err != nil {
		e.Errorf("a running engine says %v", err)
	}
	drained, err := eng.Shutdown(e.ctx)
	if err != nil || drained.Cut != 0 {
		e.Errorf("Shutdown: %+v, %v", drained, err)
	}
	select {
	case <-eng.Done():
	default:
		e.Errorf("Done is not closed after Shutdown")
	}
	recv(e, ln.Closed(), "end of the listener")
	f, failed := e.failing()
	if _, err := eng.Listen(e.network, e.address(), f); err != couplet.ErrEngineClosed {
		e.Errorf("Listen after Shutdown: %v", err)
	}
	if err := eng.Dial(e.ctx, e.network, e.refuse(), f); err != couplet.ErrEngineClosed {
		e.Errorf("Dial after Shutdown: %v", err)
	}
	if l.Post(func() { e.Errorf("a function posted after Shutdown ran") }) {
		e.Errorf("Post after Shutdown promises to run the function")
	}
	if l.Go(func(context.Context) error { e.Errorf("Go ran after Shutdown"); return nil }, func(error) {}) {
		e.Errorf("Go after Shutdown promises to run")
	}
	if _, err := eng.Shutdown(e.ctx); err != nil {
		e.Errorf("the second Shutdown: %v", err)
	}
	eng.Stop()
	if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		e.Errorf("Close of a listener after Shutdown: %v", err)
	}
	if err := eng.Err(); err != nil {
		e.Errorf("an engine that was shut down says %v", err)
	}
	if s := eng.Stats(); s.Open != 0 || s.Accepted != 1 {
		e.Errorf("Stats after Shutdown: %+v", s)
	}
	select {
	case o := <-failed:
		e.Errorf("ConnectFailed after Shutdown: %v", o.err)
	default:
	}
}

func stopThenDrain(e *Env) {
	eng := e.newEngine(couplet.Config{})
	s, other := e.conn("with Draining"), e.conn("without")
	inStop := false
	s.onDraining = func(t couplet.Transport) {
		if inStop {
			e.Errorf("Draining was called inside Stop")
		}
		t.Write([]byte("farewell"))
		t.AfterFunc(10*time.Millisecond, func() { t.Close() })
	}
	ps := e.attach(eng, s, other)
	other.do(func(t couplet.Transport) { t.Write([]byte("owed")) })
	stopped := make(chan struct{})
	e.on(s.loop, func() {
		inStop = true
		eng.Stop()
		inStop = false
		if _, err := eng.Shutdown(context.Background()); err != couplet.ErrOnLoop {
			e.Errorf("Shutdown on a loop answers %v", err)
		}
		close(stopped)
	})
	recv(e, stopped, "return of Stop")
	e.expect(ps[0], "farewell")
	e.expectEOF(ps[0])
	e.expect(ps[1], "owed")
	e.expectEOF(ps[1])
	s.waitLost()
	e.wantReason(s.name, s.reason, "closed", "shutdown")
	other.lostWith("shutdown")
	recv(e, eng.Done(), "end of the engine")
	if n := s.count("draining"); n != 1 {
		e.Errorf("Draining was called %d times", n)
	}
	if err := eng.Err(); err != nil {
		e.Errorf("a stopped engine says %v", err)
	}
	if d, err := eng.Shutdown(e.ctx); err != nil || d.Cut != 0 || d.Clean != 2 {
		e.Errorf("Shutdown afterwards: %+v, %v", d, err)
	}
}

// attach connects plain peers to cs on an engine of the case's own.
func (e *Env) attach(eng couplet.Engine, cs ...*conn) []Peer {
	var next atomic.Int32
	l, err := eng.Listen(e.network, e.address(), couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		return cs[next.Add(1)-1].build(remote)
	}))
	e.check(err, "Listen")
	var ps []Peer
	for _, c := range cs {
		p, err := e.engineNetwork(eng).Dial(e.network, l.Addr().String(), 4<<10)
		e.check(err, "a peer's dial")
		ps = append(ps, e.adopt(p))
		c.waitMade()
	}
	return ps
}

func openAtStop(e *Env) {
	// Those that can finish do; the reason is the engine's end.
	eng := e.newEngine(couplet.Config{})
	cs := e.connsOf(4, "drained", func(_ int, c *conn) {
		c.onMade = func(t couplet.Transport) { t.Write([]byte("owed")) }
	})
	gone := e.conn("gone before")
	ps := e.attach(eng, append(cs, gone)...)
	ps[4].Close()
	gone.lostWith("eof")
	d, err := eng.Shutdown(e.ctx)
	if err != nil || d.Clean != 4 || d.Cut != 0 {
		e.Errorf("Shutdown of 4 idle connections: %+v, %v", d, err)
	}
	for i, c := range cs {
		c.lostWith("shutdown")
		if !errors.Is(c.reason, net.ErrClosed) {
			e.Errorf("%v is not net.ErrClosed", c.reason)
		}
		e.expect(ps[i], "owed")
		e.expectEOF(ps[i])
	}

	// Those that cannot are cut when ctx ends, and it looks so.
	eng = e.newEngine(couplet.Config{})
	cause := errors.New("patience is over")
	ctx, cancel := context.WithCancelCause(e.ctx)
	cs = []*conn{e.conn("stuck"), e.conn("slow"), e.conn("fine")}
	cs[0].onMade = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
	cs[1].drain = true // and does nothing about it
	cs[2].onLost = func(couplet.Transport, error) { cancel(cause) }
	ps = e.attach(eng, cs...)
	dialled, failed := e.failing()
	e.check(eng.Dial(e.ctx, e.network, e.stall(), dialled), "Dial")
	e.turns(eng.Loops()[0], 2)
	start := time.Now()
	d, err = eng.Shutdown(ctx)
	if took := time.Since(start); took > 5*time.Second {
		e.Errorf("Shutdown took %v", took)
	}
	if !errors.Is(err, cause) || d.Cut != 2 || d.Clean != 1 {
		e.Errorf("Shutdown with 2 connections that do not end: %+v, %v", d, err)
	}
	if again, err := eng.Shutdown(e.ctx); again != d || !errors.Is(err, cause) { // on epoll and io_uring there was no error
		e.Errorf("the next Shutdown: %+v, %v", again, err)
	}
	for _, c := range cs {
		c.lostWith("shutdown")
	}
	if o := recv(e, failed, "ConnectFailed"); o.err != couplet.ErrShutdown {
		e.Errorf("a dial that the end cancelled fails with %v", o.err)
	}
	if !e.unix() {
		e.expectReset(ps[0])
		e.expectReset(ps[1])
	}
	e.expectEOF(ps[2])
}

func panicAtStop(e *Env) {
	eng := e.newEngine(couplet.Config{})
	cs := e.connsOf(6, "at the end", func(i int, c *conn) {
		switch i {
		case 1:
			c.onLost = func(couplet.Transport, error) { panic(errPanic) }
		case 3:
			c.onDraining = func(couplet.Transport) { panic(errPanic) }
		}
	})
	e.attach(eng, cs...)
	_, err := eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	for i, c := range cs {
		if i == 3 {
			c.lostWith("panic")
		} else {
			c.lostWith("shutdown")
		}
		if n := c.count("lost"); n != 1 {
			e.Errorf("%s: lost %d times", c.name, n)
		}
	}
	e.wantLogged(2)
}

// reusedDescriptor ends connections in the very turn in which others have work
// to do, and opens new ones at once, which get the descriptors' numbers. Every
// peer says nothing but its own name.
func reusedDescriptor(e *Env) {
	rounds := scaled(160)
	w := &tags{live: make(map[*tagged]couplet.Handle)}
	l := e.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &tagged{tags: w} }))
	var peers []Peer
	for i := range rounds {
		name := fmt.Sprintf("%08d", i)
		p := e.dialPeer(l.Addr(), 0)
		e.send(p, []byte(name))
		e.expect(p, name)
		e.send(p, []byte(name))
		peers = append(peers, p)
		if len(peers) < 4 {
			continue
		}
		// Their second words and their ends meet on the loop.
		w.endAll(i%2 == 0)
		for j, p := range peers {
			if j%2 == 0 {
				p.Reset()
			} else {
				p.Close()
			}
		}
		peers = nil
	}
	if n := w.wrong.Load(); n > 0 {
		e.Errorf("%d times a connection got what was not its own", n)
	}
}

// tags are the connections that are open, with their handles.
type tags struct {
	mu    sync.Mutex
	live  map[*tagged]couplet.Handle
	wrong atomic.Int32
}

func (w *tags) endAll(abort bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.live {
		if abort {
			h.Abort()
		} else {
			h.Close()
		}
	}
}

// tagged echoes to a peer that repeats its name of 8 bytes, and counts it as
// wrong if the name changes.
type tagged struct {
	*tags
	t        couplet.Transport
	received []byte
}

func (s *tagged) ConnectionMade(t couplet.Transport) {
	s.t = t
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[s] = t.Handle()
}

func (s *tagged) DataReceived(t couplet.Transport, p []byte) {
	for _, b := range p {
		if n := len(s.received); n >= 8 && s.received[n-8] != b {
			s.wrong.Add(1)
		}
		s.received = append(s.received, b)
	}
	if s.t != t {
		s.wrong.Add(1)
	}
	t.Write(p)
}

func (s *tagged) ConnectionLost(t couplet.Transport, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.live[s]; !ok || s.t != t {
		s.wrong.Add(1)
	}
	delete(s.live, s)
}

func nothingLeft(e *Env) {
	before := takeSnapshot()
	eng := e.newEngine(couplet.Config{Loops: 2})
	cs := e.connsOf(4, "open", nil)
	ps := e.attach(eng, cs...)
	l, err := eng.Listen(e.network, e.address(), e.echoes())
	e.check(err, "Listen")
	done := make(chan struct{})
	for _, loop := range eng.Loops() {
		e.on(loop, func() {
			loop.AfterFunc(time.Hour, func() { e.Errorf("an endless timer fired") })
			loop.AfterFunc(30*time.Millisecond, func() {
				select {
				case <-done:
					e.Errorf("a timer fired after the end")
				default:
				}
			})
			loop.Every(time.Millisecond, func() {
				select {
				case <-done:
					e.Errorf("Every went on after the end")
				default:
				}
			})
		})
	}
	working := make(chan struct{})
	eng.Loops()[0].Go(func(ctx context.Context) error {
		close(working)
		<-ctx.Done()
		return context.Cause(ctx)
	}, func(error) {})
	recv(e, working, "start of work")
	for _, p := range ps {
		p.Close()
	}
	_, err = eng.Shutdown(e.ctx)
	e.check(err, "Shutdown")
	close(done)
	recv(e, l.Closed(), "end of the listener")
	before.check(e.t)
	e.settle(e.Server.Loops()[0])
}
