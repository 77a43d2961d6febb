//go:build linux

package loop

import (
	"net"
	"testing"
	"unsafe"

	"couplet/internal/sock"
)

// A connection that does nothing is to cost little: 128 bytes are a size of Go's
// allocator that begins with a cache line and ends with one, the next is 144.
func TestAConnectionIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Conn{}); n > 128 && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("a connection has %d bytes", n)
	}
	if n := unsafe.Sizeof(slot{}); n > 24 {
		t.Errorf("a slot has %d bytes", n)
	}
}

// What is kept of an address gives the same address back.
func TestAddressesAreKept(t *testing.T) {
	for _, a := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: 65535},
		&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 1}, // in 16 bytes
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 80},
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "lo"},
		&net.UnixAddr{Name: "/run/s", Net: "unix"},
		&net.UnixAddr{Name: "@", Net: "unix"},
	} {
		o := new(origin)
		o.usual = newRare(o)
		c := newConn(new(Loop), 3, o)
		c.setRemote(a)
		got := c.RemoteAddr()
		if got.String() != a.String() || got.Network() != a.Network() {
			t.Errorf("%v became %v", a, got)
		}
		if _, compact := sock.RemoteOf(a); compact && c.rare != o.usual {
			t.Errorf("%v took memory of its own", a)
		}
		c.setRemote(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: 9})
		if got := c.RemoteAddr().String(); got != "127.0.0.1:9" {
			t.Errorf("after %v another address became %v", a, got)
		}
	}
}
