//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"log/slog"
	"math"
	"net"
	"slices"
	"testing"
	"time"

	"couplet"
	"couplet/internal/loop"
	"couplet/internal/testpeer"
	"couplet/poetry"
)

// driven is an engine that logs nothing and ends after the test, and its loop's driver.
func driven(t *testing.T, features couplet.Features) (e couplet.Engine, d *driver) {
	granted, err := granted(features)
	if err != nil {
		t.Skip(err)
	}
	config := couplet.Config{Features: granted, Logger: slog.New(slog.DiscardHandler)}
	e, err = loop.NewEngine("uring", config, loop.Kernel{}, func(l *loop.Loop) (loop.Driver, error) {
		made, err := newDriver(l)
		d, _ = made.(*driver)
		return made, err
	})
	if err != nil {
		t.Skip(err)
	}
	testpeer.EndAfter(t, e)
	return e, d
}

// echoing is an engine that echoes at addr, its driver, and a call on its loop.
func echoing(t *testing.T, features couplet.Features) (e couplet.Engine, d *driver, addr string, do func(func())) {
	e, d = driven(t, features)
	l, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
	if err != nil {
		t.Fatal(err)
	}
	return e, d, l.Addr().String(), func(f func()) {
		done := make(chan bool)
		e.Loops()[0].Post(func() { f(); close(done) })
		<-done
	}
}

// dial is n connections to addr, which end with the test and do not wait for ever.
func dial(t *testing.T, addr string, n int) []net.Conn {
	var made []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(30 * time.Second))
		made = append(made, c)
	}
	return made
}

// The ring grows when a crowd sends at once, loses nothing by it, and is as small as
// at the beginning some time after the crowd has gone.
func TestTheBufferRingGrowsAndShrinks(t *testing.T) {
	for _, features := range []couplet.Features{couplet.TierU5, couplet.TierU3} {
		t.Run(features.Tier(), func(t *testing.T) {
			setBulk(t, math.MaxInt, much, littleInRow)
			e, d, addr, do := echoing(t, features)
			var least, live int
			do(func() { least = d.buffers.live() })

			// What a crowd has sent while the loop looked away takes more than there is.
			const n, size = 64, 48 << 10
			crowd := dial(t, addr, n)
			exchange := func(c net.Conn) {
				for got, buf := 0, make([]byte, size); got < size; {
					n, err := c.Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			}
			do(func() {
				for _, c := range crowd {
					if _, err := c.Write(make([]byte, size)); err != nil {
						t.Error(err)
					}
				}
			})
			for _, c := range crowd {
				exchange(c)
			}
			do(func() {
				live = d.buffers.live()
				d.buffers.quiet = time.Millisecond
			})
			if live <= least {
				t.Fatalf("%d blocks, %d at the beginning, for %d x %d bytes at once; %+v", live, least, n, size, e.Stats())
			}

			held := int64(live * d.buffers.memory.Size)
			for end := time.Now().Add(20 * time.Second); e.Stats().Held != held; do(func() {}) {
				if time.Now().After(end) {
					t.Fatalf("Stats says that %d bytes are held, of %d", e.Stats().Held, held)
				}
			}

			for end := time.Now().Add(20 * time.Second); live > least; {
				if time.Now().After(end) {
					t.Fatalf("%d blocks still, %d at the beginning", live, least)
				}
				if _, err := crowd[0].Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				exchange(crowd[0])
				do(func() { live = d.buffers.live() })
			}
			if live != least {
				t.Errorf("%d blocks, %d at the beginning", live, least)
			}
			do(func() {
				d.buffers.quiet = time.Hour
				if n := len(slices.DeleteFunc(slices.Clone(d.buffers.blocks), func(b *loop.Block) bool { return b == nil })); n != live {
					t.Errorf("%d blocks are kept, %d are in the ring", n, live)
				}
			})
			grown := e.Stats().BuffersExhausted
			do(func() {
				for _, c := range crowd {
					c.Write(make([]byte, size))
				}
			})
			for _, c := range crowd {
				exchange(c)
			}
			if e.Stats().BuffersExhausted == grown {
				t.Error("the second crowd found enough, so it was no test")
			}
		})
	}
}
