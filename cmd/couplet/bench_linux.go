package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"couplet/bench"
)

// benchmark is what couplet bench was asked for.
type benchmark struct {
	*common
	workloads, engines, peers []string
	connections, size, depth  int
	rate                      perSecond
	rounds, seed              int
	duration                  time.Duration
	quick, ablate, control    bool
	json, html                string
	peersDir                  string
	remote, token             string

	until time.Time // from then on no round is begun; zero before the first sample
}

func newBench(c *common) *cobra.Command {
	cmd := newBenchOf(&benchmark{common: c})
	cmd.AddCommand(newBenchCompare(c), newBenchAgent(c))
	return cmd
}

func newBenchOf(b *benchmark) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure which engine is better for a workload on this kernel",
		Long: `Bench measures engines against each other and says in one sentence which costs
less CPU for which workload, and less memory for idle connections, or that no
difference was shown.

Server and generator are processes of their own, pinned to CPUs of their own. In
each round every engine has its turn, in an order drawn from the seed; in an echo all
are up at once, and take short turns. The first engine takes part twice, which must
come out as no difference. Every byte that comes back is compared. CPU is the figure
to trust: on one machine the generator is full before the server is, which is marked
as client-bound.

With --remote the servers run on another machine, where "couplet bench agent"
waits, and the generator here.

A FILE describes a load of your own in YAML: the sizes of requests and answers as
distributions, the pause between them, how long a connection lives. bench/workloads
has examples, docs/reading-a-report.md every key. --connections, --depth and --rate
go before what the file says; --size does not go with a file. To measure several,
put commas between them, or give --workload again, which also does for files with
a comma in their name.

Without --workload it measures ` + strings.Join(defaultNames(), ", ") + `,
how engines behave from a tenth to twice of what the slower one can do, their
latency at 50 % and 80 % of its knee, what they achieve at 120 % and 200 % of it,
and how long they take to recover. That takes about eight minutes, and at most ten. With --quick it is less
of everything: about twenty seconds, and at most a minute. What a run of other
flags should take is said when it begins; on a terminal a table shows how far it is.

The files of --json and --html are written at the end, and replaced whole. One that
cannot be written, or is read-only, is refused at the beginning; a pipe or a device is
written as it is.`,
		Example: `  couplet bench --quick
  couplet bench --workload echo --connections 1000 --size 4096
  couplet bench --workload bench/workloads/web-api.yaml --connections 100
  couplet bench --engines uring,epoll --peers gnet,net --json a.json --html a.html
  couplet bench compare before.json after.json
  couplet bench agent --listen 192.168.1.5:7070        # on the other machine, then here:
  couplet bench --remote 192.168.1.5:7070 --token ...`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("bench has no command %q; want compare or agent, or name a workload by --workload", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd) },
	}
	b.engines, b.seed = []string{"uring", "epoll"}, 1
	f := cmd.Flags()
	f.VarP(&list{value: &b.workloads, files: true}, "workload", "w", "what to measure: "+names(append(kinds(), "a `FILE`")))
	f.Var(&list{value: &b.engines}, "engines", "who is compared; the verdict is about the first two")
	f.Var(&list{value: &b.peers}, "peers", "other libraries beside them: gnet, nbio, netpoll, net (net-4k, net-16k, net-splice), c-uring, c-epoll (from a checkout)")
	f.Var(&number{&b.connections, 1, 500_000}, "connections", "connections (64 by default, 1000 for slow-poems)")
	f.Var(&number{&b.size, 1, 1 << 24}, "size", "bytes of a message or chunk (64 by default, 10 for slow-poems)")
	f.Var(&number{&b.depth, 1, 1 << 16}, "depth", "messages in flight on each connection (1 by default, 16 for pipelined)")
	f.Var(&b.rate, "rate", "messages per second in all, sent by the clock; 0: as fast as answers come")
	f.Var(&number{&b.rounds, 1, 1000}, "rounds", "rounds (9 by default, 5 with --quick)")
	f.Var(&period{&b.duration, 10 * time.Millisecond, 10 * time.Minute}, "duration", "time for one measurement, up to 10m (750ms by default, 250ms with --quick)")
	f.Var(&number{&b.seed, 0, math.MaxInt}, "seed", "what the order within the rounds is drawn from")
	f.BoolVar(&b.quick, "quick", false, "three workloads and short samples: at most a minute")
	f.BoolVar(&b.ablate, "ablate", false, "measure what each feature of io_uring and each way to use epoll is worth, on echo unless --workload says otherwise")
	f.BoolVar(&b.control, "control", true, "let the first engine take part twice")
	f.StringVar(&b.json, "json", "", "write every sample and the manifest to this `FILE`")
	f.StringVar(&b.html, "html", "", "write the report as a page to this `FILE`")
	f.StringVar(&b.peersDir, "peers-dir", "bench/peers", "`directory` of the module with the other libraries")
	f.StringVar(&b.remote, "remote", "", "let the servers run on another machine, where an agent is at `HOST:PORT`")
	f.StringVar(&b.token, "token", "", "what that agent printed (or set "+tokenEnv+", which no list of processes shows)")
	return cmd
}

// newBenchServer is the other process of a measurement; it has no user.
func newBenchServer(c *common) *cobra.Command {
	return &cobra.Command{
		Use: "server", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := bench.ServerMain(args, os.Stdin, c.stdout); err != nil {
				return failure{err}
			}
			return nil
		},
	}
}

func newBenchCompare(c *common) *cobra.Command {
	return &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "Compare two results: what changed from A to B",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("compare has %s; want two, A.json B.json", plural(len(args), "file"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var results [2]*bench.Result
			for i, path := range args {
				r, err := bench.ReadFile(path)
				if err != nil {
					return err
				}
				if !measured(r, "") {
					return fmt.Errorf("%s has no samples, or none without errors; measure again", path)
				}
				results[i] = r
			}
			return results[0].WriteComparison(c.stdout, results[1])
		},
	}
}

func kinds() (all []string) {
	for _, k := range bench.Kinds {
		all = append(all, string(k))
	}
	return all
}

// defaults are the workloads of a bench that was not told which.
func defaults() []bench.Workload {
	return []bench.Workload{
		{Kind: bench.Echo, Connections: 64, Size: 64},
		{Kind: bench.Echo, Connections: 1000, Size: 64},
		{Kind: bench.Pipelined, Connections: 64, Size: 64},
		{Kind: bench.Echo, Connections: 64, Size: 64 << 10},
		{Kind: bench.Poems, Connections: 1000},
		{Kind: bench.Churn},
		{Kind: bench.Idle, Connections: 8000},
	}
}

func defaultNames() (all []string) {
	for _, w := range defaults() {
		w, _ = w.WithDefaults()
		all = append(all, w.String())
	}
	return all
}

// plan is what the flags ask for, or an error that says what cannot be right.
func (b *benchmark) plan(cmd *cobra.Command) (bench.Plan, error) {
	p := bench.Plan{
		Audit: !b.quick, Brief: b.quick, Seed: uint64(b.seed), Rounds: b.rounds, Duration: b.duration, Peers: b.peersDir, Retries: 2,
		Candidates: slices.Concat(b.engines, b.peers),
	}
	if p.Rounds == 0 {
		p.Rounds = 9
		if b.quick {
			p.Rounds = 5
		}
	}
	if p.Duration == 0 {
		p.Duration = 750 * time.Millisecond
		if b.quick {
			p.Duration = 250 * time.Millisecond
		}
	}
	if b.quick {
		p.Retries = 0 // to wait for a quiet machine may take long
	}
	if cmd.Flags().Changed("engine") {
		return p, errors.New("--engine is for one engine; bench compares several: --engines uring,epoll")
	}
	if b.ablate {
		if cmd.Flags().Changed("engines") {
			return p, errors.New("--ablate and --engines are two things; use one of them")
		}
		p.Candidates = slices.Concat(bench.Rungs(), b.peers)
	}
	if err := bench.CheckCandidates(p.Candidates); err != nil {
		return p, err
	}
	if len(p.Candidates) < 2 {
		return p, fmt.Errorf("--engines is %q; want two or more to compare, such as uring,epoll", strings.Join(b.engines, ","))
	}
	p.Baseline = p.Candidates[1]
	if again := p.Candidates[0] + "/2"; b.control && !slices.Contains(p.Candidates, again) {
		p.Candidates = append(p.Candidates, again)
	}
	if err := b.checkRemote(cmd, p.Candidates); err != nil {
		return p, err
	}
	if len(b.workloads) == 0 {
		if cmd.Flags().Changed("workload") {
			return p, errors.New("--workload is empty; want " + names(kinds()) + ", or a file")
		}
		for _, name := range []string{"connections", "size", "depth", "rate"} {
			if cmd.Flags().Changed(name) {
				b.workloads = []string{string(bench.Echo)}
			}
		}
	}
	for _, name := range b.workloads {
		w, err := b.workload(name, cmd.Flags().Changed("rate"))
		if err != nil {
			return p, err
		}
		if w, err = w.WithDefaults(); err != nil {
			return p, fmt.Errorf("--workload %s: %w", name, err)
		}
		if w.Rate > 0 && w.Depth > 1 {
			return p, fmt.Errorf("--workload %s: a rate sends by the clock, so there is no depth beside it; use one of them", name)
		}
		if slices.ContainsFunc(p.Workloads, func(o bench.Workload) bool { return o.String() == w.String() }) {
			return p, fmt.Errorf("--workload %s: %s is measured already; name it once", name, w)
		}
		p.Workloads = append(p.Workloads, w)
	}
	if len(b.workloads) == 0 {
		p.Workloads = defaults()
		switch {
		case b.ablate:
			p.Workloads = p.Workloads[:1]
		case b.quick:
			p.Workloads = []bench.Workload{p.Workloads[0], p.Workloads[2], p.Workloads[3]}
		}
	}
	for _, name := range p.Candidates {
		if left := p.Unserved(name); len(left) == len(p.Workloads) {
			return p, fmt.Errorf("%s does not serve %s; leave it out, or measure what it does serve, such as echo", name, listed(left))
		}
	}
	return p, nil
}

// listed is workloads in a sentence.
func listed(workloads []bench.Workload) string {
	var all []string
	for _, w := range workloads {
		all = append(all, w.String())
	}
	return strings.Join(all, "; ")
}

// workload is what one value of --workload stands for, with what the flags say. A
// file that is there wins over a name, as a poem's does.
func (b *benchmark) workload(name string, rated bool) (bench.Workload, error) {
	info, err := os.Stat(name)
	known := slices.Contains(kinds(), name)
	if err == nil && !(known && info.IsDir()) {
		w, err := bench.ReadWorkload(name)
		if err != nil {
			return w, fmt.Errorf("--workload: %w", err)
		}
		w.Size = b.size
		if b.connections > 0 {
			w.Connections = b.connections
		}
		if b.depth > 0 {
			w.Depth = b.depth
		}
		if rated {
			w.Rate = float64(b.rate)
		}
		return w, nil
	}
	if !known {
		return bench.Workload{}, fmt.Errorf("--workload %q is no file and no workload; want a file or one of %s", name, names(kinds()))
	}
	w := bench.Workload{Kind: bench.Kind(name), Connections: b.connections, Size: b.size, Depth: b.depth, Rate: float64(b.rate)}
	if w.Kind == bench.Stream && b.size > 0 {
		return w, errors.New("--workload stream: size does not go with it, whose bytes are no messages; leave --size out")
	}
	if w.Kind == bench.Poems && w.Connections == 0 {
		w.Connections = 1000
	}
	return w, nil
}

func (b *benchmark) run(cmd *cobra.Command) error {
	p, err := b.plan(cmd)
	if err != nil {
		return err
	}
	var result *bench.Result
	files, err := openOutfiles(
		outfile{flag: "json", path: b.json, write: func(w io.Writer) error { return result.WriteJSON(w) }},
		outfile{flag: "html", path: b.html, write: func(w io.Writer) error { return result.WriteHTML(w) }},
	)
	if err != nil {
		return err
	}
	defer files.close()
	ctx, stop := b.interruptible()
	defer stop()
	takes, most, samples := b.limit(&p)
	if b.remote != "" {
		if p.Remote, err = b.dial(ctx); err != nil {
			return err
		}
		defer p.Remote.Close()
	}
	if err := p.Check(); err != nil { // it depends on the agent, too
		return err
	}
	if err := needs(p); err != nil {
		return failure{err}
	}
	var refused error // who was asked for and is not to be had
	show := b.progress(p.Baseline)
	plans := b.course(p)
	plans[0].Ready = func(missing []bench.Skipped) error {
		if len(missing) > 0 {
			refused = fmt.Errorf("%s cannot be measured: %s; or leave it out", missing[0].Candidate, oneLine(missing[0].Why))
			return refused
		}
		b.until = time.Now().Add(most - lastRound)
		if !b.quiet {
			fmt.Fprintf(b.stderr, "couplet: %s, which should take about %s, and at most %s\n", plural(samples, "sample"), roundly(takes), roundly(most))
			for _, name := range p.Candidates {
				if left := p.Unserved(name); len(left) > 0 {
					fmt.Fprintf(b.stderr, "couplet: %s is left out of what it does not serve: %s\n", name, listed(left))
				}
			}
		}
		return nil
	}
	result, err = show.run(ctx, plans[0], plans[1:])
	if err == nil && len(plans) > 1 {
		err = b.saturate(ctx, p, result, show)
	}
	show.end()
	switch {
	case refused != nil:
		return refused
	case result == nil:
		return failure{err}
	}
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !result.Partial {
		return failure{err}
	}
	if !measured(result, "") {
		return b.nothing(result, err)
	}
	told := b.stderr
	if b.quiet {
		told = io.Discard
	}
	if err := errors.Join(files.write(told), b.report(result, p)); err != nil {
		return failure{err}
	}
	for _, name := range p.Candidates {
		if err == nil && len(result.Errors()) == 0 && !measured(result, name) {
			return failure{fmt.Errorf("%s could not be measured; why is said above", name)}
		}
	}
	switch {
	case interrupted:
		return failure{errors.New("interrupted: what was measured until then is partial")}
	case err != nil:
		return failure{fmt.Errorf("%w; what was measured until then is partial", err)}
	case len(result.Errors()) > 0:
		return failure{fmt.Errorf("there were errors: %v; these samples took no part", result.Errors())}
	}
	return nil
}

// measured reports whether r has a good sample of a candidate; "" is any.
func measured(r *bench.Result, candidate string) bool {
	return slices.ContainsFunc(r.Samples, func(s bench.Sample) bool {
		return (candidate == "" || s.Candidate == candidate) && len(s.Errors) == 0
	})
}

// nothing is the end of a run without a good sample, which err ended if it is not nil:
// what an earlier run wrote is worth more.
func (b *benchmark) nothing(r *bench.Result, err error) error {
	b.skipped(r)
	for _, path := range []string{b.json, b.html} {
		if path != "" {
			fmt.Fprintf(b.stderr, "couplet: %s left as it was\n", path)
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return failure{errors.New("interrupted before anything was measured")}
	case err != nil:
		return failure{fmt.Errorf("%w; nothing was measured", err)}
	case len(r.Errors()) > 0:
		return failure{fmt.Errorf("there were errors in every sample: %v; nothing was measured", r.Errors())}
	}
	return failure{errors.New("nothing could be measured; why is said above")}
}

// A progress is where the measurement tells how far it is: a table on a terminal,
// a line per sample elsewhere.
type progress struct {
	lines io.Writer
	table *liveTable // or nil
}

func (b *benchmark) progress(baseline string) progress {
	switch {
	case b.quiet:
		return progress{lines: io.Discard}
	case !isLive(b.stderr):
		return progress{lines: b.stderr}
	}
	return progress{lines: io.Discard, table: newLiveTable(newScreen(b.stderr), baseline)}
}

// run measures p, after which others come.
func (show progress) run(ctx context.Context, p bench.Plan, others []bench.Plan) (*bench.Result, error) {
	if show.table != nil {
		show.table.plan(&p, others)
	}
	return p.Run(ctx, show.lines)
}

func (show progress) end() {
	if show.table != nil {
		show.table.end()
	}
}

// report writes the table, the verdict and the control.
func (b *benchmark) report(r *bench.Result, p bench.Plan) error {
	if err := r.WriteTable(b.stdout); err != nil {
		return err
	}
	b.skipped(r)
	fmt.Fprintln(b.stdout)
	if err := r.WriteFixedRates(b.stdout); err != nil {
		return err
	}
	if b.control {
		fmt.Fprintln(b.stdout, r.Control(p.Candidates[0], p.Candidates[0]+"/2"))
	}
	fmt.Fprintln(b.stdout, r.Verdict(p.Candidates[0], p.Candidates[1]))
	return nil
}

// skipped tells what was not measured, and why.
func (b *benchmark) skipped(r *bench.Result) {
	for _, s := range r.Skipped {
		what := s.Workload
		if what == "" {
			what = "every workload"
		}
		fmt.Fprintf(b.stderr, "couplet: %s was not measured on %s: %s\n", s.Candidate, what, oneLine(s.Why))
	}
}
