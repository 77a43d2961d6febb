//go:build linux

package enginetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/loop"
)

// simDial is one Dial and its outcome.
type simDial struct {
	w        *world
	what     string // "", "refused", "stalled"
	ctx      *simContext
	timeout  time.Duration
	begun    time.Duration
	outcomes int
	err      error
}

// simContext is a context whose cancelling a schedule can wait for.
type simContext struct {
	context.Context
	done    chan struct{}
	err     error
	next    int
	watches map[int]func()
}

func newSimContext() *simContext {
	return &simContext{Context: context.Background(), done: make(chan struct{}), watches: make(map[int]func())}
}

func (c *simContext) Done() <-chan struct{} { return c.done }

func (c *simContext) Err() error { return c.err }

// AfterFunc is what package context asks for.
func (c *simContext) AfterFunc(f func()) (stop func() bool) {
	c.next++
	id := c.next
	c.watches[id] = f
	return func() bool {
		_, ok := c.watches[id]
		delete(c.watches, id)
		return ok
	}
}

var errCancelled = errors.New("the schedule has cancelled the dial")

func (w *world) cancel(d *simDial) {
	if d.ctx.err != nil {
		return
	}
	w.logf("cancel a dial")
	d.ctx.err = errCancelled
	close(d.ctx.done)
	posted := func() (n int) {
		for _, l := range w.loops {
			n += l.Posted()
		}
		return n
	}
	want := posted() + len(d.ctx.watches)
	for id, f := range d.ctx.watches {
		delete(d.ctx.watches, id)
		f()
	}
	for posted() < want { // it is posted from another goroutine
		runtime.Gosched()
	}
}

func (w *world) dial() {
	d := &simDial{w: w, begun: w.now, timeout: 30 * time.Second}
	address := w.address
	switch w.rng.IntN(12) {
	case 0:
		d.what, address = "refused", "127.0.0.1:1"
		if w.network == "unix" {
			address = "/simulated/nobody"
		}
	case 1:
		d.what, address = "stalled", "127.0.0.1:2"
		if w.network == "unix" {
			address = "/simulated/stalled"
		}
		w.net.stalled[w.network+" "+address] = true
	}
	opts := slices.Clone(w.opts)
	if w.rng.IntN(4) == 0 {
		d.timeout = time.Duration(1+w.rng.IntN(100)) * time.Millisecond
	}
	opts = append(opts, couplet.ConnectTimeout(d.timeout))
	var ctx context.Context = context.Background()
	if w.rng.IntN(3) == 0 {
		d.ctx = newSimContext()
		ctx = d.ctx
	}
	err := w.client.Dial(ctx, w.network, address, d, opts...)
	if err == couplet.ErrEngineClosed && (w.stopped || w.failing == w.client) {
		return
	}
	if w.stopped {
		w.fail("Dial after Stop: %v", err)
	}
	if err != nil {
		w.fail("Dial: %v", err)
	}
	w.dials = append(w.dials, d)
	w.logf("dial %d %s", len(w.dials), d.what)
}

func (d *simDial) outcome(what string) {
	d.outcomes++
	if d.outcomes > 1 {
		d.w.fail("a dial has a second outcome: %s", what)
	}
}

// Build implements couplet.Factory.
func (d *simDial) Build(remote net.Addr) couplet.Protocol {
	d.outcome("Build")
	if d.what != "" {
		d.w.fail("a dial that is %s connected", d.what)
	}
	return d.w.build(remote, false, d)
}

// ConnectFailed implements couplet.ConnectFailedHandler.
func (d *simDial) ConnectFailed(address string, err error) {
	w := d.w
	w.logf("ConnectFailed: %v", err)
	d.outcome("ConnectFailed")
	d.err = err
	ok := false
	switch {
	case errors.Is(err, errCancelled):
		ok = d.ctx != nil && d.ctx.err != nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		ok = w.now-d.begun >= d.timeout
	case err == couplet.ErrShutdown:
		ok = w.stopped || w.failing == w.client
	case errors.Is(err, errBroken):
		ok = w.failing == w.client
	case errors.Is(err, syscall.EMFILE):
		ok = w.net.config.MaxFiles > 0
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		ok = d.what == "refused" || w.listenerGone()
	case errors.Is(err, syscall.ECONNRESET):
		ok = true // dropped from the backlog before we looked
	}
	if !ok {
		w.fail("a dial failed with %v", err)
	}
}

func (w *world) listenerGone() bool { return w.net.ports[w.network+" "+w.address] == nil }

func (w *world) buildServer(remote net.Addr) couplet.Protocol {
	if a, ok := remote.(*net.TCPAddr); ok {
		if w.built[a.Port] {
			w.fail("a second Build for %v", remote)
		}
		w.built[a.Port] = true
	}
	return w.build(remote, true, nil)
}

func (w *world) build(remote net.Addr, server bool, d *simDial) couplet.Protocol {
	switch {
	case w.chance(15):
		w.logf("Build refuses %v", remote)
		return nil
	case w.chance(10):
		panic("Build")
	}
	p := &simPeer{
		w: w, server: server, dial: d, high: 64 << 10,
		rng: rand.New(rand.NewPCG(w.seed, uint64(1000+len(w.ends)))),
	}
	side := "client"
	if server {
		side = "server"
	}
	p.name = fmt.Sprintf("%s %d", side, len(w.ends))
	p.half, p.buffered, p.drains = p.rng.IntN(2) == 0, p.rng.IntN(3) == 0, p.rng.IntN(3) == 0
	if !w.tame {
		p.nervous = []int{0, 0, 20, 100}[p.rng.IntN(4)]
	}
	w.ends = append(w.ends, p)
	w.logf("Build of %s for %v", p.name, remote)
	return p.protocol()
}

// link finds the two ends of one connection.
func (w *world) link(p *simPeer) {
	s := w.net.socket(p.t.(*loop.Conn).FD())
	p.id, p.pair = s.id, min(s.id, s.peer.id)
	side := 0
	if p.server {
		side = 1
	}
	pair := w.pairs[p.pair]
	pair[side] = p
	w.pairs[p.pair] = pair
}
