package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadCPU is the time that the calling thread has spent on a CPU.
func threadCPU() (time.Duration, bool) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
