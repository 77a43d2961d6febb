//go:build unix

package sock

import (
	"errors"
	"syscall"
)

// remedy is what to do about want of descriptors, and empty for any other error.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise `ulimit -n` (LimitNOFILE= in systemd)"
	case errors.Is(err, syscall.ENFILE):
		return "raise the system's limit of open files (on Linux the sysctl fs.file-max)"
	}
	return ""
}

// acceptRemedy is what to do about an error of accept, empty where that is not known.
func acceptRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOBUFS):
		return "give the machine, or the container, more memory"
	case errors.Is(err, syscall.ENOSPC): // which epoll_ctl answers
		return "raise the sysctl fs.epoll.max_user_watches"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "a seccomp or LSM filter may refuse accept; allow it there"
	}
	return remedy(err)
}
