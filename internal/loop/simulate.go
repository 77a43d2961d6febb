//go:build linux

package loop

import (
	"fmt"
	"strings"
	"time"
)

// What a simulation needs to drive the loops of an engine that Prepare made, by
// hand and with a clock of its own: no goroutine, no thread, no kernel.

// Simulate gives l its driver and its clock, which never goes back and
// never was below 0. From now on the calling thread is the loop (the caller must
// be locked to it) and calls Step until that returns false.
func (l *Loop) Simulate(d Driver, clock func() time.Duration) {
	l.clock = clock
	l.start(d)
}

// Step is what the loop's own goroutine does again and again: a turn that waits
// for at most limit, or the end. It reports whether the loop goes on.
func (l *Loop) Step(limit time.Duration) bool {
	if l.Ended() {
		if err := l.End(); err != nil {
			l.config.Logger.Warn("closing the driver", "engine", l.engine.name, "error", err)
		}
		l.finish()
		return false
	}
	if err := l.Turn(limit); err != nil {
		l.fail(err)
		l.finish()
		return false
	}
	return true
}

// Due is how long l has nothing to do: 0 if there is work, negative if not even
// a timer is armed.
func (l *Loop) Due() time.Duration { return l.timeout() }

// Posted is the number of functions that wait for the next turn.
func (l *Loop) Posted() int {
	n := 0
	for p := l.posts.top.Load(); p != nil && p != ended; p = p.next {
		n++
	}
	return n
}

// Cut is what Shutdown does on a loop at its deadline. It is called between
// two turns.
func (l *Loop) Cut() { l.cut() }

// Timers is the number of timers that are armed.
func (l *Loop) Timers() int { return l.timers.Len() }

// Leftovers names what l still holds of connections, listeners and dials; it
// is empty for a loop that has let go of everything.
func (l *Loop) Leftovers() string {
	var out []string
	note := func(n int, what string) {
		if n != 0 {
			out = append(out, fmt.Sprintf("%d %s", n, what))
		}
	}
	conns := 0
	l.slab.each(func(*Conn) { conns++ })
	note(conns, "slots")
	note(l.open, "open connections")
	note(len(l.listeners), "listeners")
	note(len(l.dials), "dials")
	note(int(l.starving.Load()), "starving listeners")
	note(int(l.load.Load()), "counted for LeastConnections")
	return strings.Join(out, ", ")
}
