//go:build unix

package poetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/poetry"
)

// Total time proves nothing (a client that connects to all and then reads one
// after the other takes no longer): the arrivals must be interleaved.
func TestThreeSlowPoemsAtOnceAreInterleaved(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		const sends = 12
		var addrs []poetry.Addr
		var poems [][]byte
		for _, n := range []int{10, 7, 5} {
			poem := text(n * sends)
			poems = append(poems, poem)
			addrs = append(addrs, serve(t, e, "tcp", slow(t, string(poem), n, 5*time.Millisecond)))
		}
		o := poetry.FetchOptions{Record: true}
		r := fetchAll(t, e, o, addrs...)
		checkWhole(t, r, poems)
		if n := turns(r.Arrivals); n <= 2 { // how often depends on the machine
			t.Errorf("the arrivals change between poems %d times, as one by one: %v", n, r.Arrivals)
		}
		r = poetry.FetchEach(t.Context(), e, addrs, o)
		checkWhole(t, r, poems)
		if n := turns(r.Arrivals); n != 2 {
			t.Errorf("one by one the arrivals change %d times, want 2", n)
		}
	})
}

func TestEveryNetworkAndSize(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		for _, network := range []string{"tcp", "tcp6", "unix"} {
			var addrs []poetry.Addr
			var poems [][]byte
			for _, n := range []int{0, 1, 100, 5 << 20} {
				poems = append(poems, text(n))
				addrs = append(addrs, serve(t, e, network, poetry.NewFastServer(poems[len(poems)-1])))
			}
			poems = append(poems, text(20000))
			addrs = append(addrs, serve(t, e, network, slow(t, string(text(20000)), 5000, time.Millisecond)))
			checkWhole(t, fetchAll(t, e, poetry.FetchOptions{}, addrs...), poems)
		}
	})
}

func TestManyClientsOfOneSlowServer(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		const clients = 200
		poem := text(100)
		s := slow(t, string(poem), 10, 2*time.Millisecond)
		ended := make(chan error, clients)
		s.OnEnd = func(_ net.Addr, _ int, err error) { ended <- err }
		a := serve(t, e, "tcp", s)
		addrs, poems := make([]poetry.Addr, clients), make([][]byte, clients)
		for i := range addrs {
			addrs[i], poems[i] = a, poem
		}
		checkWhole(t, fetchAll(t, e, poetry.FetchOptions{}, addrs...), poems)
		for range clients {
			if err := await(t, "a recital's end", ended); err != nil {
				t.Error(err)
			}
		}
		if began, whole, cut := s.Served(); began != clients || whole != clients || cut != 0 {
			t.Errorf("%d began, %d whole, %d cut", began, whole, cut)
		}
	})
}

func TestCleanEndWhateverTheClientSent(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		question := bytes.Repeat([]byte("GET / HTTP/1.0\r\n\r\n"), 5000)
		for name, s := range map[string]*poetry.Server{
			"slow": slow(t, string(text(50)), 10, time.Millisecond),
			"fast": poetry.NewFastServer(text(50)),
		} {
			for network, f := range map[string]couplet.Factory{
				"tcp":  s,
				"unix": after{s, len(question)}, // who still writes when a unix socket closes may be reset
			} {
				c := dial(t, serve(t, e, network, f))
				if _, err := c.Write(question); err != nil && (network == "unix" || !errors.Is(err, syscall.EPIPE)) {
					t.Errorf("%s %s: %v", name, network, err)
				}
				if p := readPoem(t, c); !bytes.Equal(p, text(50)) {
					t.Errorf("%s %s: got %q", name, network, p)
				}
			}
		}
	})
}

// after is a Factory whose protocols are told of their connections when n
// bytes have come.
type after struct {
	couplet.Factory
	n int
}

func (a after) Build(remote net.Addr) couplet.Protocol {
	return &awaiting{wrapper{a.Factory.Build(remote)}, a.n}
}

type awaiting struct {
	wrapper
	left int
}

func (a *awaiting) ConnectionMade(couplet.Transport) {}

func (a *awaiting) DataReceived(t couplet.Transport, data []byte) {
	if a.left -= len(data); a.left == 0 {
		a.Protocol.ConnectionMade(t)
	}
}

// wrapper forwards the optional calls.
type wrapper struct{ couplet.Protocol }

func (w wrapper) ReadClosed(t couplet.Transport)   { couplet.DeliverReadClosed(w.Protocol, t) }
func (w wrapper) WriteClosed(t couplet.Transport)  { couplet.DeliverWriteClosed(w.Protocol, t) }
func (w wrapper) WritePaused(t couplet.Transport)  { couplet.DeliverWritePaused(w.Protocol, t) }
func (w wrapper) WriteResumed(t couplet.Transport) { couplet.DeliverWriteResumed(w.Protocol, t) }

func TestClientThatClosesItsHalfGetsThePoem(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		for _, s := range []*poetry.Server{slow(t, string(text(50)), 10, time.Millisecond), poetry.NewFastServer(text(50))} {
			c := dial(t, serve(t, e, "tcp", s))
			c.(*net.TCPConn).CloseWrite()
			if p := readPoem(t, c); !bytes.Equal(p, text(50)) {
				t.Errorf("got %q", p)
			}
		}
	})
}

func TestClientThatTakesNothingHoldsUpNobody(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		poem := text(8 << 20) // more than socket buffers take
		a := serve(t, e, "tcp", slow(t, string(poem), 1<<20, time.Millisecond))
		idle := dial(t, a)
		idle.(*net.TCPConn).SetReadBuffer(64 << 10)
		checkWhole(t, fetchAll(t, e, poetry.FetchOptions{}, a, a), [][]byte{poem, poem})
		if p := readPoem(t, idle); !bytes.Equal(p, poem) {
			t.Errorf("the client that waited got %d bytes, want %d", len(p), len(poem))
		}
	})
}

func TestOneFailureDoesNotHoldUpTheOthers(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		poem := text(60)
		good := serve(t, e, "tcp", slow(t, string(poem), 10, time.Millisecond))
		arrived := make(chan struct{}, 2)
		reset := blockingServer(t, func(c net.Conn) {
			c.Write([]byte("half a po"))
			select {
			case <-arrived:
			case <-time.After(patience):
			}
			c.(*net.TCPConn).SetLinger(0)
		})
		addrs := []poetry.Addr{good, refused(t), reset, good, {Network: "unix", Address: t.TempDir() + "/nobody"}}
		for name, fetch := range both {
			var done []int
			r := fetch(t.Context(), e, addrs, poetry.FetchOptions{
				OnData: func(a poetry.Arrival) {
					if a.Task == 3 {
						arrived <- struct{}{}
					}
				},
				OnDone: func(r poetry.Result) { done = append(done, r.Task) },
			})
			if r.Got() != 2 || len(done) != 5 {
				t.Errorf("%s: got %d poems, heard of %v", name, r.Got(), done)
			}
			var cut *poetry.CutError
			if err := r.Results[2].Err; !errors.As(err, &cut) || !errors.Is(err, syscall.ECONNRESET) || cut.Got != len(r.Results[2].Poem) {
				t.Errorf("%s: a reset poem: %v", name, err)
			}
			if err := r.Results[1].Err; !errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &cut) {
				t.Errorf("%s: a refused dial: %v", name, err)
			}
			if err := r.Results[4].Err; !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%s: no such socket: %v", name, err)
			}
		}
	})
}

// The tutorial's blocking server sends, sleeps, and sleeps once more before it
// closes; it decodes nothing, and cuts characters in two.
func TestFetchFromABlockingServer(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		poem := text(40)
		a := blockingServer(t, func(c net.Conn) {
			for rest := poem; len(rest) > 0; rest = rest[min(7, len(rest)):] {
				c.Write(rest[:min(7, len(rest))])
				time.Sleep(time.Millisecond)
			}
		})
		checkWhole(t, fetchAll(t, e, poetry.FetchOptions{}, a, a), [][]byte{poem, poem})
	})
}

func TestFetchIsBounded(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		endless := serve(t, e, "tcp", slow(t, string(text(1<<20)), 10, 10*time.Second))
		long := serve(t, e, "tcp", poetry.NewFastServer(text(1<<20)))
		r := fetchAll(t, e, poetry.FetchOptions{Timeout: 30 * time.Millisecond}, endless)
		var cut *poetry.CutError
		if err := r.Results[0].Err; !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &cut) {
			t.Errorf("a poem that takes too long: %v", err)
		}
		r = fetchAll(t, e, poetry.FetchOptions{MaxBytes: 1000}, long)
		if p := r.Results[0]; !errors.Is(p.Err, poetry.ErrTooLong) || len(p.Poem) > 1000 {
			t.Errorf("a poem that is too long: %d bytes, %v", len(p.Poem), p.Err)
		}
		r = fetchAll(t, e, poetry.FetchOptions{MaxBytes: 1 << 20}, long)
		checkWhole(t, r, [][]byte{text(1 << 20)})
	})
}

func TestFetchTimesOutWhileConnecting(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		a := fullBacklog(t)
		r := fetchAll(t, e, poetry.FetchOptions{Timeout: 20 * time.Millisecond}, a)
		if err := r.Results[0].Err; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v; want a timeout", err)
		}
	})
}

// fullBacklog is a unix socket that takes no more connections.
func fullBacklog(t *testing.T) poetry.Addr {
	path := t.TempDir() + "/full"
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return poetry.Addr{Network: "unix", Address: path}
}

func TestFetchIsCancelled(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		endless := serve(t, e, "tcp", slow(t, string(text(1<<20)), 10, time.Minute))
		cause := errors.New("enough")
		for name, fetch := range both {
			ctx, cancel := context.WithCancelCause(context.Background())
			r := fetch(ctx, e, []poetry.Addr{endless, endless, fullBacklog(t)}, poetry.FetchOptions{
				OnData: func(a poetry.Arrival) { cancel(cause) },
			})
			for _, p := range r.Results {
				if !errors.Is(p.Err, cause) {
					t.Errorf("%s: task %d: %v; want the cause of the cancellation", name, p.Task, p.Err)
				}
			}
			if n := r.Bytes(); n != 10 && n != 20 {
				t.Errorf("%s: %d bytes; want the first ten of one poem or two", name, n)
			}
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		if r := poetry.FetchAll(ctx, e, []poetry.Addr{endless}, poetry.FetchOptions{}); !errors.Is(r.Results[0].Err, cause) {
			t.Errorf("cancelled beforehand: %v", r.Results[0].Err)
		}
	})
}

func TestDrainingFinishesPoems(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		poem := text(100)
		s := slow(t, string(poem), 10, 2*time.Millisecond)
		begun := make(chan struct{}, 2)
		s.OnStart = func(net.Addr) { begun <- struct{}{} }
		a := serve(t, e, "tcp", s)
		c := dial(t, a)
		await(t, "the poem's begin", begun)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		go func() { e.Shutdown(ctx) }()
		if p := readPoem(t, c); !bytes.Equal(p, poem) {
			t.Errorf("got %d bytes, want %d", len(p), len(poem))
		}
		if d, err := e.Shutdown(ctx); err != nil || d.Clean != 1 || d.Cut != 0 {
			t.Errorf("%+v, %v; want one clean", d, err)
		}
		r := poetry.FetchAll(ctx, e, []poetry.Addr{a}, poetry.FetchOptions{})
		if !errors.Is(r.Results[0].Err, couplet.ErrEngineClosed) {
			t.Errorf("fetching on a stopped engine: %v", r.Results[0].Err)
		}
	})
}

func TestCutPoemLooksCut(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		s := slow(t, string(text(100)), 10, time.Minute)
		ended := make(chan error, 1)
		s.OnEnd = func(_ net.Addr, _ int, err error) { ended <- err }
		c := dial(t, serve(t, e, "tcp", s))
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if d, err := e.Shutdown(ctx); err == nil || d.Cut != 1 {
			t.Errorf("%+v, %v; want one cut", d, err)
		}
		if n, err := c.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d, %v; want a reset", n, err)
		}
		if err := await(t, "the recital's end", ended); !errors.Is(err, couplet.ErrShutdown) {
			t.Errorf("the server heard %v", err)
		}
	})
}
