// Package timers is the queue of a loop's timers: a heap ordered by deadline,
// then by the order in which the timers were armed.
//
// Times are monotonic nanoseconds since an epoch of the owner's choice, so that
// a simulated clock serves as well as the real one. Nothing here reads a clock,
// and nothing is safe for concurrent use: a queue belongs to its loop.
//
// Timers are intrusive. To arm, to disarm and to arm again allocates nothing
// beyond the growth of the heap itself.
package timers

import (
	"math"
	"time"
)

// A Timer is one entry of a Queue. The zero value is idle. It may be in one
// queue at a time, and must not be copied while it is in one.
type Timer struct {
	// F is what the owner calls when the timer has fired. The queue never
	// calls it.
	F func()
	// Period is not zero for a timer that repeats; see nextAt.
	Period time.Duration
	// Fine marks a timer that is not to be late for the sake of others; see
	// Wake. It must not change while the timer is in a queue.
	Fine bool
	// Owner is for the owner's use: say, the connection the timer belongs to.
	Owner any

	at     time.Duration
	missed int
	index  int // place in the heap plus one; 0 when idle
}

// Pending reports whether t is in a queue.
func (t *Timer) Pending() bool { return t.index != 0 }

// At is the deadline that t was last armed with.
func (t *Timer) At() time.Duration { return t.at }

// Missed is how many times a timer that repeats did not fire because it fired so
// late the last time.
func (t *Timer) Missed() int { return t.missed }

// nextAt is the next deadline of a repeating timer that fired: by its schedule,
// so a late call does not shift those after it, and without those that passed
// before now.
func (t *Timer) nextAt(now time.Duration) time.Duration {
	next := Deadline(t.at, t.Period)
	if late := now - next; late > 0 && t.Period > 0 {
		next += (late + t.Period - 1) / t.Period * t.Period
	}
	return next
}

// Deadline is now+d; a negative d is zero, and a sum that does not fit is the
// far future.
func Deadline(now, d time.Duration) time.Duration {
	if d < 0 {
		d = 0
	}
	if now > math.MaxInt64-d {
		return math.MaxInt64
	}
	return now + d
}

// Queue holds armed timers. The zero value is empty and ready to use.
type Queue struct {
	heap []entry
	seq  uint64
	fine int // timers in heap that are Fine
}

// entry repeats the timer's keys, so that the heap is ordered without touching
// the timers themselves.
type entry struct {
	at  time.Duration
	seq uint64
	t   *Timer
}

func (e *entry) before(o *entry) bool {
	return e.at < o.at || e.at == o.at && e.seq < o.seq
}

// arity is the number of children of a node: four halve the height of the heap
// and lie in few cache lines.
const arity = 4

// Add arms t for the time at, after those already armed for it. A timer that
// is pending is moved.
func (q *Queue) Add(t *Timer, at time.Duration) {
	t.at = at
	e := entry{at, q.seq, t}
	q.seq++
	if t.index != 0 {
		q.settle(t.index-1, e)
		return
	}
	if t.Fine {
		q.fine++
	}
	q.heap = append(q.heap, e)
	q.settle(len(q.heap)-1, e)
}

// Remove disarms t. It reports whether t was pending.
func (q *Queue) Remove(t *Timer) bool {
	if t.index == 0 {
		return false
	}
	i, last := t.index-1, len(q.heap)-1
	moved := q.heap[last]
	q.heap[last] = entry{}
	q.heap = q.heap[:last]
	if i < last {
		q.settle(i, moved)
	}
	t.index = 0
	if t.Fine {
		q.fine--
	}
	return true
}

// Next is the earliest deadline; ok is false where no timer is armed.
func (q *Queue) Next() (at time.Duration, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].at, true
}

// Wake is when to look for due timers next, if nothing else happens: at the
// earliest deadline, or, where no timer is Fine, at the end of the millisecond
// that it is in. Ten thousand timers of a tenth of a second then cost a thousand
// wake-ups a second, and not a hundred thousand.
func (q *Queue) Wake() (at time.Duration, ok bool) {
	at, ok = q.Next()
	if q.fine == 0 && at < math.MaxInt64-time.Millisecond {
		at = (at + time.Millisecond - 1) / time.Millisecond * time.Millisecond
	}
	return at, ok
}

// PopDue takes out the first timer, if its deadline is not after now and it was
// armed before the sequence number before; otherwise it returns nil. A turn
// that takes Seq at its beginning and passes it here does not fire the timers
// that its own callbacks arm: those wait for a later turn. A timer that repeats
// is armed for its next time at once.
func (q *Queue) PopDue(now time.Duration, before uint64) *Timer {
	if len(q.heap) == 0 || q.heap[0].at > now || q.heap[0].seq >= before {
		return nil
	}
	t := q.heap[0].t
	if t.Period > 0 {
		next := t.nextAt(now)
		t.missed = int((next-t.at)/t.Period) - 1
		q.Add(t, next)
	} else {
		q.Remove(t)
	}
	return t
}

// Seq is the sequence number that the next Add will give.
func (q *Queue) Seq() uint64 { return q.seq }

// Len is the number of timers armed.
func (q *Queue) Len() int { return len(q.heap) }

// settle puts e where it belongs, beginning at the vacant place i.
func (q *Queue) settle(i int, e entry) {
	for i > 0 {
		up := (i - 1) / arity
		if !e.before(&q.heap[up]) {
			break
		}
		q.place(i, q.heap[up])
		i = up
	}
	for {
		first := i*arity + 1
		if first >= len(q.heap) {
			break
		}
		least := first
		for c := first + 1; c < len(q.heap) && c < first+arity; c++ {
			if q.heap[c].before(&q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(&e) {
			break
		}
		q.place(i, q.heap[least])
		i = least
	}
	q.place(i, e)
}

func (q *Queue) place(i int, e entry) {
	q.heap[i] = e
	e.t.index = i + 1
}
