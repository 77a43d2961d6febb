package couplet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/internal/testpeer"
)

// each runs f on every engine that works here.
func each(t *testing.T, f func(t *testing.T, e couplet.Engine)) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			// A turn delivers at most what the buffers of a ring hold.
			e, err := engines.Open(name, couplet.Config{RingBuffers: 16, RingBufferSize: 64 << 10})
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if d, err := e.Shutdown(ctx); err != nil {
					t.Errorf("%+v, %v", d, err)
				}
			})
			f(t, e)
		})
	}
}

// greets has e greet whoever connects.
func greets(t *testing.T, e couplet.Engine, opts ...couplet.Option) couplet.Listener {
	l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return greeter{} }), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// readsLate sends p to addr, begins to read only when the other side takes no more or
// has taken all, closes its half, and returns what came back.
func readsLate(t *testing.T, addr net.Addr, p []byte) []byte {
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := c.Write(p)
	if err == nil {
		t.Fatalf("all of %d bytes were taken from a peer that reads nothing", n)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(time.Minute))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(p[n:])
		failed <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	return got
}

// losesNothing sends n bytes to l, late to read, and checks that the greeting and all of
// them come back.
func losesNothing(t *testing.T, l couplet.Listener, n int) {
	const pattern = "0123456789abcdef"
	p := bytes.Repeat([]byte(pattern), n/len(pattern))
	if got, want := readsLate(t, l.Addr(), p), append([]byte("hello, "), p...); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, %d were due, and they are not the same", len(got), len(want))
	}
}

// The example lost what came after MaxOutbound was full, and ended with a clean FIN.
func TestExampleServerLosesNothingOfAPeerThatReadsLate(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		losesNothing(t, greets(t, e, couplet.MaxOutbound(8<<20)), 32<<20)
	})
}

func TestExampleProxyLosesNothingOfAPeerThatReadsLate(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		server := greets(t, e, couplet.MaxOutbound(8<<20))
		l, err := e.Listen("tcp", "127.0.0.1:0", proxy{e, server.Addr().String()}, couplet.MaxOutbound(8<<20))
		if err != nil {
			t.Fatal(err)
		}
		losesNothing(t, l, 64<<20)
	})
}

// The example closed at once when its engine stopped, and who had more to say took the
// clean end for all of the answer.
func TestExampleServerAnswersWhileItsEngineStops(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		l := greets(t, e)
		c := begun(t, l)
		stopped(t, e, l)
		io.WriteString(c, "stranger")
		c.(*net.TCPConn).CloseWrite()
		if answer, err := io.ReadAll(c); string(answer) != "ello, stranger" || err != nil {
			t.Errorf("then %q, %v", answer, err)
		}
	})
}

// A download through the proxy had a clean end in its midst.
func TestExampleProxyFinishesADownloadWhileItsEngineStops(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		server, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		const size = 32 << 20 // more than the kernel holds on the way
		failed := make(chan error, 1)
		go func() {
			c, err := server.Accept()
			if err == nil {
				c.SetDeadline(time.Now().Add(time.Minute))
				_, err = c.Write(make([]byte, size))
				err = errors.Join(err, c.Close())
			}
			failed <- err
		}()
		l, err := e.Listen("tcp", "127.0.0.1:0", proxy{e, server.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		c := begun(t, l)
		stopped(t, e, l)
		n, err := io.Copy(io.Discard, c)
		if err := errors.Join(err, <-failed); n != size-1 || err != nil {
			t.Errorf("%d bytes of %d, %v", n+1, size, err)
		}
	})
}

// begun is a connection to l of which the first byte has come.
func begun(t *testing.T, l couplet.Listener) net.Conn {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c
}

// stopped stops e and waits until its connections were told, as was the listener l.
func stopped(t *testing.T, e couplet.Engine, l couplet.Listener) {
	e.Stop()
	awaited(t, "the listener's end", l.Closed())
}

// pausing has a source, or a stream, tell when it is paused.
type pausing chan bool

func (p pausing) tell() {
	select {
	case p <- true:
	default:
	}
}

type pausingSource struct {
	*source
	paused pausing
}

func (p pausingSource) WritePaused(t couplet.Transport) {
	p.source.WritePaused(t)
	p.paused.tell()
}

type pausingStream struct {
	*stream
	pausing pausing
}

func (p pausingStream) WritePaused(t couplet.Transport) {
	p.stream.WritePaused(t)
	p.pausing.tell()
}

// A producer gets to its end by itself, with bounded memory, though the kernel takes
// all that it writes and so WriteResumed never comes, and though its peer takes nothing
// for a time; whatever the size of its pieces.
func TestExampleProducerGetsToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		for _, piece := range []int{1 << 10, 64 << 10, 300 << 10} {
			for _, late := range []bool{false, true} {
				size := 4<<20 + 1
				if late {
					size = 32 << 20 // more than the kernel holds
				}
				ended, paused := make(chan int, 1), make(pausing, 1)
				l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
					return pausingSource{&source{left: size, piece: make([]byte, piece), ended: ended}, paused}
				}))
				if err != nil {
					t.Fatal(err)
				}
				c := begun(t, l)
				c.(*net.TCPConn).CloseWrite()
				if late {
					awaited(t, "the pause", paused)
				}
				if n, err := io.Copy(io.Discard, c); n != int64(size-1) || err != nil {
					t.Errorf("pieces of %d, late %v: %d bytes of %d, %v", piece, late, n+1, size, err)
				}
				c.Close()
				if most := awaited(t, "the producer's end", ended); most > 64<<10+piece {
					t.Errorf("pieces of %d, late %v: %d bytes were queued", piece, late, most)
				}
			}
		}
	})
}

// A goroutine that met ErrOutboundFull gets to its end: with a peer that reads, of which
// WriteResumed may never tell, and with one that is late.
func TestExampleGoroutineGetsToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		for _, late := range []bool{false, true} {
			made, paused := make(chan *stream, 1), make(pausing, 1)
			_, c := testpeer.Dial(t, e, "tcp", pausingStream{newStream(func(s *stream) { made <- s }), paused}, couplet.MaxOutbound(256<<10))
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(time.Minute))
			s := awaited(t, "the connection", made)
			const pieces, size = 1000, 32 << 10
			failed := make(chan error, 1)
			go func() {
				piece := make([]byte, size)
				for range pieces {
					if err := s.write(piece); err != nil {
						failed <- err
						return
					}
				}
				failed <- s.handle.Close()
			}()
			if late {
				awaited(t, "the pause", paused)
			}
			if n, err := io.Copy(io.Discard, c); n != pieces*size || err != nil {
				t.Errorf("late %v: %d bytes of %d, %v", late, n, pieces*size, err)
			}
			if err := awaited(t, "the goroutine", failed); err != nil {
				t.Errorf("late %v: %v", late, err)
			}
			c.Close()
		}
	})
}

// A goroutine that waits for room hears of the connection's end.
func TestExampleGoroutineEndsWithItsConnection(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		made := make(chan *stream, 1)
		_, c := testpeer.Dial(t, e, "tcp", newStream(func(s *stream) { made <- s }), couplet.MaxOutbound(256<<10))
		defer c.Close()
		s := awaited(t, "the connection", made)
		wrote, failed := make(chan bool, 1), make(chan error, 1)
		go func() {
			for {
				if err := s.write(make([]byte, 64<<10)); err != nil {
					failed <- err
					return
				}
				select {
				case wrote <- true:
				default:
				}
			}
		}()
		awaited(t, "the first piece", wrote)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if err := awaited(t, "the goroutine", failed); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

func awaited[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatalf("no sign of %s", what)
	}
	return v
}

func TestExampleProxyResetsAClientWhoseServerIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nobody.Close()
		l, err := e.Listen("tcp", "127.0.0.1:0", proxy{e, nobody.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return // the reset came first
		}
		defer c.Close()
		if answer, err := io.ReadAll(c); err == nil {
			t.Errorf("a clean end after %d bytes", len(answer))
		}
	})
}
