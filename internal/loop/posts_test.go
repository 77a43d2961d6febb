//go:build linux

package loop

import (
	"sync"
	"testing"
)

// Everything that push accepted is taken, in the order of each pusher, and
// nothing is accepted after the end.
func TestPostsKeepOrderAndPromise(t *testing.T) {
	const pushers, each = 8, 2000
	var q posts
	accepted := make([]int, pushers)
	ran := make([]int, pushers)
	var wg sync.WaitGroup
	for i := range pushers {
		wg.Go(func() {
			for n := range each {
				if !q.push(func() {
					if ran[i] != n {
						t.Errorf("pusher %d: %d ran where %d was due", i, n, ran[i])
					}
					ran[i]++
				}) {
					return
				}
				accepted[i]++
			}
		})
	}
	run := func(p *post) (n int) {
		for ; p != nil; p = p.next {
			p.f()
			n++
		}
		return n
	}
	for total := 0; total < pushers*each/2; {
		total += run(q.take())
	}
	run(q.end())
	wg.Wait()
	for i := range pushers {
		if ran[i] != accepted[i] {
			t.Errorf("pusher %d: %d accepted, %d ran", i, accepted[i], ran[i])
		}
	}
	if q.push(func() {}) || !q.empty() || q.end() != nil {
		t.Error("an ended queue takes more")
	}
}

// A segment's block is filled to its end, never moves, and is as large as what
// is written asks for.
func TestSegmentsFillTheirBlocks(t *testing.T) {
	var p segments
	s := p.owned(10, nil)
	if len(s.room()) != classes[0] || len(s.bytes) != 0 {
		t.Fatalf("a new segment has room for %d and holds %d", len(s.room()), len(s.bytes))
	}
	s.bytes = s.bytes[:copy(s.room(), make([]byte, 100))]
	first := &s.bytes[0]
	s.bytes = s.bytes[40:] // sent
	if len(s.room()) != classes[0]-100 {
		t.Errorf("after 100 bytes, 40 of them sent, there is room for %d", len(s.room()))
	}
	if &s.block[0] != first {
		t.Error("the block moved")
	}
	if bigger := p.owned(1, s); len(bigger.block) != classes[1] {
		t.Errorf("behind a full block of %d comes one of %d", classes[0], len(bigger.block))
	}
	if huge := p.owned(1<<20, nil); len(huge.block) != classes[len(classes)-1] {
		t.Errorf("a large write gets a block of %d", len(huge.block))
	}
	p.put(s)
	if again := p.owned(10, nil); again != s || len(again.bytes) != 0 || len(again.room()) != classes[0] {
		t.Error("a segment that was put back is not used again, or not empty")
	}
}
