//go:build linux && !race

package engines_test

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
)

// pingPong sends a message back and forth n times; the dialling side counts.
type pingPong struct {
	left int // round trips; 0: the answering side
	warm int // round trips before counting
	from *runtime.MemStats
	done chan<- uint64
}

func (p *pingPong) ConnectionMade(t couplet.Transport) {
	if p.left > 0 {
		t.Write(make([]byte, 64))
	}
}

func (p *pingPong) DataReceived(t couplet.Transport, data []byte) {
	if p.left == 0 {
		t.Write(data)
		return
	}
	if p.left--; p.left == 0 {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		p.done <- now.Mallocs - p.from.Mallocs
		t.Close()
		return
	}
	if p.warm--; p.warm == 0 {
		p.from = new(runtime.MemStats)
		runtime.ReadMemStats(p.from)
	}
	t.Write(data)
}

func (p *pingPong) ConnectionLost(couplet.Transport, error) {}

// A message costs no allocation, on the way in or out.
func TestEchoAllocatesNothingPerMessage(t *testing.T) {
	for _, name := range []string{engines.Uring, engines.Epoll} {
		t.Run(name, func(t *testing.T) {
			engine, err := engines.Open(name, couplet.Config{})
			if err != nil {
				t.Skip(err)
			}
			defer engine.Shutdown(t.Context())
			l, err := engine.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
				return new(pingPong)
			}))
			if err != nil {
				t.Fatal(err)
			}
			const n, warm = 20_000, 1000
			done := make(chan uint64, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err = engine.Dial(ctx, "tcp4", l.Addr().String(), couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
				return &pingPong{left: n + warm, warm: warm, done: done}
			}))
			if err != nil {
				t.Fatal(err)
			}
			select {
			case mallocs := <-done:
				// What the runtime itself allocates meanwhile is not per message.
				if perMessage := float64(mallocs) / (2 * n); perMessage > 0.005 {
					t.Errorf("%d allocations for %d messages: %.4f each", mallocs, 2*n, perMessage)
				}
			case <-ctx.Done():
				t.Fatalf("no end of %d round trips: %+v", n, engine.Stats())
			}
		})
	}
}
