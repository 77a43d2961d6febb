//go:build linux

package enginetest

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"couplet"
	"couplet/internal/loop"
)

var simDepth = flag.Int("sim.depth", 0, "how many choices the races go into (default 9, 7 with -short or -race)")

// explore calls run once for every sequence of choices that run makes, as far
// as the first depth of them: choose gives a number below k, and 0 from then on.
func explore(depth int, run func(choose func(k int) int)) (runs int) {
	var path, width []int
	for {
		at := 0
		run(func(k int) int {
			if at == depth {
				return 0
			}
			if at == len(path) {
				path, width = append(path, 0), append(width, k)
			}
			at++
			return path[at-1]
		})
		runs++
		last := len(path) - 1
		for last >= 0 && path[last]+1 == width[last] {
			last--
		}
		if last < 0 {
			return runs
		}
		path, width = path[:last+1], width[:last+1]
		path[last]++
	}
}

// racer is a connection on which something is called while something arrives.
type racer struct {
	t        couplet.Transport
	got      string
	rclosed  bool
	paused   bool
	over     bool // Close or Abort was called
	losts    int
	reason   error
	mistakes []string
}

func (r *racer) mistake(format string, args ...any) {
	r.mistakes = append(r.mistakes, fmt.Sprintf(format, args...))
}

func (r *racer) ConnectionMade(t couplet.Transport) { r.t = t }

func (r *racer) DataReceived(_ couplet.Transport, p []byte) {
	if r.paused || r.over || r.rclosed || r.losts > 0 {
		r.mistake("data %q while paused %v, over %v, after the end %v", p, r.paused, r.over, r.rclosed)
	}
	r.got += string(p)
}

func (r *racer) ReadClosed(couplet.Transport) {
	if r.paused || r.over || r.rclosed || r.losts > 0 {
		r.mistake("ReadClosed while paused %v, over %v, after the end %v", r.paused, r.over, r.rclosed)
	}
	r.rclosed = true
}

func (r *racer) ConnectionLost(_ couplet.Transport, reason error) {
	r.losts++
	r.reason = reason
}

// races are what is called, in posted functions of turns of their own.
var races = []struct {
	name  string
	calls []func(r *racer)
	want  []string // classes of the reason
}{
	{"nothing", nil, []string{"eof", "reset"}},
	{"pause, resume", []func(r *racer){
		func(r *racer) { r.t.PauseReading(); r.paused = true },
		func(r *racer) { r.t.ResumeReading(); r.paused = false },
	}, []string{"eof", "reset"}},
	{"pause and resume", []func(r *racer){
		func(r *racer) { r.t.PauseReading(); r.t.ResumeReading() },
	}, []string{"eof", "reset"}},
	{"pause, close", []func(r *racer){
		func(r *racer) { r.t.PauseReading(); r.paused = true },
		func(r *racer) { r.t.Close(); r.over = true },
	}, []string{"closed", "eof", "reset"}},
	{"write, close", []func(r *racer){
		func(r *racer) { r.t.Write([]byte("12")) },
		func(r *racer) { r.t.Close(); r.over = true },
	}, []string{"closed", "eof", "reset"}},
	{"write and abort", []func(r *racer){
		func(r *racer) { r.t.Write([]byte("12")); r.t.Abort(); r.over = true },
	}, []string{"aborted", "reset", "eof"}},
	{"write, abort", []func(r *racer){
		func(r *racer) { r.t.Write([]byte("12")) },
		func(r *racer) { r.t.Abort(); r.over = true },
	}, []string{"aborted", "reset", "eof"}},
}

// TestSimEveryRace lets data, an end or a reset arrive while a receive or a
// send is taken back or the connection closed, in every order of the network's
// steps and of the reports, as far as some number of choices.
func TestSimEveryRace(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runs, depth := 0, *simDepth
	if depth == 0 {
		depth = 9
		if raceEnabled || testing.Short() {
			depth = 7
		}
	}
	for _, ending := range []string{"FIN", "reset"} {
		for _, race := range races {
			for _, atOnce := range []bool{false, true} {
				name := fmt.Sprintf("%s against data and %s, closing at once %v", race.name, ending, atOnce)
				var broken []string
				runs += explore(depth, func(choose func(int) int) {
					if len(broken) > 0 {
						return
					}
					broken = runRace(choose, race.calls, race.want, ending == "reset", atOnce)
				})
				if len(broken) > 0 {
					t.Fatalf("%s: %s", name, strings.Join(broken, "; "))
				}
			}
		}
	}
	t.Logf("%d orders", runs)
}

func runRace(choose func(int) int, calls []func(*racer), want []string, reset, atOnce bool) (broken []string) {
	var now time.Duration
	config := SimConfig{AtOnce: atOnce, WaitAll: true, Whole: 1 << 20, Fail: func(what string) { broken = append(broken, what) }}
	config.Choose = func(k int) int { return 0 }
	n := NewSimNet(config)
	e, err := loop.Prepare("server", couplet.Config{Logger: slog.New(slog.DiscardHandler)}, n.Sockets())
	if err != nil {
		return []string{err.Error()}
	}
	l := e.Loops()[0].(*loop.Loop)
	n.Attach(l, func() time.Duration { return now })
	r := &racer{}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	if _, err := e.Listen("tcp", addr.String(), couplet.FactoryFunc(func(net.Addr) couplet.Protocol { return r })); err != nil {
		return []string{err.Error()}
	}
	l.Step(0)
	peer := n.newSocket(false)
	n.file(peer)
	peer.connect(addr)
	for r.t == nil {
		l.Step(0)
	}
	// From here on everything is a choice, for as many turns as there are calls.
	n.config.Lazy, n.config.Choose = true, choose
	peer.send([]byte("ab"), 2)
	if reset {
		peer.close(true)
	} else {
		peer.closeWrite()
	}
	for _, call := range append(calls, func(*racer) {}) {
		l.Post(func() {
			if r.losts == 0 {
				call(r)
			}
		})
		l.Step(0)
	}
	n.config.Lazy, n.config.Choose = false, func(int) int { return 0 }
	for i := 0; i < 50 && r.losts == 0; i++ {
		if i == 10 { // the protocol goes on after the peer's FIN: let it end
			l.Post(func() { r.t.Close(); r.over = true })
		}
		l.Step(0)
		now += 100 * time.Millisecond
	}
	switch got := class(r.reason); {
	case r.losts != 1:
		r.mistake("lost %d times", r.losts)
	case !slices.Contains(want, got):
		r.mistake("the reason is %v, not one of %v", r.reason, want)
	case !strings.HasPrefix("ab", r.got) || !reset && got == "eof" && !r.over && r.got != "ab":
		r.mistake("received %q", r.got)
	}
	if !reset {
		peer.close(false)
	}
	e.Stop()
	for i := 0; i < 50 && l.Step(0); i++ {
	}
	for n.Step() {
	}
	if n.Files() != 0 || n.Kept() != 0 || l.Leftovers() != "" {
		r.mistake("%d descriptors and %d Buffers are left, and %s", n.Files(), n.Kept(), l.Leftovers())
	}
	return append(broken, r.mistakes...)
}
