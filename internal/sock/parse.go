//go:build linux

package sock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
)

// Parse makes the Sockaddr of a numeric address or of a unix path. It does not
// block.
//
// The networks are "tcp", "tcp4", "tcp6" and "unix". A TCP address is
// "host:port", the port a number or the name of a service. Without a host it
// stands for every address where listen is set (as "::", to bind for both
// families where network is "tcp"), and for the local host otherwise. A unix
// address is a path, or "@name" for an abstract socket.
//
// ok is false and err nil for a host name, which takes Resolve. err, a
// *net.OpError, is for an argument that can never be right: an unknown network,
// a bad port, a dial without a port, a literal of the other family, a path that
// is empty or too long.
func Parse(network, address string, listen bool) (sa Sockaddr, ok bool, err error) {
	sa, _, _, err = parse(network, address, listen)
	if err != nil {
		return Sockaddr{}, false, &net.OpError{Op: opName(listen), Net: network, Err: err}
	}
	return sa, sa.n != 0, nil
}

// parse is Parse; where it returns a zero Sockaddr and no error, host and port
// are what there is to look up.
func parse(network, address string, listen bool) (sa Sockaddr, host string, port uint16, err error) {
	switch network {
	case "unix":
		return parseUnix(address, listen)
	case "tcp", "tcp4", "tcp6":
	default:
		return sa, "", 0, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return sa, "", 0, err
	}
	if port, err = parsePort(network, service, listen); err != nil {
		return sa, "", 0, err
	}
	var ip netip.Addr
	if host == "" {
		ip = wildcard(network, listen)
	} else if ip, err = netip.ParseAddr(host); err != nil {
		return sa, host, port, nil
	}
	if !fits(network, ip) {
		return sa, "", 0, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	sa, known := FromAddrPort(netip.AddrPortFrom(ip, port))
	if !known {
		return Sockaddr{}, "", 0, &net.AddrError{Err: "unknown IPv6 zone", Addr: host}
	}
	return sa, "", port, nil
}

func parseUnix(path string, listen bool) (sa Sockaddr, host string, port uint16, err error) {
	sa, ok := fromPath(path)
	switch {
	case path == "" || path == "@" && !listen:
		err = &net.AddrError{Err: "missing address", Addr: path}
	case !ok:
		err = &net.AddrError{Err: "unix socket path must be at most " + strconv.Itoa(maxPath) + " bytes, none of them zero", Addr: path}
	}
	if err != nil {
		sa = Sockaddr{}
	}
	return sa, "", 0, err
}

func parsePort(network, service string, listen bool) (uint16, error) {
	if service == "" {
		if listen {
			return 0, nil
		}
		return 0, &net.AddrError{Err: "missing port", Addr: service}
	}
	if n, err := strconv.Atoi(service); err == nil {
		if n < 0 || n > 65535 {
			return 0, &net.AddrError{Err: "invalid port", Addr: service}
		}
		return uint16(n), nil
	}
	// A service's name is in a local file: no server is asked.
	n, err := net.LookupPort(network, service)
	return uint16(n), err
}

// wildcard is the address that an empty host stands for.
func wildcard(network string, listen bool) netip.Addr {
	switch {
	case listen && network == "tcp4":
		return netip.IPv4Unspecified()
	case listen:
		return netip.IPv6Unspecified()
	case network == "tcp6":
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// fits reports whether ip is of the family that network asks for.
func fits(network string, ip netip.Addr) bool {
	switch network {
	case "tcp4":
		return ip.Unmap().Is4()
	case "tcp6":
		return !ip.Unmap().Is4()
	}
	return true
}

// Resolve looks up the addresses to dial, in the order to try them. It blocks
// until ctx is done. Errors are *net.OpError that wrap a *net.DNSError, or what
// is wrong with the arguments; where ctx ended the look-up they wrap
// context.Cause(ctx).
func Resolve(ctx context.Context, network, address string) ([]Sockaddr, error) {
	sas, err := resolve(ctx, network, address, false)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return sas, nil
}

func resolve(ctx context.Context, network, address string, listen bool) ([]Sockaddr, error) {
	sa, host, port, err := parse(network, address, listen)
	if err != nil {
		return nil, err
	}
	if sa.n != 0 {
		return []Sockaddr{sa}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+network[len("tcp"):], host)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = errors.Join(cause, err)
		}
		return nil, err
	}
	var sas []Sockaddr
	for _, ip := range ips {
		if sa, ok := FromAddrPort(netip.AddrPortFrom(ip, port)); ok && fits(network, ip) {
			sas = append(sas, sa)
		}
	}
	if len(sas) == 0 {
		return nil, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return sas, nil
}

func opName(listen bool) string {
	if listen {
		return "listen"
	}
	return "dial"
}
