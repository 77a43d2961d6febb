//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"fmt"
	"strings"
	"syscall"
)

const (
	otherwise = ", or use the epoll engine"
	fewer     = ", or use fewer loops" // which take as many descriptors on epoll
)

// explain turns a failed call during setup into what an administrator can act on. Op is the system
// call; sysctl is the text of /proc/sys/kernel/io_uring_disabled, empty where there is none (before
// Linux 6.6).
func explain(op string, errno syscall.Errno, sysctl string) *SetupError {
	e := &SetupError{Op: op, Errno: errno}
	first := op == "io_uring_setup"
	switch {
	case errno == syscall.ENOSYS && first:
		e.Reason = "the kernel has no io_uring, or a sandbox hides it"
		e.Remedy = "run on Linux 6.1 or newer with CONFIG_IO_URING=y, outside a sandbox that hides io_uring"
	case errno == syscall.EPERM && first && strings.TrimSpace(sysctl) == "2":
		e.Reason = "io_uring is disabled for everybody by the sysctl kernel.io_uring_disabled=2"
		e.Remedy = "run `sysctl kernel.io_uring_disabled=0`"
	case errno == syscall.EPERM && first && strings.TrimSpace(sysctl) == "1":
		e.Reason = "io_uring is disabled for ordinary users by the sysctl kernel.io_uring_disabled=1"
		e.Remedy = "run `sysctl kernel.io_uring_disabled=0`, or join the group of kernel.io_uring_group, or add CAP_SYS_ADMIN"
	case errno == syscall.EPERM && first:
		e.Reason = "io_uring is blocked by a seccomp filter or a security module (a container?)"
		e.Remedy = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
	case errno == syscall.EPERM, errno == syscall.ENOSYS:
		e.Reason = "io_uring_setup is allowed, but " + op + " is blocked by a seccomp filter or a security module (a container?)"
		e.Remedy = "allow " + op + " in the seccomp profile"
	case errno == syscall.EACCES:
		e.Reason = "denied by a security policy"
		e.Remedy = "allow io_uring in the LSM policy (SELinux, AppArmor)"
	case errno == syscall.EINVAL, errno == syscall.EOPNOTSUPP:
		e.Reason = "the kernel is too old: it has io_uring, but not what the engine needs of it"
		e.Remedy = "run on Linux 6.1 or newer"
	case errno == syscall.ENOMEM:
		e.Reason = "no memory for the rings, which count against the memlock limit from Linux 6.14 on"
		e.Remedy = "raise `ulimit -l` (LimitMEMLOCK= in systemd), add CAP_IPC_LOCK" + fewer
	case errno == syscall.EMFILE:
		e.Reason = "the process is out of descriptors"
		e.Remedy = "raise `ulimit -n` (LimitNOFILE= in systemd)" + fewer
		return e
	case errno == syscall.ENFILE:
		e.Reason = "the system is out of descriptors"
		e.Remedy = "raise the sysctl fs.file-max" + fewer
		return e
	case errno == syscall.ETIME:
		e.Reason = "a test operation did not complete in time"
		e.Remedy = "report this kernel"
	default:
		e.Reason = fmt.Sprintf("unexpected error: %v", errno)
		e.Remedy = "look into the kernel's log"
	}
	e.Remedy += otherwise
	return e
}
