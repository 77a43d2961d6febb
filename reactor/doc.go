// Package reactor is the readiness engine: it waits until the kernel says that
// it may (epoll), then makes the system call itself and reports the result.
//
// # Basics
//
// Read driver.go, accept.go, connect.go, receive.go, send.go, close.go and
// wait.go beside the files of the same names in package couplet/proactor: the
// difference between the two is the difference between readiness and
// completion. What both share (the life of a connection, queues, timers) is
// internal/loop. poller.go is the mechanism that tells of readiness.
//
// # Lifetimes
//
// The kernel holds nothing of ours between two calls: a system call is given
// memory and is done with it when it returns. So a descriptor can be closed at
// once, and the only thing that can be stale is an event already fetched: it
// carries slot and generation, and is dropped where they do not fit.
//
// # Caveats
//
// Linux only; elsewhere New returns an error.
package reactor
