//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor

import "testing"

// ZeroCopyFrom has the engines of a test send Buffers of n bytes and more without
// a copy, where couplet.Ablation asks for it.
func ZeroCopyFrom(t testing.TB, n int) {
	before := zeroCopyLeast
	zeroCopyLeast = n
	t.Cleanup(func() { zeroCopyLeast = before })
}
