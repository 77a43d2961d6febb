//go:build race

package bench_test

// ownCalls is how many system calls per message a loop may make besides those it
// counts: this build asks for the thread's number to check who calls.
const ownCalls = 3
