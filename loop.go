package couplet

import (
	"context"
	"time"
)

// A Loop runs the callbacks of its connections, one at a time. Post, Go and
// Index may be called from any goroutine; everything else only on the loop.
//
// One turn of a loop is: completed I/O, due timers, functions that were posted
// before this turn, a flush of every connection that was written to, a wait.
type Loop interface {
	// Post queues f to run in the next turn, in order, and wakes the loop if it
	// sleeps. It reports whether f will run: false says that the engine has
	// ended, and true is a promise. A panic in f is logged and does no harm. The
	// queue has no bound: who posts faster than the loop runs what is posted fills the
	// memory, and has the end of the engine wait until all of it has run.
	Post(f func()) bool

	// AfterFunc calls f on the loop after d, never early, and never inside this
	// call; a negative d is zero. Timers fire in order of deadline, then in
	// that in which they were armed (made, or Reset). The deadline of one of 16 ms or more may be rounded up to
	// the millisecond, so that those due at about the same time cost one wake-up. A loop
	// that was held up may run it before it hears of all that has come meanwhile: who
	// acts on silence looks once more a little later; IdleTimeout asks the kernel. The
	// timer belongs to the loop and outlives connections; it is dropped when the
	// engine ends.
	AfterFunc(d time.Duration, f func()) Timer

	// Every calls f each d from now on, by the schedule: a late call does not
	// shift those after it, and calls that were missed altogether are skipped.
	// d must be positive, also in Timer.Reset: they panic otherwise.
	Every(d time.Duration, f func()) Timer

	// Go runs work in a goroutine of its own, begun in the next turn at the latest,
	// and then done, with what work returned, on the loop. ctx is cancelled when the engine
	// stops, with ErrShutdown or its failure for a cause. A panic in work arrives as a
	// *PanicError. The engine waits for work at its end, but only until the deadline of Shutdown: done is not called
	// where work takes longer, and gets ErrEngineClosed where it could not begin.
	// Go returns false, and runs neither, if the engine has ended.
	Go(work func(ctx context.Context) error, done func(err error)) bool

	// Now is the time of this turn, with a monotonic reading: when it began, or a moment
	// later, when the first of its callbacks asked. All of them are told the same, and no
	// timer that one of them arms fires early by it.
	Now() time.Time

	// Index is the loop's number in its engine, from 0.
	Index() int
}

// A Timer is one AfterFunc or Every. Its methods may be called only on its
// loop.
type Timer interface {
	// Stop reports whether it prevented a call: false says that an AfterFunc
	// has fired, that the timer was stopped before, or, of a Transport's timer, that
	// its connection is ending and no call would have come.
	Stop() bool

	// Reset makes the timer fire after d (for Every: each d), whether it was
	// still pending or not. It reports whether it was pending. It allocates
	// nothing, so a protocol that sends by the clock needs one Timer.
	Reset(d time.Duration) bool

	// Missed is how many calls of an Every are skipped because this one comes so
	// late, or the last one came, if none runs now: who must keep a schedule does
	// that much more. It is 0 for an AfterFunc.
	Missed() int
}
