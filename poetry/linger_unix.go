//go:build unix

package poetry

import (
	"syscall"

	"couplet"
)

// resetOnDeath makes the kernel reset t's connection, instead of closing it
// cleanly, should its descriptor be closed by the end of this process: on the
// poem wire a FIN would say that the poem was whole (SO_LINGER with zero seconds;
// socket(7)). It must be taken back before an orderly close. Where there is no
// such option, nothing happens.
func resetOnDeath(t couplet.Transport, on bool) {
	if t.LocalAddr() != nil && t.LocalAddr().Network() == "unix" {
		return
	}
	conn, err := t.SyscallConn()
	if err != nil {
		return
	}
	var linger syscall.Linger
	if on {
		linger.Onoff = 1
	}
	conn.Control(func(fd uintptr) {
		syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &linger)
	})
}
