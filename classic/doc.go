// Package classic is the model before event loops: a goroutine per connection,
// on package net. It needs nothing of a particular system and builds wherever
// Go does; it is the engine to compare the others with, and the one to fall
// back to where there is neither io_uring nor epoll.
//
// # Basics
//
// A loop is a mutex, with timers and posted functions. Each connection has a
// goroutine that reads, and gets one that writes when a send first blocks. They
// make system calls outside the mutex and callbacks inside it, so the callbacks
// of one loop never overlap, as on an engine that has threads for loops. A turn
// is what happens while the mutex is held once; after it, the goroutine that
// had it sends what was written in it, as far as the kernel takes it at once.
// Timers and posted functions have a goroutine of their own, one per loop.
//
// # Caveats
//
//   - A Transport method called off its loop is a data race that this engine
//     cannot detect; the race detector can, and so do the other engines.
//   - Config.CPUs, Features and the ring sizes mean nothing here, and
//     connections are dealt to the loops in turn where Config.Spread says
//     ReusePort.
//   - Only on Linux does Close learn that the peer has acknowledged everything;
//     elsewhere it waits for the peer's FIN or for LingerTimeout.
//   - Shutdown knows that it is on a loop by the number of its goroutine. A
//     goroutine that a callback starts and waits for is not on the loop by that
//     measure, and waits for ever.
package classic
