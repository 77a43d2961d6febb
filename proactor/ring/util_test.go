//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const testDeadline = 20 * time.Second

func TestMain(m *testing.M) {
	if what := os.Getenv("RING_TEST_CHILD"); what != "" {
		child(what)
		return
	}
	os.Exit(m.Run())
}

var probeOnce = sync.OnceValues(Probe)

// needs locks the test to its thread, sets its deadline, and watches that it leaves no ring behind.
// It skips where the kernel lacks caps.
func needs(t *testing.T, caps Caps) {
	t.Helper()
	have, err := probeOnce()
	if err != nil {
		t.Skip(err)
	}
	if !have.Has(caps) {
		t.Skipf("needs %v, the kernel has %v", caps, have)
	}
	runtime.LockOSThread()
	watchdog := time.AfterFunc(testDeadline, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s hangs\n%s", t.Name(), buf[:runtime.Stack(buf, true)]))
	})
	before := descriptors(t) // after the timer, with which the runtime opens an eventfd of its own
	t.Cleanup(func() {
		watchdog.Stop()
		runtime.UnlockOSThread()
		if n := ringMappings(t); n != 0 {
			t.Errorf("%d ring mappings are left", n)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// tiers runs f on a ring of every tier the kernel has, and on one that is entered by its registered
// index.
func tiers(t *testing.T, sq, cq uint32, f func(t *testing.T, r *Ring)) {
	t.Helper()
	for _, caps := range []Caps{CapMultishot, CapMultishot | CapDeferTaskrun} {
		t.Run(caps.String(), func(t *testing.T) { f(t, open(t, sq, cq, caps)) })
	}
	t.Run("registered", func(t *testing.T) {
		r := open(t, sq, cq, CapMultishot|CapDeferTaskrun)
		register(t, r)
		f(t, r)
	})
}

// open opens a ring for the rest of the test.
func open(t *testing.T, sq, cq uint32, caps Caps) *Ring {
	t.Helper()
	needs(t, caps)
	r, err := OpenForCaps(sq, cq, caps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 { // the second does nothing
			if err := r.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	return r
}

// register has r entered by its registered index, or skips the test.
func register(t *testing.T, r *Ring) {
	t.Helper()
	if err := r.RegisterFD(); errors.Is(err, syscall.EINVAL) {
		t.Skip("this kernel registers no rings")
	} else if err != nil {
		t.Fatal(err)
	}
}

// descriptors counts the process's sockets, eventfds and rings: what these tests open.
func descriptors(t *testing.T) (n int) {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dir {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.HasPrefix(target, "socket:") || target == "anon_inode:[io_uring]" || target == "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

func ringMappings(t *testing.T) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "[io_uring]")
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry takes a submission entry that must be there.
func entry(t *testing.T, r *Ring, ud uint64) *SQE {
	t.Helper()
	s := r.SQE()
	if s == nil {
		t.Fatal("the submission queue is full")
	}
	s.UserData = ud
	return s
}

// reap waits for the next completion and returns a copy.
func reap(t *testing.T, r *Ring) CQE {
	t.Helper()
	c, err := r.awaitOne()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// memory maps n bytes for the rest of the test. It outlives the ring when asked for before it.
func memory(t *testing.T, n int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	check(t, err)
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// pair is a socketpair that is closed at the end, unless the test did so.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func bufRing(t *testing.T, r *Ring, entries, group uint16, incremental bool) *BufRing {
	t.Helper()
	b, err := r.NewBufRing(entries, group, incremental)
	check(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close of the buffer ring: %v", err)
		}
	})
	return b
}

// sockaddr is the address of a loopback port, off the heap.
func sockaddr(t *testing.T, port int) (unsafe.Pointer, uint32) {
	t.Helper()
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&memory(t, unix.SizeofSockaddrInet4)[0]))
	sa.Family = unix.AF_INET
	sa.Addr = [4]byte{127, 0, 0, 1}
	p := (*[2]byte)(unsafe.Pointer(&sa.Port))
	p[0], p[1] = byte(port>>8), byte(port)
	return unsafe.Pointer(sa), unix.SizeofSockaddrInet4
}

// tcp is a socket bound to a free loopback port, listening if asked to.
func tcp(t *testing.T, listen bool) (fd, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if listen {
		check(t, unix.Listen(fd, 16))
	}
	sa, err := unix.Getsockname(fd)
	check(t, err)
	return fd, sa.(*unix.SockaddrInet4).Port
}

func errnoIn(res int32) syscall.Errno {
	if res < 0 {
		return syscall.Errno(-res)
	}
	return 0
}
