//go:build !linux

package reactor

import (
	"errors"
	"runtime"

	"couplet"
)

// New returns an error: epoll is a mechanism of Linux.
func New(couplet.Config) (couplet.Engine, error) {
	return nil, errors.New("couplet: there is no epoll on " + runtime.GOOS + "; use --engine=goroutine")
}
