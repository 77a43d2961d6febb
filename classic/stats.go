package classic

import (
	"sync/atomic"

	"couplet"
)

// counters are the engine's Stats as they grow.
type counters struct {
	open, listening                                 atomic.Int64
	accepted, dialed, refused, dialsFailed          atomic.Int64
	acceptErrors, acceptIgnored                     atomic.Int64
	bytesReceived, bytesSent                        atomic.Int64
	receives, sends, shortSends, crossings          atomic.Int64
	turns, sleeps, posted, wakes, timersRun, panics atomic.Int64
}

// Stats are the engine's counters. Turns are callbacks' turns at a loop's
// mutex, sleeps those of the goroutines that run timers and posts.
func (e *engine) Stats() couplet.Stats {
	n := &e.count
	return couplet.Stats{
		Open:          n.open.Load(),
		Listening:     n.listening.Load(),
		Accepted:      n.accepted.Load(),
		Dialed:        n.dialed.Load(),
		Refused:       n.refused.Load(),
		DialsFailed:   n.dialsFailed.Load(),
		AcceptErrors:  n.acceptErrors.Load(),
		AcceptIgnored: n.acceptIgnored.Load(),
		BytesReceived: n.bytesReceived.Load(),
		BytesSent:     n.bytesSent.Load(),
		Receives:      n.receives.Load(),
		Sends:         n.sends.Load(),
		ShortSends:    n.shortSends.Load(),
		Turns:         n.turns.Load(),
		Sleeps:        n.sleeps.Load(),
		Crossings:     n.crossings.Load(),
		Events:        n.receives.Load() + n.sends.Load(),
		Posted:        n.posted.Load(),
		Wakes:         n.wakes.Load(),
		Timers:        n.timersRun.Load(),
		Panics:        n.panics.Load(),
	}
}
