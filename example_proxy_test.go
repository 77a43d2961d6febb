package couplet_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"couplet"
	"couplet/engines"
)

// proxy is the Factory of a listener whose clients are connected to server.
type proxy struct {
	engine couplet.Engine
	server string
}

func (p proxy) Build(net.Addr) couplet.Protocol {
	c := &client{proxy: p}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// half is what both connections do: all that comes goes to the other one. Methods of
// a Transport that is lost do nothing, so nobody asks whether it is.
type half struct{ to couplet.Transport }

var (
	_ couplet.WriteFlow    = half{}
	_ couplet.DrainHandler = half{}
)

// Who does not take the data holds back who sends it.
func (h half) WritePaused(couplet.Transport)  { h.to.PauseReading() }
func (h half) WriteResumed(couplet.Transport) { h.to.ResumeReading() }

func (h half) DataReceived(t couplet.Transport, data []byte) {
	if _, err := h.to.Write(data); err == couplet.ErrOutboundFull {
		t.Abort()
	}
}

// ReadClosed passes the FIN on; the answer may still come. Once both halves are
// closed the connections end by themselves.
func (h half) ReadClosed(couplet.Transport) { h.to.CloseWrite() }

// Draining goes on until both ends are done, or to the deadline of Shutdown: a close would
// cut what is under way, and look clean.
func (h half) Draining(couplet.Transport) {}

// ConnectionLost has what was cut look cut on the other side too.
func (h half) ConnectionLost(_ couplet.Transport, why error) {
	if h.to != nil && why != io.EOF {
		h.to.Abort()
	}
}

// client is the connection that was accepted.
type client struct {
	half
	proxy
	t      couplet.Transport
	ctx    context.Context // of the dial
	cancel context.CancelFunc
}

// ConnectionMade dials. The client is not read from until the outcome is told. Both
// connections live on one loop, so neither needs a lock.
func (c *client) ConnectionMade(t couplet.Transport) {
	c.t = t
	t.PauseReading()
	if err := c.engine.Dial(c.ctx, "tcp", c.server, dialled{c}, couplet.OnLoop(t.Loop())); err != nil {
		t.Abort()
	}
}

func (c *client) ConnectionLost(t couplet.Transport, why error) {
	c.cancel() // a dial that is still under way
	c.half.ConnectionLost(t, why)
}

// dialled is the Factory of the dial. It is told of a failure, since no Protocol is
// there yet.
type dialled struct{ client *client }

func (d dialled) Build(net.Addr) couplet.Protocol {
	if d.client.ctx.Err() != nil {
		return nil // the client is gone
	}
	return &upstream{half{to: d.client.t}, d.client}
}

func (d dialled) ConnectFailed(address string, err error) { d.client.t.Abort() }

// upstream is the connection to the server.
type upstream struct {
	half
	client *client
}

func (u *upstream) ConnectionMade(t couplet.Transport) {
	u.client.to = t
	u.client.t.ResumeReading()
}

// A proxy dials for each connection that it accepts.
func ExampleEngine_dial() {
	engine, err := engines.Open("auto", couplet.Config{})
	if err != nil {
		panic(err)
	}
	defer engine.Shutdown(context.Background())
	server, err := engine.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return greeter{} }))
	if err != nil {
		panic(err)
	}
	l, err := engine.Listen("tcp", "127.0.0.1:0", proxy{engine, server.Addr().String()})
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
