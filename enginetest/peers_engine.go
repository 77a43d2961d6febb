package enginetest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"couplet"
)

// engineNet is a Network whose peers live on an engine: in a suite with two
// engines, what the cases do with plain peers is done by the client's.
type engineNet struct {
	packageNet // for addresses that refuse and stall
	eng        couplet.Engine
}

func (n engineNet) Dial(network, address string, readBuffer int) (Peer, error) {
	p := newEnginePeer(readBuffer)
	failed := make(chan error, 1)
	var opts []couplet.Option
	if readBuffer > 0 {
		// The smallest windows only make everything slow.
		opts = append(opts, couplet.ReceiveBuffer(max(readBuffer, 64<<10)))
	}
	err := n.eng.Dial(context.Background(), network, address, dialFactory{
		func(net.Addr) couplet.Protocol { return p },
		func(_ string, err error) { failed <- err },
	}, opts...)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.made:
		return p, nil
	case err := <-failed:
		if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return deadPeer{err}, nil
		}
		return nil, err
	}
}

func (n engineNet) Listen(network, address string) (PeerListener, error) {
	l := &engineListener{accepted: make(chan *enginePeer, 16)}
	var err error
	l.Listener, err = n.eng.Listen(network, address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
		p := newEnginePeer(0)
		l.accepted <- p
		return p
	}))
	return l, err
}

// engineListener gives the peers that an engine accepted to who asks.
type engineListener struct {
	couplet.Listener
	accepted chan *enginePeer
}

func (l *engineListener) Accept() (Peer, error) {
	select {
	case p := <-l.accepted:
		<-p.made
		return p, nil
	case <-l.Closed():
		return nil, net.ErrClosed
	}
}

func (l *engineListener) Close() error {
	err := l.Listener.Close()
	<-l.Closed()
	return err
}

// enginePeer is a connection of an engine with blocking calls.
type enginePeer struct {
	most int           // bytes kept here before the peer is held back; the loop's
	made chan struct{} // closed by ConnectionMade

	handle        couplet.Handle
	local, remote net.Addr

	mu       sync.Mutex
	changed  chan struct{}
	buf      []byte
	eof      bool  // no more bytes come
	halved   bool  // WriteClosed came
	reason   error // of ConnectionLost
	deadline time.Time
}

// keeps is how many bytes a peer keeps that nobody has read.
const keeps = 256 << 10

func newEnginePeer(readBuffer int) *enginePeer {
	p := &enginePeer{most: keeps, made: make(chan struct{}), changed: make(chan struct{})}
	if readBuffer > 0 {
		p.most = 0 // until the first Read
	}
	return p
}

func (p *enginePeer) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *enginePeer) ConnectionMade(t couplet.Transport) {
	p.handle, p.local, p.remote = t.Handle(), t.LocalAddr(), t.RemoteAddr()
	if p.most == 0 {
		t.PauseReading()
	}
	close(p.made)
}

func (p *enginePeer) DataReceived(t couplet.Transport, data []byte) {
	var kept int
	p.update(func() {
		p.buf = append(p.buf, data...)
		kept = len(p.buf)
	})
	if kept > p.most {
		t.PauseReading()
	}
}

func (p *enginePeer) ReadClosed(couplet.Transport)  { p.update(func() { p.eof = true }) }
func (p *enginePeer) WriteClosed(couplet.Transport) { p.update(func() { p.halved = true }) }

func (p *enginePeer) ConnectionLost(_ couplet.Transport, reason error) {
	p.update(func() {
		p.reason = reason
		p.eof = p.eof || reason == io.EOF
	})
}

// await waits until cond, called with p.mu held, is true.
func (p *enginePeer) await(deadline time.Time, cond func() bool) error {
	timeout := time.NewTimer(time.Until(deadline))
	defer timeout.Stop()
	for {
		p.mu.Lock()
		ok, changed := cond(), p.changed
		p.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return os.ErrDeadlineExceeded
		}
	}
}

func (p *enginePeer) limit() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deadline.IsZero() {
		return time.Now().Add(caseTime())
	}
	return p.deadline
}

func (p *enginePeer) Read(data []byte) (n int, err error) {
	p.mu.Lock()
	empty := len(p.buf) == 0
	p.mu.Unlock()
	if empty {
		p.handle.Post(func(t couplet.Transport) {
			p.most = keeps
			t.ResumeReading()
		})
	}
	if err := p.await(p.limit(), func() bool { return len(p.buf) > 0 || p.eof || p.reason != nil }); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.buf) > 0:
		n = copy(data, p.buf)
		p.buf = p.buf[n:]
		if len(p.buf) == 0 {
			p.buf = nil
		}
		return n, nil
	case p.eof:
		return 0, io.EOF
	}
	return 0, p.reason
}

func (p *enginePeer) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	var taken bool
	b := couplet.NewBuffer(append([]byte(nil), data...), func() { p.update(func() { taken = true }) })
	err := p.handle.WriteBuffer(b)
	b.Release()
	if err != nil {
		return 0, err
	}
	// Taken by the kernel, or lost with the connection, which the next call
	// tells: as with any socket.
	if err := p.await(p.limit(), func() bool { return taken }); err != nil {
		return 0, err
	}
	return len(data), nil
}

// lingers is how long Close waits for the connection's end, so that the other
// side can be expected to know of it. What takes longer goes on by itself.
const lingers = 20 * time.Millisecond

func (p *enginePeer) Close() error {
	err := p.handle.Close()
	p.await(time.Now().Add(lingers), func() bool { return p.reason != nil })
	return err
}

func (p *enginePeer) Reset() error {
	err := p.handle.Abort()
	p.await(p.limit(), func() bool { return p.reason != nil })
	return err
}

func (p *enginePeer) CloseWrite() error {
	if err := p.handle.Post(func(t couplet.Transport) { t.CloseWrite() }); err != nil {
		return err
	}
	return p.await(p.limit(), func() bool { return p.halved || p.reason != nil })
}

func (p *enginePeer) SetDeadline(t time.Time) error {
	p.update(func() { p.deadline = t })
	return nil
}

func (p *enginePeer) LocalAddr() net.Addr  { return p.local }
func (p *enginePeer) RemoteAddr() net.Addr { return p.remote }
