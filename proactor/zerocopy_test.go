//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"couplet"
	"couplet/proactor"
)

// giver writes Buffers as soon as it is connected, and closes.
type giver struct {
	data     []byte
	n        int
	released atomic.Int32
	made     chan couplet.Handle
	lost     chan error
}

func (g *giver) Build(net.Addr) couplet.Protocol { return g }

func (g *giver) ConnectionMade(t couplet.Transport) {
	for range g.n {
		b := couplet.NewBuffer(g.data, func() { g.released.Add(1) })
		t.WriteBuffer(b)
		b.Release()
	}
	t.Close()
	g.made <- t.Handle()
}
func (g *giver) DataReceived(couplet.Transport, []byte)        {}
func (g *giver) ConnectionLost(_ couplet.Transport, why error) { g.lost <- why }

// give connects to an engine that sends n Buffers of a MiB without a copy.
func give(t *testing.T, network string, n int) (couplet.Engine, *giver, net.Conn) {
	e, err := proactor.New(couplet.Config{Ablation: couplet.Ablation{ZeroCopy: true}})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { e.Stop(); <-e.Done() })
	g := &giver{data: make([]byte, 1<<20), n: n, made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}
	for i := range g.data {
		g.data[i] = byte(i * 31)
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := e.Listen(network, address, g, couplet.SendBuffer(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return e, g, c
}

func (g *giver) wait(t *testing.T) error {
	select {
	case err := <-g.lost:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the connection does not end")
		return nil
	}
}

// stop ends the engine, within a time that has room for what is on its way.
func stop(t *testing.T, e couplet.Engine) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := e.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestZeroCopy(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			const n = 8
			e, g, c := give(t, network, n)
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, bytes.Repeat(g.data, n)) {
				t.Errorf("%d of %d bytes came, or others: %v", len(got), n<<20, err)
			}
			c.Close()
			g.wait(t)
			stop(t, e)
			s := e.Stats()
			want := int64(n)
			if network == "unix" {
				want = 1 // was refused, and the rest not tried
			}
			// Over loopback the kernel copies all of them.
			if s.ZeroCopies != want || s.ZeroCopiesCopied != want || g.released.Load() != n {
				t.Errorf("%d sends without a copy, want %d; %d copied all the same; %d of %d released",
					s.ZeroCopies, want, s.ZeroCopiesCopied, g.released.Load(), n)
			}
			t.Logf("%d sends, %d of them copied all the same", s.ZeroCopies, s.ZeroCopiesCopied)
		})
	}
}

// What the network has not let go of is not released, and after an Abort it is.
func TestZeroCopyKeepsWhatThePeerHasNotTaken(t *testing.T) {
	const n = 16
	e, g, _ := give(t, "tcp", n)
	h := <-g.made
	// The peer reads nothing: some of it is on its way, and stays there.
	for end := time.Now().Add(10 * time.Second); e.Stats().ZeroCopies == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is sent without a copy")
		}
	}
	if got := g.released.Load(); got == n {
		t.Errorf("all %d Buffers are released, though the peer took nothing", got)
	}
	h.Abort()
	g.wait(t)
	stop(t, e)
	if got := g.released.Load(); got != n {
		t.Errorf("%d of %d Buffers are released", got, n)
	}
}
