//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"context"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"couplet"
	"couplet/internal/loop"
)

// A listener's id is new each time that it is armed, and with a limit that is with each
// connection: after 2^32 of them it was another listener's, which served nobody from then on, or
// had its connections served by the wrong one.
func TestAListenersIDWasGivenTwice(t *testing.T) {
	var d *driver
	config, err := couplet.Config{}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if config.Features, err = granted(0); err != nil {
		t.Skip(err)
	}
	e, err := loop.NewEngine("uring", config, loop.Kernel{}, func(l *loop.Loop) (loop.Driver, error) {
		made, err := newDriver(l)
		if err == nil {
			d = made.(*driver)
		}
		return made, err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	defer e.Shutdown(ctx)
	var listeners []couplet.Listener
	for i := range 3 {
		l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return says(rune('a' + i)) }))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		armed := make(chan struct{})
		e.Loops()[0].Post(func() { // behind the listener's own
			if i == 0 {
				d.nextID = math.MaxUint32
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

// says is a protocol that says who it is.
type says byte

func (s says) ConnectionMade(t couplet.Transport)          { t.Write([]byte{byte(s)}); t.Close() }
func (s says) DataReceived(couplet.Transport, []byte)      {}
func (s says) ConnectionLost(_ couplet.Transport, _ error) {}
