//go:build linux

// Package sock is the small part of socket programming that an event loop
// needs, over system calls: addresses in the kernel's layout, listening and
// connecting sockets, options, and what an errno means. Package net gives the
// address types and the resolver, never a socket.
//
// Every descriptor made here is non-blocking and close-on-exec. Only Resolve,
// and Listen with a host name or a unix path, may block.
package sock

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockaddr is a socket address in the kernel's layout. It is a plain value: it
// can be a field, and the kernel can read it where it lies, as long as it stays
// reachable and does not move.
type Sockaddr struct {
	raw unix.RawSockaddrAny
	n   uint32
}

// Ptr is the address of the kernel's structure, valid while s is.
func (s *Sockaddr) Ptr() unsafe.Pointer { return unsafe.Pointer(&s.raw) }

// Len is the length of the kernel's structure in bytes; 0 for a zero Sockaddr.
func (s *Sockaddr) Len() uint32 { return s.n }

// Family is AF_INET, AF_INET6 or AF_UNIX.
func (s *Sockaddr) Family() int { return int(s.raw.Addr.Family) }

// Network is "tcp" or "unix", as the address's Network method says.
func (s *Sockaddr) Network() string {
	if s.Family() == unix.AF_UNIX {
		return "unix"
	}
	return "tcp"
}

// tcpAddr keeps an address and its bytes in one allocation.
type tcpAddr struct {
	net.TCPAddr
	ip [16]byte
}

// NetAddr is the address as package net has it: a *net.TCPAddr with its zone
// where it is scoped, a *net.UnixAddr ("@" for an unnamed socket, as package
// net has it), or nil for a family that is neither.
func (s *Sockaddr) NetAddr() net.Addr {
	switch s.raw.Addr.Family {
	case unix.AF_INET:
		in := s.inet4()
		a := new(tcpAddr)
		copy(a.ip[:], in.Addr[:])
		a.IP, a.Port = a.ip[:4:4], int(order(in.Port))
		return &a.TCPAddr
	case unix.AF_INET6:
		in := s.inet6()
		a := new(tcpAddr)
		a.ip = in.Addr
		a.IP, a.Port, a.Zone = a.ip[:], int(order(in.Port)), zoneName(in.Scope_id)
		return &a.TCPAddr
	case unix.AF_UNIX:
		return &net.UnixAddr{Name: s.path(), Net: "unix"}
	}
	return nil
}

// FromAddrPort makes the Sockaddr of a numeric address. An IPv4 address, also
// one mapped into IPv6, gives AF_INET. The zone may be a name or a number; it
// reports whether the zone is known.
func FromAddrPort(ap netip.AddrPort) (s Sockaddr, ok bool) {
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		s.n = unix.SizeofSockaddrInet4
		in := s.inet4()
		in.Family, in.Addr, in.Port = unix.AF_INET, ip.As4(), order(ap.Port())
		return s, true
	}
	scope, ok := zoneIndex(ip.Zone())
	s.n = unix.SizeofSockaddrInet6
	in := s.inet6()
	in.Family, in.Addr, in.Port, in.Scope_id = unix.AF_INET6, ip.As16(), order(ap.Port()), scope
	return s, ok
}

// maxPath is the longest path name of a unix socket: the kernel's array less
// the final zero.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// pathOffset is where the path begins in the kernel's structure.
const pathOffset = int(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))

// fromPath makes the Sockaddr of a unix path, or of the abstract name that
// follows an "@". "@" alone asks bind to choose an abstract name.
func fromPath(path string) (s Sockaddr, ok bool) {
	if path == "" || len(path) > maxPath || strings.IndexByte(path, 0) >= 0 {
		return s, false
	}
	s.raw.Addr.Family = unix.AF_UNIX
	name := s.name()
	copy(name, path)
	s.n = uint32(pathOffset + len(path))
	switch {
	case path == "@":
		name[0] = 0
		s.n = uint32(pathOffset)
	case path[0] == '@':
		name[0] = 0
	default:
		s.n++ // the final zero
	}
	return s, true
}

// path is the name as package net writes it.
func (s *Sockaddr) path() string {
	n := min(int(s.n)-pathOffset, maxPath+1)
	if n <= 0 {
		return "@"
	}
	name := s.name()[:n]
	if name[0] == 0 {
		return "@" + string(name[1:])
	}
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return string(name)
}

// The views of the raw bytes are sound: RawSockaddrAny is as large as the
// largest of them and aligned for each.

func (s *Sockaddr) inet4() *unix.RawSockaddrInet4 {
	return (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.raw))
}

func (s *Sockaddr) inet6() *unix.RawSockaddrInet6 {
	return (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.raw))
}

func (s *Sockaddr) name() []byte {
	un := (*unix.RawSockaddrUnix)(unsafe.Pointer(&s.raw))
	return (*[maxPath + 1]byte)(unsafe.Pointer(&un.Path))[:]
}

// order turns a port from the host's into the network's byte order, or back.
func order(p uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&p))[:])
}

// zones are the names of all interfaces by their index. To look one up costs as much
// as all of them; one can be renamed, so that they are good for a minute.
var zones struct {
	sync.Mutex
	names map[uint32]string
	until time.Time
}

func zoneName(index uint32) string {
	if index == 0 {
		return ""
	}
	zones.Lock()
	defer zones.Unlock()
	if now := time.Now(); zones.names[index] == "" || now.After(zones.until) {
		zones.names, zones.until = map[uint32]string{}, now.Add(time.Minute)
		all, _ := net.Interfaces()
		for _, ifi := range all {
			zones.names[uint32(ifi.Index)] = ifi.Name
		}
	}
	return cmp.Or(zones.names[index], strconv.Itoa(int(index)))
}

func zoneIndex(zone string) (index uint32, ok bool) {
	if zone == "" {
		return 0, true
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index), true
	}
	n, err := strconv.ParseUint(zone, 10, 31)
	return uint32(n), err == nil
}
