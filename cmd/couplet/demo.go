package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// part is one of the demo's poems: real poetry, cut to the bytes of the
// tutorial's three poems.
type part struct {
	title string
	text  []byte
	bytes int // at a time
}

// parts are the tutorial's experiment: at 0.1 s a send they take 10.1, 6.3 and
// 6.6 s, 23 s together.
func parts() []part {
	cut := func(name string, size, bytes int) part {
		p, _ := poetry.Find(name)
		return part{p.Title, []byte(p.Text[:size]), bytes}
	}
	return []part{cut("the-raven", 3003, 30), cut("sonnet-18", 623, 10), cut("the-tyger", 653, 10)}
}

// The delay between sends, and that of --fast, which makes it 0.5 and 1.2 s.
const (
	tutorialDelay = 100 * time.Millisecond
	fastDelay     = 5 * time.Millisecond
)

func newDemo(c *common) *cobra.Command {
	d := &demo{common: c, parts: parts()}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Fetch three slow poems on each engine, at once and one by one, and compare",
		Long: `The tutorial's experiment, on each engine of this build that works here (or on the
one that --engine names), beside each other: three slow poem servers and a client
on one loop, fetched all at once, then one by one. It takes about 34 seconds.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return d.run() },
	}
	cmd.Flags().BoolVar(&d.fast, "fast", false, "twenty times as fast, for scripts")
	cmd.Flags().BoolVar(&d.asJSON, "json", false, "print the outcome as JSON on standard output, and nothing else there")
	return cmd
}

type demo struct {
	*common
	fast   bool
	asJSON bool
	parts  []part
}

// The two ways of fetching.
const (
	allAtOnce = "all at once"
	oneByOne  = "one by one"
)

// demoOutcome is what happened on one engine. Its JSON form is that of --json. Where
// the demo was interrupted OneByOne may be missing.
type demoOutcome struct {
	Engine    string  `json:"engine"`
	Describe  string  `json:"description"`
	AllAtOnce demoWay `json:"all_at_once"`
	OneByOne  demoWay `json:"one_by_one,omitzero"`
}

// demoWay is what one way of fetching took, servers and client together.
type demoWay struct {
	Seconds   float64 `json:"seconds"`
	Poems     int     `json:"poems"`
	Bytes     int64   `json:"bytes"`
	Crossings int64   `json:"crossings"`
	Sleeps    int64   `json:"sleeps"`
	// Switches is how often the bytes that arrived came from another poem than
	// those before: the proof that poems come at once, which time is not.
	Switches int `json:"switches"`
	// CPU is the loop's thread's, if the engine has one.
	CPU *float64 `json:"cpu_seconds"`
}

func (d *demo) run() error {
	chosen := engines.Names()
	if d.engine != engines.Auto {
		chosen = []string{d.engine}
	}
	ctx, stop := d.interruptible()
	defer stop()
	log, lines := d.logger()
	defer lines.end()
	var running []couplet.Engine
	defer func() {
		for _, e := range running {
			e.Shutdown(context.Background())
		}
	}()
	for _, name := range chosen {
		e, err := engines.Open(name, couplet.Config{Logger: log})
		if err == nil {
			running = append(running, e)
			continue
		}
		if len(chosen) == 1 {
			return failure{fmt.Errorf("--engine=%s cannot run here: %w", name, advised(err, "--engine=epoll"))}
		}
		fmt.Fprintf(d.stderr, "couplet: %s: left out: %s; see couplet doctor\n", name, oneLine(err.Error()))
	}
	outcomes, err := d.compare(ctx, running)
	if ctx.Err() != nil {
		return d.interrupted(outcomes)
	}
	if err != nil {
		return failure{err}
	}
	if d.asJSON {
		return d.json(outcomes, false)
	}
	d.table(outcomes)
	return nil
}

// json writes outcomes as --json asks for.
func (d *demo) json(outcomes []demoOutcome, partial bool) error {
	return writeJSON(d.stdout, struct {
		Fast    bool          `json:"fast"`
		Partial bool          `json:"partial,omitempty"`
		Engines []demoOutcome `json:"engines"`
	}{d.fast, partial, outcomes})
}

// interrupted writes what was finished.
func (d *demo) interrupted(outcomes []demoOutcome) error {
	finished := slices.DeleteFunc(outcomes, func(o demoOutcome) bool { return o.AllAtOnce.Poems == 0 })
	if d.asJSON && len(finished) > 0 {
		if err := d.json(finished, true); err != nil {
			return err
		}
	}
	return failure{errInterrupted}
}

// compare runs the experiment on all engines at the same time, but no two of them have
// their ticks at the same moment: the one that wakes the CPU would pay for the others.
func (d *demo) compare(ctx context.Context, running []couplet.Engine) ([]demoOutcome, error) {
	lines := d.stdout
	if d.asJSON || d.quiet {
		lines = io.Discard
	}
	s := newStage(lines, d.parts, running)
	r := newRelay()
	outcomes, errs := make([]demoOutcome, len(running)), make([]error, len(running))
	var all sync.WaitGroup
	for i, e := range running {
		all.Go(func() {
			select {
			case <-time.After(d.delay() * time.Duration(i) / time.Duration(len(running))):
				outcomes[i], errs[i] = d.experiment(ctx, e, i, r, s)
			case <-ctx.Done():
				errs[i] = ctx.Err()
			}
		})
	}
	go func() {
		all.Wait()
		r.close()
	}()
	r.run()
	s.end()
	return outcomes, errors.Join(errs...)
}

// delay is the time between two pieces of a poem.
func (d *demo) delay() time.Duration {
	if d.fast {
		return fastDelay
	}
	return tutorialDelay
}

// experiment is the tutorial's, on e, the i-th engine.
func (d *demo) experiment(ctx context.Context, e couplet.Engine, i int, r *relay, s *stage) (demoOutcome, error) {
	var addrs []poetry.Addr
	for _, p := range d.parts {
		server, err := poetry.NewServer(p.text, poetry.Pace{NumBytes: p.bytes, Delay: d.delay()})
		if err != nil {
			return demoOutcome{}, err
		}
		l, err := e.Listen("tcp", "127.0.0.1:0", server)
		if err != nil {
			return demoOutcome{}, fmt.Errorf("%s: %w", e.Name(), err)
		}
		defer l.Close()
		addrs = append(addrs, poetry.AddrOf(l.Addr()))
	}
	way := func(name string, fetch func(context.Context, couplet.Engine, []poetry.Addr, poetry.FetchOptions) poetry.Report) (demoWay, error) {
		r.do(func() { s.begin(i, name) })
		before, cpuBefore, _ := d.measure(e)
		report := fetch(ctx, e, addrs, poetry.FetchOptions{
			Record: true,
			OnData: func(a poetry.Arrival) { r.do(func() { s.data(i, a) }) },
			OnDone: func(p poetry.Result) { r.do(func() { s.done(i, name, p) }) },
		})
		after, cpuAfter, haveCPU := d.measure(e)
		r.do(func() { s.finish(i, name, report) })
		if err := d.check(e, report); err != nil {
			return demoWay{}, err
		}
		w := demoWay{
			Seconds: report.Elapsed.Seconds(), Poems: report.Got(), Bytes: int64(report.Bytes()),
			Crossings: after.Crossings - before.Crossings, Sleeps: after.Sleeps - before.Sleeps,
			Switches: switches(report.Arrivals),
		}
		if haveCPU {
			cpu := (cpuAfter - cpuBefore).Seconds()
			w.CPU = &cpu
		}
		return w, nil
	}
	o := demoOutcome{Engine: e.Name(), Describe: strings.TrimSuffix(e.Describe(), " (asked for)")}
	var err error
	if o.AllAtOnce, err = way(allAtOnce, poetry.FetchAll); err == nil {
		o.OneByOne, err = way(oneByOne, poetry.FetchEach)
	}
	return o, err
}

// measure reads the engine's counters and its loop's CPU time, on the loop, so
// that both are of the same moment.
func (d *demo) measure(e couplet.Engine) (stats couplet.Stats, cpu time.Duration, have bool) {
	done := make(chan struct{})
	ok := e.Loops()[0].Post(func() {
		if e.Name() != engines.Goroutine { // whose loop is no thread
			cpu, have = threadCPU()
		}
		close(done)
	})
	if ok {
		select {
		case <-done:
		case <-e.Done():
		}
	}
	return e.Stats(), cpu, have
}

// check compares what came with what was sent.
func (d *demo) check(e couplet.Engine, r poetry.Report) error {
	for i, p := range r.Results {
		if p.Err != nil {
			return fmt.Errorf("%s: %s: %w", e.Name(), d.parts[i].title, p.Err)
		}
		if !bytes.Equal(p.Poem, d.parts[i].text) {
			return fmt.Errorf("%s: %s came back changed", e.Name(), d.parts[i].title)
		}
	}
	return nil
}

// switches counts the arrivals of another poem than the one before.
func switches(arrivals []poetry.Arrival) int {
	n := 0
	for i := 1; i < len(arrivals); i++ {
		if arrivals[i].Task != arrivals[i-1].Task {
			n++
		}
	}
	return n
}
