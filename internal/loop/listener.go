//go:build linux

package loop

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/internal/sock"
)

var _ couplet.Listener = (*listener)(nil)

// origin is what the connections of one listener, or one dial, have in common.
type origin struct {
	network  string
	unix     bool
	opts     *couplet.Options
	factory  couplet.Factory
	listener *listener    // nil for a dial
	usual    *rare        // of the listener's connections; it is never written
	open     atomic.Int64 // connections of the listener, on all loops
}

// enter counts a connection in and reports whether there was a place for it.
func (o *origin) enter() bool {
	n := o.open.Add(1)
	if limit := o.opts.MaxConns; limit > 0 && n > int64(limit) {
		o.open.Add(-1)
		return false
	}
	return true
}

// full reports whether there is no place for one more.
func (o *origin) full() bool {
	limit := o.opts.MaxConns
	return limit > 0 && o.open.Load() >= int64(limit)
}

// leave counts one out, and lets a listener that waited for this go on.
func (o *origin) leave(l *Loop) {
	if o.listener != nil {
		o.open.Add(-1)
	}
	l.engine.wakeStarving()
}

// listener is the couplet.Listener: one address, with one socket per loop that
// accepts for it.
type listener struct {
	origin
	engine *Engine
	addr   net.Addr
	local  net.Addr      // of every connection, unless addr is a wildcard
	path   sock.UnixPath // of a unix socket, to be removed at the end

	sockets []*Listener
	left    atomic.Int32  // sockets not yet closed
	done    chan struct{} // closed with the last one
	warning sock.AcceptWarning

	closed atomic.Bool // Close was called
	handed atomic.Bool // File was
	files  sync.Mutex  // held while a descriptor is duplicated or closed
}

// Listener is one listening socket on one loop.
type Listener struct {
	listener *listener
	loop     *Loop
	fd       int

	armed    bool // the driver was told to accept
	stopping bool // ... and to stop; AcceptStopped follows
	closing  bool
	starving bool   // waits for a descriptor, memory or a place
	parked   []int  // accepted beyond MaxConns, when another loop took the last place
	timer    *timer // the next try
	backoff  sock.AcceptBackoff
}

// FD is the listening descriptor.
func (ln *Listener) FD() int { return ln.fd }

// Bounded reports whether connections are to be accepted one at a time: each may
// take the last place, and those who come after it are to stay in the backlog, which
// an heir of the socket can serve.
func (ln *Listener) Bounded() bool { return ln.listener.opts.MaxConns > 0 }

// Shared reports whether others may accept on the socket, too: it was handed over, to
// us or by us.
func (ln *Listener) Shared() bool {
	return ln.listener.opts.File != nil || ln.listener.handed.Load()
}

// Addr implements couplet.Listener.
func (n *listener) Addr() net.Addr { return n.addr }

// Closed implements couplet.Listener.
func (n *listener) Closed() <-chan struct{} { return n.done }

// Close implements couplet.Listener.
func (n *listener) Close() error {
	if n.closed.CompareAndSwap(false, true) {
		for _, ln := range n.sockets {
			ln.loop.Post(ln.stop) // an ended loop has closed it
		}
	}
	return nil
}

// File implements couplet.Listener.
func (n *listener) File() (*os.File, error) {
	n.files.Lock()
	defer n.files.Unlock()
	fd := n.sockets[0].fd
	if fd < 0 || n.closed.Load() {
		return nil, net.ErrClosed
	}
	f, err := sock.File(fd, n.addr.String())
	if err == nil {
		n.handed.Store(true)
		n.path = sock.UnixPath{} // whoever gets f may serve it for longer than we do
	}
	return f, err
}

// begin arms ln on its loop, unless that is ending.
func (ln *Listener) begin() {
	ln.loop.listeners[ln] = struct{}{}
	if ln.loop.stopping {
		ln.stop()
		return
	}
	ln.arm()
}

func (ln *Listener) arm() {
	if !ln.armed && !ln.closing {
		ln.armed = true
		ln.loop.driver.Listen(ln)
	}
}

// hold leaves who comes in the backlog until there is a place.
func (ln *Listener) hold() {
	ln.setStarving(true)
	ln.disarm()
	if !ln.listener.full() { // another loop made room before it could see that we wait
		ln.loop.Post(ln.retry)
	}
}

// disarm stops accepting for a while; the backlog is kept.
func (ln *Listener) disarm() {
	if ln.armed && !ln.stopping {
		ln.stopping = true
		ln.loop.driver.StopAccept(ln)
	}
}

// stop closes ln for good.
func (ln *Listener) stop() {
	if ln.closing {
		return
	}
	ln.closing = true
	ln.setStarving(false)
	if ln.timer != nil {
		ln.timer.Stop()
	}
	if ln.armed {
		ln.disarm()
		return
	}
	ln.release()
}

// release closes the descriptor, once the driver holds nothing of ln.
func (ln *Listener) release() {
	n := ln.listener
	if ln.fd < 0 {
		return
	}
	ln.closing = true // also where the loop has failed: nothing is asked of the driver any more
	ln.setStarving(false)
	n.files.Lock()
	n.path.Unlink() // before the inode's number may be that of a successor's file
	ln.loop.sockets.Release(ln.fd)
	ln.fd = -1
	n.files.Unlock()
	for _, fd := range ln.parked {
		ln.loop.sockets.Reset(fd) // as the kernel ends those of its backlog
	}
	ln.parked = nil
	delete(ln.loop.listeners, ln)
	if n.left.Add(-1) == 0 {
		close(n.done)
	}
}

func (ln *Listener) setStarving(on bool) {
	if ln.starving == on {
		return
	}
	ln.starving = on
	if on {
		ln.loop.starving.Add(1)
		ln.loop.engine.starving.Add(1)
	} else {
		ln.loop.starving.Add(-1)
		ln.loop.engine.starving.Add(-1)
	}
}

// AcceptStopped reports that the driver has let go of ln.
func (l *Loop) AcceptStopped(ln *Listener) {
	ln.armed, ln.stopping = false, false
	switch {
	case ln.closing:
		ln.release()
	case !ln.starving:
		ln.arm()
	}
}

// Accepted reports a connection's descriptor, or an error, which disarms.
func (l *Loop) Accepted(ln *Listener, fd int, errno syscall.Errno) {
	if errno != 0 {
		ln.acceptFailed(errno)
		return
	}
	ln.backoff = sock.AcceptBackoff{}
	switch {
	case ln.closing:
		// It was in nobody's backlog any more when the close came.
		if l.stopping || !ln.listener.enter() {
			l.sockets.Reset(fd)
			return
		}
		ln.deal(fd)
	case len(ln.parked) > 0 || !ln.listener.enter():
		ln.parked = append(ln.parked, fd)
		ln.hold()
	default:
		ln.deal(fd)
		if !ln.closing && ln.listener.full() {
			ln.hold()
		}
	}
}

// deal gives a descriptor to the loop that it is to live on.
func (ln *Listener) deal(fd int) {
	o := &ln.listener.origin
	to := ln.loop
	if len(ln.listener.sockets) == 1 {
		to = ln.loop.engine.pick()
	}
	to.load.Add(1) // now, so that the next one sees it
	if to == ln.loop {
		to.adopt(fd, o)
		return
	}
	if !to.Post(func() { to.adopt(fd, o) }) {
		to.load.Add(-1)
		ln.loop.sockets.Reset(fd)
		o.leave(ln.loop)
	}
}

// acceptFailed goes on after a connection that was gone already, waits where
// descriptors or memory ran out, or all is refused, and gives up where the socket is no
// good.
func (ln *Listener) acceptFailed(errno syscall.Errno) {
	l := ln.loop
	if ln.stopping {
		return // AcceptStopped follows
	}
	ln.armed = false
	switch sock.JudgeAccept(errno) {
	case sock.Ignore:
		l.count.AcceptIgnored++
		if ln.backoff.Ignore() {
			ln.arm()
			return
		}
	case sock.Exhausted:
		l.count.AcceptErrors++
	default:
		l.config.Logger.Error("listener failed and is closed",
			"engine", l.engine.name, "listener", ln.listener.addr.String(), "error", errno)
		ln.stop()
		return
	}
	ln.listener.warning.Warn(l.Now(), l.config.Logger, l.engine.name, ln.listener.addr, errno)
	ln.setStarving(true)
	wait := ln.backoff.Next()
	if ln.timer == nil {
		ln.timer = l.afterFunc(wait, ln.retry)
	} else {
		ln.timer.Reset(wait)
	}
}

// acceptBatch is how many connections one readiness event accepts, so that those who
// are served have their turn.
const acceptBatch = 64

// AcceptAll accepts who is there, for a driver that was told of readiness, and returns the
// error that disarms, or 0. A socket that somebody shut down has ended: then nobody comes
// any more, of which accept itself does not tell for unix sockets.
func (l *Loop) AcceptAll(ln *Listener, ended bool) syscall.Errno {
	if ln.Shared() {
		unix.SetNonblock(ln.fd, true) // others may have changed that, and an accept would stop the loop
		l.count.Crossings++
	}
	for range acceptBatch {
		if ln.stopping { // a callback had enough
			break
		}
		fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(ln.fd), 0, 0,
			unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
		l.count.Crossings++
		l.Tell(Call, "accept4", int(fd), errno)
		switch {
		case errno == 0:
			l.Accepted(ln, int(fd), 0)
		case errno != unix.EAGAIN:
			return errno
		case ended:
			return unix.EINVAL
		default:
			return 0
		}
	}
	return 0
}

// retry goes on after a wait, or when a connection has ended: first with those
// that were accepted already.
func (ln *Listener) retry() {
	if ln.closing || !ln.starving {
		return
	}
	for len(ln.parked) > 0 {
		if !ln.listener.enter() {
			return
		}
		fd := ln.parked[0]
		ln.parked = ln.parked[1:]
		ln.deal(fd)
		if ln.closing {
			return
		}
	}
	if ln.listener.full() {
		return
	}
	ln.setStarving(false)
	ln.arm()
}

// retryAccepts lets starving listeners try again.
func (l *Loop) retryAccepts() {
	for ln := range l.listeners {
		ln.retry()
	}
}
