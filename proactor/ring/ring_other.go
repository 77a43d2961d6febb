//go:build !linux || !(amd64 || arm64 || riscv64 || loong64)

package ring

import "syscall"

// Binding names the binding that was built in: "none", because this platform has no io_uring.
const Binding = "none"

// Probe reports that there is no io_uring here. The error is a *SetupError.
func Probe() (Caps, error) {
	return 0, &SetupError{
		Op:     "io_uring_setup",
		Errno:  syscall.ENOSYS,
		Reason: "io_uring needs Linux on amd64, arm64, riscv64 or loong64",
		Remedy: "run there, or use another engine (epoll on Linux, goroutine elsewhere)",
	}
}
