package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"couplet"
)

// A callCounter has the kernel count the system calls of an engine's loops, by
// the tracepoint raw_syscalls:sys_enter. To count costs each call something, so it
// is not done in a sample from which CPU time is taken.
type callCounter struct{ fds []int }

const sysEnter = "events/raw_syscalls/sys_enter/id"

// countCalls begins to count. The error says why it cannot.
func countCalls(e couplet.Engine) (*callCounter, error) {
	id, err := tracepoint()
	if err != nil {
		return nil, err
	}
	c := new(callCounter)
	for _, l := range e.Loops() {
		thread := make(chan int, 1)
		if !l.Post(func() { thread <- unix.Gettid() }) {
			return nil, couplet.ErrEngineClosed
		}
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
		attr.Size = unix.PERF_ATTR_SIZE_VER0
		fd, err := unix.PerfEventOpen(&attr, <-thread, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("perf_event_open: %w; it is for root, or for all with kernel.perf_event_paranoid=-1", err)
		}
		c.fds = append(c.fds, fd)
	}
	if len(c.fds) == 0 {
		return nil, errors.New("this engine has no loops")
	}
	return c, nil
}

// tracepoint is the number by which perf knows sys_enter here.
func tracepoint() (uint64, error) {
	for _, dir := range []string{"/sys/kernel/tracing/", "/sys/kernel/debug/tracing/"} {
		if text, err := os.ReadFile(dir + sysEnter); err == nil {
			return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		} else if errors.Is(err, os.ErrPermission) {
			return 0, errors.New("the kernel's tracing is for root")
		}
	}
	return 0, errors.New("the kernel's tracing is not there; mount -t tracefs tracefs /sys/kernel/tracing")
}

// calls is how many there have been. A nil callCounter has seen none.
func (c *callCounter) calls() (sum int64) {
	if c == nil {
		return 0
	}
	for _, fd := range c.fds {
		var n [8]byte
		if _, err := unix.Read(fd, n[:]); err == nil {
			sum += int64(binary.NativeEndian.Uint64(n[:]))
		}
	}
	return sum
}

func (c *callCounter) close() {
	if c != nil {
		for _, fd := range c.fds {
			unix.Close(fd)
		}
	}
}
