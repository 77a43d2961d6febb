//go:build unix

package main

import "golang.org/x/sys/unix"

// terminalSize is that of the terminal fd, or 0 where it tells none.
func terminalSize(fd uintptr) (rows, cols int) {
	w, err := unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(w.Row), int(w.Col)
}
