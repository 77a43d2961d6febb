package classic

import (
	"time"

	"couplet"
	"couplet/internal/timers"
)

// timer is a couplet.Timer. One that a connection made is in that connection's
// list while it is pending, and goes with it.
type timer struct {
	timers.Timer
	l          *loop
	c          *conn // nil for the loop's own
	prev, next *timer
}

var _ couplet.Timer = (*timer)(nil)

// AfterFunc calls f after d.
func (l *loop) AfterFunc(d time.Duration, f func()) couplet.Timer {
	t := l.newTimer(nil, f)
	t.arm(d)
	return t
}

// Every calls f each d.
func (l *loop) Every(d time.Duration, f func()) couplet.Timer {
	mustBePeriod(d)
	t := l.newTimer(nil, f)
	t.Period = d
	t.arm(d)
	return t
}

func mustBePeriod(d time.Duration) {
	if d <= 0 {
		panic("couplet: Every needs a positive period")
	}
}

func (l *loop) newTimer(c *conn, f func()) *timer {
	t := &timer{l: l, c: c}
	t.F = func() {
		t.unlink()
		l.e.count.timersRun.Add(1)
		l.call(c, "a timer", f)
	}
	return t
}

// since is the time on the loop's clock, read afresh.
func (l *loop) since() time.Duration { return time.Since(l.epoch) }

// schedule arms one of the engine's own timers, or a user's.
func (l *loop) schedule(t *timers.Timer, at time.Duration) {
	l.timers.Add(t, at)
	if first, _ := l.timers.Next(); first == at {
		l.wakeUp()
	}
}

// Stop prevents the call.
func (t *timer) Stop() bool {
	t.unlink()
	return t.l.timers.Remove(&t.Timer)
}

// Reset arms the timer anew.
func (t *timer) Reset(d time.Duration) bool {
	pending := t.Pending()
	if t.Period > 0 {
		mustBePeriod(d)
		t.Period = d
	}
	t.arm(d)
	return pending
}

func (t *timer) arm(d time.Duration) {
	if c := t.c; c != nil {
		if c.state != open {
			t.F = nil
			return
		}
		if !t.Pending() {
			if t.next = c.timers; t.next != nil {
				t.next.prev = t
			}
			c.timers = t
		}
	}
	t.l.schedule(&t.Timer, timers.Deadline(t.l.since(), d))
}

// unlink takes the timer out of its connection's list.
func (t *timer) unlink() {
	if t.c == nil {
		return
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else if t.c.timers == t {
		t.c.timers = t.next
	}
	t.prev, t.next = nil, nil
}

// dropTimers stops the connection's timers for good.
func (c *conn) dropTimers() {
	for t := c.timers; t != nil; {
		next := t.next
		c.l.timers.Remove(&t.Timer)
		t.prev, t.next, t.F = nil, nil, nil
		t = next
	}
	c.timers = nil
}
