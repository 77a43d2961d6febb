package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"couplet/engines"
)

// A Plan is what to measure. Its zero fields have defaults.
type Plan struct {
	// Workloads and Candidates are measured each with each, where a candidate
	// serves the workload.
	Workloads  []Workload
	Candidates []string
	// Rounds is how often (7 by default). Each round has every candidate once, in
	// an order drawn from Seed; every other round has the order of the one before
	// it reversed. What a Custom draws comes from Seed and the round, so that all
	// candidates of a round have the same.
	Rounds int
	Seed   uint64
	// Duration is how long a sample takes (1 s by default), after Warm (a third
	// of it by default), which is not counted.
	Duration, Warm time.Duration
	// Baseline is the candidate that the table compares with.
	Baseline string
	// ServerCPU and ClientCPU are where the server and this process are pinned;
	// with both 0 they are 0 and 1, or not apart where there is only one.
	ServerCPU, ClientCPU int
	// Procs is GOMAXPROCS of every server written in Go (1 by default).
	Procs int
	// Retries is how often a sample is taken again that was disturbed (see
	// Figures.Disturbed), once the machine is quiet or 30 s have passed. What a
	// sample says plays no part in it.
	Retries int
	// Save, if not nil, is called with what there is after every round, so that
	// what ends the program early does not take everything with it.
	Save func(*Result)
	// Each, if not nil, is called after every sample with how many of how many
	// there are.
	Each func(done, total int, s Sample)
	// Peers is the directory of the module bench/peers ("bench/peers" by
	// default).
	Peers string
}

func (p Plan) withDefaults() (Plan, error) {
	if p.Rounds == 0 {
		p.Rounds = 7
	}
	if p.Duration == 0 {
		p.Duration = time.Second
	}
	if p.Warm == 0 {
		p.Warm = p.Duration / 3
	}
	if p.Procs == 0 {
		p.Procs = 1
	}
	if p.Peers == "" {
		p.Peers = filepath.Join("bench", "peers")
	}
	if p.ServerCPU == 0 && p.ClientCPU == 0 && runtime.NumCPU() > 1 {
		p.ClientCPU = 1
	}
	p.Workloads = slices.Clone(p.Workloads)
	for i, w := range p.Workloads {
		w, err := w.WithDefaults()
		if err != nil {
			return p, err
		}
		p.Workloads[i] = w
	}
	if p.Rounds < 0 || p.Duration < 0 || p.Warm < 0 || p.Procs < 0 {
		return p, fmt.Errorf("bench: rounds, durations and processors must not be negative")
	}
	return p, nil
}

// Run measures, and writes a line per sample to progress. It pins this whole
// process to ClientCPU. What a candidate cannot do, or fails to do, is told in
// the Result; the error is for a plan that cannot be right, and for ctx.
func (p Plan) Run(ctx context.Context, progress io.Writer) (*Result, error) {
	p, err := p.withDefaults()
	if err != nil {
		return nil, err
	}
	shop, err := newWorkshop(p.Peers)
	if err != nil {
		return nil, err
	}
	defer shop.close()
	r := &Result{Version: Version, Manifest: p.manifest(), Workloads: p.Workloads}
	var candidates []Candidate
	commands := map[string][]string{}
	for _, name := range p.Candidates {
		c, err := find(name)
		if err != nil {
			return nil, err
		}
		argv, err := c.build(shop)
		if err != nil {
			r.skip(Skipped{"", name, err.Error()})
			fmt.Fprintf(progress, "%s is left out: %v\n", name, err)
			continue
		}
		commands[name] = argv
		candidates = append(candidates, c)
	}
	if err := Pin(p.ClientCPU); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(p.Seed, 0))
	done, total := 0, 0
	for _, w := range p.Workloads {
		for _, c := range candidates {
			if c.serves(w) {
				total += p.Rounds
			}
		}
	}
	for _, w := range p.Workloads {
		var able []Candidate
		for _, c := range candidates {
			if c.serves(w) {
				able = append(able, c)
			} else {
				r.skip(Skipped{w.String(), c.Name, "it does not serve this workload"})
			}
		}
		for round := range p.Rounds {
			if round%2 == 0 {
				random.Shuffle(len(able), func(i, k int) { able[i], able[k] = able[k], able[i] })
			} else {
				slices.Reverse(able)
			}
			for place, c := range able {
				if err := ctx.Err(); err != nil {
					r.Partial = true
					if p.Save != nil {
						p.Save(r)
					}
					return r, err
				}
				w.Seed = p.Seed + uint64(round)
				s, engine, err := p.one(w, c, commands[c.Name], 0)
				done++
				if err != nil {
					r.skip(Skipped{w.String(), c.Name, err.Error()})
					fmt.Fprintf(progress, "%-32s round %d  %-10s %v\n", w, round+1, c.Name, err)
					continue
				}
				s.Round, s.Place = round, place
				r.Samples = append(r.Samples, s)
				if engine != "" {
					r.Manifest.Engines[c.Name] = engine
				}
				fmt.Fprintln(progress, s.line(w, round))
				if p.Each != nil {
					p.Each(done, total, s)
				}
			}
			r.Manifest.LoadAfter = firstLine("/proc/loadavg")
			r.Manifest.Took = time.Since(r.Manifest.Began).Round(time.Millisecond)
			if p.Save != nil {
				p.Save(r)
			}
		}
	}
	return r, nil
}

func (s Sample) line(w Workload, round int) string {
	if w.Kind == Idle {
		return fmt.Sprintf("%-32s round %d  %-10s %8.0f bytes per connection %v", w, round+1, s.Candidate, s.BytesPerConn, errorText(s.Errors))
	}
	return fmt.Sprintf("%-32s round %d  %-10s %8.3f us CPU per %s, %9.0f/s, p99 %8.0f us, generator %3.0f %%, others %3.0f %% %v",
		w, round+1, s.Candidate, s.CPU(), w.Unit(), s.Rate(), s.P99US, 100*s.GeneratorBusy, 100*s.Others, errorText(s.Errors))
}

func errorText(errors map[string]int64) string {
	if len(errors) == 0 {
		return ""
	}
	return fmt.Sprint("ERRORS ", errors)
}

// one takes one sample, with a server process of its own.
func (p Plan) one(w Workload, c Candidate, argv []string, retry int) (Sample, string, error) {
	cpu, procs := p.ServerCPU, p.Procs
	if c.Loops > 1 {
		cpu, procs = -1, c.Loops
	}
	server, err := start(append(slices.Clone(argv), w.args()...), cpu, procs)
	if err != nil {
		return Sample{}, "", err
	}
	defer server.stop()
	line, warm, duration := "report", p.Warm, p.Duration
	switch w.Kind {
	case Idle:
		line = "gc"
	case Custom:
		// Each connection is to get through some think times, within reason.
		think := time.Duration(w.Spec.Think.mean(&thinkTime))
		warm, duration = max(warm, min(think, 10*time.Second)), max(duration, min(5*think, 30*time.Second))
	case Poems:
		// A schedule is known when some chunks have come, the storm in which all
		// connected has to be over, and each client counts only a few of them in a
		// second.
		warm, duration = max(warm, 30*w.Delay), max(duration, 20*w.Delay)
	}
	f, err := Measure(w, server.ready.Port, warm, duration, func() (Report, error) { return server.ask(line) })
	if err != nil {
		return Sample{}, "", fmt.Errorf("%w%s", err, server.errors.text())
	}
	s := sample(w, c.Name, f)
	if f.Disturbed() && len(s.Errors) == 0 && w.Kind != Idle && retry < p.Retries {
		server.stop()
		awaitQuiet(30 * time.Second)
		return p.one(w, c, argv, retry+1)
	}
	s.Retries = retry
	return s, server.ready.Engine, nil
}

// awaitQuiet returns when the machine has done next to nothing for a second, or
// after limit.
func awaitQuiet(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		before := busyTime()
		time.Sleep(time.Second)
		if float64(busyTime()-before) < disturbed*float64(time.Second) {
			return
		}
	}
}

func (p Plan) manifest() Manifest {
	var u unix.Utsname
	unix.Uname(&u)
	m := Manifest{
		Began:       time.Now().UTC().Truncate(time.Second),
		Command:     append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...),
		Commit:      commit(),
		Kernel:      unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:]),
		CPU:         cpuInfo("model name"),
		CPUs:        runtime.NumCPU(),
		Virtual:     strings.Contains(" "+cpuInfo("flags")+" ", " hypervisor "),
		Mitigations: map[string]string{},
		Sysctls:     map[string]string{},
		Go:          runtime.Version(),
		GOMAXPROCS:  p.Procs,
		ServerCPU:   p.ServerCPU,
		ClientCPU:   p.ClientCPU,
		Tier:        tier(),
		Engines:     map[string]string{},
		Candidates:  p.Candidates,
		Seed:        p.Seed,
		Rounds:      p.Rounds,
		Warm:        p.Warm,
		Duration:    p.Duration,
		Baseline:    p.Baseline,
		LoadBefore:  firstLine("/proc/loadavg"),
	}
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, f := range files {
		if text := firstLine(f); text != "Not affected" {
			m.Mitigations[filepath.Base(f)] = text
		}
	}
	for _, name := range []string{
		"net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.ip_local_port_range",
		"net.ipv4.tcp_congestion_control", "kernel.io_uring_disabled",
	} {
		if text := firstLine("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); text != "" {
			m.Sysctls[name] = text
		}
	}
	return m
}

// tier is the highest io_uring tier here.
func tier() string {
	return engines.Probe().Uring.Tier
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	c := strings.TrimSpace(string(out))
	if out, err := exec.Command("git", "status", "--porcelain").Output(); err == nil && len(out) > 0 {
		c += " with changes"
	}
	return c
}

func cpuInfo(key string) string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}
