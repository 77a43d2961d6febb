//go:build linux

package loop

import "sync/atomic"

// posts is a queue from many goroutines to one: a lock-free stack that the loop
// takes whole and turns around.
type posts struct {
	top atomic.Pointer[post]
}

type post struct {
	next *post
	f    func()
}

// ended marks a queue that takes nothing any more.
var ended = new(post)

// push reports whether f was queued: what was queued will be taken.
func (q *posts) push(f func()) bool {
	p := &post{f: f}
	for {
		top := q.top.Load()
		if top == ended {
			return false
		}
		p.next = top
		if q.top.CompareAndSwap(top, p) {
			return true
		}
	}
}

func (q *posts) empty() bool {
	top := q.top.Load()
	return top == nil || top == ended
}

// take returns everything queued, oldest first.
func (q *posts) take() *post { return reverse(q.top.Swap(nil)) }

// end takes what is queued and refuses everything after it.
func (q *posts) end() *post { return reverse(q.top.Swap(ended)) }

func reverse(p *post) *post {
	if p == ended {
		return nil
	}
	var first *post
	for p != nil {
		next := p.next
		p.next = first
		first, p = p, next
	}
	return first
}
