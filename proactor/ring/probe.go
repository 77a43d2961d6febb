//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	probeTimeout = 2 * time.Second

	// A closed ring's memory returns to the memlock limit some milliseconds after close(2).
	enomemRetries  = 6
	enomemDelay    = 2 * time.Millisecond // doubled each time: 126 ms in all
	enomemHalvings = 3
)

// Probe finds out, by doing, what io_uring can do here: it opens a small ring, asks for the
// operations, runs one, and receives bytes from a socketpair into provided buffers. It does not
// look at version numbers, because distributions backport, nor does it trust setup alone, because a
// seccomp filter may allow that and nothing else. It takes milliseconds, leaves nothing behind, and
// may be called from any goroutine; the caller keeps the answer. An error is a *SetupError.
func Probe() (Caps, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return probe(OpenForCaps)
}

// probe is Probe with what opens a ring.
func probe(open func(sq, cq uint32, caps Caps) (*Ring, error)) (Caps, error) {
	caps := CapMultishot | CapDeferTaskrun
	r, err := open(8, 16, caps)
	if errors.Is(err, syscall.EINVAL) {
		caps = CapMultishot
		r, err = open(8, 16, caps)
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()

	for _, step := range []func(*Ring) error{probeOperations, probeNop, probeReceive} {
		if err := step(r); err != nil {
			return 0, setupError(err)
		}
	}
	b, err := r.NewBufRing(8, 1, true)
	if err == nil {
		caps |= CapIncremental
		err = b.Close()
	} else if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	if err != nil {
		return 0, setupError(err)
	}
	return caps, nil
}

// OpenForCaps opens a ring with the setup flags that suit caps, on the calling thread, which
// becomes its owner. A ring closed shortly before may still count against the memlock limit, so on
// ENOMEM it tries again for about a tenth of a second, then with half the sizes, down to an eighth:
// see SQEntries and CQEntries for what came out. It may sleep. An error is a *SetupError.
func OpenForCaps(sq, cq uint32, caps Caps) (*Ring, error) {
	flags := SetupSubmitAll | SetupSingleIssuer
	if caps.Has(CapDeferTaskrun) {
		flags |= SetupDeferTaskrun
	} else {
		flags |= SetupCoopTaskrun
	}
	var r *Ring
	var err error
	for halved := 0; halved <= enomemHalvings && (sq > 0 || halved == 0); halved++ {
		for try, delay := 0, enomemDelay; ; try, delay = try+1, 2*delay {
			r, err = Open(Config{sq, cq, flags})
			if err == nil {
				return r, nil
			}
			if !errors.Is(err, syscall.ENOMEM) {
				return nil, setupError(err)
			}
			// The waiting is for memory on its way back; what did not come by now will not come for
			// a smaller ring.
			if halved > 0 || try == enomemRetries {
				break
			}
			time.Sleep(delay)
		}
		sq, cq = sq/2, cq/2
	}
	return nil, setupError(err)
}

// setupError explains an *Error of this package.
func setupError(err error) *SetupError {
	var e *Error
	if !errors.As(err, &e) {
		return explain("probe", syscall.EIO, "")
	}
	sysctl := ""
	if e.Errno == syscall.EPERM {
		text, _ := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
		sysctl = string(text)
	}
	return explain(e.Op, e.Errno, sysctl)
}

// probeOperations asks whether the kernel knows every operation of the engine. Sending without a
// copy is of the same release as multishot receive, for which there is no bit.
func probeOperations(r *Ring) error {
	p := new(probeOps)
	if err := r.Register(RegisterProbe, unsafe.Pointer(p), uint32(len(p.ops))); err != nil {
		return err
	}
	for _, op := range []uint8{OpNop, OpPollAdd, OpSendMsg, OpRecvMsg, OpAccept, OpAsyncCancel, OpConnect,
		OpClose, OpRead, OpSend, OpRecv, OpSocket, OpSendZC} {
		if p.ops[op].flags&opSupported == 0 {
			return &Error{"io_uring_register", syscall.EOPNOTSUPP}
		}
	}
	return nil
}

func probeNop(r *Ring) error {
	r.SQE().Nop()
	if err := r.Submit(); err != nil {
		return err
	}
	c, err := r.awaitOne()
	if err == nil && c.Res != 0 {
		err = &Error{"io_uring_enter", syscall.Errno(-c.Res)}
	}
	return err
}

// probeReceive receives into a provided buffer with a multishot operation, and cancels that by its
// descriptor.
func probeReceive(r *Ring) (err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return &Error{"socketpair", err.(syscall.Errno)}
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	const group, size = 1, 64
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return &Error{"mmap", err.(syscall.Errno)}
	}
	defer unix.Munmap(mem)
	b, err := r.NewBufRing(1, group, false)
	if err != nil {
		return err
	}
	defer b.Close()
	b.Add(unsafe.Pointer(&mem[0]), size, 0)
	b.Publish()

	const received, cancelled = 1, 2
	s := r.SQE()
	s.RecvMultishot(fds[0], group)
	s.UserData = received
	if err := r.Submit(); err != nil {
		return err
	}
	if _, err := unix.Write(fds[1], []byte{42}); err != nil {
		return &Error{"write", err.(syscall.Errno)}
	}
	c, err := r.awaitOne()
	switch {
	case err != nil:
		return err
	case c.Res < 0:
		return &Error{"io_uring_enter", syscall.Errno(-c.Res)}
	case c.Res != 1 || c.Flags&(CQEFBuffer|CQEFMore) != CQEFBuffer|CQEFMore || mem[0] != 42:
		return &Error{"io_uring_enter", syscall.EOPNOTSUPP}
	}
	s = r.SQE()
	s.CancelFD(fds[0])
	s.UserData = cancelled
	if err := r.Submit(); err != nil {
		return err
	}
	// Two completions, in either order: the cancellation's, and the receive's last.
	for range 2 {
		if c, err = r.awaitOne(); err != nil {
			return err
		}
		if c.UserData == cancelled && c.Res != 1 || c.UserData == received && c.Res != -int32(syscall.ECANCELED) {
			return &Error{"io_uring_enter", syscall.EOPNOTSUPP}
		}
	}
	return nil
}

// awaitOne waits for a completion, and reaps and copies it.
func (r *Ring) awaitOne() (CQE, error) {
	deadline := time.Now().Add(probeTimeout)
	for r.Ready() == 0 {
		left := time.Until(deadline)
		if left <= 0 {
			return CQE{}, &Error{"io_uring_enter", syscall.ETIME}
		}
		if err := r.Wait(left, 1); err != nil {
			return CQE{}, err
		}
	}
	c := *r.CQE(0)
	r.Advance(1)
	return c, nil
}
