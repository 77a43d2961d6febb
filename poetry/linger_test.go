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
		var lingers atomic.Int64
		s := slow(t, string(text(20)), 10, 2*time.Millisecond)
		spy := couplet.FactoryFunc(func(a net.Addr) couplet.Protocol {
			return &spying{wrapper{s.Build(a)}, &lingers}
		})
		c := dial(t, serve(t, e, "tcp", spy))
		readPoem(t, c)
		if got := lingers.Load(); got != 1 {
			t.Errorf("SO_LINGER was on %d times of 1", got)
		}
	})
}

// spying is a recital that is looked at when it has begun.
type spying struct {
	wrapper
	on *atomic.Int64
}

func (s *spying) ConnectionMade(t couplet.Transport) {
	s.Protocol.ConnectionMade(t)
	conn, err := t.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) {
		if v, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER); err == nil && v != 0 {
			s.on.Add(1)
		}
	})
}
