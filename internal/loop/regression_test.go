//go:build linux

package loop

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"couplet"
)

// Each test here is named after what broke once.

// The mark was looked at only where a send began: with one in flight that did
// not move, WritePaused never came.
func TestWritePausedCameOnlyWhenASendBegan(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	c.Write(make([]byte, 10))
	b.turn()
	b.want("send 10")
	c.Write(make([]byte, defaultHigh))
	b.turn()
	b.turn()
	if !slices.Contains(p.got, "paused") {
		t.Errorf("%d bytes are queued, and the callbacks were %q", c.Buffered(), p.got)
	}
}

// Stop overwrote the reason of a connection whose send had failed before: what
// was lost looked as if it had been sent.
func TestStopHidTheErrorOfASend(t *testing.T) {
	b := newBench(t, couplet.Config{})
	p := &notes{}
	c := b.accept(p)
	c.Write([]byte("hello"))
	b.turn()
	b.turn(b.sent(c, 0, syscall.ECONNRESET))
	b.engine.Stop()
	b.turn()
	b.want("close reset")
	b.turn(b.closed(c))
	if !errors.Is(p.reason, syscall.ECONNRESET) {
		t.Errorf("the reason is %v", p.reason)
	}
}
