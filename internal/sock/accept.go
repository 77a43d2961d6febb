package sock

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// AcceptWarning is the log's line about a listener that cannot accept: one a second at
// most, on however many sockets and loops. The zero value has not warned yet.
type AcceptWarning struct {
	mu   sync.Mutex
	last time.Time
}

// Warn tells of err, and of what removes its cause where that is known. Any goroutine may
// call it.
func (w *AcceptWarning) Warn(now time.Time, log *slog.Logger, engine string, listener net.Addr, err error) {
	if !w.due(now) {
		return
	}
	line := []any{"engine", engine, "listener", listener.String(), "error", err}
	if remedy := acceptRemedy(err); remedy != "" {
		line = append(line, "remedy", remedy)
	}
	log.Warn("cannot accept; connections wait in the backlog", line...)
}

func (w *AcceptWarning) due(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.last) < time.Second {
		return false
	}
	w.last = now
	return true
}

// MaxIgnored is how many accepts in a row that were ignored, with nobody accepted between
// them, are no coincidence.
const MaxIgnored = 16

const (
	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// AcceptBackoff is how a listener goes on whose accepts fail. It is new again, by its zero
// value, when one succeeds.
type AcceptBackoff struct {
	ignored int
	wait    time.Duration
}

// Ignore takes an error that says nothing of the next accept. It reports whether to go on at
// once, which is not so from MaxIgnored on.
func (b *AcceptBackoff) Ignore() bool {
	b.ignored++
	return b.ignored < MaxIgnored
}

// Next is how long to wait now: twice as long each time.
func (b *AcceptBackoff) Next() time.Duration {
	b.wait = min(max(2*b.wait, minBackoff), maxBackoff)
	return b.wait
}
