//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"time"
	"unsafe"

	"couplet"
	"couplet/internal/loop"
	"couplet/proactor/ring"
)

// bufferGroup is the id of the one group of buffers.
const bufferGroup = 1

// The ring is first in, first out, so all of it becomes the cache's working set:
// it starts small, doubles when receives find it empty, and halves when none did
// for a while. Where the kernel fills one buffer by several receives
// (incremental), few large ones serve everybody.
const (
	quietTime          = 10 * time.Second
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
	memory      *loop.Blocks // by itself: who keeps a piece keeps no more than that
	incremental bool
	blocks      []*loop.Block // by id; nil: not in the ring
	used        []int         // of each block, where the kernel fills them bit by bit
	vacant      []uint16      // ids that are not in the ring
	pending     bool          // blocks were added since the last publish

	least, most int           // blocks
	enough      int           // blocks, as it seems: what is more is let go as it comes back
	starved     time.Time     // when a receive last found none, or enough was halved
	quiet       time.Duration // after which it is halved again

	id       uint16 // of the block that is lent now
	data     []byte // of it
	finished bool   // the kernel is done with that block
}

var _ loop.Lent = (*buffers)(nil)

func newBuffers(r *ring.Ring, config *couplet.Config) (*buffers, error) {
	b := &buffers{memory: &loop.Blocks{Size: bufferSize}, least: startBuffers, most: maxBuffers, quiet: quietTime}
	b.incremental = config.Features&couplet.FeatureIncremental != 0
	if b.incremental {
		b.least, b.most, b.memory.Size = incrementalBuffers, maxIncremental, incrementalSize
	}
	if config.RingBufferSize > 0 {
		b.memory.Size = config.RingBufferSize
	}
	if config.RingBuffers > 0 {
		b.least, b.most = config.RingBuffers, config.RingBuffers
	}
	var err error
	if b.ring, err = r.NewBufRing(uint16(b.most), bufferGroup, b.incremental); err != nil {
		return nil, err
	}
	b.grow(b.least)
	b.publish()
	return b, nil
}

// live is the number of blocks in the ring, or on their way back to it.
func (b *buffers) live() int { return len(b.blocks) - len(b.vacant) }

// held is their bytes, which the kernel was given beforehand.
func (b *buffers) held() int64 { return int64(b.live() * b.memory.Size) }

// grow puts fresh blocks into the ring until there are n, or as many as there
// may be.
func (b *buffers) grow(n int) {
	b.enough = min(n, b.most)
	for b.live() < b.enough {
		id := uint16(len(b.blocks))
		if last := len(b.vacant) - 1; last >= 0 {
			id = b.vacant[last]
			b.vacant = b.vacant[:last]
		} else {
			b.blocks, b.used = append(b.blocks, nil), append(b.used, 0)
		}
		block := b.memory.Get()
		clear(block.Memory) // pages are to be found now, not by the first to send something
		b.blocks[id], b.used[id] = block, 0
		b.put(id)
	}
}

// adapt grows the ring where a receive found it empty, and after a quiet time has
// it shrink.
func (b *buffers) adapt(starved bool, now func() time.Time) {
	switch {
	case starved:
		b.starved = now()
		b.grow(2 * b.live())
	case b.enough > b.least && now().Sub(b.starved) >= b.quiet:
		b.starved = now()
		b.enough = max(b.least, b.enough/2)
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

// giveBack returns the block that take lent, once the kernel is done with it, or
// lets it go where there are more than enough.
func (b *buffers) giveBack() {
	b.data = nil
	if !b.finished {
		return
	}
	if b.live() > b.enough {
		b.blocks[b.id].Release()
		b.blocks[b.id] = nil
		b.vacant = append(b.vacant, b.id)
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
	b.blocks = nil
	return b.ring.Close()
}
