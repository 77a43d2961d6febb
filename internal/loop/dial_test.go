//go:build linux

package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/sock"
)

// dialNotes is a factory that takes notes of a dial.
type dialNotes struct {
	proto  notes
	builds int
	errs   []error
}

func (d *dialNotes) Build(net.Addr) couplet.Protocol { d.builds++; return &d.proto }

func (d *dialNotes) ConnectFailed(_ string, err error) { d.errs = append(d.errs, err) }

// dialled is a bench with a dial under way to a name with some addresses.
func dialled(t *testing.T, addresses int, ctx context.Context, opts ...couplet.Option) (*bench, *dialNotes) {
	t.Helper()
	b := newBench(t, couplet.Config{})
	b.resolve = func() (sas []sock.Sockaddr, err error) {
		for i := range addresses {
			sa, _ := sock.FromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80))
			sas = append(sas, sa)
		}
		return sas, nil
	}
	d := &dialNotes{}
	if err := b.engine.Dial(ctx, "tcp", "name:80", d, opts...); err != nil {
		t.Fatal(err)
	}
	b.turn()
	b.posted(1)
	b.turn()
	return b, d
}

// posted waits until another goroutine has posted.
func (b *bench) posted(n int) {
	for b.loop.Posted() < n {
		runtime.Gosched()
	}
}

// attempt is the connection of the attempt under way.
func (b *bench) attempt() *Conn {
	b.t.Helper()
	b.want("connect")
	for d := range b.loop.dials {
		return d.conn
	}
	b.t.Fatal("no dial is under way")
	return nil
}

func TestDialTriesOneAddressAfterTheOther(t *testing.T) {
	b, d := dialled(t, 3, context.Background())
	for range 2 {
		c := b.attempt()
		b.turn(func() { b.loop.Connected(c, syscall.ECONNREFUSED) })
		b.want("close reset")
		if b.called("connect") {
			t.Fatal("the next attempt began before the first was closed")
		}
		b.turn(b.closed(c))
	}
	c := b.attempt()
	if got := c.RemoteAddr().String(); got != "10.0.0.2:80" {
		t.Errorf("the third attempt goes to %s", got)
	}
	b.turn(func() { b.loop.Connected(c, 0) })
	if d.builds != 1 || len(d.errs) > 0 || !slices.Equal(d.proto.got, []string{"made"}) {
		t.Errorf("%d builds, errors %v, callbacks %q", d.builds, d.errs, d.proto.got)
	}
	if n := b.loop.Timers(); n != 0 {
		t.Errorf("%d timers are left of a dial that is over", n)
	}
}

// An address that never answers took all of ConnectTimeout, and those after it had no turn.
func TestASilentAddressLeavesTimeForTheOthers(t *testing.T) {
	b, d := dialled(t, 3, context.Background(), couplet.ConnectTimeout(30*time.Second))
	for _, share := range []time.Duration{10 * time.Second, 10 * time.Second} {
		c := b.attempt()
		b.now += share - time.Millisecond
		b.turn()
		if b.called("close") {
			t.Fatal("an attempt ended before its time")
		}
		b.now += time.Millisecond
		b.turn()
		b.want("close reset")
		b.turn(b.closed(c))
	}
	c := b.attempt()
	b.now += 9 * time.Second
	b.turn(func() { b.loop.Connected(c, 0) })
	if d.builds != 1 || len(d.errs) > 0 || b.loop.Timers() != 0 {
		t.Errorf("%d builds, errors %v, %d timers", d.builds, d.errs, b.loop.Timers())
	}
}

// The time that an attempt has is no timer of its connection.
func TestAConnectionIsFreeOfItsDialsTime(t *testing.T) {
	b, d := dialled(t, 2, context.Background(), couplet.ConnectTimeout(30*time.Second))
	c := b.attempt()
	b.turn(func() { b.loop.Connected(c, 0) })
	b.now += time.Minute
	b.turn()
	if d.builds != 1 || !slices.Equal(d.proto.got, []string{"made"}) || b.called("close") {
		t.Errorf("%d builds, callbacks %q", d.builds, d.proto.got)
	}
}

func TestDialTellsTheLastError(t *testing.T) {
	b, d := dialled(t, 2, context.Background())
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH} {
		c := b.attempt()
		b.turn(func() { b.loop.Connected(c, errno) })
		b.turn(b.closed(c))
	}
	if d.builds != 0 || len(d.errs) != 1 || !errors.Is(d.errs[0], syscall.EHOSTUNREACH) {
		t.Errorf("%d builds, errors %v", d.builds, d.errs)
	}
	if left := b.loop.Leftovers(); left != "" || b.loop.Timers() != 0 {
		t.Errorf("left: %s, %d timers", left, b.loop.Timers())
	}
}

func TestDialWithoutASocket(t *testing.T) {
	b := newBench(t, couplet.Config{})
	b.socket = func() error { return syscall.EMFILE }
	d := &dialNotes{}
	if err := b.engine.Dial(context.Background(), "tcp", "10.0.0.1:80", d); err != nil {
		t.Fatal(err)
	}
	b.turn()
	if len(d.errs) != 1 || !errors.Is(d.errs[0], syscall.EMFILE) {
		t.Errorf("errors %v", d.errs)
	}
}

// TestDialGivenUp gives a dial up in each of its states: exactly one outcome
// follows, no attempt begins any more, and what was opened is closed.
func TestDialGivenUp(t *testing.T) {
	cause := errors.New("given up")
	for _, why := range []string{"cancel", "timeout", "stop"} {
		for _, state := range []string{"posted", "resolving", "connecting", "closing", "connected at once"} {
			if why == "timeout" && state == "posted" {
				continue // its time runs from the beginning on
			}
			t.Run(why+" while "+state, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				b := newBench(t, couplet.Config{})
				go1 := make(chan struct{})
				b.resolve = func() ([]sock.Sockaddr, error) {
					<-go1
					sa, _ := sock.FromAddrPort(netip.MustParseAddrPort("10.0.0.1:80"))
					return []sock.Sockaddr{sa, sa}, nil
				}
				d := &dialNotes{}
				b.engine.Dial(ctx, "tcp", "name:80", d, couplet.ConnectTimeout(time.Second))
				var c *Conn
				if state != "posted" {
					b.turn()
				}
				if state != "posted" && state != "resolving" {
					close(go1)
					b.posted(1)
					b.turn()
					c = b.attempt()
				}
				if state == "closing" {
					b.turn(func() { b.loop.Connected(c, syscall.ECONNREFUSED) })
				}
				posted := b.loop.Posted()
				switch why {
				case "cancel":
					cancel(cause)
					if state != "posted" {
						b.posted(posted + 1)
					}
				case "timeout":
					b.now += time.Second
				case "stop":
					b.engine.Stop()
				}
				if state == "connected at once" { // reported in the same turn, and first
					b.turn(func() { b.loop.Connected(c, 0) })
					b.turn()
					if d.builds != 1 || len(d.errs) != 0 {
						t.Errorf("%d builds, errors %v", d.builds, d.errs)
					}
					return
				}
				b.turn()
				if c != nil {
					b.want("close reset")
					b.turn(b.closed(c))
				}
				if state == "resolving" || state == "posted" {
					close(go1)
				}
				for range 3 {
					b.turn()
				}
				if d.builds != 0 || len(d.errs) != 1 || b.called("connect") {
					t.Fatalf("%d builds, errors %v, calls %q", d.builds, d.errs, b.calls)
				}
				want := map[string]error{"cancel": cause, "timeout": os.ErrDeadlineExceeded, "stop": couplet.ErrShutdown}[why]
				if !errors.Is(d.errs[0], want) {
					t.Errorf("the error is %v", d.errs[0])
				}
				if left := b.loop.Leftovers(); left != "" {
					t.Errorf("left: %s", left)
				}
			})
		}
	}
}

// A unix listener with a full backlog answers EAGAIN: the same address is
// tried again, until ConnectTimeout.
func TestDialAgainWhereABacklogIsFull(t *testing.T) {
	b := newBench(t, couplet.Config{})
	d := &dialNotes{}
	if err := b.engine.Dial(context.Background(), "unix", "/no/path", d, couplet.ConnectTimeout(30*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	b.turn()
	tries := 0
	for len(d.errs) == 0 && tries < 100 {
		if b.called("connect") {
			tries++
			var c *Conn
			for d := range b.loop.dials {
				c = d.conn
			}
			b.turn(func() { b.loop.Connected(c, syscall.EAGAIN) })
			b.turn(b.closed(c))
			continue
		}
		b.now += time.Millisecond
		b.turn()
	}
	if tries < 5 || tries > 7 || b.now < 30*time.Millisecond || !errors.Is(d.errs[0], os.ErrDeadlineExceeded) {
		t.Errorf("%d tries in %v, errors %v", tries, b.now, d.errs)
	}
}

// A connection whose two ends are one address is a port that dialled itself. One that
// has only the port in common is none.
func TestAPortThatDialledItself(t *testing.T) {
	for address, itself := range map[string]bool{"127.0.0.1:2": true, "127.0.0.2:2": false, "127.0.0.1:3": false} {
		b := newBench(t, couplet.Config{})
		d := &dialNotes{}
		if err := b.engine.Dial(context.Background(), "tcp", address, d); err != nil {
			t.Fatal(err)
		}
		b.turn()
		c := b.attempt()
		b.turn(func() { b.loop.Connected(c, 0) })
		if !itself {
			if d.builds != 1 || len(d.errs) > 0 {
				t.Errorf("%s: %d builds, errors %v", address, d.builds, d.errs)
			}
			continue
		}
		b.want("close reset")
		b.turn(b.closed(c))
		if d.builds != 0 || len(d.errs) != 1 || !errors.Is(d.errs[0], syscall.ECONNREFUSED) {
			t.Errorf("%s: %d builds, errors %v", address, d.builds, d.errs)
		}
	}
}
