//go:build linux

package loop

import (
	"context"
	"net"
	"syscall"
	"time"

	"couplet"
	"couplet/internal/sock"
	"couplet/internal/timers"
)

// dial is one call of Engine.Dial, on its loop from begin until the outcome
// was told. It has at most one Conn at a time, in state connecting.
type dial struct {
	*origin // all of it that the connection keeps
	loop    *Loop
	ctx     context.Context
	address string
	addrs   []sock.Sockaddr // to try, in order; empty until looked up
	next    int             // of addrs
	conn    *Conn           // the attempt under way
	err     error           // the last attempt's error, or why it was given up
	given   bool            // given up: no more attempts
	timer   *timer          // ConnectTimeout
	until   time.Duration   // the end of that, by the loop's clock
	unwatch func() bool     // of ctx
	cancel  context.CancelFunc
}

// begin runs on the loop.
func (d *dial) begin() {
	l := d.loop
	l.dials[d] = struct{}{}
	if l.stopping {
		err := l.engine.Err()
		if err == nil {
			err = couplet.ErrShutdown
		}
		d.fail(err)
		return
	}
	if d.ctx.Err() != nil {
		d.fail(context.Cause(d.ctx))
		return
	}
	d.until = timers.Deadline(l.clock(), d.opts.ConnectTimeout)
	d.timer = l.afterFunc(d.opts.ConnectTimeout, d.expire)
	if d.ctx.Done() != nil {
		d.unwatch = context.AfterFunc(d.ctx, func() {
			l.Post(func() { d.giveUp(context.Cause(d.ctx)) })
		})
	}
	if len(d.addrs) > 0 {
		d.try()
		return
	}
	ctx, cancel := context.WithCancel(l.engine.ctx)
	d.cancel = cancel
	network, address := d.network, d.address
	go func() {
		defer cancel()
		addrs, err := l.sockets.Resolve(ctx, network, address)
		l.Post(func() { d.resolved(addrs, err) })
	}()
}

func (d *dial) resolved(addrs []sock.Sockaddr, err error) {
	switch {
	case d.over():
	case err != nil:
		d.fail(err)
	default:
		d.addrs = addrs
		d.try()
	}
}

// over reports whether the outcome was told.
func (d *dial) over() bool {
	_, under := d.loop.dials[d]
	return !under
}

// try connects to the next address.
func (d *dial) try() {
	l := d.loop
	for d.next < len(d.addrs) {
		d.next++
		sa := &d.addrs[d.next-1]
		fd, err := l.sockets.Socket(sa, d.opts)
		if err != nil {
			d.err = err
			continue
		}
		c := newConn(l, fd, d.origin)
		c.set().dial = d
		c.setRemote(sa.NetAddr())
		if !l.slab.put(c) {
			l.sockets.Release(fd)
			d.err = &net.OpError{Op: "dial", Net: d.network, Addr: c.RemoteAddr(), Err: syscall.ENOBUFS}
			continue
		}
		d.conn = c
		if rest := len(d.addrs) - d.next; rest > 0 { // who have the same share of what is left
			c.setTimer((d.until - l.clock()) / time.Duration(1+rest))
		}
		c.trace(TraceConnect, 0, 0)
		l.driver.Connect(c)
		return
	}
	d.fail(d.err)
}

// connected takes the outcome of an attempt.
func (c *Conn) connected(errno syscall.Errno) {
	d := c.dial
	if errno == 0 && !c.origin.unix && c.connectedToItself() {
		errno = syscall.ECONNREFUSED
	}
	if errno != 0 {
		if errno == syscall.EAGAIN && c.origin.unix {
			d.next-- // a full backlog: the same address again, later
		}
		d.err = dialError(d.network, c.RemoteAddr(), "connect", errno)
		c.closeFD(Reset)
		return
	}
	l := c.loop
	remote, err := l.sockets.Peer(c.FD())
	if err != nil { // reset before we looked
		d.err = dialError(d.network, c.RemoteAddr(), "connect", syscall.ECONNRESET)
		c.closeFD(Reset)
		return
	}
	c.stopTimer()
	c.set().dial = nil
	c.setRemote(remote)
	d.end()
	l.count.Dialed++
	l.entered()
	c.start()
	d.factory, d.opts.Control = nil, nil // nobody else's, and of no use any more
}

// connectedToItself finds the accident of a port that dialled itself.
func (c *Conn) connectedToItself() bool {
	local, ok := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok && ok2 && local.Port == remote.Port && local.IP.Equal(remote.IP)
}

const backlogRetry = 5 * time.Millisecond

// connClosed goes on once a failed attempt is closed.
func (d *dial) connClosed() {
	d.conn = nil
	switch {
	case d.given:
		d.fail(d.err)
	case d.unix && d.next < len(d.addrs):
		d.loop.afterFunc(backlogRetry, func() {
			if !d.over() {
				d.try()
			}
		})
	default:
		d.try()
	}
}

// giveUp ends d with err, whatever it waits for.
func (d *dial) giveUp(err error) {
	if d.over() || d.given {
		return
	}
	d.given, d.err = true, err
	if d.cancel != nil {
		d.cancel()
	}
	if d.conn != nil {
		d.conn.closeFD(Reset) // connClosed follows
		return
	}
	d.fail(err)
}

// expire ends d at its ConnectTimeout, unless its outcome is there and will be reported.
func (d *dial) expire() {
	if d.conn != nil && d.conn.answered() {
		d.timer.Reset(unheard)
		return
	}
	d.giveUp(&couplet.TimeoutError{Op: "connect"})
}

// answered reports whether c's attempt has an outcome, which a loop that was held up may
// not have been told of yet. A unix socket has it at once.
func (c *Conn) answered() bool {
	return c.state == connecting && !c.origin.unix && c.loop.sockets.Pending(c.FD(), true)
}

// unheard is for how long an outcome that is there is waited for.
const unheard = 5 * time.Millisecond

// end takes d off its loop.
func (d *dial) end() {
	delete(d.loop.dials, d)
	if d.timer != nil {
		d.timer.Stop()
	}
	if d.unwatch != nil {
		d.unwatch()
	}
}

// fail tells the factory.
func (d *dial) fail(err error) {
	l := d.loop
	d.end()
	l.load.Add(-1)
	l.count.DialsFailed++
	if h, ok := d.factory.(couplet.ConnectFailedHandler); ok {
		l.run("ConnectFailed", func() { h.ConnectFailed(d.address, err) })
	}
	l.engine.wakeStarving()
}
