//go:build linux

package engines_test

import (
	"testing"
	"time"

	"couplet/engines"
)

// The calls that brought what is counted as events are counted, too. An engine that waits
// for one thing each has none of them.
func TestBatchesAreCounted(t *testing.T) {
	for _, name := range []string{engines.Uring, engines.Epoll, engines.Goroutine} {
		t.Run(name, func(t *testing.T) {
			e, err := open(t, name)
			if err != nil {
				t.Skip(err)
			}
			echoes(t, e)
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				s := e.Stats()
				var least, most int64
				for i, n := range s.Batches {
					least, most = least+n<<i, most+n<<(i+1)-n
				}
				switch none := most == 0; {
				case s.Events > 0 && none == (name == engines.Goroutine) && (none || least <= s.Events && s.Events <= most):
					return
				case time.Now().After(end):
					t.Fatalf("%d events, in calls %d", s.Events, s.Batches)
				}
			}
		})
	}
}
