//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The other tests skip where Probe fails, so this one tells a refusal by the machine from a mistake
// of Probe's.
func TestProbe(t *testing.T) {
	var u unix.Utsname
	check(t, unix.Uname(&u))
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	version := major*100 + minor

	caps, err := Probe()
	for _, refusal := range []error{syscall.EPERM, syscall.EACCES, syscall.ENOSYS, syscall.ENOMEM} {
		if errors.Is(err, refusal) {
			t.Skip(err)
		}
	}
	if err != nil && version < 600 {
		t.Skip(err)
	}
	check(t, err)
	needs(t, caps)
	again, err := Probe()
	check(t, err)
	t.Logf("%s, %s: %v", Binding, release, caps)
	if all := CapMultishot | CapDeferTaskrun | CapIncremental; again != caps || version >= 612 && caps != all {
		t.Errorf("%v, then %v, on %s", caps, again, release)
	}
}

// Linux 6.0 refuses a flag of 6.1's; what is older refuses both ways.
func TestProbeOfOlderKernels(t *testing.T) {
	needs(t, CapMultishot|CapDeferTaskrun)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for name, c := range map[string]struct {
		refuses func(Caps) bool
		errno   syscall.Errno
		opened  int
	}{
		"6.0":      {func(caps Caps) bool { return caps.Has(CapDeferTaskrun) }, syscall.EINVAL, 2},
		"5.19":     {func(Caps) bool { return true }, syscall.EINVAL, 2},
		"a filter": {func(Caps) bool { return true }, syscall.EPERM, 1},
	} {
		opened := 0
		caps, err := probe(func(sq, cq uint32, caps Caps) (*Ring, error) {
			opened++
			if c.refuses(caps) {
				return nil, explain("io_uring_setup", c.errno, "")
			}
			return OpenForCaps(sq, cq, caps)
		})
		if opened != c.opened {
			t.Errorf("%s: %d tries", name, opened)
		}
		if name == "6.0" {
			if err != nil || !caps.Has(CapMultishot) || caps.Has(CapDeferTaskrun) {
				t.Errorf("%s: %v, %v", name, caps, err)
			}
		} else if caps != 0 || !errors.Is(err, c.errno) {
			t.Errorf("%s: %v, %v", name, caps, err)
		}
	}
}

// What does not fit the memlock limit is opened at half the size, or a quarter, or an eighth.
func TestOpenHalves(t *testing.T) {
	needs(t, CapMultishot|CapDeferTaskrun)
	text := inChild(t, "halve")
	t.Log(text)
	var sq, cq uint32
	if n, _ := fmt.Sscanf(text, "opened %d %d", &sq, &cq); n != 2 || sq >= 1024 || sq < 128 || cq != 8*sq {
		t.Errorf("asked for 1024 8192")
	}
}

// The failures of a hostile environment, each in a child process that imposes it on itself.
func TestProbeRefused(t *testing.T) {
	needs(t, CapMultishot)
	for _, c := range []struct{ what, op, errno, reason string }{
		{"seccomp:setup", "io_uring_setup", "EPERM", "blocked by a seccomp filter"},
		{"seccomp:enter", "io_uring_enter", "EPERM", "io_uring_setup is allowed, but io_uring_enter"},
		{"seccomp:register", "io_uring_register", "EPERM", "io_uring_setup is allowed, but io_uring_register"},
		{"enosys:setup", "io_uring_setup", "ENOSYS", "no io_uring"},
		{"memlock", "io_uring_setup", "ENOMEM", "memlock"},
		{"nofile", "io_uring_setup", "EMFILE", "out of descriptors"},
	} {
		t.Run(c.what, func(t *testing.T) {
			text := inChild(t, c.what)
			t.Log(text)
			if !strings.HasPrefix(text, c.op+" "+c.errno+" ") || !strings.Contains(text, c.reason) {
				t.Errorf("want %s %s %q", c.op, c.errno, c.reason)
			}
		})
	}
}

// inChild runs child(what) in a process of its own and returns what it printed.
func inChild(t *testing.T, what string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "RING_TEST_CHILD="+what, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := strings.TrimSpace(string(out))
	if reason, ok := strings.CutPrefix(text, "skip: "); ok {
		t.Skip(reason)
	}
	return text
}

// child imposes what on this process, probes, and prints the outcome.
func child(what string) {
	runtime.LockOSThread()
	must := func(err error) {
		if err != nil {
			fmt.Println("skip:", what+":", err)
			os.Exit(0)
		}
	}
	kind, call, _ := strings.Cut(what, ":")
	nr := map[string]uint32{
		"setup":    unix.SYS_IO_URING_SETUP,
		"enter":    unix.SYS_IO_URING_ENTER,
		"register": unix.SYS_IO_URING_REGISTER,
	}[call]
	switch kind {
	case "seccomp":
		must(forbid(nr, syscall.EPERM))
	case "enosys":
		must(forbid(nr, syscall.ENOSYS))
	case "memlock":
		must(limitMemlock(0))
		if r, err := Open(Config{SQEntries: 8, CQEntries: 16}); err == nil {
			r.Close()
			must(errors.New("this kernel does not charge rings"))
		}
	case "halve":
		must(limitMemlock(64 << 10))
		r, err := OpenForCaps(1024, 8192, CapMultishot|CapDeferTaskrun)
		if err != nil {
			fmt.Println(err)
			return
		}
		if r.SQEntries() == 1024 {
			must(errors.New("this kernel does not charge rings"))
		}
		fmt.Println("opened", r.SQEntries(), r.CQEntries())
		r.Close()
		return
	case "nofile":
		must(syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: 3}))
	}
	_, err := Probe()
	var e *SetupError
	if !errors.As(err, &e) {
		fmt.Printf("no SetupError: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(e.Op, unix.ErrnoName(e.Errno), e)
}

// limitMemlock sets the limit and drops CAP_IPC_LOCK, without which it binds rings from Linux 6.14
// on. The account is the user's, so each process takes a user of its own.
func limitMemlock(bytes uint64) error {
	if err := syscall.Setrlimit(unix.RLIMIT_MEMLOCK, &syscall.Rlimit{Cur: bytes, Max: bytes}); err != nil {
		return err
	}
	return syscall.Setuid(1<<20 + os.Getpid())
}

// forbid makes a system call fail with errno on all threads of this process, for good.
func forbid(nr uint32, errno syscall.Errno) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(prog))); e != 0 {
		return e
	}
	return nil
}

// anonymous is how much memory of its own the process has in use, in bytes. Unlike the size of the address space it
// does not grow with what a runtime or a C library only reserves: 64 MiB for a heap, 8 MiB for a thread's stack.
func anonymous(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	check(t, err)
	_, rest, found := strings.Cut(string(text), "\nRssAnon:")
	var kib int
	if n, err := fmt.Sscan(rest, &kib); !found || n != 1 {
		t.Fatalf("/proc/self/status has no RssAnon: %v", err)
	}
	return kib << 10
}
