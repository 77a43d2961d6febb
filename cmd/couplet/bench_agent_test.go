//go:build linux

package main

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet/bench"
	"couplet/internal/netpair"
)

// An agentJob is a run of couplet bench agent.
type agentJob struct {
	*job
	addr, token string
}

var agentLine = regexp.MustCompile(`(?m)^Agent on (\S+), token ([0-9a-f]{32,})$`)

func beginAgent(t *testing.T, args ...string) *agentJob {
	t.Helper()
	return awaitAgent(begin(t, append([]string{"bench", "agent"}, args...)...))
}

// awaitAgent waits for the agent's first line, and ends it with the test.
func awaitAgent(j *job) *agentJob {
	j.t.Helper()
	j.t.Cleanup(func() {
		j.cmd.Process.Kill()
		j.cmd.Wait()
	})
	j.stdout.await(j.t, "couplet bench --remote", 1)
	m := agentLine.FindStringSubmatch(j.stdout.text())
	if m == nil {
		j.t.Fatalf("the agent says %q", j.stdout.text())
	}
	return &agentJob{j, m[1], m[2]}
}

// remote is a small measurement at the agent.
func (a *agentJob) remote(engines string, args ...string) []string {
	return append([]string{"bench", "--remote", a.addr, "--token", a.token, "--quick", "--connections", "3", "--duration", "20ms",
		"--engines", engines, "--control=false"}, args...)
}

// starved reports whether a server had no CPU for so long that messages counted as
// lost: that tells of the machine and not of the code.
func (o outcome) starved() bool { return strings.Contains(o.stderr, "messages lost") }

// measureAt measures at an agent, once more with another where a server starved.
func measureAt(t *testing.T, agent func() *agentJob, engines string, args ...string) (a *agentJob, o outcome) {
	t.Helper()
	for range 10 {
		a = agent()
		if o = couple(t, a.remote(engines, args...)...); !o.starved() {
			break
		}
		a.end()
	}
	return a, o.want(t, 0)
}

// pids are the servers that the agent says it started.
func (a *agentJob) pids() (all []string) {
	for _, m := range regexp.MustCompile(`pid=(\d+)`).FindAllStringSubmatch(a.stderr.text(), -1) {
		all = append(all, m[1])
	}
	return all
}

// awaitNone waits until none of the agent's servers is there.
func (a *agentJob) awaitNone() {
	a.t.Helper()
	pids := a.pids()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		left := slices.DeleteFunc(slices.Clone(pids), func(pid string) bool {
			path, err := os.Readlink("/proc/" + pid + "/exe") // none of a zombie
			return err != nil || path != binary
		})
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("these servers are still there: %v", left)
		}
	}
}

func TestBenchAtAnAgent(t *testing.T) {
	t.Parallel()
	if !slices.Contains(working(), "uring") {
		t.Skip("there is no io_uring")
	}
	for _, listen := range []string{"", "[::1]:0", "localhost:0", "0.0.0.0:0"} {
		t.Run(listen, func(t *testing.T) {
			args := []string{}
			if listen != "" {
				args = []string{"--listen", listen}
			}
			if strings.Contains(listen, "::1") {
				l, err := net.Listen("tcp", listen)
				if err != nil {
					t.Skip(err)
				}
				l.Close()
			}
			file := filepath.Join(t.TempDir(), "a.json")
			a, o := measureAt(t, func() *agentJob {
				a := beginAgent(t, args...)
				if listen == "" && !strings.HasPrefix(a.addr, "127.0.0.1:") {
					t.Errorf("by default the agent is on %s", a.addr)
				}
				a.addr = strings.Replace(a.addr, "0.0.0.0:", "127.0.0.1:", 1)
				return a
			}, "uring,epoll", "--rounds", "2", "--json", file)
			if !strings.Contains(o.stdout, "Error ledger: empty") {
				t.Errorf("the report: %s", o.stdout)
			}
			r, err := bench.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := os.ReadFile(file)
			if strings.Contains(string(text), a.token) {
				t.Error("the result has the token")
			}
			if len(r.Samples) != 4 || len(r.Errors()) > 0 || r.Partial {
				t.Errorf("%d samples, errors %v, skipped %v", len(r.Samples), r.Errors(), r.Skipped)
			}
			n, host := r.Manifest.Network, strings.Trim(a.addr[:strings.LastIndex(a.addr, ":")], "[]")
			if n == nil || n.Server != host || n.Generator != host || !n.OneMachine {
				t.Fatalf("the network in the manifest: %+v", n)
			}
			if m := r.Manifest.Machine; m.Kernel == "" || m.Program == "" || m.Program != n.GeneratorMachine.Program || m.Tier == "" {
				t.Errorf("the machines in the manifest: %+v and %+v", m, n.GeneratorMachine)
			}
			end := a.end().want(t, 0)
			if says := strings.Contains(end.stderr, "can be reached over the network at every address of this machine: "); says != (listen == "0.0.0.0:0") {
				t.Errorf("on %s the agent says %q", a.addr, end.stderr)
			}
			a.awaitNone()
		})
	}
}

// Kinds of workload that the generator does not handle alike.
func TestEveryWorkloadAtAnAgent(t *testing.T) {
	t.Parallel()
	listen := "[::1]:0" // where there is one source address, as on a network
	if l, err := net.Listen("tcp", listen); err != nil {
		listen = "127.0.0.1:0"
	} else {
		l.Close()
	}
	for _, kind := range []string{"pipelined", "churn", "broadcast", "mixed", "idle"} {
		t.Run(kind, func(t *testing.T) {
			a, o := measureAt(t, func() *agentJob { return beginAgent(t, "--listen", listen) }, "epoll,goroutine", "--workload", kind, "--rounds", "1")
			if !strings.Contains(o.stdout, "Error ledger: empty") {
				t.Errorf("the report: %s", o.stdout)
			}
			a.end().want(t, 0)
		})
	}
}

func TestWhatAnAgentRefuses(t *testing.T) {
	t.Parallel()
	a := beginAgent(t)
	good := a.token
	for i, token := range []string{"abc", strings.Repeat("0", 32), strings.Repeat("1", 32), strings.Repeat("2", 32)} {
		a.token = token
		o := couple(t, a.remote("epoll,goroutine")...).want(t, 2)
		if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "token that the agent printed") {
			t.Errorf("wrong token %d: %q", i, o.stderr)
		}
	}
	if o := a.end().want(t, 1); !strings.Contains(o.stderr, "three wrong tokens") {
		t.Errorf("the agent: %q", o.stderr)
	}
	a.token = good
	if o := couple(t, a.remote("epoll,goroutine")...).want(t, 1); strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "couplet bench agent --listen") {
		t.Errorf("no agent: %q", o.stderr)
	}
}

// With --keep there is a new token after each session, which the environment may
// have too, and one session at a time.
func TestAnAgentThatIsKept(t *testing.T) {
	t.Parallel()
	a := beginAgent(t, "--keep")
	first := begin(t, a.remote("epoll,goroutine", "--rounds", "1000")...)
	first.stderr.await(t, "round 1 ", 1)
	if o := couple(t, a.remote("epoll,goroutine")...).want(t, 1); strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "another session") {
		t.Errorf("a second session: %q", o.stderr)
	}
	first.cmd.Process.Signal(syscall.SIGINT)
	first.end().want(t, 1)
	a.stdout.await(t, "couplet bench --remote", 2)
	a.awaitNone()

	next := agentLine.FindAllStringSubmatch(a.stdout.text(), 2)[1][2]
	cmd := exec.Command(binary, slices.DeleteFunc(a.remote("epoll,goroutine", "--rounds", "1"), func(arg string) bool { return arg == "--token" || arg == a.token })...)
	cmd.Env = append(os.Environ(), tokenEnv+"="+next)
	if o := beginCmd(t, cmd).end(); !o.starved() {
		o.want(t, 0)
	}
	a.stdout.await(t, "couplet bench --remote", 3)
	a.cmd.Process.Signal(syscall.SIGINT)
	a.end().want(t, 0)
}

// Whoever goes away from the agent's output ends no session: its next line was a
// SIGPIPE. An agent that cannot tell its next token ends.
func TestAnAgentOutlivesTheReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	output, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd := exec.Command(binary, "bench", "agent", "--keep")
	cmd.Stdout, cmd.Stderr = end, end
	a := beginCmd(t, cmd)
	end.Close()
	line, err := bufio.NewReader(output).ReadString('\n')
	m := agentLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("the agent says %q, %v", line, err)
	}
	output.Close()
	o := couple(t, (&agentJob{a, m[1], m[2]}).remote("epoll,goroutine", "--rounds", "1")...)
	if !o.starved() {
		o.want(t, 0)
	}
	a.end().want(t, 1)
}

// A client that vanishes leaves no server behind.
func TestAClientThatVanishes(t *testing.T) {
	t.Parallel()
	a := beginAgent(t)
	client := begin(t, a.remote("epoll,goroutine", "--rounds", "1000")...)
	client.stderr.await(t, "round 2 ", 1)
	client.cmd.Process.Kill()
	client.end()
	a.end().want(t, 0)
	a.awaitNone()
}

// An agent that vanishes, is interrupted or has no more time costs the rest of the
// measurement, and not what there is.
func TestAnAgentThatVanishes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit  string
		leave  func(a *agentJob)
		status int
		says   string
	}{
		"killed":      {"1h", func(a *agentJob) { a.cmd.Process.Kill() }, -1, "is lost"},
		"interrupted": {"1h", func(a *agentJob) { a.cmd.Process.Signal(syscall.SIGINT) }, 0, "the agent was interrupted"},
		"late":        {"4s", func(a *agentJob) {}, 0, "start the agent with a longer --time-limit"},
	} {
		t.Run(name, func(t *testing.T) {
			a := beginAgent(t, "--time-limit", c.limit)
			file := filepath.Join(t.TempDir(), "a.json")
			client := begin(t, a.remote("epoll,goroutine", "--rounds", "1000", "--json", file)...)
			if c.limit == "1h" {
				client.stderr.await(t, "round 2 ", 1)
			}
			c.leave(a)
			o := client.end().want(t, 1)
			if !strings.Contains(o.stderr, c.says) || !strings.Contains(o.stderr, "partial") {
				t.Errorf("stderr %q, want %q", o.stderr, c.says)
			}
			r, err := bench.ReadFile(file)
			if err != nil || !r.Partial || c.limit == "1h" && len(r.Samples) == 0 {
				t.Fatalf("the result: %+v, %v", r, err)
			}
			for what := range r.Errors() {
				if !strings.HasSuffix(what, "messages lost") && !strings.HasSuffix(what, "nothing happened") {
					t.Errorf("a sample that was cut counts: %v", r.Errors())
				}
			}
			a.end().want(t, c.status)
			a.awaitNone()
		})
	}
}

// Two network namespaces with a pair of virtual cards between them are as good as
// two machines, but for their one kernel.
func TestBenchBetweenTwoNetworks(t *testing.T) {
	t.Parallel()
	near, far := netpair.New(t)
	measure := func(t *testing.T, listen string, server netip.Addr, args ...string) (*agentJob, *bench.Result) {
		file := filepath.Join(t.TempDir(), "a.json")
		for range 10 {
			a := awaitAgent(beginCmd(t, far.Command(binary, "bench", "agent", "--listen", listen)))
			// The address as the agent tells it, with what only the other end knows.
			a.addr = strings.Replace(suggested.FindStringSubmatch(a.stdout.text())[1], "INTERFACE", near.Card, 1)
			if at, err := netip.ParseAddrPort(a.addr); err != nil || at.Addr() != server {
				t.Errorf("on %s the agent is said to be at %s, want %v", listen, a.addr, server)
			}
			o := beginCmd(t, near.Command(binary, a.remote("epoll,goroutine", append(args, "--rounds", "1", "--json", file)...)...)).end()
			end := a.end().want(t, 0)
			a.awaitNone()
			if o.starved() {
				continue
			}
			o.want(t, 0)
			if !strings.Contains(o.stdout, "Error ledger: empty") || !strings.Contains(end.stderr, "client left") {
				t.Errorf("the report: %s\nthe agent: %s", o.stdout, end.stderr)
			}
			r, err := bench.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return a, r
		}
		t.Fatal("the servers starve")
		return nil, nil
	}
	for _, c := range []struct {
		listen            string
		server, generator netip.Addr
	}{
		{"0.0.0.0:0", far.IPv4, near.IPv4},
		{netip.AddrPortFrom(far.IPv4, 0).String(), far.IPv4, near.IPv4},
		{"[::]:0", far.IPv4, near.IPv4},
		{netip.AddrPortFrom(far.IPv6, 0).String(), far.IPv6, near.IPv6},
		{netip.AddrPortFrom(far.LinkLocal, 0).String(), far.LinkLocal.WithZone(near.Card), near.LinkLocal},
	} {
		if !c.server.IsValid() {
			continue // there is no IPv6
		}
		t.Run(c.listen, func(t *testing.T) {
			a, r := measure(t, c.listen, c.server, "--workload", "echo,churn")
			n := r.Manifest.Network
			if n == nil || n.Server != c.server.String() || n.Generator != c.generator.String() || n.ServerCard != far.Card || n.GeneratorCard != near.Card {
				t.Errorf("%s: the network in the manifest: %+v", a.addr, n)
			}
			if len(r.Samples) != 4 || len(r.Skipped) > 0 {
				t.Errorf("%d samples, skipped %v", len(r.Samples), r.Skipped)
			}
		})
	}
	kinds := []string{"pipelined", "mixed", "broadcast", "idle", file(t, "talk.yaml", "request: 200\nresponse: 64KiB\nlifetime: {requests: 5}\n")}
	if !testing.Short() {
		kinds = append(kinds, "stream", "slow-poems")
	}
	if _, r := measure(t, netip.AddrPortFrom(far.IPv4, 0).String(), far.IPv4, "--workload", strings.Join(kinds, ",")); len(r.Samples) != 2*len(kinds) {
		t.Errorf("%d samples of %v, skipped %v", len(r.Samples), kinds, r.Skipped)
	}
}

// Whatever keeps the agent away is told in a line, with what to do.
func TestAnAgentThatCannotBeReached(t *testing.T) {
	t.Parallel()
	near, far := netpair.New(t)
	try := func(address string, says ...string) {
		t.Helper()
		o := beginCmd(t, near.Command(binary, "bench", "--remote", address, "--token", strings.Repeat("0", 32), "--quick")).end().want(t, 1)
		for _, say := range says {
			if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, say) {
				t.Errorf("at %s: %q, want %q in a line", address, o.stderr, say)
			}
		}
	}
	agent := netip.AddrPortFrom(far.IPv4, 7070).String()
	try(agent, "connection refused", "couplet bench agent --listen")
	try("198.51.100.1:7070", "network is unreachable")
	try("no-such-machine.invalid:7070", "no address is known for no-such-machine.invalid", "by its address")
	far.IP("route add blackhole " + near.IPv4.String())
	try(agent, "timeout", "firewall")
	near.Unplug()
	try(agent, "network is unreachable")
}

// suggested is the address in the command line that an agent suggests.
var suggested = regexp.MustCompile(`(?m)^  .* couplet bench --remote (\S+)$`)
