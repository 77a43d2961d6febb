package poetry_test

import (
	"bytes"
	"io"
	"net"
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
	onEach(t, func(t *testing.T, e couplet.Engine) {
		paused := make(chan int, 1)
		conn := dial(t, serve(t, e, "tcp", couplet.FactoryFunc(func(a net.Addr) couplet.Protocol {
			return &watched{Protocol: poetry.Echo{}.Build(a), paused: paused}
		}), couplet.SendBuffer(64<<10), couplet.ReceiveBuffer(64<<10)))
		conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		all := text(8 << 20)
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(all)
			conn.(*net.TCPConn).CloseWrite()
			sent <- err
		}()
		if n := await(t, "the pause", paused); n > 8<<20 {
			t.Errorf("%d bytes are queued for a client that takes nothing", n)
		}
		got := readPoem(t, conn)
		if err := await(t, "the sender", sent); err != nil || !bytes.Equal(got, all) {
			t.Errorf("%d bytes of %d came back, %v", len(got), len(all), err)
		}
	})
}

// watched tells what was queued when it was first paused.
type watched struct {
	couplet.Protocol
	paused chan<- int
}

func (w *watched) WritePaused(t couplet.Transport) {
	select {
	case w.paused <- t.Buffered():
	default:
	}
	couplet.DeliverWritePaused(w.Protocol, t)
}

func (w *watched) WriteResumed(t couplet.Transport) { couplet.DeliverWriteResumed(w.Protocol, t) }
