//go:build linux

package engines_test

import (
	"testing"
	"time"

	"couplet"
	"couplet/engines"
	"couplet/internal/testpeer"
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

// much sends 8 MiB, of which a peer that does not read takes a part.
type much struct{}

func (much) ConnectionMade(t couplet.Transport) {
	b := couplet.NewBuffer(make([]byte, 8<<20), nil)
	t.WriteBuffer(b)
	b.Release()
}
func (much) DataReceived(couplet.Transport, []byte)  {}
func (much) ConnectionLost(couplet.Transport, error) {}

// A send that the kernel takes only in part is counted as one. On TCP io_uring's kernel
// waits for the rest itself.
func TestShortSendsAreCounted(t *testing.T) {
	for name, network := range map[string]string{engines.Uring: "unix", engines.Epoll: "tcp4", engines.Goroutine: "tcp4"} {
		t.Run(name, func(t *testing.T) {
			e, err := open(t, name)
			if err != nil {
				t.Skip(err)
			}
			_, c := testpeer.Dial(t, e, network, much{}, couplet.SendBuffer(64<<10)) // less than any engine gives at a time
			defer c.Close()
			for end := time.Now().Add(20 * time.Second); e.Stats().ShortSends == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%+v", e.Stats())
				}
			}
			if s := e.Stats(); s.ShortSends > s.Sends || s.BytesSent == 0 || s.BytesSent >= 8<<20 {
				t.Errorf("%+v", s)
			}
		})
	}
}
