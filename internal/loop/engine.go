//go:build linux

package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"couplet"
	"couplet/internal/sock"
)

var _ couplet.Engine = (*Engine)(nil)

// Engine is a couplet.Engine of one or more Loops over one kind of Driver.
type Engine struct {
	name     string
	describe string
	config   couplet.Config
	sockets  Sockets
	loops    []*Loop
	public   []couplet.Loop

	ctx      context.Context // of Loop.Go and of name look-ups
	cancel   context.CancelCauseFunc
	stopped  atomic.Bool
	running  atomic.Int32
	done     chan struct{}
	starving atomic.Int32 // listeners that wait for a descriptor or a place
	turn     atomic.Uint32

	mu       sync.Mutex
	err      error
	clean    int
	cut      int
	cutCause error // of those, what the first Shutdown to cut was told
}

// NewEngine makes an engine whose loops run the drivers that newDriver makes,
// each on its loop's own locked thread. Where one cannot start, the others are
// torn down and the first error is returned.
func NewEngine(name string, config couplet.Config, sockets Sockets, newDriver func(*Loop) (Driver, error)) (*Engine, error) {
	if err := makePoller(); err != nil {
		return nil, err
	}
	e, err := Prepare(name, config, sockets)
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	var first error
	for _, l := range e.loops {
		go l.runLoop(newDriver, started)
		if err := <-started; err != nil {
			first = err
			e.running.Add(-int32(len(e.loops) - l.index))
			break
		}
	}
	if first != nil {
		e.Stop()
		if e.running.Load() > 0 {
			<-e.done
		}
		return nil, first
	}
	return e, nil
}

// makePoller has Go's runtime make its own poller now. Otherwise it makes that for the
// first timer of the process, be it the garbage collector's, and ends the process where
// no descriptor is left by then.
func makePoller() error {
	w1, err := NewWaker()
	if err != nil {
		return err
	}
	w2, err := NewWaker()
	w1.Close()
	if err != nil {
		return err
	}
	w2.Close()
	time.AfterFunc(time.Hour, func() {}).Stop() // there is room for the two that it needs
	return nil
}

// Prepare makes an engine whose loops do not run yet.
func Prepare(name string, config couplet.Config, sockets Sockets) (*Engine, error) {
	config, err := config.WithDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{name: name, config: config, sockets: sockets, done: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	epoch := time.Now()
	for i := range config.Loops {
		l := &Loop{
			engine: e, index: i, config: &e.config, sockets: sockets,
			epoch: epoch, clock: func() time.Duration { return time.Since(epoch) },
			listeners: make(map[*Listener]struct{}),
			dials:     make(map[*dial]struct{}),
		}
		e.loops = append(e.loops, l)
		e.public = append(e.public, l)
	}
	e.running.Store(int32(config.Loops))
	return e, nil
}

// SetDescription sets what Describe says; it is called before the engine is
// handed out.
func (e *Engine) SetDescription(s string) { e.describe = s }

// Name implements couplet.Engine.
func (e *Engine) Name() string { return e.name }

// Describe implements couplet.Engine.
func (e *Engine) Describe() string { return e.describe }

// Loops implements couplet.Engine.
func (e *Engine) Loops() []couplet.Loop { return e.public }

// pick is the loop that gets the next connection.
func (e *Engine) pick() *Loop {
	if len(e.loops) == 1 {
		return e.loops[0]
	}
	if e.config.Spread == couplet.LeastConnections {
		least := e.loops[0]
		for _, l := range e.loops[1:] {
			if l.load.Load() < least.load.Load() {
				least = l
			}
		}
		return least
	}
	return e.loops[(e.turn.Add(1)-1)%uint32(len(e.loops))]
}

func newOrigin(network string, f couplet.Factory, opts []couplet.Option) (origin, error) {
	o, err := couplet.NewOptions(opts...)
	if err == nil && f == nil {
		err = errors.New("couplet: the Factory is nil")
	}
	return origin{network: network, unix: strings.HasPrefix(network, "unix"), opts: &o, factory: f}, err
}

// Listen implements couplet.Engine.
func (e *Engine) Listen(network, address string, f couplet.Factory, opts ...couplet.Option) (couplet.Listener, error) {
	if e.stopped.Load() {
		return nil, couplet.ErrEngineClosed
	}
	n := &listener{engine: e, done: make(chan struct{})}
	var err error
	if n.origin, err = newOrigin(network, f, opts); err != nil {
		return nil, err
	}
	n.listener, n.usual = n, newRare(&n.origin)
	count := 1
	if e.config.Spread == couplet.ReusePort && !n.unix {
		count = len(e.loops)
	}
	fds, addr, err := e.sockets.Listen(network, address, n.opts, count)
	if err != nil {
		return nil, err
	}
	n.addr = addr
	if a, ok := addr.(*net.TCPAddr); (!ok || !a.IP.IsUnspecified()) && n.opts.Control == nil && n.opts.File == nil {
		n.local = addr // else, with IP_TRANSPARENT, a connection may have another
	}
	if n.unix && n.opts.File == nil {
		n.path = sock.OwnUnixPath(addr)
	}
	n.left.Store(int32(len(fds)))
	for i, fd := range fds {
		n.sockets = append(n.sockets, &Listener{listener: n, loop: e.loops[i%len(e.loops)], fd: fd})
	}
	for _, ln := range n.sockets {
		if !ln.loop.Post(ln.begin) {
			n.path.Unlink()
			e.sockets.Release(ln.fd)
			err = couplet.ErrEngineClosed
		}
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Dial implements couplet.Engine.
func (e *Engine) Dial(ctx context.Context, network, address string, f couplet.Factory, opts ...couplet.Option) error {
	if e.stopped.Load() {
		return couplet.ErrEngineClosed
	}
	if ctx == nil {
		return errors.New("couplet: Dial was given no context; use context.Background()")
	}
	o, err := newOrigin(network, f, opts)
	if err != nil {
		return err
	}
	d := &dial{origin: &o, ctx: ctx, address: address}
	sa, numeric, err := e.sockets.Parse(network, address)
	if err != nil {
		return err
	}
	if numeric {
		d.addrs = []sock.Sockaddr{sa}
	}
	if d.loop, err = e.loopFor(d.opts.Loop); err != nil {
		return err
	}
	d.loop.load.Add(1)
	if !d.loop.Post(d.begin) {
		d.loop.load.Add(-1)
		return couplet.ErrEngineClosed
	}
	return nil
}

func (e *Engine) loopFor(want couplet.Loop) (*Loop, error) {
	if want == nil {
		return e.pick(), nil
	}
	if l, ok := want.(*Loop); ok && l.engine == e {
		return l, nil
	}
	return nil, fmt.Errorf("couplet: OnLoop was given a loop of another engine; take one of %s's Loops", e.name)
}

// ListenPacket implements couplet.Engine.
func (e *Engine) ListenPacket(network, address string, p couplet.PacketProtocol, opts ...couplet.Option) (couplet.PacketListener, error) {
	return nil, &net.OpError{Op: "listen", Net: network, Err: couplet.ErrNotSupported}
}

// Stats implements couplet.Engine.
func (e *Engine) Stats() couplet.Stats {
	var sum couplet.Stats
	for _, l := range e.loops {
		sum = sum.Add(l.snapshot())
	}
	return sum
}

// Stop implements couplet.Engine.
func (e *Engine) Stop() {
	if e.stopped.Swap(true) {
		return
	}
	e.cancel(couplet.ErrShutdown)
	for _, l := range e.loops {
		l.Post(l.stop)
	}
}

// Done implements couplet.Engine.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err implements couplet.Engine.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// cutGrace is how long Shutdown waits, after it has cut, for a loop that does
// not come back from a callback.
const cutGrace = 5 * time.Second

// Shutdown implements couplet.Engine.
func (e *Engine) Shutdown(ctx context.Context) (couplet.Drained, error) {
	e.Stop()
	for _, l := range e.loops {
		if l.onThread() {
			return e.outcome(couplet.ErrOnLoop)
		}
	}
	select {
	case <-e.done:
		return e.outcome(nil)
	case <-ctx.Done():
	}
	e.mu.Lock()
	if e.cutCause == nil {
		e.cutCause = context.Cause(ctx)
	}
	e.mu.Unlock()
	for _, l := range e.loops {
		l.Post(l.cut)
	}
	select {
	case <-e.done:
		return e.outcome(nil)
	case <-time.After(cutGrace):
		return e.outcome(errors.New("couplet: a loop did not end: a callback does not return"))
	}
}

// outcome is what became of the connections, with the engine's failure, err, or why
// some were cut.
func (e *Engine) outcome(err error) (couplet.Drained, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.err != nil:
		err = e.err
	case err == nil && e.cut > 0:
		err = e.cutCause
	}
	return couplet.Drained{Clean: e.clean, Cut: e.cut}, err
}

// drained counts a connection that ended after Stop.
func (e *Engine) drained(cut bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.err != nil: // it ended with the engine
	case cut:
		e.cut++
	default:
		e.clean++
	}
}

// failed takes the first failure of a loop and ends the others with it.
func (e *Engine) failed(err error) {
	e.mu.Lock()
	first := e.err == nil
	if first {
		e.err = err
	}
	e.mu.Unlock()
	e.stopped.Store(true)
	e.cancel(err)
	if !first {
		return
	}
	e.config.Logger.Error("engine failed", "engine", e.name, "error", err)
	for _, l := range e.loops {
		l.Post(func() { l.failWith(err) })
	}
}

func (e *Engine) loopEnded() {
	if e.running.Add(-1) == 0 {
		e.cancel(nil) // it was: a loop ends for no other reason
		close(e.done)
	}
}

// wakeStarving lets listeners that wait for a descriptor or a place try again.
func (e *Engine) wakeStarving() {
	if e.starving.Load() == 0 {
		return
	}
	for _, l := range e.loops {
		if l.starving.Load() > 0 {
			l.Post(l.retryAccepts)
		}
	}
}

var errGoexitWork = errors.New("couplet: runtime.Goexit was called in work given to Loop.Go")

// limbo keeps what the kernel may still use after a loop failed. It is never
// emptied: a failed engine is rare, memory under a running kernel is worse.
var limbo struct {
	sync.Mutex
	what []any
}

// Keep is for a driver that fails: v stays reachable for ever, with all that it refers to.
func Keep(v any) {
	limbo.Lock()
	defer limbo.Unlock()
	limbo.what = append(limbo.what, v)
}
