//go:build linux

package loop

import (
	"flag"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"couplet"
)

var timerCount = flag.Int("timers.count", 0, "how many timers a storm has (default 200000, less with -short or -race)")

// TestTimerStorm arms many timers, most of them for an instant that others have
// too, cancels some before and some inside callbacks, and lets time pass in
// leaps: they fire in order of deadline, then of creation, none early, each
// once.
func TestTimerStorm(t *testing.T) {
	n := *timerCount
	if n == 0 {
		n = 200_000
		if checked || testing.Short() {
			n = 20_000
		}
	}
	b := newBench(t, couplet.Config{})
	r := rand.New(rand.NewPCG(1, 1))
	type timed struct {
		t        couplet.Timer
		at       time.Duration
		seq      int
		rearm    int
		gone     bool // stopped
		fired    int
		expected int
	}
	all := make([]*timed, n)
	last, seq, live := &timed{at: -1}, 0, 0
	turns, inTurn := 0, 0
	var fire func(x *timed)
	arm := func(x *timed, d time.Duration) {
		x.at, x.seq = b.now+max(d, 0), seq
		seq++
		x.expected++
		live++
	}
	fire = func(x *timed) {
		live--
		x.fired++
		switch {
		case x.gone:
			t.Fatal("a timer that was stopped fires")
		case x.fired != x.expected:
			t.Fatalf("a timer has fired %d times, armed %d times", x.fired, x.expected)
		case b.now < x.at:
			t.Fatalf("a timer for %v fires at %v", x.at, b.now)
		case turns == inTurn && (x.at < last.at || x.at == last.at && x.seq < last.seq):
			t.Fatalf("timer %d for %v fires after timer %d for %v", x.seq, x.at, last.seq, last.at)
		}
		inTurn = turns
		*last = *x
		if x.rearm > 0 {
			x.rearm--
			d := time.Duration(r.IntN(50)-5) * time.Millisecond
			if x.t.Reset(d) {
				t.Fatal("a timer that has fired says that it was pending")
			}
			arm(x, d)
		}
		if y := all[r.IntN(n)]; y != nil && r.IntN(3) == 0 {
			pending := y.fired < y.expected && !y.gone
			if y.t.Stop() != pending {
				t.Fatalf("Stop of a timer that is pending (%v) says otherwise", pending)
			}
			if pending {
				live--
				y.gone = true
			}
			if y.t.Stop() {
				t.Fatal("Stop says true twice")
			}
		}
	}
	for i := range all {
		x := &timed{rearm: r.IntN(8) / 6}
		d := time.Duration(r.IntN(1000)) * time.Millisecond
		arm(x, d)
		x.t = b.loop.AfterFunc(d, func() { fire(x) })
		all[i] = x
		if r.IntN(1000) == 0 {
			b.now += time.Millisecond
		}
	}
	for b.loop.Timers() > 0 {
		at, _ := b.loop.timers.Next()
		b.now = max(b.now, at)
		if r.IntN(3) == 0 { // a machine that was asleep
			b.now += time.Duration(r.IntN(200)) * time.Millisecond
		}
		turns++
		b.turn()
	}
	if live != 0 {
		t.Errorf("%d timers have not fired", live)
	}
	for _, x := range all {
		if !x.gone && x.fired != x.expected {
			t.Fatalf("a timer has fired %d times, armed %d times", x.fired, x.expected)
		}
	}
}

// What a timer's callback arms for now waits for the next turn.
func TestATimerArmedInACallbackWaits(t *testing.T) {
	b := newBench(t, couplet.Config{})
	fired := 0
	var again func()
	again = func() { fired++; b.loop.AfterFunc(-1, again) }
	b.loop.AfterFunc(0, again)
	for i := range 5 {
		if fired != i {
			t.Fatalf("%d fired in %d turns", fired, i)
		}
		b.turn()
	}
}

// However many timers are due, I/O has its turn between them; none is forgotten, and
// the loop does not sleep before the last.
func TestManyDueTimersLeaveTurnsForIO(t *testing.T) {
	b := newBench(t, couplet.Config{})
	const n = 3*timersPerTurn + 10
	var order []int
	for i := range n {
		b.loop.AfterFunc(0, func() { order = append(order, i) })
	}
	for turn := 1; len(order) < n; turn++ {
		if d := b.loop.timeout(); d != 0 {
			t.Fatalf("with timers due the loop would sleep for %v", d)
		}
		before := len(order)
		b.turn()
		if fired := len(order) - before; fired != min(timersPerTurn, n-before) {
			t.Fatalf("%d timers fired in turn %d", fired, turn)
		}
	}
	for i, got := range order {
		if got != i {
			t.Fatalf("timer %d fired as number %d", got, i)
		}
	}
	if d := b.loop.timeout(); d >= 0 {
		t.Errorf("with nothing to do the loop would sleep for %v", d)
	}
}

func TestEveryKeepsItsSchedule(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var at []time.Duration
	e := b.loop.Every(10*time.Millisecond, func() { at = append(at, b.now) })
	for _, now := range []int{9, 10, 11, 25, 29, 30, 67, 69, 70} {
		b.now = time.Duration(now) * time.Millisecond
		b.turn()
		b.turn()
	}
	e.Stop()
	b.now += time.Hour
	b.turn()
	want := []int{10, 25, 30, 67, 70}
	for i, w := range want {
		if len(at) != len(want) || at[i] != time.Duration(w)*time.Millisecond {
			t.Fatalf("it was called at %v, not at %v ms", at, want)
		}
	}
}

// The clock that everything goes by is monotonic: a jump of the wall clock is
// not seen.
func TestNowIsMonotonic(t *testing.T) {
	b := newBench(t, couplet.Config{})
	before := b.loop.Now()
	b.now += time.Hour
	b.turn()
	if d := b.loop.Now().Sub(before); d != time.Hour || !strings.Contains(b.loop.Now().String(), "m=") {
		t.Errorf("%v after %v is %v", b.loop.Now(), before, d)
	}
}

// All of a turn has one time, and no timer that is armed in it is early by that.
func TestATurnHasOneTime(t *testing.T) {
	b := newBench(t, couplet.Config{})
	for _, first := range []string{"asked", "armed"} {
		var began, fired time.Time
		b.turn(func() {
			arm := func() { b.loop.AfterFunc(time.Second, func() { fired = b.loop.Now() }) }
			if first == "armed" {
				arm()
			}
			b.now += time.Minute // a long callback
			began = b.loop.Now()
			if first == "asked" {
				arm()
			}
			b.now += time.Minute
			if again := b.loop.Now(); !again.Equal(began) {
				t.Errorf("%s first: the turn has the times %v and %v", first, began, again)
			}
		})
		for fired.IsZero() {
			b.now += 100 * time.Millisecond
			b.turn()
		}
		if d := fired.Sub(began); d < time.Second {
			t.Errorf("%s first: a timer of a second fires after %v", first, d)
		}
	}
}

// What is reported before the wait has the time before it, and what comes after it the
// time after it.
func TestAWaitTakesTime(t *testing.T) {
	b := newBench(t, couplet.Config{})
	asked := func() time.Duration { return b.loop.Now().Sub(b.loop.epoch) }
	b.turn(func() { asked() })
	b.now += time.Hour
	b.early = append(b.early, func() {
		if got := asked(); got != b.now {
			t.Errorf("before the wait it is %v, not %v", got, b.now)
		}
		b.now += time.Minute // waiting
	})
	b.turn(func() {
		if got := asked(); got != b.now {
			t.Errorf("after the wait it is %v, not %v", got, b.now)
		}
	})
}

// What came before a timer was due is told of before it fires, however long the callbacks
// before it take.
func TestATimerOvertookData(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var order []string
	slow := b.accept(&notes{data: func(couplet.Transport, []byte) {
		order = append(order, "slow")
		b.now += time.Minute
	}})
	fast := b.accept(&notes{data: func(couplet.Transport, []byte) { order = append(order, "fast") }})
	b.turn(func() { b.loop.AfterFunc(time.Second, func() { order = append(order, "timer") }) })
	receive := func(c *Conn) func() { return func() { b.loop.Received(c, []byte("x"), fakeLent("x")) } }
	b.turn(receive(slow), receive(fast))
	b.turn(receive(fast)) // which has come while slow was at work
	b.turn()
	if got := strings.Join(order, " "); got != "slow fast fast timer" {
		t.Errorf("%s", got)
	}
}

// Who asked an ended loop for its time had it look at the clock, from any goroutine: a data race.
func TestTheTimeOfAnEndedLoop(t *testing.T) {
	b := newBench(t, couplet.Config{})
	b.now = time.Minute
	b.engine.Stop()
	for b.loop.Step(0) {
	}
	at := b.now
	b.now += time.Minute
	if is := b.loop.Now().Sub(b.loop.epoch); is != at {
		t.Errorf("it is %v, and ended at %v", is, at)
	}
}

// Who has no timers does not pay for the clock.
func TestTheClockIsLookedAtForTimersAlone(t *testing.T) {
	b := newBench(t, couplet.Config{})
	looks, clock := 0, b.loop.clock
	b.loop.clock = func() time.Duration { looks++; return clock() }
	echo := func(t couplet.Transport, p []byte) { t.Write(p) }
	busy := func(c *Conn) (n int) {
		looks = 0
		for range 80 {
			b.turn(func() { b.loop.Received(c, []byte("x"), fakeLent("x")) })
			b.turn(b.sent(c, 1, 0))
		}
		return looks
	}
	if n := busy(b.accept(&notes{data: echo})); n > 0 {
		t.Errorf("without a timer 160 turns look %d times at the clock", n)
	}
	if n := busy(b.accept(&notes{data: echo}, couplet.IdleTimeout(time.Minute))); n > 2*160 {
		t.Errorf("with one they do %d times", n)
	}
}

// A loop that had nothing to ask the time for takes nobody for idle since then.
func TestIdleAfterASilence(t *testing.T) {
	b := newBench(t, couplet.Config{})
	ln := b.listen(couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &notes{} }), couplet.IdleTimeout(time.Minute))
	b.now += time.Hour
	fd := b.fd()
	b.turn(func() { b.loop.Accepted(ln, fd, 0) })
	c := b.conn(fd)
	for _, spoken := range []bool{true, true, false} {
		b.now += time.Minute - time.Second
		b.turn()
		if b.called("close reset") {
			t.Fatal("it is taken for idle")
		}
		if spoken {
			b.turn(func() { b.loop.Received(c, []byte("x"), fakeLent("x")) })
		}
	}
	b.now += time.Second
	b.turn()
	b.want("close reset")
	b.turn(b.closed(c))
}

// A connection's timers go with it, whoever armed them and how often.
func TestTimersOfALostConnectionAreGone(t *testing.T) {
	b := newBench(t, couplet.Config{})
	fired := 0
	c := b.accept(&notes{}, couplet.IdleTimeout(time.Hour))
	var some []couplet.Timer
	for i := range 10 {
		some = append(some, c.AfterFunc(time.Duration(i)*time.Second, func() { fired++ }))
	}
	some[3].Stop()
	some[5].Reset(time.Minute)
	b.now = 4 * time.Second
	b.turn()
	if fired != 4 {
		t.Fatalf("%d have fired", fired)
	}
	armed := 0
	for t := c.own; t != nil; t = t.next {
		armed++
	}
	if n := b.loop.Timers(); armed != 5 || n != armed+1 {
		t.Errorf("the connection has %d timers of 5, and the loop %d", armed, n)
	}
	some[0].Reset(time.Minute)
	c.Abort()
	b.turn(b.closed(c))
	if n := b.loop.Timers(); n != 0 {
		t.Errorf("%d timers are left", n)
	}
	if some[7].Reset(0) || some[7].Stop() {
		t.Error("a timer of a lost connection is armed")
	}
	b.now += time.Hour
	b.turn()
	if fired != 4 {
		t.Errorf("%d have fired in the end", fired)
	}
}
