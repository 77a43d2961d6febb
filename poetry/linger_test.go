//go:build unix

package poetry_test

import (
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"couplet"
)

// The option that makes a dying process reset its clients is on while the poem
// is under way, and off when it ends in order.
func TestDeathWouldReset(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		var on atomic.Int64
		closed := make(chan bool, 1)
		s := slow(t, string(text(20)), 10, 2*time.Millisecond)
		var current couplet.Transport
		s.OnStart = func(net.Addr) {
			if !lingers(current) { // a process may die in this
				t.Error("OnStart comes before SO_LINGER")
			}
		}
		spy := couplet.FactoryFunc(func(a net.Addr) couplet.Protocol {
			return &spying{wrapper{s.Build(a)}, &current, &on, closed}
		})
		c := dial(t, serve(t, e, "tcp", spy))
		readPoem(t, c)
		if got := on.Load(); got != 1 {
			t.Errorf("SO_LINGER was on %d times of 1", got)
		}
		if await(t, "the close", closed) {
			t.Error("SO_LINGER is on at the close")
		}
	})
}

// spying is a recital that is looked at when it has begun.
type spying struct {
	wrapper
	current *couplet.Transport
	on      *atomic.Int64
	closed  chan<- bool
}

func (s *spying) WriteClosed(t couplet.Transport) { s.wrapper.WriteClosed(closing{t, s.closed}) }

// closing tells whether the option is on when it is closed.
type closing struct {
	couplet.Transport
	closed chan<- bool
}

func (c closing) Close() error {
	c.closed <- lingers(c.Transport)
	return c.Transport.Close()
}

func (s *spying) ConnectionMade(t couplet.Transport) {
	*s.current = t
	s.Protocol.ConnectionMade(t)
	if lingers(t) {
		s.on.Add(1)
	}
}

func lingers(t couplet.Transport) (yes bool) {
	conn, err := t.SyscallConn()
	if err != nil {
		return false
	}
	conn.Control(func(fd uintptr) {
		v, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER)
		yes = err == nil && v != 0
	})
	return yes
}
