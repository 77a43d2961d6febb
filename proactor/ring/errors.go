package ring

import "syscall"

// Error is a failed call on an open ring: the name of the system call and its bare errno.
type Error struct {
	Op    string
	Errno syscall.Errno
}

// Error names the call, the errno, and the mistake behind it where there is only one.
func (e *Error) Error() string {
	s := e.Op + ": " + e.Errno.Error()
	if e.Op == "io_uring_enter" {
		switch e.Errno {
		case syscall.EEXIST:
			s += " (the ring is used off the thread that opened it)"
		case syscall.EBADF:
			s += " (the ring is closed)"
		}
	}
	return s
}

// Unwrap gives the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// SetupError says why this machine cannot run a ring, and what to change.
type SetupError struct {
	Op     string        // the system call that failed
	Errno  syscall.Errno // its errno
	Reason string        // what that means here
	Remedy string        // what to change
}

// Error is "op: reason; remedy".
func (e *SetupError) Error() string { return e.Op + ": " + e.Reason + "; " + e.Remedy }

// Unwrap gives the errno, for errors.Is.
func (e *SetupError) Unwrap() error { return e.Errno }
