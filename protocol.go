package couplet

import "net"

// A Protocol is one connection's handler. The engine calls it on the
// connection's loop, one callback at a time, never from inside a call that the
// protocol itself makes. A panic in a callback loses that connection with a
// [*PanicError] and nothing else (see [Config.OnPanic]).
type Protocol interface {
	// ConnectionMade is the first callback, and comes once.
	ConnectionMade(t Transport)

	// DataReceived delivers bytes in the order they were sent, TCP's urgent ones
	// in their place. data is never empty and is valid only during the call.
	DataReceived(t Transport, data []byte)

	// ConnectionLost is the last callback, and comes once for every
	// ConnectionMade. The descriptor is closed by then, and every method of t
	// is inert. reason is never nil: see the package's errors for its classes.
	ConnectionLost(t Transport, reason error)
}

// ReadClosedHandler is implemented by a Protocol that goes on after its peer
// has closed its half. A protocol without it is closed (flush, then close).
type ReadClosedHandler interface {
	// ReadClosed says that no more data will come, once. The connection can
	// still be written to. It ends with Close, with Abort, with an error, or by
	// itself when CloseWrite has taken effect.
	ReadClosed(t Transport)
}

// WriteClosedHandler is implemented by a Protocol that wants to know when its
// [Transport.CloseWrite] took effect.
type WriteClosedHandler interface {
	// WriteClosed says that everything written was taken by the kernel and the
	// FIN was sent, once. It does not follow Close, which ConnectionLost ends.
	WriteClosed(t Transport)
}

// WriteFlow is implemented by a Protocol that produces data faster than a peer
// may take it. Both calls come in strict turn, WritePaused first, and never
// from inside Write; after Close neither comes.
//
// Neither comes while the kernel takes what each turn has written, so a producer
// that stops of itself, at some Buffered, and waits for WriteResumed may wait for
// ever. It writes a piece and, unless WritePaused comes, goes on in the next turn: in
// a function that it gave to [Loop.Post], or in a Timer that it Resets to 0, of which
// no second one can be pending. After WritePaused it goes on in WriteResumed. So no
// more is queued than the high watermark and a piece; the example shows it.
type WriteFlow interface {
	// WritePaused comes after a turn's flush that left more than the high
	// watermark queued.
	WritePaused(t Transport)

	// WriteResumed comes after WritePaused, when the queue has drained to the low
	// watermark (empty, by default).
	WriteResumed(t Transport)
}

// BufferReceiver is implemented by a Protocol that takes received bytes as a
// counted Buffer. It then gets BufferReceived instead of DataReceived.
type BufferReceiver interface {
	// BufferReceived delivers b, which is valid during the call. To keep it,
	// call b.Retain, and b.Release when done, from any goroutine. b may be
	// handed to WriteBuffer. Its bytes must not be changed. b is part of a block
	// of up to 68 KiB (or Config.RingBufferSize), which stays in memory as long as
	// any part of it is kept: copy what is little and kept for long.
	BufferReceived(t Transport, b *Buffer)
}

// DrainHandler is implemented by a Protocol that ends its connection itself
// when the engine stops. A protocol without it is closed at once: what it wrote is
// flushed, but what its peer has sent and it was not given is dropped, and the peer
// sees a clean end. Who has a request under way, or answers to a stream, needs it.
type DrainHandler interface {
	// Draining says, once, that the engine is stopping. Everything goes on as
	// before. The protocol should finish what it owes its peer and close; to do
	// nothing is to go on until the peer closes. What is still open at the
	// deadline of Shutdown is aborted, so that it looks cut.
	Draining(t Transport)
}

// A Factory builds the Protocol of each connection of a listener or a dial.
type Factory interface {
	// Build is called on the connection's loop with the peer's address, before
	// ConnectionMade. To return nil is to refuse: the connection is closed
	// cleanly and no Protocol hears of it. A panic is logged and refuses too.
	Build(remote net.Addr) Protocol
}

// FactoryFunc makes a Factory of a function.
type FactoryFunc func(remote net.Addr) Protocol

// Build calls f.
func (f FactoryFunc) Build(remote net.Addr) Protocol { return f(remote) }

// ConnectFailedHandler is implemented by a Factory that wants to know of a
// failed [Engine.Dial].
type ConnectFailedHandler interface {
	// ConnectFailed is called on a loop, exactly once for each Dial that did
	// not lead to Build, and never inside Dial. address is what Dial was given, err
	// a *net.OpError (around a *net.DNSError where a name was not found), a
	// *TimeoutError, the cause of ctx, ErrShutdown or an *EngineError.
	ConnectFailed(address string, err error)
}

// DeliverConnectFailed forwards ConnectFailed to f if f has it. It is for a Factory that
// wraps another: without ConnectFailed the inner one never hears of a failed dial.
func DeliverConnectFailed(f Factory, address string, err error) {
	if h, ok := f.(ConnectFailedHandler); ok {
		h.ConnectFailed(address, err)
	}
}

// DeliverData hands b to p as p takes it: BufferReceived if p has it, else
// DataReceived. This function and its sisters are for wrappers (TLS, limits,
// logging), which implement every optional interface and forward each call to
// the protocol they wrap.
func DeliverData(p Protocol, t Transport, b *Buffer) {
	if r, ok := p.(BufferReceiver); ok {
		r.BufferReceived(t, b)
		return
	}
	p.DataReceived(t, b.Bytes())
}

// DeliverReadClosed forwards ReadClosed to p, or applies the default, Close.
func DeliverReadClosed(p Protocol, t Transport) {
	if h, ok := p.(ReadClosedHandler); ok {
		h.ReadClosed(t)
		return
	}
	t.Close()
}

// DeliverWriteClosed forwards WriteClosed to p if p has it.
func DeliverWriteClosed(p Protocol, t Transport) {
	if h, ok := p.(WriteClosedHandler); ok {
		h.WriteClosed(t)
	}
}

// DeliverWritePaused forwards WritePaused to p if p has it.
func DeliverWritePaused(p Protocol, t Transport) {
	if h, ok := p.(WriteFlow); ok {
		h.WritePaused(t)
	}
}

// DeliverWriteResumed forwards WriteResumed to p if p has it.
func DeliverWriteResumed(p Protocol, t Transport) {
	if h, ok := p.(WriteFlow); ok {
		h.WriteResumed(t)
	}
}

// DeliverDraining forwards Draining to p, or applies the default, Close: its reason
// is then net.ErrClosed, where the engine's would be ErrShutdown.
func DeliverDraining(p Protocol, t Transport) {
	if h, ok := p.(DrainHandler); ok {
		h.Draining(t)
		return
	}
	t.Close()
}
