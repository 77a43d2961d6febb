//go:build linux

package sock

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// UnixPath remembers the socket file that a listener bound, so that its end
// removes that file and no other: a successor may have bound the path anew.
// The zero value owns nothing.
type UnixPath struct {
	path     string
	dev, ino uint64
}

// OwnUnixPath is the socket file that a listener on addr has just bound. For
// any other address, an abstract one included, it owns nothing. Call it right
// after Listen.
func OwnUnixPath(addr net.Addr) UnixPath {
	a, ok := addr.(*net.UnixAddr)
	if !ok || a.Name == "" || a.Name[0] == '@' {
		return UnixPath{}
	}
	var st unix.Stat_t
	if unix.Lstat(a.Name, &st) != nil {
		return UnixPath{}
	}
	return UnixPath{a.Name, uint64(st.Dev), st.Ino}
}

// Unlink removes the file if it is still the one that was bound.
func (p UnixPath) Unlink() error {
	if p.path == "" {
		return nil
	}
	var st unix.Stat_t
	if unix.Lstat(p.path, &st) != nil || uint64(st.Dev) != p.dev || st.Ino != p.ino {
		return nil
	}
	return os.NewSyscallError("unlink", unix.Unlink(p.path))
}

// LockDirectory has those who listen on paths in path's directory do so one after the
// other. Between its bind and its listen a socket refuses, as one that nobody listens on
// does: another one would take its place, and both believe that they have it. Who
// locks the directory for another purpose is waited for, but not for ever.
func LockDirectory(path string) (unlock func()) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {} // bind tells why, or it may be written to and not read
	}
	for range 100 {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != unix.EWOULDBLOCK {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() {
		unix.Flock(fd, unix.LOCK_UN) // also where a child that is about to exec has it
		unix.Close(fd)
	}
}

// removeStale removes the file at path if it is a socket that nobody listens
// on. It reports whether the path is free to be bound again.
func removeStale(sa *Sockaddr, path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// A listener whose backlog is full answers EAGAIN: it lives.
	return Connect(fd, sa) == unix.ECONNREFUSED && unix.Unlink(path) == nil
}
