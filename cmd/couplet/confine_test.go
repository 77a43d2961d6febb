//go:build linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet/engines"
)

// confineEnv, set to an errno, makes this test binary the command in a process
// where io_uring_setup fails with it, as in a container.
const confineEnv = "COUPLET_TEST_URING_ERRNO"

// confined becomes the command, confined, if the environment says so.
func confined() bool {
	text := os.Getenv(confineEnv)
	if text == "" {
		return false
	}
	errno, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	// The filter is read during the call only, which prog outlives.
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		panic(err)
	}
	panic(syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

// confine is the command where io_uring_setup fails with errno.
func confine(errno syscall.Errno, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{binary}, args...)...)
	cmd.Env = append(os.Environ(), confineEnv+"="+strconv.Itoa(int(errno)))
	return cmd
}

func TestWithoutUringAutoTakesEpollAndSaysWhy(t *testing.T) {
	t.Parallel()
	for errno, why := range map[syscall.Errno]string{
		syscall.EPERM:  "seccomp",
		syscall.ENOSYS: "no io_uring",
		syscall.EACCES: "security policy",
	} {
		// Also with -q: a fallback is never silent.
		s := serveCmd(t, confine(errno, "serve", "poem", "-q", "--fast"))
		o := beginCmd(t, confine(errno, "fetch", "--print", s.addr)).end().want(t, 0)
		if o.stdout != poem("ozymandias") {
			t.Errorf("%v: got %d bytes", errno, len(o.stdout))
		}
		s.signal(syscall.SIGTERM)
		if status := s.end(); status != 0 {
			t.Errorf("%v: exit status %d", errno, status)
		}
		for _, stderr := range []string{o.stderr, s.stderr.text()} {
			line, _, _ := strings.Cut(stderr, "\n")
			if !strings.HasPrefix(line, "Engine epoll: ") || !strings.Contains(line, why) {
				t.Errorf("%v: engine line %q; want epoll, and %q", errno, line, why)
			}
		}
	}
}

func TestForcedUringFailsWithItsRemedy(t *testing.T) {
	t.Parallel()
	if engines.Check(engines.Uring) != nil {
		t.Skip("there is no io_uring in this build")
	}
	for errno, remedy := range map[syscall.Errno]string{
		syscall.EPERM:  "allow io_uring_setup",
		syscall.ENOSYS: "run on Linux 6.1",
		syscall.ENOMEM: "ulimit -l",
	} {
		for _, args := range []string{"serve poem", "fetch 1", "demo --fast"} {
			o := beginCmd(t, confine(errno, append(strings.Fields(args), "--engine=uring")...)).end().want(t, 1)
			if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, remedy) || !strings.Contains(o.stderr, "--engine=epoll") || o.stdout != "" {
				t.Errorf("%v, %s: %q; want one line with %q", errno, args, o.stderr, remedy)
			}
			if o.took > 3*time.Second {
				t.Errorf("%v, %s: it took %v", errno, args, o.took)
			}
		}
	}
}

// Without io_uring bench took one sample after the other, each of which failed, and the
// remedy was a flag that neither it nor trace takes.
func TestWithoutUringBenchAndTraceSayItOnce(t *testing.T) {
	t.Parallel()
	if engines.Check(engines.Uring) != nil {
		t.Skip("there is no io_uring in this build")
	}
	for args, says := range map[string]string{
		"bench --quick":                                "or use the epoll engine (--engines epoll,goroutine)",
		"bench --quick --engines epoll,uring-u3":       "couplet: uring-u3 cannot be measured: ",
		"bench --ablate --workload echo --quick":       "--engines epoll,goroutine",
		"trace":                                        "or use the epoll engine (which trace cannot show alone)",
		"bench --quick --engines epoll,uring/2":        "allow io_uring_setup",
		"bench --engines uring,epoll --workload churn": "io_uring_setup",
	} {
		o := beginCmd(t, confine(syscall.EPERM, strings.Fields(args)...)).end().want(t, 1)
		if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, says) || strings.Contains(o.stderr, "--engine=") || o.stdout != "" {
			t.Errorf("%s: stdout %q, stderr %q; want one line with %q", args, o.stdout, o.stderr, says)
		}
	}
	beginCmd(t, confine(syscall.EPERM, tiny...)).end().want(t, 0)
}

func TestBenchAsksTheAgentForUring(t *testing.T) {
	t.Parallel()
	if engines.Check(engines.Uring) != nil {
		t.Skip("there is no io_uring in this build")
	}
	a := awaitAgent(beginCmd(t, confine(syscall.EPERM, "bench", "agent")))
	o := couple(t, a.remote("uring,epoll", "-q")...).want(t, 1)
	if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "couplet: uring cannot be measured: there is no io_uring on the agent's machine") {
		t.Errorf("stderr %q", o.stderr)
	}
	a.end().want(t, 0)
}

// More connections than descriptors were found out sample by sample.
func TestBenchCountsDescriptorsBeforehand(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -n 200; exec "$0" "$@"`, binary}, tinyOf("epoll,goroutine")...)...)
	cmd.Args = append(cmd.Args, "--connections", "190")
	o := beginCmd(t, cmd).end().want(t, 1)
	if want := "couplet: echo 190 x 64 B, depth 1 needs 222 descriptors in one process, and 200 are allowed; take fewer --connections, or raise the limit: ulimit -n 222\n"; o.stderr != want || o.stdout != "" {
		t.Errorf("stdout %q, stderr %q; want %q", o.stdout, o.stderr, want)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	text := couple(t, "doctor").want(t, 0).stdout
	for _, want := range []string{"kernel", "open files", "locked memory", "ring binding", engines.Binding, "io_uring", "engines", "chosen", "obstacles"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	var r engines.Report
	if err := json.Unmarshal([]byte(couple(t, "doctor", "--json").want(t, 0).stdout), &r); err != nil {
		t.Error(err)
	}
	if r.Chosen == "" || len(r.Engines) != len(engines.Names()) || r.Kernel == "" {
		t.Errorf("%+v", r)
	}
}

func TestDoctorNamesTheRemedyWhereThereIsNoUring(t *testing.T) {
	t.Parallel()
	text := beginCmd(t, confine(syscall.EPERM, "doctor")).end().want(t, 0).stdout
	for _, want := range []string{"chosen", "epoll", "remedy: allow io_uring_setup", "uring refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	var r engines.Report
	if err := json.Unmarshal([]byte(beginCmd(t, confine(syscall.EPERM, "doctor", "--json")).end().want(t, 0).stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Chosen != engines.Epoll || r.Uring.Error == "" || r.Uring.Tier != "none" ||
		!slices.ContainsFunc(r.Obstacles, func(o engines.Obstacle) bool { return strings.Contains(o.Remedy, "io_uring_setup") }) {
		t.Errorf("%+v", r)
	}
}

func TestDemoGoesOnWithoutUring(t *testing.T) {
	t.Parallel()
	o := beginCmd(t, confine(syscall.EPERM, "demo", "--fast")).end().want(t, 0)
	if !strings.HasPrefix(o.stderr, "couplet: uring: left out: io_uring_setup: ") || !strings.HasSuffix(o.stderr, "; see couplet doctor\n") || !strings.Contains(o.stdout, "kernel crossings") {
		t.Errorf("stdout %s\nstderr %s", o.stdout, o.stderr)
	}
}

// On a terminal there are live bars in place of the lines of arrivals.
func TestBarsOnATerminal(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--num-bytes", "100", "--delay", "50ms")
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"fetch", s.addr, freePort(t)}, []string{"Task 1: 127.0.0.1:" + s.addr, "628 bytes", "\x1b[2A", "Task 2: failed: ", "Got 1 of 2 poems in "}},
		{[]string{"demo", "--fast", "--engine", "goroutine"}, []string{"goroutine one by one  The Tyger", "█", "3003 / 3003", "kernel crossings"}},
	} {
		p := onTerminal(t, true, nil, c.args...)
		p.end()
		got := p.raw.String()
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: no %q in:\n%q", c.args, want, got)
			}
		}
		if strings.Contains(got, "of poetry from") {
			t.Errorf("%v: bars and lines both:\n%q", c.args, got)
		}
	}
}
