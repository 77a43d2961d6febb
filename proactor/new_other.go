//go:build !linux || !(amd64 || arm64 || riscv64 || loong64)

package proactor

import (
	"couplet"
	"couplet/proactor/ring"
)

// New returns an error: io_uring is a mechanism of Linux.
func New(couplet.Config) (couplet.Engine, error) {
	_, err := ring.Probe()
	return nil, err
}
