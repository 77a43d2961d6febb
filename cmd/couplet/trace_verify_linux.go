package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"couplet"
)

// callNames are the system calls that an event loop's thread is likely to make.
var callNames = map[int]string{
	unix.SYS_IO_URING_ENTER: "io_uring_enter", unix.SYS_EPOLL_PWAIT: "epoll_pwait", unix.SYS_EPOLL_PWAIT2: "epoll_pwait2",
	unix.SYS_EPOLL_CTL: "epoll_ctl", unix.SYS_ACCEPT4: "accept4", unix.SYS_CONNECT: "connect", unix.SYS_RECVFROM: "recvfrom",
	unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg", unix.SYS_SHUTDOWN: "shutdown", unix.SYS_CLOSE: "close",
	unix.SYS_READ: "read", unix.SYS_WRITE: "write", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_GETSOCKOPT: "getsockopt",
	unix.SYS_GETPEERNAME: "getpeername", unix.SYS_GETSOCKNAME: "getsockname", unix.SYS_IOCTL: "ioctl", unix.SYS_FUTEX: "futex",
	unix.SYS_NANOSLEEP: "nanosleep", unix.SYS_SCHED_YIELD: "sched_yield", unix.SYS_RT_SIGRETURN: "rt_sigreturn",
	unix.SYS_TGKILL: "tgkill", unix.SYS_GETPID: "getpid", unix.SYS_MADVISE: "madvise", unix.SYS_MMAP: "mmap",
}

// kernelCount has the kernel note the system calls of one thread, in an instance
// of its own of the kernel's tracing.
type kernelCount struct {
	dir string
	err error // why it cannot
}

// The files of an instance.
const (
	tracedThread = "set_event_pid"
	tracedCalls  = "events/raw_syscalls/sys_enter/enable"
)

// countCalls begins to count those of l's thread, which goes on until end.
func countCalls(l couplet.Loop) *kernelCount {
	k := &kernelCount{dir: fmt.Sprintf("/sys/kernel/tracing/instances/couplet-%d", os.Getpid())}
	thread := make(chan int, 1)
	if !l.Post(func() { thread <- unix.Gettid() }) {
		k.err = couplet.ErrEngineClosed
	} else if k.err = os.Mkdir(k.dir, 0o700); k.err == nil {
		k.err = errors.Join(k.set(tracedThread, strconv.Itoa(<-thread)), k.set(tracedCalls, "1"))
	}
	switch {
	case errors.Is(k.err, fs.ErrPermission):
		k.err = errors.New("the kernel's tracing is for root")
	case errors.Is(k.err, fs.ErrNotExist):
		k.err = errors.New("the kernel's tracing is not there; mount -t tracefs tracefs /sys/kernel/tracing")
	}
	return k
}

func (k *kernelCount) set(file, value string) error {
	return os.WriteFile(filepath.Join(k.dir, file), []byte(value), 0)
}

// end ends the counting, if it has begun. It may be called again.
func (k *kernelCount) end() { os.Remove(k.dir) }

// counts are those between the recorder's two marks.
func (k *kernelCount) counts() (map[string]int, error) {
	if k.err != nil {
		return nil, k.err
	}
	off := k.set(tracedCalls, "0")
	text, err := os.ReadFile(filepath.Join(k.dir, "trace"))
	if err := errors.Join(off, err); err != nil {
		return nil, err
	}
	counts, marks := map[string]int{}, 0
	for line := range strings.Lines(string(text)) {
		_, call, found := strings.Cut(line, "sys_enter: NR ")
		if !found {
			continue
		}
		first, _, _ := strings.Cut(call, " ")
		nr, err := strconv.Atoi(first)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the kernel's tracing says %q", strings.TrimSpace(line))
		case nr == unix.SYS_GETPPID:
			marks++
		case marks == 1 && callNames[nr] != "":
			counts[callNames[nr]]++
		case marks == 1:
			counts["number "+first]++
		}
	}
	if marks != 2 {
		return nil, errors.New("the kernel's tracing did not see the loop's thread, as in a container with numbers of its own")
	}
	return counts, nil
}

// verify compares l with what the kernel has counted, or says why it cannot.
func (k *kernelCount) verify(l *ledger) string {
	more, err := k.counts()
	if err != nil {
		return fmt.Sprintf("%s: not verified: %v", l.Engine, err)
	}
	all := 0
	for _, n := range more {
		all += n
	}
	for i := range l.Events {
		if e := &l.Events[i]; e.Layer == layerCall && !e.Open {
			name, _, _ := strings.Cut(e.What, " ")
			more[name]--
		}
	}
	var others []string
	for name, n := range more {
		if n != 0 {
			others = append(others, fmt.Sprintf("%s %+d", name, n))
		}
	}
	slices.Sort(others)
	return fmt.Sprintf("%s: %d system calls in the ledger, %d by the kernel's count: %+d (%s)",
		l.Engine, l.Calls, all, all-l.Calls, strings.Join(others, ", "))
}
