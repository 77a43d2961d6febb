//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestNopRoundtrip(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		if r.SQEntries() != 8 || r.CQEntries() != 16 || r.Features()&FeatExtArg == 0 || r.FD() < 0 {
			t.Fatalf("sq %d, cq %d, features %#x, fd %d", r.SQEntries(), r.CQEntries(), r.Features(), r.FD())
		}
		// More rounds than entries, so that every index wraps; several at once, so that CQE sees
		// more than the head.
		for round := range uint64(100) {
			n := uint32(1 + round%8)
			for i := range n {
				entry(t, r, round<<8|uint64(i)).Nop()
			}
			if r.Queued() != n {
				t.Fatalf("queued %d of %d", r.Queued(), n)
			}
			enters := r.Enters()
			check(t, r.Wait(time.Second, n))
			if r.Enters() != enters+1 || r.Queued() != 0 {
				t.Fatalf("%d enters, %d still queued", r.Enters()-enters, r.Queued())
			}
			if r.Ready() != n {
				t.Fatalf("round %d: %d of %d ready", round, r.Ready(), n)
			}
			for i := range n {
				if c := r.CQE(i); c.UserData != round<<8|uint64(i) || c.Res != 0 {
					t.Fatalf("round %d: completion %d is %+v", round, i, *c)
				}
			}
			r.Advance(n)
			if r.Ready() != 0 || r.OverflowCount() != 0 {
				t.Fatalf("%d ready after the last, %d dropped", r.Ready(), r.OverflowCount())
			}
		}
	})
}

func TestSubmitOfNothingStaysOut(t *testing.T) {
	r := open(t, 8, 16, CapMultishot)
	check(t, r.Submit())
	if r.Enters() != 0 {
		t.Fatal("entered the kernel with nothing to submit")
	}
	check(t, r.Poll())
	if r.Enters() != 1 {
		t.Fatal("Poll did not enter the kernel")
	}
}

func TestFullQueueIsNilUntilSubmit(t *testing.T) {
	tiers(t, 4, 64, func(t *testing.T, r *Ring) {
		for range 10 {
			for range 4 {
				entry(t, r, 0).Nop()
			}
			if r.SQE() != nil || r.Queued() != 4 {
				t.Fatalf("an entry beyond the queue; %d queued", r.Queued())
			}
			check(t, r.Submit())
			if r.Queued() != 0 {
				t.Fatalf("%d queued after Submit", r.Queued())
			}
		}
		for n := range 40 {
			if c := reap(t, r); c.Res != 0 {
				t.Fatalf("completion %d: %+v", n, c)
			}
		}
	})
}

// A slot's previous use must not show: stale flags make the kernel refuse, or worse, obey.
func TestEntriesAreZeroed(t *testing.T) {
	r := open(t, 4, 16, CapMultishot)
	for range 3 {
		for range 4 {
			s := r.SQE()
			if b := *(*[64]byte)(unsafe.Pointer(s)); b != [64]byte{} {
				t.Fatalf("a used entry: % x", b)
			}
			for i := range (*[64]byte)(unsafe.Pointer(s)) {
				(*[64]byte)(unsafe.Pointer(s))[i] = 0xff
			}
			s.Opcode, s.Flags = OpNop, 0
		}
		check(t, r.Submit())
		for range 4 {
			reap(t, r)
		}
	}
}

func TestTimedWait(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		for _, d := range []time.Duration{0, time.Microsecond, 3 * time.Millisecond, 30 * time.Millisecond} {
			start := time.Now()
			check(t, r.Wait(d, 1))
			// Signals of the runtime may end a wait early, but they are rare: one of a few tries
			// must last.
			took := time.Since(start)
			for try := 0; took < d && try < 10; try++ {
				start = time.Now()
				check(t, r.Wait(d, 1))
				took = time.Since(start)
			}
			if took < d || took > d+2*time.Second {
				t.Errorf("a wait of %v took %v", d, took)
			}
		}
	})
}

// Under signals a wait may return early, without an error, and the caller who looks at the clock
// and waits for the rest is on time.
func TestTimedWaitUnderSignals(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		done, stopped := make(chan struct{}), make(chan struct{})
		pid, tid := unix.Getpid(), unix.Gettid()
		go func() {
			defer close(stopped)
			for {
				select {
				case <-done:
					return
				default:
					unix.Tgkill(pid, tid, unix.SIGURG) // the runtime's own preemption signal, which it expects at any time
					time.Sleep(200 * time.Microsecond)
				}
			}
		}()
		defer func() { close(done); <-stopped }()
		const d = 60 * time.Millisecond
		for _, queued := range []bool{false, true} {
			deadline := time.Now().Add(d)
			var early int
			for left := d; left > 0; left = time.Until(deadline) {
				if queued {
					// A signal after the submission is reported as a success, not as EINTR.
					entry(t, r, 1).Nop()
				}
				check(t, r.Wait(left, 2))
				r.Advance(r.Ready())
				early++
			}
			if late := time.Since(deadline); late > 2*time.Second {
				t.Errorf("late by %v", late)
			}
			t.Logf("%d waits", early)
		}
	})
}

// The kernel adds its own time to a wait's, so that the longest might be over at once.
func TestWaitWithoutLimit(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		efd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		check(t, err)
		defer unix.Close(efd)
		value := memory(t, 8)
		for _, d := range []time.Duration{-1, endless - 1, endless, math.MaxInt64 - time.Second, math.MaxInt64} {
			for round := range 3 {
				entry(t, r, 7).Read(efd, unsafe.Pointer(&value[0]), 8)
				go func() {
					time.Sleep(time.Duration(round) * 10 * time.Millisecond)
					unix.Write(efd, []byte{3, 0, 0, 0, 0, 0, 0, 0})
				}()
				early := -1
				for ; r.Ready() == 0; early++ {
					check(t, r.Wait(d, 1))
				}
				if early > 20 { // some may be: the runtime's signals end a wait
					t.Errorf("%d waits of %v were over early", early, d)
				}
				if c := reap(t, r); c.UserData != 7 || c.Res != 8 || value[0] != 3 {
					t.Fatalf("%+v, value %v", c, value)
				}
				value[0] = 0
			}
		}
	})
}

func TestPollMultishot(t *testing.T) {
	r := open(t, 8, 16, CapMultishot)
	a, b := pair(t)
	entry(t, r, 1).PollMultishot(a, unix.POLLIN)
	entry(t, r, 2).PollAdd(a, unix.POLLIN)
	check(t, r.Submit())
	_, err := unix.Write(b, []byte("x"))
	check(t, err)
	for range 2 {
		switch c := reap(t, r); {
		case c.Res < 0 || c.Res&unix.POLLIN == 0:
			t.Fatalf("%+v", c)
		case (c.UserData == 1) != (c.Flags&CQEFMore != 0):
			t.Fatalf("the wrong one goes on: %+v", c)
		}
	}
	entry(t, r, 3).CancelUserData(1)
	for range 2 {
		switch c := reap(t, r); {
		case c.UserData == 3 && c.Res != 0,
			c.UserData == 1 && (errnoIn(c.Res) != syscall.ECANCELED || c.Flags&CQEFMore != 0):
			t.Fatalf("%+v", c)
		}
	}
	entry(t, r, 4).CancelUserData(1)
	if c := reap(t, r); errnoIn(c.Res) != syscall.ENOENT {
		t.Fatalf("cancelling nothing: %+v", c)
	}
}

// With DEFER_TASKRUN a completion waits until it is asked for; without, it is there behind any
// system call.
func TestWhenCompletionsCome(t *testing.T) {
	for caps, ready := range map[Caps]uint32{CapMultishot: 1, CapMultishot | CapDeferTaskrun: 0} {
		t.Run(caps.String(), func(t *testing.T) {
			r := open(t, 8, 16, caps)
			a, b := pair(t)
			entry(t, r, 1).PollAdd(a, unix.POLLIN)
			check(t, r.Submit())
			_, err := unix.Write(b, []byte("x"))
			check(t, err)
			if n := r.Ready(); n != ready {
				t.Errorf("%d completions are there, not %d", n, ready)
			}
			if c := reap(t, r); c.Res&unix.POLLIN == 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Multishot accept and receive, with so few buffers that the group runs dry again and again.
func TestEchoOverFourBuffers(t *testing.T) {
	tiers(t, 16, 64, func(t *testing.T, r *Ring) {
		const (
			group, buffers, size = 3, 4, 512
			volume               = 256 << 10

			accept = iota
			receive
			send
			cancel
		)
		mem := memory(t, buffers*size)
		b := bufRing(t, r, buffers, group, false)
		put := func(bid uint16) { b.Add(unsafe.Pointer(&mem[int(bid)*size]), size, bid) }
		for bid := range uint16(buffers) {
			put(bid)
		}
		b.Publish()
		lfd, port := tcp(t, true)
		entry(t, r, accept).AcceptMultishot(lfd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		check(t, r.Submit())

		sent := make([]byte, volume)
		for i := range sent {
			sent[i] = byte(rand.Uint32())
		}
		client := make(chan error, 1)
		go func() { client <- echoClient(port, sent) }()

		conn, starved, ended := -1, 0, false
		var inFlight, pending []byte
		for !ended || inFlight != nil {
			if inFlight == nil && len(pending) > 0 {
				inFlight, pending = pending, nil
				entry(t, r, send).Send(conn, unsafe.Pointer(&inFlight[0]), uint32(len(inFlight)), unix.MSG_NOSIGNAL|unix.MSG_WAITALL)
			}
			check(t, r.Wait(time.Second, 1))
			n := r.Ready()
			rearm := false
			var back []uint16
			for i := range n {
				c := r.CQE(i)
				switch c.UserData {
				case accept:
					if c.Res < 0 || c.Flags&CQEFMore == 0 || conn >= 0 {
						t.Fatalf("accept: %+v", *c)
					}
					conn, rearm = int(c.Res), true
				case receive:
					if c.Flags&CQEFBuffer != 0 {
						bid := c.BufferID()
						pending = append(pending, mem[int(bid)*size:][:c.Res]...)
						back = append(back, bid)
					}
					if c.Flags&CQEFMore != 0 {
						break
					}
					switch {
					case c.Res == 0:
						ended = true
					case errnoIn(c.Res) == syscall.ENOBUFS:
						starved++
						rearm = true
					case c.Res < 0:
						t.Fatalf("receive: %v", errnoIn(c.Res))
					default:
						rearm = true
					}
				case send:
					if int(c.Res) != len(inFlight) {
						t.Fatalf("sent %d of %d", c.Res, len(inFlight))
					}
					inFlight = nil
				}
			}
			r.Advance(n)
			if back != nil {
				for _, bid := range back {
					put(bid)
				}
				b.Publish() // before the receive is armed again
			}
			if rearm {
				entry(t, r, receive).RecvMultishot(conn, group)
			}
			if ended && inFlight == nil && len(pending) > 0 {
				inFlight, pending = pending, nil
				entry(t, r, send).Send(conn, unsafe.Pointer(&inFlight[0]), uint32(len(inFlight)), unix.MSG_NOSIGNAL|unix.MSG_WAITALL)
			}
		}
		entry(t, r, cancel).Close(conn)
		if c := reap(t, r); c.UserData != cancel || c.Res != 0 {
			t.Fatalf("close: %+v", c)
		}
		check(t, <-client)
		if starved == 0 {
			t.Error("the group never ran dry, so this tested nothing")
		}
		t.Logf("starved %d times, %d enters", starved, r.Enters())

		entry(t, r, cancel).CancelFD(lfd)
		for range 2 {
			switch c := reap(t, r); {
			case c.UserData == cancel && c.Res != 1,
				c.UserData == accept && (errnoIn(c.Res) != syscall.ECANCELED || c.Flags&CQEFMore != 0):
				t.Fatalf("%+v", c)
			}
		}
	})
}

// echoClient sends all of data and expects it back, then the end.
func echoClient(port int, data []byte) error {
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testDeadline / 2))
	var wg sync.WaitGroup
	var writeErr error
	wg.Go(func() {
		if _, writeErr = c.Write(data); writeErr == nil {
			writeErr = c.(*net.TCPConn).CloseWrite()
		}
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	if err = errors.Join(err, writeErr); err == nil && !bytes.Equal(got, data) {
		err = fmt.Errorf("%d bytes came back for %d, or differ", len(got), len(data))
	}
	return err
}

func TestOverflowLosesNothing(t *testing.T) {
	tiers(t, 4, 4, func(t *testing.T, r *Ring) {
		const total = 24
		for i := range uint64(total) {
			if r.Queued() == r.SQEntries() {
				check(t, r.Poll()) // makes the completions, too, and never reaps them
			}
			entry(t, r, i).Nop()
		}
		check(t, r.Poll())
		if !r.Overflowed() {
			t.Error("no overflow, so this tested nothing")
		}
		var seen [total]bool
		for n := 0; n < total; n++ {
			c := reap(t, r)
			if seen[c.UserData] {
				t.Fatalf("%d came twice", c.UserData)
			}
			seen[c.UserData] = true
		}
		check(t, r.Poll())
		if r.Overflowed() || r.Ready() != 0 || r.OverflowCount() != 0 {
			t.Errorf("overflowed %v, %d ready, %d dropped", r.Overflowed(), r.Ready(), r.OverflowCount())
		}
	})
}

func TestIncrementalBuffers(t *testing.T) {
	for _, tier := range []Caps{CapMultishot | CapIncremental, CapMultishot | CapDeferTaskrun | CapIncremental} {
		t.Run(tier.String(), func(t *testing.T) {
			r := open(t, 8, 64, tier)
			const group, size, rounds = 9, 4096, 400
			mem := memory(t, 2*size)
			b := bufRing(t, r, 2, group, true)
			for bid := range uint16(2) {
				b.Add(unsafe.Pointer(&mem[int(bid)*size]), size, bid)
			}
			b.Publish()
			in, out := pair(t)
			entry(t, r, 1).RecvMultishot(in, group)
			check(t, r.Submit())
			var sent, got []byte
			var off [2]int
			var partial, whole int
			for round := range rounds {
				chunk := make([]byte, 1+rand.IntN(300))
				for i := range chunk {
					chunk[i] = byte(round + i)
				}
				_, err := unix.Write(out, chunk)
				check(t, err)
				sent = append(sent, chunk...)
				for len(got) < len(sent) {
					c := reap(t, r)
					if c.Res <= 0 || c.Flags&CQEFBuffer == 0 || c.Flags&CQEFMore == 0 {
						t.Fatalf("%+v", c)
					}
					bid := c.BufferID()
					got = append(got, mem[int(bid)*size+off[bid]:][:c.Res]...)
					off[bid] += int(c.Res)
					if c.Flags&CQEFBufMore != 0 {
						partial++
						continue
					}
					whole++
					if off[bid] != size {
						t.Fatalf("a buffer was given back at %d of %d", off[bid], size)
					}
					off[bid] = 0
					b.Add(unsafe.Pointer(&mem[int(bid)*size]), size, bid)
					b.Publish()
				}
			}
			if !bytes.Equal(got, sent) {
				t.Fatal("the bytes differ")
			}
			if partial == 0 || whole == 0 {
				t.Errorf("%d partial, %d whole: this tested nothing", partial, whole)
			}
		})
	}
}

func TestCancelEndsReceive(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		mem := memory(t, 4*64)
		b := bufRing(t, r, 4, 1, false)
		for bid := range uint16(4) {
			b.Add(unsafe.Pointer(&mem[int(bid)*64]), 64, bid)
		}
		b.Publish()
		in, out := pair(t)
		entry(t, r, 1).RecvMultishot(in, b.Group())
		check(t, r.Submit())
		_, err := unix.Write(out, []byte("poem"))
		check(t, err)
		if c := reap(t, r); c.Res != 4 || c.Flags&(CQEFBuffer|CQEFMore) != CQEFBuffer|CQEFMore {
			t.Fatalf("data: %+v", c)
		}
		entry(t, r, 2).CancelFD(in)
		var final, cancelled bool
		for range 2 {
			switch c := reap(t, r); {
			case c.UserData == 1 && errnoIn(c.Res) == syscall.ECANCELED && c.Flags&CQEFMore == 0:
				final = true
			case c.UserData == 2 && c.Res == 1:
				cancelled = true
			default:
				t.Fatalf("%+v", c)
			}
		}
		if !final || !cancelled {
			t.Fatal("one came twice")
		}
		// Nothing takes what comes from now on.
		_, err = unix.Write(out, []byte("rest"))
		check(t, err)
		check(t, r.Poll())
		if r.Ready() != 0 {
			t.Fatalf("a completion after the last: %+v", *r.CQE(0))
		}
		entry(t, r, 3).CancelFD(in)
		if c := reap(t, r); c.Res != 0 {
			t.Fatalf("cancelling nothing: %+v", c)
		}
	})
}

func TestSendMsg(t *testing.T) {
	r := open(t, 8, 16, CapMultishot)
	in, out := pair(t)
	m := &struct {
		hdr unix.Msghdr
		iov [2]unix.Iovec
	}{}
	poem := memory(t, 8)
	copy(poem, "two bits")
	m.iov[0].Base, m.iov[0].Len = &poem[0], 4
	m.iov[1].Base, m.iov[1].Len = &poem[4], 4
	m.hdr.Iov, m.hdr.Iovlen = &m.iov[0], 2
	keep = m // on the heap, because the kernel gets its address as a number
	entry(t, r, 1).SendMsg(out, &m.hdr, unix.MSG_NOSIGNAL)
	if c := reap(t, r); c.Res != 8 {
		t.Fatalf("%+v", c)
	}
	got := make([]byte, 16)
	n, err := unix.Read(in, got)
	if err != nil || string(got[:n]) != "two bits" {
		t.Fatalf("%q, %v", got[:n], err)
	}
}

var keep any

func TestConnect(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		for _, c := range []struct {
			listen bool
			want   syscall.Errno
		}{{true, 0}, {false, syscall.ECONNREFUSED}} {
			_, port := tcp(t, c.listen)
			addr, n := sockaddr(t, port)
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			check(t, err)
			entry(t, r, 1).Connect(fd, addr, n)
			if got := reap(t, r); errnoIn(got.Res) != c.want || got.Res > 0 {
				t.Errorf("listening %v: %v", c.listen, errnoIn(got.Res))
			}
			unix.Close(fd)
		}
	})
}

func TestReopenFortyTimesOnOneThread(t *testing.T) {
	needs(t, CapMultishot|CapDeferTaskrun)
	fds, size := descriptors(t), anonymous(t)
	for cycle := range 40 {
		r, err := OpenForCaps(64, 256, CapMultishot|CapDeferTaskrun)
		check(t, err)
		b, err := r.NewBufRing(32768, 1, false)
		check(t, err)
		if _, err := r.NewBufRing(8, 1, false); !errors.Is(err, syscall.EEXIST) {
			t.Fatalf("the same group twice: %v", err)
		}
		if cycle < 20 { // a thread has 16 places
			register(t, r)
		}
		entry(t, r, 1).Nop()
		reap(t, r)
		if cycle%2 == 0 { // either order
			check(t, b.Close())
			check(t, r.Close())
		} else {
			check(t, r.Close())
			check(t, b.Close())
		}
		check(t, b.Close())
		check(t, r.Close())
	}
	if n := descriptors(t); n != fds {
		t.Errorf("%d descriptors before, %d after", fds, n)
	}
	if n := ringMappings(t); n != 0 {
		t.Errorf("%d ring mappings are left", n)
	}
	// 40 leaked buffer rings would be 20 MiB: the kernel has touched every page that it registers.
	if grown := anonymous(t) - size; grown > 12<<20 {
		t.Errorf("%d KiB more are in use", grown>>10)
	}
}

func TestClosedRegisteredRingLetsGo(t *testing.T) {
	r := open(t, 8, 16, CapMultishot|CapDeferTaskrun)
	register(t, r)
	if err := r.RegisterFD(); err == nil {
		t.Fatal("registered twice")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(fds[1])
	entry(t, r, 1).PollAdd(fds[0], unix.POLLIN)
	check(t, r.Poll())
	check(t, unix.Close(fds[0])) // now the ring alone has it
	check(t, r.Close())
	p := []unix.PollFd{{Fd: int32(fds[1]), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 10_000); n != 1 || err != nil {
		t.Fatalf("the closed ring still holds what it polled: %d, %v", n, err)
	}
	if err := r.RegisterFD(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("registered after it was closed: %v", err)
	}
}

func TestSendZC(t *testing.T) {
	tiers(t, 8, 16, func(t *testing.T, r *Ring) {
		listener, port := tcp(t, true)
		out, _ := tcp(t, false)
		addr, n := sockaddr(t, port)
		entry(t, r, 1).Connect(out, addr, n)
		if c := reap(t, r); c.Res != 0 {
			t.Fatal(errnoIn(c.Res))
		}
		in, _, err := unix.Accept(listener)
		check(t, err)
		defer unix.Close(in)
		poem := memory(t, 64<<10)
		for i := range poem {
			poem[i] = byte(i * 7)
		}
		entry(t, r, 2).SendZC(out, unsafe.Pointer(&poem[0]), uint32(len(poem)), unix.MSG_NOSIGNAL|unix.MSG_WAITALL)
		if c := reap(t, r); c.Res != int32(len(poem)) || c.Flags&(CQEFMore|CQEFNotif) != CQEFMore {
			t.Fatalf("sent: %+v", c)
		}
		got := make([]byte, 0, len(poem))
		for len(got) < len(poem) {
			n, err := unix.Read(in, got[len(got):cap(got)])
			check(t, err)
			got = got[:len(got)+n]
		}
		if !bytes.Equal(got, poem) {
			t.Error("other bytes came than went")
		}
		c := reap(t, r)
		if c.UserData != 2 || c.Flags&(CQEFMore|CQEFNotif) != CQEFNotif || c.Res != 0 && c.Res != NotifCopied {
			t.Fatalf("let go: %+v", c)
		}
		t.Logf("copied all the same: %v", c.Res == NotifCopied)

		other, _ := pair(t)
		entry(t, r, 3).SendZC(other, unsafe.Pointer(&poem[0]), 1, unix.MSG_NOSIGNAL)
		c = reap(t, r)
		if errnoIn(c.Res) != syscall.EOPNOTSUPP {
			t.Errorf("on a unix socket: %+v", c)
		}
		if c.Flags&CQEFMore != 0 {
			if c = reap(t, r); c.Flags&(CQEFMore|CQEFNotif) != CQEFNotif {
				t.Errorf("after a failure: %+v", c)
			}
		}
	})
}

func TestBadSizes(t *testing.T) {
	r := open(t, 8, 16, CapMultishot)
	for _, n := range []uint16{0, 3, 65535} {
		if _, err := r.NewBufRing(n, 1, false); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("a buffer ring of %d: %v", n, err)
		}
	}
	for _, cfg := range []Config{
		{0, 16, 0}, {16, 8, 0}, {8, 0, 0}, {8, 16, 1 << 30}, {8, 16, 1 << 1}, {8, 16, SetupDeferTaskrun},
	} {
		_, err := Open(cfg)
		var e *Error
		if !errors.As(err, &e) || e.Errno != syscall.EINVAL || e.Op != "io_uring_setup" {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestWrongThreadIsAnError(t *testing.T) {
	r := open(t, 8, 16, CapMultishot|CapDeferTaskrun)
	got := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		got <- r.Poll()
	}()
	if err := <-got; !errors.Is(err, syscall.EEXIST) {
		t.Fatalf("%v", err)
	} else {
		t.Log(err)
	}
}

func TestNothingIsAllocatedPerOperation(t *testing.T) {
	r := open(t, 8, 16, CapMultishot|CapDeferTaskrun)
	mem := memory(t, 64)
	b := bufRing(t, r, 8, 1, false)
	if n := testing.AllocsPerRun(200, func() {
		for range 2 {
			r.SQE().Nop()
		}
		b.Add(unsafe.Pointer(&mem[0]), 64, 0)
		b.Publish()
		if r.Submit() != nil || r.Poll() != nil || r.Wait(time.Second, 2) != nil {
			panic("enter")
		}
		r.SQE().Nop()
		if r.Wait(time.Second, 3) != nil || r.CQE(1).Res != 0 || r.Overflowed() {
			panic("wait")
		}
		r.Advance(r.Ready())
		if r.Wait(time.Microsecond, 1) != nil {
			panic("wait")
		}
	}); n != 0 {
		t.Errorf("%v allocations per run", n)
	}
}

func BenchmarkNop(b *testing.B) {
	caps, err := Probe()
	if err != nil {
		b.Skip(err)
	}
	wait := func(r *Ring) error { return r.Wait(time.Second, 1) }
	for _, how := range []struct {
		name       string
		registered bool
		enter      func(*Ring) error
	}{
		{"poll", false, (*Ring).Poll},
		{"wait", false, wait},
		{"poll registered", true, (*Ring).Poll},
		{"wait registered", true, wait},
	} {
		b.Run(how.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			r, err := OpenForCaps(64, 256, caps)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			if how.registered {
				if err := r.RegisterFD(); err != nil {
					b.Skip(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				r.SQE().Nop()
				if err := how.enter(r); err != nil {
					b.Fatal(err)
				}
				r.Advance(r.Ready())
			}
		})
	}
}
