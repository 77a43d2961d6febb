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

// Piece is data, which is within b, as a Buffer of one reference.
func (b *Block) Piece(data []byte) *couplet.Buffer {
	b.refs.Add(1)
	if checked { // who releases twice is to be found out, not given a stranger's
		return couplet.NewBuffer(data, b.Release)
	}
	p, ok := pieces.Get().(*piece)
	if !ok {
		p = new(piece)
		p.done = p.release
	}
	p.block = b
	p.Reset(data, p.done)
	return &p.Buffer
}

// piece is a Buffer that is used again.
type piece struct {
	couplet.Buffer
	block *Block
	done  func()
}

var pieces sync.Pool

func (p *piece) release() {
	b := p.block
	p.block = nil
	pieces.Put(p)
	b.Release()
}
