package sock

import "os"

// SyscallError is os.NewSyscallError, whose text says what to do where descriptors ran out.
func SyscallError(call string, err error) error { return syscallError(call, err, "") }

// StartError is SyscallError for a call by which each loop begins.
func StartError(call string, err error) error {
	return syscallError(call, err, ", or use fewer loops")
}

func syscallError(call string, err error, or string) error {
	if r := remedy(err); r != "" {
		err = &remediable{err, r + or}
	}
	return os.NewSyscallError(call, err)
}

// remediable is the errno within an *os.SyscallError, where it has a remedy.
type remediable struct {
	error
	remedy string
}

// Error is the errno's text and the remedy.
func (e *remediable) Error() string { return e.error.Error() + "; " + e.remedy }

// Unwrap gives the errno, for errors.Is.
func (e *remediable) Unwrap() error { return e.error }

// Temporary is the errno's, for *net.OpError, which does not unwrap.
func (e *remediable) Temporary() bool {
	t, ok := e.error.(interface{ Temporary() bool })
	return ok && t.Temporary()
}
