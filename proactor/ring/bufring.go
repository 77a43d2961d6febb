//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"math/bits"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BufRing is a group of provided buffers, shared with the kernel: operations with SQEFBufferSelect
// take them in the order in which they were added. Like its Ring it belongs to the loop's thread.
//
// The memory of the buffers is the caller's. It should come from mmap; at any rate it must stay
// where it is as long as the kernel may write to it: from Publish until a completion names its id
// (and, in an incremental group, comes without CQEFBufMore), or until both Close and the end of all
// operations on the group.
type BufRing struct {
	r       *Ring
	mem     []byte
	entries unsafe.Pointer // of mask+1 bufEntry, in mem
	tail    uint16
	mask    uint16
	group   uint16
}

// NewBufRing registers an empty group of up to entries buffers (a power of two, at most 32768)
// under the id group. In an incremental group (needs CapIncremental) one buffer serves several
// receives: each one continues where the last ended, and the buffer is used up when a completion
// comes without CQEFBufMore. An error is an *Error: EEXIST if the id is in use, ENOMEM beyond the
// memlock limit, EINVAL for a bad size or an older kernel.
func (r *Ring) NewBufRing(entries uint16, group uint16, incremental bool) (*BufRing, error) {
	if bits.OnesCount16(entries) != 1 {
		return nil, &Error{"io_uring_register", syscall.EINVAL}
	}
	mem, err := unix.Mmap(-1, 0, int(entries)*int(unsafe.Sizeof(bufEntry{})), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return nil, &Error{"mmap", err.(syscall.Errno)}
	}
	b := &BufRing{r: r, mem: mem, entries: unsafe.Pointer(&mem[0]), mask: entries - 1, group: group}
	reg := &bufReg{
		ringAddr:    uint64(uintptr(b.entries)), // mmapped, so a number will do
		ringEntries: uint32(entries),
		bgid:        group,
	}
	if incremental {
		reg.flags = pbufIncremental
	}
	if err := r.Register(RegisterPbufRing, unsafe.Pointer(reg), 1); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	return b, nil
}

// Group is the group's id, for RecvMultishot.
func (b *BufRing) Group() uint16 { return b.group }

// Add queues n bytes at addr as buffer bid; the kernel sees it after Publish. The caller keeps
// count: no more buffers may be in the ring than it has entries, and no id twice.
func (b *BufRing) Add(addr unsafe.Pointer, n uint32, bid uint16) {
	// The mask keeps the index inside the mapping. Field end is never written: in entry 0 it is the
	// tail.
	e := (*bufEntry)(unsafe.Add(b.entries, uintptr(b.tail&b.mask)*unsafe.Sizeof(bufEntry{})))
	e.addr, e.len, e.bid = uint64(uintptr(addr)), n, bid
	b.tail++
}

// Publish shows the kernel all buffers added so far.
func (b *BufRing) Publish() {
	// The tail is the upper half of the aligned word that also holds entry 0's id, which only we
	// write. There is no 16-bit release store in sync/atomic, so the word is stored whole; every
	// platform of this package is little-endian.
	first := (*bufEntry)(b.entries)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&first.bid)), uint32(first.bid)|uint32(b.tail)<<16)
}

// Close unregisters the group and unmaps the ring, not the buffers. Operations that still select
// from it end with -ENOBUFS. It may be called before or after the Ring's Close; a second call does
// nothing.
func (b *BufRing) Close() error {
	if b.mem == nil {
		return nil
	}
	var err error
	if !b.r.closed {
		err = b.r.Register(UnregisterPbufRing, unsafe.Pointer(&bufReg{bgid: b.group}), 1)
	}
	_ = unix.Munmap(b.mem)
	b.mem, b.entries = nil, nil
	return err
}
