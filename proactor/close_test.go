//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/internal/testpeer"
)

// aborts aborts who speaks, and has the ring fail in the same turn.
type aborts struct{ d *driver }

func (aborts) ConnectionMade(couplet.Transport) {}
func (p aborts) DataReceived(t couplet.Transport, _ []byte) {
	t.Abort()
	p.d.err = errors.New("the ring is broken")
}
func (aborts) ConnectionLost(couplet.Transport, error) {}

// The last completion of a connection that closes while the ring fails never comes: its
// descriptor is closed all the same.
func TestAFailedRingClosesWhoWasClosing(t *testing.T) {
	for _, features := range []couplet.Features{couplet.TierU5, couplet.TierU3, couplet.TierU2} {
		t.Run(features.Tier(), func(t *testing.T) {
			e, d := driven(t, features)
			_, c := testpeer.Dial(t, e, "tcp4", aborts{d})
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			<-e.Done()
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("its peer sees %v", err)
			}
		})
	}
}

// Who was accepted by completions that a broken ring has told, and nobody acted on yet, is reset.
func TestAFailedRingResetsWhoWasJustAccepted(t *testing.T) {
	for _, features := range []couplet.Features{couplet.TierU5, couplet.TierU3, couplet.TierU2} {
		t.Run(features.Tier(), func(t *testing.T) {
			_, d, addr, do := echoing(t, features)
			do(func() {}) // and in the next turn it accepts
			var all []net.Conn
			do(func() {
				for range 3 {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Error(err)
						break
					}
					all = append(all, c)
				}
				d.err = errors.New("the ring is broken")
			})
			for i, c := range all {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("connection %d sees %v", i, err)
				}
			}
		})
	}
}
