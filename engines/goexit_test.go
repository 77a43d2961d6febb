package engines_test

import (
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
)

// quitter ends the goroutine that calls it wherever something is not as it should be,
// as t.Fatal does.
type quitter struct {
	made chan<- struct{}
	lost *atomic.Int32
}

func (q quitter) ConnectionMade(couplet.Transport)       { q.made <- struct{}{} }
func (q quitter) DataReceived(couplet.Transport, []byte) { runtime.Goexit() }
func (q quitter) ConnectionLost(_ couplet.Transport, reason error) {
	q.lost.Add(1)
	if reason != io.EOF {
		runtime.Goexit()
	}
}

// The Goexit of a callback that heard of an engine's failure kept it from ending: the
// other connections were never told, and Shutdown waited for good.
func TestGoexitAgainWhileAFailureIsTold(t *testing.T) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			e, err := engines.Open(name, couplet.Config{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Skip(err)
			}
			made := make(chan struct{}, 3)
			q := quitter{made, new(atomic.Int32)}
			l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return q }))
			if err != nil {
				t.Fatal(err)
			}
			var c net.Conn
			for range cap(made) {
				if c, err = net.Dial("tcp", l.Addr().String()); err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				<-made
			}
			c.Write([]byte("x"))
			for _, end := range []struct {
				what string
				c    <-chan struct{}
			}{{"the listener's", l.Closed()}, {"the engine's", e.Done()}} {
				select {
				case <-end.c:
				case <-time.After(20 * time.Second):
					t.Fatalf("no sign of %s end; %d connections of %d were told", end.what, q.lost.Load(), cap(made))
				}
			}
			if n := q.lost.Load(); n != int32(cap(made)) {
				t.Errorf("%d connections of %d were told", n, cap(made))
			}
			if e.Loops()[0].Post(func() {}) {
				t.Error("Post is taken after the end")
			}
		})
	}
}
