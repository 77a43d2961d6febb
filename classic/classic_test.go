package classic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/sock"
	"couplet/internal/testpeer"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func newEngine(t *testing.T, cfg couplet.Config) *engine {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e.Shutdown(ctx)
		if ctx.Err() != nil {
			t.Error("the engine did not end in time")
		}
	})
	return e.(*engine)
}

func receive[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("no %s in time", what)
	}
	return v
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Errorf("%s did not come in time", what)
			return
		}
	}
}

// script is a protocol of functions.
type script struct {
	made   func(t couplet.Transport)
	data   func(t couplet.Transport, p []byte)
	paused func(t couplet.Transport)
	lost   chan error
}

func newScript() *script { return &script{lost: make(chan error, 1)} }

func (s *script) ConnectionMade(t couplet.Transport) {
	if s.made != nil {
		s.made(t)
	}
}

func (s *script) DataReceived(t couplet.Transport, p []byte) {
	if s.data != nil {
		s.data(t, p)
	}
}

func (s *script) WritePaused(t couplet.Transport) {
	if s.paused != nil {
		s.paused(t)
	}
}

func (s *script) WriteResumed(t couplet.Transport) {
	if s.paused != nil {
		s.paused(t)
	}
}

func (s *script) ConnectionLost(_ couplet.Transport, reason error) { s.lost <- reason }

func always(p couplet.Protocol) couplet.Factory {
	return couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p })
}

func listen(t *testing.T, e *engine, network, address string, f couplet.Factory, opts ...couplet.Option) couplet.Listener {
	t.Helper()
	l, err := e.Listen(network, address, f, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialTo(t *testing.T, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(a.Network(), a.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// Callbacks are made by four kinds of goroutines here, and Shutdown must know
// each of them.
func TestShutdownOnEveryKindOfGoroutine(t *testing.T) {
	shutdown := func(e *engine, got chan<- error) {
		_, err := e.Shutdown(context.Background())
		got <- err
	}
	stuck := make(chan struct{})
	for name, run := range map[string]func(e *engine, s *script, got chan<- error){
		"accept": func(e *engine, s *script, got chan<- error) {
			s.made = func(couplet.Transport) { shutdown(e, got) }
		},
		"read": func(e *engine, s *script, got chan<- error) {
			s.data = func(couplet.Transport, []byte) { shutdown(e, got) }
		},
		"write": func(e *engine, s *script, got chan<- error) {
			n := 0
			s.made = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
			s.paused = func(couplet.Transport) {
				switch n++; n {
				case 1: // WritePaused
					close(stuck)
				case 2: // WriteResumed
					shutdown(e, got)
				}
			}
		},
		"post": func(e *engine, s *script, got chan<- error) {
			s.made = func(t couplet.Transport) { t.Loop().Post(func() { shutdown(e, got) }) }
		},
		"dial": func(e *engine, s *script, got chan<- error) {
			s.made = func(t couplet.Transport) {
				c := newScript()
				c.made = func(couplet.Transport) { shutdown(e, got) }
				e.Dial(context.Background(), "tcp", t.LocalAddr().String(), always(c))
				s.made = nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, couplet.Config{})
			s := newScript()
			s.lost = make(chan error, 2) // the dial's other end too
			got := make(chan error, 1)
			run(e, s, got)
			c := dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(s), couplet.SendBuffer(64<<10)).Addr())
			c.Write([]byte("x"))
			if name == "write" {
				receive(t, stuck, "WritePaused")
			}
			go io.Copy(io.Discard, c)
			if err := receive(t, got, "answer of Shutdown"); err != couplet.ErrOnLoop {
				t.Errorf("Shutdown on a loop answers %v", err)
			}
			receive(t, e.Done(), "end of the engine")
		})
	}
}

// A callback of one engine may wait for the end of another.
func TestShutdownOfAnotherEngineOnALoop(t *testing.T) {
	a, b := newEngine(t, couplet.Config{}), newEngine(t, couplet.Config{})
	got := make(chan error, 1)
	a.Loops()[0].Post(func() {
		_, err := b.Shutdown(context.Background())
		got <- err
	})
	if err := receive(t, got, "answer of Shutdown"); err != nil {
		t.Error(err)
	}
}

// Goexit ends the goroutine that made the callback, whichever it is.
func TestGoexitOnEveryKindOfGoroutine(t *testing.T) {
	for name, prepare := range map[string]func(s *script) couplet.Factory{
		"Build": func(*script) couplet.Factory {
			return couplet.FactoryFunc(func(net.Addr) couplet.Protocol { runtime.Goexit(); return nil })
		},
		"ConnectionMade": func(s *script) couplet.Factory {
			s.made = func(couplet.Transport) { runtime.Goexit() }
			return always(s)
		},
		"DataReceived": func(s *script) couplet.Factory {
			s.data = func(couplet.Transport, []byte) { runtime.Goexit() }
			return always(s)
		},
		"WritePaused": func(s *script) couplet.Factory {
			s.made = func(t couplet.Transport) { t.Write(make([]byte, 16<<20)) }
			s.paused = func(couplet.Transport) { runtime.Goexit() }
			return always(s)
		},
		"a timer": func(s *script) couplet.Factory {
			s.made = func(t couplet.Transport) { t.AfterFunc(0, runtime.Goexit) }
			return always(s)
		},
		"a post": func(s *script) couplet.Factory {
			s.made = func(t couplet.Transport) { t.Loop().Post(runtime.Goexit) }
			return always(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, couplet.Config{Loops: 2})
			bystander := newScript()
			dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(bystander)).Addr())
			s := newScript()
			addr := listen(t, e, "tcp", "127.0.0.1:0", prepare(s), couplet.SendBuffer(64<<10)).Addr().String()
			if c, err := net.Dial("tcp", addr); err == nil { // or the reset was faster
				defer c.Close()
				c.Write([]byte("x"))
			}
			receive(t, e.Done(), "end of the engine")
			failure, ok := errors.AsType[*couplet.EngineError](e.Err())
			if !ok {
				t.Fatalf("the engine's error is %v", e.Err())
			}
			if _, err := e.Shutdown(t.Context()); err != error(failure) {
				t.Errorf("Shutdown answers %v", err)
			}
			if name != "Build" {
				if err := receive(t, s.lost, "ConnectionLost"); err != error(failure) {
					t.Errorf("the reason is %v", err)
				}
			}
			select {
			case err := <-bystander.lost:
				if err != error(failure) {
					t.Errorf("the bystander's reason is %v", err)
				}
			default: // it was in the backlog still
			}
		})
	}
}

// Everything that Post accepted runs, also what was behind a Goexit.
func TestPostsBehindAGoexitRun(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	ran := make(chan struct{})
	l := e.Loops()[0]
	l.Post(func() {
		l.Post(runtime.Goexit)
		if !l.Post(func() { close(ran) }) {
			t.Error("Post is refused")
		}
	})
	receive(t, ran, "posted function")
	receive(t, e.Done(), "end of the engine")
}

// The queue of posts kept the memory of the longest burst for good.
func TestABurstOfPostsLeavesNoMemory(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	l := e.loops[0]
	l.Post(func() {
		for range 100_000 {
			l.Post(func() {})
		}
	})
	for range 4 { // posts of two turns after it, at least
		ran := make(chan struct{})
		l.Post(func() { l.Post(func() { close(ran) }) })
		receive(t, ran, "posted function")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.postMu.Lock()
	defer l.postMu.Unlock()
	if most := max(cap(l.batch), cap(l.posts)); most > 1024 {
		t.Errorf("there is room for %d posts", most)
	}
}

// Connections are built in the order in which they were made.
func TestBuildInOrder(t *testing.T) {
	e := newEngine(t, couplet.Config{Loops: 3})
	built := make(chan string, 100)
	l := listen(t, e, "tcp", "127.0.0.1:0", couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		built <- remote.String()
		return newScript()
	}))
	var want []string
	for range cap(built) {
		want = append(want, dialTo(t, l.Addr()).LocalAddr().String())
	}
	for i, w := range want {
		if got := receive(t, built, "Build"); got != w {
			t.Fatalf("connection %d is from %s, want %s", i, got, w)
		}
	}
}

// A socket file that was handed over is its new owner's: the old listener does
// not remove it, the new one does.
func TestAnAdoptedUnixPathStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	e := newEngine(t, couplet.Config{})
	old := listen(t, e, "unix", path, always(newScript()))
	f, err := old.File()
	if err != nil {
		t.Fatal(err)
	}
	successor := listen(t, e, "unix", "", always(newScript()), couplet.FromFile(f))
	f.Close()
	old.Close()
	receive(t, old.Closed(), "end of the listener")
	dialTo(t, successor.Addr())
	successor.Close()
	receive(t, successor.Closed(), "end of the listener")
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// The work of Loop.Go that ends its goroutine still has its done called.
func TestGoexitInWork(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	got := make(chan error, 1)
	e.Loops()[0].Go(func(context.Context) error { runtime.Goexit(); return nil }, func(err error) { got <- err })
	if err := receive(t, got, "done"); err == nil {
		t.Error("the work that did not return has no error")
	}
}

func TestArgumentsThatCannotBeRight(t *testing.T) {
	e, other := newEngine(t, couplet.Config{}), newEngine(t, couplet.Config{})
	f := always(newScript())
	for _, c := range []struct{ network, address string }{
		{"udp", "127.0.0.1:1"}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:"}, {"tcp", "127.0.0.1:65536"},
		{"tcp", "127.0.0.1:no-such-service"}, {"tcp4", "[::1]:1"}, {"tcp6", "127.0.0.1:1"},
		{"unix", ""}, {"unix", "a\x00b"}, {"unix", fmt.Sprintf("%0108d", 0)},
	} {
		var op *net.OpError
		if err := e.Dial(t.Context(), c.network, c.address, f); !errors.As(err, &op) {
			t.Errorf("Dial(%s, %.20q) = %v", c.network, c.address, err)
		}
	}
	if e.Dial(t.Context(), "tcp", "127.0.0.1:1", nil) == nil {
		t.Error("Dial without a Factory is accepted")
	}
	if e.Dial(t.Context(), "tcp", "127.0.0.1:1", f, couplet.OnLoop(other.Loops()[0])) == nil {
		t.Error("another engine's loop is accepted")
	}
	if _, err := e.ListenPacket("udp", ":0", nil); !errors.Is(err, couplet.ErrNotSupported) {
		t.Errorf("ListenPacket answers %v", err)
	}
	if _, err := New(couplet.Config{Loops: -1}); err == nil {
		t.Error("-1 loops are accepted")
	}
}

// drainer is a script that is told of Stop, and goes on.
type drainer struct {
	*script
	told chan struct{}
}

func (d drainer) Draining(couplet.Transport) { close(d.told) }

// drainable makes a connection of e whose protocol is a drainer.
func drainable(t *testing.T, e *engine) drainer {
	t.Helper()
	d := drainer{newScript(), make(chan struct{})}
	made := make(chan struct{})
	d.made = func(couplet.Transport) { close(made) }
	dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(d)).Addr())
	receive(t, made, "ConnectionMade")
	return d
}

// cutAtOnce shuts e down with no time left, and checks that d was told, then cut, and
// that this was reported.
func cutAtOnce(t *testing.T, e *engine, d drainer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if drained, err := e.Shutdown(ctx); drained != (couplet.Drained{Cut: 1}) || err != context.Canceled {
		t.Errorf("Shutdown answers %+v, %v", drained, err)
	}
	if err := receive(t, d.lost, "ConnectionLost"); err != couplet.ErrShutdown {
		t.Errorf("the reason is %v", err)
	}
	select {
	case <-d.told:
	default:
		t.Error("Draining was not called")
	}
}

// The cut of one goroutine's Shutdown came before what another's Stop was about to
// begin: connections were ended that had not been told, and that nobody counted.
func TestShutdownWhileAnotherStops(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	d := drainable(t, e)
	for range 20_000 { // Stop has to cancel them all
		_, cancel := context.WithCancel(e.ctx)
		defer cancel()
	}
	go e.Stop()
	await(t, "the stop", func() bool { e.mu.Lock(); defer e.mu.Unlock(); return e.stopped })
	cutAtOnce(t, e, d)
}

// The cut waited for everything that had been posted before: with a million posts,
// longer than Shutdown does.
func TestTheCutComesBeforePosts(t *testing.T) {
	e := newEngine(t, couplet.Config{PostsPerTurn: 1})
	d := drainable(t, e)
	l := e.loops[0]
	busy := make(chan struct{})
	l.Post(func() { close(busy); await(t, "the cut", l.cutting.Load) })
	receive(t, busy, "posted function")
	behind := 0
	for range 100 {
		l.Post(func() {
			select {
			case <-d.told:
			default:
				behind++
			}
		})
	}
	cutAtOnce(t, e, d)
	if behind > 0 {
		t.Errorf("%d posts ran before the cut", behind)
	}
}

// A loop that was busy until ConnectTimeout had passed lost what was connected long
// before.
func TestConnectTimeoutIsNotForTheLoop(t *testing.T) {
	const limit = 300 * time.Millisecond
	e := newEngine(t, couplet.Config{})
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	a := make(testpeer.Attempt, 1)
	e.Loops()[0].Post(func() {
		over := time.After(2 * limit)
		if err := e.Dial(context.Background(), "tcp", peer.Addr().String(), a, couplet.ConnectTimeout(limit)); err != nil {
			t.Error(err)
		}
		<-over
	})
	if err := receive(t, a, "outcome of the dial"); err != nil {
		t.Errorf("the dial failed: %v", err)
	}
}

// Where the first address of a name does not answer there is time for the second.
func TestEachAddressHasAShareOfTheTime(t *testing.T) {
	port := listeningAt(t, "127.0.0.3")
	first := listen(t, newEngine(t, couplet.Config{}), "tcp4", "127.0.0.2:"+port,
		couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return newScript() }), couplet.Backlog(1), couplet.MaxConns(1))
	for full := false; !full; { // one is served, and the backlog has room for two
		c, err := net.DialTimeout("tcp4", first.Addr().String(), 100*time.Millisecond)
		if full = err != nil; !full {
			defer c.Close()
		}
	}
	reachesName(t, port, couplet.ConnectTimeout(time.Second))
}

// The first of several addresses has its time, also where the dial's context has no end.
func TestTheFirstAddressIsTried(t *testing.T) {
	reachesName(t, listeningAt(t, "127.0.0.2"))
}

// listeningAt is the port of a listener at ip, which lasts as long as the test.
func listeningAt(t *testing.T, ip string) (port string) {
	l, err := net.Listen("tcp4", ip+":0")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// reachesName dials a name that means 127.0.0.2 and then 127.0.0.3.
func reachesName(t *testing.T, port string, opts ...couplet.Option) {
	t.Helper()
	resolveTo(t, "127.0.0.2", "127.0.0.3")
	a := make(testpeer.Attempt, 1)
	if err := newEngine(t, couplet.Config{}).Dial(context.Background(), "tcp", "name.example:"+port, a, opts...); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, a, "outcome of the dial"); err != nil {
		t.Errorf("the dial failed: %v", err)
	}
}

// resolveTo has every name of this test mean these IPv4 addresses.
func resolveTo(t *testing.T, ips ...string) {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for p := make([]byte, 1500); ; {
			_, from, err := server.ReadFrom(p)
			if err != nil {
				return
			}
			end := 12 // of the header; the question follows: labels, a zero, type and class
			for p[end] != 0 {
				end += 1 + int(p[end])
			}
			end += 5
			answer := append([]byte(nil), p[:end]...)
			copy(answer[2:], []byte{0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
			if p[end-3] == 1 { // type A
				answer[7] = byte(len(ips))
				for _, ip := range ips {
					answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
					answer = append(answer, net.ParseIP(ip).To4()...)
				}
			}
			server.WriteTo(answer, from)
		}
	}()
	old := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = old })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("udp4", server.LocalAddr().String())
	}}
}

// A dial's success that crossed the engine's end came after everybody had been told of it:
// nobody ended that connection, nor was it counted.
func TestADialSlippedThroughTheEnd(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	d := &dial{e: e, ctx: context.Background()} // it is given up by a goroutine, which may be late
	if err := d.late(nil); err != nil {
		t.Errorf("before the end: %v", err)
	}
	e.Stop()
	if err := d.late(nil); !errors.Is(err, couplet.ErrShutdown) {
		t.Errorf("after it: %v", err)
	}
}

// An engine that fails stops, too: the loops that heard of that first ended their streams in
// order.
func TestAFailedEngineEndedItsStreamsWithAFIN(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	s := newScript()
	c := dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(s)).Addr())
	defer c.Close()
	l := e.loops[0]
	await(t, "the connection", func() bool { return e.Stats().Open == 1 })
	e.mu.Lock()
	e.failure = &couplet.EngineError{Engine: Name, Err: errors.New("broken")}
	e.mu.Unlock()
	l.Post(l.drain)
	if err := receive(t, s.lost, "ConnectionLost"); !errors.Is(err, e.failure) {
		t.Errorf("the protocol hears %v", err)
	}
	c.SetDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the peer reads %d, %v", n, err)
	}
	e.fail(e.failure.Err)
}

// A Go that crossed the engine's end was promised, and its done never called.
func TestGoCrossedTheEnd(t *testing.T) {
	for round := range 1000 {
		e, err := New(couplet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var promised, done atomic.Int64
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for e.Loops()[0].Go(func(context.Context) error { return nil }, func(error) { done.Add(1) }) {
					promised.Add(1)
					runtime.Gosched()
				}
			})
		}
		for range round % 50 {
			runtime.Gosched()
		}
		if _, err := e.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if promised.Load() != done.Load() {
			t.Fatalf("round %d: %d were promised, and %d came back", round, promised.Load(), done.Load())
		}
	}
}

// asks is a Handler that asks the engine for its error.
type asks struct {
	slog.Handler
	e    *couplet.Engine
	told chan error
}

func (h asks) Enabled(context.Context, slog.Level) bool { return true }
func (h asks) Handle(context.Context, slog.Record) error {
	h.told <- (*h.e).Err()
	return nil
}

// The log was written to with a lock held that whoever asks the engine waits for.
func TestALogThatAskedTheEngineNeverReturned(t *testing.T) {
	var e couplet.Engine
	h := asks{slog.DiscardHandler, &e, make(chan error, 1)}
	var err error
	if e, err = New(couplet.Config{Logger: slog.New(h)}); err != nil {
		t.Fatal(err)
	}
	e.Loops()[0].Post(runtime.Goexit)
	if err := receive(t, h.told, "log entry"); err == nil {
		t.Error("the engine that has failed says nothing")
	}
	receive(t, e.Done(), "end of the engine")
}

// A Goexit in Control lost the dial: its factory was told nothing, and the engine waited for it.
func TestGoexitInControl(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	l := listen(t, e, "tcp", "127.0.0.1:0", always(newScript()))
	a := make(testpeer.Attempt, 1)
	err := e.Dial(t.Context(), "tcp", l.Addr().String(), a, couplet.Control(func(uintptr) error { runtime.Goexit(); return nil }))
	if err != nil {
		t.Fatal(err)
	}
	if err := receive(t, a, "end of the dial"); !errors.Is(err, e.Err()) || err == nil {
		t.Errorf("the factory hears %v", err)
	}
	receive(t, e.Done(), "end of the engine")
}

// A function that posts itself, as who has much to write is told to, had its loop never end.
func TestAFunctionThatPostedItselfHeldTheEndUp(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	l := e.Loops()[0]
	refused := make(chan struct{})
	var again func()
	again = func() {
		if !l.Post(again) {
			close(refused)
		}
	}
	l.Post(again)
	e.Stop()
	receive(t, e.Done(), "end of the engine")
	receive(t, refused, "refusal of a post")
}

// refusing is a listening socket whose accepts fail, from the first on.
type refusing struct {
	streamListener
	err     error
	tries   atomic.Int32
	closing chan struct{}
}

func (r *refusing) Accept() (net.Conn, error) { r.tries.Add(1); return nil, r.err }
func (r *refusing) Addr() net.Addr            { return &net.UnixAddr{Name: "@refusing", Net: "unix"} }
func (r *refusing) SetDeadline(time.Time) error {
	close(r.closing)
	return nil
}
func (r *refusing) Close() error { return nil }

// A seccomp or LSM profile that refuses accept was an outage without a line in the log.
func TestAcceptsThatWereRefusedForEverWereNotLogged(t *testing.T) {
	lines := make(chan string, 1)
	e := newEngine(t, couplet.Config{Logger: testpeer.Logger(func(line string) {
		select {
		case lines <- line:
		default:
		}
	})})
	r := &refusing{err: os.NewSyscallError("accept4", syscall.EPERM), closing: make(chan struct{})}
	l := &listener{e: e, ln: r, stop: make(chan struct{}), done: make(chan struct{})}
	if !e.begin() {
		t.Fatal("the engine has ended")
	}
	e.count.listening.Add(1)
	e.mu.Lock()
	e.listeners[l] = struct{}{} // so that the engine's end is its own
	e.running.Go(l.accept)
	e.mu.Unlock()
	line := receive(t, lines, "line in the log")
	if n := r.tries.Load(); n < sock.MaxIgnored {
		t.Errorf("%d failures in a row are logged", n)
	}
	if !strings.HasPrefix(line, "WARN cannot accept") || !strings.Contains(line, r.err.Error()) ||
		runtime.GOOS == "linux" && !strings.Contains(line, "a seccomp or LSM filter may refuse accept") {
		t.Errorf("the log has %q", line)
	}
	l.Close()
	receive(t, r.closing, "end of the accepts")
	receive(t, l.Closed(), "end of the listener")
}
