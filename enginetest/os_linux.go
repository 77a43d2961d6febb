package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openFiles counts the process's descriptors by what they lead to.
func openFiles() map[string]int {
	m := make(map[string]int)
	for _, fd := range fdNumbers() {
		if link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil {
			m[link]++
		}
	}
	return m
}

// fdNumbers lists the open descriptors. The one that reads the list may be
// among them.
func fdNumbers() []int {
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil
	}
	var fds []int
	for _, name := range names {
		if fd, err := strconv.Atoi(filepath.Base(name)); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// anonymousMappings lists the mappings of anonymous inodes: io_uring's.
func anonymousMappings() []string {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	var out []string
	for line := range bytes.Lines(maps) {
		if bytes.Contains(line, []byte("anon_inode")) {
			out = append(out, strings.TrimSpace(string(line)))
		}
	}
	return out
}

// inherited lists the descriptors that a child process would get.
func inherited() []string {
	var out []string
	for _, fd := range fdNumbers() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			out = append(out, fmt.Sprintf("%d %s", fd, link))
		}
	}
	return out
}

func setReadBuffer(n int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, n) })
		return err
	}
}

// bound makes a socket that is bound and does not listen.
func bound(network string) (fd int, address string, release func(), err error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	dir := ""
	switch network {
	case "tcp6":
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(net.IPv6loopback)}
	case "unix":
		if dir, err = os.MkdirTemp("", "enginetest"); err != nil {
			return -1, "", nil, err
		}
		address = filepath.Join(dir, "s")
		family, sa = unix.AF_UNIX, &unix.SockaddrUnix{Name: address}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", nil, err
	}
	release = func() {
		unix.Close(fd)
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
	if err = unix.Bind(fd, sa); err != nil {
		release()
		return -1, "", nil, err
	}
	if network != "unix" {
		name, err := unix.Getsockname(fd)
		if err != nil {
			release()
			return -1, "", nil, err
		}
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			address = net.JoinHostPort("127.0.0.1", strconv.Itoa(name.Port))
		case *unix.SockaddrInet6:
			address = net.JoinHostPort("::1", strconv.Itoa(name.Port))
		}
	}
	return fd, address, release, nil
}

// boundFile is the file of a socket that is bound and does not listen.
func boundFile(network string) (*os.File, error) {
	fd, _, release, err := bound(network)
	if err != nil {
		return nil, err
	}
	defer release()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return os.NewFile(uintptr(d), "bound"), err
}

func (packageNet) Refuse(network string) (string, func(), error) {
	_, address, release, err := bound(network)
	return address, release, err
}

// Stall fills the shortest backlog there is: further connects to it wait.
func (packageNet) Stall(network string) (string, func(), error) {
	fd, address, release, err := bound(network)
	if err != nil {
		return "", nil, err
	}
	if err := unix.Listen(fd, 0); err != nil {
		release()
		return "", nil, err
	}
	var conns []net.Conn
	releaseAll := func() {
		for _, c := range conns {
			c.Close()
		}
		release()
	}
	for range 8 {
		c, err := net.DialTimeout(network, address, 50*time.Millisecond)
		if err != nil {
			return address, releaseAll, nil
		}
		conns = append(conns, c)
	}
	releaseAll()
	return "", nil, fmt.Errorf("the backlog of %s never fills", address)
}

// rawSocket makes a blocking socket for address without connecting it.
func rawSocket(network string) (int, error) {
	family := map[string]int{"tcp4": unix.AF_INET, "tcp6": unix.AF_INET6, "unix": unix.AF_UNIX}[network]
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// rawConnect connects a socket of rawSocket.
func rawConnect(fd int, addr net.Addr) error {
	switch a := addr.(type) {
	case *net.TCPAddr:
		if ip := a.IP.To4(); ip != nil {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)})
		}
		return unix.Connect(fd, &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16())})
	default:
		return unix.Connect(fd, &unix.SockaddrUnix{Name: addr.String()})
	}
}

func rawClose(fd int) { unix.Close(fd) }

func rawDup(fd uintptr) (int, error) { return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }

func rawShutdown(fd uintptr) error { return unix.Shutdown(int(fd), unix.SHUT_RDWR) }

// sendUrgent sends b as TCP urgent data.
func sendUrgent(p Peer, b byte) error {
	rc, err := p.(netPeer).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil)
		return err != unix.EAGAIN
	})
	return errors.Join(cerr, err)
}

// limitFiles lowers the limit of descriptors so that only n more can be opened,
// and returns what takes that back.
func limitFiles(n int) (restore func(), err error) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return nil, err
	}
	used := make(map[int]bool)
	for _, fd := range fdNumbers() {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			used[fd] = true
		}
	}
	limit := 0
	for free := 0; free < n; limit++ {
		if !used[limit] {
			free++
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}); err != nil {
		return nil, err
	}
	return func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }, nil
}

// setFileLimit limits the process to n descriptors.
func setFileLimit(n int) error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)})
}

// cpuTime is what the process has used of its processors.
func cpuTime() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// signalSelf sends the process the signal that Go's scheduler uses too.
func signalSelf() { unix.Kill(unix.Getpid(), unix.SIGURG) }

// socketOption reads one option by its own name.
func socketOption(fd uintptr, name string) (int, error) {
	o, ok := map[string][2]int{
		"TCP_NODELAY":   {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		"TCP_KEEPIDLE":  {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		"TCP_KEEPINTVL": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
		"SO_KEEPALIVE":  {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		"SO_RCVBUF":     {unix.SOL_SOCKET, unix.SO_RCVBUF},
		"SO_SNDBUF":     {unix.SOL_SOCKET, unix.SO_SNDBUF},
	}[name]
	if !ok {
		return 0, fmt.Errorf("no option %s", name)
	}
	return unix.GetsockoptInt(int(fd), o[0], o[1])
}

// socketBacklog is the backlog of a TCP socket that listens.
func socketBacklog(fd uintptr) (int, error) {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	return int(info.Sacked), nil
}
