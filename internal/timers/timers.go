// Package timers is the queue of a loop's timers, by deadline, then by the order in
// which the timers were armed: a heap, and beside it lanes for timers that repeat.
//
// Times are monotonic nanoseconds since an epoch of the owner's choice, so that
// a simulated clock serves as well as the real one. Nothing here reads a clock,
// and nothing is safe for concurrent use: a queue belongs to its loop.
//
// Timers are intrusive. To arm, to disarm and to arm again allocates nothing
// beyond the growth of the queue itself.
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
	// Coarse rounds the deadlines that the timer is armed with from then on up to
	// the millisecond. Ten thousand timers of a tenth of a second then cost a
	// thousand wake-ups a second and not a hundred thousand; and those of one
	// millisecond fire in the order of their making, which is that of what they
	// touch in memory, the kernel's too.
	Coarse bool

	missed int32
	lane   int32 // 0 when idle, inHeap, or the number of its lane plus one
	index  int32 // place there
	at     time.Duration
}

const inHeap = -1

// Pending reports whether t is in a queue.
func (t *Timer) Pending() bool { return t.lane != 0 }

// At is the deadline that t was last armed with, not rounded.
func (t *Timer) At() time.Duration { return t.at }

// Missed is how many times a timer that repeats did not fire because it fired so
// late the last time; 2^31-1 where it was more often than that.
func (t *Timer) Missed() int { return int(t.missed) }

// nextAt is the next deadline of a repeating timer that fired: by its schedule,
// so a late call does not shift those after it, and without those that passed
// before now.
func (t *Timer) nextAt(now time.Duration) time.Duration {
	next := Deadline(t.at, t.Period)
	if late := now - next; late > 0 && t.Period > 0 {
		next += roundUp(late, t.Period)
	}
	return next
}

// roundUp is the next multiple of unit from d on, or d where that does not fit.
func roundUp(d, unit time.Duration) time.Duration {
	if d > math.MaxInt64-unit {
		return d
	}
	return (d + unit - 1) / unit * unit
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
	heap  []entry
	lanes []lane
	seq   uint64
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
	e := entry{at, q.seq, t}
	if t.Coarse {
		e.at = roundUp(at, time.Millisecond)
	}
	q.seq++
	if t.lane == inHeap && t.Period == 0 {
		t.at = at
		q.settle(int(t.index), e)
		return
	}
	q.Remove(t)
	t.at = at
	if t.Period > 0 {
		if i := q.laneOf(t.Period); i >= 0 && q.lanes[i].fits(e.at) {
			q.lanes[i].push(e, i)
			return
		}
	}
	t.lane = inHeap
	q.heap = append(q.heap, e)
	q.settle(len(q.heap)-1, e)
}

// laneOf is the lane for a period, one that is empty, or -1 if all are taken.
func (q *Queue) laneOf(period time.Duration) int {
	free := -1
	for i := range q.lanes {
		switch l := &q.lanes[i]; {
		case l.period == period:
			return i
		case l.live == 0:
			free = i
		}
	}
	if free < 0 && len(q.lanes) < lanes {
		free = len(q.lanes)
		q.lanes = append(q.lanes, lane{})
	}
	if free >= 0 {
		q.lanes[free].period = period
	}
	return free
}

// Remove disarms t. It reports whether t was pending.
func (q *Queue) Remove(t *Timer) bool {
	if t.lane == 0 {
		return false
	}
	if t.lane != inHeap {
		q.lanes[t.lane-1].remove(t)
		return true
	}
	i, last := int(t.index), len(q.heap)-1
	moved := q.heap[last]
	q.heap[last] = entry{}
	q.heap = q.heap[:last]
	if i < last {
		q.settle(i, moved)
	}
	t.lane = 0
	return true
}

// Clear disarms all timers, and lets go of what held them.
func (q *Queue) Clear() {
	for e := q.first(); e != nil; e = q.first() {
		q.Remove(e.t)
	}
	*q = Queue{seq: q.seq}
}

// first is the entry that is due first, or nil.
func (q *Queue) first() *entry {
	var first *entry
	if len(q.heap) > 0 {
		first = &q.heap[0]
	}
	for i := range q.lanes {
		if l := &q.lanes[i]; l.live > 0 {
			if e := l.at(l.first); first == nil || e.before(first) {
				first = e
			}
		}
	}
	return first
}

// Next is when the first timer is due; ok is false where none is armed.
func (q *Queue) Next() (at time.Duration, ok bool) {
	if e := q.first(); e != nil {
		return e.at, true
	}
	return 0, false
}

// PopDue takes out the first timer, if its deadline is not after now and it was
// armed before the sequence number before; otherwise it returns nil. A turn
// that takes Seq at its beginning and passes it here does not fire the timers
// that its own callbacks arm: those wait for a later turn. A timer that repeats
// is armed for its next time at once.
func (q *Queue) PopDue(now time.Duration, before uint64) *Timer {
	e := q.first()
	if e == nil || e.at > now || e.seq >= before {
		return nil
	}
	t := e.t
	if t.Period > 0 {
		next := t.nextAt(now)
		t.missed = int32(min((next-t.at)/t.Period-1, math.MaxInt32))
		q.Add(t, next)
	} else {
		q.Remove(t)
	}
	return t
}

// Seq is the sequence number that the next Add will give.
func (q *Queue) Seq() uint64 { return q.seq }

// Len is the number of timers armed.
func (q *Queue) Len() int {
	n := len(q.heap)
	for i := range q.lanes {
		n += q.lanes[i].live
	}
	return n
}

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
	e.t.index = int32(i)
}
