//go:build linux

package sock

import (
	"sync"

	"golang.org/x/sys/unix"
)

// room is how many descriptors MakeRoom makes room for: 136 KiB of the kernel's.
const room = 16 << 10

// MakeRoom has the kernel's table of this process's descriptors be as large as that
// of a busy server, or as RLIMIT_NOFILE allows. By itself it grows by doubling,
// within the accept that no longer finds a place; in a process of several threads
// the kernel then waits until no processor can see the old table, 6 to 20 ms on Linux
// 6.18, and all connections of that loop wait with it. It takes that long here, once
// in a process.
var MakeRoom = sync.OnceFunc(func() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur == 0 {
		return
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return // no descriptor is left, or no file system: it grows when it must
	}
	defer unix.Close(fd)
	if last, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, int(min(limit.Cur, room))-1); err == nil {
		unix.Close(last)
	}
})
