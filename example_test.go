package couplet_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"couplet"
	"couplet/engines"
)

// greeter says hello and sends back what it gets. From a peer that does not take
// it, it does not read either.
type greeter struct{}

var (
	_ couplet.WriteFlow    = greeter{}
	_ couplet.DrainHandler = greeter{}
)

func (greeter) ConnectionMade(t couplet.Transport)            { t.Write([]byte("hello, ")) }
func (greeter) ConnectionLost(t couplet.Transport, why error) {}
func (greeter) WritePaused(t couplet.Transport)               { t.PauseReading() }
func (greeter) WriteResumed(t couplet.Transport)              { t.ResumeReading() }

func (greeter) DataReceived(t couplet.Transport, data []byte) {
	if _, err := t.Write(data); err == couplet.ErrOutboundFull {
		t.Abort() // an answer with a hole in it must not look whole
	}
}

// Draining goes on until the peer closes, or to the deadline of Shutdown. Without it the
// connection is closed at once when the engine stops: what the peer has sent by then
// and is not delivered gets no answer, and the end looks clean.
func (greeter) Draining(couplet.Transport) {}

// A server is a Factory that builds a Protocol for each connection. A protocol
// without ReadClosed is closed, flushed first, when its peer closes its half.
func Example() {
	engine, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer engine.Shutdown(context.Background())
	factory := couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return greeter{} })
	l, err := engine.Listen("tcp", "127.0.0.1:0", factory)
	if err != nil {
		panic(err)
	}

	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	defer c.Close()
	io.WriteString(c, "stranger")
	c.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(c)
	fmt.Println(string(answer), err)
	// Output: hello, stranger <nil>
}

// collector tells what it received when its peer is done.
type collector struct {
	got  []byte
	done chan<- string
}

func (c *collector) ConnectionMade(t couplet.Transport)            {}
func (c *collector) DataReceived(t couplet.Transport, data []byte) { c.got = append(c.got, data...) }
func (c *collector) ConnectionLost(t couplet.Transport, why error) {
	c.done <- fmt.Sprintf("%s (%v)", c.got, why)
}

// announcer hands its connection to another goroutine.
type announcer struct{ made chan<- couplet.Handle }

func (a announcer) ConnectionMade(t couplet.Transport)          { a.made <- t.Handle() }
func (a announcer) DataReceived(couplet.Transport, []byte)      {}
func (a announcer) ConnectionLost(t couplet.Transport, _ error) {}

// Other goroutines write by a Handle. One Buffer goes to all without a copy.
func ExampleHandle() {
	engine, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer engine.Shutdown(context.Background())
	made, done := make(chan couplet.Handle, 2), make(chan string, 2) // a callback must not wait
	l, err := engine.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		return announcer{made}
	}))
	if err != nil {
		panic(err)
	}
	client := couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &collector{done: done} })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 2 {
		if err := engine.Dial(ctx, "tcp", l.Addr().String(), client); err != nil {
			panic(err)
		}
	}
	news := couplet.NewBuffer([]byte("to everybody"), nil)
	for range 2 {
		h := <-made
		h.WriteBuffer(news)
		h.Close()
	}
	news.Release()
	fmt.Println(<-done)
	fmt.Println(<-done)
	// Output:
	// to everybody (EOF)
	// to everybody (EOF)
}
