package bench

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is read late came when it came: a chunk's lateness is the server's, not that of
// a generator that is busy elsewhere.
func TestArrivalIsNotTheTimeOfReading(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	to, err := accepted.(*net.TCPConn).File()
	accepted.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	fd := int(to.Fd())
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		t.Fatal(err)
	}
	since1970 := func() time.Duration { return time.Duration(time.Now().UnixNano()) }
	// The kernel begins to stamp a little after it was asked to.
	for deadline := time.Now().Add(10 * time.Second); ; {
		begun := since1970()
		if _, err := from.Write([]byte("a chunk")); err != nil {
			t.Fatal(err)
		}
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for n := 0; n == 0; {
			if n, err = unix.Poll(ready, 10_000); err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
		}
		there := since1970()
		for since1970() < there+time.Millisecond { // the generator is busy
		}
		var s stamped
		buf := make([]byte, 100)
		n, came, err := s.read(fd, buf)
		if err != nil || string(buf[:n]) != "a chunk" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		if came == 0 && time.Now().Before(deadline) {
			continue
		}
		if came < begun || came > there {
			t.Errorf("it came %v after it was sent, and %v before it was seen", came-begun, there-came)
		}
		return
	}
}
