package timers

import "time"

// lanes is how many periods have a lane at a time; the timers of further periods
// are in the heap.
const lanes = 4

// A lane is a queue of timers that repeat with one period. Such timers come due in
// the order in which they were armed, so there is nothing to sort: ten thousand
// poems of one pace cost no more per chunk than ten, and no timer but the one that
// fires is touched. A timer that does not fit behind the last, since it is the only
// one that missed its time, goes to the heap.
//
// ring holds entries by place modulo its length, a power of two. A timer that was
// removed leaves an empty entry; the first entry, if there is any, is none of those.
type lane struct {
	period      time.Duration
	ring        []entry
	first, next uint32 // places; next is where the next timer goes
	live        int    // entries between them that are not empty
}

func (l *lane) at(place uint32) *entry { return &l.ring[place&uint32(len(l.ring)-1)] }

// fits reports whether a timer due at that time keeps the order.
func (l *lane) fits(at time.Duration) bool {
	return l.live == 0 || l.at(l.next-1).at <= at
}

// push appends e. number is l's in the queue.
func (l *lane) push(e entry, number int) {
	if int(l.next-l.first) == len(l.ring) {
		l.renew()
	}
	*l.at(l.next) = e
	e.t.lane, e.t.index = int32(number+1), int32(l.next)
	l.next++
	l.live++
}

// remove takes t out.
func (l *lane) remove(t *Timer) {
	l.at(uint32(t.index)).t = nil
	t.lane = 0
	if l.live--; l.live == 0 {
		l.first = l.next
		return
	}
	for l.at(l.first).t == nil {
		l.first++
	}
}

// renew makes room, by dropping the empty entries where they are many.
func (l *lane) renew() {
	old, size := *l, max(len(l.ring), 8)
	if l.live > size/2 {
		size *= 2
	}
	l.ring, l.first, l.next = make([]entry, size), 0, 0
	for p := old.first; p != old.next; p++ {
		if e := *old.at(p); e.t != nil {
			e.t.index = int32(l.next)
			*l.at(l.next) = e
			l.next++
		}
	}
}
