package poetry_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// Each test here is named after what broke once.

// A fetch whose OnStart panicked was neither begun nor ended, and one whose OnDone panicked was
// not counted: FetchAll waited for ever, whatever became of its context.
func TestAHookThatPanickedHeldFetchAllUp(t *testing.T) {
	starts := func(int, poetry.Addr) { panic("OnStart") }
	done := func(poetry.Result) { panic("OnDone") }
	for name, o := range map[string]poetry.FetchOptions{
		"OnStart": {OnStart: starts}, "OnDone": {OnDone: done}, "both": {OnStart: starts, OnDone: done},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, e couplet.Engine) {
				a := serve(t, e, "tcp", poetry.NewFastServer(text(100)))
				for _, fetch := range both {
					for _, cut := range []bool{false, true} {
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						if cut {
							cancel()
						}
						r := fetch(ctx, e, []poetry.Addr{a, a, a, a}, o)
						if ctx.Err() != nil && !cut {
							t.Fatal("it waits")
						}
						for _, p := range r.Results {
							switch {
							case cut: // it may have come all the same
							case o.OnStart == nil && p.Err != nil, o.OnStart != nil && (p.Err == nil || !strings.Contains(p.Err.Error(), "OnStart")):
								t.Errorf("poem %d of %d bytes: %v", p.Task, len(p.Poem), p.Err)
							}
						}
						cancel()
					}
				}
			})
		})
	}
}

// Behind a hook that panicked at the first poem FetchAll went on one by one: one that did not
// answer held up all behind it.
func TestBehindAHookThatPanickedPoemsCameOneByOne(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		good := serve(t, e, "tcp", poetry.NewFastServer(text(100)))
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		left := 3
		r := poetry.FetchAll(ctx, e, []poetry.Addr{good, {Network: "tcp", Address: silent.Addr().String()}, good, good}, poetry.FetchOptions{
			OnStart: func(task int, _ poetry.Addr) {
				if task == 1 {
					panic("OnStart")
				}
			},
			OnDone: func(poetry.Result) {
				if left--; left == 0 { // all but the silent one
					cancel()
				}
			},
		})
		for _, p := range r.Results[2:] {
			if p.Err != nil {
				t.Errorf("poem %d: %v", p.Task, p.Err)
			}
		}
	})
}

// With OnLoop among the options for Dial the fetches were another loop's than what counts them.
// The race detector tells.
func TestFetchesOnAnotherLoopThanTheirGroup(t *testing.T) {
	for _, name := range engines.Names() {
		e, err := engines.Open(name, couplet.Config{Loops: 2})
		if err != nil {
			t.Skip(err)
		}
		defer e.Shutdown(context.Background())
		a := serve(t, e, "tcp", poetry.NewFastServer(text(100)))
		for _, l := range e.Loops() {
			opts := make([]couplet.Option, 1, 2)
			opts[0] = couplet.OnLoop(l)
			r := poetry.FetchAll(t.Context(), e, []poetry.Addr{a, a, a}, poetry.FetchOptions{Timeout: patience, Dial: opts})
			if r.Got() != 3 {
				t.Errorf("%s: %d poems of 3", name, r.Got())
			}
			if opts[:2][1] != nil {
				t.Error("the caller's options were written to")
			}
		}
	}
}

// A poem that was with the kernel when Shutdown lost its patience counted as taken, though
// its client saw it cut.
func TestAPoemThatShutdownCutCountedAsTaken(t *testing.T) {
	onEach(t, func(t *testing.T, e couplet.Engine) {
		s := poetry.NewFastServer(text(1 << 20))
		sent, ended := make(chan couplet.Transport, 1), make(chan error, 1)
		s.OnEnd = func(_ net.Addr, _ int, err error) { ended <- err }
		spy := couplet.FactoryFunc(func(a net.Addr) couplet.Protocol { return &closes{wrapper{s.Build(a)}, sent} })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// With little room there, and room for all of it here.
		if err := e.Dial(t.Context(), "tcp", l.Addr().String(), spy, couplet.SendBuffer(4<<20)); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		await(t, "the poem's last byte in the kernel", sent)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
		told := await(t, "the recital's end", ended)
		c.SetDeadline(time.Now().Add(patience))
		n, err := io.Copy(io.Discard, c)
		_, whole, cut := s.Served()
		if wasCut := err != nil; (whole == 0) != wasCut || (cut == 1) != wasCut || (told != nil) != wasCut || wasCut && !errors.Is(told, couplet.ErrShutdown) {
			t.Errorf("the client read %d bytes, %v; the server heard %v, and counts %d whole and %d cut", n, err, told, whole, cut)
		}
	})
}

// closes is a recital that tells when its half is closed.
type closes struct {
	wrapper
	sent chan<- couplet.Transport
}

func (c *closes) WriteClosed(t couplet.Transport) {
	couplet.DeliverWriteClosed(c.Protocol, t)
	c.sent <- t
}

func TestPacesBeyondAllNumbers(t *testing.T) {
	if n := (poetry.Pace{NumBytes: math.MaxInt, Delay: 1}).Sends(100); n != 1 {
		t.Errorf("%d sends of MaxInt bytes for 100", n)
	}
	for _, n := range []int{0, 1, 100} {
		if sends, d := poetry.AllAtOnce.Sends(n), poetry.AllAtOnce.Duration(n); sends != min(n, 1) || d != 0 {
			t.Errorf("%d sends and %v for %d bytes at once", sends, d, n)
		}
	}
	if d := (poetry.Pace{NumBytes: 1, Delay: 1000 * time.Hour}).Duration(64 << 20); d != math.MaxInt64 {
		t.Errorf("%v for 64 Mi times a thousand hours", d)
	}
}
