package main

import "sync"

// A relay carries work from a loop, which must not wait for a terminal or a
// pipe, to the goroutine that writes.
type relay struct {
	mu     sync.Mutex
	more   sync.Cond
	queue  []func()
	closed bool
}

func newRelay() *relay {
	r := new(relay)
	r.more.L = &r.mu
	return r
}

// do hands over f, to be called after those before it. It never waits.
func (r *relay) do(f func()) {
	r.mu.Lock()
	r.queue = append(r.queue, f)
	r.mu.Unlock()
	r.more.Signal()
}

// close says that no more will come.
func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.more.Signal()
}

// run calls what is handed over, until close.
func (r *relay) run() {
	for {
		r.mu.Lock()
		for len(r.queue) == 0 && !r.closed {
			r.more.Wait()
		}
		batch := r.queue
		r.queue = nil
		r.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, f := range batch {
			f()
		}
	}
}
