package bench

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// read and write do not tell the scheduler: these calls never wait, and the
// generator should cost little. p must not be empty; the kernel is done with it
// when the call returns, and the conversion in the call's arguments keeps it
// alive until then.

func read(fd int, p []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func write(fd int, p []byte) (int, error) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
