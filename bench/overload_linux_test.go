package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
)

// longest is how long a test waits for what must happen.
const longest = time.Minute

// What a server owes to an open loop is bounded, and what was not sent for that
// is counted. The clock here is the test's.
func TestAnOpenLoopOwesNoMoreThanItsLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := Workload{Kind: Echo, Connections: 2, Rate: 1000}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	server := l.Addr().(*net.TCPAddr).AddrPort()
	family, to, err := sockaddr(server)
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{w: w, server: server, family: family, to: to, ep: ep, conns: make([]client, 2), limit: 10, periods: w.periods(), counting: true}
	g.Errors = map[string]int64{}
	defer func() {
		for i := range g.conns {
			g.close(i, true)
		}
		unix.Close(ep)
	}()
	for i := range g.conns {
		if err := g.connect(i); err != nil {
			t.Fatal(err)
		}
	}
	g.follower = follow(0, time.Second, time.Millisecond, 1000, 1000)
	g.pace(time.Second)
	if g.inFlight != 10 || g.Unsent != 990 || g.follower.unsent != 990 || g.paced != 1000 {
		t.Errorf("%d in flight, %d and %d unsent, %d in all", g.inFlight, g.Unsent, g.follower.unsent, g.paced)
	}
	if len(g.Errors) > 0 {
		t.Error(g.Errors)
	}
}

func TestTheLimitOfWhatIsInFlight(t *testing.T) {
	for want, w := range map[int]Workload{
		1 << 20: {Kind: Echo, Connections: 64, Size: 64},
		1 << 12: {Kind: Mixed, Connections: 64, Size: 64}, // of which each twentieth has 64 KiB
		4 * 10:  {Kind: Echo, Connections: 10, Size: 1 << 24},
		4 * 64:  {Kind: Custom, Connections: 64, Spec: &Spec{Request: Dist{Constant: 1 << 20}, Response: Dist{Min: 1 << 20, Max: 3 << 20}}},
		1 << 10: {Kind: Custom, Connections: 64, Spec: &Spec{Request: Dist{Constant: 1 << 17}, Response: Dist{Min: 1, Max: 1<<18 - 1}}},
		1 << 13: {Kind: Custom, Connections: 64, Spec: &Spec{Request: Dist{Constant: 1 << 13}, Ratio: 3}},
	} {
		if got := w.backlog(); got != want {
			t.Errorf("%v: %d, want %d", w, got, want)
		}
	}
}

// A surge comes after what is measured, changes none of it, and is told.
func TestASurgeIsFollowed(t *testing.T) {
	for _, name := range engines.Names() {
		e, err := engines.Open(name, couplet.Config{})
		if err != nil {
			continue
		}
		w, err := Workload{Kind: Echo, Connections: 4, Rate: 1000, Surge: 3000}.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		l, err := Serve(e, w)
		if err != nil {
			t.Fatal(err)
		}
		marks := 0
		f, err := Measure(w, l.Addr().(*net.TCPAddr).Port, 5*time.Millisecond, 100*time.Millisecond,
			func() (Report, error) { marks++; return Usage(e), nil })
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
		if err != nil || len(f.Errors) > 0 || marks != 2 {
			t.Fatalf("%s: %v, errors %v, %d marks", name, err, f.Errors, marks)
		}
		if f.Units > w.Rate*f.Wall.Seconds()+1 || f.Latency.TotalCount() != int64(f.Units) {
			t.Errorf("%s: %v units, %d latencies; those of the surge are none", name, f.Units, f.Latency.TotalCount())
		}
		r := f.Recovery
		if r == nil || r.Surge != 3000 || r.SurgeMS != 100 || r.StepMS != 10 || len(r.P99US) < 10 || r.SteadyUS <= 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if r.Achieved > 3000 || r.GeneratorBusy < 0 || r.GeneratorBusy > 1 {
			t.Errorf("%s: achieved %v, busy %v", name, r.Achieved, r.GeneratorBusy)
		}
		if s := sample(w, name, f); s.Recovery != r || s.Target != 1000 {
			t.Errorf("%s: the sample has %+v", name, s.Recovery)
		}
	}
}

func TestWhatIsTakenAgainHasItsTime(t *testing.T) {
	for _, s := range []spare{{limit: time.Second}, {limit: time.Minute, used: time.Minute}, {limit: 5 * time.Second, used: 2 * time.Second}} {
		before := s
		if s.await(time.Second, func(time.Duration) { t.Error("it waited") }) || s != before {
			t.Errorf("%+v had time for a second, and is %+v", before, s)
		}
	}
}

// A noisy site has others at work, and one server, in this process.
type noisy struct {
	server netip.AddrPort
	busy   int64
	waits  int
}

func (n *noisy) prepare(Candidate) error                   { return nil }
func (n *noisy) awaitQuiet(context.Context, time.Duration) { n.waits++ }
func (n *noisy) load() string                              { return "" }
func (n *noisy) address() netip.AddrPort                   { return n.server }
func (n *noisy) engine() string                            { return "" }
func (n *noisy) said() string                              { return "" }
func (n *noisy) used() (time.Duration, error)              { return 0, nil }
func (n *noisy) stop() error                               { return nil }

func (n *noisy) start(context.Context, Candidate, Workload, bool) (subject, error) { return n, nil }

func (n *noisy) ask(string) (Report, error) {
	n.busy += time.Hour.Microseconds()
	return Report{MachineUS: n.busy}, nil
}

// A plan was silent while it waited for a quiet machine, for half a minute.
func TestAPlanTellsThatItWaits(t *testing.T) {
	e := opened(t, "epoll")
	w, err := Workload{Kind: Echo, Connections: 1}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Serve(e, w)
	if err != nil {
		t.Fatal(err)
	}
	site := &noisy{server: l.Addr().(*net.TCPAddr).AddrPort()}
	var said strings.Builder
	p := Plan{Warm: time.Millisecond, Duration: 10 * time.Millisecond, Retries: 1, spare: new(spare), progress: &said}
	got := p.samples(t.Context(), site, w, []Candidate{{Name: "epoll"}}, false)[0]
	if got.err != nil || got.sample.Retries != 1 || site.waits != 1 {
		t.Fatalf("%v, taken again %d times after %d waits", got.err, got.sample.Retries, site.waits)
	}
	if line := said.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, "echo 1 x 64 B, depth 1") || !strings.Contains(line, "or in 30 s") {
		t.Errorf("it says %q", line)
	}
}

// A plan whose time is over begins no round, and says so.
func TestNoRoundIsBegunWhenTheTimeIsOver(t *testing.T) {
	echo := Workload{Kind: Echo, Connections: 1}
	p := Plan{Workloads: []Workload{echo}, Candidates: []string{"goroutine", "epoll"}, Rounds: 2, Late: func() bool { return true }}
	r, err := p.Run(t.Context(), io.Discard)
	if err != nil || len(r.Samples) != 0 || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Why, "after 0 of 2 rounds") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatAPlanTakes(t *testing.T) {
	second := Plan{Candidates: []string{"uring", "epoll", "gnet"}, Rounds: 3, Duration: time.Second}
	second.Workloads = []Workload{{Kind: Echo}, {Kind: Broadcast}} // gnet has no broadcast
	takes, n := second.Takes()
	if n != 15 || takes < 15*4*time.Second/3 || takes > 30*time.Second {
		t.Errorf("%d samples in %v", n, takes)
	}
	echo, surge := Workload{Kind: Echo, Rate: 10}, Workload{Kind: Echo, Rate: 10, Surge: 40}
	if more := second.SampleTakes(surge) - second.SampleTakes(echo); more < 2*time.Second {
		t.Errorf("a surge takes %v more", more)
	}
	surge.Share = .5
	twice, little := surge, surge
	twice.Surge, little.Surge = 40, 24 // of a knee of 20
	if more := second.SampleTakes(twice) - second.SampleTakes(little); more < time.Second {
		t.Errorf("a surge of twice the knee takes %v more than one of 1.2 times", more)
	}
}

// A message that came slowly was lost, though its bytes were on their way.
func TestASlowMessageIsNotLost(t *testing.T) {
	defer func(d time.Duration) { lostAfter = d }(lostAfter)
	lostAfter = time.Second // three pauses
	const size, pieces, pause = 500, 5, 300 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var h [header]byte
		for {
			if _, err := io.ReadFull(c, h[:]); err != nil {
				return
			}
			_, _, off, _ := readHeader(h[:])
			for i := range int64(pieces) {
				time.Sleep(pause)
				c.Write(at(off+i*size/pieces, size/pieces))
			}
		}
	}()
	w, err := Workload{Kind: Custom, Connections: 1, Spec: &Spec{Name: "slow", Request: Dist{Constant: header}, Response: Dist{Constant: size}}}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f, err := measure(t.Context(), w, l.Addr().(*net.TCPAddr).AddrPort(), 0, 10*time.Millisecond, func() (Report, error) { return Report{}, nil })
	if err != nil || len(f.Errors) > 0 || f.Units < 1 {
		t.Errorf("%v: %v messages, errors %v", err, f.Units, f.Errors)
	}
}

// ending tells how a connection of an answerer ended.
type ending struct {
	*answerer
	how chan<- error
}

func (e *ending) ConnectionLost(t couplet.Transport, reason error) {
	e.answerer.ConnectionLost(t, reason)
	select {
	case e.how <- reason:
	default:
	}
}

// Where there is one source address, its ports were used up by connections that had
// lived and were closed in order.
func TestShortLivesUseUpNoPorts(t *testing.T) {
	for address, orderly := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": false} {
		e := opened(t, "goroutine")
		how := make(chan error, 1000)
		l, err := e.Listen("tcp", address, couplet.FactoryFunc(func(net.Addr) couplet.Protocol {
			return &ending{new(answerer), how}
		}))
		if err != nil {
			t.Skip(err)
		}
		w, err := Workload{Kind: Custom, Connections: 2, Spec: &Spec{
			Name: "short", Request: Dist{Constant: 20}, Response: Dist{Constant: 30}, Requests: Dist{Constant: 1},
		}}.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		server := l.Addr().(*net.TCPAddr).AddrPort()
		f, err := measure(t.Context(), w, server, 5*time.Millisecond, 20*time.Millisecond, func() (Report, error) { return Report{}, nil })
		if err != nil || len(f.Errors) > 0 {
			t.Fatalf("%v, errors %v", err, f.Errors)
		}
		select {
		case reason := <-how: // the first of many, that is: of one that was renewed
			if errors.Is(reason, io.EOF) != orderly {
				t.Errorf("at %s a connection that has lived ends with %v", address, reason)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("at %s no connection ends", address)
		}
	}
}

// A ^C did not end the sample that was under way, whatever it waited for.
func TestTheEndOfItsContextEndsASample(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // what comes is not read
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	e := opened(t, "goroutine")
	echo, err := Serve(e, Workload{Kind: Echo, Connections: 2, Size: 64, Depth: 1})
	if err != nil {
		t.Fatal(err)
	}
	talk := &Spec{Name: "talk", Request: Dist{Constant: 20}, Response: Dist{Constant: 30}}
	for _, c := range []struct {
		at   net.Addr
		w    Workload
		warm time.Duration
	}{
		{echo.Addr(), Workload{Kind: Echo}, 0},          // run
		{echo.Addr(), Workload{Kind: Churn}, 0},         // with connections that are made
		{silent.Addr(), Workload{Kind: Echo}, 0},        // settle
		{silent.Addr(), Workload{Kind: Custom}, 0},      // ... of a file
		{silent.Addr(), Workload{Kind: Poems}, 0},       // the first chunk
		{silent.Addr(), Workload{Kind: Stream}, 0},      // its end
		{silent.Addr(), Workload{Kind: Idle}, 0},        // the greeting
		{echo.Addr(), Workload{Kind: Mixed}, time.Hour}, // warming up
	} {
		c.w.Connections = 2
		if c.w.Kind == Custom {
			c.w.Spec = talk
		}
		w, err := c.w.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		_, err = measure(ctx, w, c.at.(*net.TCPAddr).AddrPort(), c.warm, time.Hour, func() (Report, error) { return Report{}, nil })
		cancel()
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > time.Minute {
			t.Errorf("%v at %v: %v after %v", w, c.at, err, took)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if (&here{}).awaitQuiet(ended, time.Hour); time.Since(began) > time.Minute {
		t.Errorf("it waited for quiet for %v", time.Since(began))
	}
	if _, err := measure(ended, Workload{Kind: Echo, Connections: 1, Size: 64, Depth: 1}, echo.Addr().(*net.TCPAddr).AddrPort(), 0, time.Hour, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("it connects: %v", err)
	}
}

// A member that the server did not have yet missed the first message of a broadcast, of
// which there was no second one then.
func TestABroadcastWaitsForItsMembers(t *testing.T) {
	e := opened(t, "goroutine")
	w, err := Workload{Kind: Broadcast, Connections: 3}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Serve(e, w)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	f, err := measure(t.Context(), w, l.Addr().(*net.TCPAddr).AddrPort(), 0, 20*time.Millisecond, func() (Report, error) {
		r := Usage(e)
		if asked++; asked <= 3 {
			if r.Stats.BytesReceived > 0 {
				t.Errorf("it begins without two members, after %d looks", asked)
			}
			r.Stats.Open = 1
		}
		return r, nil
	})
	if err != nil || len(f.Errors) > 0 || asked < 6 {
		t.Errorf("%v, errors %v, asked %d times", err, f.Errors, asked)
	}
}

// unanswered is an address at which connections are neither made nor refused.
func unanswered(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}), unix.Listen(fd, 0)); err != nil {
		t.Skip(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	server := netip.AddrPortFrom(netip.IPv6Loopback(), uint16(at.(*unix.SockaddrInet6).Port))
	first, err := net.Dial("tcp", server.String()) // which nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return server
}

// Over a network, connections that end and begin anew waited for one another.
func TestAConnectionWaitsForNoOther(t *testing.T) {
	defer func(d time.Duration) { connectLimit = d }(connectLimit)
	connectLimit = 50 * time.Millisecond
	server := unanswered(t)
	family, to, err := sockaddr(server)
	if err != nil {
		t.Fatal(err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	g := &generator{w: Workload{Kind: Churn, Connections: 1, Size: 64, Depth: 1}, server: server, family: family, to: to, ep: ep, conns: make([]client, 1), start: time.Now(), periods: [][]int64{{64}}}
	if err := g.connect(0); err != nil {
		t.Fatal(err)
	}
	defer g.close(0, true)
	g.allow(0, 1, g.now())
	if c := &g.conns[0]; c.sent != 0 || !c.writing {
		t.Errorf("%d bytes are sent to nobody, and the rest waits: %v", c.sent, c.writing)
	}
	if err := g.connected(0); err != unix.EINPROGRESS {
		t.Errorf("it is connected: %v", err)
	}
}

// A signal of Go's runtime was the end of a connect that took a while, as they do over a
// network.
func TestAConnectOutlivesSignals(t *testing.T) {
	defer func(d time.Duration) { connectLimit = d }(connectLimit)
	connectLimit = 300 * time.Millisecond
	server := unanswered(t)
	over, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
			threads, _ := os.ReadDir("/proc/self/task")
			for _, thread := range threads {
				id, _ := strconv.Atoi(thread.Name())
				unix.Tgkill(os.Getpid(), id, unix.SIGURG)
			}
		}
	}()
	_, err := measure(t.Context(), Workload{Kind: Echo, Connections: 1, Size: 64, Depth: 1}, server, 0, time.Millisecond, nil)
	close(over)
	<-done
	if err == nil || !strings.Contains(err.Error(), "did not answer within 300ms") {
		t.Errorf("a connect that is not answered ends with %v", err)
	}
}

// With no connection left there is nothing to wait for; and what a stream lost is told
// when nothing moves, not before.
func TestWhatNobodySendsIsLost(t *testing.T) {
	defer func(lost, limit time.Duration) { lostAfter, streamLimit = lost, limit }(lostAfter, streamLimit)
	for _, c := range []struct {
		name        string
		w           Workload
		lost, limit time.Duration
		serve       func(c net.Conn)
		says        string
	}{
		{"all connections end", Workload{Kind: Echo}, time.Hour, time.Hour, func(c net.Conn) {
			io.ReadFull(c, make([]byte, 64))
			c.Close()
		}, "messages lost"},
		{"a stream stops", Workload{Kind: Stream, Total: 1000}, 100 * time.Millisecond, time.Hour, func(c net.Conn) {
			c.Write(at(0, 500))
		}, "bytes lost"},
		{"a stream is slow", Workload{Kind: Stream, Total: 1 << 40}, time.Hour, 100 * time.Millisecond, func(c net.Conn) {
			for i := int64(0); ; i++ {
				if _, err := c.Write(at(i, 1)); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}, "not over within 100ms"},
	} {
		lostAfter, streamLimit = c.lost, c.limit
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		served.Go(func() {
			if conn, err := l.Accept(); err == nil {
				defer conn.Close()
				c.serve(conn)
				io.Copy(io.Discard, conn)
			}
		})
		c.w.Connections = 1
		w, err := c.w.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), longest)
		f, err := measure(ctx, w, l.Addr().(*net.TCPAddr).AddrPort(), 0, time.Millisecond, func() (Report, error) { return Report{}, nil })
		cancel()
		if said := fmt.Sprint(f.Errors, err); !strings.Contains(said, c.says) {
			t.Errorf("%s: %s, want %q", c.name, said, c.says)
		}
		l.Close()
		served.Wait()
	}
}
