//go:build linux

package loop

// Slab is a driver's own state per connection, indexed by slot. It grows in
// chunks that never move, so a pointer into it, the kernel's too, stays good.
type Slab[T any] struct {
	chunks []*[chunkSize]T
}

// At is the element of slot i, zero at first.
func (s *Slab[T]) At(i uint32) *T {
	for i>>chunkBits >= uint32(len(s.chunks)) {
		s.chunks = append(s.chunks, new([chunkSize]T))
	}
	return &s.chunks[i>>chunkBits][i&(chunkSize-1)]
}

// Each calls f for every element there is.
func (s *Slab[T]) Each(f func(*T)) {
	for _, chunk := range s.chunks {
		for i := range chunk {
			f(&chunk[i])
		}
	}
}
