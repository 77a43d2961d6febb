package bench

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"couplet"
)

// A table of servers in this process, each of which counts what it echoes. Who is at work is
// noted whenever that changes.
type table struct {
	t      *testing.T
	e      couplet.Engine
	mu     sync.Mutex
	order  []string
	served map[string]int64 // messages
	asked  map[string]bool  // for a report
}

func newTable(t *testing.T) *table {
	return &table{t: t, e: opened(t, "goroutine"), served: map[string]int64{}, asked: map[string]bool{}}
}

func (b *table) prepare(Candidate) error                   { return nil }
func (b *table) awaitQuiet(context.Context, time.Duration) {}
func (b *table) load() string                              { return "" }

func (b *table) start(_ context.Context, c Candidate, w Workload, _ bool) (subject, error) {
	if c.Name == "broken" {
		return nil, errors.New("it is broken")
	}
	l, err := b.e.Listen("tcp4", "127.0.0.1:0", couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return &seat{b, c.Name, w.Size} }))
	if err != nil {
		return nil, err
	}
	return &seated{b, c.Name, l}, nil
}

func (b *table) messages(of string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.served[of]
}

type seat struct {
	*table
	name string
	size int
}

func (s *seat) ConnectionMade(couplet.Transport)        {}
func (s *seat) ConnectionLost(couplet.Transport, error) {}

func (s *seat) DataReceived(t couplet.Transport, data []byte) {
	s.mu.Lock()
	s.served[s.name] += int64(len(data) / s.size)
	if n := len(s.order); n == 0 || s.order[n-1] != s.name {
		s.order = append(s.order, s.name)
	}
	begun := s.asked[s.name]
	s.mu.Unlock()
	switch {
	case s.name == "spoils":
		data[0]++
	case s.name == "dies" && begun:
		t.Abort()
		return
	}
	t.Write(data)
}

// seated says of itself that a message costs it a system call and a microsecond, and in its
// reports that it costs ten.
type seated struct {
	*table
	name string
	l    couplet.Listener
}

func (s *seated) address() netip.AddrPort { return s.l.Addr().(*net.TCPAddr).AddrPort() }
func (s *seated) engine() string          { return s.name }
func (s *seated) said() string            { return "" }
func (s *seated) stop() error             { s.l.Close(); return nil }

func (s *seated) used() (time.Duration, error) {
	return time.Duration(s.messages(s.name)) * time.Microsecond, nil
}

func (s *seated) ask(string) (Report, error) {
	n := s.messages(s.name)
	s.mu.Lock()
	s.asked[s.name] = true
	s.mu.Unlock()
	return Report{UserUS: 4 * n, SystemUS: 6 * n, Crossings: n}, nil
}

// Candidates of a round take turns, each time another first, and a sample is the sum of its slices:
// what they begin with is in none of its figures. One that fails leaves the others alone.
func TestCandidatesTakeTurns(t *testing.T) {
	w, err := Workload{Kind: Echo, Connections: 3}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t)
	p := Plan{Warm: 5 * time.Millisecond, Duration: 150 * time.Millisecond}
	all := p.samples(t.Context(), table, w, []Candidate{{Name: "a"}, {Name: "broken"}, {Name: "b"}}, false)
	if got := strings.Join(table.order, " "); got != "a b a b a b a" { // warm, a b, b a, b a
		t.Errorf("at work were %s", got)
	}
	if err := all[1].err; err == nil || err.Error() != "it is broken" {
		t.Errorf("what is broken is told of as %v", err)
	}
	for _, i := range []int{0, 2} {
		s := all[i].sample
		switch {
		case all[i].err != nil || len(s.Errors) > 0:
			t.Errorf("%v, %v", all[i].err, s.Errors)
		case s.Slices != 3 || s.Seconds < p.Duration.Seconds() || s.Units < 1:
			t.Errorf("%v units in %d slices of %v s", s.Units, s.Slices, s.Seconds)
		case s.Units >= float64(table.messages(s.Candidate)):
			t.Errorf("%v of %d messages count", s.Units, table.messages(s.Candidate))
		case !near(s.CPU(), 1) || !near(s.UserUS, .4) || s.Crossings != 1:
			t.Errorf("a message costs %v us, %v of these in user mode, and %v calls", s.CPU(), s.UserUS, s.Crossings)
		case s.GeneratorBusy < 0 || s.GeneratorBusy > 1:
			t.Errorf("the generator is busy for %v of the time", s.GeneratorBusy)
		}
	}
	for end := time.Now().Add(20 * time.Second); table.e.Stats().Open > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are open still", table.e.Stats().Open)
		}
	}
}

func near(a, b float64) bool { return a > .999*b && a < 1.001*b }

// A server is measured by itself where it has something to do between messages, where the
// others cannot be up with it, and where there are no others.
func TestWhoIsMeasuredTogether(t *testing.T) {
	three := []Candidate{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for _, c := range []struct {
		p      Plan
		w      Workload
		of     []Candidate
		groups int
	}{
		{Plan{}, Workload{Kind: Echo, Connections: 64}, three, 1},
		{Plan{}, Workload{Kind: Mixed, Connections: 64}, three, 1},
		{Plan{}, Workload{Kind: Echo, Connections: 64, Rate: 100}, three, 3},
		{Plan{}, Workload{Kind: Poems, Connections: 64}, three, 3},
		{Plan{}, Workload{Kind: Churn, Connections: 64}, three, 3},
		{Plan{}, Workload{Kind: Broadcast, Connections: 64}, three, 3},
		{Plan{}, Workload{Kind: Echo, Connections: 1000}, three, 1},
		{Plan{}, Workload{Kind: Echo, Connections: 8000}, three, 3},
		{Plan{Duration: time.Hour}, Workload{Kind: Echo, Connections: 500_000}, three, 3},
		{Plan{Duration: 20 * time.Millisecond}, Workload{Kind: Echo, Connections: 64}, three, 3},
		{Plan{Remote: &Remote{serverLimit: time.Hour}}, Workload{Kind: Echo, Connections: 64}, three, 3},
		{Plan{}, Workload{Kind: Echo, Connections: 64}, three[:1], 1},
		{Plan{}, Workload{Kind: Poems, Connections: 64}, nil, 0},
	} {
		p, err := c.p.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		groups := p.together(c.w, c.of)
		if len(groups) != c.groups || !slices.Equal(names(slices.Concat(groups...)), names(c.of)) {
			t.Errorf("%v of %s: %v", names(c.of), c.w, groups)
		}
	}
}

// A round that others disturbed is taken again, all of it; not one in which something went
// wrong, which would be forgotten.
func TestARoundIsTakenAgain(t *testing.T) {
	w, err := Workload{Kind: Echo, Connections: 1}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		second  string
		retries int
	}{{"b", 2}, {"broken", 2}, {"spoils", 0}, {"dies", 0}} {
		var said strings.Builder
		p := Plan{Warm: time.Millisecond, Duration: 100 * time.Millisecond, Retries: 2, spare: new(spare), progress: &said}
		all := p.samples(t.Context(), disturbing{newTable(t)}, w, []Candidate{{Name: "a"}, {Name: c.second}}, false)
		if s := all[0].sample; s.Retries != c.retries || !s.disturbed() || all[1].sample.Retries != c.retries {
			t.Errorf("with %s: taken again %d times", c.second, s.Retries)
		}
		if got := strings.Count(said.String(), "they are measured again"); got != c.retries {
			t.Errorf("with %s it says\n%s", c.second, said.String())
		}
		if e := all[1].sample.Errors; c.second == "dies" && (len(e) != 3 || e["connection reset by peer"] != 1 || e["messages lost"] != 1 || e["nothing happened"] != 1) {
			t.Errorf("who dies as its slice begins has %v", e)
		}
	}
}

// disturbing has servers that use less CPU time than the machine does, by an hour.
type disturbing struct{ *table }

func (d disturbing) start(ctx context.Context, c Candidate, w Workload, count bool) (subject, error) {
	s, err := d.table.start(ctx, c, w, count)
	if err != nil {
		return nil, err
	}
	return &noisily{subject: s}, nil
}

type noisily struct {
	subject
	asked int64
}

func (n *noisily) used() (time.Duration, error) {
	n.asked++
	return -time.Duration(n.asked) * time.Hour, nil
}
