//go:build linux

package loop

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/sock"
)

// Kernel is the Sockets of the real kernel.
type Kernel struct{}

var _ Sockets = Kernel{}

// Listen implements Sockets.
func (Kernel) Listen(network, address string, o *couplet.Options, n int) ([]int, net.Addr, error) {
	return sock.Listen(network, address, o, n)
}

// Parse implements Sockets.
func (Kernel) Parse(network, address string) (sock.Sockaddr, bool, error) {
	return sock.Parse(network, address, false)
}

// Resolve implements Sockets.
func (Kernel) Resolve(ctx context.Context, network, address string) ([]sock.Sockaddr, error) {
	return sock.Resolve(ctx, network, address)
}

// Socket implements Sockets.
func (Kernel) Socket(sa *sock.Sockaddr, o *couplet.Options) (int, error) { return sock.Socket(sa, o) }

// Peer implements Sockets.
func (Kernel) Peer(fd int) (net.Addr, error) { return sock.Peer(fd) }

// Local implements Sockets.
func (Kernel) Local(fd int) (net.Addr, error) { return sock.Local(fd) }

// Acknowledged implements Sockets.
func (Kernel) Acknowledged(fd int, unix bool) bool { return sock.Acknowledged(fd, unix) }

// Torn implements Sockets: as long as we have not sent a FIN, only a reset
// brings a TCP socket to the state CLOSE.
func (Kernel) Torn(fd int, isUnix bool) bool {
	if isUnix {
		return false
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == tcpClose
}

// tcpClose is TCP_CLOSE of the kernel's enum in tcp_states.h.
const tcpClose = 7

// ShutdownWrite implements Sockets.
func (Kernel) ShutdownWrite(fd int) error { return sock.ShutdownWrite(fd) }

// SocketError implements Sockets.
func (Kernel) SocketError(fd int) syscall.Errno { return sock.SocketError(fd) }

// Pending implements Sockets.
func (Kernel) Pending(fd int, connecting bool) bool { return sock.Pending(fd, connecting) }

// Progress implements Sockets.
func (Kernel) Progress(fd int, unix bool) uint64 { return sock.Progress(fd, unix) }

// Release implements Sockets.
func (Kernel) Release(fd int) { unix.Close(fd) }

// Reset implements Sockets.
func (Kernel) Reset(fd int) {
	sock.SetReset(fd)
	unix.Close(fd)
}
