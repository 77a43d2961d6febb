// Package proactor is the completion engine: it tells the kernel (io_uring)
// what to do, and the kernel says when it is done.
//
// # Basics
//
// Read driver.go, accept.go, connect.go, receive.go, send.go, close.go and
// wait.go beside the files of the same names in package couplet/reactor: the
// difference between the two is the difference between completion and
// readiness. What both share (the life of a connection, queues, timers) is
// internal/loop. buffers.go holds the memory that the kernel receives into,
// bulk.go receives where that is too much for the cache,
// zerocopy.go holds what may be sent from without a copy;
// package couplet/proactor/ring is the boundary to the kernel.
//
// # Lifetimes
//
// The kernel works on what it was given until it says that it is done, so
// everything here is a question of who holds what, and until when:
//
//   - A connection's operations (at most one each of receive or poll for data, read, watch,
//     send, room, connect) are in conn.inFlight from the entry that starts them to their last completion,
//     the one without CQEFMore. The descriptor is closed only when that is
//     empty, after everything was cancelled, and once more where the kernel did not find it;
//     only then is Closed reported and the slot given on.
//   - user_data is kind, generation, slot, and never an address; that of a cancellation is
//     its operation's, with one bit more. A completion
//     whose generation does not fit is counted and dropped, but the buffer it
//     carries goes back to the ring. A descriptor is in none of these: a listener is
//     known until the last completion of its accept.
//   - Bytes to send are the loop's segments, which stay reachable and unchanged
//     until Sent, or until Closed. The header and the list of a gathered send are
//     copied by the kernel when it takes the entry, and are ours again then.
//   - A receive buffer is the kernel's while it is in the buffer ring. Between its
//     completion and its return it is ours, lent to the loop for one report. When
//     the loop keeps it, fresh memory takes its place under the same id, so the
//     ring never runs dry for the sake of one who keeps.
//   - Who brings much is received from into one block of the driver's, by one read at a
//     time for all connections: it is the kernel's until that has completed.
//   - A Buffer that is sent without a copy, which couplet.Ablation asks for, is lent
//     to the network until that says that it has let go: see zerocopy.go. This can
//     outlive the connection, and is all that can.
//
// # Caveats
//
// Linux 6.0 or later, on amd64, arm64, riscv64 or loong64; elsewhere New returns an
// error that says what is missing and what to do.
package proactor
