//go:build linux

package loop

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
)

// Layer says who did, or saw, what a trace tells of.
type Layer string

// The layers of a trace, from the kernel up. In the comments n is the number
// that comes with it; it is negative where there is none.
const (
	// Entry is a submission entry that was queued for the kernel; n bytes.
	Entry Layer = "entry"
	// Enter is a call that may wait and is about to be made; n entries go with it.
	Enter Layer = "enter"
	// Call is a system call that has returned; n is its result, for a wait the
	// completions or events that are there.
	Call Layer = "call"
	// Told is a completion or a readiness event that is about to be acted on; n
	// is a completion's result.
	Told Layer = "told"
	// Held is the memory that a driver holds ready to receive into; n bytes.
	Held Layer = "held"
	// Operation is what the loop asks of its driver, or the driver reports; n bytes.
	Operation Layer = "operation"
	// Callback is a callback that is about to be made; n bytes received.
	Callback Layer = "callback"
	// Asked is what a protocol asks of its transport; n bytes written.
	Asked Layer = "asked"
)

// TraceTo has hook see all that happens on l, in order and on l's thread, from
// soon on until another TraceTo; nil ends it. Any goroutine may call it. It
// reports false where l has ended.
//
// The hook gets the time, a Layer, what it was, a number (see the layers), and
// the name of an error, such as EAGAIN, or ""; with ConnectionLost it is that of
// the reason, such as EOF. It must not call l. Its type is
// spelt out so that a program can ask a couplet.Loop for this method by an
// interface of its own.
func (l *Loop) TraceTo(hook func(at time.Time, layer, what string, n int, failed string)) bool {
	return l.Post(func() {
		l.hook = hook
		if n := l.count.Held; n > 0 {
			l.Tell(Held, "receive memory", int(n), 0)
		}
	})
}

// Tell tells the hook, if there is one. It is for the loop and its driver; a
// driver that must do something first to know what to tell asks Traced before.
func (l *Loop) Tell(layer Layer, what string, n int, errno syscall.Errno) {
	if l.hook != nil {
		l.tell(layer, what, n, errno)
	}
}

// Returned tells of a system call without a result, or of its error.
func (l *Loop) Returned(call string, err error) {
	if l.hook != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		l.tell(Call, call, 0, errno)
	}
}

// SocketError takes the error that waits on c's socket, by a system call of which it
// tells; 0 if none does.
func (l *Loop) SocketError(c *Conn) syscall.Errno {
	l.count.Crossings++
	errno := l.sockets.SocketError(c.FD())
	l.Tell(Call, "getsockopt", 0, errno)
	return errno
}

// Traced reports whether there is a hook.
func (l *Loop) Traced() bool { return l.hook != nil }

//go:noinline
func (l *Loop) tell(layer Layer, what string, n int, errno syscall.Errno) {
	failed := ""
	if errno != 0 {
		failed = unix.ErrnoName(errno)
	}
	l.hook(time.Now(), string(layer), what, n, failed)
}

// nameOf is the name of a reason of ConnectionLost, or what it says.
func nameOf(reason error) string {
	var errno syscall.Errno
	switch {
	case errors.As(reason, &errno):
		return unix.ErrnoName(errno)
	case errors.Is(reason, io.EOF):
		return "EOF"
	case errors.Is(reason, couplet.ErrAborted):
		return "ErrAborted"
	case errors.Is(reason, couplet.ErrShutdown):
		return "ErrShutdown"
	case errors.Is(reason, net.ErrClosed):
		return "ErrClosed"
	}
	return reason.Error()
}

// Kind is an operation's kind.
type Kind uint8

// The kinds of operations and of their reports.
const (
	TraceReceive  Kind = iota // Receive was asked of the driver
	TraceReceived             // bytes were reported
	TraceEnded                // the peer's FIN or an error was reported
	TraceSend                 // Send was asked of the driver
	TraceSent                 // a send was reported
	TraceConnect              // Connect was asked of the driver
	TraceMade                 // ConnectionMade is about to be called
	TraceClose                // Close was asked of the driver
	TraceLost                 // ConnectionLost is about to be called
)

var kinds = [...]string{"Receive", "Received", "ReceiveEnded", "Send", "Sent", "Connect", "Made", "Close", "Closed"}

// Event is what Loop.Trace sees: the layer Operation, with its connection.
type Event struct {
	Kind  Kind
	Conn  *Conn
	Bytes int
	Errno syscall.Errno
}

func (c *Conn) trace(k Kind, n int, errno syscall.Errno) {
	if l := c.loop; l.Trace != nil || l.hook != nil {
		c.traced(k, n, errno)
	}
}

func (c *Conn) traced(k Kind, n int, errno syscall.Errno) {
	if f := c.loop.Trace; f != nil {
		f(Event{k, c, n, errno})
	}
	c.loop.Tell(Operation, kinds[k], n, errno)
}
