package classic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"couplet"
)

// dial is one Dial, and the birth of its connection.
type dial struct {
	e                *engine
	l                *loop
	network, address string
	f                couplet.Factory
	o                *couplet.Options
	ctx              context.Context // done with the reason to give up
	until            time.Time       // by when that comes
	timeout          *time.Timer     // ConnectTimeout
	release          func()
}

// undated is a context that keeps its deadline from package net, which would set it on
// the socket too: where that was first, the error was not the context's cause.
type undated struct{ context.Context }

func (undated) Deadline() (time.Time, bool) { return time.Time{}, false }

// Dial connects to address.
func (e *engine) Dial(ctx context.Context, network, address string, f couplet.Factory, opts ...couplet.Option) error {
	if ctx == nil {
		return errors.New("couplet: Dial was given no context; use context.Background()")
	}
	o, err := couplet.NewOptions(opts...)
	if err != nil {
		return err
	}
	if f == nil {
		return errors.New("couplet: the Factory is nil")
	}
	if err := check("dial", network, address); err != nil {
		return err
	}
	d := &dial{e: e, network: network, address: address, f: f, o: &o}
	if o.Loop != nil {
		l, ok := o.Loop.(*loop)
		if !ok || l.e != e {
			return fmt.Errorf("couplet: OnLoop was given a loop of another engine; take one of %s's Loops", Name)
		}
		d.l = l
	} else {
		d.l = e.pick()
	}
	if !e.begin() {
		return couplet.ErrEngineClosed
	}
	d.l.load.Add(1) // now, so that the next one sees it
	dctx, cancel := context.WithCancelCause(ctx)
	var giving atomic.Pointer[context.CancelCauseFunc] // nil once the dial is over: Go may keep a timer that was stopped
	giving.Store(&cancel)
	giveUp := func(why error) {
		if cancel := giving.Load(); cancel != nil {
			(*cancel)(why)
		}
	}
	stop := context.AfterFunc(e.ctx, func() { giveUp(context.Cause(e.ctx)) })
	d.timeout = time.AfterFunc(o.ConnectTimeout, func() { giveUp(&couplet.TimeoutError{Op: "connect"}) })
	d.until = time.Now().Add(o.ConnectTimeout)
	if t, ok := ctx.Deadline(); ok && t.Before(d.until) {
		d.until = t
	}
	d.ctx, d.release = undated{dctx}, func() { d.timeout.Stop(); stop(); giveUp(nil); giving.Store(nil) }
	e.running.Go(d.run)
	return nil
}

// run is the dial's goroutine.
func (d *dial) run() {
	returned := false
	defer func() {
		if !returned {
			d.e.fail(errors.New("runtime.Goexit was called in Control (a t.Fatal, perhaps)"))
			d.failed(d.e.Err())
		}
	}()
	nc, err := d.connect()
	for wait := time.Millisecond; err != nil && d.network == "unix" && backlogFull(err) && d.sleep(wait); wait = min(2*wait, 50*time.Millisecond) {
		nc, err = d.connect()
	}
	returned = true
	d.timeout.Stop() // it is not for the wait for the loop
	if err != nil {
		if cause := context.Cause(d.ctx); cause != nil {
			err = cause
		}
		d.failed(err)
		return
	}
	if t, ok := nc.(*net.TCPConn); ok && !d.o.NoDelay {
		t.SetNoDelay(false)
	}
	id := d.e.enter()
	defer d.e.leave(id)
	d.l.load.Add(-1) // start counts it
	d.e.start(d.l, nc, d.o, d.f, d)
}

// failed ends a dial that has no connection.
func (d *dial) failed(err error) {
	d.e.gone() // of the descriptor
	d.l.load.Add(-1)
	d.l.Post(func() {
		defer d.e.end()
		d.died(err)
	})
}

// connect tries the addresses in turn. Each but the last has a share of the time that
// is left; package net itself gives none less than two seconds.
func (d *dial) connect() (nc net.Conn, err error) {
	dialer := net.Dialer{FallbackDelay: -1, KeepAlive: -1, KeepAliveConfig: keepAlive(d.o), Control: beforeUse(d.o)}
	addrs, err := d.lookUp()
	for i, a := range addrs {
		ctx, cancel := d.ctx, func() {}
		if rest := len(addrs) - i; rest > 1 {
			ctx, cancel = context.WithTimeout(ctx, time.Until(d.until)/time.Duration(rest))
		}
		nc, err = dialer.DialContext(ctx, d.network, a)
		cancel()
		if err == nil || d.ctx.Err() != nil {
			break
		}
	}
	return nc, remedied(err)
}

// lookUp is the addresses of a name, or the address as it is.
func (d *dial) lookUp() ([]string, error) {
	host, port, _ := net.SplitHostPort(d.address)
	if _, err := netip.ParseAddr(host); d.network == "unix" || host == "" || err == nil {
		return []string{d.address}, nil
	}
	ips, err := net.DefaultResolver.LookupIPAddr(d.ctx, host)
	var addrs []string
	for _, ip := range ips {
		if fits(d.network, &net.TCPAddr{IP: ip.IP}) {
			addrs = append(addrs, net.JoinHostPort(ip.String(), port))
		}
	}
	if err == nil && len(addrs) == 0 {
		err = &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: d.network, Err: err}
	}
	return addrs, nil
}

// sleep reports false if the dial gives up meanwhile.
func (d *dial) sleep(t time.Duration) bool {
	select {
	case <-d.ctx.Done():
		return false
	case <-time.After(t):
		return true
	}
}

// late tells whether the dial was given up while it succeeded, or is about to be: an engine
// that stops has its connections drained at once, and gives dials up by a goroutine.
func (d *dial) late(net.Conn) error {
	return cmp.Or(context.Cause(d.ctx), context.Cause(d.e.ctx))
}

// born drops what was for the dial alone.
func (d *dial) born() {
	d.e.count.dialed.Add(1)
	d.release()
	d.ctx, d.release, d.timeout, d.f, d.o.Control = nil, nil, nil, nil, nil
}

// died tells the factory, on the loop.
func (d *dial) died(err error) {
	d.release()
	d.e.count.dialsFailed.Add(1)
	if h, ok := d.f.(couplet.ConnectFailedHandler); ok {
		d.l.call(nil, "ConnectFailed", func() { h.ConnectFailed(d.address, err) })
	}
}

func (d *dial) over() {}
