//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

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
			var crowd []net.Conn
			for range n {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				crowd = append(crowd, c)
			}
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
