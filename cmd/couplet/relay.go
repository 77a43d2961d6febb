package main

import (
	"context"
	"sync"
	"time"
)

// A relay carries work from a loop, which must not wait for a terminal or a
// pipe, to the goroutine that writes.
type relay struct {
	mu     sync.Mutex
	more   sync.Cond
	queue  []func()
	closed bool
	over   chan struct{} // by close
}

func newRelay() *relay {
	r := &relay{over: make(chan struct{})}
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
	close(r.over)
}

// shown runs what is handed over and waits for the end of it; once ctx is done and no
// more comes, but for lastWait: nobody may read what is written. It reports whether all
// was called.
func (r *relay) shown(ctx context.Context) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	<-r.over
	select {
	case <-done:
		return true
	case <-time.After(lastWait):
		return false
	}
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
