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
