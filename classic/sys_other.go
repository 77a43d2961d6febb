//go:build !unix

package classic

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"

	"couplet"
)

// Without a portable way to ask whether a send would block, every send is left
// to the writing goroutine and counts as blocked until it is done: WritePaused
// comes for every turn that queued more than the high watermark.

func send(net.Conn, []byte) (n int, err error) { return 0, nil }

func sendOrWait(nc net.Conn, p []byte) (n int, err error) {
	n, err = nc.Write(p[:min(len(p), chunk)])
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return n, err
}

func resetIfPipe(err error) error              { return err }
func pendingError(_ net.Conn, err error) error { return err }
func awaitError(net.Conn) error                { return nil }
func connected(net.Conn) bool                  { return true }
func exhausted(error) bool                     { return true }
func broken(error) bool                        { return false }
func inUse(err error) bool {
	return strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "Only one usage")
}
func refused(err error) bool { return strings.Contains(err.Error(), "refused") }
func backlogFull(error) bool { return false }
func duplicate(c syscall.Conn, _ string) (*os.File, error) {
	if l, ok := c.(interface{ File() (*os.File, error) }); ok {
		return l.File()
	}
	return nil, errors.ErrUnsupported
}
func unblock(syscall.Conn)                               {}
func listening(syscall.Conn) error                       { return nil }
func setBacklog(syscall.Conn, int) error                 { return nil }
func setOptions(uintptr, string, *couplet.Options) error { return nil }
