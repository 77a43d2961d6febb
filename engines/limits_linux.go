package engines

import (
	"golang.org/x/sys/unix"
)

// kernelRelease is uname's release.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func openFiles() Limit    { return limit(unix.RLIMIT_NOFILE) }
func lockedMemory() Limit { return limit(unix.RLIMIT_MEMLOCK) }

func limit(resource int) Limit {
	var l unix.Rlimit
	if unix.Getrlimit(resource, &l) != nil {
		return Limit{}
	}
	return Limit{l.Cur, l.Max}
}
