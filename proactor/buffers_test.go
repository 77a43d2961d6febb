//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"net"
	"testing"
	"time"

	"couplet"
	"couplet/internal/loop"
	"couplet/poetry"
)

// The ring grows when a crowd sends at once, loses nothing by it, and is as small as
// at the beginning some time after the crowd has gone.
func TestTheBufferRingGrowsAndShrinks(t *testing.T) {
	for _, features := range []couplet.Features{couplet.TierU5, couplet.TierU3} {
		t.Run(features.Tier(), func(t *testing.T) {
			granted, err := granted(features)
			if err != nil {
				t.Skip(err)
			}
			var d *driver
			e, err := loop.NewEngine("uring", couplet.Config{Features: granted}, loop.Kernel{}, func(l *loop.Loop) (loop.Driver, error) {
				made, err := newDriver(l)
				if err == nil {
					d = made.(*driver)
				}
				return made, err
			})
			if err != nil {
				t.Skip(err)
			}
			defer func() {
				e.Stop()
				<-e.Done()
			}()
			l, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
			if err != nil {
				t.Fatal(err)
			}
			do := func(f func()) {
				done := make(chan bool)
				e.Loops()[0].Post(func() { f(); close(done) })
				<-done
			}
			var least, live int
			do(func() { least = d.buffers.live() })

			// What a crowd has sent while the loop looked away takes more than there is.
			const n, size = 64, 48 << 10
			var crowd []*net.TCPConn
			for range n {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				crowd = append(crowd, c.(*net.TCPConn))
			}
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
			do(func() { d.buffers.quiet = time.Hour })
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
