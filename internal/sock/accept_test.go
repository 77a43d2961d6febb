package sock

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Many loops fail at one moment, and there is one line; a second later there is another.
func TestAcceptWarningIsGivenOnceASecond(t *testing.T) {
	var out bytes.Buffer // the Handler has a lock for it
	log := slog.New(slog.NewTextHandler(&out, nil))
	var w AcceptWarning
	now := time.Now()
	for i, later := range []time.Duration{0, time.Second - 1, time.Second, 2*time.Second - 1} {
		var loops sync.WaitGroup
		for range 8 {
			loops.Go(func() { w.Warn(now.Add(later), log, "fake", &net.TCPAddr{}, fmt.Errorf("round %d", i)) })
		}
		loops.Wait()
	}
	if n := strings.Count(out.String(), "\n"); n != 2 || !strings.Contains(out.String(), "round 0") || !strings.Contains(out.String(), "round 2") {
		t.Errorf("%d lines: %s", n, &out)
	}
}
