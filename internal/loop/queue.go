//go:build linux

package loop

import (
	"golang.org/x/sys/unix"

	"couplet"
)

// A Segment is a piece of an outbound queue: bytes of our own in a block, or a
// shared Buffer. What a send in flight covers never changes.
type Segment struct {
	next   *Segment
	bytes  []byte // not yet sent
	block  []byte // owned: bytes is within it
	shared *couplet.Buffer
	class  int8
}

// Next is the segment behind s, or nil.
func (s *Segment) Next() *Segment { return s.next }

// Bytes is what of s is not sent.
func (s *Segment) Bytes() []byte { return s.bytes }

// Shared is the Buffer that s is of, or nil: then its bytes are s's own.
func (s *Segment) Shared() *couplet.Buffer { return s.shared }

// Gather is a send of several segments: its header, and the list that this points at.
type Gather struct {
	Message unix.Msghdr
	List    [MaxGather]unix.Iovec
}

// Collect makes g a send of head and of what is behind it, as far as a send goes, and gives
// its bytes.
func (g *Gather) Collect(head *Segment) (total int) {
	n := 0
	for s := head; s != nil && n < MaxGather && total < MaxSend; s = s.next {
		b := s.bytes[:min(len(s.bytes), MaxSend-total)]
		g.List[n].Base = &b[0]
		g.List[n].SetLen(len(b))
		total += len(b)
		n++
	}
	g.Message.Iov = &g.List[0]
	g.Message.SetIovlen(n)
	return total
}

// Clear is for when the kernel is done with g, which would keep the memory of what was sent.
func (g *Gather) Clear() { clear(g.List[:g.Message.Iovlen]) }

// classes are the sizes of owned blocks. kept is how many of each a loop keeps
// for reuse; of the smallest, and of segments without a block, it keeps one for
// each of its connections, where that is more.
var (
	classes = [...]int{256, 2 << 10, 16 << 10, 64 << 10}
	kept    = [...]int{4096, 1024, 256, 64}
)

const sharedClass = int8(-1)

// segments recycles a loop's segments.
type segments struct {
	free   [len(classes)][]*Segment
	shared []*Segment
	conns  int // that the loop has
}

// owned returns an empty segment with a block fit for n bytes, one class above
// the block that was filled before it.
func (p *segments) owned(n int, after *Segment) *Segment {
	class := 0
	if after != nil && after.class >= 0 {
		class = min(int(after.class)+1, len(classes)-1)
	}
	for class < len(classes)-1 && n > classes[class] {
		class++
	}
	if len(p.free[class]) == 0 {
		b := make([]byte, classes[class])
		return &Segment{block: b, bytes: b[:0], class: int8(class)}
	}
	s := pop(&p.free[class])
	s.bytes = s.block[:0]
	return s
}

// lent returns a segment that refers to b, whose reference it takes over.
func (p *segments) lent(b *couplet.Buffer) *Segment {
	var s *Segment
	if len(p.shared) > 0 {
		s = pop(&p.shared)
	} else {
		s = &Segment{class: sharedClass}
	}
	s.shared, s.bytes = b, b.Bytes()
	return s
}

// serve says how many connections there are. What was kept for one that is gone goes too.
func (p *segments) serve(conns int) {
	p.conns = conns
	for _, list := range [...]*[]*Segment{&p.free[0], &p.shared} {
		if len(*list) > max(kept[0], conns) {
			pop(list)
		}
	}
}

func pop(list *[]*Segment) *Segment {
	last := len(*list) - 1
	s := (*list)[last]
	(*list)[last] = nil
	*list = (*list)[:last]
	return s
}

// put takes a segment back that the kernel is done with, and gives the Buffer that
// is to be released for it.
func (p *segments) put(s *Segment) (shared *couplet.Buffer) {
	s.next, s.bytes = nil, nil
	if s.class == sharedClass {
		shared, s.shared = s.shared, nil
		if len(p.shared) < max(kept[0], p.conns) {
			p.shared = append(p.shared, s)
		}
		return shared
	}
	if n := len(p.free[s.class]); n < kept[s.class] || s.class == 0 && n < p.conns {
		p.free[s.class] = append(p.free[s.class], s)
	}
	return nil
}

// room is the part of s's block behind its bytes.
func (s *Segment) room() []byte {
	if s.class == sharedClass {
		return nil
	}
	end := len(s.block) - cap(s.bytes) + len(s.bytes)
	return s.block[end:]
}
