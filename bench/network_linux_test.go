package bench

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"couplet/internal/netpair"
)

// A station is an agent at a host, which goes on after a session.
type station struct {
	t      *testing.T
	addr   string
	tokens chan string
	events chan event // of its log
}

// An event is a message of a log, and of what process it tells.
type event struct {
	says string
	pid  int64
}

func beginStation(t *testing.T, h *netpair.Host, at netip.Addr, serverPort int) *station {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &station{t: t, tokens: make(chan string, 100), events: make(chan event, 1000)}
	addr, ended := make(chan string, 1), make(chan error, 1)
	a := Agent{
		Keep: true, ServerPort: serverPort,
		Announce: func(token string) error { s.tokens <- token; return nil },
		Log:      slog.New(s),
	}
	go h.Do(func() {
		l, err := net.Listen("tcp", netip.AddrPortFrom(at, 0).String())
		if err != nil {
			ended <- err
			return
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		addr <- net.JoinHostPort(at.String(), port)
		ended <- a.Serve(ctx, l)
	})
	t.Cleanup(func() {
		stop()
		if err := Await(t, "the agent's end", ended); err != nil {
			t.Error(err)
		}
	})
	s.addr = Await(t, "the agent", addr)
	return s
}

func (s *station) Enabled(context.Context, slog.Level) bool { return true }
func (s *station) WithAttrs([]slog.Attr) slog.Handler       { return s }
func (s *station) WithGroup(string) slog.Handler            { return s }

func (s *station) Handle(_ context.Context, r slog.Record) error {
	e := event{says: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "pid" {
			e.pid = a.Value.Int64()
		}
		return true
	})
	s.events <- e
	return nil
}

// hears waits until the agent's log says so.
func (s *station) hears(says string) event {
	s.t.Helper()
	for {
		if e := Await(s.t, says, s.events); e.says == says {
			return e
		}
	}
}

// dial begins a session from h.
func (s *station) dial(h *netpair.Host) *Remote {
	s.t.Helper()
	token := Await(s.t, "a token", s.tokens)
	var r *Remote
	var err error
	h.Do(func() { r, err = Dial(context.Background(), s.addr, token) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { r.Close() })
	return r
}

// Await is what c gives; it is for package bench_test too.
func Await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(longest):
		t.Fatalf("no sign of %s within %v", what, longest)
	}
	return v
}

// silentFor has the kernel give up soon.
func silentFor(t *testing.T, d time.Duration) {
	before := silence
	silence = d
	t.Cleanup(func() { silence = before })
}

func running(pid int64) bool {
	_, err := os.Stat("/proc/" + strconv.FormatInt(pid, 10))
	return err == nil
}

// received is how many bytes have come to h's card.
func received(t *testing.T, h *netpair.Host) (n int64) {
	t.Helper()
	h.Do(func() {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(text)) {
			if card, counts, _ := strings.Cut(line, ":"); strings.TrimSpace(card) == h.Card {
				n, _ = strconv.ParseInt(strings.Fields(counts)[0], 10, 64)
			}
		}
	})
	return n
}

// small is a plan of one round with little to do.
func small(r *Remote, workloads ...Workload) Plan {
	return Plan{
		Workloads: workloads, Candidates: []string{"epoll", "goroutine"}, Rounds: 1, Duration: 20 * time.Millisecond, Warm: time.Millisecond, Remote: r,
	}
}

// A link that goes down in the midst of a sample costs that sample and what would
// follow: each end learns it in time, however long the sample is, the server ends,
// and the agent has room for the next session.
func TestALinkThatGoesDown(t *testing.T) {
	silentFor(t, time.Second)
	near, far := netpair.New(t)
	s := beginStation(t, far, far.IPv4, 0)
	r := s.dial(near)
	p := small(r, Workload{Kind: Idle, Connections: 2}, Workload{Kind: Echo, Connections: 2})
	p.Duration = 4 * time.Minute
	measuring := make(chan bool)
	p.Next = func(_, _ int, w Workload, _ []string) {
		if w.Kind == Echo {
			close(measuring)
		}
	}
	var result *Result
	ended := make(chan error, 1)
	go near.Do(func() {
		var err error
		result, err = p.Run(context.Background(), io.Discard)
		ended <- err
	})
	Await(t, "the sample", measuring)
	for before, end := received(t, near), time.Now().Add(longest); received(t, near) < before+20_000; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sample does not flow")
		}
	}
	began := time.Now()
	near.Unplug()
	err := Await(t, "the end of the run", ended)
	if err == nil || !strings.Contains(err.Error(), "the agent at "+s.addr+" is lost") {
		t.Errorf("after %v the run ends with %v", time.Since(began), err)
	}
	if !result.Partial || len(result.Samples) != 2 || len(result.Errors()) > 0 {
		t.Errorf("%d samples, partial: %v, errors %v", len(result.Samples), result.Partial, result.Errors())
	}
	if n := result.Manifest.Network; n.Server != far.IPv4.String() || n.ServerCard != far.Card || n.Generator != near.IPv4.String() || n.GeneratorCard != near.Card ||
		n.MTU != 1500 || n.RoundTrip <= 0 || n.RoundTrip > longest {
		t.Errorf("the network in the manifest: %+v", n)
	}
	var last event
	for range 3 {
		last = s.hears("server started")
	}
	s.hears("session ends")
	if running(last.pid) {
		t.Errorf("the server %d is there", last.pid)
	}

	near.Plug()
	r = s.dial(near)
	near.Do(func() {
		result, err = small(r, Workload{Kind: Echo, Connections: 2}).Run(context.Background(), io.Discard)
	})
	if err != nil || len(result.Samples) != 2 {
		t.Errorf("the next run: %v", err)
	}
}

// While an answer was on its way, an agent did not notice that the other machine was gone
// for eleven minutes, for which its server lived.
func TestAnAnswerThatDoesNotArriveEndsTheSession(t *testing.T) {
	silentFor(t, time.Second)
	near, far := netpair.New(t)
	s := beginStation(t, far, far.IPv4, 0)
	r := s.dial(near)
	far.IP("route add blackhole " + near.IPv4.String())
	ended := make(chan error, 1)
	go func() {
		_, err := r.start(context.Background(), Candidate{Name: "epoll"}, Workload{Kind: Echo, Connections: 1, Size: 64, Depth: 1}, false)
		ended <- err
	}()
	server := s.hears("server started")
	near.Unplug()
	if err := Await(t, "the end of the request", ended); err == nil || !strings.Contains(err.Error(), "is lost") {
		t.Errorf("the request ends with %v", err)
	}
	s.hears("session ends")
	if running(server.pid) {
		t.Errorf("the server %d is there", server.pid)
	}
}

// A firewall that drops or refuses what is for the servers cost every sample its time,
// and each of them was told of.
func TestServersThatCannotBeReachedEndTheRun(t *testing.T) {
	before := connectLimit
	connectLimit = 500 * time.Millisecond
	defer func() { connectLimit = before }()
	for _, c := range []struct{ way, says string }{
		{"blackhole", "did not answer within 500ms"},
		{"unreachable", "network is unreachable"},
	} {
		near, far := netpair.New(t)
		const port = 7071
		s := beginStation(t, far, far.IPv4, port)
		r := s.dial(near)
		// What the server answers to a first packet is dropped; or what is said to it is refused.
		if c.way == "blackhole" {
			far.IP("rule add ipproto tcp sport 7071 " + c.way)
		} else {
			near.IP("rule add ipproto tcp dport 7071 " + c.way)
		}
		var result *Result
		var err error
		near.Do(func() {
			result, err = small(r, Workload{Kind: Echo, Connections: 2}, Workload{Kind: Churn, Connections: 2}).Run(context.Background(), io.Discard)
		})
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "firewall") {
			t.Errorf("%s: %v", c.way, err)
		}
		if !result.Partial || len(result.Skipped) > 0 {
			t.Errorf("%s: partial %v, skipped %v", c.way, result.Partial, result.Skipped)
		}
		r.Close()
		s.hears("server started")
		for e := range s.events {
			if e.says == "server started" {
				t.Errorf("%s: another server is started", c.way)
			}
			if e.says == "session ends" {
				break
			}
		}
	}
}
