//go:build linux && !giouring && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Binding names the binding that was built in: "native", over golang.org/x/sys/unix.
const Binding = "native"

const (
	offSQRing = 0
	offSQEs   = 0x10000000

	enterGetEvents      = 1 << 0
	enterExtArg         = 1 << 3
	enterRegisteredRing = 1 << 4
)

// binding is the ring as the kernel shares it. The pointers lead into the two mappings, which the
// garbage collector neither scans nor moves. The kernel writes sqHead and cqTail while we write
// sqTail and cqHead: each side publishes with a release store and reads the other's with an acquire
// load, which sync/atomic's operations are (and stronger).
type binding struct {
	sqHead, sqTail, sqFlags *uint32
	sqes                    unsafe.Pointer // of sqEntries SQEs
	sqMask, sqEntries       uint32
	sqNext                  uint32 // our tail; *sqTail follows when we enter

	cqHead, cqTail, cqOverflow *uint32
	cqes                       unsafe.Pointer // of cqEntries CQEs
	cqMask, cqEntries          uint32
	cqNext                     uint32 // our copy of *cqHead, which only we write

	ringFd           int
	enterFd          int     // what enters it: ringFd, or with enterRegisteredRing ...
	enterHow         uintptr // ... its index
	features         uint32
	enters           uint64
	ringMem, sqesMem []byte
}

func (b *binding) open(p *setupParams, entries uint32) syscall.Errno {
	fd, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return errno
	}
	b.ringFd, b.enterFd, b.features = int(fd), int(fd), p.features
	// One mapping holds both rings' headers, the index array and the completions
	// (FEAT_SINGLE_MMAP); without that feature Open refuses the ring, and the larger of the two
	// sizes is still a valid mapping.
	size := max(p.sqOff.array+p.sqEntries*4, p.cqOff.cqes+p.cqEntries*uint32(unsafe.Sizeof(CQE{})))
	const prot, how = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	var err error
	if b.ringMem, err = unix.Mmap(b.ringFd, offSQRing, int(size), prot, how); err == nil {
		b.sqesMem, err = unix.Mmap(b.ringFd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(SQE{})), prot, how)
	}
	if err != nil {
		b.close()
		return err.(syscall.Errno)
	}
	// The offsets are the kernel's, within the size computed from them, and aligned for their types.
	at := func(off uint32) unsafe.Pointer { return unsafe.Pointer(&b.ringMem[off]) }
	b.sqHead, b.sqTail, b.sqFlags = (*uint32)(at(p.sqOff.head)), (*uint32)(at(p.sqOff.tail)), (*uint32)(at(p.sqOff.flags))
	b.cqHead, b.cqTail, b.cqOverflow = (*uint32)(at(p.cqOff.head)), (*uint32)(at(p.cqOff.tail)), (*uint32)(at(p.cqOff.overflow))
	b.sqes, b.cqes = unsafe.Pointer(&b.sqesMem[0]), at(p.cqOff.cqes)
	b.sqEntries, b.sqMask = p.sqEntries, p.sqEntries-1
	b.cqEntries, b.cqMask = p.cqEntries, p.cqEntries-1
	// The index array maps every slot to itself, once and for all.
	for i, array := uint32(0), unsafe.Slice((*uint32)(at(p.sqOff.array)), p.sqEntries); i < p.sqEntries; i++ {
		array[i] = i
	}
	return 0
}

func (b *binding) close() syscall.Errno {
	if b.enterHow != 0 {
		// The registration would keep the ring alive, and all that is in flight, until the thread ends.
		_ = b.register(UnregisterRingFDs, unsafe.Pointer(&ringUpdate{offset: uint32(b.enterFd)}), 1)
	}
	if b.sqesMem != nil {
		_ = unix.Munmap(b.sqesMem)
	}
	if b.ringMem != nil {
		_ = unix.Munmap(b.ringMem)
	}
	fd := b.ringFd
	*b = binding{ringFd: -1, enterFd: -1, enters: b.enters} // a use after Close is a nil dereference and not a stray write
	if err := unix.Close(fd); err != nil {
		return err.(syscall.Errno)
	}
	return 0
}

func (b *binding) fd() int { return b.ringFd }

func (b *binding) next() *SQE {
	if b.sqNext-atomic.LoadUint32(b.sqHead) == b.sqEntries {
		return nil
	}
	// The mask keeps the index inside the mapping.
	s := (*SQE)(unsafe.Add(b.sqes, uintptr(b.sqNext&b.sqMask)*unsafe.Sizeof(SQE{})))
	b.sqNext++
	return s
}

func (b *binding) queued() uint32 { return b.sqNext - atomic.LoadUint32(b.sqHead) }

// publish makes the entries taken so far visible to the kernel and counts those it has not consumed.
func (b *binding) publish() uintptr {
	atomic.StoreUint32(b.sqTail, b.sqNext)
	return uintptr(b.queued())
}

// submit and poll make raw system calls: they never sleep, so there is no point in telling the
// scheduler. All are made by package syscall, where unix's go by way of two calls more.

func (b *binding) submit() syscall.Errno {
	b.enters++
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(b.enterFd), b.publish(), 0, b.enterHow, 0, 0)
	return errno
}

func (b *binding) poll() syscall.Errno {
	b.enters++
	_, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(b.enterFd), b.publish(), 0, b.enterHow|enterGetEvents, 0, 0)
	return errno
}

func (b *binding) waitFor(min uint32, w *waitArgs) syscall.Errno {
	b.enters++
	// The conversion is in the call's arguments, which keeps w alive and in place during the call.
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(b.enterFd), b.publish(), uintptr(min),
		b.enterHow|enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(&w.arg)), unsafe.Sizeof(w.arg))
	return errno
}

func (b *binding) register(op uint32, arg unsafe.Pointer, n uint32) syscall.Errno {
	_, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(b.ringFd), uintptr(op), uintptr(arg), uintptr(n), 0, 0)
	return errno
}

func (b *binding) registerFD() syscall.Errno {
	if b.enterHow != 0 {
		return syscall.EEXIST
	}
	u := ringUpdate{offset: ^uint32(0), data: uint64(b.ringFd)} // any slot, and the kernel says which
	if errno := b.register(RegisterRingFDs, unsafe.Pointer(&u), 1); errno != 0 {
		return errno
	}
	b.enterFd, b.enterHow = int(u.offset), enterRegisteredRing
	return 0
}

func (b *binding) ready() uint32 { return atomic.LoadUint32(b.cqTail) - b.cqNext }

func (b *binding) cqe(i uint32) *CQE {
	// The mask keeps the index inside the mapping.
	return (*CQE)(unsafe.Add(b.cqes, uintptr((b.cqNext+i)&b.cqMask)*unsafe.Sizeof(CQE{})))
}

func (b *binding) advance(n uint32) {
	b.cqNext += n
	atomic.StoreUint32(b.cqHead, b.cqNext)
}

func (b *binding) overflowed() bool { return atomic.LoadUint32(b.sqFlags)&sqCQOverflow != 0 }

func (b *binding) overflowCount() uint32 { return atomic.LoadUint32(b.cqOverflow) }
