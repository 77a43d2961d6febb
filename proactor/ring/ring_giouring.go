//go:build linux && giouring && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"errors"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/pawelgaczynski/giouring"
)

// Binding names the binding that was built in: "giouring", over github.com/pawelgaczynski/giouring.
const Binding = "giouring"

// binding stands on giouring's queue handling, its waits and its bare register call. Its
// preparations, its buffer ring, its setup beyond QueueInitParams and its typed register calls are
// not used: several of them hand the kernel wrong addresses or lose errors.
type binding struct {
	g                    *giouring.Ring
	features             uint32
	sqEntries, cqEntries uint32
	enters               uint64
	enterHow             uint32 // added to the flags of what does not go by giouring's own waits

	// giouring shows the completion at the head only. Its address, once seen, gives away where the
	// array begins, and from there the rest of the header; none of it moves during the ring's life.
	cqes     unsafe.Pointer // nil until the first completion
	cqNext   uint32         // our copy of the queue's head, which only we advance
	overflow uint32         // offsets into the header, as the kernel gave them
	first    uint32
}

// Our structures are passed off as giouring's, whose fields are not exported. Each line fails to
// compile if a size differs.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(giouring.Params{})-unsafe.Sizeof(setupParams{})]
	_ = [1]struct{}{}[unsafe.Sizeof(giouring.SubmissionQueueEntry{})-unsafe.Sizeof(SQE{})]
	_ = [1]struct{}{}[unsafe.Sizeof(giouring.CompletionQueueEvent{})-unsafe.Sizeof(CQE{})]
	_ = [1]struct{}{}[unsafe.Sizeof(syscall.Timespec{})-unsafe.Sizeof(timespec{})]
)

func (b *binding) open(p *setupParams, entries uint32) syscall.Errno {
	g := giouring.NewRing()
	// Both types are the kernel's struct io_uring_params.
	if err := g.QueueInitParams(entries, (*giouring.Params)(unsafe.Pointer(p))); err != nil {
		return errnoOf(err)
	}
	*b = binding{g: g, features: p.features, sqEntries: p.sqEntries, cqEntries: p.cqEntries,
		overflow: p.cqOff.overflow, first: p.cqOff.cqes}
	return 0
}

// ringSlots is IO_RINGFD_REG_MAX, the rings that a thread can register.
const ringSlots = 16

func (b *binding) close() syscall.Errno {
	if b.enterHow != 0 {
		// giouring does not take its registration back, which would keep the ring alive until the
		// thread ends, nor tell its slot: all of them are freed.
		for i := range uint32(ringSlots) {
			_ = b.register(UnregisterRingFDs, unsafe.Pointer(&ringUpdate{offset: i}), 1)
		}
	}
	b.g.QueueExit() // drops its errors
	*b = binding{enters: b.enters}
	return 0
}

func (b *binding) fd() int { return b.g.RingFd() }

func (b *binding) next() *SQE {
	// Both types are the kernel's struct io_uring_sqe.
	return (*SQE)(unsafe.Pointer(b.g.GetSQE()))
}

func (b *binding) queued() uint32 { return b.g.SQReady() }

func (b *binding) submit() syscall.Errno {
	b.enters++
	_, err := b.g.Submit()
	return errnoOf(err)
}

func (b *binding) poll() syscall.Errno {
	b.enters++
	_, err := b.g.SubmitAndGetEvents()
	return errnoOf(err)
}

func (b *binding) waitFor(min uint32, w *waitArgs) syscall.Errno {
	// Given enough completions, giouring's waits would submit without running deferred work.
	if b.g.CQReady() >= min {
		return b.poll()
	}
	if b.g.SQReady() > 0 {
		// Submits and waits in one call. The timespec is on the heap, because giouring keeps its
		// address as a number.
		var ts *syscall.Timespec
		if w.arg.ts != 0 {
			ts = (*syscall.Timespec)(unsafe.Pointer(&w.ts)) // both are struct __kernel_timespec on 64 bits
		}
		b.enters++
		_, err := b.g.SubmitAndWaitTimeout(min, ts, nil)
		return errnoOf(err)
	}
	b.enters++
	_, err := b.g.Enter2(0, min, b.enterHow|giouring.EnterGetEvents|giouring.EnterExtArg,
		unsafe.Pointer(&w.arg), int(unsafe.Sizeof(w.arg)))
	return errnoOf(err)
}

func (b *binding) register(op uint32, arg unsafe.Pointer, n uint32) syscall.Errno {
	_, errno := b.g.Register(b.g.RingFd(), op, arg, n)
	return errno
}

// registerFD is refused before Linux 6.3, where giouring would register the ring and then pass its
// index for a descriptor.
func (b *binding) registerFD() syscall.Errno {
	if b.features&giouring.FeatRegRegRing == 0 {
		return syscall.EINVAL
	}
	if _, err := b.g.RegisterRingFd(); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno) // it is wrapped
		return errno
	}
	b.enterHow = giouring.EnterRegisteredRing
	return 0
}

func (b *binding) ready() uint32 { return b.g.CQReady() }

func (b *binding) cqe(i uint32) *CQE {
	if b.cqes == nil {
		b.locate()
	}
	// The mask keeps the index inside the mapping.
	return (*CQE)(unsafe.Add(b.cqes, uintptr((b.cqNext+i)&(b.cqEntries-1))*unsafe.Sizeof(CQE{})))
}

// locate finds the array of completions. There must be one to reap.
func (b *binding) locate() {
	head, err := b.g.PeekCQE()
	if err != nil || head == nil {
		panic("ring: CQE called with no completion ready")
	}
	// head is element cqNext&mask of an array inside giouring's mapping, so this leads to element 0.
	b.cqes = unsafe.Add(unsafe.Pointer(head), -int(b.cqNext&(b.cqEntries-1))*int(unsafe.Sizeof(CQE{})))
}

func (b *binding) advance(n uint32) {
	b.cqNext += n
	b.g.CQAdvance(n)
}

func (b *binding) overflowed() bool { return b.g.CQHasOverflow() }

func (b *binding) overflowCount() uint32 {
	if b.cqes == nil {
		if b.g.CQReady() == 0 {
			return 0 // the queue was never full
		}
		b.locate()
	}
	// The counter is in the same mapping, at the kernel's own offset from the array.
	return atomic.LoadUint32((*uint32)(unsafe.Add(b.cqes, int(b.overflow)-int(b.first))))
}

// errnoOf unwraps the errors of the calls above, all of which are nil or a bare errno.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return err.(syscall.Errno)
}
