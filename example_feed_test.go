package couplet_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"couplet"
	"couplet/engines"
)

// stream is a connection that a goroutine feeds.
type stream struct {
	feed   func(s *stream) // runs in a goroutine of its own
	handle couplet.Handle
	paused bool          // belongs to the loop
	room   chan struct{} // has place for one: to try again
	lost   chan struct{} // is closed by ConnectionLost
}

var (
	_ couplet.WriteFlow         = (*stream)(nil)
	_ couplet.ReadClosedHandler = (*stream)(nil)
	_ couplet.DrainHandler      = (*stream)(nil)
)

func newStream(feed func(s *stream)) *stream {
	return &stream{feed: feed, room: make(chan struct{}, 1), lost: make(chan struct{})}
}

// write is Handle.Write, and waits while there is no room. It blocks, so it is for
// one goroutine and for no loop.
func (s *stream) write(p []byte) error {
	for {
		_, err := s.handle.Write(p)
		if err != couplet.ErrOutboundFull {
			return err
		}
		// This comes behind what was written, and nothing else would tell this goroutine.
		err = s.handle.Post(func(couplet.Transport) {
			if !s.paused {
				s.tell() // else WriteResumed does
			}
		})
		if err != nil {
			return err
		}
		select {
		case <-s.room:
		case <-s.lost:
			return net.ErrClosed
		}
	}
}

func (s *stream) tell() {
	select {
	case s.room <- struct{}{}:
	default: // it is told already
	}
}

func (s *stream) WritePaused(couplet.Transport) { s.paused = true }

func (s *stream) WriteResumed(couplet.Transport) {
	s.paused = false
	s.tell()
}

func (s *stream) ConnectionMade(t couplet.Transport) {
	s.handle = t.Handle()
	go s.feed(s)
}

func (s *stream) DataReceived(couplet.Transport, []byte) {}

// ReadClosed and Draining go on: the peer still wants the rest.
func (s *stream) ReadClosed(couplet.Transport) {}
func (s *stream) Draining(couplet.Transport)   {}

func (s *stream) ConnectionLost(couplet.Transport, error) { close(s.lost) }

// A goroutine sends far more than may be queued. MaxOutbound bounds what is: it is to be
// more than the high watermark and a piece.
func ExampleHandle_Write() {
	engine, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer engine.Shutdown(context.Background())
	feed := func(s *stream) {
		piece := make([]byte, 64<<10)
		for range 1024 {
			if s.write(piece) != nil {
				s.handle.Abort() // it must not look whole
				return
			}
		}
		s.handle.Close()
	}
	l, err := engine.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		return newStream(feed)
	}), couplet.MaxOutbound(1<<20))
	if err != nil {
		panic(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	defer c.Close()
	n, err := io.Copy(io.Discard, c)
	fmt.Println(n>>20, "MiB,", err)
	// Output: 64 MiB, <nil>
}
