//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"weak"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/loop"
	"couplet/internal/testpeer"
	"couplet/proactor"
)

// onTiers runs f with an engine of each tier, which f shuts down.
func onTiers(t *testing.T, config couplet.Config, f func(t *testing.T, e couplet.Engine)) {
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			config.Features = tier.features
			e, err := proactor.New(config)
			if err != nil {
				t.Skip(err)
			}
			f(t, e)
		})
	}
}

// late reads nothing until it is told to.
type late struct {
	made chan couplet.Handle
	lost chan error
	got  int
}

func (p *late) ConnectionMade(t couplet.Transport) {
	t.PauseReading()
	p.made <- t.Handle()
}
func (p *late) DataReceived(_ couplet.Transport, data []byte) { p.got += len(data) }
func (p *late) ConnectionLost(_ couplet.Transport, why error) { p.lost <- why }

// A multishot receive that is armed when more waits in the socket than the
// kernel receives at one go (32 buffers), and behind it the end of the stream or
// a reset, loses that end: Linux 6.18 waits for a wake-up that has been. The
// connection then never ended.
func TestTheEndBehindManyBuffersWasLost(t *testing.T) {
	for _, tier := range tiers {
		for _, network := range []string{"tcp4", "unix"} {
			t.Run(tier.features.Tier()+"/"+network, func(t *testing.T) {
				e, err := proactor.New(couplet.Config{Features: tier.features, RingBuffers: 64, RingBufferSize: 1024})
				if err != nil {
					t.Skip(err)
				}
				defer e.Shutdown(t.Context())
				p := &late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}
				_, c := testpeer.Dial(t, e, network, p)
				h := <-p.made
				const n = 45 << 10
				if _, err := c.Write(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
				if c, ok := c.(*net.TCPConn); ok {
					c.SetLinger(0)
				}
				c.Close()
				h.Post(func(t couplet.Transport) { t.ResumeReading() })
				select {
				case why := <-p.lost:
					if p.got != n {
						t.Errorf("%d of %d bytes came before %v", p.got, n, why)
					}
				case <-time.After(10 * time.Second):
					t.Errorf("no end of a connection whose peer is gone: %+v", e.Stats())
					h.Abort()
				}
			})
		}
	}
}

// stays lives on when its peer has closed its half.
type stays struct{ made, readClosed chan couplet.Handle }

func (p stays) ConnectionMade(t couplet.Transport)          { p.made <- t.Handle() }
func (p stays) DataReceived(couplet.Transport, []byte)      {}
func (p stays) ReadClosed(t couplet.Transport)              { p.readClosed <- t.Handle() }
func (p stays) ConnectionLost(_ couplet.Transport, _ error) {}

// Where several peers closed their half at once and the completion queue held few, the
// watches that follow ended one another: each was armed again while completions were
// reaped, and overflowed the queue again. The loop never came out of that.
func TestWatchesThatOverflowTheQueueEndedOneAnother(t *testing.T) {
	const n = 8
	onTiers(t, couplet.Config{RingEntries: 1, CompletionEntries: 1}, func(t *testing.T, e couplet.Engine) {
		defer func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			e.Shutdown(ctx)
		}()
		p := stays{make(chan couplet.Handle, n), make(chan couplet.Handle, n)}
		l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }))
		if err != nil {
			t.Fatal(err)
		}
		var peers []*net.TCPConn
		for range n {
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peers = append(peers, c.(*net.TCPConn))
			<-p.made
		}
		held, closed := make(chan bool), make(chan bool)
		e.Loops()[0].Post(func() { held <- true; <-closed })
		<-held
		for _, c := range peers {
			c.CloseWrite()
		}
		close(closed)
		deadline := time.After(20 * time.Second)
		for range n {
			select {
			case <-p.readClosed:
			case <-deadline:
				t.Fatalf("a peer's end is not told: %+v", e.Stats())
			}
		}
		passed := make(chan bool)
		before := e.Stats().Turns
		e.Loops()[0].Post(func() { e.Loops()[0].AfterFunc(50*time.Millisecond, func() { close(passed) }) })
		select {
		case <-passed:
		case <-deadline:
			t.Fatalf("the loop does not come back: %+v", e.Stats())
		}
		if turns := e.Stats().Turns - before; turns > 1000 {
			t.Errorf("the loop made %d turns in 50 ms", turns)
		}
	})
}

// half is late that goes on after its peer's FIN.
type half struct {
	late
	ended chan struct{}
}

func (p *half) ReadClosed(couplet.Transport) { close(p.ended) }

// TestAResetBehindAnEndThatWasLost has the watch find an end that the receive had lost:
// from then on another one must look out for a reset.
func TestAResetBehindAnEndThatWasLost(t *testing.T) {
	onTiers(t, couplet.Config{RingBuffers: 64, RingBufferSize: 1024}, func(t *testing.T, e couplet.Engine) {
		defer e.Shutdown(t.Context())
		p := &half{late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}, make(chan struct{})}
		_, c := testpeer.Dial(t, e, "tcp4", p)
		defer c.Close()
		h := <-p.made
		if _, err := c.Write(make([]byte, 45<<10)); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).CloseWrite()
		h.Post(func(t couplet.Transport) { t.ResumeReading() })
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			t.Fatal("no end of the stream")
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		select {
		case why := <-p.lost:
			if !errors.Is(why, syscall.ECONNRESET) {
				t.Errorf("the reason is %v", why)
			}
		case <-time.After(10 * time.Second):
			t.Error("the reset was not told")
			h.Abort()
		}
	})
}

// answers writes a lot to whoever connects.
type answers struct {
	paused bool
	handle chan couplet.Handle
}

const aLot = 8 << 20

func (p answers) ConnectionMade(t couplet.Transport) {
	if p.paused {
		t.PauseReading()
	}
	t.Write(make([]byte, aLot))
	p.handle <- t.Handle()
}

func (p answers) DataReceived(couplet.Transport, []byte)      {}
func (p answers) ConnectionLost(_ couplet.Transport, _ error) {}

type answersOn struct{ answers }

func (p answersOn) ReadClosed(couplet.Transport) {}

// A send waits in the kernel by a poll, to which the kernel adds RDHUP: behind a peer's FIN
// that poll is over at once. So a peer that closed its half and did not read kept the
// kernel busy, for a sixth of a CPU each.
func TestASendBehindThePeersEndSpun(t *testing.T) {
	for _, tier := range tiers {
		for _, network := range []string{"tcp4", "unix"} {
			for name, protocol := range map[string]func(answers) couplet.Protocol{
				"goes on":  func(a answers) couplet.Protocol { return answersOn{a} },
				"flushing": func(a answers) couplet.Protocol { return a },
				"paused":   func(a answers) couplet.Protocol { a.paused = true; return a },
			} {
				t.Run(tier.features.Tier()+"/"+network+"/"+name, func(t *testing.T) {
					e, err := proactor.New(couplet.Config{Features: tier.features})
					if err != nil {
						t.Skip(err)
					}
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					defer cancel()
					defer e.Shutdown(ctx)
					a := answers{handle: make(chan couplet.Handle, 1)}
					_, c := testpeer.Dial(t, e, network, protocol(a), couplet.SendBuffer(512<<10))
					defer c.Close()
					h := <-a.handle
					c.(interface{ CloseWrite() error }).CloseWrite()
					for turns := int64(-1); turns != e.Stats().Turns; {
						if turns = e.Stats().Turns; ctx.Err() != nil {
							t.Fatalf("the loop does not sleep: %+v", e.Stats())
						}
						time.Sleep(20 * time.Millisecond)
					}
					c.SetReadDeadline(time.Now().Add(20 * time.Second))
					if n, err := io.CopyN(io.Discard, c, aLot); err != nil {
						t.Errorf("%v behind %d bytes: %+v", err, n, e.Stats())
					}
					h.Abort()
				})
			}
		}
	}
}

// With a limit connections are accepted one at a time, and none beyond it; what a trace
// called a multishot accept was a single one, and a cancel of one that was over followed.
func TestALimitIsKeptByOneAcceptAtATime(t *testing.T) {
	onTiers(t, couplet.Config{}, func(t *testing.T, e couplet.Engine) {
		defer e.Shutdown(t.Context())
		var asked []string
		e.Loops()[0].(*loop.Loop).TraceTo(func(_ time.Time, layer, what string, _ int, _ string) {
			if layer == string(loop.Entry) && (strings.HasPrefix(what, "accept") || what == "cancel") {
				asked = append(asked, what)
			}
		})
		p := &late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}
		_, c := testpeer.Dial(t, e, "tcp4", p, couplet.MaxConns(1))
		defer c.Close()
		h := <-p.made
		traced := make(chan []string, 1)
		h.Post(func(couplet.Transport) { traced <- slices.Clone(asked) })
		if got := <-traced; !slices.Equal(got, []string{"accept"}) {
			t.Errorf("the kernel was asked to %q", got)
		}
		h.Abort()
		<-p.lost
		e.Loops()[0].Post(func() { e.Loops()[0].Post(func() { traced <- asked }) })
		if got := <-traced; !slices.Equal(got, []string{"accept", "accept"}) {
			t.Errorf("with a place again, the kernel was asked to %q", got)
		}
	})
}

// ends ends its goroutine, and so its engine.
type ends struct{}

func (ends) ConnectionMade(couplet.Transport)        { runtime.Goexit() }
func (ends) DataReceived(couplet.Transport, []byte)  {}
func (ends) ConnectionLost(couplet.Transport, error) {}

// Of several connections accepted in one batch those behind the one with which the
// engine failed were left open, in nobody's hands.
func TestAnEngineThatFailsLeftAcceptedConnectionsOpen(t *testing.T) {
	onTiers(t, couplet.Config{}, func(t *testing.T, e couplet.Engine) {
		l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return ends{} }))
		if err != nil {
			t.Fatal(err)
		}
		held, on := make(chan struct{}), make(chan struct{})
		e.Loops()[0].Post(func() { // and by now it accepts
			e.Loops()[0].Post(func() { close(held); <-on })
		})
		<-held
		var all []net.Conn
		for range 5 {
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all = append(all, c)
		}
		close(on)
		<-e.Done()
		for i, c := range all {
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("connection %d: %v", i, err)
			}
		}
	})
}

// An accept goes on until the ring is closed: who came while the engine was failing was
// left open, too.
func TestAnEngineThatFailsLeftOpenWhoCameMeanwhile(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			for range 50 {
				e, err := proactor.New(couplet.Config{Features: tier.features, RingBuffers: 4, RingBufferSize: 1024, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Skip(err)
				}
				l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return ends{} }))
				if err != nil {
					t.Fatal(err)
				}
				var all []net.Conn
				for {
					c, err := net.Dial("tcp4", l.Addr().String())
					if err != nil {
						break // nobody listens any more
					}
					all = append(all, c)
				}
				<-e.Done()
				port := l.Addr().(*net.TCPAddr).Port
				for fd := range 200 + len(all) {
					sa, _ := unix.Getsockname(fd)
					if sa, ok := sa.(*unix.SockaddrInet4); ok && sa.Port == port {
						t.Errorf("descriptor %d is open, with %d connections made", fd, len(all))
						unix.Close(fd)
					}
				}
				for _, c := range all {
					c.Close()
				}
			}
		})
	}
}

// The memory that the kernel may still write to is kept when an engine fails, and with it
// were the engine, its connections, and whatever their protocols had.
func TestAFailedEngineKeptItsUsers(t *testing.T) {
	onTiers(t, couplet.Config{Logger: slog.New(slog.DiscardHandler)}, func(t *testing.T, e couplet.Engine) {
		gone := make(chan struct{})
		func() {
			p := &half{late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}, make(chan struct{})}
			runtime.AddCleanup(p, func(c chan struct{}) { close(c) }, gone)
			_, c := testpeer.Dial(t, e, "tcp4", p)
			defer c.Close()
			h := <-p.made
			if _, err := h.Write(make([]byte, 1<<20)); err != nil {
				t.Error(err)
			}
			l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return ends{} }))
			if err != nil {
				t.Fatal(err)
			}
			if c, err := net.Dial("tcp4", l.Addr().String()); err == nil {
				defer c.Close()
			}
			<-e.Done()
			<-p.lost
		}()
		e = nil
		deadline := time.After(10 * time.Second)
		for {
			runtime.GC()
			select {
			case <-gone:
				return
			case <-deadline:
				t.Fatal("the protocol is still kept")
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// What a failed ring still sends from is kept, as the kernel may read it yet, and no more.
func TestAFailedEngineKeepsWhatItSends(t *testing.T) {
	for _, ablation := range []couplet.Ablation{{}, {ZeroCopy: true}} {
		onTiers(t, couplet.Config{Logger: slog.New(slog.DiscardHandler), Ablation: ablation}, keepsWhatItSends)
	}
}

func keepsWhatItSends(t *testing.T, e couplet.Engine) {
	p := &late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}
	_, c := testpeer.Dial(t, e, "tcp4", p, couplet.SendBuffer(64<<10))
	defer c.Close()
	h := <-p.made
	var sent, queued weak.Pointer[byte]
	h.Post(func(t couplet.Transport) {
		for _, kept := range []*weak.Pointer[byte]{&sent, &queued} {
			memory := make([]byte, 32<<20) // more than the sockets hold, and one send takes
			*kept = weak.Make(&memory[0])
			b := couplet.NewBuffer(memory, nil)
			t.WriteBuffer(b)
			b.Release()
		}
		h.Post(func(couplet.Transport) { runtime.Goexit() }) // in the next turn: it is being sent by then
	})
	<-e.Done()
	<-p.lost
	runtime.GC()
	if sent.Value() == nil {
		t.Error("memory that the kernel sends from is given up")
	}
	for deadline := time.Now().Add(10 * time.Second); queued.Value() != nil; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("memory that waited behind it is kept")
		}
	}
}

// A unix listening socket that was handed over, and that somebody shut down then, was polled
// again and again.
func TestAUnixHeirThatWasShutDownSpun(t *testing.T) {
	for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
		e, err := proactor.New(couplet.Config{})
		if err != nil {
			t.Skip(err)
		}
		defer e.Shutdown(t.Context())
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l, err := e.Listen("unix", "", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil }), couplet.FromFile(f))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(int(f.Fd()), how); err != nil {
			t.Fatal(err)
		}
		select {
		case <-l.Closed():
		case <-time.After(10 * time.Second):
			t.Errorf("%d: it is not closed after %d turns", how, e.Stats().Turns)
		}
	}
}

// A receive that is armed while the queue of submissions is full is tried at once, and what
// it took waited to be reported when the timers fired: the socket was empty by then, so
// who had spoken was taken for idle.
func TestWhoHadSpokenWasIdleBehindAFullQueue(t *testing.T) {
	const n, limit = 16, time.Second
	onTiers(t, couplet.Config{RingEntries: 4, RingBuffers: 1, RingBufferSize: 1}, func(t *testing.T, e couplet.Engine) {
		t.Parallel()
		defer e.Shutdown(context.Background())
		p := &speaker{made: make(chan struct{}, n), heard: make(chan error, n)}
		l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }), couplet.IdleTimeout(limit))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var peers []net.Conn
		for range n {
			c, err := net.Dial("tcp4", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			peers = append(peers, c)
			<-p.made
		}
		held, on := make(chan struct{}), make(chan struct{})
		e.Loops()[0].Post(func() { close(held); <-on })
		<-held
		for _, c := range peers {
			c.Write([]byte("x"))
		}
		if time.Since(began) > limit/2 {
			close(on)
			t.Skip("on this busy machine they may have been idle")
		}
		time.Sleep(limit + limit/2) // the loop is held up for so long
		close(on)
		for range n {
			if err := <-p.heard; err != nil {
				t.Errorf("who had spoken was lost: %v", err)
			}
		}
	})
}

// speaker waits for a byte.
type speaker struct {
	made  chan struct{}
	heard chan error
}

func (p *speaker) ConnectionMade(couplet.Transport) { p.made <- struct{}{} }
func (p *speaker) DataReceived(t couplet.Transport, _ []byte) {
	p.heard <- nil
	t.SetContext(true)
}
func (p *speaker) ConnectionLost(t couplet.Transport, why error) {
	if t.Context() == nil {
		p.heard <- why
	}
}

// gives aborts its connection when the peer has taken the first of three sends.
type gives struct {
	paused chan struct{}
	lost   chan error
}

func (p gives) ConnectionMade(t couplet.Transport) {
	t.SetWatermarks(2*loop.MaxSend, 2*loop.MaxSend)
	t.Write(make([]byte, 3*loop.MaxSend))
}
func (p gives) DataReceived(couplet.Transport, []byte)        {}
func (p gives) ConnectionLost(_ couplet.Transport, why error) { p.lost <- why }
func (p gives) WritePaused(couplet.Transport)                 { p.paused <- struct{}{} }
func (p gives) WriteResumed(t couplet.Transport)              { t.Abort() }

// A send that finds no room, and a moment later some, for the peer's acknowledgement came
// meanwhile, waits for its turn in the kernel, where no cancellation finds it. One that came
// with the same call was lost, and the connection went only when its peer took more or went.
func TestACancellationThatMissedItsSendWasTheLast(t *testing.T) {
	onTiers(t, couplet.Config{}, func(t *testing.T, e couplet.Engine) {
		defer e.Shutdown(t.Context())
		p := gives{make(chan struct{}, 1), make(chan error, 1)}
		for range 30 {
			_, c := testpeer.Dial(t, e, "tcp4", p, couplet.SendBuffer(64<<10))
			c.(*net.TCPConn).SetReadBuffer(128 << 10)
			<-p.paused
			io.CopyN(io.Discard, c, loop.MaxSend) // or the reset is faster
			select {
			case <-p.lost:
			case <-time.After(10 * time.Second):
				t.Errorf("an aborted connection goes on: %+v", e.Stats())
			}
			c.Close()
		}
	})
}
