//go:build linux

package reactor

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/internal/loop"
	"couplet/internal/sock"
)

// System calls are made by package syscall: unix's go there by way of two calls more, and
// behind a system call each return costs a misprediction.
type errno = syscall.Errno

// poller tells which descriptors may be read or written. This one is epoll,
// level-triggered unless couplet.Ablation wants it otherwise: edge-triggered was
// measured and was not faster.
type poller struct {
	loop   *loop.Loop // which counts and traces the calls
	fd     int
	events [512]event
	spec   *timespec // for the kernel to read; on the heap, as stacks move
	coarse bool      // the kernel has no epoll_pwait2: milliseconds
}

// timespec is the kernel's own, which epoll_pwait2 takes: 64 bits on every machine.
type timespec struct{ sec, nsec int64 }

// interest is what a descriptor is watched for. Errors are always told.
type interest uint32

const (
	readable interest = unix.EPOLLIN | unix.EPOLLRDHUP
	writable interest = unix.EPOLLOUT
	changes  interest = readable | writable | unix.EPOLLPRI | unix.EPOLLET
)

type operation int

const (
	add    operation = unix.EPOLL_CTL_ADD
	modify operation = unix.EPOLL_CTL_MOD
	remove operation = unix.EPOLL_CTL_DEL
)

// names are the operations' in a trace.
var names = [...]string{add: "epoll_ctl add", modify: "epoll_ctl modify", remove: "epoll_ctl remove"}

// key says what an event is for.
type key struct {
	kind       keyKind
	slot       uint32
	generation uint32 // 24 bits
}

type keyKind uint8

const (
	connKey keyKind = iota
	listenKey
	wakeKey
)

// event is an epoll_event whose data is a key.
type event unix.EpollEvent

func (e *event) key() key {
	return key{keyKind(uint32(e.Pad) >> 24), uint32(e.Fd), uint32(e.Pad) & (1<<24 - 1)}
}

func (e *event) readable() bool { return e.Events&uint32(readable) != 0 }
func (e *event) writable() bool { return e.Events&unix.EPOLLOUT != 0 }
func (e *event) broken() bool   { return e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 }
func (e *event) urgent() bool   { return e.Events&unix.EPOLLPRI != 0 }
func (e *event) ending() bool   { return e.broken() || e.Events&unix.EPOLLRDHUP != 0 }

func newPoller(l *loop.Loop) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, sock.StartError("epoll_create1", err)
	}
	return &poller{loop: l, fd: fd, spec: new(timespec)}, nil
}

// set tells the kernel of a descriptor.
func (p *poller) set(op operation, fd int, k key, want interest) errno {
	e := unix.EpollEvent{
		Events: uint32(want),
		Fd:     int32(k.slot),
		Pad:    int32(uint32(k.kind)<<24 | k.generation),
	}
	_, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	if p.loop.Traced() {
		p.loop.Tell(loop.Call, names[op], 0, err)
	}
	return err
}

// wait returns the events that are there, or waits for some for at most timeout
// (negative: no limit).
func (p *poller) wait(timeout time.Duration) ([]event, errno) {
	var n uintptr
	var err errno
	p.loop.Count().Crossings++
	if timeout == 0 {
		n, err = p.look()
	} else {
		n, err = p.sleep(timeout)
	}
	switch err {
	case 0:
		p.loop.Brought(int(n))
		return p.events[:n], 0
	case unix.EINTR:
		return nil, 0
	}
	return nil, err
}

// look does not sleep, so Go's scheduler need not be told of the call.
func (p *poller) look() (uintptr, errno) {
	p.loop.Tell(loop.Enter, "epoll_pwait", 0, 0)
	n, _, err := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 0)
	p.loop.Tell(loop.Call, "epoll_pwait", int(n), err)
	return n, err
}

func (p *poller) sleep(timeout time.Duration) (n uintptr, err errno) {
	events, size := uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events))
	if !p.coarse {
		var spec uintptr
		if timeout > 0 {
			*p.spec = timespec{int64(timeout / time.Second), int64(timeout % time.Second)}
			spec = uintptr(unsafe.Pointer(p.spec))
		}
		p.loop.Tell(loop.Enter, "epoll_pwait2", 0, 0)
		n, _, err = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), events, size, spec, 0, 0)
		p.loop.Tell(loop.Call, "epoll_pwait2", int(n), err)
		if err != unix.ENOSYS && err != unix.EPERM {
			return n, err
		}
		p.coarse = true
	}
	ms := -1
	if timeout > 0 {
		ms = int(min((timeout-1)/time.Millisecond+1, 1<<30))
	}
	p.loop.Tell(loop.Enter, "epoll_pwait", 0, 0)
	n, _, err = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), events, size, uintptr(ms), 0, 0)
	p.loop.Tell(loop.Call, "epoll_pwait", int(n), err)
	return n, err
}

// drain takes the wake-ups that wait in an eventfd.
func (p *poller) drain(fd int) {
	var buf [8]byte
	n, _, err := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf)), 8)
	p.loop.Tell(loop.Call, "read", int(n), err)
}

func (p *poller) close() error { return os.NewSyscallError("close", unix.Close(p.fd)) }
