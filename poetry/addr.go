package poetry

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path that fits a socket address on Linux.
const maxUnixPath = 107

// An Addr is where a poem is to be had: the network and address of
// couplet.Engine.Dial.
type Addr struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is "host:port" or a path.
	Address string
}

// String is the address as [ParseAddr] takes it: "host:port" or "unix:/path".
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// ParseAddr reads an address as people type it: "10001" and ":10001" (both on
// 127.0.0.1), "host:10001", "[::1]:10001" or "unix:/path". It looks nothing up.
// The error is one line that names s and says what would be right.
func ParseAddr(s string) (Addr, error) {
	bad := func(why string) (Addr, error) {
		return Addr{}, fmt.Errorf("address %q %s; want PORT, HOST:PORT, [IPV6]:PORT or unix:/PATH", s, why)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case path == "":
			return bad("has no path")
		case len(path) > maxUnixPath:
			return bad(fmt.Sprintf("has a path of %d bytes, and a unix socket's may have %d", len(path), maxUnixPath))
		case strings.ContainsRune(path, 0):
			return bad("has a zero byte in its path")
		}
		return Addr{"unix", path}, nil
	}
	if s == "" {
		return bad("is empty")
	}
	host, port := "", s
	if strings.ContainsAny(s, ":[]") {
		if strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
			return bad("has more than one colon; put an IPv6 host in brackets")
		}
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return bad("cannot be split into host and port")
		}
	}
	if port == "" {
		return bad("has no port")
	}
	n, _ := strconv.ParseUint(port, 10, 64) // of digits that are too many, the largest
	switch {
	case strings.Trim(port, "0123456789") != "":
		return bad(fmt.Sprintf("has port %q, which is not a number", port))
	case n < 1 || n > 65535:
		return bad(fmt.Sprintf("has port %s, and a port is from 1 to 65535", port))
	case strings.ContainsAny(host, " \t\r\n/\x00"):
		return bad(fmt.Sprintf("has host %q, which is no host name", host))
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return Addr{"tcp", net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
}

// AddrOf is the Addr of a listener or a peer.
func AddrOf(a net.Addr) Addr {
	if a.Network() == "unix" {
		return Addr{"unix", a.String()}
	}
	return Addr{"tcp", a.String()}
}
