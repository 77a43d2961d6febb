package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"couplet"
)

// An Env is what one run of one case works with: its engines, its network and
// its deadline. What it makes it also ends.
//
// Errorf may be called from anywhere. Fatalf and everything that waits belong
// to the case's own goroutine: on a loop they would end the engine.
type Env struct {
	// Server is the engine that listens, Client the one that dials; they may
	// be the same.
	Server, Client couplet.Engine
	// Network is where plain peers live.
	Network Network

	t       *testing.T
	suite   *Suite
	network string
	ctx     context.Context // done at the case's deadline
	cancel  context.CancelFunc
	logs    logRecorder

	mu      sync.Mutex
	over    bool
	dir     string // of unix sockets
	serial  atomic.Int32
	engines []couplet.Engine
	conns   []*conn
	closers []func()
	gates   map[couplet.Loop]*atomic.Int32
}

func newEnv(t *testing.T, s *Suite, network string, cfg couplet.Config) *Env {
	e := &Env{t: t, suite: s, network: network, gates: make(map[couplet.Loop]*atomic.Int32)}
	e.ctx, e.cancel = context.WithTimeout(context.Background(), caseTime())
	if e.unix() {
		dir, err := os.MkdirTemp("", "enginetest")
		e.check(err, "a folder for sockets")
		e.dir = dir
	}
	e.Server = e.open(s.Server, cfg)
	e.Client = e.Server
	if s.Client != nil {
		e.Client = e.open(s.Client, cfg)
	}
	switch {
	case s.Peers != nil:
		e.Network = s.Peers(e.Server, e.Client)
	case s.Client != nil:
		e.Network = engineNet{eng: e.Client}
	default:
		e.Network = packageNet{}
	}
	return e
}

// open makes one more engine, which lives as long as the case.
func (e *Env) open(o Open, cfg couplet.Config) couplet.Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(&e.logs)
	}
	eng := o(e.t, cfg)
	e.mu.Lock()
	e.engines = append(e.engines, eng)
	e.mu.Unlock()
	return eng
}

// newEngine makes one more of the server's engines.
func (e *Env) newEngine(cfg couplet.Config) couplet.Engine { return e.open(e.suite.Server, cfg) }

// unix reports whether the case runs on unix sockets.
func (e *Env) unix() bool { return e.network == "unix" }

// Errorf fails the case and goes on.
func (e *Env) Errorf(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		e.t.Errorf(format, args...)
	}
}

// Fatalf fails and ends the case.
func (e *Env) Fatalf(format string, args ...any) {
	e.Errorf(format, args...)
	e.t.FailNow()
}

// check fails and ends the case if err is not nil.
func (e *Env) check(err error, what string) {
	if err != nil {
		e.Fatalf("%s: %v", what, err)
	}
}

// cleanup calls f when the case is over, before its engines end.
func (e *Env) cleanup(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, f)
}

// close ends what the case made. It fails the case where an engine does not
// end, or ends without telling every connection.
func (e *Env) close() {
	e.mu.Lock()
	closers, engines := e.closers, e.engines
	e.closers = nil
	e.mu.Unlock()
	for _, f := range slices.Backward(closers) {
		f()
	}
	for _, eng := range engines {
		e.shutdown(eng)
	}
	e.mu.Lock()
	conns := e.conns
	e.mu.Unlock()
	for _, c := range conns {
		c.checkOver()
	}
	e.cancel()
	if e.dir != "" {
		os.RemoveAll(e.dir)
	}
	e.mu.Lock()
	e.over = true
	e.mu.Unlock()
}

// shutdown ends one engine within a bound.
func (e *Env) shutdown(eng couplet.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		eng.Shutdown(ctx)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		e.Errorf("Shutdown hangs; all goroutines:\n%s", allStacks())
		return
	}
	select {
	case <-eng.Done():
	default:
		e.Errorf("Shutdown returned, and Done is not closed")
		return
	}
	if s := eng.Stats(); eng.Err() == nil && (s.Open != 0 || s.Listening != 0 || s.Held != 0) {
		e.Errorf("after Shutdown Stats says %d open, %d listening and %d bytes held", s.Open, s.Listening, s.Held)
	}
}

// explain logs what happened in a case that failed.
func (e *Env) explain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, c := range e.conns {
		if i == 8 {
			e.t.Logf("and %d connections more", len(e.conns)-i)
			break
		}
		e.t.Logf("%s: %s", c.name, c.history())
	}
	for _, line := range e.logs.all() {
		e.t.Logf("logged: %s", line)
	}
	for i, eng := range e.engines {
		e.t.Logf("engine %d: %s: %+v", i, eng.Describe(), eng.Stats())
	}
}

// recv waits for one value of ch.
func recv[T any](e *Env, ch <-chan T, what string) T {
	select {
	case v := <-ch:
		return v
	case <-e.ctx.Done():
		e.Fatalf("no %s in time", what)
		panic("unreachable")
	}
}

// until waits for what sends no event.
func (e *Env) until(what string, cond func() bool) {
	if !eventually(e.ctx, cond) {
		e.Fatalf("not in time: %s", what)
	}
}

// gate is what guards a loop against two callbacks at once.
func (e *Env) gate(l couplet.Loop) *atomic.Int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.gates[l]
	if g == nil {
		g = new(atomic.Int32)
		e.gates[l] = g
	}
	return g
}

// guarded runs f as the only callback of its loop.
func (e *Env) guarded(l couplet.Loop, what string, f func()) {
	g := e.gate(l)
	if n := g.Add(1); n != 1 {
		e.Errorf("%s while another callback of the loop runs:\n%s", what, allStacks())
	}
	defer g.Add(-1)
	f()
}

// on runs f on the loop and waits for it.
func (e *Env) on(l couplet.Loop, f func()) {
	done := make(chan struct{})
	ok := l.Post(func() {
		defer close(done)
		e.guarded(l, "posted function", f)
	})
	if !ok {
		e.Fatalf("Post refused a function while the engine runs")
	}
	recv(e, done, "run of a posted function")
}

// turns waits until the loop has made n turns.
func (e *Env) turns(l couplet.Loop, n int) {
	for range n {
		e.on(l, func() {})
	}
}

// hold keeps a loop busy until the function that it returns is called.
func (e *Env) hold(l couplet.Loop) (free func()) {
	busy, left := make(chan struct{}), make(chan struct{})
	free = sync.OnceFunc(func() { close(left) })
	e.cleanup(free)
	l.Post(func() {
		close(busy)
		<-left
	})
	recv(e, busy, "posted function")
	return free
}

// settleTime is how long a loop gets to do what it must not do.
const settleTime = 25 * time.Millisecond

// settle gives the loop a while to do what it must not do.
func (e *Env) settle(l couplet.Loop) { e.pass(l, settleTime) }

// pass waits until the loop's clock has gone on by d.
func (e *Env) pass(l couplet.Loop, d time.Duration) {
	done := make(chan struct{})
	e.on(l, func() { l.AfterFunc(d, func() { close(done) }) })
	recv(e, done, "timer of the loop")
	e.turns(l, 2)
}

// sleeps fails the case if c's loop, of eng, has nothing to do and does not sleep.
func (e *Env) sleeps(eng couplet.Engine, c *conn) {
	e.settle(c.loop)
	before := eng.Stats().Turns
	e.pass(c.loop, 50*time.Millisecond)
	if turns := eng.Stats().Turns - before; turns > 1000 {
		e.Errorf("%s: the loop made %d turns in 50 ms", c.name, turns)
	}
}

// tellFreed has freed be true once p was collected.
func tellFreed[T any](p *T, freed *atomic.Bool) {
	runtime.AddCleanup(p, func(freed *atomic.Bool) { freed.Store(true) }, freed)
}

// collected waits until what freed tells of was collected.
func (e *Env) collected(what string, freed *atomic.Bool) {
	e.until(what+" is collected", func() bool {
		runtime.GC()
		return freed.Load()
	})
}

// address is a fresh address to listen on.
func (e *Env) address() string {
	switch e.network {
	case "tcp4":
		return "127.0.0.1:0"
	case "tcp6":
		return "[::1]:0"
	}
	return filepath.Join(e.dir, fmt.Sprintf("s%d", e.serial.Add(1)))
}

// listen listens with the server's engine.
func (e *Env) listen(f couplet.Factory, opts ...couplet.Option) couplet.Listener {
	l, err := e.Server.Listen(e.network, e.address(), f, opts...)
	e.check(err, "Listen")
	return l
}

// serve listens and gives the connections the protocols cs, in turn. More
// connections than protocols are refused.
func (e *Env) serve(cs []*conn, opts ...couplet.Option) couplet.Listener {
	var next atomic.Int32
	return e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		i := int(next.Add(1)) - 1
		if i >= len(cs) {
			return nil
		}
		return cs[i].build(remote)
	}), opts...)
}

// dialFactory gives one dial its outcome.
type dialFactory struct {
	build  func(remote net.Addr) couplet.Protocol
	failed func(address string, err error)
}

func (f dialFactory) Build(remote net.Addr) couplet.Protocol { return f.build(remote) }

func (f dialFactory) ConnectFailed(address string, err error) { f.failed(address, err) }

// dial connects c with the client's engine.
func (e *Env) dial(address string, c *conn, opts ...couplet.Option) {
	err := e.Client.Dial(e.ctx, e.network, address, dialFactory{c.build, func(_ string, err error) {
		e.Errorf("%s: ConnectFailed: %v", c.name, err)
	}}, opts...)
	e.check(err, "Dial")
}

// pair connects c to s, engine to engine, and waits until both are made.
func (e *Env) pair(s, c *conn, opts ...couplet.Option) {
	l := e.serve([]*conn{s}, opts...)
	e.dial(l.Addr().String(), c, opts...)
	s.waitMade()
	c.waitMade()
	l.Close()
}

// peer connects a plain peer to s and waits until s is made. readBuffer is as
// in Network.Dial.
func (e *Env) peer(s *conn, readBuffer int, opts ...couplet.Option) Peer {
	l := e.serve([]*conn{s}, opts...)
	p := e.dialPeer(l.Addr(), readBuffer)
	s.waitMade()
	l.Close()
	return p
}

// dialPeer connects a plain peer.
func (e *Env) dialPeer(addr net.Addr, readBuffer int) Peer {
	p, err := e.Network.Dial(e.network, addr.String(), readBuffer)
	e.check(err, "a peer's dial")
	return e.adopt(p)
}

// adopt bounds a peer by the case's deadline and closes it at the end.
func (e *Env) adopt(p Peer) Peer {
	deadline, _ := e.ctx.Deadline()
	p.SetDeadline(deadline)
	e.cleanup(func() { p.Close() })
	return p
}

// peerListener listens for the client's engine with a plain peer.
func (e *Env) peerListener() PeerListener {
	l, err := e.Network.Listen(e.network, e.address())
	e.check(err, "a peer's listen")
	e.cleanup(func() { l.Close() })
	return l
}

// refuse is an address that refuses.
func (e *Env) refuse() string {
	address, release, err := e.Network.Refuse(e.network)
	e.check(err, "an address that refuses")
	e.cleanup(release)
	return address
}

// stall is an address that neither takes nor refuses.
func (e *Env) stall() string {
	address, release, err := e.Network.Stall(e.network)
	e.check(err, "an address that stalls")
	e.cleanup(release)
	return address
}

// send writes p with the peer.
func (e *Env) send(p Peer, data []byte) {
	_, err := p.Write(data)
	e.check(err, "a peer's write")
}

// expect reads exactly want from the peer.
func (e *Env) expect(p Peer, want string) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(p, got)
	if err != nil || string(got) != want {
		e.Fatalf("the peer read %q (%v), not %q", got[:n], err, want)
	}
}

// expectEOF reads nothing but the end from the peer.
func (e *Env) expectEOF(p Peer) {
	var b [64]byte
	if n, err := p.Read(b[:]); n != 0 || err != io.EOF {
		e.Fatalf("the peer read %q, %v; it should read EOF", b[:n], err)
	}
}

// expectReset reads from the peer to an end that must not look complete.
func (e *Env) expectReset(p Peer) {
	if _, err := io.Copy(io.Discard, p); !errors.Is(err, syscall.ECONNRESET) {
		e.Fatalf("the peer read to %v; it should read a reset", err)
	}
}

// expectStream reads n bytes of the pattern, then EOF.
func (e *Env) expectStream(p Peer, n int64) {
	if got, err := readPattern(p, 0, n+1); got != n || err != io.EOF {
		e.Fatalf("the peer read %d bytes and %v; it should read %d and EOF", got, err, n)
	}
}

// readPattern reads up to n bytes of the pattern from off on, and returns how
// many were right before the error; the error tells of a wrong byte too.
func readPattern(r io.Reader, off, n int64) (int64, error) {
	buf := make([]byte, 256<<10)
	for got := int64(0); ; {
		if got == n {
			return got, nil
		}
		k, err := r.Read(buf[:min(n-got, int64(len(buf)))])
		if bad := checkPattern(off+got, buf[:k]); bad >= 0 {
			return got, fmt.Errorf("byte %d is wrong", off+got+int64(bad))
		}
		got += int64(k)
		if err != nil {
			return got, err
		}
	}
}

// The pattern is an endless stream in which every place looks different from
// its surroundings. It repeats after patternPeriod bytes.
const patternPeriod = 1<<20 - 3

var patternTable = sync.OnceValue(func() []byte {
	table := make([]byte, 2*patternPeriod)
	x := uint64(0x9e3779b97f4a7c15)
	for i := range patternPeriod {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		table[i] = byte(x >> 32)
	}
	copy(table[patternPeriod:], table[:patternPeriod])
	return table
})

// pattern gives n bytes of the pattern from off on; they must not be changed.
func pattern(off int64, n int) []byte {
	at := int(off % patternPeriod)
	if table := patternTable(); at+n <= len(table) {
		return table[at : at+n : at+n]
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, pattern(off+int64(len(out)), min(n-len(out), patternPeriod))...)
	}
	return out
}

// checkPattern is the place of the first byte in p that is not the pattern's at
// off, or -1.
func checkPattern(off int64, p []byte) int {
	for at := 0; at < len(p); {
		n := min(len(p)-at, patternPeriod)
		want := pattern(off+int64(at), n)
		if !bytes.Equal(want, p[at:at+n]) {
			for i := range want {
				if want[i] != p[at+i] {
					return at + i
				}
			}
		}
		at += n
	}
	return -1
}

// bulk is n bytes, or less where everything is slow.
func bulk(n int) int {
	if raceEnabled {
		return min(n, 8<<20)
	}
	return n
}

// scaled is n, or a part of it where everything is slow.
func scaled(n int) int {
	if raceEnabled {
		return max(n/8, 1)
	}
	return n
}

// class names the class of a reason: what must agree on all engines.
func class(err error) string {
	var panicked *couplet.PanicError
	var failed *couplet.EngineError
	var op *net.OpError
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &failed):
		return "engine"
	case errors.As(err, &panicked):
		return "panic"
	case err == couplet.ErrAborted:
		return "aborted"
	case err == couplet.ErrShutdown:
		return "shutdown"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.As(err, &op) && errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.As(err, &op) && errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, io.EOF):
		return "eof"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return fmt.Sprintf("other (%T: %v)", err, err)
}

// wantReason fails the case unless err is of one of the classes.
func (e *Env) wantReason(who string, err error, classes ...string) {
	if got := class(err); !slices.Contains(classes, got) {
		e.Errorf("%s: the reason %v is of class %s, not %s", who, err, got, strings.Join(classes, " or "))
	}
}

// gone is the class that a peer's reset has on this network: none on unix
// sockets, where it looks like a clean end.
func (e *Env) gone() []string {
	if e.unix() {
		return []string{"reset", "eof"}
	}
	return []string{"reset"}
}

// logRecorder is a slog.Handler that keeps every record as one line.
type logRecorder struct {
	mu    sync.Mutex
	lines []string
}

func (*logRecorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *logRecorder) Handle(_ context.Context, rec slog.Record) error {
	line := rec.Level.String() + " " + rec.Message
	rec.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	return nil
}

func (r *logRecorder) WithAttrs(attrs []slog.Attr) slog.Handler { return attrHandler{r, attrs} }
func (r *logRecorder) WithGroup(string) slog.Handler            { return r }

func (r *logRecorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// count is the number of lines that contain s, in whatever case.
func (r *logRecorder) count(s string) int {
	n := 0
	for _, line := range r.all() {
		if strings.Contains(strings.ToLower(line), strings.ToLower(s)) {
			n++
		}
	}
	return n
}

// attrHandler is a logRecorder behind slog.Logger.With.
type attrHandler struct {
	*logRecorder
	attrs []slog.Attr
}

func (h attrHandler) Handle(ctx context.Context, rec slog.Record) error {
	rec = rec.Clone()
	rec.AddAttrs(h.attrs...)
	return h.logRecorder.Handle(ctx, rec)
}

func (h attrHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return attrHandler{h.logRecorder, slices.Concat(h.attrs, attrs)}
}
