package enginetest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"couplet"
)

// listeningCases: listeners, addresses and socket options.
var listeningCases = []Case{
	{ID: 63, Name: "port 0 and the real address", Run: listenAddress},
	{ID: 64, Name: "an address in use is an error of Listen", Needs: NeedsOne, Run: addressInUse},
	{ID: 65, Name: "Close of a listener frees the address and keeps connections", Run: listenerClose},
	{ID: 66, Name: "listening again on the same address", Needs: NeedsOne, Run: listenAgain},
	{ID: 67, Name: "one factory on several listeners", Run: sharedFactory},
	{ID: 68, Name: "out of descriptors accepting recovers", Needs: NeedsSockets | NeedsLinux | NeedsOne, Run: outOfDescriptors},
	{ID: 69, Name: "Close of a listener inside Build", Run: closeInBuild},
	{ID: 70, Name: "addresses are numeric and agree", Run: addressesAgree},
	{ID: 71, Name: "socket options reach both ends", Needs: NeedsSockets | NeedsTCP | NeedsLinux, Run: socketOptions},
}

// talk checks that the listener's connections work.
func (e *Env) talk(addr net.Addr) {
	p := e.dialPeer(addr, 0)
	e.send(p, []byte("ping"))
	e.expect(p, "ping")
	p.Close()
}

// echoes is a Factory of recorders that echo.
func (e *Env) echoes() couplet.Factory {
	return couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		c := e.conn("echo")
		c.onData = echo
		return c.build(remote)
	})
}

func listenAddress(e *Env) {
	address := e.address()
	l, err := e.Server.Listen(e.network, address, e.echoes())
	e.check(err, "Listen")
	e.talk(l.Addr())
	if e.unix() {
		if l.Addr().String() != address || l.Addr().Network() != "unix" {
			e.Errorf("listening on %s, Addr is %v", address, l.Addr())
		}
		return
	}
	ap, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil || ap.Port() == 0 {
		e.Errorf("Addr is %v: no numeric address with a port", l.Addr())
	}
	if want, _, _ := net.SplitHostPort(address); ap.Addr().String() != want {
		e.Errorf("listening on %s, Addr is %v", address, l.Addr())
	}
	if e.suite.Peers != nil {
		return // the rest is the kernel's
	}
	// The unspecified address, and "tcp" for whatever there is.
	for _, network := range []string{e.network, "tcp"} {
		l, err := e.Server.Listen(network, ":0", e.echoes())
		e.check(err, "Listen on every address")
		host := "127.0.0.1"
		if e.network == "tcp6" {
			host = "::1"
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		a, err := net.ResolveTCPAddr(e.network, net.JoinHostPort(host, port))
		e.check(err, "the listener's port")
		if a.Port == 0 {
			e.Errorf("listening on %s :0, Addr is %v", network, l.Addr())
		}
		e.talk(a)
		l.Close()
	}
	if zone := linkLocal(); e.network == "tcp6" && zone != "" {
		l, err := e.Server.Listen("tcp6", net.JoinHostPort(zone, "0"), e.echoes())
		e.check(err, "Listen with a scope")
		if !strings.HasPrefix(l.Addr().String(), "["+zone+"]:") {
			e.Errorf("listening on %s, Addr is %v", zone, l.Addr())
		}
		e.talk(l.Addr())
		c := e.conn("client with a scope")
		e.dial(l.Addr().String(), c)
		c.waitMade()
		if c.remote.String() != l.Addr().String() {
			e.Errorf("dialled %v, the peer's address is %v", l.Addr(), c.remote)
		}
	}
}

// linkLocal is an address with a scope of this machine, if it has one.
func linkLocal() string {
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() && i.Flags&net.FlagUp != 0 {
				return n.IP.String() + "%" + i.Name
			}
		}
	}
	return ""
}

func addressInUse(e *Env) {
	inUse := func(what string, eng couplet.Engine, address string) {
		l, err := eng.Listen(e.network, address, e.echoes())
		if err == nil {
			l.Close()
			e.Errorf("%s: two listeners have %s", what, address)
			return
		}
		op, ok := errors.AsType[*net.OpError](err)
		if !ok || !errors.Is(err, syscall.EADDRINUSE) {
			e.Errorf("%s: the error is %#v", what, err)
			return
		}
		if !strings.Contains(op.Error(), address) {
			e.Errorf("%s: the error does not name %s: %v", what, address, op)
		}
	}
	l := e.listen(e.echoes())
	inUse("the same engine", e.Server, l.Addr().String())
	if e.Client != e.Server {
		inUse("the other engine", e.Client, l.Addr().String())
	}
	other := e.peerListener()
	inUse("somebody else", e.Server, other.Addr().String())
	if e.suite.Peers == nil {
		// Several loops share a port among themselves and with nobody else.
		several := e.newEngine(couplet.Config{Loops: 2})
		inUse("an engine of two loops", several, l.Addr().String())
		l2, err := several.Listen(e.network, e.address(), e.echoes())
		e.check(err, "Listen on two loops")
		inUse("the same engine of two loops", several, l2.Addr().String())
		inUse("against two loops", e.Server, l2.Addr().String())
		e.talk(l2.Addr())
	}
	e.talk(l.Addr())
}

func listenerClose(e *Env) {
	l := e.listen(e.echoes())
	address := l.Addr().String()
	p := e.dialPeer(l.Addr(), 0)
	e.send(p, []byte("before"))
	e.expect(p, "before")
	e.check(l.Close(), "Close of a listener")
	l.Close() // again
	recv(e, l.Closed(), "end of the listener")
	// At once, the address is free for anybody.
	again, err := e.Network.Listen(e.network, address)
	e.check(err, "listening on an address that Closed gave back")
	again.Close()
	e.send(p, []byte("after"))
	e.expect(p, "after")
	if n := e.Server.Stats().Listening; n != 0 {
		e.until("no listener is counted", func() bool { return e.Server.Stats().Listening == 0 })
	}

	// Close on a loop.
	l = e.listen(e.echoes())
	e.on(e.Server.Loops()[0], func() {
		if err := l.Close(); err != nil {
			e.Errorf("Close of a listener on a loop: %v", err)
		}
	})
	recv(e, l.Closed(), "end of the listener")
	if f, err := e.Network.Dial(e.network, l.Addr().String(), 0); err == nil {
		f.Close()
		e.Errorf("a closed listener still takes connections")
	}
}

func listenAgain(e *Env) {
	address := e.address()
	for range 5 {
		l, err := e.Server.Listen(e.network, address, e.echoes())
		e.check(err, "Listen again")
		address = l.Addr().String()
		e.talk(l.Addr())
		l.Close()
		recv(e, l.Closed(), "end of the listener")
	}
	if !e.unix() || e.suite.Peers != nil {
		return
	}
	// A stale path is replaced.
	_, stale, release, err := bound("unix")
	e.check(err, "a stale path")
	e.cleanup(release)
	l, err := e.Server.Listen("unix", stale, e.echoes())
	e.check(err, "Listen on a stale path")
	e.talk(l.Addr())
	l.Close()
	recv(e, l.Closed(), "end of the listener")
	if _, err := os.Lstat(stale); !errors.Is(err, os.ErrNotExist) {
		e.Errorf("the path is still there after Closed: %v", err)
	}
	// A path that is somebody else's by now is left alone.
	l, err = e.Server.Listen("unix", stale, e.echoes())
	e.check(err, "Listen")
	e.check(os.Remove(stale), "removing the path")
	e.check(os.WriteFile(stale, nil, 0o600), "a file in its place")
	l.Close()
	recv(e, l.Closed(), "end of the listener")
	if _, err := os.Lstat(stale); err != nil {
		e.Errorf("the listener removed a file that was not its own: %v", err)
	}
	if l, err := e.Server.Listen("unix", stale, e.echoes()); err == nil {
		l.Close()
		e.Errorf("Listen replaced a file that is no socket")
	}
}

func sharedFactory(e *Env) {
	var mu sync.Mutex
	var all []*conn
	f := couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		c := e.conn("shared")
		c.onData = echo
		mu.Lock()
		all = append(all, c)
		mu.Unlock()
		return c.build(remote)
	})
	l1, l2 := e.listen(f), e.listen(f)
	for range 3 {
		e.talk(l1.Addr())
		e.talk(l2.Addr())
	}
	l1.Close()
	recv(e, l1.Closed(), "end of the listener")
	e.talk(l2.Addr())
	mu.Lock()
	cs := all
	mu.Unlock()
	if len(cs) != 7 {
		e.Errorf("7 connections were built as %d protocols", len(cs))
	}
	for _, c := range cs {
		c.lostWith("eof")
		c.wantOrder("build made data lost")
	}
}

func outOfDescriptors(e *Env) {
	const n = 32
	// The sockets of the peers exist before the limit, so that it starves the
	// engine and nobody else. The listener comes after it: io_uring goes by the
	// limit as it was when accepting began.
	var fds []int
	closeAll := func() {
		for _, fd := range fds {
			rawClose(fd)
		}
		fds = nil
	}
	e.cleanup(closeAll)
	for range n {
		fd, err := rawSocket(e.network)
		e.check(err, "a socket")
		fds = append(fds, fd)
	}
	e.turns(e.Server.Loops()[0], 2)
	address := e.address()
	restore, err := limitFiles(10)
	e.check(err, "lowering the limit of descriptors")
	restored := sync.OnceFunc(restore)
	e.cleanup(restored)
	var accepted atomic.Int64
	l, err := e.Server.Listen(e.network, address, couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		accepted.Add(1)
		c := e.conn("server")
		c.onData = echo
		return c.build(remote)
	}))
	e.check(err, "Listen")
	for _, fd := range fds {
		e.check(rawConnect(fd, l.Addr()), "connect")
	}
	e.until("accept fails", func() bool { return e.Server.Stats().AcceptErrors > 0 })
	// While it starves it does not spin.
	loop := e.Server.Loops()[0]
	start, cpu := time.Now(), cpuTime()
	e.pass(loop, 300*time.Millisecond)
	if used, wall := cpuTime()-cpu, time.Since(start); used > wall/2 {
		e.Errorf("out of descriptors, the process used %v of %v", used, wall)
	}
	if n := e.Server.Stats().AcceptErrors; n > 30 { // where the wait doubles, up to a second
		e.Errorf("out of descriptors, accept failed %d times in %v", n, time.Since(start))
	}
	had := accepted.Load()
	if had == 0 || had >= n {
		e.Fatalf("%d of %d connections were accepted within a limit of 10 descriptors", had, n)
	}
	// What ends makes room.
	for _, fd := range fds[:4] {
		rawClose(fd)
	}
	fds = fds[4:]
	e.until("more connections are accepted", func() bool { return accepted.Load() > had })
	restored()
	e.until("all connections are accepted", func() bool { return accepted.Load() == n })
	closeAll()
	e.talk(l.Addr())
	if lines := e.logs.count("accept"); lines == 0 || lines > 10 {
		e.Errorf("the shortage was logged %d times", lines)
	}
}

func closeInBuild(e *Env) {
	s := e.conn("server")
	s.onData = echo
	var l couplet.Listener
	ready := make(chan struct{})
	l = e.listen(couplet.FactoryFunc(func(remote net.Addr) couplet.Protocol {
		<-ready
		if err := l.Close(); err != nil {
			e.Errorf("Close inside Build: %v", err)
		}
		return s.build(remote)
	}))
	close(ready)
	p := e.dialPeer(l.Addr(), 0)
	e.send(p, []byte("ping"))
	e.expect(p, "ping")
	recv(e, l.Closed(), "end of the listener")
	if q, err := e.Network.Dial(e.network, l.Addr().String(), 0); err == nil {
		q.Close()
		e.Errorf("a closed listener still takes connections")
	}
}

func addressesAgree(e *Env) {
	s, c := e.conn("server"), e.conn("client")
	l := e.serve([]*conn{s})
	e.dial(l.Addr().String(), c)
	s.waitMade()
	c.waitMade()
	if s.local.String() != l.Addr().String() || c.peerAddr.String() != l.Addr().String() {
		e.Errorf("listening on %v; the server says %v, the client %v", l.Addr(), s.local, c.peerAddr)
	}
	if !e.unix() {
		if c.local.String() != s.peerAddr.String() {
			e.Errorf("the client is %v, the server sees %v", c.local, s.peerAddr)
		}
		for _, a := range []net.Addr{s.local, s.peerAddr, c.local, c.peerAddr} {
			if ap, err := netip.ParseAddrPort(a.String()); err != nil || !ap.Addr().IsLoopback() || ap.Port() == 0 {
				e.Errorf("%v is no numeric address", a)
			}
		}
	}
	for _, x := range []*conn{s, c} {
		if x.local.Network() != l.Addr().Network() || x.peerAddr.Network() != l.Addr().Network() {
			e.Errorf("%s: the networks are %s and %s", x.name, x.local.Network(), x.peerAddr.Network())
		}
		x.do(func(t couplet.Transport) { t.Abort() })
		x.waitLost()
		x.do(func(t couplet.Transport) {
			if t.LocalAddr().String() != x.local.String() || t.RemoteAddr().String() != x.peerAddr.String() {
				e.Errorf("%s: after lost the addresses are %v and %v", x.name, t.LocalAddr(), t.RemoteAddr())
			}
		})
	}
}

func socketOptions(e *Env) {
	type want map[string]int
	// "at least" is what the kernel makes of buffer sizes.
	check := func(c *conn, w want) {
		c.do(func(t couplet.Transport) {
			rc, err := t.SyscallConn()
			if err != nil {
				e.Errorf("%s: SyscallConn: %v", c.name, err)
				return
			}
			called := false
			err = rc.Control(func(fd uintptr) {
				called = true
				for name, v := range w {
					got, err := socketOption(fd, name)
					atLeast := strings.HasSuffix(name, "BUF")
					if err != nil || got != v && !atLeast || got < v {
						e.Errorf("%s: %s is %d (%v), not %d", c.name, name, got, err, v)
					}
				}
			})
			if err != nil || !called {
				e.Errorf("%s: Control: %v, called %v", c.name, err, called)
			}
			nothing := func(uintptr) bool { return true }
			if err := rc.Read(nothing); !errors.Is(err, couplet.ErrNotSupported) {
				e.Errorf("%s: Read of SyscallConn: %v", c.name, err)
			}
			if err := rc.Write(nothing); !errors.Is(err, couplet.ErrNotSupported) {
				e.Errorf("%s: Write of SyscallConn: %v", c.name, err)
			}
		})
	}
	for _, try := range []struct {
		opts []couplet.Option
		want want
	}{
		{nil, want{"TCP_NODELAY": 1, "SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15}},
		{[]couplet.Option{couplet.NoDelay(false)}, want{"TCP_NODELAY": 0}},
		{[]couplet.Option{couplet.KeepAlive(40 * time.Second)}, want{"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 40, "TCP_KEEPINTVL": 40}},
		{[]couplet.Option{couplet.KeepAlive(-1)}, want{"SO_KEEPALIVE": 0}},
		{[]couplet.Option{couplet.ReceiveBuffer(100_000), couplet.SendBuffer(90_000)}, want{"SO_RCVBUF": 100_000, "SO_SNDBUF": 90_000}},
	} {
		s, c := e.conn(fmt.Sprint("server, ", try.want)), e.conn(fmt.Sprint("client, ", try.want))
		e.pair(s, c, try.opts...)
		check(s, try.want)
		check(c, try.want)
		c.do(func(t couplet.Transport) { t.Abort() })
	}

	// Between Abort and ConnectionLost the descriptor may be closed already, and
	// its number a stranger's.
	for _, end := range []func(t couplet.Transport){
		func(t couplet.Transport) { t.Abort() },
		func(t couplet.Transport) { t.Close(); t.Abort() },
	} {
		ending, peer := e.conn("ending server"), e.conn("its client")
		e.pair(ending, peer)
		ending.do(func(t couplet.Transport) {
			before, err := t.SyscallConn()
			if err != nil {
				e.Errorf("SyscallConn: %v", err)
				return
			}
			end(t)
			after, err := t.SyscallConn()
			for _, rc := range []syscall.RawConn{before, after} {
				if rc == nil || err != nil {
					continue
				}
				rc.Control(func(fd uintptr) {
					if _, err := socketOption(fd, "SO_RCVBUF"); err != nil {
						e.Errorf("Control after Abort gives descriptor %d: %v", fd, err)
					}
				})
			}
		})
		ending.lostWith("aborted")
	}

	// Control sees the socket before bind and before connect; its error ends
	// the call.
	var seen atomic.Int32
	s, c := e.conn("server"), e.conn("client")
	e.pair(s, c, couplet.Control(func(fd uintptr) error {
		if _, err := socketOption(fd, "SO_RCVBUF"); err != nil {
			e.Errorf("Control got descriptor %d: %v", fd, err)
		}
		seen.Add(1)
		return nil
	}))
	if seen.Load() != 2 {
		e.Errorf("Control was called %d times for a listener and a dial", seen.Load())
	}
	_, err := e.Server.Listen(e.network, e.address(), e.echoes(), couplet.Control(func(uintptr) error { return errPanic }))
	if !errors.Is(err, errPanic) {
		e.Errorf("Listen with a Control that fails: %v", err)
	}
	l := e.listen(e.echoes())
	err = e.dialError(e.network, l.Addr().String(), couplet.Control(func(uintptr) error { return errPanic }))
	if !errors.Is(err, errPanic) {
		e.Errorf("Dial with a Control that fails: %v", err)
	}
}
