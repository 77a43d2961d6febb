//go:build linux

package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet/bench"
)

// play makes a table follow a plan as if its samples were taken: uring takes 8 us,
// epoll 10.
func play(t *liveTable, p bench.Plan, others []bench.Plan, upTo int) {
	t.plan(&p, others)
	_, total := p.Takes()
	done := 0
	for _, w := range p.Workloads {
		for round := range p.Rounds {
			for i, c := range p.Candidates {
				if done == upTo {
					return
				}
				p.Next(done, total, w, []string{c})
				done++
				cpu := []float64{8, 10, 8}[i] * (1 + .001*float64(round))
				p.Each(done, total, bench.Sample{
					Workload: w.String(), Candidate: c, Round: round, Unit: w.Unit(), Units: 1000 * float64(i+1), Seconds: 1,
					UserUS: cpu / 4, SystemUS: 3 * cpu / 4, P99US: 70,
				})
			}
		}
	}
}

func echoPlan(t *testing.T, rounds int, sizes ...int) bench.Plan {
	p := bench.Plan{Candidates: []string{"uring", "epoll", "uring/2"}, Rounds: rounds, Baseline: "epoll"}
	for _, size := range sizes {
		w, err := bench.Workload{Kind: bench.Echo, Size: size}.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		p.Workloads = append(p.Workloads, w)
	}
	return p
}

func TestLiveTable(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	term, s := newTerminal(24, 100)
	table := newLiveTable(s, "epoll")
	p := echoPlan(t, 7, 64, 128)
	play(table, p, []bench.Plan{p, p}, 26)
	got := term.shows()
	want := []string{
		"  workload                 candidate  CPU us  to epoll             rate/s  p99 us  rounds",
		"  echo 64 x 64 B, depth 1  uring        8.02  0.80 [0.80, 0.80]      1000      70     7/7",
		"  echo 64 x 64 B, depth 1  epoll          10                         2000      70     7/7",
		"  echo 64 x 64 B, depth 1  uring/2      8.02  0.80 [0.80, 0.80]      3000      70     7/7",
		"  echo 64 x 128 B, depth 1  uring", // below
	}
	if len(got) != 8 {
		t.Fatalf("it shows\n%s", strings.Join(got, "\n"))
	}
	for i, line := range got[:4] {
		if strings.Join(strings.Fields(line), " ") != strings.Join(strings.Fields(want[i]), " ") {
			t.Errorf("line %d is\n%s, want\n%s", i, line, want[i])
		}
	}
	// The last line to be measured is marked, and had its figures of the round before.
	if !strings.HasPrefix(got[5], "> echo 64 x 128 B, depth 1") || !strings.Contains(got[5], "1/7") || !term.bold {
		t.Errorf("what is being measured is not marked:\n%s", strings.Join(got, "\n"))
	}
	if !strings.Contains(got[4], " 0.80 ") || strings.Contains(got[4], "[") {
		t.Errorf("two rounds have an interval: %s", got[4])
	}
	if !strings.HasPrefix(got[7], "25 of 126 samples, ") || !strings.Contains(got[7], " gone, about ") || !strings.HasSuffix(got[7], " left") {
		t.Errorf("the last line is %q", got[7])
	}
	// The plan after it goes on where it was.
	play(table, p, []bench.Plan{p}, 1)
	if got := term.shows(); !strings.HasPrefix(got[len(got)-1], "25 of 109 samples") {
		t.Errorf("after a plan that ended early the last line is %q", got[len(got)-1])
	}
	table.end()
	if got := term.shows(); len(got) > 0 || len(term.odd) > 0 {
		t.Errorf("it leaves %q (%q)", got, term.odd)
	}
}

// However small the terminal, the head, what is being measured and how far it is
// are there, and no line wraps.
func TestLiveTableOnASmallTerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	for _, size := range [][2]int{{24, 40}, {8, 100}, {6, 30}, {4, 80}, {2, 20}, {1, 5}} {
		term, s := newTerminal(size[0], size[1])
		table := newLiveTable(s, "epoll")
		p := echoPlan(t, 2, 1, 2, 3, 4, 5, 6, 7, 8)
		play(table, p, nil, 6*5)
		got := term.shows()
		if len(got) > size[0] && size[0] > 1 { // in one row there is no room for a line and a cursor below it
			t.Errorf("%v: %d lines", size, len(got))
		}
		if size[0] >= 6 && (!strings.HasPrefix(got[0], "  workload") || !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "> echo 64 x 5 B") })) {
			t.Errorf("%v: it shows\n%s", size, strings.Join(got, "\n"))
		}
		if size[1] >= 20 && size[0] > 1 && !strings.HasPrefix(got[len(got)-1], "29 of 48 sampl") {
			t.Errorf("%v: the last line is %q", size, got[len(got)-1])
		}
		for _, line := range got {
			if len([]rune(line)) >= size[1] && size[1] > 1 {
				t.Errorf("%v: %q is too long", size, line)
			}
		}
		if term.bold {
			t.Errorf("%v: it is bold with NO_COLOR", size)
		}
		table.end()
		if len(term.odd) > 0 || size[0] > 1 && len(term.shows()) > 0 {
			t.Errorf("%v: it leaves %q (%q)", size, term.shows(), term.odd)
		}
	}
}

// planned is what couplet bench with these flags measures.
func planned(t *testing.T, flags ...string) (*benchmark, bench.Plan) {
	t.Helper()
	b := &benchmark{common: new(common)}
	cmd := newBenchOf(b)
	if err := cmd.ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	p, err := b.plan(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

// The defaults keep what they promise: samples, what is taken again and the last
// round are within ten minutes, or one.
func TestARunHasALimit(t *testing.T) {
	for _, c := range []struct {
		args         []string
		about, limit time.Duration // as the help says
	}{{nil, 8 * time.Minute, 10 * time.Minute}, {[]string{"--quick"}, 20 * time.Second, time.Minute}} {
		b, p := planned(t, c.args...)
		takes, most, _ := b.limit(&p)
		again := p.Spare
		if p.Retries == 0 {
			again = 0
		}
		if most != c.limit || takes+again+lastRound > most || p.Late() {
			t.Errorf("%v: %v and %v again, of at most %v", c.args, takes, again, most)
		}
		if off := takes - c.about; off.Abs() > c.about/10 {
			t.Errorf("%v: it should take %v, and the help says %v", c.args, takes, c.about)
		}
		// A round of the longest workload is over in time.
		for _, w := range p.Workloads {
			if round := time.Duration(len(p.Candidates)) * p.SampleTakes(w); round > lastRound {
				t.Errorf("%v: a round of %v takes %v", c.args, w, round)
			}
		}
	}
}

// A run that was asked for a little less than its limit lost its last rounds, all the more
// when peers were to be built first.
func TestNoRoundIsTooLateInARunOfAnyLength(t *testing.T) {
	for rounds := 1; rounds <= 40; rounds++ {
		for _, flags := range [][]string{
			{"--quick"}, {"--quick", "--peers", "gnet,net"}, {"--workload", "echo"}, nil,
			{"--quick", "--workload", "echo,broadcast", "--peers", "gnet,nbio,netpoll,net,c-uring,c-epoll"}, // of whom three serve broadcast
		} {
			b, p := planned(t, append(flags, "--rounds", fmt.Sprint(rounds))...)
			takes, most, _ := b.limit(&p)
			plans := b.course(p)
			p = plans[len(plans)-1]
			last := p.Workloads[len(p.Workloads)-1]
			begins := takes
			for _, name := range p.Candidates {
				if !slices.ContainsFunc(p.Unserved(name), func(w bench.Workload) bool { return w.Kind == last.Kind }) {
					begins -= p.SampleTakes(last)
				}
			}
			if begins > most-lastRound {
				t.Errorf("%v, %d rounds: the last begins after %v, and none after %v", flags, rounds, begins, most-lastRound)
			}
			if p.Late() {
				t.Errorf("%v, %d rounds: the time is over before the first sample", flags, rounds)
			}
		}
	}
}

// At a low rate two shares of it are the same when rounded, and were measured twice.
func TestASweepMeasuresNoRateTwice(t *testing.T) {
	for rate := 1.; rate < 1e6; rate = rate*1.3 + 1 {
		last := 0.
		for _, w := range sweep(bench.Plan{Candidates: []string{"uring", "epoll"}}, bench.Workload{}, rate).Workloads {
			if w.Rate <= last {
				t.Errorf("of %v: %v comes after %v", rate, w.Rate, last)
			}
			last = w.Rate
		}
	}
}

// --quick promised a minute at most, and poems took longer.
func TestQuickIsAMinuteForEveryWorkload(t *testing.T) {
	slow := file(t, "slow.yaml", "request: 200\nresponse: 512\nthink: 10s\n")
	for _, name := range append(kinds(), slow) {
		b, p := planned(t, "--quick", "-w", name)
		takes, most, _ := b.limit(&p)
		round := time.Duration(len(p.Candidates)) * p.SampleTakes(p.Workloads[0])
		if takes >= time.Minute || most > time.Minute || takes-round > most-lastRound || round > lastRound {
			t.Errorf("%s: it should take %v, and at most %v, with %v for a round", name, takes, most, round)
		}
	}
}

func TestRoundly(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0 s": -time.Second, "12 s": 12 * time.Second, "2 min": 2 * time.Minute, "7.5 min": 450 * time.Second, "60 min": time.Hour,
	} {
		if got := roundly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestBenchOnATerminal(t *testing.T) {
	t.Parallel()
	json := filepath.Join(t.TempDir(), "a.json")
	p := onTerminal(t, true, nil, append(tiny, "--json", json)...)
	o := p.end().want(t, 0)
	raw := p.raw.String()
	for _, says := range []string{"> echo 3 x 64 B, depth 1", "0 of 6 samples", "5 of 6 samples", "\x1b[1m"} {
		if !strings.Contains(raw, says) {
			t.Errorf("%q was never on the terminal:\n%q", says, raw)
		}
	}
	if strings.Contains(raw, "round 1") || strings.Contains(o.stderr, " left") || strings.Contains(o.stderr, "> echo") {
		t.Errorf("what is left on the terminal:\n%s", o.stderr)
	}
	for says, n := range map[string]int{"workload": 1, "Error ledger: empty": 1, "On Linux ": 1, "should take about": 1} {
		if got := strings.Count(o.stderr, says); got != n && says != "workload" || got == 0 {
			t.Errorf("%q is there %d times:\n%s", says, got, o.stderr)
		}
	}
	if r, err := bench.ReadFile(json); err != nil || len(r.Samples) != 6 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAnInterruptedBenchLeavesTheTerminalClean(t *testing.T) {
	t.Parallel()
	p := onTerminal(t, false, []string{"NO_COLOR=1"}, "bench", "--quick", "--engines", "goroutine,epoll", "--connections", "3", "--rounds", "1000", "--duration", "20ms")
	p.await("4 of 3000 samples")
	p.cmd.Process.Signal(syscall.SIGINT)
	o := p.end().want(t, 1)
	if lines := strings.Split(o.stderr, "\n"); len(lines) != 2 || !strings.Contains(lines[0], "should take about") || !strings.Contains(lines[1], "partial") {
		t.Errorf("what is left on the terminal:\n%s", o.stderr)
	}
	if strings.Contains(p.raw.String(), "\x1b[1m") {
		t.Error("it is bold with NO_COLOR")
	}
	if n := strings.Count(o.stdout, "workload "); n != 1 {
		t.Errorf("the table is there %d times:\n%s", n, o.stdout)
	}
}

// Elsewhere, and with --quiet, there are no sequences.
func TestBenchWithoutATable(t *testing.T) {
	t.Parallel()
	o := onTerminal(t, false, []string{"TERM=dumb"}, tiny...).end().want(t, 0)
	if strings.Count(o.stderr, "round ") != 6 {
		t.Errorf("a dumb terminal shows\n%s", o.stderr)
	}
	p := onTerminal(t, false, nil, append(tiny, "--quiet")...)
	if p.end().want(t, 0); p.raw.Len() > 0 {
		t.Errorf("with --quiet the terminal shows %q", p.raw.String())
	}
}
