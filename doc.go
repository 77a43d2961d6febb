// Package couplet is the contract of a network engine with two ways of doing
// I/O: a proactor on Linux io_uring ("do this, tell me when it is done") and a
// reactor on epoll ("tell me when I may, then I do it"). A [Protocol] runs
// unchanged on either.
//
// # Basics
//
// An [Engine] comes from package couplet/engines (or from one of the engine
// packages couplet/proactor, couplet/reactor and couplet/classic). It runs from
// the moment it was made until [Engine.Shutdown]; nothing takes over main.
// [Engine.Listen] and [Engine.Dial] take a [Factory], which builds one
// [Protocol] per connection. The engine then calls the protocol:
// ConnectionMade once and first, DataReceived any number of times,
// ConnectionLost once and last. The protocol speaks through its [Transport].
//
// All callbacks of a connection run on one loop, one at a time, and never
// inside a call that the protocol makes. So a protocol needs no locks for
// state of its own, and must not block: what blocks goes to [Loop.Go].
//
// # Caveats
//
//   - A Transport and a Loop's timers belong to the loop's callbacks. From any
//     other goroutine use [Transport.Handle] and [Loop.Post], which are safe
//     anywhere. On io_uring and epoll, builds with -race or with the tag
//     couplet_debug panic where this rule is broken.
//   - The slice that DataReceived gets is valid only during the call. A
//     protocol that wants to keep received bytes without a copy implements
//     [BufferReceiver].
//   - Write copies: the caller may reuse its slice at once. [Transport.WriteBuffer]
//     does not copy: the bytes must not change until the Buffer's onRelease ran.
//   - Write never blocks. A protocol that produces more than its peer takes
//     implements [WriteFlow] and obeys it, or meets [ErrOutboundFull].
//   - On the wire of a protocol where a FIN means "complete" (the poem
//     protocol, HTTP/1.0), end with Close only when everything was written; use
//     Abort for a failure, so that what is cut looks cut.
//
// # What a protocol may leave out
//
// Each optional interface has a default:
//
//	ReadClosedHandler     Close: what was written is sent, then the connection ends
//	WriteClosedHandler    nothing
//	WriteFlow             nothing: Write fails with ErrOutboundFull where MaxOutbound is reached
//	BufferReceiver        DataReceived, whose bytes are lent for the call
//	DrainHandler          Close, when the engine stops
//	ConnectFailedHandler  nothing: a dial that failed is not heard of (it is the Factory's)
//
// Who wraps a protocol forwards them by the functions that begin with Deliver.
//
// # Memory
//
// An idle connection costs about 250 bytes on io_uring and epoll, beside what the kernel
// has for its socket: it has no buffers. Then there is
//
//   - what was written to it and the kernel has not taken: [Options].MaxOutbound at most, and with
//     a protocol that obeys [WriteFlow] the high watermark and what it writes in a turn;
//     [Transport.WriteBuffer] is not bounded by MaxOutbound;
//   - what came while it was paused: on epoll one read of up to 68 KiB, on io_uring at
//     most all buffers of its loop's ring ([Transport.PauseReading]);
//   - the [Buffer]s that its protocol retains, each with the block that it is part of.
//
// A loop has memory to receive into: 68 KiB on epoll, 1 MiB on io_uring, which grows with the
// load to 16 MiB and shrinks again ([Config].RingBuffers). It has no bound for what is posted to it.
// On the goroutine engine a connection costs about 11 KB, and up to 64 KiB more when
// much has come at once.
//
// # From Twisted
//
// Protocol, Factory and Transport are Twisted's. A reactor is an [Engine], of which
// there may be several; its thread is a [Loop]. The names that differ:
//
//	buildProtocol, clientConnectionFailed              Build, ConnectFailed
//	loseConnection, loseWriteConnection                Close, CloseWrite
//	abortConnection                                    Abort
//	readConnectionLost, writeConnectionLost            ReadClosed, WriteClosed
//	pauseProducing, resumeProducing of a transport     PauseReading, ResumeReading
//	pauseProducing, resumeProducing of a producer      WritePaused, WriteResumed
//	callLater, LoopingCall                             AfterFunc, Every
//	callFromThread, deferToThread                      Post (or a Handle), Go
//
// There is no Deferred: what comes later comes in a callback, and cancellation is a
// context's. A write after loseConnection is still sent; after Close it is refused.
package couplet
