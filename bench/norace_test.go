//go:build !race

package bench_test

// ownCalls is how many system calls per message a loop may make besides those it
// counts: Go's.
const ownCalls = .2
