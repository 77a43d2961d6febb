// Package testpeer is what the tests of the engines begin with.
package testpeer

import (
	"net"
	"path/filepath"
	"testing"

	"couplet"
)

// Dial has e serve p to one peer, on a loopback port or a unix socket of its own, and
// returns the listener and the peer's connection, which the caller closes.
func Dial(t testing.TB, e couplet.Engine, network string, p couplet.Protocol, opts ...couplet.Option) (couplet.Listener, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := e.Listen(network, address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return p }), opts...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}
