package enginetest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"couplet"
)

// Open makes an engine for one case, or ends the test with t.Fatal. The engine
// must be made with cfg; what cfg leaves at zero is the suite's to choose.
type Open func(t testing.TB, cfg couplet.Config) couplet.Engine

// A Suite says on which engines and networks the cases run.
type Suite struct {
	// Name tells suites of one test binary apart.
	Name string

	// Server makes the engine that listens.
	Server Open

	// Client makes the engine that dials; nil: the server's engine dials too.
	// With it, the plain peers of the cases are connections of this engine.
	Client Open

	// Networks are some of "tcp4", "tcp6" and "unix".
	Networks []string

	// Skip gives the cases that are not run, with the reason; a row counts as
	// its negative number. At most six, and they are printed.
	Skip map[int]string

	// Peers gives the network that plain peers of the engines live on, if it is
	// not the kernel's. With it, cases that need real sockets are left out.
	Peers func(server, client couplet.Engine) Network

	test string // the name of the test that runs the suite
}

// Tight is s with engines that have as little of everything as can be, or almost, where a
// case does not ask for more: one small buffer for all connections, a byte a turn.
func (s Suite) Tight() Suite {
	with := func(open Open) Open {
		if open == nil {
			return nil
		}
		return func(t testing.TB, cfg couplet.Config) couplet.Engine {
			cfg.RingEntries = cmp.Or(cfg.RingEntries, 4)
			cfg.CompletionEntries = cmp.Or(cfg.CompletionEntries, max(8, cfg.RingEntries))
			cfg.RingBuffers = cmp.Or(cfg.RingBuffers, 1)
			cfg.RingBufferSize = cmp.Or(cfg.RingBufferSize, 512)
			cfg.BytesPerTurn = cmp.Or(cfg.BytesPerTurn, 1)
			cfg.PostsPerTurn = cmp.Or(cfg.PostsPerTurn, 1)
			return open(t, cfg)
		}
	}
	s.Name += "-tight"
	s.Server, s.Client = with(s.Server), with(s.Client)
	return s
}

// maxSkips is the most cases that an engine may skip.
const maxSkips = 6

// Needs says what a case cannot do without.
type Needs uint

const (
	// NeedsSockets is for cases about descriptors and socket options.
	NeedsSockets Needs = 1 << iota
	// NeedsTCP is for cases about resets and TCP options, which unix sockets
	// do not have.
	NeedsTCP
	// NeedsTime is for cases that are left out under -short, and on tcp6 where there
	// is tcp4.
	NeedsTime
	// NeedsLinux is for cases that use Linux's own interfaces.
	NeedsLinux
	// NeedsOne is for cases about an engine by itself, which a second engine
	// adds nothing to.
	NeedsOne
)

// A Case is one rule of the contract and how it is tried.
type Case struct {
	// ID is the case's number, or the row's.
	ID int
	// Name says the rule in a few words.
	Name string
	// Needs says where the case cannot run.
	Needs Needs
	// Config is what the case's engines are made with.
	Config couplet.Config
	// Run tries it. It runs in a goroutine of its own.
	Run func(*Env)
}

// A group is one file's table of cases.
type group struct {
	name  string
	rows  bool // the numbers are rows of the adversaries' table
	cases []Case
}

var groups = []group{
	{"A_lifecycle", false, lifecycleCases},
	{"B_reasons", false, reasonCases},
	{"C_writing", false, writingCases},
	{"D_closing", false, closingCases},
	{"E_halfclose", false, halfCloseCases},
	{"F_flow", false, flowCases},
	{"G_listening", false, listeningCases},
	{"H_loop", false, loopCases},
	{"I_own", false, ownCases},
	{"X_adversaries", true, adversaryCases},
}

// caseTime is how long one case may take.
func caseTime() time.Duration {
	if raceEnabled {
		return 40 * time.Second
	}
	return 20 * time.Second
}

// maxHangs is how many cases may hang before the rest is given up: one fault
// often hangs many.
const maxHangs = 3

// Run runs every case on every network of s, each as a subtest.
func Run(t *testing.T, s Suite) {
	if role := os.Getenv(childRole); role != "" {
		runChild(t, s, role)
		return
	}
	if len(s.Skip) > maxSkips {
		t.Fatalf("suite %s skips %d cases; at most %d are allowed", s.Name, len(s.Skip), maxSkips)
	}
	t.Log(droppedTable() + skipTable(s))
	warmUp(t)
	s.test = t.Name()
	hangs := 0
	for _, network := range s.Networks {
		t.Run(network, func(t *testing.T) {
			for _, g := range groups {
				t.Run(g.name, func(t *testing.T) {
					for _, c := range g.cases {
						t.Run(caseName(g, c), func(t *testing.T) {
							if hangs >= maxHangs {
								t.Skipf("not run: %d cases hung before", hangs)
							}
							if runCase(t, &s, network, g, c) {
								hangs++
							}
						})
					}
				})
			}
		})
	}
}

func caseName(g group, c Case) string {
	word := "case"
	if g.rows {
		word = "row"
	}
	return fmt.Sprintf("%s%02d_%s", word, c.ID, strings.ReplaceAll(c.Name, " ", "_"))
}

func skipTable(s Suite) string {
	var b strings.Builder
	fmt.Fprintf(&b, "suite %s skips %d of at most %d cases\n", s.Name, len(s.Skip), maxSkips)
	for _, g := range groups {
		for _, c := range g.cases {
			if why, ok := s.Skip[skipKey(g, c)]; ok {
				fmt.Fprintf(&b, "  %-50s %s\n", caseName(g, c), why)
			}
		}
	}
	return b.String()
}

func skipKey(g group, c Case) int {
	if g.rows {
		return -c.ID
	}
	return c.ID
}

// why says why c is not run on this network, or nothing.
func why(s *Suite, network string, g group, c Case) string {
	switch reason, skip := s.Skip[skipKey(g, c)]; {
	case skip:
		return reason
	case c.Needs&NeedsSockets != 0 && s.Peers != nil:
		return "needs real sockets"
	case c.Needs&NeedsTCP != 0 && network == "unix":
		return "not on unix sockets"
	case c.Needs&NeedsTime != 0 && testing.Short():
		return "takes long"
	case c.Needs&NeedsTime != 0 && network == "tcp6" && slices.Contains(s.Networks, "tcp4"):
		return "takes long, and is tried on tcp4"
	case c.Needs&NeedsOne != 0 && s.Client != nil:
		return "about one engine"
	case c.Needs&NeedsLinux != 0 && runtime.GOOS != "linux":
		return "needs Linux"
	}
	return ""
}

// runCase runs one case and reports whether it hung.
func runCase(t *testing.T, s *Suite, network string, g group, c Case) (hung bool) {
	if reason := why(s, network, g, c); reason != "" {
		t.Skip(reason)
	}
	before := takeSnapshot()
	e := newEnv(t, s, network, c.Config)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				e.Errorf("the case panicked: %v\n%s", v, debug.Stack())
			}
		}()
		c.Run(e)
	}()
	// The case's own waits end at its deadline; the rest is for code of the
	// engine that does not come back.
	select {
	case <-done:
	case <-time.After(caseTime() + 5*time.Second):
		hung = true
		e.Errorf("the case hangs; all goroutines:\n%s", allStacks())
	}
	hung = e.ctx.Err() != nil || hung
	if hung && !t.Failed() {
		e.Errorf("what the case waited for did not come in its time")
	}
	e.close()
	if t.Failed() {
		e.explain()
	}
	if !hung {
		before.check(t)
	}
	return hung
}

// warmUp makes what a process makes once, so that no case is charged for it:
// the runtime's poller.
func warmUp(t *testing.T) {
	l, err := packageNet{}.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("this machine has no loopback: %v", err)
	}
	l.Close()
}

func allStacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// A snapshot is what a process holds.
type snapshot struct {
	fds        map[string]int // how many descriptors lead to each thing
	goroutines map[string]string
	mappings   []string // of anonymous inodes: rings
}

func takeSnapshot() snapshot {
	return snapshot{openFiles(), goroutines(), anonymousMappings()}
}

// goroutines gives every goroutine's stack by its number.
func goroutines() map[string]string {
	m := make(map[string]string)
	for _, g := range strings.Split(allStacks(), "\n\n") {
		head, _, _ := strings.Cut(g, " [")
		if strings.Contains(g, "os/signal.") || strings.Contains(g, "runtime.runFinalizers") {
			continue // made once for the process
		}
		m[head] = g
	}
	return m
}

// leaks lists what is there now and was not in s.
func (s snapshot) leaks() []string {
	var out []string
	for link, n := range openFiles() {
		if n > s.fds[link] {
			out = append(out, fmt.Sprintf("%d descriptors of %s, %d before", n, link, s.fds[link]))
		}
	}
	for id, stack := range goroutines() {
		if s.goroutines[id] == "" {
			out = append(out, stack)
		}
	}
	if now := anonymousMappings(); len(now) > len(s.mappings) {
		out = append(out, fmt.Sprintf("%d anonymous mappings, %d before:\n%s",
			len(now), len(s.mappings), strings.Join(now, "\n")))
	}
	slices.Sort(out)
	return out
}

// check waits until nothing is left over, and fails t if something stays.
func (s snapshot) check(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if !eventually(ctx, func() bool { return len(s.leaks()) == 0 }) {
		t.Errorf("left over:\n%s", strings.Join(s.leaks(), "\n\n"))
	}
}

// eventually waits until cond holds. It is for what sends no event.
func eventually(ctx context.Context, cond func() bool) bool {
	for wait := 100 * time.Microsecond; !cond(); wait = min(2*wait, 20*time.Millisecond) {
		select {
		case <-ctx.Done():
			return cond()
		case <-time.After(wait):
		}
	}
	return true
}
