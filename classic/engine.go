package classic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
)

// Name is the name of this engine.
const Name = "goroutine"

// engine is the couplet.Engine of this package.
//
// It has ended when it was stopped, nothing is live any more and the loops have
// run everything that was posted. What counts as live is a listener, a dial and
// a connection; a function that Loop.Go runs counts too, until a Shutdown gives
// up on it.
type engine struct {
	cfg   couplet.Config
	log   *slog.Logger
	loops []*loop
	slots []couplet.Loop
	next  atomic.Uint32 // deals connections to loops
	count counters

	ctx      context.Context // done when the engine stops, with the cause
	cancel   context.CancelCauseFunc
	stopping sync.Once
	goids    sync.Map // numbers of the goroutines that make callbacks
	running  sync.WaitGroup
	done     chan struct{}
	crashing atomic.Bool // a panic is on its way to end the process

	mu        sync.Mutex // never held during a callback; taken with a loop's mutex held, never before it
	stopped   bool
	live      int
	works     int
	abandoned bool // do not wait for works
	failure   *couplet.EngineError
	listeners map[*listener]struct{}
	freed     chan struct{} // closed when a connection goes, if an accept waits for it
	drained   couplet.Drained
	cutCause  error
}

var _ couplet.Engine = (*engine)(nil)

// New starts an engine. It runs until Shutdown.
func New(cfg couplet.Config) (couplet.Engine, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	e := &engine{cfg: cfg, log: cfg.Logger, done: make(chan struct{}), listeners: map[*listener]struct{}{}}
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	for i := range cfg.Loops {
		l := newLoop(e, i)
		e.loops, e.slots = append(e.loops, l), append(e.slots, l)
	}
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	return e, nil
}

// Name is "goroutine".
func (e *engine) Name() string { return Name }

// Describe says what this engine is and how many loops it has.
func (e *engine) Describe() string {
	return fmt.Sprintf("goroutine per connection on package net, loops %d", len(e.loops))
}

// Loops are the engine's loops.
func (e *engine) Loops() []couplet.Loop { return e.slots }

// ListenPacket is not supported.
func (e *engine) ListenPacket(network, _ string, _ couplet.PacketProtocol, _ ...couplet.Option) (couplet.PacketListener, error) {
	return nil, &net.OpError{Op: "listen", Net: network, Err: couplet.ErrNotSupported}
}

// Done is closed when the engine has ended.
func (e *engine) Done() <-chan struct{} { return e.done }

// Err is the engine's failure, if it failed.
func (e *engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failure == nil {
		return nil
	}
	return e.failure
}

// Stop begins to end the engine.
func (e *engine) Stop() { e.stop(couplet.ErrShutdown) }

// stop returns when every loop was told, also where another goroutine is at it:
// what its caller asks of the loops next is for connections that know.
func (e *engine) stop(cause error) {
	e.stopping.Do(func() {
		e.mu.Lock()
		e.stopped = true
		for l := range e.listeners {
			l.Close()
		}
		e.mu.Unlock()
		e.cancel(cause)
		for _, l := range e.loops {
			l.Post(l.drain)
			l.wakeUp()
		}
		go func() {
			e.running.Wait()
			close(e.done)
		}()
	})
}

// Shutdown stops the engine and waits for its end.
func (e *engine) Shutdown(ctx context.Context) (couplet.Drained, error) {
	e.Stop()
	if e.onLoop() {
		return e.outcome(couplet.ErrOnLoop)
	}
	select {
	case <-e.done:
		return e.outcome(nil)
	case <-ctx.Done():
	}
	e.cut(context.Cause(ctx))
	select {
	case <-e.done:
		return e.outcome(nil)
	case <-time.After(cutGrace):
		return e.outcome(errors.New("couplet: a loop did not end: a callback does not return"))
	}
}

// cutGrace is how long Shutdown waits, after it has cut, for a callback to return.
const cutGrace = 5 * time.Second

// outcome is what became of the connections, with the engine's failure, err, or why
// some were cut.
func (e *engine) outcome(err error) (couplet.Drained, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.failure != nil:
		err = e.failure
	case err == nil && e.drained.Cut > 0:
		err = e.cutCause
	}
	return e.drained, err
}

// cut aborts what is still open at the deadline of a Shutdown.
func (e *engine) cut(cause error) {
	e.mu.Lock()
	e.abandoned = true
	if e.cutCause == nil {
		e.cutCause = cause
	}
	e.mu.Unlock()
	for _, l := range e.loops {
		l.cutting.Store(true)
		l.wakeUp()
	}
}

// fail ends the engine because a goroutine of it was ended from within.
func (e *engine) fail(cause error) {
	e.mu.Lock()
	first := e.failure == nil
	if first {
		e.failure = &couplet.EngineError{Engine: Name, Err: cause}
	}
	failure := e.failure
	e.abandoned = true
	e.mu.Unlock()
	if first {
		e.log.Error("engine failed", "engine", Name, "error", cause) // a Handler may ask the engine
	}
	e.stop(failure)
	for _, l := range e.loops {
		l.Post(func() { l.loseAll(failure) })
		l.wakeUp()
	}
}

// begin counts one more live thing. It reports false, and counts nothing, once
// the engine was stopped.
func (e *engine) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return false
	}
	e.live++
	return true
}

// end takes back one begin. Loops that waited for it may end then.
func (e *engine) end() {
	e.mu.Lock()
	e.live--
	e.wakeIfOver()
	e.mu.Unlock()
}

// wakeIfOver lets the loops end, if nothing keeps them. e.mu is held.
func (e *engine) wakeIfOver() {
	if e.isOver() {
		for _, l := range e.loops {
			l.wakeUp()
		}
	}
}

func (e *engine) isOver() bool {
	return e.stopped && e.live == 0 && (e.works == 0 || e.abandoned)
}

// over reports whether the loops may end as soon as they have run what was
// posted.
func (e *engine) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.isOver()
}

// gone notes the end of a connection: whoever waits for a descriptor to accept
// with may try again.
func (e *engine) gone() {
	e.mu.Lock()
	if e.freed != nil {
		close(e.freed)
		e.freed = nil
	}
	e.mu.Unlock()
}

// onNextFree is closed when the next connection goes.
func (e *engine) onNextFree() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.freed == nil {
		e.freed = make(chan struct{})
	}
	return e.freed
}

// report adds one connection to what Shutdown tells.
func (e *engine) report(cut bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.failure != nil: // it ended with the engine
	case cut:
		e.drained.Cut++
	default:
		e.drained.Clean++
	}
}

// pick chooses the loop of a new connection.
func (e *engine) pick() *loop {
	if e.cfg.Spread == couplet.LeastConnections {
		best := e.loops[0]
		for _, l := range e.loops[1:] {
			if l.load.Load() < best.load.Load() {
				best = l
			}
		}
		return best
	}
	return e.loops[(e.next.Add(1)-1)%uint32(len(e.loops))]
}

// past is a deadline that has passed: to set it wakes whoever waits in a system
// call on that descriptor.
var past = time.Unix(1, 0)

// networkOf is the network as an address names it: "tcp" or "unix".
func networkOf(a net.Addr) string {
	if a == nil {
		return "tcp"
	}
	return a.Network()
}
