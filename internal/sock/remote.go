//go:build linux

package sock

import "net"

// A Remote is the address of a TCP connection's other end in a third of the memory
// that a *net.TCPAddr takes. The zero value is no address.
type Remote struct {
	ip   [16]byte
	port uint16
	size uint8 // of the address: 4 or 16 bytes
}

// RemoteOf is a as a Remote. It reports whether a is all there: not a *net.TCPAddr, or
// one with a zone, is not.
func RemoteOf(a net.Addr) (r Remote, ok bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok || t.Zone != "" || len(t.IP) != 4 && len(t.IP) != 16 {
		return Remote{}, false
	}
	r.port, r.size = uint16(t.Port), uint8(len(t.IP))
	copy(r.ip[:], t.IP)
	return r, true
}

// NetAddr makes the *net.TCPAddr anew, or is nil for the zero value.
func (r *Remote) NetAddr() net.Addr {
	if r.size == 0 {
		return nil
	}
	a := new(tcpAddr)
	a.ip = r.ip
	a.IP, a.Port = a.ip[:r.size:r.size], int(r.port)
	return &a.TCPAddr
}
