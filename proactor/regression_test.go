//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"couplet"
	"couplet/proactor"
)

// late reads nothing until it is told to.
type late struct {
	made chan couplet.Handle
	lost chan error
	got  int
}

func (p *late) ConnectionMade(t couplet.Transport) {
	t.PauseReading()
	p.made <- t.Handle()
}
func (p *late) DataReceived(_ couplet.Transport, data []byte) { p.got += len(data) }
func (p *late) ConnectionLost(_ couplet.Transport, why error) { p.lost <- why }

// A multishot receive that is armed when more waits in the socket than the
// kernel receives at one go (32 buffers), and behind it the end of the stream or
// a reset, loses that end: Linux 6.18 waits for a wake-up that has been. The
// connection then never ended.
func TestTheEndBehindManyBuffersWasLost(t *testing.T) {
	for _, tier := range tiers {
		for _, network := range []string{"tcp4", "unix"} {
			t.Run(tier.features.Tier()+"/"+network, func(t *testing.T) {
				e, err := proactor.New(couplet.Config{Features: tier.features, RingBuffers: 64, RingBufferSize: 1024})
				if err != nil {
					t.Skip(err)
				}
				defer e.Shutdown(t.Context())
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "s")
				}
				p := &late{made: make(chan couplet.Handle, 1), lost: make(chan error, 1)}
				l, err := e.Listen(network, address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }))
				if err != nil {
					t.Fatal(err)
				}
				c, err := net.Dial(network, l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				h := <-p.made
				const n = 45 << 10
				if _, err := c.Write(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
				if c, ok := c.(*net.TCPConn); ok {
					c.SetLinger(0)
				}
				c.Close()
				h.Post(func(t couplet.Transport) { t.ResumeReading() })
				select {
				case why := <-p.lost:
					if p.got != n {
						t.Errorf("%d of %d bytes came before %v", p.got, n, why)
					}
				case <-time.After(10 * time.Second):
					t.Errorf("no end of a connection whose peer is gone: %+v", e.Stats())
					h.Abort()
				}
			})
		}
	}
}
