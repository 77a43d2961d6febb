package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
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
	unix.SYS_PPOLL: "ppoll", unix.SYS_READV: "readv", unix.SYS_WRITEV: "writev",
	unix.SYS_RECVMSG: "recvmsg", unix.SYS_SENDFILE: "sendfile", unix.SYS_SPLICE: "splice",
	unix.SYS_TGKILL: "tgkill", unix.SYS_GETPID: "getpid", unix.SYS_MADVISE: "madvise",
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
	return countEntered(string(text))
}

// countEntered counts the system calls of a kernel's trace by name, between the recorder's two
// marks.
func countEntered(trace string) (map[string]int, error) {
	counts, marks := map[string]int{}, 0
	for line := range strings.Lines(trace) {
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
		case marks == 1 && nr == unix.SYS_WRITE && third(call) == "8":
			counts["write of a wake-up"]++
		case marks == 1 && nr == unix.SYS_EPOLL_PWAIT && third(call) == "80":
			counts["epoll_pwait of 128"]++
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

// third is the third argument of a call, in hexadecimal digits. By that the calls of the Go
// runtime's own poller are known, which it makes on whatever thread: it is woken by a write of 8
// bytes to an eventfd, where a driver writes nowhere, and asks epoll_pwait for 128 events, where a
// driver asks for 512.
func third(call string) string {
	if args := strings.Split(call, ", "); len(args) > 2 {
		return args[2]
	}
	return ""
}

// verify compares l with what the kernel has counted, or says why it cannot. It
// reports whether they agree.
func (k *kernelCount) verify(l *ledger) (says string, ok bool) {
	seen, err := k.counts()
	if err != nil {
		return fmt.Sprintf("%s: not verified: %v", l.Engine, err), false
	}
	return l.compare(seen)
}

// What a loop's thread calls and no driver does: to ask for addresses and to set
// options, which the ledgers leave out. What is neither this nor in moving is the
// Go runtime's own.
var setting = []string{"getpeername", "getsockname", "getsockopt", "ioctl", "setsockopt"}

// moving are the calls that move data, make and end connections, or wait for them:
// a ledger has all of them.
var moving = []string{
	"accept", "accept4", "close", "connect", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "io_uring_enter", "ppoll",
	"read", "readv", "recvfrom", "recvmsg", "sendfile", "sendmsg", "sendto", "shutdown", "splice", "write", "writev",
}

// compare concludes from l and the calls that the kernel saw, by name. They agree if
// the kernel saw all of the ledger, and no call beyond it that belongs there.
func (l *ledger) compare(seen map[string]int) (says string, ok bool) {
	more := maps.Clone(seen)
	for name, n := range l.names {
		more[name] -= n
	}
	var unseen, beyond, set, own []string
	others := 0
	for _, name := range slices.Sorted(maps.Keys(more)) {
		n := more[name]
		call := fmt.Sprintf("%s %d", name, max(n, -n))
		switch {
		case n == 0:
			continue
		case n < 0:
			unseen = append(unseen, call)
			continue
		case slices.Contains(moving, name):
			beyond = append(beyond, call)
			continue
		case slices.Contains(setting, name):
			set = append(set, call)
		default:
			own = append(own, call)
		}
		others += n
	}
	none := func(calls []string) string {
		if len(calls) == 0 {
			return "none"
		}
		return strings.Join(calls, ", ")
	}
	rest := fmt.Sprintf("%d others, no driver's: Go's own (%s), addresses and options (%s)", others, none(own), none(set))
	if unseen == nil && beyond == nil {
		return fmt.Sprintf("%s: verified: the kernel saw all %d system calls of the ledger, and %s", l.Engine, l.Calls, rest), true
	}
	return fmt.Sprintf("%s: the check failed: in the ledger but not seen by the kernel: %s; seen but not in the ledger: %s; and %s",
		l.Engine, none(unseen), none(beyond), rest), false
}
