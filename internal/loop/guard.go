//go:build linux

package loop

import (
	"errors"
	"runtime/debug"
	"time"

	"couplet"
)

// Every callback runs under guard: a panic loses the connection (or is logged,
// where there is none) and the loop goes on; a Goexit, which cannot be stopped,
// is left for the loop's end to find in calling.

// begin and done bracket a callback, with the n bytes that it is given (-1: none
// are); caught must be deferred itself, since it recovers.
func (l *Loop) begin(layer Layer, what string, n int) {
	l.Tell(layer, what, n, 0)
	l.calling = true
}

func (l *Loop) done() { l.calling = false }

// caught is deferred around a callback of c, or of none.
func (l *Loop) caught(c *Conn, where string) {
	if !l.calling {
		return
	}
	v := recover()
	if v == nil {
		return // Goexit: the loop's goroutine is ending
	}
	if l.config.OnPanic == couplet.PanicCrashes {
		panic(v)
	}
	l.calling = false
	l.count.Panics++
	err := newPanicError(v)
	l.config.Logger.Error("panic in a callback", "engine", l.engine.name, "callback", where,
		"panic", v, "stack", string(err.Stack))
	if c == nil || c.state == lost {
		return
	}
	c.fail(err)
	c.set().reason = err // wins over an Abort before it
}

func newPanicError(v any) *couplet.PanicError {
	return &couplet.PanicError{Value: v, Stack: debug.Stack()}
}

// errGoexit is what a runtime.Goexit in a callback (a t.Fatal, say) does.
var errGoexit = errors.New("runtime.Goexit was called in a callback; return, or report the failure on another goroutine")

func (c *Conn) callMade() {
	l := c.loop
	l.begin(Callback, "ConnectionMade", -1)
	defer l.caught(c, "ConnectionMade")
	c.proto.ConnectionMade(c)
	l.done()
}

func (c *Conn) callData(data []byte) {
	l := c.loop
	l.begin(Callback, "DataReceived", len(data))
	defer l.caught(c, "DataReceived")
	c.proto.DataReceived(c, data)
	l.done()
}

func (c *Conn) callBuffer(b *couplet.Buffer) {
	l := c.loop
	l.begin(Callback, "BufferReceived", b.Len())
	defer l.caught(c, "BufferReceived")
	c.proto.(couplet.BufferReceiver).BufferReceived(c, b)
	l.done()
}

func (c *Conn) callReadClosed(h couplet.ReadClosedHandler) {
	l := c.loop
	l.begin(Callback, "ReadClosed", -1)
	defer l.caught(c, "ReadClosed")
	h.ReadClosed(c)
	l.done()
}

func (c *Conn) callWriteClosed(h couplet.WriteClosedHandler) {
	l := c.loop
	l.begin(Callback, "WriteClosed", -1)
	defer l.caught(c, "WriteClosed")
	h.WriteClosed(c)
	l.done()
}

func (c *Conn) callFlow(f func(couplet.Transport), name string) {
	l := c.loop
	l.begin(Callback, name, -1)
	defer l.caught(c, name)
	f(c)
	l.done()
}

func (c *Conn) callDraining(h couplet.DrainHandler) {
	l := c.loop
	l.begin(Callback, "Draining", -1)
	defer l.caught(c, "Draining")
	h.Draining(c)
	l.done()
}

func (c *Conn) callTimer(f func()) {
	l := c.loop
	l.begin(Callback, "timer", -1)
	defer l.caught(c, "timer")
	f()
	l.done()
}

func (c *Conn) callLost() {
	l := c.loop
	if l.hook != nil {
		l.hook(time.Now(), string(Callback), "ConnectionLost", -1, nameOf(c.reason))
	}
	l.calling = true
	defer l.caught(c, "ConnectionLost")
	c.proto.ConnectionLost(c, c.reason)
	l.done()
}

func (c *Conn) callPosted(f func(couplet.Transport)) {
	l := c.loop
	l.begin(Callback, "function posted to a connection", -1)
	defer l.caught(c, "function posted to a connection")
	f(c)
	l.done()
}

// build asks the factory for c's protocol and reports whether there is one.
func (l *Loop) build(c *Conn) (p couplet.Protocol, ok bool) {
	l.begin(Operation, "Build", -1)
	defer l.caught(nil, "Build")
	p = c.origin.factory.Build(c.RemoteAddr())
	l.done()
	return p, p != nil
}

// Release gives up a reference to b, if that is not nil: whoever made b hears of the
// last one.
func (l *Loop) Release(b *couplet.Buffer) {
	if b == nil {
		return
	}
	l.calling = true
	defer l.caught(nil, "onRelease")
	b.Release()
	l.done()
}

// run calls a function that belongs to the loop and not to a connection.
func (l *Loop) run(where string, f func()) {
	l.begin(Operation, where, -1)
	defer l.caught(nil, where)
	f()
	l.done()
}
