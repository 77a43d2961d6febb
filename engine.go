package couplet

import (
	"context"
	"net"
	"os"
)

// An Engine runs connections on one or more loops. It runs from the moment it
// was made until Shutdown. Its methods are safe from any goroutine, callbacks
// included.
type Engine interface {
	// Name is the engine's name as in engines.Open: "uring", "epoll", ...
	Name() string

	// Describe says in one line how the engine runs: its tier or mechanism,
	// its loops, and why it was chosen where it was chosen.
	Describe() string

	// Loops are the engine's loops. The slice must not be changed.
	Loops() []Loop

	// Listen accepts connections on address: network is "tcp", "tcp4", "tcp6"
	// or "unix". bind and listen happen in the caller, so a conflict is the
	// error returned (a *net.OpError); accepting starts on the loops. Port 0
	// takes a free port, which Listener.Addr tells. Without a host "tcp" listens on
	// every address of both families. A host name listens on one of its addresses,
	// IPv4 if it has one; to look it up may block.
	Listen(network, address string, f Factory, opts ...Option) (Listener, error)

	// Dial connects to address and never blocks; the networks are those of Listen,
	// and the addresses of a name are tried in turn. It returns an error only for
	// arguments that cannot be right and for an engine that was stopped
	// (ErrEngineClosed). Otherwise the outcome is told on a loop: Build and
	// ConnectionMade, or the Factory's ConnectFailed. Cancelling ctx gives
	// ConnectFailed with context.Cause(ctx); once ConnectionMade was called ctx
	// has no effect. (A connect that had succeeded when ctx was cancelled may be built
	// still: a Factory that minds looks at ctx.Err.)
	Dial(ctx context.Context, network, address string, f Factory, opts ...Option) error

	// ListenPacket receives datagrams. No engine supports it yet: its error is
	// ErrNotSupported, as errors.Is tells.
	ListenPacket(network, address string, p PacketProtocol, opts ...Option) (PacketListener, error)

	// Stats adds up the loops' counters as of the end of their last turn. It
	// never waits for a loop.
	Stats() Stats

	// Stop begins to end the engine, and returns at once. Listeners close,
	// dials fail with ErrShutdown, every protocol gets Draining. One without it is
	// closed at once: what its peer has sent and it was not given is dropped, and the
	// peer sees a clean end. Implement [DrainHandler] to finish what is under way.
	// When the last connection is gone, Done is closed.
	Stop()

	// Done is closed when the engine has ended and holds nothing any more, or
	// when it failed; Err then tells.
	Done() <-chan struct{}

	// Err is nil while the engine runs and after it was stopped, and an
	// *EngineError after it failed.
	Err() error

	// Shutdown is Stop, then a wait for the end. When ctx is done first, what
	// is still open is aborted (a reset, never a FIN) with reason ErrShutdown. Only
	// a protocol with Draining has that time: others are closed when it begins, as
	// Stop says.
	// The report tells how many connections drained and how many were cut; the
	// error is nil if none was cut, context.Cause(ctx) if some were, or the
	// engine's failure. A callback that has not returned 5 s after ctx was done is
	// not waited for any longer: the error says so, and the engine ends when it has.
	// On a loop it cannot wait: it calls Stop and answers ErrOnLoop. It may be
	// called more than once.
	Shutdown(ctx context.Context) (Drained, error)
}

// Drained tells how the connections ended that were open when the engine was
// stopped. Those who end with an engine that failed are not counted.
type Drained struct {
	// Clean ended before the deadline: everything sent, or for a reason of their
	// own, which ConnectionLost told (a peer's reset, say). Those without Draining
	// are among them, whatever they were not given.
	Clean int
	// Cut were aborted at the deadline.
	Cut int
}

// A Listener is one listening address. Its methods are safe from any
// goroutine.
type Listener interface {
	// Addr is the bound address, with the real port.
	Addr() net.Addr

	// Close stops accepting; it never blocks and may be called again.
	// Connections that were accepted live on.
	Close() error

	// Closed is closed once the address can be bound again.
	Closed() <-chan struct{}

	// File is a duplicate of the listening descriptor, to hand to a successor
	// process (see FromFile). The caller closes it. The path of a unix listener stays
	// from then on: neither Close nor the successor's removes it, and a Listen that finds
	// nobody there replaces it. Of a listener that is closed the error is net.ErrClosed.
	// A TCP listener that has a socket for each loop (see ReusePort) hands over one
	// of them, and connections that wait in the backlogs of the others are reset when
	// it closes: to lose none, spread by RoundRobin or LeastConnections. And Close the
	// listener and wait for Closed before Shutdown, which resets who is accepted meanwhile.
	// Shutdown lets those who were accepted finish only where their protocol has
	// Draining (see [DrainHandler]).
	File() (*os.File, error)
}

// PacketProtocol handles the datagrams of one socket.
type PacketProtocol interface {
	// PacketReceived delivers one datagram; data is valid during the call.
	PacketReceived(t PacketTransport, data []byte, from net.Addr)
}

// PacketTransport sends datagrams.
type PacketTransport interface {
	// WriteTo queues a copy of one datagram.
	WriteTo(p []byte, to net.Addr) (int, error)
}

// A PacketListener is one bound datagram socket.
type PacketListener interface {
	// Addr is the bound address.
	Addr() net.Addr
	// Close ends it; it never blocks.
	Close() error
}
