package bench

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// sockaddr is a as the kernel takes it.
func sockaddr(a netip.AddrPort) (family int, to unix.Sockaddr, err error) {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
	}
	in := &unix.SockaddrInet6{Port: int(a.Port()), Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, fmt.Errorf("the address %v: %w", a, err)
		}
		in.ZoneId = uint32(i.Index)
	}
	return unix.AF_INET6, in, nil
}

// cardOf is the name of the network interface that has the address ip, or "".
func cardOf(ip netip.Addr) string {
	cards, _ := net.Interfaces()
	for _, card := range cards {
		addrs, _ := card.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == ip.WithZone("") && (ip.Zone() == "" || ip.Zone() == card.Name) {
				return card.Name
			}
		}
	}
	return ""
}

// manySources reports whether a is on the loopback of IPv4, where there are many
// source addresses. Elsewhere there is one, and its ports are soon used up by
// connections that are closed in order: short ones then end by a reset.
func manySources(a netip.AddrPort) bool { return a.Addr().Is4() && a.Addr().IsLoopback() }

// connectLimit is how long a connection over a network may take to be made.
var connectLimit = 5 * time.Second

// unreached is an error of the first connection to a server: no other would be made
// either.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// explainConnect says what to do about an error of a connect, the first one or not.
func explainConnect(err error, to netip.AddrPort, first bool) error {
	const remedy = "let its port through the firewall (the agent's --server-port chooses it)"
	switch err {
	case unix.EINPROGRESS:
		err = fmt.Errorf("%v did not answer within %v; %s", to, connectLimit, remedy)
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
		if !to.Addr().IsLoopback() {
			err = fmt.Errorf("%v: %w; %s", to, err, remedy)
		}
	case unix.EADDRNOTAVAIL:
		return fmt.Errorf("%w: one source address has no more ports; make fewer connections, or widen the sysctl net.ipv4.ip_local_port_range", err)
	default:
		return err
	}
	if first {
		err = unreached{err}
	}
	return err
}
