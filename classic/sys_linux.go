package classic

import (
	"net"

	"golang.org/x/sys/unix"

	"couplet/internal/sock"
)

// acknowledged reports whether the peer has everything, our FIN included, so
// that a close loses none of it.
func acknowledged(nc net.Conn) (yes bool) {
	ask(nc, func(fd int, unix bool) { yes = sock.Acknowledged(fd, unix) })
	return yes
}

// arrived reports whether there is something to read: data, the end or an error.
func arrived(nc net.Conn) (yes bool) {
	ask(nc, func(fd int, _ bool) { yes = sock.Pending(fd, false) })
	return yes
}

// hungUp reports whether both directions are over.
func hungUp(nc net.Conn) (yes bool) {
	ask(nc, func(fd int, _ bool) { yes = sock.HungUp(fd) })
	return yes
}

// taken is a number that changes while the peer takes data.
func taken(nc net.Conn) (n uint64) {
	ask(nc, func(fd int, unix bool) { n = sock.Progress(fd, unix) })
	return n
}

// ask calls f with the descriptor of nc, as long as it is open, and with whether it is
// a unix socket.
func ask(nc net.Conn, f func(fd int, unix bool)) {
	if rc, err := raw(nc); err == nil {
		_, unix := nc.(*net.UnixConn)
		rc.Control(func(fd uintptr) { f(int(fd), unix) })
	}
}

// lockDirectory has those who listen on paths in a directory do so one after the other.
func lockDirectory(path string) (unlock func()) { return sock.LockDirectory(path) }

// makeRoom is for many descriptors.
func makeRoom() { sock.MakeRoom() }

// writable reports whether the kernel calls the socket writable: that is when a
// good part of its buffer is free, so that a queue leaves in large pieces. To
// ask also makes sure that the runtime's poller hears of it later.
func writable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return n != 0 || err != nil
}
