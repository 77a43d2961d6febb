package classic

import (
	"bytes"
	"runtime"
	"strconv"
)

// goid is the number of the calling goroutine, as the runtime prints it at the
// head of a stack trace: there is no other way to ask for it. It costs a
// microsecond or two.
func goid() uint64 {
	var buf [64]byte
	b := buf[:runtime.Stack(buf[:], false)]
	b = bytes.TrimPrefix(b, []byte("goroutine "))
	if i := bytes.IndexByte(b, ' '); i > 0 {
		b = b[:i]
	}
	n, _ := strconv.ParseUint(string(b), 10, 64)
	return n
}

// enter notes that the calling goroutine makes callbacks of this engine, and
// returns its number for leave.
func (e *engine) enter() uint64 {
	id := goid()
	e.goids.Store(id, nil)
	return id
}

// leave takes enter back.
func (e *engine) leave(id uint64) { e.goids.Delete(id) }

// onLoop reports whether the caller is a goroutine that makes callbacks of this
// engine, and so is in one.
func (e *engine) onLoop() bool {
	_, on := e.goids.Load(goid())
	return on
}
