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

// sliceTakes is about for how long a candidate is measured before it is the next one's
// turn, where they take turns: short beside what a machine's speed drifts in. Each begins
// with sliceLead, which is not counted.
const (
	sliceTakes = 50 * time.Millisecond
	sliceLead  = 10 * time.Millisecond
)

// sliced reports whether so many candidates are measured on w in slices. An echo lends
// itself to that: its connections wait until their next message is sent. All of them must be
// had at once, and an agent runs one server at a time.
func (p Plan) sliced(w Workload, candidates int) bool {
	var files unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	return candidates > 1 && (w.Kind == Echo || w.Kind == Mixed) && w.Rate == 0 && p.Remote == nil &&
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

// slicesOf is in how many slices a sample is taken that counts for d.
func slicesOf(d time.Duration) int { return max(1, int((d+sliceTakes/2)/sliceTakes)) }

// perServer is how many descriptors the generator needs for a server beside the
// connections, and some to spare.
const perServer = 16

// A taken is what came of a sample. engine is how the server describes itself.
type taken struct {
	sample Sample
	engine string
	err    error
}

// samples takes a sample of each of group on w, each with a server process of its own,
// which may have the kernel count its system calls. All of the servers are up at once, and
// take turns until each was measured for as long as a sample takes. What it returns when
// ctx has ended are no samples.
func (p Plan) samples(ctx context.Context, at site, w Workload, group []Candidate, count bool) []taken {
	for retry := 0; ; retry++ {
		all := p.take(ctx, at, w, group, count)
		worst := -1
		for i := range all {
			s := &all[i].sample
			s.Retries = retry
			if all[i].err != nil || len(s.Errors) > 0 {
				return all // what went wrong is not to be forgotten
			}
			if s.disturbed() && (worst < 0 || s.othersMost() > all[worst].sample.othersMost()) {
				worst = i
			}
		}
		if ctx.Err() != nil || worst < 0 || w.Kind == Idle || retry == p.Retries {
			return all
		}
		quiet := func(limit time.Duration) {
			fmt.Fprintf(p.progress, "%-32s waiting  %-10s others used %.0f %% of a CPU; %s measured again when the machine is quiet, or in %.0f s\n",
				w, group[worst].Name, 100*all[worst].sample.othersMost(), them(len(group)), limit.Seconds())
			at.awaitQuiet(ctx, limit)
		}
		if !p.spare.await(time.Duration(len(group))*p.SampleTakes(w), quiet) {
			return all
		}
	}
}

// them is the subject of what is done to n candidates.
func them(n int) string {
	if n == 1 {
		return "it is"
	}
	return "the round is"
}

// take is samples without those that are taken again.
func (p Plan) take(ctx context.Context, at site, w Workload, group []Candidate, count bool) []taken {
	runtime.LockOSThread() // which the generators have for themselves
	defer runtime.UnlockOSThread()
	warm, duration := p.times(w)
	runs := make([]run, len(group))
	for i, c := range group {
		runs[i].begin(ctx, at, w, c, count, len(group) > 1, warm)
	}
	n, lead := 1, time.Duration(0)
	if len(group) > 1 {
		n, lead = slicesOf(duration), sliceLead
	}
	for k := range n {
		for i := range runs {
			if k%2 == 1 { // there and back, as the rounds are
				i = len(runs) - 1 - i
			}
			runs[i].slice(lead, duration/time.Duration(n))
		}
	}
	all := make([]taken, len(group))
	for i := range runs {
		s, err := runs[i].end(w, group[i], duration)
		all[i] = taken{s, runs[i].engine(), err}
		if len(group) > 1 {
			all[i].sample.Slices = n
		}
	}
	return all
}

// A run is a server under load. What goes wrong ends it.
type run struct {
	server subject
	load   *generator
	err    error
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
		r.load.used = server.used
	}
	r.err = r.load.prepare(warm)
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

func (r *run) engine() string {
	if r.server == nil {
		return ""
	}
	return r.server.engine()
}
