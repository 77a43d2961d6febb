//go:build linux

package loop

import (
	"context"
	"net"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/sock"
)

// A Driver is the half of a loop that talks to the kernel. Every method but
// Wake is called on the loop's thread, and none reports from inside the call:
// reports are made only within Wait, by the loop's methods Accepted,
// AcceptStopped, Connected, Received, ReceiveEnded, Sent and Closed.
//
// A driver that has something to report at once (an optimistic write, a refused
// connect) keeps it for the next Wait, which then does not sleep.
type Driver interface {
	// Listen arms accepting on l: Accepted for each connection, until
	// StopAccept or until an Accepted with an error, which disarms.
	Listen(l *Listener)
	// StopAccept disarms, and is answered by one AcceptStopped. Connections, and an
	// error that was on its way, may still be reported before it. It is called only
	// while armed.
	StopAccept(l *Listener)

	// Connect starts to connect c to c.Sockaddr: one Connected.
	Connect(c *Conn)

	// Receive starts delivery: Received for each chunk until StopReceive, or
	// until one ReceiveEnded for the peer's FIN or an error.
	Receive(c *Conn)
	// StopReceive stops it. What the kernel had handed over already may still
	// be reported; there is no answer, and Receive may follow at once.
	StopReceive(c *Conn)

	// Told reports whether the kernel may have told of what there is to receive from c,
	// and Wait has not reported it.
	Told(c *Conn) bool

	// Watch goes on, after the ReceiveEnded for the peer's FIN, to look out for an
	// error of the connection: one more ReceiveEnded, with it. It is called at most
	// once for a Conn.
	Watch(c *Conn)

	// Send sends the head of c's outbound queue, at most MaxSend bytes: one
	// Sent, with what the kernel took. There is at most one send in flight.
	Send(c *Conn)

	// Close cancels what c has in flight and closes its descriptor: one Closed
	// when the kernel holds nothing of c. Nothing else of c is reported after
	// Close was called.
	Close(c *Conn, how CloseMode)

	// Wait reports what was done at once, asks loop.Rest for how long it may
	// wait, submits what was asked for, waits until there is something to report,
	// that time has passed or Wake was called, calls loop.Awake, then reports. An
	// error is the end of the loop.
	Wait(limit time.Duration) error
	// Wake makes a Wait that sleeps, or the next one, return. It may be called
	// from any goroutine until Shutdown.
	Wake()

	// Shutdown gives everything back to the system. No Conn and no Listener is
	// left then, unless Wait had failed: then the descriptors of those for whom
	// Close was called are still the driver's to close, and no others.
	Shutdown() error
}

// CloseMode says how Close ends a connection.
type CloseMode uint8

const (
	// Graceful is a plain close: what the kernel took is still sent, and then a FIN
	// if there was none.
	Graceful CloseMode = iota
	// Reset drops everything and resets the connection.
	Reset
)

// MaxSend is the most bytes that one send carries, so that progress shows.
const MaxSend = 1 << 20

// MaxGather is the most segments that one send gathers.
const MaxGather = 64

// Lent is received memory that the driver lends for the length of a report.
type Lent interface {
	// Keep hands the reported bytes over as a Buffer with one reference, without
	// a copy. It is called at most once, inside the report.
	Keep() *couplet.Buffer
}

// Sockets is what the loop needs of sockets besides the Driver; the simulated
// network has its own.
type Sockets interface {
	// Listen makes n listening sockets on one address.
	Listen(network, address string, o *couplet.Options, n int) (fds []int, addr net.Addr, err error)
	// Parse reads a numeric address; ok is false for a name to be looked up.
	Parse(network, address string) (sa sock.Sockaddr, ok bool, err error)
	// Resolve looks a name up; it blocks, off the loop.
	Resolve(ctx context.Context, network, address string) ([]sock.Sockaddr, error)
	// Socket makes a socket to connect to sa.
	Socket(sa *sock.Sockaddr, o *couplet.Options) (fd int, err error)
	// Peer is the other end's address, an error if that is gone already.
	Peer(fd int) (net.Addr, error)
	// Local is our own address.
	Local(fd int) (net.Addr, error)
	// Acknowledged reports whether the peer's kernel has everything sent.
	Acknowledged(fd int, unix bool) bool
	// Torn reports whether a connection whose send is in flight is gone: an end
	// of stream that was read from it is then no FIN. The kernel tells a
	// socket's error once, and the send may have been the one to hear it.
	Torn(fd int, unix bool) bool
	// ShutdownWrite sends a FIN: a plain call for every engine, for through a ring it
	// would go by way of a kernel worker thread. No driver has a send in flight.
	ShutdownWrite(fd int) error
	// SocketError takes the error that waits on a socket; 0 if none does.
	SocketError(fd int) syscall.Errno
	// Pending reports whether there is something to be told of a socket, whatever was
	// reported so far: data, its end or an error, or of one that connects the outcome.
	Pending(fd int, connecting bool) bool
	// Progress is a number that changes while the peer takes data.
	Progress(fd int, unix bool) uint64
	// Release closes a socket that no driver holds.
	Release(fd int)
	// Reset is Release by a reset.
	Reset(fd int)
}
