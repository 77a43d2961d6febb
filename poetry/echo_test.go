package poetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"couplet"
	"couplet/poetry"
)

func TestEcho(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		for _, c := range []struct {
			f         poetry.Echo
			say, hear string
		}{
			{poetry.Echo{}, "Più, 登 a\x00z\n", "Più, 登 a\x00z\n"},
			{poetry.Echo{Upper: true}, "Più, 登 a\x00z{`\n", "PIù, 登 A\x00Z{`\n"},
		} {
			for _, network := range []string{"tcp", "tcp6", "unix"} {
				conn := dial(t, serve(t, e, network, c.f))
				got := make([]byte, len(c.hear))
				for range 3 {
					io.WriteString(conn, c.say)
					if _, err := io.ReadFull(conn, got); err != nil || string(got) != c.hear {
						t.Errorf("%q, %v; want %q", got, err, c.hear)
					}
				}
				io.WriteString(conn, c.say)
				conn.(interface{ CloseWrite() error }).CloseWrite()
				if rest := readPoem(t, conn); string(rest) != c.hear {
					t.Errorf("after the half-close %q, want %q", rest, c.hear)
				}
			}
		}
	})
}

// A client that sends and does not take its echo is held back: the server's
// memory for it stays bounded, and nothing is lost.
func TestEchoHoldsBackWhoDoesNotRead(t *testing.T) {
	for _, upper := range []bool{false, true} {
		onEach(t, func(t *testing.T, e couplet.Engine) {
			w := &watched{Protocol: poetry.Echo{Upper: upper}.Build(nil), pause: make(chan couplet.Loop, 1)}
			conn := dial(t, serve(t, e, "tcp", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return w }),
				couplet.SendBuffer(64<<10), couplet.ReceiveBuffer(64<<10)))
			conn.(*net.TCPConn).SetReadBuffer(64 << 10)
			all := []byte(strings.ToUpper(string(text(8 << 20))))
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Write(all)
				conn.(*net.TCPConn).CloseWrite()
				sent <- err
			}()
			loop := await(t, "the pause", w.pause)
			for range 3 { // turns in which there is more to receive
				turn := make(chan bool)
				loop.Post(func() { close(turn) })
				await(t, "a turn", turn)
			}
			got := readPoem(t, conn)
			if err := await(t, "the sender", sent); err != nil || !bytes.Equal(got, all) {
				t.Errorf("%d bytes of %d came back, %v", len(got), len(all), err)
			}
			looked := make(chan bool)
			loop.Post(func() {
				if w.most > 4<<20 { // the high watermark and a turn, which may end late
					t.Errorf("%d bytes were queued for a client that takes nothing", w.most)
				}
				if w.held > 0 {
					t.Errorf("%d times there was data while it was paused", w.held)
				}
				close(looked)
			})
			await(t, "the figures", looked)
		})
	}
}

// Of what the queue has no room for nothing is left out.
func TestEchoThatFindsNoRoomLooksCut(t *testing.T) {
	for _, upper := range []bool{false, true} {
		h := &hall{refuse: couplet.ErrOutboundFull, proto: poetry.Echo{Upper: upper}.Build(nil)}
		h.proto.DataReceived(stage{hall: h}, []byte("a"))
		if h.ended != "abort@0s" {
			t.Errorf("upper %v: %q, want abort", upper, h.ended)
		}
	}
}

// A client that is not done when the engine stops gets its echo still: closed at
// once, it took the clean end for all that there was.
func TestEchoGoesOnWhileTheEngineStops(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		l, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
		if err != nil {
			t.Fatal(err)
		}
		conn := dial(t, poetry.AddrOf(l.Addr()))
		echoed(t, conn)
		e.Stop()
		await(t, "the listener's end", l.Closed())
		echoed(t, conn)
		all := text(10000)
		conn.Write(all)
		conn.(*net.TCPConn).CloseWrite()
		if got := readPoem(t, conn); !bytes.Equal(got, all) {
			t.Errorf("%d bytes of %d came back", len(got), len(all))
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if d, err := e.Shutdown(ctx); err != nil || d.Clean != 1 || d.Cut != 0 {
			t.Errorf("%+v, %v; want one clean", d, err)
		}
	})
}

// Who never closes holds up the end until its deadline, and looks cut then.
func TestIdleClientOfAnEchoIsCutAtTheDeadline(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		conn := dial(t, serve(t, e, "tcp", poetry.Echo{Upper: true}))
		echoed(t, conn)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if d, err := e.Shutdown(ctx); err == nil || d.Cut != 1 {
			t.Errorf("%+v, %v; want one cut", d, err)
		}
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d, %v; want a reset", n, err)
		}
	})
}

// echoed sends a byte and waits for its echo.
func echoed(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "1"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// watched tells of its first pause. What it counts is its loop's.
type watched struct {
	couplet.Protocol
	pause  chan couplet.Loop
	paused bool
	held   int // deliveries while it was paused
	most   int // queued
}

func (w *watched) DataReceived(t couplet.Transport, data []byte) {
	if w.paused {
		w.held++
	}
	w.Protocol.DataReceived(t, data)
	w.most = max(w.most, t.Buffered())
}

func (w *watched) WritePaused(t couplet.Transport) {
	w.paused = true
	select {
	case w.pause <- t.Loop():
	default:
	}
	couplet.DeliverWritePaused(w.Protocol, t)
}

func (w *watched) WriteResumed(t couplet.Transport) {
	w.paused = false
	couplet.DeliverWriteResumed(w.Protocol, t)
}
