//go:build linux

package reactor

import (
	"fmt"

	"couplet"
	"couplet/internal/loop"
)

// New starts the engine "epoll".
func New(config couplet.Config) (couplet.Engine, error) {
	e, err := loop.NewEngine("epoll", config, loop.Kernel{}, newDriver)
	if err != nil {
		return nil, err
	}
	how := "level-triggered"
	if config.Ablation.EdgeTriggered {
		how = "edge-triggered"
	}
	e.SetDescription(fmt.Sprintf("epoll, %s, loops %d", how, len(e.Loops())))
	return e, nil
}

var _ loop.Driver = (*driver)(nil)

// driver turns readiness into completions: it waits for "may", makes the call,
// and reports. All of it belongs to its loop's thread.
type driver struct {
	loop      *loop.Loop
	edge      bool // see couplet.Ablation
	poller    *poller
	waker     *loop.Waker
	conns     loop.Slab[conn]
	listeners map[uint32]*listener
	nextID    uint32

	reports []report    // to be made in the next Wait
	changed []key       // connections whose interest may have changed
	again   []key       // edge-triggered: those to read whom the poller will not tell of again
	memory  loop.Memory // received into: one for all connections, since only one is read at a time

	gather loop.Gather // of the send being made
}

// conn is what the driver keeps of a connection.
type conn struct {
	c          *loop.Conn
	generation uint32

	watching   bool     // known to the poller ...
	interest   interest // ... for this
	changed    bool     // in driver.changed
	receiving  bool
	hung       bool // the poller told of an error or hang-up that nobody wanted yet
	guarded    bool // after the peer's FIN: an error is to be reported
	connecting bool
	sending    bool // a send waits until it may
	full       bool // the socket took less than it was given: wait before the next try

	// Edge-triggered, the poller tells of a change once, so it is remembered.
	unread bool // there may be something to read
	behind bool // and more behind a short read: the end, an error, an urgent mark
	again  bool // in driver.again
}

// listener is what the driver keeps of a listening socket.
type listener struct {
	l  *loop.Listener
	id uint32
}

// report is a completion that is to be reported.
type report struct {
	kind  kind
	key   key
	l     *loop.Listener
	bytes int
	errno errno
}

type kind uint8

const (
	stopped kind = iota
	refused      // the poller would not watch a listener
	connected
	ended
	sent
	closed
)

// newDriver runs on the loop's thread.
func newDriver(l *loop.Loop) (loop.Driver, error) {
	p, err := newPoller(l)
	if err != nil {
		return nil, err
	}
	w, err := loop.NewWaker()
	if err != nil {
		p.close()
		return nil, err
	}
	d := &driver{
		loop:      l,
		edge:      l.Config().Ablation.EdgeTriggered,
		poller:    p,
		waker:     w,
		listeners: make(map[uint32]*listener),
	}
	d.memory.Room()
	l.Count().Held = d.memory.Held() // however many connections there are
	if err := p.set(add, w.FD(), key{kind: wakeKey}, readable); err != 0 {
		d.Shutdown()
		return nil, fmt.Errorf("couplet: watching the wake-up descriptor: %w", err)
	}
	return d, nil
}

// of is what the driver keeps of c.
func (d *driver) of(c *loop.Conn) *conn {
	s := d.conns.At(c.Slot())
	if s.c != c {
		*s = conn{c: c, generation: c.Generation()}
	}
	return s
}

// living is the connection of a key, or nil if that is gone.
func (d *driver) living(k key) *conn {
	if s := d.conns.At(k.slot); s.c != nil && s.generation == k.generation {
		return s
	}
	return nil
}

// known is the connection that an event is for, or nil if that is gone.
func (d *driver) known(k key) *conn {
	s := d.living(k)
	if s == nil {
		d.loop.Count().Stale++
	}
	return s
}

func (s *conn) key() key { return key{connKey, s.c.Slot(), s.generation} }

// Shutdown implements loop.Driver.
func (d *driver) Shutdown() error {
	d.waker.Close()
	d.memory.Release()
	return d.poller.close()
}
