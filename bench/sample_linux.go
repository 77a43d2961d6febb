package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// slicesOf is in how many slices a sample of w is taken that counts for d, and how long each
// of them counts, which is short beside what a machine's speed drifts in, and long beside what
// it takes to let all connections begin and to have everything back. Each begins with a
// fifth of that, which is not counted.
func slicesOf(w Workload, d time.Duration) (n int, slice, lead time.Duration) {
	slice = 50 * time.Millisecond
	if many := time.Duration(w.Connections) * 250 * time.Microsecond; many > slice {
		slice = many
	}
	n = max(1, int((d+slice/2)/slice))
	slice = d / time.Duration(n)
	return n, slice, slice / 5
}

// sliced reports whether so many candidates are measured on w in slices. An echo lends
// itself to that: its connections wait until their next message is sent. All of them must be
// had at once, and an agent runs one server at a time.
func (p Plan) sliced(w Workload, candidates int) bool {
	_, duration := p.times(w)
	n, _, _ := slicesOf(w, duration)
	var files unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	return candidates > 1 && n > 1 && (w.Kind == Echo || w.Kind == Mixed) && w.Rate == 0 && p.Remote == nil &&
		uint64(candidates*(w.Connections+perServer)) < files.Cur
}

// together are those of able, each of which serves w, that are measured together, group by
// group: all in slices, or each by itself.
func (p Plan) together(w Workload, able []Candidate) [][]Candidate {
	if p.sliced(w, len(able)) {
		return [][]Candidate{able}
	}
	return slices.Collect(slices.Chunk(able, 1))
}

// perServer is how many descriptors the generator needs for a server beside the
// connections, and some to spare.
const perServer = 16

// A taken is what came of a sample. engine is how the server describes itself, which
// served, or never did.
type taken struct {
	sample Sample
	engine string
	served bool
	err    error
}

// wrong reports whether something went wrong with a server that served.
func (t taken) wrong() bool { return t.served && (t.err != nil || len(t.sample.Errors) > 0) }

// samples takes a sample of each of group on w, each with a server process of its own,
// which may have the kernel count its system calls. All of the servers are up at once, and
// take turns until each was measured for as long as a sample takes. What it returns when
// ctx has ended are no samples.
func (p Plan) samples(ctx context.Context, at site, w Workload, group []Candidate, count bool) []taken {
	for retry := 0; ; retry++ {
		all := p.take(ctx, at, w, group, count)
		worst := 0
		for i := range all {
			all[i].sample.Retries = retry
			if all[i].sample.othersMost() > all[worst].sample.othersMost() {
				worst = i
			}
		}
		s := &all[worst].sample
		// What went wrong is not to be forgotten.
		if !s.disturbed() || w.Kind == Idle || slices.ContainsFunc(all, taken.wrong) || ctx.Err() != nil || retry == p.Retries {
			return all
		}
		quiet := func(limit time.Duration) {
			who, they := group[worst].Name, "it is"
			if len(group) > 1 {
				who, they = "all", "they are"
			}
			fmt.Fprintf(p.progress, "%-32s waiting  %-10s others used %.0f %% of a CPU; %s measured again when the machine is quiet, or in %.0f s\n",
				w, who, 100*s.othersMost(), they, limit.Seconds())
			at.awaitQuiet(ctx, limit)
		}
		if !p.spare.await(time.Duration(len(group))*p.SampleTakes(w), quiet) {
			return all
		}
	}
}

// take is samples without those that are taken again.
func (p Plan) take(ctx context.Context, at site, w Workload, group []Candidate, count bool) []taken {
	runtime.LockOSThread() // which the generators have for themselves
	defer runtime.UnlockOSThread()
	warm, duration := p.times(w)
	sliced := len(group) > 1
	n, slice, lead := 1, duration, time.Duration(0)
	if sliced {
		n, slice, lead = slicesOf(w, duration)
	}
	runs := make([]run, len(group))
	for i, c := range group {
		runs[i].begin(ctx, at, w, c, count, sliced, warm)
	}
	began, mine, busy := time.Now(), cpuTime(), busyTime()
	for k := range n {
		for i := range runs {
			runs[(i+k)%len(runs)].slice(lead, slice) // so that nobody of three has two in a row
		}
	}
	others := busyTime() - busy - (cpuTime() - mine)
	for _, r := range runs {
		others -= int64(r.used - r.unused)
	}
	share := max(0, float64(others)/float64(time.Since(began)))
	all := make([]taken, len(group))
	for i := range runs {
		s, err := runs[i].end(w, group[i], duration)
		all[i] = taken{sample: s, err: err, served: runs[i].server != nil}
		if all[i].served {
			all[i].engine = runs[i].server.engine()
		}
		if sliced {
			all[i].sample.Slices, all[i].sample.Others = n, share
		}
	}
	return all
}

// A run is a server under load. What goes wrong ends it. Where it is measured in slices, it had
// used so much CPU time before them, and later.
type run struct {
	server       subject
	load         *generator
	unused, used time.Duration
	err          error
}

// begin starts the server, which may be measured in slices, and has it warm up.
func (r *run) begin(ctx context.Context, at site, w Workload, c Candidate, count, sliced bool, warm time.Duration) {
	if r.server, r.err = at.start(ctx, c, w, count); r.err != nil {
		return
	}
	line := "report"
	if w.Kind == Idle {
		line = "gc"
	}
	server := r.server
	if r.load, r.err = newGenerator(ctx, w, server.address(), func() (Report, error) { return server.ask(line) }); r.err != nil {
		return
	}
	if sliced {
		r.load.used = func() (t time.Duration, err error) {
			t, err = server.used()
			if err == nil {
				r.used = t
			}
			return t, err
		}
	}
	if r.err = r.load.prepare(warm); r.err == nil {
		r.unused, r.err = r.load.serverCPU()
	}
}

func (r *run) slice(lead, d time.Duration) {
	if r.err == nil {
		r.err = r.load.slice(lead, d)
	}
}

// end stops the server, and gives the sample.
func (r *run) end(w Workload, c Candidate, duration time.Duration) (Sample, error) {
	if r.server == nil {
		return Sample{}, r.err
	}
	var f Figures
	if r.err == nil {
		f, r.err = r.load.finish(duration)
	}
	if r.load != nil {
		r.load.shut()
	}
	// What was measured while the site was lost is no sample, whatever came of it.
	if err := r.server.stop(); err != nil {
		return Sample{}, err
	}
	if r.err != nil {
		return Sample{}, fmt.Errorf("%w%s", r.err, r.server.said())
	}
	s := sample(w, c.Name, f)
	if strings.HasPrefix(c.Name, "goroutine") {
		s.Crossings, s.Batch, s.Batches = 0, 0, nil // its waits are the Go runtime's, and nobody counts them
	}
	return s, nil
}
