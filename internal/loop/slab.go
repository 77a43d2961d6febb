//go:build linux

package loop

import "sync/atomic"

const (
	chunkBits = 10
	chunkSize = 1 << chunkBits
	maxChunks = 4096

	// GenerationMask bounds a generation to what a completion's user data
	// has room for.
	GenerationMask = 1<<24 - 1
)

// slot is one place for a connection. conn belongs to the loop; the atomics
// are what a Handle looks at from other goroutines.
type slot struct {
	conn *Conn
	// generation is that of the connection here, or of the next one.
	generation atomic.Uint32
	// handled is there once a Handle was made of a connection here.
	handled atomic.Pointer[handled]
}

// handled is what the Handles of the connection in a slot count by.
type handled struct {
	// posted is the bytes in posted writes, queued what the connection has queued
	// by itself, and limit what there may be of both.
	posted, queued, limit atomic.Int64
}

// handle is s's handled, for the loop.
func (s *slot) handle() *handled {
	h := s.handled.Load()
	if h == nil {
		h = new(handled)
		s.handled.Store(h)
	}
	return h
}

// slab holds a loop's slots in chunks that never move, so that other goroutines
// may look at a slot while the loop adds chunks.
type slab struct {
	chunks [maxChunks]atomic.Pointer[[chunkSize]slot]
	size   uint32
	free   []uint32
}

// at returns slot i, or nil if there is none. Any goroutine may call it.
func (s *slab) at(i uint32) *slot {
	if i>>chunkBits >= maxChunks {
		return nil
	}
	chunk := s.chunks[i>>chunkBits].Load()
	if chunk == nil {
		return nil
	}
	return &chunk[i&(chunkSize-1)]
}

// put gives c a slot and reports whether there was room.
func (s *slab) put(c *Conn) bool {
	if len(s.free) == 0 {
		if s.size == maxChunks*chunkSize {
			return false
		}
		s.chunks[s.size>>chunkBits].Store(new([chunkSize]slot))
		for i := uint32(chunkSize); i > 0; i-- {
			s.free = append(s.free, s.size+i-1)
		}
		s.size += chunkSize
	}
	c.slot = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	e := s.at(c.slot)
	e.conn = c
	c.generation = e.generation.Load()
	return true
}

// remove frees c's slot for another connection of the next generation. After the
// last one the slot is not used again, for the sake of Handles that are still kept.
func (s *slab) remove(c *Conn) {
	e := s.at(c.slot)
	e.conn = nil
	e.generation.Store(c.generation + 1)
	if h := e.handled.Load(); h != nil && h.posted.Load() != 0 {
		e.handled.Store(nil) // what was posted to c is not to count against the next one
	}
	if c.generation < GenerationMask {
		s.free = append(s.free, c.slot)
	}
}

// each calls f for every connection.
func (s *slab) each(f func(c *Conn)) {
	for i := uint32(0); i < s.size; i++ {
		if c := s.at(i).conn; c != nil {
			f(c)
		}
	}
}
