package poetry

import (
	"context"
	"time"

	"couplet"
)

// FetchAll fetches the poems at addrs all at once, on one loop of e, and waits
// for the last. Every address gets a Result; one that fails does not hold up the
// others. When ctx is done, what is under way ends with context.Cause(ctx).
//
// It must not be called on a loop of e.
func FetchAll(ctx context.Context, e couplet.Engine, addrs []Addr, o FetchOptions) Report {
	return run(ctx, e, addrs, o, len(addrs))
}

// FetchEach is FetchAll, but one poem after the other: the next fetch begins
// when the one before has ended, well or badly.
func FetchEach(ctx context.Context, e couplet.Engine, addrs []Addr, o FetchOptions) Report {
	return run(ctx, e, addrs, o, 1)
}

// A group is the fetches of one call. Its fields belong to the loop until done
// is closed.
type group struct {
	engine   couplet.Engine
	loop     couplet.Loop
	options  FetchOptions
	began    time.Time
	fetches  []*fetch
	next     int // of those not started
	left     int // of those not ended
	stopped  error
	results  []Result
	arrivals []Arrival
	elapsed  time.Duration
	done     chan struct{}
}

// run fetches addrs, at most width at once.
func run(ctx context.Context, e couplet.Engine, addrs []Addr, o FetchOptions, width int) Report {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	g := &group{
		engine: e, loop: e.Loops()[0], options: o,
		left: len(addrs), results: make([]Result, len(addrs)), done: make(chan struct{}),
	}
	for i, a := range addrs {
		g.fetches = append(g.fetches, &fetch{group: g, task: i + 1, addr: a})
		g.results[i] = Result{Task: i + 1, Addr: a, Err: couplet.ErrEngineClosed}
	}
	if len(addrs) == 0 {
		return Report{}
	}
	if !g.loop.Post(func() { g.begin(width) }) {
		return g.report()
	}
	stop := context.AfterFunc(ctx, func() {
		g.loop.Post(func() { g.cancel(context.Cause(ctx)) })
	})
	defer stop()
	select {
	case <-g.done:
	case <-e.Done(): // it failed: whoever was lost has been told so
		if err := e.Err(); err != nil {
			for i, f := range g.fetches {
				if !f.ended {
					g.results[i].Err = err
				}
			}
		}
	}
	return g.report()
}

func (g *group) report() Report { return Report{g.results, g.arrivals, g.elapsed} }

// begin starts the first fetches, each by itself: a hook that panics ends no other's start.
func (g *group) begin(width int) {
	g.began = g.loop.Now()
	for range width {
		g.loop.Post(g.startNext)
	}
}

// startNext starts the next fetch; after a cancellation it ends it at once.
func (g *group) startNext() {
	returned := false
	defer func() {
		if !returned && g.stopped != nil { // OnDone panicked: the others are ended all the same
			g.loop.Post(g.startNext)
		}
	}()
	for g.next < len(g.fetches) {
		f := g.fetches[g.next]
		g.next++
		if g.stopped == nil {
			f.start()
			break
		}
		g.ended(f, Result{Task: f.task, Addr: f.addr, Err: g.stopped})
	}
	returned = true
}

// ended takes a fetch's result.
func (g *group) ended(f *fetch, r Result) {
	f.ended = true
	g.results[f.task-1] = r
	defer g.count() // also if OnDone panics
	if g.options.OnDone != nil {
		g.options.OnDone(r)
	}
}

// count notes that one more has ended, and begins the next.
func (g *group) count() {
	g.left--
	if g.left == 0 {
		g.elapsed = g.loop.Now().Sub(g.began)
		close(g.done)
		return
	}
	// Not from inside this call: one refused address after another would be a
	// recursion as deep as the list.
	if g.next < len(g.fetches) && g.stopped == nil {
		g.loop.Post(g.startNext)
	}
}

// cancel, which is called once, ends all that is under way, and what has not begun.
func (g *group) cancel(cause error) {
	g.stopped = cause
	for _, f := range g.fetches[:g.next] {
		if !f.ended {
			f.cancel(cause)
		}
	}
	g.startNext()
}
