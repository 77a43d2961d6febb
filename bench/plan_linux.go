package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A Plan is what to measure. Its zero fields have defaults.
type Plan struct {
	// Workloads and Candidates are measured each with each, where a candidate
	// serves the workload.
	Workloads  []Workload
	Candidates []string
	// Rounds is how often (9 by default). Each round has every candidate once, in
	// an order drawn from Seed; every other round has the order of the one before
	// it reversed. In an Echo or a Mixed without a Rate all servers of a round are up at once,
	// where there are descriptors and time enough, and take turns: a sample is the sum of slices
	// of 50 ms or, of more than 200 connections, of 0.25 ms for each.
	// What a Custom draws comes from Seed and the round, so that all candidates of a round have
	// the same.
	Rounds int
	Seed   uint64
	// Duration is how long a sample takes (1 s by default), after Warm (a third
	// of it by default), which is not counted.
	Duration, Warm time.Duration
	// Brief has samples that need longer than that, those of poems and of files with
	// pauses, be no longer than it takes to say something.
	Brief bool
	// Baseline is the candidate that the table compares with.
	Baseline string
	// ServerCPU and ClientCPU are where the server and this process are pinned;
	// with both 0 they are the first CPU that this process may have, and the next of
	// another core, if there is one. Where it is remote, only the agent decides.
	ServerCPU, ClientCPU int
	// Procs is GOMAXPROCS of every server written in Go (1 by default).
	Procs int
	// Retries is how often a sample is taken again that was disturbed (see
	// Figures.Disturbed), once the machine is quiet or 30 s have passed. What a
	// sample says plays no part in it.
	Retries int
	// Audit has one more sample of every engine of couplet's on every workload taken,
	// to check its count of system calls against the kernel's.
	Audit bool
	// Spare is how much time all samples that are taken again may cost together,
	// waiting included; without it there is no limit.
	Spare time.Duration
	// Late, if not nil, is asked before every round: once it answers true none is
	// begun. What is then missing is told in Result.Skipped.
	Late func() bool
	// Save, if not nil, is called with what there is after every round, so that
	// what ends the program early does not take everything with it.
	Save func(*Result)
	// Ready, if not nil, is called before the first sample with the candidates that
	// cannot be had. Its error ends the run; without one they are left out.
	Ready func(missing []Skipped) error
	// Next, if not nil, is called before samples are taken with how many of how many
	// there have been, and who is measured now: one candidate, or several together.
	Next func(done, total int, w Workload, candidates []string)
	// Each, if not nil, is called after every sample with how many of how many
	// there are.
	Each func(done, total int, s Sample)
	// Peers is the directory of the module bench/peers ("bench/peers" by
	// default).
	Peers string
	// Remote, if not nil, is where the servers run, instead of here. The agent
	// decides where they are pinned, each has a GOMAXPROCS of its loops, and only
	// couplet's own engines are served for (see CheckRemote).
	Remote *Remote

	spare    *spare
	progress io.Writer
}

// beforePoems is for how long the first poems are recited before all of them are.
const beforePoems = 20 * time.Second

func (p Plan) withDefaults() (Plan, error) {
	if p.Rounds == 0 {
		p.Rounds = 9 // see Ratio
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
	if p.Remote != nil {
		if err := CheckRemote(p.Candidates); err != nil {
			return p, err
		}
		p.ServerCPU, p.Procs = p.Remote.cpu, 1
		if most := p.Remote.serverLimit; p.Warm+p.Duration > most/2 {
			return p, fmt.Errorf("a sample of %v and %v of warm-up is too long for the agent, which lets a server live for %v; take shorter ones", p.Duration, p.Warm, most)
		}
	}
	switch server, generator := places(); {
	case p.Remote != nil && p.ServerCPU == generator: // it may be this machine
		p.ClientCPU = server
	case p.Remote != nil:
		p.ClientCPU = generator
	case p.ServerCPU == 0 && p.ClientCPU == 0:
		p.ServerCPU, p.ClientCPU = server, generator
	}
	p.Workloads = slices.Clone(p.Workloads)
	for i, w := range p.Workloads {
		w, err := w.WithDefaults()
		if err != nil {
			return p, err
		}
		if w.Kind == Poems {
			if lasts, want := w.poemLasts(), p.Warm+p.Duration+beforePoems; lasts <= want {
				return p, fmt.Errorf("%s is over after %v, and has to last for %v; take smaller chunks or a shorter duration", w, lasts, want)
			}
		}
		p.Workloads[i] = w
	}
	if p.Rounds < 0 || p.Duration < 0 || p.Warm < 0 || p.Procs < 0 {
		return p, fmt.Errorf("rounds, durations and processors must not be negative")
	}
	return p, nil
}

// Check is nil if p can be right, which Run asks too.
func (p Plan) Check() error {
	_, err := p.withDefaults()
	return err
}

// Run measures, and writes a line per sample to progress, and one before it waits
// for a quiet machine. It pins this whole process to ClientCPU. What a candidate
// cannot do, or fails to do, is told in the Result; the error is for a plan that
// cannot be right, for a machine on which nothing can begin, of Ready, for ctx, and for
// an agent that is lost or whose servers cannot be reached. The Result of the last three
// is there, and Partial. The end of ctx cuts the sample that is under way, or all of a round
// that is measured in slices, which is dropped, and ends a session with an agent, as the end of
// the session cuts the sample.
func (p Plan) Run(ctx context.Context, progress io.Writer) (*Result, error) {
	p, err := p.withDefaults()
	if err != nil {
		return nil, err
	}
	var at site = p.Remote
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	if p.Remote != nil {
		// What is asked of the agent may take it long, and is of no use then.
		defer context.AfterFunc(ctx, func() { p.Remote.Close() })()
		// Without the agent there is nothing to wait for.
		defer context.AfterFunc(p.Remote.session, stop)()
	} else {
		shop, err := newWorkshop(ctx, p.Peers)
		if err != nil {
			return nil, err
		}
		defer shop.close()
		at = &here{shop, p.ServerCPU, p.Procs, map[string][]string{}}
	}
	r := &Result{Version: Version, Manifest: p.manifest(at), Workloads: p.Workloads}
	var candidates []Candidate
	for _, name := range p.Candidates {
		c, err := find(name)
		if err != nil {
			return nil, err
		}
		if err := at.prepare(c); err != nil {
			r.skip(Skipped{"", name, err.Error()})
			continue
		}
		candidates = append(candidates, c)
	}
	if over := p.over(ctx); over != nil {
		r.Skipped = nil // what was being built is no fault of its own
		return p.partial(r, over)
	}
	if p.Ready != nil {
		if err := p.Ready(r.Skipped); err != nil {
			return nil, err
		}
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(progress, "%s is left out: %s\n", s.Candidate, s.Why)
	}
	if err := Pin(p.ClientCPU); err != nil {
		return nil, err
	}
	p.spare, p.progress = &spare{limit: p.Spare}, progress
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
			if p.late() {
				r.skip(Skipped{w.String(), "every candidate", fmt.Sprintf("the time was over after %d of %s", round, plural(p.Rounds, "round"))})
				break
			}
			if round%2 == 0 {
				random.Shuffle(len(able), func(i, k int) { able[i], able[k] = able[k], able[i] })
			} else {
				slices.Reverse(able)
			}
			place := 0
			w.Seed = p.Seed + uint64(round)
			for _, group := range p.together(w, able) {
				if p.Next != nil {
					p.Next(done, total, w, names(group))
				}
				all := p.samples(sampling, at, w, group, false)
				if over := p.over(ctx); over != nil {
					return p.partial(r, over)
				}
				for i, t := range all {
					name := group[i].Name
					if p.Remote != nil && errors.As(t.err, new(unreached)) {
						return p.partial(r, t.err)
					}
					done++
					if t.err != nil {
						r.skip(Skipped{w.String(), name, t.err.Error()})
						fmt.Fprintf(progress, "%-32s round %d  %-10s %v\n", w, round+1, name, t.err)
						continue
					}
					t.sample.Round, t.sample.Place = round, place+i
					r.Samples = append(r.Samples, t.sample)
					if t.engine != "" {
						r.Manifest.Engines[name] = t.engine
					}
					fmt.Fprintln(progress, t.sample.line(w, round))
					if p.Each != nil {
						p.Each(done, total, t.sample)
					}
				}
				place += len(group)
			}
			r.Manifest.LoadAfter = at.load()
			r.Manifest.Took = time.Since(r.Manifest.Began).Round(time.Millisecond)
			r.Manifest.Again = p.spare.used
			if p.Save != nil {
				p.Save(r)
			}
		}
		if p.Audit {
			p.audit(sampling, at, r, w, able)
			if over := p.over(ctx); over != nil {
				return p.partial(r, over)
			}
		}
	}
	return r, nil
}

// over is why p ends early, or nil: the error of ctx, or how the agent was lost.
func (p Plan) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil || p.Remote == nil {
		return err
	}
	return context.Cause(p.Remote.session)
}

// partial is what Run returns when err ended it early.
func (p Plan) partial(r *Result, err error) (*Result, error) {
	r.Partial = true
	if p.Save != nil {
		p.Save(r)
	}
	return r, err
}

// Unserved are those of p's workloads that a candidate does not serve: it is left
// out of them, which Result.Skipped tells.
func (p Plan) Unserved(candidate string) []Workload {
	c, err := find(candidate)
	if q, e := p.withDefaults(); e == nil {
		p = q
	}
	return slices.DeleteFunc(slices.Clone(p.Workloads), func(w Workload) bool { return err == nil && c.serves(w) })
}

// late reports whether the time is over.
func (p Plan) late() bool { return p.Late != nil && p.Late() }

// auditing is p for the samples that Audit asks for, of which nothing but a count is
// used.
func (p Plan) auditing() Plan {
	p.Duration, p.Brief, p.Retries = min(p.Duration, 250*time.Millisecond), true, 0
	return p
}

// names are the names of candidates.
func names(of []Candidate) (all []string) {
	for _, c := range of {
		all = append(all, c.Name)
	}
	return all
}

// audits reports whether there is something to audit of c on w.
func (p Plan) audits(w Workload, c Candidate) bool { return p.Audit && c.counts() && w.Kind != Idle }

// audit takes the samples that Audit asks for. One that fails is left out: what
// fails, fails in the samples that count too.
func (p Plan) audit(ctx context.Context, at site, r *Result, w Workload, able []Candidate) {
	for _, c := range able {
		if !p.audits(w, c) || r.Unaudited != "" || p.late() {
			continue
		}
		t := p.auditing().samples(ctx, at, w, []Candidate{c}, true)[0]
		switch s := t.sample; {
		case t.err != nil || len(s.Errors) > 0:
		case s.notCounted != "":
			r.Unaudited = s.notCounted
		case s.Crossings > 0:
			r.Audits = append(r.Audits, Audit{w.String(), c.Name, s.Crossings, s.kernel})
		}
	}
}

func (s Sample) line(w Workload, round int) string {
	if w.Kind == Idle {
		return fmt.Sprintf("%-32s round %d  %-10s %8.0f bytes per connection %v", w, round+1, s.Candidate, s.BytesPerConn, errorText(s.Errors))
	}
	back := ""
	if s.Recovery != nil {
		back = ", " + s.Recovery.String()
	}
	return fmt.Sprintf("%-32s round %d  %-10s %8.3f us CPU per %s, %9.0f/s, p99 %8s us, generator %3.0f %%, others %3.0f %%%s %v",
		w, round+1, s.Candidate, s.CPU(), w.Unit(), s.Rate(), microsText(s.p99()), 100*s.GeneratorBusy, 100*max(s.Others, s.GeneratorOthers), back, errorText(s.Errors))
}

func errorText(errors map[string]int64) string {
	if len(errors) == 0 {
		return ""
	}
	return fmt.Sprint("ERRORS ", errors)
}

func (p Plan) manifest(s site) Manifest {
	build, _ := debug.ReadBuildInfo()
	dir, _ := os.Getwd()
	m := Manifest{
		Began:      time.Now().UTC().Truncate(time.Second),
		Command:    withoutToken(append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...)),
		Commit:     commit(build, dir),
		GOMAXPROCS: p.Procs,
		ServerCPU:  p.ServerCPU,
		ClientCPU:  p.ClientCPU,
		OneCore:    p.Remote == nil && coreOf(p.ServerCPU) == coreOf(p.ClientCPU),
		Engines:    map[string]string{},
		Candidates: p.Candidates,
		Seed:       p.Seed,
		Rounds:     p.Rounds,
		Warm:       p.Warm,
		Duration:   p.Duration,
		Baseline:   p.Baseline,
		LoadBefore: s.load(),
	}
	if p.Remote == nil {
		m.Machine = machine()
	} else {
		m.Machine, m.Network = p.Remote.machine, p.Remote.network()
	}
	return m
}

// withoutToken is a command line without the value of --token: a report is to be
// shown.
func withoutToken(args []string) []string {
	for i, arg := range args {
		if strings.HasPrefix(arg, "--token=") {
			args[i] = "--token=..."
		} else if i > 0 && args[i-1] == "--token" {
			args[i] = "..."
		}
	}
	return args
}

// commit is that of the program, which its build tells, or else that of the checkout
// of couplet in which dir is: "go run" and "go test" tell none. It is "" where there is
// neither.
func commit(build *debug.BuildInfo, dir string) string {
	revision, modified := "", false
	if build != nil {
		for _, s := range build.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
	}
	if revision == "" && inModule(dir) {
		git := func(args ...string) string {
			out, _ := exec.Command("git", append([]string{"-C", dir}, args...)...).Output()
			return strings.TrimSpace(string(out))
		}
		revision = git("rev-parse", "HEAD")
		modified = git("status", "--porcelain") != ""
	}
	if revision != "" && modified {
		revision += " with changes"
	}
	return revision
}

// inModule reports whether dir is in the module couplet.
func inModule(dir string) bool {
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return slices.Contains(strings.Split(string(text), "\n"), "module couplet")
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}
