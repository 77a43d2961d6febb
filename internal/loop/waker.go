//go:build linux

package loop

import (
	"sync"

	"golang.org/x/sys/unix"

	"couplet/internal/sock"
)

// Waker is an eventfd by which other goroutines end a driver's wait. Its lock
// keeps a late Wake from writing to a descriptor number that Close has freed.
type Waker struct {
	mu sync.Mutex
	fd int
}

// NewWaker makes an open Waker.
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, sock.StartError("eventfd", err)
	}
	return &Waker{fd: fd}, nil
}

// FD is the descriptor to wait on.
func (w *Waker) FD() int { return w.fd }

// Wake makes the descriptor readable. Any goroutine may call it, at any time.
func (w *Waker) Wake() {
	one := [8]byte{1}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Write(w.fd, one[:]) // full means that a wake is pending already
	}
}

// Close closes the descriptor; Wake does nothing from then on.
func (w *Waker) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}
