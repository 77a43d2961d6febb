package couplet_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"couplet"
	"couplet/engines"
)

// source sends left bytes, a piece in each turn of the loop, and closes. However slow its
// peer, no more is queued than the high watermark and a piece.
type source struct {
	left  int
	piece []byte
	t     couplet.Transport
	next  couplet.Timer // never pending twice, as a posted function could be
	most  int           // that was ever queued
	ended chan<- int    // is told most
}

var (
	_ couplet.WriteFlow         = (*source)(nil)
	_ couplet.ReadClosedHandler = (*source)(nil)
	_ couplet.DrainHandler      = (*source)(nil)
)

func (s *source) ConnectionMade(t couplet.Transport) {
	s.t = t
	s.next = t.AfterFunc(0, s.more)
}

// more writes a piece and comes again in the next turn, unless WritePaused stops it.
func (s *source) more() {
	n := min(s.left, len(s.piece))
	if _, err := s.t.Write(s.piece[:n]); err != nil {
		return // ConnectionLost is about to tell
	}
	s.most = max(s.most, s.t.Buffered())
	if s.left -= n; s.left == 0 {
		s.t.Close()
		return
	}
	s.next.Reset(0)
}

func (s *source) WritePaused(couplet.Transport)  { s.next.Stop() }
func (s *source) WriteResumed(couplet.Transport) { s.next.Reset(0) }

func (s *source) DataReceived(couplet.Transport, []byte) {}

// ReadClosed and Draining go on: the peer still wants the rest.
func (s *source) ReadClosed(couplet.Transport) {}
func (s *source) Draining(couplet.Transport)   {}

func (s *source) ConnectionLost(couplet.Transport, error) { s.ended <- s.most }

// A producer sends far more than it may queue. It goes on by itself: WriteResumed comes
// only if WritePaused came, and that only if the kernel did not take all of a turn.
func ExampleWriteFlow() {
	engine, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer engine.Shutdown(context.Background())
	ended, piece := make(chan int, 1), make([]byte, 64<<10) // ended has room for the only client: no callback waits
	l, err := engine.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		return &source{left: 64 << 20, piece: piece, ended: ended}
	}), couplet.MaxConns(1))
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
	c.Close()
	fmt.Println("at most 128 KiB were queued:", <-ended <= 128<<10)
	// Output:
	// 64 MiB, <nil>
	// at most 128 KiB were queued: true
}
