package enginetest

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// A Network is where peers live that are no engines: they misbehave in ways
// that an engine would not. The default is package net.
type Network interface {
	// Listen listens on address, which may have port 0.
	Listen(network, address string) (PeerListener, error)
	// Dial connects. readBuffer bounds what the peer takes in without being
	// read, in bytes; zero leaves it.
	Dial(network, address string, readBuffer int) (Peer, error)
	// Refuse gives an address at which every connect is refused until release.
	Refuse(network string) (address string, release func(), err error)
	// Stall gives an address at which a connect neither succeeds nor fails
	// until release.
	Stall(network string) (address string, release func(), err error)
}

// A PeerListener accepts peers.
type PeerListener interface {
	Accept() (Peer, error)
	Addr() net.Addr
	Close() error
}

// A Peer is one plain connection. Its methods block.
type Peer interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	Close() error
	// CloseWrite sends a FIN.
	CloseWrite() error
	// Reset closes with a reset at once; on a unix socket it is Close.
	Reset() error
	// SetDeadline ends Read and Write with os.ErrDeadlineExceeded.
	SetDeadline(t time.Time) error
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// packageNet is the Network of real sockets.
type packageNet struct{}

// netListener is a listener of package net.
type netListener struct{ net.Listener }

func (l netListener) Accept() (Peer, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return netPeer{c}, nil
}

func (packageNet) Listen(network, address string) (PeerListener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return netListener{l}, nil
}

func (packageNet) Dial(network, address string, readBuffer int) (Peer, error) {
	d := net.Dialer{Timeout: caseTime()}
	if readBuffer > 0 {
		d.Control = setReadBuffer(readBuffer)
	}
	c, err := d.Dial(network, address)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return deadPeer{err}, nil // connected, and reset before it was told so
	}
	if err != nil {
		return nil, err
	}
	return netPeer{c}, nil
}

// deadPeer is a peer that was reset at once.
type deadPeer struct{ err error }

func (p deadPeer) Read([]byte) (int, error)    { return 0, p.err }
func (p deadPeer) Write([]byte) (int, error)   { return 0, p.err }
func (p deadPeer) Close() error                { return nil }
func (p deadPeer) CloseWrite() error           { return p.err }
func (p deadPeer) Reset() error                { return nil }
func (p deadPeer) SetDeadline(time.Time) error { return nil }
func (p deadPeer) LocalAddr() net.Addr         { return nil }
func (p deadPeer) RemoteAddr() net.Addr        { return nil }

// netPeer is a connection of package net.
type netPeer struct{ net.Conn }

func (p netPeer) CloseWrite() error {
	c, ok := p.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return c.CloseWrite()
}

func (p netPeer) Reset() error {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		if err := c.SetLinger(0); err != nil {
			return err
		}
	}
	return p.Conn.Close()
}
