//go:build linux

package enginetest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/loop"
)

var (
	simSeeds = flag.Int("sim.seeds", 0, "how many schedules the simulation runs (default 1500, less with -short or -race)")
	simFirst = flag.Uint64("sim.first", 1, "the seed of the first schedule")
	simOne   = flag.Uint64("sim.seed", 0, "run the schedule of this seed only, and show it")
)

// noise is what everybody sends: slices of it, each from a place of its own.
var noise = func() []byte {
	p := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(p)
	return p
}()

// A world is one schedule: two engines on a simulated network, with a clock
// that only the schedule moves, protocols that act by chance, and a model of
// what must come of it. All of it runs on one goroutine.
type world struct {
	seed   uint64
	rng    *rand.Rand
	net    *SimNet
	now    time.Duration
	log    []string
	logged bool
	broken string // the first rule that was broken

	server, client *loop.Engine
	loops          []*loop.Loop
	base           []time.Time // what Now was at first
	over           []bool
	listener       couplet.Listener
	opts           []couplet.Option
	small          bool // postponing posts is possible

	ends     []*simPeer
	byConn   map[couplet.Transport]*simPeer
	byPort   map[int][2]*simPeer // client, server
	facts    map[string]SimEnd   // by addresses
	dials    []*simDial
	buffers  int // that WriteBuffer was given and that were not released
	retains  map[int]func()
	retained int
	frozen   bool
	stopped  bool
	cutting  bool
	inCut    bool
	jumped   bool // time went on while there was work
	acts     int  // what is left of the script
	tame     bool
	crumb    int // the most that travels at once

	flush, linger, idle time.Duration
}

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

// simPeer is a protocol that acts by chance, and what it has seen.
type simPeer struct {
	w      *world
	name   string
	rng    *rand.Rand
	server bool
	dial   *simDial
	loop   int

	half, buffered, drains bool
	nervous                int // how apt it is to end things badly, in a thousand

	t       couplet.Transport
	h       couplet.Handle
	port    int
	made    bool
	lost    int
	inside  bool
	reason  error
	touched int // turns since its queue is over the mark

	sent     [][]byte // what was accepted, in order
	taken    int
	handed   int // written by the Handle and still under way
	read     int // bytes received
	at       int // piece of the other's sent ...
	off      int // ... and place in it
	paused   bool
	wpaused  bool
	low      int
	high     int
	halfShut bool // CloseWrite was called
	closed   bool // Close was called
	aborted  bool // Abort was called, in time
	panicked bool
	rclosed  bool
	wclosed  bool
	draining bool
	wouldEOF bool // Close was called after ReadClosed

	// What the trace tells.
	closing  bool
	wasCut   bool
	endTold  bool
	endErrno syscall.Errno
	sendErr  syscall.Errno
	lastMove time.Duration // of what it sends
	lastRead time.Duration
	closedAt time.Duration
	deaf     bool // the other end had no reason to read when it was closed
	shutdown bool // it was open, without Draining, when the engine was stopped
}

func (w *world) logf(format string, args ...any) {
	if w.logged {
		w.log = append(w.log, fmt.Sprintf("%-12v ", w.now)+fmt.Sprintf(format, args...))
	}
}

func (w *world) fail(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	w.logf("BROKEN: %s", what)
	if w.broken == "" {
		w.broken = what
		if w.logged {
			w.log = append(w.log, string(stackOf()))
		}
	}
}

func stackOf() []byte {
	b := make([]byte, 16<<10)
	return b[:runtime.Stack(b, false)]
}

func (w *world) chance(of1000 int) bool { return w.rng.IntN(1000) < of1000 }

// runSchedule runs the schedule of one seed; it returns what was broken, if
// anything, and the log if that was wanted.
func runSchedule(seed uint64, logged bool) (broken string, log []string) {
	w := &world{
		seed: seed, logged: logged,
		rng:     rand.New(rand.NewPCG(seed, 1)),
		byConn:  make(map[couplet.Transport]*simPeer),
		byPort:  make(map[int][2]*simPeer),
		facts:   make(map[string]SimEnd),
		retains: make(map[int]func()),
	}
	defer func() {
		if v := recover(); v != nil {
			w.fail("panic: %v\n%s", v, stackOf())
			broken, log = w.broken, w.log
		}
	}()
	w.run()
	return w.broken, w.log
}

func (w *world) run() {
	w.setup()
	for i := 0; w.broken == ""; i++ {
		if i > 400_000 {
			w.fail("the schedule does not end: %s", w.state())
			return
		}
		if w.acts > 0 && w.chance(30) {
			w.act()
		}
		if w.chance(20) {
			w.now += time.Duration(w.rng.IntN(1000)) * time.Microsecond
		}
		k := w.rng.IntN(len(w.loops))
		if w.over[k] {
			k = slices.Index(w.over, false)
			if k < 0 {
				break
			}
		}
		w.step(k)
		if i%4 == 0 && w.idle_() && !w.next() {
			break
		}
	}
	if w.broken == "" {
		w.finally()
	}
}

func (w *world) setup() {
	r := w.rng
	sizes := []int{1 << 10, 4 << 10, 16 << 10, 64 << 10}
	config := SimConfig{
		Seed:          w.seed,
		SendBuffer:    sizes[r.IntN(4)],
		ReceiveBuffer: sizes[r.IntN(4)],
		MaxChunk:      []int{100, 1 << 10, 16 << 10, 64 << 10}[r.IntN(4)],
		Chunks:        1 + r.IntN(16),
		AtOnce:        r.IntN(3) == 0,
		WaitAll:       r.IntN(2) == 0,
		Lazy:          r.IntN(8) > 0,
		Fail:          func(what string) { w.fail("%s", what) },
		Closed:        func(e SimEnd) { w.facts[e.Local.String()+" "+e.Remote.String()] = e },
	}
	if r.IntN(3) == 0 {
		config.Mishaps = 20
	}
	w.net = NewSimNet(config)
	w.crumb = min(config.MaxChunk, config.SendBuffer, config.ReceiveBuffer)
	w.flush = []time.Duration{time.Second, 60 * time.Second}[r.IntN(2)]
	w.linger = []time.Duration{100 * time.Millisecond, 5 * time.Second}[r.IntN(2)]
	w.opts = []couplet.Option{couplet.FlushTimeout(w.flush), couplet.LingerTimeout(w.linger)}
	if r.IntN(6) == 0 {
		w.idle = 20 * time.Second
		w.opts = append(w.opts, couplet.IdleTimeout(w.idle))
	}
	if r.IntN(8) == 0 {
		w.opts = append(w.opts, couplet.MaxOutbound(100<<10))
	}
	listenOpts := slices.Clone(w.opts)
	if r.IntN(6) == 0 {
		listenOpts = append(listenOpts, couplet.MaxConns(1+r.IntN(2)))
	}
	if r.IntN(6) == 0 {
		listenOpts = append(listenOpts, couplet.Backlog(1))
	}
	w.tame = r.IntN(2) == 0
	w.server = w.engine("server")
	w.client = w.engine("client")
	l, err := w.server.Listen("tcp", "127.0.0.1:1000", couplet.FactoryFunc(w.buildServer), listenOpts...)
	if err != nil {
		w.fail("Listen: %v", err)
		return
	}
	w.listener = l
	w.acts = 5 + r.IntN(60)
	for range 1 + r.IntN(4) {
		w.dial()
	}
}

func (w *world) engine(name string) *loop.Engine {
	r := w.rng
	config := couplet.Config{
		Logger: slog.New(slog.DiscardHandler),
		Loops:  1 + r.IntN(4)/3,
		Spread: couplet.Spread(r.IntN(3)),
	}
	if r.IntN(3) == 0 {
		config.BytesPerTurn = 1 + r.IntN(10_000)
	}
	if r.IntN(6) == 0 {
		config.PostsPerTurn = 1 + r.IntN(2)
		w.small = true
	}
	e, err := loop.Prepare(name, config, w.net.Sockets())
	if err != nil {
		panic(err)
	}
	for _, l := range e.Loops() {
		l := l.(*loop.Loop)
		w.net.Attach(l, func() time.Duration { return w.now })
		l.Trace = w.trace
		w.loops = append(w.loops, l)
		w.base = append(w.base, l.Now())
		w.over = append(w.over, false)
	}
	return e
}

// trace notes what a driver told the loop.
func (w *world) trace(e loop.Event) {
	p := w.byConn[e.Conn]
	if w.logged {
		name := "?"
		if p != nil {
			name = p.name
		}
		w.logf("    %s: %s %d %v", name, [...]string{"receive", "received", "ended", "send", "sent", "connect", "made", "close", "lost"}[e.Kind], e.Bytes, e.Errno)
	}
	if p == nil {
		return
	}
	switch e.Kind {
	case loop.TraceReceived:
		p.lastRead = p.turn()
	case loop.TraceEnded:
		if p.endTold {
			w.fail("%s: the end of receiving twice", p.name)
		}
		p.endTold, p.endErrno = true, e.Errno
	case loop.TraceSent:
		if p.t.Buffered()-e.Bytes <= p.high {
			p.touched = 0
		}
		if e.Bytes > 0 {
			p.lastMove = p.turn()
		}
		switch e.Errno {
		case 0, syscall.EAGAIN, syscall.EINTR, syscall.ENOBUFS, syscall.ENOMEM:
		default:
			p.sendErr = e.Errno
		}
	case loop.TraceClose:
		if p.closing {
			w.fail("%s: Close of the driver twice", p.name)
		}
		p.closing, p.wasCut = true, w.inCut
		p.closedAt = w.now
		o := p.other()
		p.deaf = w.frozen || w.jumped || o == nil || !o.made || o.paused || o.lost > 0
	}
}

// step makes one turn of a loop.
func (w *world) step(k int) {
	limit := time.Duration(0)
	if w.chance(300) {
		limit = -1
	}
	if !w.loops[k].Step(limit) {
		w.over[k] = true
		w.logf("loop %d has ended", k)
	}
	for _, p := range w.ends {
		if p.loop == k && p.made && p.lost == 0 && !p.closing {
			p.afterTurn()
		}
	}
}

// idle_ reports whether nothing happens before the clock moves on.
func (w *world) idle_() bool {
	if !w.net.Idle() {
		return false
	}
	for k, l := range w.loops {
		if !w.over[k] && l.Due() == 0 {
			return false
		}
	}
	return true
}

// next is called when nothing can happen by itself: it lets time pass, or the
// script go on, or the world end. It reports whether there is more.
func (w *world) next() bool {
	w.checkIdle()
	if w.cutting && slices.Contains(w.over, false) {
		w.fail("the loops do not end though everything was cut: %s", w.state())
		return false
	}
	due := time.Duration(-1)
	for k, l := range w.loops {
		if d := l.Due(); !w.over[k] && d > 0 && (due < 0 || d < due) {
			due = d
		}
	}
	switch {
	case w.acts > 0 && (due < 0 || w.chance(500)):
		w.act()
	case w.acts == 0 && !w.stopped:
		w.stop()
	case due > 0 && (!w.stopped || w.now < 10*time.Hour):
		w.now += due
	case w.frozen:
		w.thaw()
	case slices.Contains(w.over, false):
		w.cut()
	default:
		return false
	}
	return true
}

func (w *world) thaw() {
	w.logf("the network is whole again")
	w.frozen = false
	w.net.Thaw()
}

func (w *world) stop() {
	if w.stopped {
		return
	}
	w.logf("stop")
	w.stopped = true
	w.server.Stop()
	w.client.Stop()
	if w.chance(300) { // the deadline may come at any time
		w.acts = 0
		for range w.rng.IntN(50) {
			if k := w.rng.IntN(len(w.loops)); !w.over[k] {
				w.step(k)
			}
		}
		w.cut()
	}
}

func (w *world) cut() {
	w.logf("cut")
	w.cutting = true
	for k, l := range w.loops {
		cut := func() {
			w.inCut = true
			l.Cut()
			w.inCut = false
		}
		if !w.over[k] && l.Posted() == 0 { // Stop has run
			cut()
		} else if !w.over[k] {
			l.Post(cut)
		}
	}
}

func (w *world) state() string {
	var b strings.Builder
	for k, l := range w.loops {
		fmt.Fprintf(&b, "loop %d: over %v, due %v, left %q; ", k, w.over[k], l.Due(), l.Leftovers())
	}
	for _, s := range w.net.files {
		if s != nil {
			fmt.Fprintf(&b, "%v; ", s)
		}
	}
	return b.String()
}

// act does one thing of the script.
func (w *world) act() {
	w.acts--
	r := w.rng
	switch x := r.IntN(100); {
	case x < 12:
		w.dial()
	case x < 20:
		if i := r.IntN(len(w.dials)); w.dials[i].ctx != nil {
			w.cancel(w.dials[i])
		}
	case x < 24 && !w.tame:
		if len(w.ends) > 0 && !w.frozen {
			if p := w.ends[r.IntN(len(w.ends))]; p.made && p.lost == 0 {
				w.logf("nothing of %s travels", p.name)
				w.frozen = true
				w.net.Freeze(p.t.LocalAddr())
			}
		}
	case x < 27 && w.frozen:
		w.thaw()
	case x < 29 && !w.tame:
		w.listener.Close()
	case x < 30 && !w.tame:
		w.stop()
	case x < 32:
		w.jumped = true
		w.now += time.Duration(r.IntN(3000)) * time.Millisecond
	default:
		w.poke()
	}
}

// poke has somebody act in a posted function.
func (w *world) poke() {
	if len(w.ends) == 0 {
		return
	}
	p := w.ends[w.rng.IntN(len(w.ends))]
	if !p.made {
		return
	}
	err := p.h.Post(func(t couplet.Transport) {
		if t != p.t {
			w.fail("%s: its Handle has reached another connection", p.name)
		}
		p.act("post")
	})
	if (err != nil) != (p.lost > 0) {
		w.fail("%s: Handle.Post says %v; lost %d", p.name, err, p.lost)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		w.fail("%s: Handle.Post says %v", p.name, err)
	}
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
func (c *simContext) Err() error            { return c.err }

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
	address := "127.0.0.1:1000"
	switch w.rng.IntN(12) {
	case 0:
		d.what, address = "refused", "127.0.0.1:1"
	case 1:
		d.what, address = "stalled", "127.0.0.1:2"
		w.net.stalled["tcp 127.0.0.1:2"] = true
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
	err := w.client.Dial(ctx, "tcp", address, d, opts...)
	if w.stopped {
		if err != couplet.ErrEngineClosed {
			w.fail("Dial after Stop: %v", err)
		}
		return
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
		ok = w.stopped
	case errors.Is(err, syscall.ECONNREFUSED):
		ok = d.what == "refused" || w.listenerGone()
	case errors.Is(err, syscall.ECONNRESET):
		ok = true // dropped from the backlog before we looked
	}
	if !ok {
		w.fail("a dial failed with %v", err)
	}
}

func (w *world) listenerGone() bool { return w.net.ports["tcp 127.0.0.1:1000"] == nil }

func (w *world) buildServer(remote net.Addr) couplet.Protocol {
	if w.byPort[remote.(*net.TCPAddr).Port][1] != nil {
		w.fail("a second Build for %v", remote)
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
		p.port = remote.(*net.TCPAddr).Port
		w.link(p, 1)
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

func (w *world) link(p *simPeer, side int) {
	pair := w.byPort[p.port]
	pair[side] = p
	w.byPort[p.port] = pair
}

// other is the protocol at the other end, or nil if there is none yet.
func (p *simPeer) other() *simPeer {
	pair := p.w.byPort[p.port]
	if p.server {
		return pair[0]
	}
	return pair[1]
}

// The callbacks.

func (p *simPeer) enter(t couplet.Transport, what string) func() {
	w := p.w
	w.logf("%s: %s", p.name, what)
	switch {
	case p.inside:
		w.fail("%s: %s inside another callback", p.name, what)
	case p.lost > 0:
		w.fail("%s: %s after ConnectionLost", p.name, what)
	case !p.made && what != "made":
		w.fail("%s: %s before ConnectionMade", p.name, what)
	case p.made && t != p.t:
		w.fail("%s: %s with another Transport", p.name, what)
	case p.closed && what != "lost":
		w.fail("%s: %s after Close", p.name, what)
	case p.aborted && what != "lost":
		w.fail("%s: %s after Abort", p.name, what)
	case p.panicked && what != "lost":
		w.fail("%s: %s after a panic", p.name, what)
	}
	p.inside = true
	return func() { p.inside = false }
}

func (p *simPeer) ConnectionMade(t couplet.Transport) {
	if p.made {
		p.w.fail("%s: ConnectionMade again", p.name)
	}
	defer p.enter(t, "made")()
	p.made, p.t, p.h = true, t, t.Handle()
	p.w.byConn[t] = p
	for k, l := range p.w.loops {
		if t.Loop() == couplet.Loop(l) {
			p.loop = k
		}
	}
	p.lastMove = p.turn()
	if !p.server {
		p.port = t.LocalAddr().(*net.TCPAddr).Port
		p.w.link(p, 0)
	}
	p.act("made")
}

func (p *simPeer) DataReceived(t couplet.Transport, data []byte) {
	defer p.enter(t, "data")()
	if p.buffered {
		p.w.fail("%s: DataReceived where BufferReceived is there", p.name)
	}
	p.data(data)
	p.maybe("data")
}

func (p *simPeer) data(data []byte) {
	w := p.w
	o := p.other()
	switch {
	case len(data) == 0:
		w.fail("%s: empty data", p.name)
	case p.paused:
		w.fail("%s: data while paused", p.name)
	case p.rclosed:
		w.fail("%s: data after ReadClosed", p.name)
	case o == nil:
		w.fail("%s: data, and nobody at the other end", p.name)
	}
	if w.broken != "" {
		return
	}
	for len(data) > 0 {
		if p.at == len(o.sent) {
			w.fail("%s: %d bytes more than were sent", p.name, len(data))
			return
		}
		want := o.sent[p.at][p.off:]
		k := min(len(want), len(data))
		if !bytes.Equal(want[:k], data[:k]) {
			w.fail("%s: byte %d or one of the %d after it is wrong", p.name, p.read, k)
			return
		}
		data = data[k:]
		p.read += k
		if p.off += k; p.off == len(o.sent[p.at]) {
			p.at, p.off = p.at+1, 0
		}
	}
}

func (p *simPeer) ConnectionLost(t couplet.Transport, reason error) {
	defer p.enter(t, "lost")()
	p.w.logf("%s: reason %v", p.name, reason)
	p.lost++
	p.reason = reason
	if n, err := t.Write([]byte("late")); n != 0 || !errors.Is(err, net.ErrClosed) {
		p.w.fail("%s: Write in ConnectionLost gives %d, %v", p.name, n, err)
	}
	if err := p.h.Post(func(couplet.Transport) { p.w.fail("%s: a function posted after the end runs", p.name) }); !errors.Is(err, net.ErrClosed) {
		p.w.fail("%s: Handle.Post in ConnectionLost gives %v", p.name, err)
	}
	t.Close()
	t.Abort()
	t.PauseReading()
	t.ResumeReading()
	if p.nervous > 0 && p.rng.IntN(20) == 0 {
		p.inside = false
		panic("in ConnectionLost")
	}
}

func (p *simPeer) WritePaused(t couplet.Transport) {
	defer p.enter(t, "writePaused")()
	if p.wpaused {
		p.w.fail("%s: WritePaused twice", p.name)
	}
	if t.Buffered() <= p.high {
		p.w.fail("%s: WritePaused with %d queued and a mark of %d", p.name, t.Buffered(), p.high)
	}
	p.wpaused = true
	p.maybe("writePaused")
}

func (p *simPeer) WriteResumed(t couplet.Transport) {
	defer p.enter(t, "writeResumed")()
	if !p.wpaused {
		p.w.fail("%s: WriteResumed without WritePaused", p.name)
	}
	if t.Buffered() > p.low {
		p.w.fail("%s: WriteResumed with %d queued and a mark of %d", p.name, t.Buffered(), p.low)
	}
	p.wpaused = false
	p.maybe("writeResumed")
}

func (p *simPeer) WriteClosed(t couplet.Transport) {
	defer p.enter(t, "writeClosed")()
	if p.wclosed || !p.halfShut {
		p.w.fail("%s: WriteClosed out of place", p.name)
	}
	p.wclosed = true
	p.maybe("writeClosed")
}

type simHalf struct{ p *simPeer }

func (x simHalf) ReadClosed(t couplet.Transport) {
	p := x.p
	defer p.enter(t, "readClosed")()
	if p.rclosed || p.paused {
		p.w.fail("%s: ReadClosed again or while paused", p.name)
	}
	if !p.w.net.socket(t.(*loop.Conn).FD()).eof {
		p.w.fail("%s: ReadClosed, and no FIN has come", p.name)
	}
	p.rclosed = true
	if p.rng.IntN(3) > 0 { // most protocols end now
		p.finish()
		return
	}
	p.maybe("readClosed")
}

type simBuffered struct{ p *simPeer }

func (x simBuffered) BufferReceived(t couplet.Transport, b *couplet.Buffer) {
	p := x.p
	defer p.enter(t, "buffer")()
	p.data(b.Bytes())
	if p.rng.IntN(4) == 0 { // keep it for a while
		b.Retain()
		copied := bytes.Clone(b.Bytes())
		p.w.retained++
		id := p.w.retained
		letGo := func() {
			delete(p.w.retains, id)
			if !bytes.Equal(copied, b.Bytes()) {
				p.w.fail("%s: a Buffer that was retained has changed", p.name)
			}
			b.Release()
		}
		p.w.retains[id] = letGo
		t.Loop().AfterFunc(time.Duration(p.rng.IntN(1000))*time.Microsecond, letGo)
	}
	p.maybe("buffer")
}

type simDraining struct{ p *simPeer }

func (x simDraining) Draining(t couplet.Transport) {
	p := x.p
	defer p.enter(t, "draining")()
	if p.draining || !p.w.stopped {
		p.w.fail("%s: Draining out of place", p.name)
	}
	p.draining = true
	p.finish()
}

// protocol is p with the optional callbacks that it has.
func (p *simPeer) protocol() couplet.Protocol {
	h, b, d := simHalf{p}, simBuffered{p}, simDraining{p}
	type (
		half   = simHalf
		buf    = simBuffered
		drains = simDraining
	)
	switch [3]bool{p.half, p.buffered, p.drains} {
	case [3]bool{true, false, false}:
		return struct {
			*simPeer
			half
		}{p, h}
	case [3]bool{false, true, false}:
		return struct {
			*simPeer
			buf
		}{p, b}
	case [3]bool{true, true, false}:
		return struct {
			*simPeer
			half
			buf
		}{p, h, b}
	case [3]bool{false, false, true}:
		return struct {
			*simPeer
			drains
		}{p, d}
	case [3]bool{true, false, true}:
		return struct {
			*simPeer
			half
			drains
		}{p, h, d}
	case [3]bool{false, true, true}:
		return struct {
			*simPeer
			buf
			drains
		}{p, b, d}
	case [3]bool{true, true, true}:
		return struct {
			*simPeer
			half
			buf
			drains
		}{p, h, b, d}
	}
	return p
}

// What a protocol does.

// maybe acts in some of the callbacks.
func (p *simPeer) maybe(where string) {
	if p.rng.IntN(6) == 0 {
		p.act(where)
	}
}

// open reports whether the model says that the connection can be written to.
func (p *simPeer) open() bool {
	return p.made && p.lost == 0 && !p.closed && !p.aborted && !p.panicked && !p.halfShut
}

// refused checks that a write was refused for a reason.
func (p *simPeer) refused(err error, size int) {
	w := p.w
	switch {
	case errors.Is(err, couplet.ErrOutboundFull):
		if p.t.Buffered()+p.handed+size <= 100<<10 {
			w.fail("%s: the queue is full with %d and %d more", p.name, p.t.Buffered()+p.handed, size)
		}
	case !errors.Is(err, net.ErrClosed):
		w.fail("%s: a write says %v", p.name, err)
	case p.open() && !p.endTold && p.sendErr == 0 && !p.closing && !p.stopping():
		w.fail("%s: a write is refused for no reason", p.name)
	}
}

// stopping reports whether the engine's end has reached p.
func (p *simPeer) stopping() bool { return p.w.stopped && !p.drains }

// piece is something to send.
func (p *simPeer) piece(n int) []byte {
	at := p.rng.IntN(len(noise) - n)
	return noise[at : at+n]
}

// size is how much to write: seldom much, and less where it travels in crumbs.
func (p *simPeer) size() int {
	large := min(300<<10, p.w.crumb*40)
	if p.taken > 2*large {
		large = 0
	}
	switch p.rng.IntN(16) {
	case 0, 1:
		return p.rng.IntN(1 + large)
	case 2, 3, 4:
		return p.rng.IntN(1 + large/16)
	}
	return p.rng.IntN(100)
}

func (p *simPeer) accepted(b []byte) {
	if !p.open() {
		p.w.fail("%s: a write was accepted", p.name)
	}
	if len(b) > 0 {
		p.sent = append(p.sent, b)
		p.taken += len(b)
	}
}

func (p *simPeer) write() {
	want := p.piece(p.size())
	scratch := bytes.Clone(want)
	n, err := p.t.Write(scratch)
	spoil(scratch)
	if err != nil {
		p.refused(err, len(want))
		return
	}
	if n != len(want) {
		p.w.fail("%s: Write of %d gives %d", p.name, len(want), n)
	}
	p.accepted(want)
}

func (p *simPeer) writev() {
	var bufs, wants [][]byte
	total := 0
	for range p.rng.IntN(5) {
		want := p.piece(p.size() / 3)
		total += len(want)
		wants = append(wants, want)
		bufs = append(bufs, bytes.Clone(want))
	}
	n, err := p.t.Writev(bufs)
	for _, b := range bufs {
		spoil(b)
	}
	if err != nil {
		p.refused(err, total)
		return
	}
	if n != total {
		p.w.fail("%s: Writev of %d gives %d", p.name, total, n)
	}
	for _, want := range wants {
		p.accepted(want)
	}
}

// buffer makes a Buffer that spoils its bytes when it is released.
func (p *simPeer) buffer(want []byte) *couplet.Buffer {
	b := bytes.Clone(want)
	p.w.buffers++
	return couplet.NewBuffer(b, func() {
		spoil(b)
		p.w.buffers--
	})
}

func (p *simPeer) writeBuffer() {
	want := p.piece(p.size())
	b := p.buffer(want)
	defer b.Release()
	for range 1 + p.rng.IntN(2) {
		if err := p.t.WriteBuffer(b); err != nil {
			p.refused(err, len(want))
			return
		}
		p.accepted(want)
	}
}

// handleWrite writes as another goroutine would, and learns from the queue's
// length what became of it.
func (p *simPeer) handleWrite() {
	if p.w.small { // others could come in between
		return
	}
	want := p.piece(p.size())
	before := 0
	if p.h.Post(func(t couplet.Transport) { before = t.Buffered() }) != nil {
		return
	}
	var err error
	if p.rng.IntN(2) == 0 {
		_, err = p.h.Write(want)
	} else {
		b := p.buffer(want)
		err = p.h.WriteBuffer(b)
		b.Release()
	}
	if err != nil {
		p.refused(err, len(want))
		return
	}
	p.handed += len(want)
	p.h.Post(func(t couplet.Transport) {
		p.handed -= len(want)
		switch t.Buffered() - before {
		case 0:
		case len(want):
			p.accepted(want)
		default:
			p.w.fail("%s: Handle.Write of %d has queued %d", p.name, len(want), t.Buffered()-before)
		}
	})
}

func (p *simPeer) pause() {
	p.t.PauseReading()
	if p.lost == 0 {
		p.paused = true
	}
	if p.rng.IntN(12) > 0 {
		p.t.Loop().AfterFunc(time.Duration(p.rng.IntN(5000))*time.Microsecond, func() {
			if p.lost == 0 {
				p.resume()
			}
		})
	}
}

func (p *simPeer) resume() {
	p.paused = false // from the next turn on, but nothing may come inside this call
	p.inside = true
	p.t.ResumeReading()
	p.inside = false
}

func (p *simPeer) closeWrite() {
	if p.open() {
		p.halfShut = true
	}
	p.t.CloseWrite()
}

func (p *simPeer) close() {
	if !p.closed && !p.aborted && !p.panicked && p.lost == 0 {
		p.wouldEOF = p.rclosed
	}
	p.closed = true
	p.t.Close()
}

func (p *simPeer) abort() {
	if !p.closing {
		p.aborted = true
	}
	p.t.Abort()
}

// finish ends p's part in an orderly way.
func (p *simPeer) finish() {
	if p.rng.IntN(3) == 0 {
		p.write()
	}
	if p.half && p.rng.IntN(2) == 0 && !p.draining {
		p.closeWrite()
	} else {
		p.close()
	}
}

// act does something by chance. where is a callback, or "post" or "timer".
func (p *simPeer) act(where string) {
	r := p.rng
	if p.lost > 0 {
		return
	}
	callback := p.inside
	for range 1 + r.IntN(3) {
		x := r.IntN(100)
		p.w.logf("%s:   act %d in %s, %d written, %d queued", p.name, x, where, p.taken, p.t.Buffered())
		switch {
		case x < 25:
			p.write()
		case x < 35:
			p.writev()
		case x < 45:
			p.writeBuffer()
		case x < 50:
			if n, err := p.t.Write(nil); n != 0 || err != nil && p.open() && !p.endTold && p.sendErr == 0 && !p.closing && !p.stopping() {
				p.w.fail("%s: an empty write gives %d, %v", p.name, n, err)
			}
		case x < 58:
			p.pause()
		case x < 66:
			if !callback || where != "data" {
				inside := p.inside
				p.resume()
				p.inside = inside
			}
		case x < 74:
			at := p.w.now + time.Duration(r.IntN(3000))*time.Microsecond
			p.t.AfterFunc(at-p.w.now, func() {
				if p.w.now < at {
					p.w.fail("%s: a timer is early", p.name)
				}
				defer p.enter(p.t, "timer")()
				p.act("timer")
			})
		case x < 79: // SetWatermarks
			p.low, p.high = r.IntN(100<<10), r.IntN(200<<10)
			p.t.SetWatermarks(p.low, p.high)
			p.low = min(p.low, p.high)
			p.touched = 0
		case x < 85:
			p.handleWrite()
		case x < 88:
			p.t.Loop().Post(func() { p.act("post") })
		case x < 90 && r.IntN(8) == 0:
			p.closeWrite()
		case x < 92 && r.IntN(8) == 0:
			p.close()
		case x < 93 && r.IntN(1000) < p.nervous:
			p.h.Post(func(couplet.Transport) { p.abort() })
		case x < 96 && r.IntN(1000) < p.nervous:
			p.abort()
		case r.IntN(1000) < p.nervous && callback:
			if r.IntN(4) == 0 {
				p.abort()
			}
			p.panicked = true
			p.inside = false
			panic("by chance")
		}
	}
}

// turn is when the present turn of p's loop began, which is what a loop goes by.
func (p *simPeer) turn() time.Duration { return p.t.Loop().Now().Sub(p.w.base[p.loop]) }

// What must hold.

// afterTurn is called after each turn of p's loop.
func (p *simPeer) afterTurn() {
	if p.closed || p.endTold || p.sendErr != 0 || p.stopping() {
		return
	}
	if p.wpaused || p.t.Buffered() <= p.high {
		p.touched = 0
		return
	}
	if p.touched++; p.touched > 2 && !p.wpaused {
		p.w.fail("%s: %d bytes are queued, the mark is %d, and WritePaused does not come", p.name, p.t.Buffered(), p.high)
	}
}

// checkIdle is called when nothing more happens without time passing.
func (w *world) checkIdle() {
	if w.frozen || w.cutting {
		return
	}
	for _, p := range w.ends {
		o := p.other()
		if !p.made || p.lost > 0 || p.closing || p.closed || p.stopping() || p.endTold && p.endErrno != 0 || p.sendErr != 0 {
			continue
		}
		if p.wpaused && p.t.Buffered() == 0 {
			w.fail("%s: nothing is queued and WriteResumed has not come", p.name)
		}
		if o == nil || !o.made || p.paused {
			continue
		}
		fact, over := w.facts[p.t.RemoteAddr().String()+" "+p.t.LocalAddr().String()]
		healthy := o.lost == 0 && !o.closing && o.sendErr == 0 && o.t.Buffered() == 0 || over && class(o.reason) == "closed" && !fact.Reset
		if healthy && p.read != o.taken && !p.rclosed && !p.endTold {
			w.fail("%s: %d bytes were written at the other end, %d have come, and nothing moves", p.name, o.taken, p.read)
		}
		if healthy && o.halfShut && p.half && !p.rclosed {
			w.fail("%s: the other end has closed its half, and ReadClosed does not come", p.name)
		}
	}
}

// finally checks what every schedule must come to.
func (w *world) finally() {
	for i, l := range w.loops {
		if left := l.Leftovers(); left != "" {
			w.fail("loop %d still has %s", i, left)
		}
	}
	for w.net.Step() {
	}
	if n := w.net.Files(); n != 0 {
		w.fail("%d descriptors are left: %s", n, w.state())
	}
	for _, letGo := range w.retains { // their timers went with the engine
		letGo()
	}
	if n := w.net.Kept(); n != 0 {
		w.fail("%d received Buffers are left", n)
	}
	if w.buffers != 0 {
		w.fail("%d Buffers of WriteBuffer are left", w.buffers)
	}
	for i, d := range w.dials {
		if d.outcomes != 1 {
			w.fail("dial %d has %d outcomes", i+1, d.outcomes)
		}
	}
	for _, e := range []*loop.Engine{w.server, w.client} {
		select {
		case <-e.Done():
		default:
			w.fail("Done of the %s is not closed", e.Name())
		}
		if s := e.Stats(); s.Open != 0 || s.Listening != 0 {
			w.fail("Stats of the %s: %+v", e.Name(), s)
		}
	}
	select {
	case <-w.listener.Closed():
	default:
		w.fail("the listener's Closed is not closed")
	}
	for _, p := range w.ends {
		p.verdict()
	}
}

// verdict checks the reason of ConnectionLost against what has happened, and
// what it promises.
func (p *simPeer) verdict() {
	w := p.w
	if !p.made {
		w.fail("%s: Build without ConnectionMade", p.name)
		return
	}
	if p.lost != 1 {
		w.fail("%s: made, and lost %d times", p.name, p.lost)
		return
	}
	got := class(p.reason)
	fact, known := w.facts[p.t.LocalAddr().String()+" "+p.t.RemoteAddr().String()]
	if !known {
		w.fail("%s: the network does not know its socket", p.name)
		return
	}
	told := p.sendErr != 0 || p.endTold && p.endErrno != 0
	var want []string
	switch {
	case p.panicked:
		want = []string{"panic"}
	case p.aborted:
		want = []string{"aborted"}
	case p.wasCut:
		want = []string{"shutdown"}
	case told:
		want = []string{"reset"}
		if p.sendErr == 0 { // a timeout may have been first
			want = append(want, "timeout")
		}
	case p.closed && p.wouldEOF:
		want = []string{"eof", "timeout"}
	case p.closed && p.endTold:
		want = []string{"closed", "eof", "timeout"}
	case p.closed:
		want = []string{"closed", "timeout"}
	case p.endTold:
		want = []string{"eof", "timeout"}
	default:
		want = []string{"timeout"}
	}
	if fact.Reset && p.endTold { // an end that was told while a send was in flight is not believed
		want = append(want, "reset")
	}
	if w.stopped && !p.drains && !p.wasCut {
		want = append(want, "shutdown")
	}
	if !slices.Contains(want, got) {
		w.fail("%s: the reason is %v, not one of %v", p.name, p.reason, want)
	}
	if got == "timeout" {
		p.checkTimeout()
	}
	clean := got == "eof" || got == "closed" || got == "shutdown" && !p.wasCut
	switch {
	case fact.Sent > int64(p.taken):
		w.fail("%s: %d bytes were written and %d sent", p.name, p.taken, fact.Sent)
	case clean && fact.Sent != int64(p.taken):
		w.fail("%s: ended with %v, and of %d bytes written %d were sent", p.name, p.reason, p.taken, fact.Sent)
	case clean && !fact.FinReceived && (fact.Acked != fact.Sent):
		w.fail("%s: ended with %v, and of %d bytes %d were acknowledged", p.name, p.reason, fact.Sent, fact.Acked)
	case !clean && !fact.Unclean && !p.lingered():
		w.fail("%s: ended with %v, and not by a reset", p.name, p.reason)
	case got == "eof" && !fact.FinReceived:
		w.fail("%s: ended with %v, and no FIN was seen", p.name, p.reason)
	case got == "reset" && !fact.Reset && !fact.ErrorTold:
		w.fail("%s: ended with %v, and there was no reset", p.name, p.reason)
	}
	p.checkDelivery(fact)
}

// lingered reports whether waiting for the peer's acknowledgement took too long.
func (p *simPeer) lingered() bool {
	var e *couplet.TimeoutError
	return errors.As(p.reason, &e) && e.Op == "linger"
}

// checkTimeout checks that the time was up.
func (p *simPeer) checkTimeout() {
	var e *couplet.TimeoutError
	if !errors.As(p.reason, &e) {
		p.w.fail("%s: %v is no TimeoutError", p.name, p.reason)
		return
	}
	limit := map[string]time.Duration{"flush": p.w.flush, "linger": p.w.linger, "idle": p.w.idle}[e.Op]
	if limit == 0 || e.Op == "linger" && p.closedAt < limit || e.Op == "flush" && p.closedAt-p.lastMove < limit ||
		e.Op == "idle" && p.closedAt-max(p.lastMove, p.lastRead) < limit {
		p.w.fail("%s: %v, %v after something moved; the limit is %v", p.name, p.reason, p.closedAt-p.lastMove, limit)
	}
	if e.Op == "flush" && !p.deaf {
		p.w.fail("%s: %v, and the other end was reading", p.name, p.reason)
	}
}

// checkDelivery checks that what a clean reason promises has reached the other
// end's protocol, unless that has itself to blame.
func (p *simPeer) checkDelivery(fact SimEnd) {
	w, o := p.w, p.other()
	if o == nil || !o.made {
		return
	}
	if o.read > p.taken {
		w.fail("%s: has read %d bytes of %d", o.name, o.read, p.taken)
	}
	if o.rclosed && !(o.endTold && o.endErrno == 0) {
		w.fail("%s: ReadClosed without an end", o.name)
	}
	if got := class(o.reason); got == "eof" && !o.closed && !o.paused && o.read != p.taken && !w.stopped {
		w.fail("%s: ended with io.EOF, and has read %d of %d bytes", o.name, o.read, p.taken)
	}
}

func TestSimSchedules(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if *simOne != 0 {
		broken, log := runSchedule(*simOne, true)
		t.Log("\n" + strings.Join(log, "\n"))
		if broken != "" {
			t.Fatalf("seed %d: %s", *simOne, broken)
		}
		return
	}
	count := *simSeeds
	if count == 0 {
		count = 1500
		if raceEnabled || testing.Short() {
			count = 100
		}
	}
	for seed := *simFirst; seed < *simFirst+uint64(count); seed++ {
		broken, _ := runSchedule(seed, false)
		if broken == "" {
			continue
		}
		_, log := runSchedule(seed, true)
		t.Fatalf("seed %d (run it with -sim.seed=%d): %s\n... %s", seed, seed, broken,
			strings.Join(log[max(0, len(log)-80):], "\n"))
	}
}
