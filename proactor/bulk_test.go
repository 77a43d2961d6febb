//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"couplet"
)

// Who brings little, or much when nobody else does, has a multishot receive. Of a crowd
// that brings much at once those beyond a cacheful are received from one by one, until they
// bring little again. All get back what they sent. Batched, nobody is.
func TestACrowdThatBringsMuchIsReceivedFromOneByOne(t *testing.T) {
	for _, v := range []struct {
		name     string
		features couplet.Features
		batched  bool
	}{
		{"U5", couplet.TierU5, false},
		{"U3", couplet.TierU3, false},
		{"U2", couplet.TierU2, false},
		{"batched", couplet.TierU5, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, d, addr, do := echoing(t, v.features)
			do(func() { d.batched = v.batched })
			const n, size = 64, 48 << 10
			crowd := dial(t, addr, n)
			message := func(i, size int) []byte {
				m := make([]byte, size)
				for j := range m {
					m[j] = byte(j + j>>8 + i)
				}
				return m
			}
			exchange := func(size int, who ...net.Conn) {
				t.Helper()
				do(func() { // the loop looks away meanwhile
					for i, c := range who {
						if _, err := c.Write(message(i, size)); err != nil {
							t.Error(err)
						}
					}
				})
				got := make([]byte, size)
				for i, c := range who {
					if _, err := io.ReadFull(c, got); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, message(i, size)) {
						t.Fatalf("connection %d got other bytes than it sent", i)
					}
				}
			}
			bulk := func() (n int) {
				do(func() {
					d.conns.Each(func(s *conn) {
						if s.bulk {
							n++
						}
					})
				})
				return n
			}
			exchange(64, crowd...)
			exchange(size, crowd[0])
			if n := bulk(); n > 0 {
				t.Errorf("%d connections are received from one by one, without need", n)
			}
			exchange(size, crowd...)
			some := bulk()
			if most := n - cacheful/size; v.batched && some > 0 || !v.batched && (some == 0 || some > most) {
				t.Errorf("of %d connections with %d bytes each %d are received from one by one", n, size, some)
			}
			for range 3 {
				exchange(size, crowd...)
			}
			for range littleInRow {
				exchange(64, crowd...)
			}
			if n := bulk(); n > 0 {
				t.Errorf("%d connections that bring little are received from one by one", n)
			}
			exchange(size, crowd...)
		})
	}
}

// Each receive of a connection that had more was answered by a send of its own: over
// loopback echoes of 1 MiB cost half as much again as on epoll.
func TestATurnIsAnsweredByTwoSends(t *testing.T) {
	BulkFrom(t, 1, 1)
	e, d, addr, do := echoing(t, couplet.TierU5)
	nc := dial(t, addr, 1)[0]
	echo := func(n int) {
		t.Helper()
		if _, err := io.ReadFull(nc, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nc.Write(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	echo(64)
	do(func() {
		d.conns.Each(func(s *conn) {
			if s.c == nil {
				return
			}
			if !s.bulk {
				t.Error("the connection has a multishot receive")
			}
			// What the socket holds is to be several receives.
			if err := unix.SetsockoptInt(s.c.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20); err != nil {
				t.Error(err)
			}
		})
	})
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	before := e.Stats()
	total := 0
	do(func() { // the loop looks away
		raw.Write(func(fd uintptr) bool {
			for total < 512<<10 {
				n, err := unix.Write(int(fd), make([]byte, 64<<10))
				if err != nil {
					break // it is full
				}
				total += n
			}
			return true
		})
	})
	echo(total)
	after := e.Stats()
	receives, sends := after.Receives-before.Receives, after.Sends-before.Sends
	if receives < 4 || sends > receives/2 {
		t.Errorf("%d bytes took %d receives and %d sends", total, receives, sends)
	}
}
