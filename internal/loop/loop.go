//go:build linux

package loop

import (
	"context"
	"fmt"
	"math/bits"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/sock"
	"couplet/internal/timers"
)

var (
	_ couplet.Loop        = (*Loop)(nil)
	_ couplet.HandleOwner = (*Loop)(nil)
)

// Loop is one event loop: a goroutine locked to its thread, a Driver, the
// connections on it. A driver makes its reports through the methods Awake,
// Accepted, AcceptStopped, Connected, Received, ReceiveEnded, Sent and Closed,
// from inside Wait and nowhere else.
type Loop struct {
	// Trace, if not nil, sees every operation and every report. It is set
	// before the loop starts; TraceTo is for one that runs.
	Trace func(Event)
	hook  func(at time.Time, layer, what string, n int, failed string) // of TraceTo

	engine  *Engine
	index   int
	config  *couplet.Config
	driver  Driver
	sockets Sockets
	thread  atomic.Int64 // the thread's id, once it runs

	epoch  time.Time
	clock  func() time.Duration // since epoch
	now    time.Duration        // see time
	looked bool                 // at the clock, for now
	turn   uint64

	rested  bool                 // nothing was queued when Rest was asked last
	failure *couplet.EngineError // why the loop ends before its time
	yielded time.Duration        // when yield last did

	segments segments
	timers   timers.Queue
	open     int // connections that are no dials

	dirty []*Conn // written to in this turn
	ready []*Conn // set back until the next turn
	over  []*Conn // perhaps beyond a watermark
	spare []*Conn // what ready and over were, to be used again

	listeners map[*Listener]struct{}
	starving  atomic.Int32 // listeners that wait for a descriptor or a place
	dials     map[*dial]struct{}
	works     atomic.Int32 // Go calls whose done has not run

	posts   posts
	backlog *post // taken from posts, over PostsPerTurn
	asleep  atomic.Bool
	wakes   atomic.Int64

	stopping bool
	draining bool // cut was not called yet
	ending   bool // only posted functions are left
	calling  bool // a callback is running

	load  atomic.Int64 // connections, also those on their way here, and dials
	count couplet.Stats
	stats struct {
		sync.Mutex
		couplet.Stats
	}

	slab slab // last, since it is large
}

// What a driver may ask of a Loop.

// Config is the engine's configuration.
func (l *Loop) Config() *couplet.Config { return l.config }

// Rest is how long a driver may wait now: at most limit (negative: for as long as
// nothing is due), and not at all where work remains. A driver asks for it once in each
// Wait, when it has reported what is done already: from then on Post wakes it.
func (l *Loop) Rest(limit time.Duration) time.Duration {
	timeout := l.timeout()
	if limit >= 0 && (timeout < 0 || timeout > limit) {
		timeout = limit
	}
	l.publish()
	if timeout == 0 {
		return 0
	}
	l.rested = true
	l.asleep.Store(true)
	if !l.posts.empty() { // posted before it could see that we sleep
		return 0
	}
	l.count.Sleeps++
	return timeout
}

// Count is the loop's counters. They are the loop's own: no other goroutine.
func (l *Loop) Count() *couplet.Stats { return &l.count }

// Brought takes note of a wait that brought n completions or readiness events.
func (l *Loop) Brought(n int) {
	if n > 0 {
		l.count.Events += int64(n)
		l.count.Batches[min(bits.Len(uint(n)), len(l.count.Batches))-1]++
	}
}

// The driver's reports.

// Awake says that the wait is over and that reports follow.
func (l *Loop) Awake() {
	l.asleep.Store(false)
	l.looked = false
	if l.timers.Len() > 0 {
		l.time() // now: what a callback holds up is not to be overtaken by a timer
	}
	if l.rested { // then what was posted since came from elsewhere
		l.rested = false
		l.takePosts()
	}
}

// Connected reports the outcome of Connect.
func (l *Loop) Connected(c *Conn, errno syscall.Errno) {
	if c.state == connecting {
		c.connected(errno)
	}
}

// Received reports bytes that came, lent for the length of the call.
func (l *Loop) Received(c *Conn, data []byte, lent Lent) {
	l.count.Receives++
	l.count.BytesReceived += int64(len(data))
	c.trace(TraceReceived, len(data), 0)
	c.received(data, lent)
}

// Push sends what c has queued, if that is much. A driver calls it between reports of what
// it receives one by one: by the end of the turn the bytes would have left the cache.
func (l *Loop) Push(c *Conn) {
	if c.queued >= Bulk && !c.sending {
		c.flush()
	}
}

// Bulk is what is much: the next that is received or sent may drive it out of the cache.
const Bulk = 16 << 10

// ReceiveEnded reports that no more will come: the peer's FIN, or an error.
func (l *Loop) ReceiveEnded(c *Conn, errno syscall.Errno) {
	if c.state < closing {
		c.trace(TraceEnded, 0, errno)
		c.receiveEnded(errno)
	}
}

// Sent reports the end of a send, of which the kernel took n bytes.
func (l *Loop) Sent(c *Conn, n int, errno syscall.Errno) {
	l.count.Sends++
	if c.state < closing {
		c.trace(TraceSent, n, errno)
		c.sent(n, errno)
	}
}

// Closed reports that c's descriptor is closed and the kernel holds nothing of c.
func (l *Loop) Closed(c *Conn) { c.closed() }

// runLoop is the loop's life, on its own locked thread. started gets the error
// of the start, or nil.
func (l *Loop) runLoop(newDriver func(*Loop) (Driver, error), started chan<- error) {
	runtime.LockOSThread()
	if cpus := l.config.CPUs; len(cpus) > 0 {
		var set unix.CPUSet
		set.Set(cpus[l.index%len(cpus)])
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			started <- fmt.Errorf("couplet: loop %d cannot be pinned to CPU %d of Config.CPUs (taskset -p %d tells which it may have): %w",
				l.index, cpus[l.index%len(cpus)], os.Getpid(), err)
			return
		}
	}
	driver, err := newDriver(l)
	if err != nil {
		started <- err
		return
	}
	l.start(driver)
	started <- nil
	returned := false
	defer func() {
		if l.calling || err == nil && !returned { // only a Goexit leaves like this
			err = errGoexit
		}
		if err != nil {
			l.rundown(err)
			return
		}
		l.finish()
	}()
	for !l.Ended() {
		if err = l.Turn(-1); err != nil {
			return
		}
		l.yield()
	}
	if err := l.End(); err != nil {
		l.config.Logger.Warn("closing the driver", "engine", l.engine.name, "error", err)
	}
	returned = true
}

// rundown is the end of a loop that failed. The Goexit of a callback that is told of
// it ends this goroutine; then another one goes on, with those who were not told yet.
func (l *Loop) rundown(cause error) {
	runtime.LockOSThread()
	l.thread.Store(int64(unix.Gettid()))
	l.calling = false
	defer func() {
		if l.calling {
			go l.rundown(cause)
			return
		}
		l.finish()
	}()
	l.fail(cause)
}

// finish is the last that a loop does: its thread's number will be another's.
func (l *Loop) finish() {
	l.time() // else who asks for it from now on, from anywhere, would look
	l.thread.Store(0)
	l.engine.loopEnded()
}

// yield passes through Go's scheduler now and then. To its monitor a loop looks
// like a goroutine that never gives way, since it does not: after 10 ms the monitor
// begins to take the processor from each of its waits, which costs a lone
// connection a third of all its time. Threads change hands in Gosched, so it is
// for busy loops only, and seldom.
func (l *Loop) yield() {
	if l.turn%8 == 0 && l.time()-l.yielded >= 5*time.Millisecond {
		l.yielded = l.now
		runtime.Gosched()
	}
}

// time is the turn's: when it began, or later, where nobody has asked before. Who does not
// ask does without a look at the clock.
func (l *Loop) time() time.Duration {
	if !l.looked {
		l.looked = true
		l.now = l.clock()
	}
	return l.now
}

func (l *Loop) start(d Driver) {
	l.driver = d
	l.thread.Store(int64(unix.Gettid()))
}

// Turn is one turn of the loop. It waits for at most limit (negative: for as
// long as nothing is due). An error is the end of the loop.
func (l *Loop) Turn(limit time.Duration) error {
	l.looked = false // something may be reported before the wait
	l.takePosts()
	if err := l.driver.Wait(limit); err != nil {
		return err
	}
	l.count.Turns++
	l.turn++
	l.pauseWriters()
	l.fireTimers()
	l.runPosts()
	l.drainReady()
	l.flush()
	return nil
}

// timeout is how long the loop may sleep: not at all if work remains, or until
// the next timer.
func (l *Loop) timeout() time.Duration {
	if len(l.ready) > 0 || len(l.over) > 0 || len(l.dirty) > 0 || l.backlog != nil || !l.posts.empty() || l.Ended() {
		return 0
	}
	at, ok := l.timers.Next()
	if !ok {
		return -1
	}
	return max(at-l.clock(), 0)
}

// pauseWriters tells those whom the last flush left above their high watermark, and
// those whose marks were moved.
func (l *Loop) pauseWriters() {
	if len(l.over) == 0 {
		return
	}
	over := l.over
	l.over = l.spare[:0]
	for i, c := range over {
		over[i] = nil
		c.overQueued = false
		c.tellFlow()
	}
	l.spare = over[:0]
}

// timersPerTurn is how many timers fire before what they have written is sent and
// I/O has its turn: a loop that has fallen behind catches up in steps that the
// cache holds.
const timersPerTurn = 256

// fireTimers runs what is due and was armed before this turn's timers began.
func (l *Loop) fireTimers() {
	if l.timers.Len() == 0 {
		return
	}
	now, before := l.time(), l.timers.Seq()
	for range timersPerTurn {
		t := l.timers.PopDue(now, before)
		if t == nil {
			return
		}
		l.count.Timers++
		l.run("timer", t.F)
	}
}

// takePosts sees to it that what is posted from now on runs in the next turn.
func (l *Loop) takePosts() {
	if l.backlog == nil && !l.posts.empty() {
		l.backlog = l.posts.take()
	}
}

// runPosts runs what was posted before this turn's callbacks began.
func (l *Loop) runPosts() {
	for n := 0; l.backlog != nil && n < l.config.PostsPerTurn; n++ {
		l.runPost()
	}
}

// runPost runs the first of the backlog. It is off the list by then: what is
// behind it is not forgotten if it does not return.
func (l *Loop) runPost() {
	p := l.backlog
	l.backlog = p.next
	l.count.Posted++
	l.run("posted function", p.f)
}

// lastPosts runs what was posted, and refuses what comes after.
func (l *Loop) lastPosts() {
	for l.backlog != nil {
		l.runPost()
	}
	for l.backlog = l.posts.end(); l.backlog != nil; {
		l.runPost()
	}
}

// drainReady serves the connections that were set back or resumed.
func (l *Loop) drainReady() {
	if len(l.ready) == 0 {
		return
	}
	ready := l.ready
	l.ready = l.spare[:0]
	for i, c := range ready {
		ready[i] = nil
		c.ready = false
		c.drain()
	}
	l.spare = ready[:0]
}

// flush sends what this turn's callbacks have written.
func (l *Loop) flush() {
	for i := 0; i < len(l.dirty); i++ { // a flush may write again
		c := l.dirty[i]
		l.dirty[i] = nil
		c.dirty = false
		c.flush()
	}
	l.dirty = l.dirty[:0]
}

func (l *Loop) publish() {
	l.count.Open = int64(l.open)
	l.count.Listening = int64(len(l.listeners))
	l.stats.Lock()
	l.stats.Stats = l.count
	l.stats.Unlock()
}

func (l *Loop) snapshot() couplet.Stats {
	l.stats.Lock()
	defer l.stats.Unlock()
	s := l.stats.Stats
	s.Wakes = l.wakes.Load()
	return s
}

// adopt makes a connection of an accepted descriptor, which is in load already.
func (l *Loop) adopt(fd int, o *origin) {
	remote, err := l.sockets.Peer(fd)
	if err != nil || l.stopping { // reset, or the end came, before we looked
		l.count.AcceptIgnored++
		l.turnAway(fd, o)
		return
	}
	c := newConn(l, fd, o)
	c.setRemote(remote)
	if !l.slab.put(c) {
		l.turnAway(fd, o)
		return
	}
	l.count.Accepted++
	l.entered()
	c.start()
}

func (l *Loop) entered() {
	l.open++
	l.segments.serve(l.open)
}

// turnAway ends an accepted connection that nobody has heard of, by a reset: a FIN
// would be a complete answer of no bytes.
func (l *Loop) turnAway(fd int, o *origin) {
	l.load.Add(-1)
	l.sockets.Reset(fd)
	o.leave(l)
}

// forget is the loop's side of a connection's end.
func (l *Loop) forget(c *Conn) {
	l.open--
	l.segments.serve(l.open)
	l.load.Add(-1)
	if l.stopping && c.made {
		l.engine.drained(c.cut)
	}
	if o := c.origin; checked && o.usual != nil && *o.usual != *newRare(o) {
		panic("couplet: what all connections of a listener share was written")
	}
	c.origin.leave(l)
}

// check panics where what belongs to the loop is used off it, in builds that look. A
// loop that has ended belongs to nobody.
func (l *Loop) check() {
	if checked && !l.onThread() && l.thread.Load() != 0 {
		panic("couplet: a method of a Transport, Loop or Timer was called off its loop; use t.Handle(), or Loop.Post")
	}
}

// onThread reports whether the caller runs on the loop.
func (l *Loop) onThread() bool { return l.thread.Load() == int64(unix.Gettid()) }

// Post implements couplet.Loop, for any goroutine.
func (l *Loop) Post(f func()) bool {
	if !l.posts.push(f) {
		return false
	}
	if l.asleep.Load() && l.asleep.CompareAndSwap(true, false) {
		l.wakes.Add(1)
		l.driver.Wake()
	}
	return true
}

// Index implements couplet.Loop.
func (l *Loop) Index() int { return l.index }

// Now implements couplet.Loop.
func (l *Loop) Now() time.Time {
	l.check()
	return l.epoch.Add(l.time())
}

// AfterFunc implements couplet.Loop.
func (l *Loop) AfterFunc(d time.Duration, f func()) couplet.Timer {
	l.check()
	return l.afterFunc(d, f)
}

// Every implements couplet.Loop.
func (l *Loop) Every(d time.Duration, f func()) couplet.Timer {
	l.check()
	if d <= 0 {
		panic("couplet: Every needs a positive period")
	}
	t := &timer{loop: l}
	t.F, t.Period = f, d
	l.setTimer(&t.Timer, d)
	return t
}

func (l *Loop) afterFunc(d time.Duration, f func()) *timer {
	t := &timer{loop: l}
	t.F = f
	l.setTimer(&t.Timer, d)
	return t
}

// coarse is the delay from which on a timer may be up to a millisecond late, so
// that those that are due at about the same time are due at once.
const coarse = 16 * time.Millisecond

// setTimer arms t by a fresh look at the clock, so that it is never early, by what Now
// says in this turn neither.
func (l *Loop) setTimer(t *timers.Timer, d time.Duration) {
	l.time()
	t.Coarse = d >= coarse
	l.timers.Add(t, timers.Deadline(l.clock(), d))
}

// timer is a couplet.Timer.
type timer struct {
	timers.Timer
	loop *Loop

	// A connection's timer goes with it: while armed it is in the list conn.own.
	conn       *Conn
	owned      bool
	prev, next *timer
}

func (t *timer) own() {
	if t.conn == nil || t.owned {
		return
	}
	t.owned = true
	t.next = t.conn.own
	if t.next != nil {
		t.next.prev = t
	}
	t.conn.set().own = t
}

func (t *timer) disown() {
	if !t.owned {
		return
	}
	if t.prev == nil {
		t.conn.set().own = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.owned, t.prev, t.next = false, nil, nil
}

// Stop implements couplet.Timer.
func (t *timer) Stop() bool {
	t.loop.check()
	t.disown()
	return t.loop.timers.Remove(&t.Timer) && !t.over()
}

// over reports whether t belongs to a connection that is not open any more: then
// it calls nobody.
func (t *timer) over() bool { return t.conn != nil && t.conn.state != open }

// Missed implements couplet.Timer.
func (t *timer) Missed() int {
	t.loop.check()
	return t.Timer.Missed()
}

// Reset implements couplet.Timer.
func (t *timer) Reset(d time.Duration) bool {
	t.loop.check()
	pending := t.Pending()
	if t.over() {
		return false
	}
	t.own()
	if t.Period > 0 {
		if d <= 0 {
			panic("couplet: Every needs a positive period")
		}
		t.Period = d
	}
	t.loop.setTimer(&t.Timer, d)
	return pending
}

// Go implements couplet.Loop, for any goroutine.
func (l *Loop) Go(work func(ctx context.Context) error, done func(err error)) bool {
	l.works.Add(1) // now: the loop may be about to end, as in the last callback of all
	posted := l.Post(func() {
		if l.ending {
			l.works.Add(-1)
			done(couplet.ErrEngineClosed)
			return
		}
		go l.work(work, done)
	})
	if !posted {
		l.works.Add(-1)
	}
	return posted
}

// work runs in a goroutine of its own.
func (l *Loop) work(work func(ctx context.Context) error, done func(err error)) {
	err := errGoexitWork
	defer func() {
		if v := recover(); v != nil {
			err = newPanicError(v)
		}
		l.Post(func() {
			l.works.Add(-1)
			done(err)
		})
	}()
	err = work(l.engine.ctx)
}

// Ended reports whether the loop was stopped and has nothing left to wait for.
func (l *Loop) Ended() bool {
	return l.stopping && l.open == 0 && len(l.listeners) == 0 && len(l.dials) == 0 &&
		(l.works.Load() == 0 || !l.draining)
}

// End runs what was still posted, refuses what comes after, and closes the
// driver.
func (l *Loop) End() error {
	l.ending = true
	l.lastPosts()
	err := l.driver.Shutdown()
	l.letGo()
	return err
}

// letGo gives up what an ended loop has of memory and of its users.
func (l *Loop) letGo() {
	l.timers.Clear()
	l.segments = segments{}
	l.count.Held = 0
	l.publish()
}

// stop begins the end: no accepts, no dials, and every protocol is told.
func (l *Loop) stop() {
	if l.stopping {
		return
	}
	l.stopping, l.draining = true, true
	for ln := range l.listeners {
		ln.stop()
	}
	for d := range l.dials {
		d.giveUp(couplet.ErrShutdown)
	}
	l.slab.each(func(c *Conn) {
		if c.state == open {
			l.stopConn(c)
		}
	})
}

func (l *Loop) stopConn(c *Conn) {
	if h, ok := c.proto.(couplet.DrainHandler); ok {
		c.callDraining(h)
		return
	}
	c.Close()
	if c.state == flushing { // where sending had failed, that is the reason
		c.set().reason = couplet.ErrShutdown
	}
}

// cut aborts what did not drain in time. It may come before the stop of another
// goroutine that is about to post it.
func (l *Loop) cut() {
	l.stop()
	l.draining = false
	l.slab.each(func(c *Conn) {
		if c.state != connecting && c.state < closing {
			c.cut = true
			c.fail(couplet.ErrShutdown)
		}
	})
}

// fail ends the loop where it stands: the driver is gone, so descriptors are
// closed here, by a reset, since what is cut must not look complete, and
// everybody is told. Where a callback kept it from returning, it is called again and
// goes on.
func (l *Loop) fail(cause error) {
	if l.failure == nil {
		l.failure = &couplet.EngineError{Engine: l.engine.name, Err: cause}
		l.abandon(l.failure)
	}
	l.slab.each((*Conn).closed)
	for ln := range l.listeners {
		ln.release()
	}
	for d := range l.dials {
		d.fail(l.failure)
	}
	l.lastPosts()
	l.letGo()
}

// abandon ends everything that a failed loop has, and tells nobody yet.
func (l *Loop) abandon(err *couplet.EngineError) {
	l.stopping, l.draining, l.ending = true, false, true
	l.engine.failed(err)
	l.driver.Shutdown()
	l.slab.each(func(c *Conn) {
		if c.state != closing { // else the driver has closed the descriptor
			c.LocalAddr() // while there is a descriptor to ask
			l.sockets.Reset(c.FD())
			c.set().reason = err
			c.state = closing // all of them, before one is told: it may turn to another
		}
		c.dropInbound()
		if c.dial != nil {
			c.dial.given, c.dial.err = true, err
		}
	})
}

// failWith ends a loop that is well because another one of its engine failed.
func (l *Loop) failWith(err error) {
	for d := range l.dials {
		d.giveUp(err)
	}
	l.slab.each(func(c *Conn) {
		if c.state != connecting {
			c.fail(err)
		}
	})
	l.stop() // nobody is left to be asked to drain
	l.draining = false
}

// dialError is the error of an attempt to connect.
func dialError(network string, remote net.Addr, call string, errno syscall.Errno) error {
	return sock.OpError("dial", network, nil, remote, call, errno)
}
