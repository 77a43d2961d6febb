package timers

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestOrderIsDeadlineThenArming(t *testing.T) {
	var q Queue
	var got []int
	for i, at := range []time.Duration{5, 3, 5, 3, 1} {
		tm := &Timer{F: func() { got = append(got, i) }}
		q.Add(tm, at)
	}
	for {
		tm := q.PopDue(5, q.Seq())
		if tm == nil {
			break
		}
		tm.F()
	}
	if want := []int{4, 1, 3, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("fired in order %v, want %v", got, want)
	}
}

func TestNeverEarly(t *testing.T) {
	var q Queue
	q.Add(new(Timer), 10)
	if tm := q.PopDue(9, q.Seq()); tm != nil {
		t.Error("fired before its deadline")
	}
	if at, ok := q.Next(); at != 10 || !ok {
		t.Errorf("Next = %v, %v; want 10, true", at, ok)
	}
}

func TestArmedInThisTurnFiresInALaterOne(t *testing.T) {
	var q Queue
	a, b := new(Timer), new(Timer)
	q.Add(a, 10)
	turn := q.Seq()
	if q.PopDue(10, turn) != a {
		t.Fatal("the first timer did not fire")
	}
	q.Add(b, 10)
	if q.PopDue(10, turn) != nil {
		t.Error("a timer fired in the turn that armed it")
	}
	if q.PopDue(10, q.Seq()) != b {
		t.Error("the timer did not fire in the next turn")
	}
}

func TestRemoveAndMove(t *testing.T) {
	var q Queue
	a := new(Timer)
	if q.Remove(a) {
		t.Error("Remove of an idle timer reports true")
	}
	q.Add(a, 1)
	q.Add(a, 20)
	if q.Len() != 1 || a.At() != 20 || !a.Pending() {
		t.Errorf("moved timer: Len %d, At %v, Pending %v", q.Len(), a.At(), a.Pending())
	}
	if !q.Remove(a) || q.Remove(a) || a.Pending() || q.Len() != 0 {
		t.Error("Remove does not report once")
	}
	if _, ok := q.Next(); ok {
		t.Error("an empty queue has a next deadline")
	}
}

// Against a plain model, with removals and moves.
func TestAgainstModel(t *testing.T) {
	type modelled struct {
		Timer
		seq uint64
	}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var q Queue
		all := make([]*modelled, 300)
		for i := range all {
			all[i] = new(modelled)
		}
		for range 3000 {
			m := all[rng.IntN(len(all))]
			if rng.IntN(3) == 0 {
				was := m.Pending()
				if q.Remove(&m.Timer) != was {
					t.Fatalf("seed %d: Remove disagrees with Pending", seed)
				}
				continue
			}
			m.seq = q.Seq()
			q.Add(&m.Timer, time.Duration(rng.IntN(100)))
		}
		var want, got []uint64
		slices.SortFunc(all, func(a, b *modelled) int {
			if a.At() != b.At() {
				return int(a.At() - b.At())
			}
			return int(a.seq) - int(b.seq)
		})
		bySelf := map[*Timer]uint64{}
		for _, m := range all {
			if m.Pending() {
				want = append(want, m.seq)
				bySelf[&m.Timer] = m.seq
			}
		}
		for tm := q.PopDue(100, q.Seq()); tm != nil; tm = q.PopDue(100, q.Seq()) {
			got = append(got, bySelf[tm])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: order differs from the model", seed)
		}
	}
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct{ at, period, now, want time.Duration }{
		{10, 10, 10, 20},
		{10, 10, 19, 20}, // late, but nothing missed
		{10, 10, 20, 20}, // due at this moment
		{10, 10, 25, 30}, // 20 was missed
		{10, 10, 99, 100},
		{math.MaxInt64 - 1, 10, 5, math.MaxInt64},
	} {
		tm := Timer{at: c.at, Period: c.period}
		if got := tm.nextAt(c.now); got != c.want {
			t.Errorf("at %d each %d, now %d: next is %d, want %d", c.at, c.period, c.now, got, c.want)
		}
	}
}

func TestDeadline(t *testing.T) {
	for _, c := range []struct{ now, d, want time.Duration }{
		{5, 3, 8}, {5, -3, 5}, {5, math.MaxInt64, math.MaxInt64},
	} {
		if got := Deadline(c.now, c.d); got != c.want {
			t.Errorf("Deadline(%d, %d) = %d, want %d", c.now, c.d, got, c.want)
		}
	}
}

func TestArmAndFireAllocateNothing(t *testing.T) {
	var q Queue
	ts := make([]Timer, 64)
	for i := range ts {
		q.Add(&ts[i], time.Duration(i))
	}
	at := time.Duration(64)
	if n := testing.AllocsPerRun(1000, func() {
		tm := q.PopDue(at, q.Seq())
		q.Add(tm, at)
		at++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRearmAmongTenThousand(b *testing.B) {
	var q Queue
	ts := make([]Timer, 10_000)
	for i := range ts {
		q.Add(&ts[i], time.Duration(i))
	}
	at := time.Duration(len(ts))
	for b.Loop() {
		tm := q.PopDue(at, q.Seq())
		q.Add(tm, at)
		at++
	}
}

// A coarse timer is due at the end of the millisecond that its deadline is in, after
// those that were armed for it before; its schedule is not shifted, and one that is
// not coarse is due when it says.
func TestACoarseTimerIsDueAtTheEndOfItsMillisecond(t *testing.T) {
	const ms = time.Millisecond
	var q Queue
	first := &Timer{Coarse: true, Period: 20 * ms}
	second := &Timer{Coarse: true}
	fine := &Timer{}
	q.Add(first, 2*ms+5)
	q.Add(second, 2*ms+1)
	q.Add(fine, 2*ms+9)
	for i, want := range []struct {
		t  *Timer
		at time.Duration
	}{{fine, 2*ms + 9}, {first, 3 * ms}, {second, 3 * ms}, {first, 23 * ms}} {
		at, ok := q.Next()
		if !ok || at != want.at || q.PopDue(at-1, q.Seq()) != nil || q.PopDue(at, q.Seq()) != want.t {
			t.Fatalf("timer %d was not the one to fire, and not before %v: Next is %v", i, want.at, at)
		}
	}
	if first.At() != 42*ms+5 {
		t.Errorf("what repeats is armed for %v", first.At())
	}
	q.Remove(first)
	for _, at := range []time.Duration{2 * ms, math.MaxInt64, math.MaxInt64 - 1} {
		q.Add(second, at)
		if got, _ := q.Next(); got != at {
			t.Errorf("a deadline of %v became %v", at, got)
		}
	}
	second.Coarse = false // which it takes note of when it is armed again
	q.Add(second, 2*ms+1)
	if got, _ := q.Next(); got != 2*ms+1 {
		t.Errorf("no longer coarse, it is due at %v", got)
	}
}

// A timer that repeats is armed again as it fires, by its schedule, and does not
// fire twice in one turn however late it is.
func TestPopDueArmsWhatRepeats(t *testing.T) {
	var q Queue
	tick := &Timer{Period: 10}
	q.Add(tick, 10)
	turn := q.Seq()
	if q.PopDue(35, turn) != tick || q.PopDue(35, turn) != nil {
		t.Fatal("it did not fire, or fired twice")
	}
	if !tick.Pending() || tick.At() != 40 {
		t.Errorf("armed for %v, want 40", tick.At())
	}
}

// Calls and missed calls together are the periods that have passed, however late
// each call comes.
func TestMissedAndFiredAreAllPeriods(t *testing.T) {
	const period = 100
	var q Queue
	tm := &Timer{Period: period}
	q.Add(tm, period)
	fired, now := 0, time.Duration(0)
	for _, step := range []time.Duration{99, 1, 100, 50, 250, 100, 0, 1, 1000, 49, 50, 1} {
		now += step
		for {
			got := q.PopDue(now, q.Seq())
			if got == nil {
				break
			}
			fired += 1 + got.Missed()
		}
		if want := int(now / period); fired != want {
			t.Errorf("at %v: %d periods, want %d", now, fired, want)
		}
	}
	once := &Timer{}
	q.Add(once, 0)
	if q.PopDue(now+10*period, q.Seq()); once.Missed() != 0 {
		t.Errorf("a timer that fires once has missed %d", once.Missed())
	}
}
