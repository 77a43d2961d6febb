package couplet

import "sync/atomic"

// A Buffer is bytes with a count of who still needs them: the copy-free way
// through an engine. One Buffer can be written to any number of connections
// (broadcast is one Buffer and N WriteBuffers). Its methods are safe from any
// goroutine. Its bytes must not be changed until the last reference is gone.
type Buffer struct {
	data      []byte
	refs      atomic.Int32
	onRelease func()
}

// NewBuffer makes a Buffer of p with one reference, the caller's. p is not
// copied. onRelease, which may be nil, is called once, when the last reference
// is released, on whichever goroutine releases it: from then on p may be
// changed. It must not block. Where a loop releases it a panic is logged, as one
// in a timer is.
func NewBuffer(p []byte, onRelease func()) *Buffer {
	b := &Buffer{data: p, onRelease: onRelease}
	b.refs.Store(1)
	return b
}

// Bytes is the content; it is valid while the caller holds a reference and
// must not be changed.
func (b *Buffer) Bytes() []byte { return b.data }

// Len is the number of bytes.
func (b *Buffer) Len() int { return len(b.data) }

// Retain adds a reference and returns b. To retain a Buffer without holding a
// reference to it is a programming error and panics.
func (b *Buffer) Retain() *Buffer {
	if b.refs.Add(1) < 2 {
		panic("couplet: Retain of a Buffer that was released; keep a reference before you share it")
	}
	return b
}

// Release drops a reference. To release more often than was retained is a
// programming error and panics; of a Buffer that an engine made it is noticed only
// until the engine makes another one of it, or in a program built with -race.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
	case n < 0:
		panic("couplet: Release of a Buffer that was released already")
	case b.onRelease != nil:
		b.onRelease()
	}
}

// Shared reports whether somebody beside the caller holds a reference.
func (b *Buffer) Shared() bool { return b.refs.Load() > 1 }

// Reset makes a Buffer whose last reference is gone new again, with one
// reference and new content. It is for engines that recycle Buffers.
func (b *Buffer) Reset(p []byte, onRelease func()) {
	b.data, b.onRelease = p, onRelease
	b.refs.Store(1)
}
