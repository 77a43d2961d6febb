package classic

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/sock"
)

// listener is a couplet.Listener. Its goroutine accepts, and is the one to
// close the socket.
type listener struct {
	e    *engine
	o    couplet.Options
	f    couplet.Factory
	ln   streamListener
	stop chan struct{}
	done chan struct{}
	room chan struct{} // one for each connection that MaxConns allows; nil: no limit

	closing sync.Once
	handed  atomic.Bool // File gave the socket to others, and the path to a successor
	bound   os.FileInfo // the socket file, where we made one
	path    string
}

// streamListener is what *net.TCPListener and *net.UnixListener have in common.
type streamListener interface {
	net.Listener
	syscall.Conn
	SetDeadline(time.Time) error
}

var _ couplet.Listener = (*listener)(nil)

// Listen accepts connections on address.
func (e *engine) Listen(network, address string, f couplet.Factory, opts ...couplet.Option) (couplet.Listener, error) {
	o, err := couplet.NewOptions(opts...)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, errors.New("couplet: the Factory is nil")
	}
	if !e.begin() {
		return nil, couplet.ErrEngineClosed
	}
	l := &listener{e: e, o: o, f: f, stop: make(chan struct{}), done: make(chan struct{})}
	if o.MaxConns > 0 {
		l.room = make(chan struct{}, o.MaxConns)
	}
	if err := l.open(network, address); err != nil {
		e.end()
		return nil, err
	}
	e.count.listening.Add(1)
	e.mu.Lock()
	e.listeners[l] = struct{}{}
	if e.stopped {
		l.Close()
	}
	e.running.Go(l.accept)
	e.mu.Unlock()
	return l, nil
}

// open makes or adopts the socket.
func (l *listener) open(network, address string) error {
	makeRoom()
	var ln net.Listener
	var err error
	if l.o.File != nil {
		if ln, err = l.adopt(network); err != nil {
			return &net.OpError{Op: "listen", Net: network, Err: err}
		}
	} else {
		if err := check("listen", network, address); err != nil {
			return err
		}
		if ln, err = l.bind(network, address); err != nil {
			return err
		}
		if err := setBacklog(ln.(streamListener), l.o.Backlog); err != nil {
			ln.Close()
			return &net.OpError{Op: "listen", Net: network, Addr: ln.Addr(), Err: err}
		}
	}
	l.ln = ln.(streamListener)
	if u, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok && network == "unix" {
		u.SetUnlinkOnClose(false) // ours to do: the path may have a new owner by then
		if name := ln.Addr().String(); name != "" && name[0] != '@' && l.o.File == nil {
			l.path = name
			l.bound, _ = os.Lstat(name)
		}
	}
	return nil
}

// adopt listens on a duplicate of the socket that was handed over.
func (l *listener) adopt(network string) (net.Listener, error) {
	f, err := duplicate(l.o.File, l.o.File.Name())
	if err != nil {
		return nil, err
	}
	defer f.Close() // package net duplicates it again
	if err := listening(f); err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if fits(network, ln.Addr()) {
		err = control(f, func(fd uintptr) error { return setOptions(fd, network, &l.o) })
	} else {
		err = errors.New("the file is not a " + network + " socket")
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func (l *listener) bind(network, address string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: keepAlive(&l.o), Control: beforeUse(&l.o)}
	lc.SetMultipathTCP(false) // what the other engines make are plain TCP sockets
	if network == "unix" && !strings.HasPrefix(address, "@") {
		defer lockDirectory(address)()
	}
	ln, err := lc.Listen(context.Background(), exactly(network, address), address)
	if network == "unix" && err != nil && inUse(err) && removeStale(address) {
		ln, err = lc.Listen(context.Background(), network, address)
	}
	return ln, remedied(err)
}

// remedied is an error of package net, with what to do about it in its text where
// descriptors ran out.
func remedied(err error) error {
	if op, ok := err.(*net.OpError); ok {
		if call, ok := op.Err.(*os.SyscallError); ok {
			told := *op
			told.Err = sock.SyscallError(call.Syscall, call.Err)
			return &told
		}
	}
	return err
}

// removeStale removes a socket file that nobody listens on.
func removeStale(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return false
	}
	return refused(err) && os.Remove(path) == nil
}

// keepAlive is what package net is told of o.KeepAlive.
func keepAlive(o *couplet.Options) net.KeepAliveConfig {
	period := max(o.KeepAlive, 1)
	return net.KeepAliveConfig{Enable: o.KeepAlive > 0, Idle: period, Interval: period, Count: 9}
}

// beforeUse sets, before bind or connect, what package net has no setting for.
func beforeUse(o *couplet.Options) func(network, address string, rc syscall.RawConn) error {
	return func(network, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if err = setOptions(fd, network, o); err == nil && o.Control != nil {
				err = o.Control(fd)
			}
		})
		return errors.Join(cerr, err)
	}
}

// control calls f with c's descriptor.
func control(c syscall.Conn, f func(fd uintptr) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = f(fd) })
	return errors.Join(cerr, err)
}

// Addr is the bound address.
func (l *listener) Addr() net.Addr { return l.ln.Addr() }

// Close stops accepting.
func (l *listener) Close() error {
	l.closing.Do(func() {
		close(l.stop)
		l.ln.SetDeadline(past)
	})
	return nil
}

// Closed is closed once the address is free.
func (l *listener) Closed() <-chan struct{} { return l.done }

// File is a duplicate of the socket. Close does not remove a unix path any more.
func (l *listener) File() (*os.File, error) {
	select {
	case <-l.stop:
		return nil, net.ErrClosed
	default:
	}
	f, err := duplicate(l.ln, l.Addr().String())
	if err == nil {
		l.handed.Store(true)
	}
	return f, err
}

// accept is the listener's goroutine.
func (l *listener) accept() {
	id := l.e.enter()
	defer l.e.leave(id)
	defer l.closed()
	var backoff sock.AcceptBackoff
	var warning sock.AcceptWarning
	for l.admit() {
		free := l.e.onNextFree()
		if l.o.File != nil || l.handed.Load() {
			unblock(l.ln)
		}
		nc, err := l.ln.Accept()
		l.e.count.crossings.Add(1)
		if err == nil {
			backoff = sock.AcceptBackoff{}
			l.tune(nc)
			l.welcome(nc)
			continue
		}
		l.leaveRoom()
		select {
		case <-l.stop:
			return
		default:
		}
		if broken(err) {
			l.e.log.Error("listener failed and is closed",
				"engine", Name, "listener", l.Addr().String(), "error", err)
			return
		}
		if exhausted(err) {
			l.e.count.acceptErrors.Add(1)
		} else {
			l.e.count.acceptIgnored.Add(1)
			if backoff.Ignore() {
				continue
			}
		}
		warning.Warn(time.Now(), l.e.log, Name, l.Addr(), err)
		select {
		case <-time.After(backoff.Next()):
		case <-free:
		case <-l.stop:
			return
		}
	}
}

// admit waits until MaxConns allows one more connection. It reports false when
// the listener closes.
func (l *listener) admit() bool {
	select {
	case <-l.stop:
		return false
	default:
	}
	if l.room == nil {
		return true
	}
	select {
	case l.room <- struct{}{}:
		return true
	case <-l.stop:
		return false
	}
}

func (l *listener) leaveRoom() {
	if l.room != nil {
		<-l.room
	}
}

// tune sets the options that package net does not set on what it accepts.
func (l *listener) tune(nc net.Conn) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if !l.o.NoDelay {
		t.SetNoDelay(false)
	}
	if l.o.File != nil {
		t.SetKeepAliveConfig(keepAlive(&l.o))
	}
}

// welcome starts an accepted connection.
func (l *listener) welcome(nc net.Conn) {
	l.e.mu.Lock()
	l.e.live++ // also while the engine stops: this listener is live yet
	l.e.mu.Unlock()
	l.e.start(l.e.pick(), nc, &l.o, l.f, l)
}

// closed ends the listener.
func (l *listener) closed() {
	l.Close()
	if l.bound != nil && !l.handed.Load() {
		if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.bound) {
			os.Remove(l.path)
		}
	}
	l.ln.Close()
	l.e.count.listening.Add(-1)
	l.e.mu.Lock()
	delete(l.e.listeners, l)
	l.e.mu.Unlock()
	close(l.done)
	l.e.end()
}

// errGone is why a connection that was reset in the backlog has no Build.
var errGone = errors.New("reset before it was accepted")

// The listener is the birth of its connections.

func (l *listener) late(nc net.Conn) error {
	if l.e.ctx.Err() != nil {
		return context.Cause(l.e.ctx)
	}
	if !connected(nc) {
		l.e.count.acceptIgnored.Add(1)
		return errGone
	}
	return nil
}

func (l *listener) born()      { l.e.count.accepted.Add(1) }
func (l *listener) died(error) {}
func (l *listener) over()      { l.leaveRoom() }
