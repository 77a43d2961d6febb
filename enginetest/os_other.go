//go:build !linux

package enginetest

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// Elsewhere than on Linux descriptors and mappings are not counted, and cases
// that need more are left out (NeedsLinux).

func openFiles() map[string]int   { return nil }
func fdNumbers() []int            { return nil }
func anonymousMappings() []string { return nil }
func inherited() []string         { return nil }

func setReadBuffer(int) func(network, address string, c syscall.RawConn) error { return nil }

func (packageNet) Refuse(string) (string, func(), error) { return "", nil, errors.ErrUnsupported }
func (packageNet) Stall(string) (string, func(), error)  { return "", nil, errors.ErrUnsupported }

func bound(string) (int, string, func(), error) { return -1, "", nil, errors.ErrUnsupported }
func rawSocket(string) (int, error)             { return -1, errors.ErrUnsupported }
func rawConnect(int, net.Addr) error            { return errors.ErrUnsupported }
func rawClose(int)                              {}
func rawDup(uintptr) (int, error)               { return -1, errors.ErrUnsupported }
func rawShutdown(uintptr) error                 { return errors.ErrUnsupported }
func sendUrgent(Peer, byte) error               { return errors.ErrUnsupported }
func boundFile(string) (*os.File, error)        { return nil, errors.ErrUnsupported }
func socketBacklog(uintptr) (int, error)        { return 0, errors.ErrUnsupported }
func limitFiles(int) (func(), error)            { return nil, errors.ErrUnsupported }
func setFileLimit(int) error                    { return errors.ErrUnsupported }
func cpuTime() time.Duration                    { return 0 }
func signalSelf()                               {}
func socketOption(uintptr, string) (int, error) { return 0, errors.ErrUnsupported }
