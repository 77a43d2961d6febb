package couplet

import (
	"net"
	"syscall"
	"time"
)

// A Transport is the engine's end of one connection. There is one object per
// connection and it is never reused.
//
// Its methods may be called only on the connection's loop: in the protocol's
// callbacks, in timers of the loop and in posted functions. [Transport.Handle]
// gives what other goroutines need. No method blocks and none calls the
// protocol back before it returns. After ConnectionLost every method is inert:
// those with an error return [net.ErrClosed].
//
// It is an interface without unexported methods so that wrappers (TLS, limits,
// recording) can be written outside this module.
type Transport interface {
	// Write queues a copy of p and returns len(p): the caller may reuse p at
	// once. What is queued in one turn of the loop leaves together at its end;
	// from 16 KiB on it may leave before. It returns (0, net.ErrClosed) after
	// Close, CloseWrite, Abort or ConnectionLost and once sending has failed, which
	// ConnectionLost is about to tell, and (0, ErrOutboundFull) where p would exceed
	// [Options.MaxOutbound]; nothing is queued then, and the connection lives. Who
	// writes much writes it in pieces, as [WriteFlow] says.
	Write(p []byte) (int, error)

	// Writev is Write of the concatenation of bufs: all of it or nothing.
	Writev(bufs [][]byte) (int, error)

	// WriteBuffer queues b without a copy and takes a reference of its own,
	// released when the kernel is done with the bytes: never, if the engine
	// fails while it sends them. The caller keeps its reference. It returns
	// net.ErrClosed as Write does, and never ErrOutboundFull: lent bytes do not
	// count against MaxOutbound. They do in Buffered and against the watermark, so
	// who lends fresh memory stops at WritePaused to bound it (see [WriteFlow]). Who
	// stops at some Buffered looks again in a later turn: WriteResumed need not come.
	WriteBuffer(b *Buffer) error

	// Buffered is the number of bytes queued and not yet taken by the kernel, as far
	// as the engine has been told: a peer may have the last of them before.
	Buffered() int

	// CloseWrite closes our half: what is queued is flushed, then a FIN is
	// sent, then WriteClosed comes. Reading goes on. Once both halves are
	// closed the connection closes by itself, with io.EOF. After Close or Abort it
	// returns net.ErrClosed.
	CloseWrite() error

	// Close ends the connection: flush, FIN, then receive and discard until
	// the peer has closed or has acknowledged everything, or LingerTimeout
	// ran out; then close. No more data is delivered. ConnectionLost follows
	// with net.ErrClosed, or with io.EOF if the peer had closed first, or with a
	// *TimeoutError where LingerTimeout ran out. A flush that makes no progress for
	// FlushTimeout ends in a reset, and a *TimeoutError too.
	Close() error

	// Abort resets the connection now. What is queued is dropped, pending
	// callbacks are not made, and ConnectionLost follows with ErrAborted.
	Abort()

	// PauseReading stops delivery from now on: DataReceived, ReadClosed and
	// ConnectionLost for the peer's FIN or error wait for ResumeReading. The
	// peer is held back by TCP's flow control; what the kernel had handed over
	// already is kept, with io_uring at most one buffer ring for each connection
	// ([Config.RingBuffers]: 16 MiB unless set; as a rule no more than the peer had in the
	// socket), with the others at most one read. [Options.IdleTimeout] goes on.
	PauseReading()

	// ResumeReading takes PauseReading back. Data comes in later callbacks,
	// never inside this call.
	ResumeReading()

	// SetWatermarks sets the bytes queued above which WritePaused comes (64 KiB
	// at first) and down to which WriteResumed comes (0 at first), if WritePaused
	// came before. Values out of order or negative are brought into order: low is
	// at most high.
	SetWatermarks(low, high int)

	// AfterFunc calls f on the loop after d, unless the connection is lost or
	// closing by then. A panic in f loses this connection.
	AfterFunc(d time.Duration, f func()) Timer

	// LocalAddr and RemoteAddr are numeric addresses; they stay valid after
	// ConnectionLost.
	LocalAddr() net.Addr
	// RemoteAddr is the peer's address, as Factory.Build got it. It may be made anew
	// for each call.
	RemoteAddr() net.Addr

	// SyscallConn gives access to the descriptor for socket options. Only
	// Control works; reading and writing belong to the engine, and Read and
	// Write answer ErrNotSupported. The descriptor must not be kept.
	SyscallConn() (syscall.RawConn, error)

	// Loop is the loop that the connection lives on.
	Loop() Loop

	// Handle is a small comparable value that speaks to this connection from
	// any goroutine. It speaks to the engine's Transport: a wrapper whose writes are not
	// the inner ones (TLS, say) makes one of its own by [NewHandle], or what is written
	// by the Handle goes past it.
	Handle() Handle

	// Context is the value that SetContext stored, for the protocol's use.
	Context() any
	// SetContext stores v for the life of the Transport.
	SetContext(v any)
}

// A Handle names one connection for use from any goroutine. It is comparable,
// holds no connection alive, and never reaches a later connection that got the
// same slot. Its zero value answers net.ErrClosed.
type Handle struct {
	owner HandleOwner
	id    uint64
}

// HandleOwner is what an engine's loop implements behind a Handle, and a wrapper of
// Transports behind its own, by Loop.Post, and with nil once it was told ConnectionLost.
// Others have no need of it.
type HandleOwner interface {
	// PostConn queues f to run on the loop with the connection id, or with nil
	// if that connection is gone by then. n bytes count as queued on the
	// connection until f ran. It returns net.ErrClosed if the connection is
	// gone already, ErrOutboundFull if n would exceed MaxOutbound; f is then
	// not called.
	PostConn(id uint64, n int, f func(t Transport)) error
}

// NewHandle is for engines, and for wrappers of Transports.
func NewHandle(owner HandleOwner, id uint64) Handle { return Handle{owner, id} }

// Write queues a copy of p to be written on the loop. Writes of one goroutine
// keep their order. A nil error says that the bytes were handed to the loop:
// the connection may still be lost before they are sent, as with any write. It
// returns ErrOutboundFull where they, what is on its way from Handles and all that
// is queued would exceed [Options.MaxOutbound].
//
// Nothing tells the goroutine of room after that. It Posts a function, which comes
// behind what it wrote: if WritePaused came, WriteResumed is to tell the goroutine, else the
// function tells it to try again. Then MaxOutbound must be more than the high
// watermark and a piece. The example shows it.
func (h Handle) Write(p []byte) (int, error) {
	if h.owner == nil {
		return 0, net.ErrClosed
	}
	b := NewBuffer(append([]byte(nil), p...), nil)
	defer b.Release()
	if err := h.WriteBuffer(b); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteBuffer is Transport.WriteBuffer on the loop; it takes a reference of
// its own before it returns. Unlike that it is bounded, as [Handle.Write] is:
// where b, what is on its way from Handles and all that is queued would exceed
// [Options.MaxOutbound] it returns ErrOutboundFull and takes none.
func (h Handle) WriteBuffer(b *Buffer) error {
	if h.owner == nil {
		return net.ErrClosed
	}
	b.Retain()
	err := h.owner.PostConn(h.id, b.Len(), func(t Transport) {
		if t != nil {
			t.WriteBuffer(b)
		}
		b.Release()
	})
	if err != nil {
		b.Release()
	}
	return err
}

// Close is Transport.Close on the loop.
func (h Handle) Close() error { return h.Post(func(t Transport) { t.Close() }) }

// Abort is Transport.Abort on the loop.
func (h Handle) Abort() error { return h.Post(func(t Transport) { t.Abort() }) }

// Post runs f on the connection's loop with its Transport. It returns
// net.ErrClosed if the connection is gone; f is not called if the connection
// goes before its turn comes. A panic in f loses the connection, as one in a
// callback does.
func (h Handle) Post(f func(t Transport)) error {
	if h.owner == nil {
		return net.ErrClosed
	}
	return h.owner.PostConn(h.id, 0, func(t Transport) {
		if t != nil {
			f(t)
		}
	})
}
