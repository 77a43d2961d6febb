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

// BulkFrom has the engines of a test receive from a connection one by one as soon as a
// receive brings n bytes, and otherwise again after as many in a row that bring less as
// little says.
func BulkFrom(t testing.TB, n, little int) { setBulk(t, -1, n, little) }

func setBulk(t testing.TB, full, least, little int) {
	was := [...]int{cacheful, much, littleInRow}
	cacheful, much, littleInRow = full, least, little
	t.Cleanup(func() { cacheful, much, littleInRow = was[0], was[1], was[2] })
}
