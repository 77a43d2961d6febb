package engines_test

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
)

// benchLimit is how long one round of a benchmark may take.
const benchLimit = time.Minute

// eachEngine runs f on every engine that can be had here, with one loop: both ends of
// every connection are on it, so that ns/op is what an operation costs at both. What a
// server alone costs beside others, couplet bench tells.
func eachEngine(b *testing.B, f func(b *testing.B, e couplet.Engine)) {
	for _, name := range engines.Names() {
		b.Run(name, func(b *testing.B) {
			e, err := engines.Open(name, couplet.Config{Loops: 1})
			if err != nil {
				b.Skip(err)
			}
			defer e.Shutdown(b.Context())
			f(b, e)
		})
	}
}

// await waits for what ends a round.
func await(b *testing.B, e couplet.Engine, over <-chan struct{}) {
	b.Helper()
	select {
	case <-over:
	case <-e.Done():
		b.Fatal(e.Err())
	case <-time.After(benchLimit):
		b.Fatalf("not over after %v: %+v", benchLimit, e.Stats())
	}
}

// answering sends back what it gets.
type answering struct{}

func (answering) ConnectionMade(couplet.Transport)            {}
func (answering) DataReceived(t couplet.Transport, b []byte)  { t.Write(b) }
func (answering) ConnectionLost(_ couplet.Transport, _ error) {}
func answer(net.Addr) couplet.Protocol                        { return answering{} }
func listen(b *testing.B, e couplet.Engine) (address string) {
	l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(answer))
	if err != nil {
		b.Fatal(err)
	}
	return l.Addr().String()
}

// A caller asks on one connection while there is something left of a round.
type caller struct {
	message []byte
	got     int
	round   *round
}

type round struct {
	left, open atomic.Int64 // messages to be sent, and to come back
	over       chan struct{}
}

func (c *caller) ask(t couplet.Transport) {
	if c.round.left.Add(-1) >= 0 {
		t.Write(c.message)
	}
}

func (c *caller) ConnectionMade(couplet.Transport) {}

func (c *caller) DataReceived(t couplet.Transport, b []byte) {
	for c.got += len(b); c.got >= len(c.message); c.got -= len(c.message) {
		if c.round.open.Add(-1) == 0 {
			close(c.round.over)
			return
		}
		c.ask(t)
	}
}

func (c *caller) ConnectionLost(couplet.Transport, error) {}

// connected tells of the Transport of a caller.
type connected struct {
	*caller
	made func(couplet.Transport)
}

func (c connected) ConnectionMade(t couplet.Transport) { c.made(t) }

// BenchmarkEcho is a message there and back.
func BenchmarkEcho(b *testing.B) {
	for _, w := range []struct{ connections, size, depth int }{
		{1, 64, 1}, {64, 64, 1}, {1000, 64, 1}, {64, 64, 16}, {64, 4 << 10, 1}, {64, 64 << 10, 1},
	} {
		b.Run(fmt.Sprintf("%dx%dB/depth%d", w.connections, w.size, w.depth), func(b *testing.B) {
			eachEngine(b, func(b *testing.B, e couplet.Engine) {
				address, message := listen(b, e), make([]byte, w.size)
				r := &round{over: make(chan struct{})}
				var all sync.WaitGroup
				handles := make([]couplet.Handle, w.connections)
				callers := make([]*caller, w.connections)
				for i := range handles {
					all.Add(1)
					callers[i] = &caller{message: message, round: r}
					err := e.Dial(b.Context(), "tcp4", address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
						return connected{callers[i], func(t couplet.Transport) { handles[i] = t.Handle(); all.Done() }}
					}))
					if err != nil {
						b.Fatal(err)
					}
				}
				made := make(chan struct{})
				go func() { all.Wait(); close(made) }()
				await(b, e, made)
				r.left.Store(int64(b.N))
				r.open.Store(int64(b.N))
				before := e.Stats()
				b.SetBytes(int64(2 * w.size))
				b.ReportAllocs()
				b.ResetTimer()
				for i, h := range handles {
					h.Post(func(t couplet.Transport) {
						for range w.depth {
							callers[i].ask(t)
						}
					})
				}
				await(b, e, r.over)
				b.StopTimer()
				b.ReportMetric(float64(e.Stats().Crossings-before.Crossings)/float64(b.N), "crossings/op")
			})
		})
	}
}

// A passer connects, sends a message, has it back and goes; the next one comes when it has
// gone.
type passer struct {
	next func()
}

func (p passer) ConnectionMade(t couplet.Transport)         { t.Write(make([]byte, 64)) }
func (p passer) DataReceived(t couplet.Transport, _ []byte) { t.Close() }
func (p passer) ConnectionLost(couplet.Transport, error)    { p.next() }

// BenchmarkConnect is a connection, with one message there and back; 16 are open at a time.
func BenchmarkConnect(b *testing.B) {
	eachEngine(b, func(b *testing.B, e couplet.Engine) {
		address := listen(b, e)
		var left, open atomic.Int64
		left.Store(int64(b.N))
		open.Store(int64(b.N))
		over := make(chan struct{})
		var next func()
		next = func() {
			if left.Add(-1) < 0 {
				return
			}
			err := e.Dial(b.Context(), "tcp4", address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
				return passer{func() {
					if open.Add(-1) == 0 {
						close(over)
					}
					next()
				}}
			}))
			if err != nil {
				b.Error(err)
			}
		}
		b.ReportAllocs()
		b.ResetTimer()
		for range 16 {
			next()
		}
		await(b, e, over)
	})
}

// BenchmarkPost is a function that another goroutine posts to a loop.
func BenchmarkPost(b *testing.B) {
	eachEngine(b, func(b *testing.B, e couplet.Engine) {
		l, over := e.Loops()[0], make(chan struct{})
		f := func() {}
		b.ReportAllocs()
		for b.Loop() {
			l.Post(f)
		}
		l.Post(func() { close(over) })
		await(b, e, over)
	})
}
