//go:build linux

package enginetest_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"couplet"
	"couplet/enginetest"
)

type shout struct{}

func (shout) ConnectionMade(couplet.Transport) {}

func (shout) DataReceived(t couplet.Transport, p []byte) {
	t.Write(append(p[:len(p):len(p)], '!'))
	t.Close()
}

func (shout) ConnectionLost(couplet.Transport, error) {}

// A server on a network that exists in memory only, and a plain peer.
func ExampleNewSim() {
	e, network, err := enginetest.NewSim(1, couplet.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Shutdown(context.Background())
	l, err := e.Listen("tcp4", "10.0.0.1:80", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return shout{} }))
	if err != nil {
		fmt.Println(err)
		return
	}
	peer, err := network.Dial("tcp4", l.Addr().String(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer peer.Close()
	fmt.Fprint(peer, "h")
	answer, err := io.ReadAll(peer)
	fmt.Printf("%s %v\n", answer, err)
	// Output: h! <nil>
}
