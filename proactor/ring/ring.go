//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// Config says how to open a ring.
type Config struct {
	// SQEntries and CQEntries are the sizes of the two queues. The kernel rounds them up to powers
	// of two and clamps them to 32768 and 65536. CQEntries must not be less than SQEntries; four
	// times the largest expected burst is a good size, because a full queue ends multishot
	// operations.
	SQEntries, CQEntries uint32
	// Flags are the exact setup flags; SetupCQSize and SetupClamp are added.
	Flags uint32
}

// Ring is one io_uring instance. It belongs to the thread that opened it: the goroutine must be
// locked to its thread before Open, and all methods are to be called from there, up to and
// including Close.
type Ring struct {
	b      binding
	wait   *waitArgs
	short  bool // the last call found no memory
	closed bool
}

// A binding is what differs between ring_native.go and ring_giouring.go. It supplies, as methods:
//
//	open(*setupParams, sqEntries)  sets up and maps the ring; fills the params; leaves nothing behind on error
//	close()                        unmaps and closes; called once
//	fd()                           the ring's descriptor
//	next()                         the next submission entry, not zeroed, or nil
//	queued()                       entries not yet consumed by the kernel
//	submit(), poll()               publish the entries and enter, without and with GETEVENTS, never waiting
//	waitFor(min, *waitArgs)        publish, enter and wait
//	register(op, arg, n)           io_uring_register
//	registerFD()                   enter by a registered index from now on; close gives it back
//	ready(), cqe(i), advance(n)    the completion queue
//	overflowed(), overflowCount()  its flag and its counter
//
// and, as fields, features, sqEntries, cqEntries, and enters, the count of its calls of
// io_uring_enter.
//
// All errors are bare errnos, 0 for success.

// waitArgs is what the kernel reads during a wait, besides the ring. It lives on the heap: its
// address travels as a number, so it must not be on a stack, which may move.
type waitArgs struct {
	arg geteventsArg
	ts  timespec
}

// newWaitArgs is not inlined, so that its result is on the heap in every build.
//
//go:noinline
func newWaitArgs() *waitArgs { return new(waitArgs) }

// endless is a wait that nobody sees the end of. A longer one has no limit: the kernel adds
// its own time, since boot, and that might overflow.
const endless = 100 * 365 * 24 * time.Hour

// set prepares for a wait of at most d (without limit if negative, or endless).
func (w *waitArgs) set(d time.Duration) {
	w.arg.ts = 0
	if d >= 0 && d < endless {
		w.ts = timespec{int64(d / time.Second), int64(d % time.Second)}
		// A heap object does not move, and the Ring that is waiting keeps w reachable.
		w.arg.ts = uint64(uintptr(unsafe.Pointer(&w.ts)))
	}
}

// Open opens a ring, in one attempt, on the calling thread, which becomes its owner. An error is an
// *Error with the bare errno: EINVAL for a flag that the kernel does not know or a ring older than
// Linux 5.11, and the others of io_uring_setup(2). Most callers want [OpenForCaps].
func Open(cfg Config) (*Ring, error) {
	if cfg.Flags&^setupSupported != 0 {
		return nil, &Error{"io_uring_setup", syscall.EINVAL}
	}
	r := &Ring{wait: newWaitArgs()}
	p := &setupParams{flags: cfg.Flags | SetupCQSize | SetupClamp, cqEntries: cfg.CQEntries}
	if errno := r.b.open(p, cfg.SQEntries); errno != 0 {
		return nil, &Error{"io_uring_setup", errno}
	}
	if p.features&featNeeded != featNeeded {
		r.b.close()
		return nil, &Error{"io_uring_setup", syscall.EINVAL}
	}
	return r, nil
}

// FD is the ring's descriptor. It is close-on-exec.
func (r *Ring) FD() int { return r.b.fd() }

// Features is the kernel's feature word, see the Feat constants.
func (r *Ring) Features() uint32 { return r.b.features }

// SQEntries is the number of submission entries, as the kernel granted it.
func (r *Ring) SQEntries() uint32 { return r.b.sqEntries }

// CQEntries is the number of completion entries, as the kernel granted it.
func (r *Ring) CQEntries() uint32 { return r.b.cqEntries }

// Enters counts the calls that entered the kernel to submit or to wait.
func (r *Ring) Enters() uint64 { return r.b.enters }

// SQE takes the next submission entry, zeroed, or nil if the queue is full: then Submit and ask
// again. An entry taken is submitted by the next Submit, Poll or Wait, so fill it before.
func (r *Ring) SQE() *SQE {
	s := r.b.next()
	if s != nil {
		*s = SQE{}
	}
	return s
}

// Queued is the number of entries that the kernel has not consumed yet. What they point at is still
// needed.
func (r *Ring) Queued() uint32 { return r.b.queued() }

// Submit hands the queued entries to the kernel. It never waits, holds the P while it runs, and
// does not enter the kernel when nothing is queued. A nil error does not promise that everything
// was taken: short of memory, or with too many completions unreaped, the kernel takes fewer;
// [Ring.Queued] tells.
func (r *Ring) Submit() error {
	if r.b.queued() == 0 {
		return nil
	}
	return r.entered(r.b.submit())
}

// Poll submits, runs the completion work that the kernel deferred to this thread, and flushes
// overflowed completions into the queue. It always enters the kernel once, never waits, and holds
// the P while it runs. Nil as for Submit.
func (r *Ring) Poll() error {
	return r.entered(r.b.poll())
}

// Wait submits and waits until min completions (0 counts as 1) are unreaped or d has passed; a
// negative d is no limit. It lets go of the P.
//
// Nil means nothing more than: look at the clock and at Ready. Besides completions and the timeout,
// a signal or a shortage of memory ends a wait, early and without an error. What is reported is
// real: the ring is used off its thread, closed, or lost a completion.
func (r *Ring) Wait(d time.Duration, min uint32) error {
	if min == 0 {
		min = 1
	}
	r.wait.set(d)
	errno := r.b.waitFor(min, r.wait)
	runtime.KeepAlive(r) // and with it r.wait, which the kernel knows by number
	return r.entered(errno)
}

// Short reports whether the kernel had no memory for what the last Submit, Poll or Wait was to
// do: to call again at once would find none again.
func (r *Ring) Short() bool { return r.short }

// Ready is the number of completions to reap.
func (r *Ring) Ready() uint32 { return r.b.ready() }

// CQE is the i-th unreaped completion, 0 <= i < Ready(). The pointer is valid until Advance passes
// it.
func (r *Ring) CQE(i uint32) *CQE { return r.b.cqe(i) }

// Advance gives the first n unreaped completions back to the kernel, n <= Ready().
func (r *Ring) Advance(n uint32) { r.b.advance(n) }

// Overflowed reports whether the kernel holds completions that did not fit the queue: reap, then
// Poll. None is lost, but every multishot operation that met the full queue has ended.
func (r *Ring) Overflowed() bool { return r.b.overflowed() }

// OverflowCount is the number of completions that the kernel had to drop for want of memory. It
// stays 0 on a sane machine.
func (r *Ring) OverflowCount() uint32 { return r.b.overflowCount() }

// Register is io_uring_register(2) on this ring with op, arg and n as they are. An error is an
// *Error. What arg points at must not be on a stack if it holds addresses of its own.
func (r *Ring) Register(op uint32, arg unsafe.Pointer, n uint32) error {
	if r.closed {
		return &Error{"io_uring_register", syscall.EBADF}
	}
	if errno := r.b.register(op, arg, n); errno != 0 {
		return &Error{"io_uring_register", errno}
	}
	return nil
}

// RegisterFD registers the ring with its thread, so that the kernel need not look its descriptor up
// each time it is entered (Linux 5.18; with giouring 6.3). At most one ring of a thread may be
// registered. Close takes it back.
func (r *Ring) RegisterFD() error {
	if r.closed {
		return &Error{"io_uring_register", syscall.EBADF}
	}
	if errno := r.b.registerFD(); errno != 0 {
		return &Error{"io_uring_register", errno}
	}
	return nil
}

// Close unmaps and closes the ring, on its thread and after the loop ended. A second call does
// nothing. No other method may follow, except BufRing.Close. The kernel cancels what is in flight
// and frees the ring's memory some milliseconds later, so cancel an accept before closing its
// listener if the port is to be free at once.
func (r *Ring) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if errno := r.b.close(); errno != 0 {
		return &Error{"close", errno}
	}
	return nil
}

// entered drops the errnos after which the caller simply looks at the clock and at the queue.
func (r *Ring) entered(errno syscall.Errno) error {
	r.short = errno == syscall.EAGAIN
	switch errno {
	case 0, syscall.ETIME, syscall.EINTR, syscall.EAGAIN, syscall.EBUSY:
		return nil
	}
	return &Error{"io_uring_enter", errno}
}
