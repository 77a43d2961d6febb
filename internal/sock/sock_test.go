//go:build linux

package sock

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/testpeer"
)

func options(t *testing.T, opts ...couplet.Option) *couplet.Options {
	t.Helper()
	o, err := couplet.NewOptions(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return &o
}

func listen(t *testing.T, network, address string, n int, opts ...couplet.Option) ([]int, net.Addr) {
	t.Helper()
	fds, addr, err := Listen(network, address, options(t, opts...), n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseAll(fds) })
	return fds, addr
}

// dial connects to addr and returns the descriptor once it is connected.
func dial(t *testing.T, addr net.Addr, opts ...couplet.Option) int {
	t.Helper()
	sa, ok, err := Parse(addr.Network(), addr.String(), false)
	if err != nil || !ok {
		t.Fatalf("Parse(%v) = %v, %v", addr, ok, err)
	}
	fd, err := Socket(&sa, options(t, opts...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if errno := Connect(fd, &sa); errno != 0 && errno != unix.EINPROGRESS {
		t.Fatal(errno)
	}
	await(t, fd, unix.POLLOUT)
	if errno := SocketError(fd); errno != 0 {
		t.Fatal(errno)
	}
	return fd
}

func accept(t *testing.T, l int) int {
	t.Helper()
	await(t, l, unix.POLLIN)
	fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// await polls fd, for at most ten seconds.
func await(t *testing.T, fd int, events int16) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if n, _ := unix.Poll(p, 100); n == 1 {
			return
		}
	}
	t.Fatalf("descriptor %d had no event %#x in ten seconds", fd, events)
}

func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	sa, _, _ := Parse("tcp6", "[::1]:0", true)
	return bind(fd, &sa) == 0
}

func option(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		network, address string
		listen           bool
		want             string // "?" for a name to resolve
	}{
		{"tcp", "127.0.0.1:80", false, "127.0.0.1:80"},
		{"tcp4", "10.1.2.3:65535", false, "10.1.2.3:65535"},
		{"tcp", "[::1]:80", false, "[::1]:80"},
		{"tcp6", "[fe80::1%1]:80", false, "[fe80::1%lo]:80"},
		{"tcp", "[::ffff:1.2.3.4]:80", false, "1.2.3.4:80"},
		{"tcp", ":80", false, "127.0.0.1:80"},
		{"tcp6", ":80", false, "[::1]:80"},
		{"tcp", ":80", true, "[::]:80"},
		{"tcp4", ":80", true, "0.0.0.0:80"},
		{"tcp", "127.0.0.1:", true, "127.0.0.1:0"},
		{"tcp", "127.0.0.1:http", false, "127.0.0.1:80"},
		{"tcp", "example.invalid:80", false, "?"},
		{"unix", "/tmp/x", false, "/tmp/x"},
		{"unix", "@x", false, "@x"},
		{"unix", "@", true, "@"},
		{"unix", strings.Repeat("x", 107), false, strings.Repeat("x", 107)},
	} {
		sa, ok, err := Parse(c.network, c.address, c.listen)
		got := "?"
		if ok {
			got = sa.NetAddr().String()
		}
		if err != nil || got != c.want {
			t.Errorf("Parse(%s, %s) = %s, %v; want %s", c.network, c.address, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		network, address string
		listen           bool
	}{
		{"udp", "127.0.0.1:80", false},
		{"", "127.0.0.1:80", false},
		{"tcp", "127.0.0.1", false},
		{"tcp", "127.0.0.1:", false},
		{"tcp", "127.0.0.1:65536", false},
		{"tcp", "127.0.0.1:-1", true},
		{"tcp", "example.invalid:99999", false},
		{"tcp", "127.0.0.1:no-such-service", false},
		{"tcp4", "[::1]:80", false},
		{"tcp6", "127.0.0.1:80", false},
		{"tcp6", "[::ffff:127.0.0.1]:80", false},
		{"tcp6", "[fe80::1%nosuchinterface]:80", false},
		{"tcp", "[::1:80", false},
		{"unix", "", true},
		{"unix", "@", false},
		{"unix", "a\x00b", false},
		{"unix", strings.Repeat("x", 108), false},
	} {
		_, ok, err := Parse(c.network, c.address, c.listen)
		var op *net.OpError
		if ok || !errors.As(err, &op) || op.Net != c.network {
			t.Errorf("Parse(%q, %q) = %v, %v; want a *net.OpError", c.network, c.address, ok, err)
		}
	}
}

func TestResolve(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sas, err := Resolve(ctx, "tcp4", "localhost:80")
	if err != nil || len(sas) == 0 || sas[0].NetAddr().String() != "127.0.0.1:80" {
		t.Errorf("Resolve(localhost:80) = %v, %v", sas, err)
	}
	if sas, err := Resolve(ctx, "tcp", "[::1]:80"); err != nil || len(sas) != 1 {
		t.Errorf("Resolve of a numeric address = %v, %v", sas, err)
	}

	done, stop := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	stop(gone)
	_, err = Resolve(done, "tcp", "host.example.invalid:80")
	var op *net.OpError
	if !errors.As(err, &op) || !errors.Is(err, gone) {
		t.Errorf("Resolve with a done context: %v", err)
	}
}

func TestListenAndConnect(t *testing.T) {
	cases := []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"},
		{"tcp4", ":0"},
		{"tcp", "localhost:0"},
		{"unix", filepath.Join(t.TempDir(), "s")},
		{"unix", "@couplet-sock-test"},
	}
	if hasIPv6() {
		cases = append(cases, struct{ network, address string }{"tcp6", "[::1]:0"})
	}
	for _, c := range cases {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			fds, addr := listen(t, c.network, c.address, 1)
			client := dial(t, addr)
			server := accept(t, fds[0])
			cl, err1 := Local(client)
			cp, err2 := Peer(client)
			sl, err3 := Local(server)
			sp, err4 := Peer(server)
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatal(err)
			}
			if cl.String() != sp.String() || cp.String() != sl.String() {
				t.Errorf("client %v to %v, server %v to %v", cl, cp, sl, sp)
			}
			if cp.Network() != strings.TrimRight(c.network, "46") {
				t.Errorf("the network is %s", cp.Network())
			}
			if flags, _ := unix.FcntlInt(uintptr(client), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			if flags, _ := unix.FcntlInt(uintptr(client), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
				t.Error("not non-blocking")
			}
		})
	}
}

func TestDualStack(t *testing.T) {
	if !hasIPv6() {
		t.Skip("this host has no IPv6")
	}
	fds, addr := listen(t, "tcp", ":0", 1)
	if a := addr.(*net.TCPAddr); !a.IP.Equal(net.IPv6unspecified) {
		t.Fatalf("listens on %v", addr)
	}
	port := addr.(*net.TCPAddr).Port
	for _, ip := range []string{"127.0.0.1", "::1"} {
		dial(t, &net.TCPAddr{IP: net.ParseIP(ip), Port: port})
		peer, err := Peer(accept(t, fds[0]))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(peer.String(), ip+":") && !strings.Contains(peer.String(), ip+"]:") {
			t.Errorf("the peer from %s is %v", ip, peer)
		}
	}
	fds6, addr6 := listen(t, "tcp6", ":0", 1)
	if option(t, fds6[0], unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 1 {
		t.Errorf("tcp6 on %v takes IPv4 too", addr6)
	}
}

func TestListenOnWhatIsTaken(t *testing.T) {
	_, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	for _, n := range []int{1, 4} {
		_, _, err := Listen("tcp", addr.String(), options(t), n)
		var op *net.OpError
		var sys *os.SyscallError
		if !errors.As(err, &op) || op.Op != "listen" || op.Addr.String() != addr.String() ||
			!errors.As(err, &sys) || !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%d sockets on a taken port: %v", n, err)
		}
	}
	// A shared port is taken too.
	_, shared := listen(t, "tcp", "127.0.0.1:0", 3)
	if _, _, err := Listen("tcp", shared.String(), options(t), 3); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second group on one port: %v", err)
	}
}

func TestSharedPort(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 4)
	if len(fds) != 4 {
		t.Fatalf("%d sockets", len(fds))
	}
	for range 400 {
		dial(t, addr)
	}
	total := 0
	for i, l := range fds {
		if a, err := Local(l); err != nil || a.String() != addr.String() {
			t.Errorf("socket %d listens on %v, %v", i, a, err)
		}
		got := 0
		for {
			fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != nil {
				break
			}
			unix.Close(fd)
			got++
		}
		if got < 20 {
			t.Errorf("socket %d of 4 got %d of 400 connections", i, got)
		}
		total += got
	}
	if total != 400 {
		t.Errorf("%d of 400 connections arrived", total)
	}
	single, _ := listen(t, "tcp", "127.0.0.1:0", 1)
	if option(t, single[0], unix.SOL_SOCKET, unix.SO_REUSEPORT) != 0 {
		t.Error("one socket alone shares its port")
	}
}

func TestPortIsFreeAgain(t *testing.T) {
	fds, addr, err := Listen("tcp", "127.0.0.1:0", options(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, addr) // leaves a connection behind
	CloseAll(fds)
	listen(t, "tcp", addr.String(), 2)
}

func TestOptionsAreInherited(t *testing.T) {
	called := 0
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1, couplet.NoDelay(true), couplet.KeepAlive(7500*time.Millisecond),
		couplet.ReceiveBuffer(32<<10), couplet.SendBuffer(48<<10),
		couplet.Control(func(fd uintptr) error {
			called++
			return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 0x10)
		}))
	client := dial(t, addr, couplet.NoDelay(false), couplet.KeepAlive(-1))
	server := accept(t, fds[0])
	forever := dial(t, addr, couplet.KeepAlive(math.MaxInt64))
	for _, c := range []struct {
		what                  string
		fd, level, name, want int
	}{
		{"NoDelay", server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"KeepAlive", server, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"KeepAlive idle", server, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 8},
		{"KeepAlive interval", server, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 8},
		{"KeepAlive count", server, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
		{"ReceiveBuffer", server, unix.SOL_SOCKET, unix.SO_RCVBUF, 64 << 10}, // the kernel doubles it
		{"SendBuffer", server, unix.SOL_SOCKET, unix.SO_SNDBUF, 96 << 10},
		{"Control", fds[0], unix.IPPROTO_IP, unix.IP_TOS, 0x10},
		{"NoDelay off", client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0},
		{"KeepAlive off", client, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0},
		{"KeepAlive without end", forever, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 32767},
	} {
		if got := option(t, c.fd, c.level, c.name); got != c.want {
			t.Errorf("%s is %d, want %d", c.what, got, c.want)
		}
	}
	if called != 1 {
		t.Errorf("Control was called %d times", called)
	}
	// What was made before an error is closed.
	no := errors.New("no")
	for n := range 3 {
		var made []int
		_, _, err := Listen("tcp", "127.0.0.1:0", options(t, couplet.Control(func(fd uintptr) error {
			if made = append(made, int(fd)); len(made) > n {
				return no
			}
			return nil
		})), n+1)
		if !errors.Is(err, no) {
			t.Errorf("an error of Control: %v", err)
		}
		for _, fd := range made {
			if _, err := unix.Getsockname(fd); err != unix.EBADF {
				t.Errorf("of %d sockets %d is open: %v", n+1, fd, err)
				unix.Close(fd)
			}
		}
	}
}

// Who has time stamps in the error queue of a socket, and does not take them, was never idle.
func TestTimeStampsAreNothingToRead(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	client := dial(t, addr)
	server := accept(t, fds[0])
	if err := unix.SetsockoptInt(server, unix.SOL_SOCKET, unix.SO_TIMESTAMPING,
		unix.SOF_TIMESTAMPING_TX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(server, []byte("x")); err != nil {
		t.Fatal(err)
	}
	p := []unix.PollFd{{Fd: int32(server)}}
	if n, err := unix.Poll(p, 10_000); n != 1 || p[0].Revents != unix.POLLERR {
		t.Fatalf("no time stamp came: %v, %v, %#x", n, err, p[0].Revents)
	}
	if Pending(server, false) {
		t.Error("there is something to read")
	}
	SetReset(client)
	unix.Close(client)
	p[0].Events = unix.POLLIN
	unix.Poll(p, 10_000)
	if !Pending(server, false) {
		t.Error("a reset is nothing")
	}
}

func TestStaleUnixPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, _, err := Listen("unix", path, options(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listen("unix", path, options(t), 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("the path of a living listener: %v", err)
	}
	CloseAll(dead)
	fds, addr := listen(t, "unix", path, 1)
	dial(t, addr)
	accept(t, fds[0])

	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Listen("unix", file, options(t), 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("the path of an ordinary file: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("an ordinary file was removed: %v", err)
	}
}

// Who had bound a path and was about to listen on it looked dead to another one.
func TestTwoListenersHadOnePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 2000 {
		var (
			both sync.WaitGroup
			fds  [2][]int
			errs [2]error
		)
		for i := range fds {
			both.Go(func() { fds[i], _, errs[i] = Listen("unix", path, options(t), 1) })
		}
		both.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Errorf("the two were told %v and %v", errs[0], errs[1])
		}
		CloseAll(append(fds[0], fds[1]...)) // which leaves a dead file
	}
}

func TestUnixPathOfFullBacklogIsAlive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, addr := listen(t, "unix", path, 1, couplet.Backlog(1))
	sa, _, _ := Parse("unix", path, false)
	full := false
	for range 10 {
		fd, err := Socket(&sa, options(t))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if Connect(fd, &sa) == unix.EAGAIN {
			full = true
			break
		}
	}
	if !full {
		t.Fatal("the backlog did not fill")
	}
	if _, _, err := Listen("unix", addr.String(), options(t), 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a living path was taken: %v", err)
	}
}

func TestUnlinkOnlyOurOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	_, addr := listen(t, "unix", path, 1)
	ours := OwnUnixPath(addr)
	other := filepath.Join(filepath.Dir(path), "other")
	fds, _ := listen(t, "unix", other, 1)
	theirs := OwnUnixPath(&net.UnixAddr{Name: other, Net: "unix"})
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if err := ours.Unlink(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error("the path of another listener was removed")
	}
	theirs.path = path
	if err := theirs.Unlink(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("our own path was not removed")
	}
	_ = fds
	for _, a := range []net.Addr{&net.UnixAddr{Name: "@x", Net: "unix"}, &net.TCPAddr{}, &net.UnixAddr{}} {
		if OwnUnixPath(a) != (UnixPath{}) {
			t.Errorf("%v owns a path", a)
		}
	}
}

func TestAdoptedListener(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	f, err := File(fds[0], "listener")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	adopted, got := listen(t, "tcp", "ignored", 4, couplet.FromFile(f))
	if len(adopted) != 1 || got.String() != addr.String() {
		t.Fatalf("adopted %v, %v", adopted, got)
	}
	unix.Close(fds[0])
	fds[0] = -1
	dial(t, addr)
	accept(t, adopted[0])

	for _, network := range []string{"unix", "tcp6", "udp"} {
		if _, _, err := Listen(network, "", options(t, couplet.FromFile(f)), 1); err == nil {
			t.Errorf("a tcp4 listener was adopted as %s", network)
		}
	}
	plain, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, _, err := Listen("tcp", "", options(t, couplet.FromFile(plain)), 1); err == nil {
		t.Error("a file that is no socket was adopted")
	}
	idle, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(idle), "socket")
	defer socket.Close()
	if _, _, err := Listen("tcp", "", options(t, couplet.FromFile(socket)), 1); err == nil {
		t.Error("a socket that does not listen was adopted")
	}
}

func TestAcknowledged(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	client := dial(t, addr)
	server := accept(t, fds[0])
	// More than both sockets' buffers hold cannot be acknowledged.
	chunk := make([]byte, 64<<10)
	sent := 0
	for {
		n, err := unix.Write(client, chunk)
		if err != nil {
			break
		}
		sent += n
	}
	if Acknowledged(client, false) {
		t.Error("acknowledged while the peer's buffer is full")
	}
	if err := ShutdownWrite(client); err != nil {
		t.Fatal(err)
	}
	for got := 0; ; {
		await(t, server, unix.POLLIN)
		n, err := unix.Read(server, chunk)
		if err != nil {
			t.Fatal(err)
		}
		if got += n; n == 0 {
			if got != sent {
				t.Errorf("%d of %d bytes arrived", got, sent)
			}
			break
		}
	}
	for deadline := time.Now().Add(10 * time.Second); !Acknowledged(client, false); {
		if time.Now().After(deadline) {
			t.Fatal("not acknowledged after the peer read the end")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAcknowledgedOnUnix(t *testing.T) {
	fds, addr := listen(t, "unix", filepath.Join(t.TempDir(), "s"), 1)
	client := dial(t, addr)
	server := accept(t, fds[0])
	unix.Write(client, []byte("x"))
	if !Acknowledged(client, true) || Acknowledged(server, true) {
		t.Error("only unread input counts on a unix socket")
	}
}

func TestProgress(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
		fds, addr := listen(t, network, address, 1)
		client := dial(t, addr)
		server := accept(t, fds[0])
		chunk := make([]byte, 64<<10)
		for {
			if _, err := unix.Write(client, chunk); err != nil {
				break
			}
		}
		before := Progress(client, network == "unix")
		for deadline := time.Now().Add(10 * time.Second); Progress(client, network == "unix") == before; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: no progress while the peer reads", network)
			}
			unix.Read(server, chunk)
		}
	}
}

func TestResetAndErrors(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	client := dial(t, addr)
	server := accept(t, fds[0])
	SetReset(server)
	unix.Close(server)
	await(t, client, unix.POLLIN)
	if errno := SocketError(client); errno != unix.ECONNRESET {
		t.Errorf("after a reset: %v", errno)
	}
	if _, err := Peer(client); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("the peer's address after a reset: %v", err)
	}
	_, err := unix.Write(client, []byte("x"))
	if err != unix.EPIPE {
		t.Fatalf("a write after a reset: %v", err)
	}
	wrapped := OpError("write", "tcp", nil, addr, "write", err.(unix.Errno))
	if !errors.Is(wrapped, unix.ECONNRESET) || errors.Is(wrapped, unix.EPIPE) {
		t.Errorf("EPIPE is reported as %v", wrapped)
	}
}

func TestJudgeAccept(t *testing.T) {
	for errno, want := range map[unix.Errno]AcceptVerdict{
		unix.ECONNABORTED: Ignore, unix.EINTR: Ignore, unix.EPROTO: Ignore, unix.EPERM: Ignore, unix.EAGAIN: Ignore,
		unix.EMFILE: Exhausted, unix.ENFILE: Exhausted, unix.ENOBUFS: Exhausted, unix.ENOMEM: Exhausted,
		unix.EBADF: Fatal, unix.EINVAL: Fatal,
	} {
		if got := JudgeAccept(errno); got != want {
			t.Errorf("%v is judged %d, want %d", errno, got, want)
		}
	}
}

func TestAddressesAllocateLittle(t *testing.T) {
	fds, addr := listen(t, "tcp", "127.0.0.1:0", 1)
	dial(t, addr)
	server := accept(t, fds[0])
	if n := testing.AllocsPerRun(100, func() { Peer(server) }); n > 2 {
		t.Errorf("Peer allocates %v times", n)
	}
}

// Each connection of a link-local address asked the kernel for all its interfaces.
func TestAScopedAddressAllocatesLittle(t *testing.T) {
	lo, err := net.InterfaceByIndex(1)
	if err != nil {
		t.Skip(err)
	}
	s, ok := FromAddrPort(netip.MustParseAddrPort("[fe80::1%" + lo.Name + "]:1"))
	if !ok {
		t.Fatalf("no zone %s", lo.Name)
	}
	if n := testing.AllocsPerRun(100, func() { s.NetAddr() }); n > 2 {
		t.Errorf("the address %v takes %v allocations", s.NetAddr(), n)
	}
	if a := s.NetAddr().(*net.TCPAddr); a.Zone != lo.Name {
		t.Errorf("the zone of %v is %q", a, a.Zone)
	}
}

func TestRemoteIsTheWholeAddress(t *testing.T) {
	for _, ip := range []net.IP{net.IPv4(1, 2, 3, 4).To4(), net.ParseIP("2001:db8::1")} {
		a := &net.TCPAddr{IP: ip, Port: 65535}
		if r, ok := RemoteOf(a); !ok || r.NetAddr().String() != a.String() {
			t.Errorf("%v becomes %v", a, r.NetAddr())
		}
	}
	for _, a := range []net.Addr{nil, &net.UnixAddr{Name: "s"}, &net.TCPAddr{}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "lo"}} {
		if r, ok := RemoteOf(a); ok || r.NetAddr() != nil {
			t.Errorf("%v becomes %v", a, r.NetAddr())
		}
	}
}

func TestFromAddrPortRoundTrip(t *testing.T) {
	for _, s := range []string{"1.2.3.4:5", "[2001:db8::1]:65535", "[::]:0"} {
		ap := netip.MustParseAddrPort(s)
		sa, ok := FromAddrPort(ap)
		if !ok || sa.NetAddr().(*net.TCPAddr).AddrPort() != ap {
			t.Errorf("%s becomes %v", s, sa.NetAddr())
		}
	}
}

// Who was out of descriptors was not told what to do about it.
func TestNoDescriptorHadNoRemedy(t *testing.T) {
	MakeRoom() // which is done once
	sa, _, err := Parse("tcp", "127.0.0.1:1", false)
	if err != nil {
		t.Fatal(err)
	}
	fds, _ := listen(t, "tcp", "127.0.0.1:0", 1)
	o := options(t)
	for name, call := range map[string]func() error{
		"listen tcp 127.0.0.1:1: socket": func() error { _, _, err := Listen("tcp", "127.0.0.1:1", o, 1); return err },
		"dial tcp 127.0.0.1:1: socket":   func() error { _, err := Socket(&sa, o); return err },
		"fcntl":                          func() error { _, err := File(fds[0], "copy"); return err },
	} {
		var err error
		testpeer.WithoutDescriptors(t, func() { err = call() })
		if want := name + ": too many open files; raise `ulimit -n` (LimitNOFILE= in systemd)"; err == nil || err.Error() != want {
			t.Errorf("the error is %v, not %s", err, want)
		}
		var op *net.OpError
		var sys *os.SyscallError
		if !errors.Is(err, unix.EMFILE) || !errors.As(err, &sys) || !errors.As(err, &op) && name != "fcntl" {
			t.Errorf("%v has lost its shape", err)
		}
		if op != nil && (!op.Temporary() || op.Timeout()) {
			t.Errorf("%v: it is temporary %t, a timeout %t", err, op.Temporary(), op.Timeout())
		}
	}
	if err := StartError("eventfd", unix.ENFILE); !errors.Is(err, unix.ENFILE) || !strings.HasSuffix(err.Error(), "fs.file-max), or use fewer loops") {
		t.Error(err)
	}
	if err := SyscallError("socket", unix.EACCES); err.Error() != "socket: permission denied" {
		t.Error(err)
	}
}
