//go:build linux

package loop

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"couplet"
)

func TestTraceTo(t *testing.T) {
	b := newBench(t, couplet.Config{})
	var told []string
	hook := func(at time.Time, layer, what string, n int, failed string) {
		if at.IsZero() {
			t.Errorf("%s has no time", what)
		}
		told = append(told, fmt.Sprintf("%s %s %d%s", layer, what, n, failed))
	}
	want := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		told = nil
	}
	b.loop.Tell(Call, "before", 0, 0)
	b.loop.Returned("before", nil)
	b.loop.TraceTo(hook)
	want()
	b.turn()
	b.loop.Tell(Call, "recvfrom", -1, syscall.EAGAIN)
	b.loop.Returned("close", nil)
	b.loop.Returned("shutdown", fmt.Errorf("wrapped: %w", syscall.ENOTCONN))
	want("call recvfrom -1EAGAIN", "call close 0", "call shutdown 0ENOTCONN")

	p := new(notes)
	c := b.accept(p)
	told = nil
	b.turn(func() { b.loop.Received(c, []byte("abc"), nil) })
	want("operation Received 3", "callback DataReceived 3")
	b.loop.TraceTo(nil)
	b.turn()
	told = nil
	c.Write([]byte("unseen"))
	b.turn()
	want()
}

// A loop that is not traced pays for asking whether it is, and nothing else.
func BenchmarkTellOff(b *testing.B) {
	l := new(Loop)
	b.ReportAllocs()
	for i := range b.N {
		l.Tell(Told, "nobody", i, 0)
	}
}
