package couplet

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// The reasons of ConnectionLost, by class:
//
//	the peer's FIN, all flushed; both halves closed      io.EOF
//	our Close, flushed                                   net.ErrClosed
//	Abort                                                ErrAborted (Is net.ErrClosed)
//	flush, idle, connect or linger timeout               wraps os.ErrDeadlineExceeded
//	closed or cut by Shutdown                            ErrShutdown (Is net.ErrClosed)
//	a panic in a callback (wins over Abort)              *PanicError
//	reset, unreachable, ...                              *net.OpError with the errno
//	the engine itself failed                             *EngineError
var (
	// ErrAborted is the reason after Abort. It is net.ErrClosed to errors.Is.
	ErrAborted error = &closedError{"connection aborted"}

	// ErrShutdown is the reason of a connection that the engine's end closed or
	// cut, and of a dial it cancelled. It is net.ErrClosed to errors.Is.
	ErrShutdown error = &closedError{"engine shut down"}
)

// Errors of calls.
var (
	// ErrOutboundFull is returned by a write that would exceed
	// Options.MaxOutbound. Nothing was queued; the connection lives. [WriteFlow] says
	// how a protocol goes on, [Handle.Write] how another goroutine does.
	ErrOutboundFull = errors.New("couplet: outbound queue is full; obey WritePaused (see WriteFlow and Handle.Write), or raise MaxOutbound")

	// ErrEngineClosed is returned by Listen and Dial once the engine was
	// stopped.
	ErrEngineClosed = errors.New("couplet: engine is stopped")

	// ErrOnLoop is returned by Shutdown where it cannot wait because it was
	// called on one of the engine's loops. Stop has been called.
	ErrOnLoop = errors.New("couplet: Shutdown called on a loop; the engine is stopping, wait for Done elsewhere")

	// ErrNotSupported is returned for what an engine does not do.
	ErrNotSupported = errors.New("couplet: not supported by this engine")
)

// TimeoutError is the reason of a connection, or the error of a dial, that a
// limit of time ended. It is os.ErrDeadlineExceeded to errors.Is, and a
// net.Error with Timeout true.
type TimeoutError struct {
	// Op is what took too long: "flush", "idle", "connect" or "linger".
	Op string
}

// Error says which limit it was.
func (e *TimeoutError) Error() string { return e.Op + " timeout" }

// Timeout is true.
func (e *TimeoutError) Timeout() bool { return true }

// Temporary is false: the connection is gone.
func (e *TimeoutError) Temporary() bool { return false }

// Is reports whether target is os.ErrDeadlineExceeded.
func (e *TimeoutError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// PanicError is the reason of a connection whose callback panicked, and the error
// where work for [Loop.Go] or [Options.Control] did.
type PanicError struct {
	// Value is what was passed to panic.
	Value any
	// Stack is the goroutine's stack at that point.
	Stack []byte
}

// Error gives the value, not the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic in callback: %v", e.Value) }

// Unwrap gives the value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// EngineError says that an engine or one of its loops failed: every connection
// is lost with it, and Done is closed. The memory that the kernel may still use, some
// MiB with io_uring, stays with the process.
type EngineError struct {
	// Engine is the engine's name.
	Engine string
	// Err is the cause.
	Err error
}

// Error names the engine and the cause.
func (e *EngineError) Error() string {
	return "couplet: engine " + e.Engine + " failed: " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *EngineError) Unwrap() error { return e.Err }

// closedError is a way to be closed: net.ErrClosed to errors.Is.
type closedError struct{ s string }

func (e *closedError) Error() string        { return e.s }
func (e *closedError) Is(target error) bool { return target == net.ErrClosed }
