package classic

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path of a unix socket on Linux.
const maxUnixPath = 107

// check finds arguments of Listen and Dial that can never be right, so that
// they are the call's own error. It does not block.
func check(op, network, address string) error {
	if err := checkAddress(network, address, op == "listen"); err != nil {
		return &net.OpError{Op: op, Net: network, Err: err}
	}
	return nil
}

func checkAddress(network, address string, listen bool) error {
	bad := func(what, part string) error { return &net.AddrError{Err: what, Addr: part} }
	switch network {
	case "tcp", "tcp4", "tcp6":
	case "unix":
		switch {
		case address == "" || address == "@" && !listen:
			return bad("missing address", address)
		case len(address) > maxUnixPath || strings.IndexByte(address, 0) >= 0:
			return bad("unix socket path must be at most "+strconv.Itoa(maxUnixPath)+" bytes, none of them zero", address)
		}
		return nil
	default:
		return net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(service); err == nil {
		if n < 0 || n > 65535 {
			return bad("invalid port", service)
		}
	} else if service != "" {
		if _, err := net.LookupPort(network, service); err != nil {
			return err
		}
	} else if !listen {
		return bad("missing port", service)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if is4 := ip.Unmap().Is4(); is4 && network == "tcp6" || !is4 && network == "tcp4" {
			return bad("no suitable address found", host)
		}
	}
	return nil
}

// exactly is the network on which package net listens on address and nothing
// more: "tcp" would take "0.0.0.0" for every address of both families.
func exactly(network, address string) string {
	if network != "tcp" {
		return network
	}
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().Is4() {
		return "tcp4"
	}
	return network
}

// fits reports whether an adopted listener is of the network that was asked
// for.
func fits(network string, a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		is4 := a.IP.To4() != nil
		return network == "tcp" || network == "tcp4" && is4 || network == "tcp6" && !is4
	case *net.UnixAddr:
		return network == "unix" && a.Net == "unix"
	}
	return false
}
