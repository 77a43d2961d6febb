package classic

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
	"couplet/internal/timers"
)

// loop is a mutex, and what is guarded by it. Whoever holds the mutex is "on
// the loop" and may make callbacks.
type loop struct {
	e     *engine
	index int
	epoch time.Time
	load  atomic.Int64 // connections, for LeastConnections
	wake  chan struct{}

	cutting atomic.Bool // the next turn is to cut; not a post, which would wait for those before it

	mu      sync.Mutex
	now     time.Time // of this turn
	timers  timers.Queue
	dirty   []*conn // to look after at the end of the turn
	batch   []post  // posts taken for this turn and the next ones
	at      int     // how many of them have run
	drained bool

	// postMu guards what other goroutines reach. It is taken with mu held or
	// without, and never held during a callback.
	postMu sync.Mutex
	posts  []post
	closed bool
	conns  map[uint64]*conn
	nextID uint64
}

// post is a posted function, or what Handle does with a connection.
type post struct {
	f  func()
	id uint64
	n  int
	on func(couplet.Transport)
	c  *conn // where n counts
}

var (
	_ couplet.Loop        = (*loop)(nil)
	_ couplet.HandleOwner = (*loop)(nil)
)

func newLoop(e *engine, index int) *loop {
	now := time.Now()
	return &loop{e: e, index: index, epoch: now, now: now, wake: make(chan struct{}, 1), conns: map[uint64]*conn{}}
}

// Index is the loop's number.
func (l *loop) Index() int { return l.index }

// Now is when this turn began.
func (l *loop) Now() time.Time { return l.now }

// Post queues f.
func (l *loop) Post(f func()) bool { return l.push(post{f: f}) == nil }

// PostConn queues f for a connection.
func (l *loop) PostConn(id uint64, n int, f func(couplet.Transport)) error {
	return l.push(post{id: id, n: n, on: f})
}

func (l *loop) push(p post) error {
	l.postMu.Lock()
	defer l.postMu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if p.on != nil {
		c := l.conns[p.id]
		if c == nil {
			return net.ErrClosed
		}
		if p.n > 0 && c.posted.Add(int64(p.n))+c.queued.Load() > int64(c.o.MaxOutbound) {
			c.posted.Add(int64(-p.n))
			return couplet.ErrOutboundFull
		}
		p.c = c
	}
	l.posts = append(l.posts, p)
	if len(l.posts) == 1 {
		l.wakeUp()
	}
	return nil
}

// wakeUp ends the sleep of the loop's own goroutine.
func (l *loop) wakeUp() {
	select {
	case l.wake <- struct{}{}:
		l.e.count.wakes.Add(1)
	default:
	}
}

// Go runs work in a goroutine of its own.
func (l *loop) Go(work func(context.Context) error, done func(error)) bool {
	l.postMu.Lock()
	defer l.postMu.Unlock()
	if l.closed {
		return false
	}
	e := l.e
	e.mu.Lock()
	e.works++
	e.mu.Unlock()
	go func() {
		err := errors.New("couplet: the work of Loop.Go ended its goroutine by runtime.Goexit")
		defer func() {
			if v := recover(); v != nil {
				err = &couplet.PanicError{Value: v, Stack: debug.Stack()}
			}
			if !l.Post(func() { defer e.worked(); done(err) }) {
				e.worked()
			}
		}()
		err = work(e.ctx)
	}()
	return true
}

// worked takes back the count of one Go.
func (e *engine) worked() {
	e.mu.Lock()
	e.works--
	e.wakeIfOver()
	e.mu.Unlock()
}

// enter begins a turn.
func (l *loop) enter() {
	l.mu.Lock()
	l.now = time.Now()
	l.e.count.turns.Add(1)
}

// leave ends a turn. The connections that were written to go to f, for the
// caller to flush when the mutex is free. It is to be deferred, so that the
// turn ends whatever a callback does.
func (l *loop) leave(f *flusher) {
	defer l.mu.Unlock()
	if l.e.crashing.Load() {
		return
	}
	for i := 0; i < len(l.dirty); i++ { // a callback in here may add to it
		l.dirty[i].dirty = false
		l.dirty[i].checkFlow()
	}
	f.list = append(f.list, l.dirty...)
	l.dirty = trimmed(l.dirty)
}

// call makes one callback, on the loop. A panic in it costs the connection c,
// or nothing where c is nil.
func (l *loop) call(c *conn, what string, f func()) {
	ok := false
	defer l.protect(c, what, &ok)
	f()
	ok = true
}

// protect is deferred around every callback; *ok says that it returned.
func (l *loop) protect(c *conn, what string, ok *bool) {
	if *ok {
		return
	}
	v := recover()
	if v == nil {
		l.e.fail(errors.New("runtime.Goexit was called in " + what + " (a t.Fatal, perhaps)"))
		return
	}
	if l.e.cfg.OnPanic == couplet.PanicCrashes {
		l.e.crashing.Store(true)
		panic(v)
	}
	err := &couplet.PanicError{Value: v, Stack: debug.Stack()}
	l.e.count.panics.Add(1)
	l.e.log.Error("panic in a callback", "engine", Name, "callback", what, "panic", v, "stack", string(err.Stack))
	if c != nil {
		c.panicked(err)
	}
}

// run is the goroutine of a loop's timers and posted functions.
func (l *loop) run() {
	id := l.e.enter()
	finished := false
	defer func() {
		l.e.leave(id)
		if !finished && !l.e.crashing.Load() { // by runtime.Goexit in a callback
			l.e.running.Go(l.run)
		}
	}()
	sleep := time.NewTimer(0)
	defer sleep.Stop()
	var f flusher
	for {
		wait, idle := l.turn(&f)
		f.run()
		if !idle {
			continue
		}
		if l.ended() {
			break
		}
		l.e.count.sleeps.Add(1)
		if wait < 0 {
			<-l.wake
			continue
		}
		sleep.Reset(wait)
		select {
		case <-l.wake:
		case <-sleep.C:
		}
	}
	finished = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timers.Clear()
}

// turn fires what is due and runs what was posted before it began. It tells how
// long to sleep then (negative: until woken), or that there is more to do.
func (l *loop) turn(f *flusher) (wait time.Duration, idle bool) {
	l.enter()
	defer l.leave(f)
	if l.cutting.Swap(false) {
		l.cut()
	}
	if l.at == len(l.batch) {
		empty := trimmed(l.batch)
		l.postMu.Lock()
		l.batch, l.posts, l.at = l.posts, empty, 0
		l.postMu.Unlock()
	}
	now, before := l.now.Sub(l.epoch), l.timers.Seq()
	for t := l.timers.PopDue(now, before); t != nil; t = l.timers.PopDue(now, before) {
		t.F()
	}
	for n := 0; l.at < len(l.batch) && n < l.e.cfg.PostsPerTurn; n++ {
		p := l.batch[l.at]
		l.batch[l.at] = post{}
		l.at++
		l.runPost(p)
	}
	if l.at < len(l.batch) {
		return 0, false
	}
	at, any := l.timers.Next()
	if !any {
		return -1, true
	}
	return max(at-time.Since(l.epoch), 0), true
}

// trimmed is s without what was in it, nor room for a burst like the last.
func trimmed[T any](s []T) []T {
	clear(s)
	if cap(s) > 1024 {
		return nil
	}
	return s[:0]
}

func (l *loop) runPost(p post) {
	l.e.count.posted.Add(1)
	if p.on == nil {
		l.call(nil, "a posted function", p.f)
		return
	}
	p.c.posted.Add(int64(-p.n))
	if p.c.state == lost {
		l.call(nil, "a posted function", func() { p.on(nil) })
		return
	}
	l.call(p.c, "a function posted to the connection", func() { p.on(p.c) })
}

// ended closes the loop if the engine is over, to functions that post themselves too. It
// reports whether nothing is left to run.
func (l *loop) ended() bool {
	l.postMu.Lock() // else a Go in between would be promised, and forgotten
	defer l.postMu.Unlock()
	if !l.e.over() {
		return false
	}
	l.closed = true
	return len(l.posts) == 0
}

// each calls f for the loop's connections in the order they came.
func (l *loop) each(f func(c *conn)) {
	l.postMu.Lock()
	all := make([]*conn, 0, len(l.conns))
	for _, c := range l.conns {
		all = append(all, c)
	}
	l.postMu.Unlock()
	slices.SortFunc(all, func(a, b *conn) int { return int(int64(a.id - b.id)) })
	for _, c := range all {
		f(c)
	}
}

// drain tells the connections, once, that the engine stops.
func (l *loop) drain() {
	if l.drained {
		return
	}
	l.drained = true
	if err := l.e.Err(); err != nil { // else a stream that is cut ends with a FIN
		l.loseAll(err)
		return
	}
	l.each(func(c *conn) {
		if !c.made {
			return
		}
		c.counted = true
		if c.state != open {
			return
		}
		if h := c.draining; h != nil {
			l.call(c, "Draining", func() { h.Draining(c) })
			return
		}
		c.close(couplet.ErrShutdown)
	})
}

// cut aborts what is still open.
func (l *loop) cut() {
	l.drain() // that post may be far back
	l.each(func(c *conn) {
		c.cut = c.state < dying
		c.end(couplet.ErrShutdown, true)
	})
}

// loseAll aborts everything because the engine failed.
func (l *loop) loseAll(failure error) {
	l.each(func(c *conn) { c.end(failure, true) })
}
