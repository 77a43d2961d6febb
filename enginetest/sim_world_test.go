//go:build linux

package enginetest

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
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

	ends             []*simPeer
	byConn           map[couplet.Transport]*simPeer
	pairs            map[int][2]*simPeer // client, server; by the lower of the sockets
	facts            map[int]SimEnd      // by the socket
	dials            []*simDial
	built            map[int]bool // client's ports
	network, address string
	promised         int          // functions that Post has promised to run
	failing          *loop.Engine // the engine with a loop whose driver broke
	buffers          int          // that WriteBuffer was given and that were not released
	retains          map[int]func()
	retained         int
	frozen           bool
	stopped          bool
	cutting          bool
	inCut            bool
	jumped           bool // time went on while there was work
	acts             int  // what is left of the script
	tame             bool
	crumb            int // the most that travels at once

	flush, linger, idle time.Duration
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
		pairs:   make(map[int][2]*simPeer),
		facts:   make(map[int]SimEnd),
		built:   make(map[int]bool),
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
		if i%4 == 0 && w.quiet() && !w.next() {
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
		Closed:        func(e SimEnd) { w.facts[e.ID] = e },
	}
	if r.IntN(3) == 0 {
		config.Mishaps = 20
	}
	if r.IntN(8) == 0 {
		config.MaxFiles = 6 + r.IntN(10)
	}
	w.network, w.address = "tcp", "127.0.0.1:1000"
	if r.IntN(5) == 0 {
		w.network, w.address = "unix", "/simulated/listener"
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
	l, err := w.server.Listen(w.network, w.address, couplet.FactoryFunc(w.buildServer), listenOpts...)
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
		if p.endTold && (p.endErrno != 0 || e.Errno == 0) { // an error may follow the FIN
			w.fail("%s: the end of receiving twice", p.name)
		}
		p.endTold, p.endErrno, p.finTold = true, e.Errno, p.finTold || e.Errno == 0
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

// quiet reports whether nothing happens before the clock moves on.
func (w *world) quiet() bool {
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

// breakOne has the driver of one loop fail: its engine ends.
func (w *world) breakOne() {
	w.failing = w.server
	if w.chance(500) {
		w.failing = w.client
	}
	loops := w.failing.Loops()
	l := loops[w.rng.IntN(len(loops))].(*loop.Loop)
	w.logf("a driver of the %s breaks", w.failing.Name())
	w.net.Break(l, errBroken)
}

var errBroken = errors.New("the schedule has broken the driver")

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
				w.net.Freeze(p.id)
			}
		}
	case x < 27 && w.frozen:
		w.thaw()
	case x < 29 && !w.tame:
		w.listener.Close()
	case x < 30 && !w.tame:
		w.stop()
	case x < 31 && w.seed%16 == 0 && w.failing == nil:
		w.breakOne()
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
