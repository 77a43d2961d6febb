//go:build linux

package loop

import (
	"sync"
	"sync/atomic"

	"couplet"
)

// A Block is memory that a driver receives into. What was received can be handed
// over in pieces, without a copy: each piece is a Buffer that holds the block.
// The driver holds it too, for as long as the kernel may write into it. With the
// last of them the block is free for another receive.
type Block struct {
	Memory []byte
	refs   atomic.Int32
	pool   *Blocks

	// The Buffers of the pieces; given of them since there was none.
	pieces []*[16]couplet.Buffer
	given  int
	done   func() // Release
}

// Blocks is where blocks of one size come from and go back to. What was used
// last is used next: it may still be in the cache. Drivers share it.
type Blocks struct {
	Size int
	pool sync.Pool
}

// Get returns a block that the caller, a driver, holds.
func (p *Blocks) Get() *Block {
	b, ok := p.pool.Get().(*Block)
	if !ok {
		b = &Block{Memory: make([]byte, p.Size), pool: p}
		b.done = b.Release
	}
	b.refs.Store(1)
	return b
}

// Held reports whether there are pieces. Where there are none, the driver that
// holds b may have all of it overwritten.
func (b *Block) Held() bool { return b.refs.Load() > 1 }

// Release gives up the driver's hold.
func (b *Block) Release() {
	if b.refs.Add(-1) == 0 {
		b.pool.pool.Put(b)
	}
}

// maxPieces is how many Buffers a block has for its pieces; what is more has its own.
const maxPieces = 1024

// Piece is data, which is within b, as a Buffer of one reference. Only the driver that
// holds b calls it. The first maxPieces Buffers are b's own: with the last piece gone they
// begin anew.
func (b *Block) Piece(data []byte) *couplet.Buffer {
	alone := b.refs.Add(1) == 2
	if checked { // who releases twice is to be found out, not given a stranger's
		return couplet.NewBuffer(data, b.done)
	}
	if alone {
		b.given = 0
	}
	n := b.given
	if n == maxPieces {
		return couplet.NewBuffer(data, b.done)
	}
	b.given++
	if n/16 == len(b.pieces) {
		b.pieces = append(b.pieces, new([16]couplet.Buffer))
	}
	p := &b.pieces[n/16][n%16]
	p.Reset(data, b.done)
	return p
}

// MemorySize is what Memory has room for: a page more than messages like to have. A
// read that fills it is followed by another, which may find nothing.
const MemorySize = 68 << 10

var memories = Blocks{Size: MemorySize}

// Memory is what a driver receives into that reads one connection at a time: one
// Block for all of them, mostly still in the cache. Where pieces of it are held, it
// is what is behind them, or a fresh Block if that has become little.
type Memory struct {
	block *Block
	used  int
	lent  []byte
}

var _ Lent = (*Memory)(nil)

// Room is what there is to receive into, until the next Room or Release.
func (m *Memory) Room() []byte {
	switch {
	case m.block == nil:
		m.block, m.used = memories.Get(), 0
	case !m.block.Held():
		m.used = 0
	case m.used > MemorySize/2:
		m.block.Release()
		m.block, m.used = memories.Get(), 0
	}
	return m.block.Memory[m.used:]
}

// Lend is the first n bytes of Room, to be reported with m as their Lent.
func (m *Memory) Lend(n int) []byte {
	m.lent = m.block.Memory[m.used : m.used+n : m.used+n]
	return m.lent
}

// Keep implements Lent.
func (m *Memory) Keep() *couplet.Buffer {
	m.used += len(m.lent)
	return m.block.Piece(m.lent)
}

// Held is the bytes that m has of the system.
func (m *Memory) Held() int64 {
	if m.block == nil {
		return 0
	}
	return MemorySize
}

// Release gives up the driver's hold.
func (m *Memory) Release() {
	if m.block != nil {
		m.block.Release()
		m.block = nil
	}
}
