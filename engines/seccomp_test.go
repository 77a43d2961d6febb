//go:build linux

package engines_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
	"couplet/proactor/ring"
)

// hostile names the environment variable that tells a child what its machine
// shall be like.
const hostile = "COUPLET_ENGINES_HOSTILE"

// machines are the hostile machines: what a child does to itself, and what must
// hold then.
var machines = map[string]func(t *testing.T){
	"setup forbidden":                func(t *testing.T) { blocked(t, unix.SYS_IO_URING_SETUP, unix.EPERM, "seccomp") },
	"setup missing":                  func(t *testing.T) { blocked(t, unix.SYS_IO_URING_SETUP, unix.ENOSYS, "io_uring") },
	"enter forbidden":                func(t *testing.T) { blocked(t, unix.SYS_IO_URING_ENTER, unix.EPERM, "seccomp") },
	"register forbidden":             func(t *testing.T) { blocked(t, unix.SYS_IO_URING_REGISTER, unix.EPERM, "seccomp") },
	"enter forbidden at work":        blockedAtWork,
	"no locked memory":               noLockedMemory,
	"no descriptors to be had":       noDescriptors,
	"no descriptors later on, uring": func(t *testing.T) { noDescriptorsLater(t, engines.Uring) },
	"no descriptors later on, epoll": func(t *testing.T) { noDescriptorsLater(t, engines.Epoll) },
	"accept forbidden, epoll":        func(t *testing.T) { acceptForbidden(t, engines.Epoll) },
	"accept forbidden, goroutine":    func(t *testing.T) { acceptForbidden(t, engines.Goroutine) },
}

// TestHostileMachines starts this test again for each machine, since none of
// them can be taken back.
func TestHostileMachines(t *testing.T) {
	if name := os.Getenv(hostile); name != "" {
		machines[name](t)
		return
	}
	for name := range machines {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHostileMachines$", "-test.v", "-test.timeout=0")
			cmd.Env = append(os.Environ(), hostile+"="+name)
			out, err := cmd.CombinedOutput()
			if reason, _, ok := strings.Cut(string(out), skipped); ok && err == nil {
				t.Skip(reason[strings.LastIndexByte(reason, '\n')+1:])
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// skipped ends the line in which a child says why it cannot be such a machine.
const skipped = " (skipped)"

func skip(t *testing.T, format string, args ...any) {
	fmt.Printf("\n"+format+skipped+"\n", args...)
	t.SkipNow()
}

// forbid makes a system call fail with errno, in all threads, for good.
func forbid(t *testing.T, nr uint32, errno syscall.Errno) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // no_new_privs is the thread's, until TSYNC spreads it
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		skip(t, "no_new_privs: %v", err)
	}
	// prog lives until the call has returned: it is referred to below.
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if e != 0 {
		skip(t, "seccomp: %v", e)
	}
}

// open opens an engine, which must not take long to say yes or no.
func open(t *testing.T, name string) (couplet.Engine, error) {
	start := time.Now()
	e, err := engines.Open(name, couplet.Config{})
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Open(%q) took %v", name, took)
	}
	if err == nil {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			e.Shutdown(ctx)
		})
	}
	return e, err
}

// needUring skips where there is no io_uring to take away.
func needUring(t *testing.T) {
	e, err := engines.Open(engines.Uring, couplet.Config{})
	if err != nil {
		skip(t, "io_uring does not work here anyway: %v", err)
	}
	e.Shutdown(context.Background())
}

// blocked takes a system call away: auto must step down and say why, and
// io_uring by name must fail with what to change.
func blocked(t *testing.T, nr uint32, errno syscall.Errno, reason string) {
	needUring(t)
	forbid(t, nr, errno)
	e, err := open(t, engines.Auto)
	if err != nil {
		t.Fatalf("auto: %v", err)
	}
	if e.Name() != engines.Epoll || !strings.Contains(e.Describe(), reason) {
		t.Errorf("auto chose %s: %s; it should be epoll, and say %q", e.Name(), e.Describe(), reason)
	}
	echoes(t, e)
	_, err = open(t, engines.Uring)
	setup, ok := errors.AsType[*ring.SetupError](err)
	if !ok || !engines.NoUring(err) {
		t.Fatalf("uring: %v, not a SetupError", err)
	}
	if !errors.Is(err, errno) || setup.Reason == "" || setup.Remedy == "" || !strings.Contains(err.Error(), reason) {
		t.Errorf("uring: %v; it should name %q, wrap %v and say what to change", err, reason, errno)
	}
}

// blockedAtWork takes the system call away while the engine runs: it must fail
// at once, and tell every connection.
func blockedAtWork(t *testing.T) {
	needUring(t)
	e, err := open(t, engines.Uring)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan error, 1)
	l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return echo{lost} }))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, l)
	forbid(t, unix.SYS_IO_URING_ENTER, unix.EPERM)
	c.Write([]byte("ping"))
	select {
	case <-e.Done():
	case <-time.After(3 * time.Second):
		t.Fatal("the engine goes on without io_uring_enter")
	}
	if _, ok := errors.AsType[*couplet.EngineError](e.Err()); !ok || !errors.Is(e.Err(), unix.EPERM) {
		t.Errorf("the engine failed with %v", e.Err())
	}
	select {
	case reason := <-lost:
		if _, ok := errors.AsType[*couplet.EngineError](reason); !ok {
			t.Errorf("the connection was lost with %v", reason)
		}
	case <-time.After(3 * time.Second):
		t.Error("the connection was not told")
	}
}

// noLockedMemory is an ordinary user who may lock no memory, which older
// kernels count the rings as.
func noLockedMemory(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "only root can become somebody else")
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		skip(t, "RLIMIT_MEMLOCK: %v", err)
	}
	if err := syscall.Setgid(65534); err != nil {
		skip(t, "setgid: %v", err)
	}
	if err := syscall.Setuid(65534); err != nil {
		skip(t, "setuid: %v", err)
	}
	e, err := open(t, engines.Auto)
	if err != nil {
		t.Fatalf("auto: %v", err)
	}
	if why, _ := engines.Choice(e); why == "" {
		t.Errorf("auto chose %s without a reason", e.Name())
	}
	echoes(t, e)
	if e, err = open(t, engines.Uring); err == nil {
		echoes(t, e)
		return
	}
	if setup, ok := errors.AsType[*ring.SetupError](err); !ok || setup.Remedy == "" {
		t.Errorf("uring: %v; it should say what to change", err)
	}
}

// noDescriptors leaves too few descriptors for any engine: no other engine
// would fare better, and the error says so.
func noDescriptors(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(f.Fd()), Max: uint64(f.Fd())}); err != nil {
		skip(t, "RLIMIT_NOFILE: %v", err)
	}
	if _, err := open(t, engines.Auto); !errors.Is(err, unix.EMFILE) {
		t.Errorf("auto without descriptors: %v", err)
	}
}

// noDescriptorsLater takes the last descriptor once an engine runs, in a process that
// has set no timer yet. Go's runtime, which made its own poller for the first one, ended
// the process for want of a descriptor.
func noDescriptorsLater(t *testing.T, name string) {
	e, err := engines.Open(name, couplet.Config{})
	if err != nil {
		skip(t, "%s: %v", name, err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		skip(t, "RLIMIT_NOFILE: %v", err)
	}
	for err == nil {
		_, err = unix.Open("/dev/null", unix.O_RDONLY, 0)
	}
	time.Sleep(time.Millisecond) // the first timer
	e.Stop()
	<-e.Done()
}

// acceptForbidden has connections that nobody may accept: the log says so, and why.
func acceptForbidden(t *testing.T, name string) {
	forbid(t, unix.SYS_ACCEPT4, unix.EPERM)
	log, lines := io.Pipe()
	e, err := engines.Open(name, couplet.Config{Logger: slog.New(slog.NewTextHandler(lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	timeout := time.AfterFunc(5*time.Second, func() { lines.CloseWithError(errors.New("no line in time")) })
	defer timeout.Stop()
	line, err := bufio.NewReader(log).ReadString('\n')
	if err != nil || !strings.Contains(line, "cannot accept") || !strings.Contains(line, "seccomp") {
		t.Errorf("the log has %q, %v", line, err)
	}
	log.Close() // what is written now is an error of the Handler
	e.Stop()
	<-e.Done()
}

// echo is a server that tells how it was lost.
type echo struct{ lost chan<- error }

func (echo) ConnectionMade(couplet.Transport)                {}
func (echo) DataReceived(t couplet.Transport, p []byte)      { t.Write(p) }
func (s echo) ConnectionLost(_ couplet.Transport, err error) { s.lost <- err }

// dial connects and sees that the connection works.
func dial(t *testing.T, l couplet.Listener) net.Conn {
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte("hello"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		t.Fatalf("the echo is %q, %v", got, err)
	}
	return c
}

// echoes sees that an engine works.
func echoes(t *testing.T, e couplet.Engine) {
	l, err := e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		return echo{make(chan error, 1)}
	}))
	if err != nil {
		t.Fatal(err)
	}
	dial(t, l).Close()
	l.Close()
}
