package classic

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"couplet"
)

// half is a script that is told of the end of the stream.
type half struct {
	*script
	closed chan struct{}
}

func (h half) ReadClosed(couplet.Transport) { close(h.closed) }

// A send that had taken a reset off the socket, and had not told of it yet, left the reader
// with an end in order.
func TestAResetThatASendHadTakenWasAnEndInOrder(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	made, came := make(chan *conn, 1), make(chan struct{}, 1)
	h := half{newScript(), make(chan struct{})}
	h.made = func(t couplet.Transport) { t.PauseReading(); made <- t.(*conn) }
	h.data = func(couplet.Transport, []byte) { came <- struct{}{} }
	p := dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(h)).Addr())
	c := receive(t, made, "ConnectionMade")
	if _, err := p.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	await(t, "the byte", c.came.Load) // the reader has it, and waits
	p.(*net.TCPConn).SetLinger(0)
	p.Close()
	await(t, "the reset", func() bool { return hungUp(c.nc) })
	c.l.mu.Lock()
	c.queue.sending = true // what the send does, step by step
	c.l.mu.Unlock()
	taken := 0
	ask(c.nc, func(fd int, _ bool) { taken, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR) })
	if taken != int(syscall.ECONNRESET) {
		t.Fatalf("the socket's error is %v", syscall.Errno(taken))
	}
	c.l.Post(func() { c.ResumeReading() })
	receive(t, came, "DataReceived")
	await(t, "the reader's end", func() bool {
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		return c.came.Load() || c.peerFIN
	})
	var f flusher
	c.sent(&f, 1, 0, syscall.ECONNRESET)
	f.run()
	if err := receive(t, h.lost, "ConnectionLost"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the reason is %v", err)
	}
	select {
	case <-h.closed:
		t.Error("ReadClosed came")
	default:
	}
}

// tellsPaused is told of the peer's FIN, and tells whether its reading was paused then.
type tellsPaused struct {
	*script
	paused chan bool
}

func (p tellsPaused) ReadClosed(t couplet.Transport) { p.paused <- t.(*conn).paused }

// Who paused while the reader waited for a send, to know which end it had met, was told of
// the end all the same.
func TestReadClosedCameWhilePaused(t *testing.T) {
	e := newEngine(t, couplet.Config{})
	made := make(chan *conn, 1)
	s := tellsPaused{newScript(), make(chan bool, 1)}
	s.made = func(t couplet.Transport) { made <- t.(*conn) }
	p := dialTo(t, listen(t, e, "tcp", "127.0.0.1:0", always(s)).Addr())
	c := receive(t, made, "ConnectionMade")
	c.l.mu.Lock()
	c.queue.sending = true // what a send does, step by step
	c.l.mu.Unlock()
	if err := c.nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.Close()
	await(t, "the end", c.came.Load) // the reader has it, and waits
	paused := make(chan struct{})
	c.l.Post(func() { c.PauseReading(); close(paused) })
	receive(t, paused, "pause")
	c.l.mu.Lock()
	c.queue.sending = false
	c.reader.Signal()
	before := c.l.now
	c.l.mu.Unlock()
	await(t, "the reader's turn", func() bool {
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		return c.l.now != before
	})
	c.l.Post(func() { c.ResumeReading() })
	if receive(t, s.paused, "ReadClosed") {
		t.Error("ReadClosed came while reading was paused")
	}
}
