package couplet

import "reflect"

// Stats are an engine's counters since it was made, except where a field says
// otherwise. Each loop counts for itself and publishes once per turn.
type Stats struct {
	// Open is the number of connections open now.
	Open int64
	// Listening is the number of listening sockets now.
	Listening int64
	// Held is the bytes of memory that the loops hold ready to receive into now, for
	// all connections together: of io_uring the buffers that the kernel was given
	// (provided buffers), and what those who bring much are received into.
	Held int64

	// Accepted and Dialed count connections made, Refused those of both that Build
	// refused.
	Accepted, Dialed, Refused int64
	// DialsFailed counts ConnectFailed.
	DialsFailed int64
	// AcceptErrors counts accepts that failed for want of descriptors or memory.
	AcceptErrors int64
	// AcceptIgnored counts connections that were gone before they were accepted.
	AcceptIgnored int64

	// BytesReceived and BytesSent are payload bytes from and to the kernel.
	BytesReceived, BytesSent int64
	// Receives and Sends count completed operations.
	Receives, Sends int64
	// ShortSends counts sends that the kernel took only in part.
	ShortSends int64

	// Turns counts turns of the loops, Sleeps those that waited.
	Turns, Sleeps int64
	// Crossings counts system calls made by the loops for I/O and waiting.
	Crossings int64
	// Events counts completions or readiness events.
	Events int64
	// Batches counts the calls that brought some of these: Batches[i] those that
	// brought from 2^i to 2^(i+1)-1, the last all that brought more. An engine whose
	// waits are for one thing each counts none.
	Batches [14]int64

	// Posted counts posted functions that ran, Wakes the wake-ups they needed.
	Posted, Wakes int64
	// Timers counts timers that fired.
	Timers int64
	// Panics counts panics in callbacks.
	Panics int64

	// ZeroCopies counts sends that were to be made without a copy, and
	// ZeroCopiesCopied those of them that the kernel copied all the same: see
	// Ablation.ZeroCopy.
	ZeroCopies, ZeroCopiesCopied int64
	// BuffersExhausted counts receives that found no buffer (io_uring's
	// ENOBUFS) and were armed again.
	BuffersExhausted int64
	// Rearmed counts multishot operations that ended and were armed again.
	Rearmed int64
	// Stale counts completions for a connection that was gone.
	Stale int64
	// Overflows counts completions that did not fit the completion queue and
	// were delivered late.
	Overflows int64
}

// Add returns the sum of s and o, field by field.
func (s Stats) Add(o Stats) Stats {
	a, b := reflect.ValueOf(&s).Elem(), reflect.ValueOf(o)
	for i := range a.NumField() {
		if f := a.Field(i); f.Kind() == reflect.Int64 {
			f.SetInt(f.Int() + b.Field(i).Int())
		}
	}
	for i, n := range o.Batches {
		s.Batches[i] += n
	}
	return s
}
