package bench_test

import (
	"net"
	"testing"
	"time"

	"couplet"
	"couplet/bench"
	"couplet/engines"
)

// stalling echoes, and does nothing at all for a while when the message number at
// comes.
type stalling struct {
	seen, at int
	stall    time.Duration
}

func (s *stalling) ConnectionMade(couplet.Transport)        {}
func (s *stalling) ConnectionLost(couplet.Transport, error) {}
func (s *stalling) DataReceived(t couplet.Transport, data []byte) {
	t.Write(data)
	before := s.seen
	if s.seen += len(data) / 64; before < s.at && s.seen >= s.at {
		time.Sleep(s.stall)
	}
}

// An open loop sends by the clock, and counts latency from when a message was to
// be sent: a server's stall is felt by everyone who would have come meanwhile. A
// closed loop feels it once per connection.
func TestAnOpenLoopDoesNotOmitAStall(t *testing.T) {
	const rate, stall = 1000, 200 * time.Millisecond
	for _, rate := range []float64{0, rate} {
		e, err := engines.Open("epoll", couplet.Config{})
		if err != nil {
			t.Skip(err)
		}
		shared := &stalling{at: 150, stall: stall}
		l, err := e.Listen("tcp", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return shared }))
		if err != nil {
			t.Fatal(err)
		}
		w, err := bench.Workload{Kind: bench.Echo, Connections: 2, Rate: rate}.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		f, err := bench.Measure(w, l.Addr().(*net.TCPAddr).Port, time.Millisecond, 600*time.Millisecond,
			func() (bench.Report, error) { return bench.Usage(e), nil })
		e.Stop()
		<-e.Done()
		if err != nil || len(f.Errors) > 0 {
			t.Fatal(err, f.Errors)
		}
		var late int64
		for _, b := range f.Latency.Distribution() {
			if b.From >= int64(stall/4) {
				late += b.Count
			}
		}
		if rate == 0 {
			// Whatever else the machine does: two connections, 600 ms, 50 ms each.
			if late > 2*12+2 {
				t.Errorf("a closed loop on 2 connections felt the stall %d times", late)
			}
			continue
		}
		if late < 75 { // of the 200 messages of the stall three quarters waited so long, on a quiet machine
			t.Errorf("an open loop felt the stall %d times", late)
		}
		if f.Units < 595 || f.Units > 605 {
			t.Errorf("%v messages in 600 ms at %v a second", f.Units, rate)
		}
	}
}
