// Package testpeer is what the tests of the engines begin with.
package testpeer

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"couplet"
)

// EndAfter ends e after the test and whatever that defers.
func EndAfter(t testing.TB, e couplet.Engine) {
	t.Cleanup(func() {
		e.Stop()
		<-e.Done()
	})
}

// Dial has e serve p to one peer, on a loopback port or a unix socket of its own, and
// returns the listener and the peer's connection, which the caller closes.
func Dial(t testing.TB, e couplet.Engine, network string, p couplet.Protocol, opts ...couplet.Option) (couplet.Listener, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := e.Listen(network, address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }), opts...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

// Three has e listen three times and asks each listener who it is. Once the first listens,
// then is called on the first loop.
func Three(t *testing.T, e couplet.Engine, then func()) {
	t.Helper()
	var listeners []couplet.Listener
	for i := range 3 {
		l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return says('a' + i) }))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		armed := make(chan struct{})
		e.Loops()[0].Post(func() { // behind the listener's own
			if i == 0 {
				then()
			}
			close(armed)
		})
		<-armed
	}
	for i, l := range listeners {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, 1)
		if _, err := io.ReadFull(c, got); err != nil || got[0] != "abc"[i] {
			t.Errorf("listener %d: %q, %v", i, got, err)
		}
	}
}

// Attempt is a Factory that tells how a dial went: nil where it has built. It is made with room
// for that.
type Attempt chan error

// Build implements couplet.Factory, and refuses.
func (a Attempt) Build(net.Addr) couplet.Protocol { a <- nil; return nil }

// ConnectFailed implements couplet.ConnectFailedHandler.
func (a Attempt) ConnectFailed(_ string, err error) { a <- err }

// says is a protocol that says who it is.
type says byte

func (s says) ConnectionMade(t couplet.Transport)          { t.Write([]byte{byte(s)}); t.Close() }
func (s says) DataReceived(couplet.Transport, []byte)      {}
func (s says) ConnectionLost(_ couplet.Transport, _ error) {}

// Logger calls f with each line that is logged: its level, its message and its attributes.
func Logger(f func(line string)) *slog.Logger { return slog.New(lines{slog.DiscardHandler, f}) }

type lines struct {
	slog.Handler
	f func(string)
}

func (lines) Enabled(context.Context, slog.Level) bool { return true }

func (h lines) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	h.f(line)
	return nil
}
