package couplet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
)

// Features with unknown bits were told as what this kernel lacks, the others were
// taken, or refused without their name.
func TestConfigRefusesWhatHasNoMeaning(t *testing.T) {
	for _, c := range []struct {
		config couplet.Config
		want   string
	}{
		{couplet.Config{Features: 1 << 20}, "couplet: Config.Features has unknown bits 0x100000; take a tier, such as TierU3, or Feature constants"},
		{couplet.Config{Features: couplet.TierU3 | 1<<31}, "couplet: Config.Features has unknown bits 0x80000000; take a tier, such as TierU3, or Feature constants"},
		{couplet.Config{Spread: 9}, "couplet: Config.Spread is 9; it must be ReusePort, RoundRobin or LeastConnections"},
		{couplet.Config{Spread: -1}, "couplet: Config.Spread is -1; it must be ReusePort, RoundRobin or LeastConnections"},
		{couplet.Config{OnPanic: 9}, "couplet: Config.OnPanic is 9; it must be PanicCloses or PanicCrashes"},
		{couplet.Config{OnPanic: -1}, "couplet: Config.OnPanic is -1; it must be PanicCloses or PanicCrashes"},
		{couplet.Config{CPUs: []int{0, -1}}, "couplet: Config.CPUs[1] is -1; it must be the number of a CPU, from 0"},
		{couplet.Config{Loops: -1}, "couplet: Config.Loops is -1; it must be from 1 to 256"},
		{couplet.Config{RingEntries: 2048, CompletionEntries: 1024}, "couplet: Config.CompletionEntries is 1024; it must be at least RingEntries"},
	} {
		if _, err := c.config.WithDefaults(); err == nil || err.Error() != c.want {
			t.Errorf("WithDefaults: %v; want %s", err, c.want)
		}
		if e, err := engines.Open(engines.Auto, c.config); err == nil {
			e.Shutdown(t.Context())
			t.Errorf("an engine was opened; want %s", c.want)
		} else if err.Error() != c.want {
			t.Errorf("Open: %v; want %s", err, c.want)
		}
	}
}

// Four of these errors named several options and no value, FromFile of nothing was
// ignored, and a nil Option was a panic.
func TestOptionsAreRefusedByNameAndValue(t *testing.T) {
	for _, c := range []struct {
		opts []couplet.Option
		want string
	}{
		{[]couplet.Option{couplet.Backlog(0)}, "couplet: Backlog is 0; it must be at least 1"},
		{[]couplet.Option{couplet.MaxOutbound(0)}, "couplet: MaxOutbound is 0; it must be at least 1"},
		{[]couplet.Option{couplet.ReceiveBuffer(-2)}, "couplet: ReceiveBuffer is -2; it must be at least 0"},
		{[]couplet.Option{couplet.SendBuffer(-3)}, "couplet: SendBuffer is -3; it must be at least 0"},
		{[]couplet.Option{couplet.MaxConns(-1)}, "couplet: MaxConns is -1; it must be at least 0"},
		{[]couplet.Option{couplet.IdleTimeout(-1)}, "couplet: IdleTimeout is -1ns; it must be at least 0, which is never"},
		{[]couplet.Option{couplet.ConnectTimeout(-1)}, "couplet: ConnectTimeout is -1ns; it must be more than 0"},
		{[]couplet.Option{couplet.FlushTimeout(0)}, "couplet: FlushTimeout is 0s; it must be more than 0"},
		{[]couplet.Option{couplet.LingerTimeout(0)}, "couplet: LingerTimeout is 0s; it must be more than 0"},
		{[]couplet.Option{couplet.FromFile(nil)}, "couplet: FromFile was given no file; give it the socket to listen on, or leave it out"},
		{[]couplet.Option{couplet.NoDelay(true), nil}, "couplet: option 2 of 2 is nil; leave it out"},
	} {
		if _, err := couplet.NewOptions(c.opts...); err == nil || err.Error() != c.want {
			t.Errorf("NewOptions: %v; want %q", err, c.want)
		}
	}
	each(t, func(t *testing.T, e couplet.Engine) {
		f := couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return greeter{} })
		if _, err := e.Listen("tcp", "127.0.0.1:0", f, couplet.FromFile(nil)); err == nil || !strings.Contains(err.Error(), "FromFile") {
			t.Errorf("Listen on no file: %v", err)
		}
		if err := e.Dial(context.Background(), "tcp", "127.0.0.1:1", f, nil); err == nil || !strings.Contains(err.Error(), "is nil") {
			t.Errorf("Dial with a nil Option: %v", err)
		}
	})
}

// That an idle connection is reset was written nowhere.
func TestIdleTimeoutEndsInAReset(t *testing.T) {
	each(t, func(t *testing.T, e couplet.Engine) {
		l := greets(t, e, couplet.IdleTimeout(50*time.Millisecond))
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q, then %v; want a reset", got, err)
		}
	})
}
