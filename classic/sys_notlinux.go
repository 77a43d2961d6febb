//go:build !linux

package classic

import "net"

// acknowledged cannot tell here.
func acknowledged(net.Conn) bool { return false }

// arrived cannot tell here.
func arrived(net.Conn) bool { return false }

// hungUp cannot tell here.
func hungUp(net.Conn) bool { return false }

// taken cannot tell here.
func taken(net.Conn) uint64 { return 0 }

// writable leaves it to a send to find out.
func writable(uintptr) bool { return true }

// lockDirectory does not: of two who take a dead listener's path at the same moment
// both may believe that they have it.
func lockDirectory(string) (unlock func()) { return func() {} }

func makeRoom() {}
