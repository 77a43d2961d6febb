package bench

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/internal/testpeer"
)

// watched tells what was queued when it was first paused.
type watched struct {
	*answerer
	paused chan<- int
}

func (w *watched) WritePaused(t couplet.Transport) {
	select {
	case w.paused <- t.Buffered():
	default:
	}
	w.answerer.WritePaused(t)
}

// A client that asks for much and takes nothing is held back, and gets all of it in
// the end.
func TestAnswersWaitForTheirReader(t *testing.T) {
	const requests, size, patience = 20, 1 << 20, 20 * time.Second
	for _, engine := range engines.Names() {
		t.Run(engine, func(t *testing.T) {
			e := opened(t, engine)
			paused := make(chan int, 1)
			l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
				return &watched{new(answerer), paused}
			}))
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			request := make([]byte, header, 30)
			putHeader(request, 30, size, 11)
			c.Write(slices.Repeat(append(request, at(11, 18)...), requests))
			select {
			case n := <-paused:
				if n > 4*piece+span {
					t.Errorf("%d bytes are queued for a client that takes nothing", n)
				}
			case <-time.After(patience):
				t.Fatal("nothing held the server back")
			}
			got := make([]byte, size)
			for i := range requests {
				if _, err := io.ReadFull(c, got); err != nil {
					t.Fatal(err)
				}
				for off := 0; off < size; off += span {
					if !bytes.Equal(got[off:off+span], at(int64(11+off), span)) {
						t.Fatalf("answer %d is wrong", i)
					}
				}
			}
		})
	}
}

// opened is an engine that is stopped with the test. Only goroutine is there everywhere.
func opened(t *testing.T, name string) couplet.Engine {
	t.Helper()
	e, err := engines.Open(name, couplet.Config{})
	switch {
	case err == nil:
	case name == "goroutine":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	testpeer.EndAfter(t, e)
	return e
}
