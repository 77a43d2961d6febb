//go:build linux

package reactor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/loop"
	"couplet/internal/testpeer"
	"couplet/poetry"
)

// open makes an engine, which ends after the test and whatever that defers.
func open(t *testing.T) couplet.Engine {
	e, err := New(couplet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	testpeer.EndAfter(t, e)
	return e
}

// driven is an engine that logs nothing and ends after the test, and its loop's driver.
func driven(t *testing.T) (couplet.Engine, *driver) {
	var d *driver
	config := couplet.Config{Logger: slog.New(slog.DiscardHandler)}
	e, err := loop.NewEngine("epoll", config, loop.Kernel{}, func(l *loop.Loop) (loop.Driver, error) {
		made, err := newDriver(l)
		d, _ = made.(*driver)
		return made, err
	})
	if err != nil {
		t.Fatal(err)
	}
	testpeer.EndAfter(t, e)
	return e, d
}

// A listener that the poller would not watch was armed again at once, and refused
// again, for ever: the loop span. It is the listener's error now, and the loop
// serves others.
func TestAListenerThatThePollerRefusesEnds(t *testing.T) {
	e, d := driven(t)
	// In one turn: a poller that refuses everything, the listener, the poller as
	// it was.
	l := e.Loops()[0]
	held, gathered := make(chan bool), make(chan bool)
	l.Post(func() { held <- true; <-gathered })
	<-held
	var poller int
	l.Post(func() { poller, d.poller.fd = d.poller.fd, -1 })
	refused, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
	if err != nil {
		t.Fatal(err)
	}
	l.Post(func() { d.poller.fd = poller })
	close(gathered)
	select {
	case <-refused.Closed():
	case <-time.After(20 * time.Second):
		t.Fatalf("the listener lives; %d turns", e.Stats().Turns)
	}

	served, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", served.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the loop does not serve: %v", err)
	}
}

// A poller that cannot wait any more is the engine's end, and its error says why.
func TestAPollerThatFailsEndsTheEngine(t *testing.T) {
	e, d := driven(t)
	poller := make(chan int, 1)
	e.Loops()[0].Post(func() {
		poller <- d.poller.fd
		d.poller.fd = -1
	})
	defer func() { unix.Close(<-poller) }()
	select {
	case <-e.Done():
	case <-time.After(20 * time.Second):
		t.Fatalf("the engine lives; %d turns", e.Stats().Turns)
	}
	if err := e.Err(); !errors.Is(err, unix.EBADF) || !strings.HasSuffix(err.Error(), ": epoll_pwait: bad file descriptor") {
		t.Errorf("its error is %v", err)
	}
}

// unwatchable puts a file that cannot be watched in the place of its socket.
type unwatchable struct {
	t    *testing.T
	lost chan error
}

func (p unwatchable) ConnectionMade(t couplet.Transport) {
	rc, err := t.SyscallConn()
	if err == nil {
		err = rc.Control(func(fd uintptr) {
			f, err := os.Open("/proc/self/status")
			if err == nil {
				err = unix.Dup3(int(f.Fd()), int(fd), unix.O_CLOEXEC)
				f.Close()
			}
			if err != nil {
				p.t.Error(err)
			}
		})
	}
	if err != nil {
		p.t.Error(err)
	}
}

func (p unwatchable) DataReceived(couplet.Transport, []byte)           {}
func (p unwatchable) ConnectionLost(_ couplet.Transport, reason error) { p.lost <- reason }

// A connection that the poller would not watch was told so only when something
// else woke the loop.
func TestAConnectionThatThePollerRefusesEndsAtOnce(t *testing.T) {
	e := open(t)
	p := unwatchable{t, make(chan error, 1)}
	l, c := testpeer.Dial(t, e, "tcp", p)
	defer c.Close()
	select {
	case reason := <-p.lost:
		if !errors.Is(reason, syscall.EPERM) {
			t.Errorf("the reason is %v", reason)
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection lives")
		l.Close() // wakes the loop
	}
}

// forbidAdding makes epoll_ctl(EPOLL_CTL_ADD) fail with failure on this thread.
func forbidAdding(failure unix.Errno) error {
	const number, op = 0, 16 + 8 // offsets in the data that a filter sees
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_EPOLL_CTL},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: op},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.EPOLL_CTL_ADD},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(failure)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	return nil
}

// talker has more to say than a socket takes.
type talker struct{ lost chan<- error }

func (talker) ConnectionMade(t couplet.Transport)              { t.Write(make([]byte, 16<<20)) }
func (talker) DataReceived(couplet.Transport, []byte)          {}
func (p talker) ConnectionLost(_ couplet.Transport, err error) { p.lost <- err }

// A connection that the kernel had no memory to watch, while a send waited, was told of a
// send that failed for the moment: it tried again every 5 ms, and never received again.
func TestAConnectionThatCannotBeWatchedIsLost(t *testing.T) {
	e, err := New(couplet.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
	}()
	lost := make(chan error, 1)
	l, first := testpeer.Dial(t, e, "tcp4", talker{lost}, couplet.SendBuffer(8192))
	// From its first byte on the listener is watched.
	if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	<-lost
	forbidden := make(chan error)
	e.Loops()[0].Post(func() { forbidden <- forbidAdding(unix.ENOMEM) })
	if err := <-forbidden; err != nil {
		t.Skip(err)
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err == nil {
		defer c.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) { // which may come before the dial is told of its success
		t.Fatal(err)
	}
	outOfMemory(t, e, lost)
}

// outOfMemory waits for the end of a connection or a dial, which must be that.
func outOfMemory(t *testing.T, e couplet.Engine, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, unix.ENOMEM) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("it has no end; %d turns", e.Stats().Turns)
	}
}

// A dial that the kernel would not watch fails at once, by the kernel's error.
func TestADialThatCannotBeWatchedFails(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := open(t)
	outcome := make(testpeer.Attempt, 1)
	e.Loops()[0].Post(func() {
		err := forbidAdding(unix.ENOMEM)
		if err == nil {
			err = e.Dial(t.Context(), "tcp4", l.Addr().String(), outcome)
		}
		if err != nil {
			t.Error(err)
			outcome <- unix.ENOMEM
		}
	})
	outOfMemory(t, e, outcome)
}

// unread is a protocol that lets what arrives lie in the socket.
type unread struct {
	served   chan<- couplet.Transport
	received chan<- int
}

func (p unread) ConnectionMade(t couplet.Transport) {
	t.PauseReading()
	p.served <- t
}
func (p unread) DataReceived(_ couplet.Transport, data []byte) { p.received <- len(data) }
func (unread) ConnectionLost(couplet.Transport, error)         {}

// A message of 64 KiB just filled what is received into, and a read that fills it is
// followed by another: each such message cost a call that found nothing.
func TestAMessageOf64KiBIsReadByOneCall(t *testing.T) {
	e := open(t)
	const size = 64 << 10
	served, received := make(chan couplet.Transport, 1), make(chan int, size)
	_, c := testpeer.Dial(t, e, "tcp4", unread{served, received})
	defer c.Close()
	deadline := time.Now().Add(20 * time.Second)
	c.SetDeadline(deadline)
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	tr := <-served
	var reads []int
	e.Loops()[0].(*loop.Loop).TraceTo(func(_ time.Time, layer, what string, n int, _ string) {
		if layer == string(loop.Call) && what == "recvfrom" {
			reads = append(reads, n)
		}
	})
	resumed := make(chan error, 1)
	e.Loops()[0].Post(func() {
		rc, err := tr.SyscallConn()
		for there := 0; err == nil && there < size; {
			if time.Now().After(deadline) {
				err = os.ErrDeadlineExceeded
				break
			}
			rc.Control(func(fd uintptr) { there, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
		}
		tr.ResumeReading()
		resumed <- err
	})
	if err := <-resumed; err != nil {
		t.Fatal(err)
	}
	<-received
	traced := make(chan []int, 1)
	e.Loops()[0].Post(func() { traced <- reads })
	if reads := <-traced; !slices.Equal(reads, []int{size}) {
		t.Errorf("the calls received %d", reads)
	}
}

// resumes reads when its peer has taken what it writes.
type resumes struct {
	made chan couplet.Handle
	lost chan error
}

func (p resumes) ConnectionMade(t couplet.Transport) {
	t.PauseReading()
	p.made <- t.Handle()
}
func (p resumes) DataReceived(couplet.Transport, []byte)        {}
func (p resumes) WritePaused(couplet.Transport)                 {}
func (p resumes) WriteResumed(t couplet.Transport)              { t.ResumeReading() }
func (p resumes) ConnectionLost(_ couplet.Transport, err error) { p.lost <- err }

// A send that had to wait where the kernel had no watch for it left a paused connection
// without any further word: the error was kept for ResumeReading, which waited for the send.
func TestASendThatCannotBeWatchedWasForgotten(t *testing.T) {
	const size = 8 << 20
	for _, errno := range []unix.Errno{unix.ENOMEM, unix.ENOSPC} {
		e := open(t)
		p := resumes{make(chan couplet.Handle, 1), make(chan error, 1)}
		_, c := testpeer.Dial(t, e, "tcp4", p)
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		(<-p.made).Post(func(tr couplet.Transport) {
			if err := forbidAdding(errno); err != nil {
				t.Error(err)
			}
			tr.Write(make([]byte, size))
		})
		n, _ := io.CopyN(io.Discard, c, size)
		if n == size { // for memory the send asks again; to be read it must be watched
			continue
		}
		select {
		case err := <-p.lost:
			if !errors.Is(err, errno) {
				t.Errorf("%v: lost with %v", errno, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%v: %d of %d bytes, and nobody is told", errno, n, size)
		}
	}
}

// Who had to wait to send, and has sent all, is not watched for room any more: there is
// always some, and the poller would tell of it without end.
func TestWhoHasSentIsNotToldOfRoom(t *testing.T) {
	e, d := driven(t)
	const size = 8 << 20
	_, c := testpeer.Dial(t, e, "tcp4", writes{size})
	defer c.Close()
	deadline := time.Now().Add(20 * time.Second)
	c.SetDeadline(deadline)
	watched := func(want interest) {
		t.Helper()
		is := make(chan interest)
		for got := interest(0); got != want; {
			if time.Now().After(deadline) {
				t.Fatalf("it is watched for %#x, not %#x", got, want)
			}
			e.Loops()[0].Post(func() { is <- d.conns.At(0).interest })
			got = <-is
		}
	}
	watched(readable | writable)
	if _, err := io.CopyN(io.Discard, c, size); err != nil {
		t.Fatal(err)
	}
	watched(readable)
}

// writes sends Buffers of these sizes.
type writes []int

func (p writes) ConnectionMade(t couplet.Transport) {
	for _, n := range p {
		b := couplet.NewBuffer(make([]byte, n), nil)
		t.WriteBuffer(b)
		b.Release()
	}
}
func (p writes) DataReceived(couplet.Transport, []byte)  {}
func (p writes) ConnectionLost(couplet.Transport, error) {}

// What a send gathers is let go with it: a driver that sends little else would keep that memory.
func TestWhatWasGatheredIsNotKept(t *testing.T) {
	for _, sizes := range []writes{{1, 1, 1}, {loop.MaxSend, 1}, {loop.MaxSend + 1, 1}, {loop.MaxSend - 1, 2, 1}} {
		e, d := driven(t)
		_, c := testpeer.Dial(t, e, "tcp4", sizes)
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		all := int64(0)
		for _, n := range sizes {
			all += int64(n)
		}
		if n, err := io.CopyN(io.Discard, c, all); err != nil {
			t.Fatalf("%d: %d bytes came, then: %v", sizes, n, err)
		}
		kept := make(chan int, 1)
		e.Loops()[0].Post(func() {
			kept <- slices.IndexFunc(d.gather.List[:], func(v unix.Iovec) bool { return v.Base != nil })
		})
		if i := <-kept; i >= 0 {
			t.Errorf("%d: piece %d of what was gathered is still there", sizes, i)
		}
	}
}

// A unix listening socket that somebody had shut down was reported again and again, and
// nobody was there to accept.
func TestAUnixListenerThatWasShutDownSpun(t *testing.T) {
	for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
		e := open(t)
		l, err := e.Listen("unix", filepath.Join(t.TempDir(), "s"), couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return nil }))
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Shutdown(int(f.Fd()), how); err != nil {
			t.Fatal(err)
		}
		select {
		case <-l.Closed():
		case <-time.After(10 * time.Second):
			t.Errorf("%d: it is not closed after %d turns", how, e.Stats().Turns)
		}
	}
}

// A listener's id is new each time that it is armed, and with a limit that is with each
// connection: after 2^32 of them it was another listener's, which served nobody from then on, or
// had its connections served by the wrong one.
func TestAListenersIDWasGivenTwice(t *testing.T) {
	e, d := driven(t)
	testpeer.Three(t, e, func() { d.nextID = math.MaxUint32 })
}

// A loop that found no descriptor to begin with did not say what to do about it.
func TestALoopWithoutADescriptorHadNoRemedy(t *testing.T) {
	var epoll, eventfd error
	testpeer.WithoutDescriptors(t, func() {
		_, epoll = newPoller(nil)
		_, eventfd = loop.NewWaker()
	})
	const remedy = ": too many open files; raise `ulimit -n` (LimitNOFILE= in systemd), or use fewer loops"
	for call, err := range map[string]error{"epoll_create1": epoll, "eventfd": eventfd} {
		if !errors.Is(err, unix.EMFILE) || err.Error() != call+remedy {
			t.Errorf("the error is %v, not %s%s", err, call, remedy)
		}
	}
}
