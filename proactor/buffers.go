//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"unsafe"

	"couplet"
	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// bufferGroup is the id of the one group of buffers.
const bufferGroup = 1

// The ring is first in, first out, so all of it becomes the cache's working set:
// it starts small and grows when receives find it empty. Where the kernel fills
// one buffer by several receives (incremental), few large ones serve everybody.
const (
	startBuffers       = 64
	maxBuffers         = 4096 // 64 MiB
	bufferSize         = 16 << 10
	incrementalBuffers = 16
	incrementalSize    = 64 << 10
	maxIncremental     = 256 // 16 MiB
)

// buffers is the memory that the kernel receives into: each block is in the
// kernel's ring under its index. Where pieces of a block are held when the kernel
// is done with it, fresh memory takes its place.
type buffers struct {
	ring        *ring.BufRing
	memory      loop.Blocks
	incremental bool
	limit       int
	blocks      []*loop.Block
	used        []int // of each block, where the kernel fills them bit by bit
	pending     bool  // blocks were added since the last publish

	id       uint16 // of the block that is lent now
	data     []byte // of it
	finished bool   // the kernel is done with that block
}

var _ loop.Lent = (*buffers)(nil)

func newBuffers(r *ring.Ring, config *couplet.Config) (*buffers, error) {
	n := startBuffers
	b := &buffers{memory: loop.Blocks{Size: bufferSize}, limit: maxBuffers}
	b.incremental = config.Features&couplet.FeatureIncremental != 0
	if b.incremental {
		n, b.limit, b.memory.Size = incrementalBuffers, maxIncremental, incrementalSize
	}
	if config.RingBufferSize > 0 {
		b.memory.Size = config.RingBufferSize
	}
	if config.RingBuffers > 0 {
		n, b.limit = config.RingBuffers, config.RingBuffers
	}
	var err error
	if b.ring, err = r.NewBufRing(uint16(b.limit), bufferGroup, b.incremental); err != nil {
		return nil, err
	}
	b.add(n)
	b.publish()
	return b, nil
}

// add puts n new blocks into the ring.
func (b *buffers) add(n int) {
	for range n {
		block := b.memory.Get()
		clear(block.Memory) // pages are to be found now, not by the first to send something
		b.blocks = append(b.blocks, block)
		b.used = append(b.used, 0)
		b.put(uint16(len(b.blocks) - 1))
	}
}

// put gives the kernel the block with an id. The block stays reachable, and in
// its place, through b.blocks.
func (b *buffers) put(id uint16) {
	b.ring.Add(unsafe.Pointer(&b.blocks[id].Memory[0]), uint32(b.memory.Size), id)
	b.pending = true
}

func (b *buffers) publish() {
	if b.pending {
		b.pending = false
		b.ring.Publish()
	}
}

// grow doubles the number of blocks, within the limit.
func (b *buffers) grow() {
	b.add(min(len(b.blocks), b.limit-len(b.blocks)))
}

// take is the bytes of a completion that carries a buffer, which is ours from
// now until giveBack.
func (b *buffers) take(e *ring.CQE) []byte {
	b.id = e.BufferID()
	n := int(max(e.Res, 0))
	start := b.used[b.id]
	b.data = b.blocks[b.id].Memory[start : start+n : start+n]
	b.used[b.id] = start + n
	b.finished = !b.incremental || e.Flags&ring.CQEFBufMore == 0
	return b.data
}

// Keep implements loop.Lent.
func (b *buffers) Keep() *couplet.Buffer { return b.blocks[b.id].Piece(b.data) }

// giveBack returns the block that take lent, once the kernel is done with it.
func (b *buffers) giveBack() {
	b.data = nil
	if !b.finished {
		return
	}
	if block := b.blocks[b.id]; block.Held() {
		b.blocks[b.id] = b.memory.Get()
		block.Release()
	}
	b.used[b.id] = 0
	b.put(b.id)
}

func (b *buffers) close() error {
	if b == nil || b.ring == nil {
		return nil
	}
	return b.ring.Close()
}
