package classic

import (
	"net"

	"golang.org/x/sys/unix"

	"couplet/internal/sock"
)

// acknowledged reports whether the peer has everything, our FIN included, so
// that a close loses none of it.
func acknowledged(nc net.Conn) (yes bool) {
	rc, err := raw(nc)
	if err != nil {
		return false
	}
	_, isUnix := nc.(*net.UnixConn)
	rc.Control(func(fd uintptr) { yes = sock.Acknowledged(int(fd), isUnix) })
	return yes
}

// taken is a number that changes while the peer takes data.
func taken(nc net.Conn) (n uint64) {
	rc, err := raw(nc)
	if err != nil {
		return 0
	}
	_, isUnix := nc.(*net.UnixConn)
	rc.Control(func(fd uintptr) { n = sock.Progress(int(fd), isUnix) })
	return n
}

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
