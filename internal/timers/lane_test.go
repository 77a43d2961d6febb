package timers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// Timers of more periods than there are lanes, once and repeating, coarse and not, moved,
// removed, with their period changed, while time passes by steps and by leaps: what fires, when
// next and how often it was missed is what a plain list says.
func TestRepeatingAgainstModel(t *testing.T) {
	type modelled struct {
		Timer
		name    int
		pending bool
		at      time.Duration
		seq     uint64
	}
	due := func(m *modelled) time.Duration {
		if m.Coarse {
			return (m.at + time.Millisecond - 1).Truncate(time.Millisecond)
		}
		return m.at
	}
	for seed := range uint64(40) {
		unit := time.Duration(1)
		if seed%2 == 1 {
			unit = time.Millisecond / 4
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		var q Queue
		all := make([]*modelled, 200)
		for i := range all {
			all[i] = &modelled{name: i}
		}
		first := func() (f *modelled) {
			for _, m := range all {
				if m.pending && (f == nil || due(m) < due(f) || due(m) == due(f) && m.seq < f.seq) {
					f = m
				}
			}
			return f
		}
		now, fired := time.Duration(0), 0
		for step := range 2000 {
			where := fmt.Sprintf("seed %d, step %d", seed, step)
			m := all[rng.IntN(len(all))]
			switch rng.IntN(8) {
			case 0:
				if q.Remove(&m.Timer) != m.pending {
					t.Fatalf("%s: Remove disagrees with the model", where)
				}
				m.pending = false
			case 1, 2, 3:
				m.Coarse = rng.IntN(2) == 0
				m.Period = time.Duration(rng.IntN(2*lanes)) * 10 * unit
				m.pending, m.seq, m.at = true, q.Seq(), now+m.Period
				if m.Period == 0 {
					m.at = now + time.Duration(rng.IntN(50))*unit
				}
				q.Add(&m.Timer, m.at)
			case 4:
				now += time.Duration(rng.IntN(5)) * unit
				if rng.IntN(20) == 0 {
					now += time.Duration(rng.IntN(300)) * unit
				}
			default:
				before := q.Seq()
				got := q.PopDue(now, before)
				want := first()
				if want != nil && (due(want) > now || want.seq >= before) {
					want = nil
				}
				if (got == nil) != (want == nil) || want != nil && got != &want.Timer {
					t.Fatalf("%s: PopDue disagrees with the model", where)
				}
				if want == nil {
					break
				}
				fired++
				if want.pending = want.Period > 0; want.pending {
					missed := 0
					for want.at += want.Period; want.at < now; want.at += want.Period {
						missed++
					}
					want.seq = before
					if want.At() != want.at || want.Missed() != missed {
						t.Fatalf("%s: due again at %v, %d missed, want %v and %d", where, want.At(), want.Missed(), want.at, missed)
					}
				}
			}
			live := 0
			for _, m := range all {
				if m.pending {
					live++
				}
				if m.Pending() != m.pending {
					t.Fatalf("%s: Pending of timer %d is %v", where, m.name, m.Pending())
				}
			}
			at, ok := q.Next()
			if f := first(); q.Len() != live || ok != (f != nil) || f != nil && at != due(f) {
				t.Fatalf("%s: Len %d, Next %v %v with %d pending", where, q.Len(), at, ok, live)
			}
		}
		if fired < 50 {
			t.Errorf("seed %d: only %d fired", seed, fired)
		}
	}
}

// Ten thousand timers of one period stay out of the heap, also when all of them are late.
func TestOnePeriodIsNotSorted(t *testing.T) {
	var q Queue
	const n, period = 10_000, 100 * time.Millisecond
	for i := range n {
		q.Add(&Timer{Period: period}, period+time.Duration(i)*time.Microsecond)
	}
	now := time.Duration(0)
	for range 50 {
		now += 7 * time.Millisecond
		for before := q.Seq(); q.PopDue(now, before) != nil; {
		}
	}
	if len(q.heap) != 0 || q.Len() != n {
		t.Fatalf("%d of %d timers are in the heap", len(q.heap), q.Len())
	}
	now += 12345 * time.Microsecond // they miss their times; their order is another for once
	now += 3 * period
	for before := q.Seq(); q.PopDue(now, before) != nil; {
	}
	for range 100 {
		now += 2 * time.Millisecond
		for before := q.Seq(); q.PopDue(now, before) != nil; {
		}
	}
	if len(q.heap) != 0 || q.Len() != n {
		t.Errorf("%d of %d timers are in the heap after a leap", len(q.heap), q.Len())
	}
}

// A timer that is moved again and again leaves its old places behind it; they are
// used again.
func TestALaneOfMovedTimersDoesNotGrow(t *testing.T) {
	var q Queue
	stay, move := &Timer{Period: 10}, &Timer{Period: 10}
	q.Add(stay, 10)
	for i := range time.Duration(100_000) {
		q.Add(move, 10+i)
		if i%3 == 0 {
			q.Remove(move)
		}
	}
	if n := len(q.lanes[0].ring); n > 16 {
		t.Errorf("a lane of two timers has %d places", n)
	}
	if q.PopDue(10, q.Seq()) != stay {
		t.Error("the timer that stayed is not the first")
	}
}

func BenchmarkFireTenThousand(b *testing.B) {
	for _, period := range []time.Duration{0, 100 * time.Millisecond} {
		b.Run(map[bool]string{true: "once", false: "repeating"}[period == 0], func(b *testing.B) {
			var q Queue
			const n = 10_000
			for i := range n {
				q.Add(&Timer{Period: period}, time.Duration(i)*10*time.Microsecond)
			}
			b.ReportAllocs()
			for b.Loop() {
				at, _ := q.Next()
				t := q.PopDue(at, q.Seq())
				if period == 0 {
					q.Add(t, at+100*time.Millisecond)
				}
			}
		})
	}
}
