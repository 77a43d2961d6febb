package main

import (
	"io"
	"sync"
	"time"
)

// maxPending bounds what a patientWriter keeps, in bytes.
const maxPending = 1 << 20

// lastWait bounds how long the end of the program waits for that reader.
const lastWait = time.Second

// A patientWriter takes whole lines and writes them from a goroutine of its
// own, so that whoever reads them slowly, or not at all, holds up no loop. What
// exceeds its bound is dropped and counted.
type patientWriter struct {
	w    io.Writer
	gap  func(w io.Writer, dropped int) // writes the line that tells so
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	pending []byte
	dropped int
	closed  bool
}

func newPatientWriter(w io.Writer, gap func(w io.Writer, dropped int)) *patientWriter {
	p := &patientWriter{w: w, gap: gap, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go p.run()
	return p
}

// Write takes one line or more; it never fails and never waits.
func (p *patientWriter) Write(line []byte) (int, error) {
	p.mu.Lock()
	if p.closed || len(p.pending)+len(line) > maxPending {
		p.dropped++
	} else {
		p.pending = append(p.pending, line...)
	}
	p.mu.Unlock()
	p.signal()
	return len(line), nil
}

func (p *patientWriter) signal() {
	select {
	case p.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

func (p *patientWriter) run() {
	defer close(p.done)
	var batch []byte
	for closed := false; !closed; {
		<-p.wake
		p.mu.Lock()
		batch, p.pending = p.pending, batch[:0]
		dropped := p.dropped
		p.dropped = 0
		closed = p.closed
		p.mu.Unlock()
		p.w.Write(batch)
		if dropped > 0 && p.gap != nil {
			p.gap(p.w, dropped)
		}
	}
}

// end writes what is left and waits until it is taken, but not for ever. What
// is written after it is dropped.
func (p *patientWriter) end() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.signal()
	select {
	case <-p.done:
	case <-time.After(lastWait):
	}
}
