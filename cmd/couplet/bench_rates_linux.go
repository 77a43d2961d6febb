package main

import (
	"context"
	"math"
	"time"

	"couplet/bench"
)

// What a run may take: the time that the defaults are chosen for. It is kept by
// construction: what samples are taken again for has the half of what the plans
// leave of it, and no round is begun when it is nearly over. A run that was asked
// for so much that this leaves it no quarter, or begins its last round too late, has half
// as long again as it should take, or a quarter until that round. The time counts from
// the first sample on: to build the peers takes what it takes.
const (
	runLimit   = 10 * time.Minute
	quickLimit = time.Minute
	lastRound  = 20 * time.Second // for the round that is under way, and the report
)

// course is all plans of a run, one after the other. The first is p; the rates of
// the others are known when it is over, and what they take does not depend on
// them.
func (b *benchmark) course(p bench.Plan) []bench.Plan {
	plans := []bench.Plan{p}
	if len(b.workloads) == 0 && !b.quick && !b.ablate {
		plans = append(plans, sweep(p, p.Workloads[0], 1e5), atKnee(p, p.Workloads[0], 1e5))
	}
	return plans
}

// limit gives p its share of the time that a run may take, and returns what the
// run should take, and at most.
func (b *benchmark) limit(p *bench.Plan) (takes, most time.Duration, samples int) {
	var begins time.Duration // the last round
	for _, plan := range b.course(*p) {
		t, n := plan.Takes()
		takes, samples = takes+t, samples+n
		plan.Workloads, plan.Rounds, plan.Audit = plan.Workloads[len(plan.Workloads)-1:], 1, false
		round, _ := plan.Takes()
		begins = takes - round
	}
	most = runLimit
	if b.quick {
		most = quickLimit
	}
	if max(takes+takes/4, begins+lastRound) > most {
		most = max(takes+takes/2, begins+takes/4+lastRound)
	}
	p.Spare = max(0, most-lastRound-takes) / 2
	p.Late = func() bool { return !b.until.IsZero() && time.Now().After(b.until) }
	return takes, most, samples
}

// after is p with what r left of the time for samples that are taken again.
func after(p bench.Plan, r *bench.Result) bench.Plan {
	if p.Spare -= r.Manifest.Again; p.Spare <= 0 {
		p.Retries = 0
	}
	return p
}

// sweep is the pair of the verdict at fixed rates, from a tenth to twice of what
// the slower of them does in a closed loop.
func sweep(p bench.Plan, w bench.Workload, rate float64) bench.Plan {
	p.Workloads, p.Rounds, p.Candidates, p.Audit = nil, 3, p.Candidates[:2], false
	for _, share := range []float64{.1, .25, .5, .65, .8, .9, 1, 1.2, 2} {
		at := w
		at.Rate = math.Round(share*rate/100) * 100
		if n := len(p.Workloads); at.Rate > 0 && (n == 0 || p.Workloads[n-1].Rate < at.Rate) {
			p.Workloads = append(p.Workloads, at)
		}
	}
	return p
}

// atKnee is the pair at 50 % and 80 % of the knee. From 50 %, which leaves it
// something to recover with, go surges of 1.2 times the knee and of twice the knee.
func atKnee(p bench.Plan, w bench.Workload, knee float64) bench.Plan {
	p.Workloads, p.Candidates, p.Audit = nil, p.Candidates[:2], false
	for _, part := range []struct{ share, surge float64 }{{.5, 1.2}, {.5, 2}, {.8, 0}} {
		at := w
		at.Share, at.Rate, at.Surge = part.share, math.Round(part.share*knee), math.Round(part.surge*knee)
		p.Workloads = append(p.Workloads, at)
	}
	return p
}

// saturate measures the pair of the verdict at fixed rates until the knee of the
// slower one is known, and then at parts of it.
func (b *benchmark) saturate(ctx context.Context, p bench.Plan, r *bench.Result, show progress) error {
	w := p.Workloads[0]
	if full, err := w.WithDefaults(); err == nil {
		w = full
	}
	first, second := p.Candidates[0], p.Candidates[1]
	rate := math.Inf(1)
	for _, name := range []string{first, second} {
		rate = min(rate, bench.Median(r.Values(w.String(), name, bench.Sample.Rate)))
	}
	if math.IsInf(rate, 1) || math.IsNaN(rate) {
		return nil
	}
	run := func(next bench.Plan, others ...bench.Plan) error {
		next = after(next, r)
		more, err := show.run(ctx, next, others)
		if more != nil {
			r.Append(more)
		}
		return err
	}
	if err := run(sweep(p, w, rate), atKnee(p, w, rate)); err != nil {
		return err
	}
	knee, _ := r.SlowerKnee(w, first, second)
	if math.IsNaN(knee) {
		r.Skipped = append(r.Skipped, bench.Skipped{
			Workload: "a part of the knee", Candidate: "the pair", Why: "one of the two was behind at the lowest rate already",
		})
		return nil
	}
	r.Knee = knee
	return run(atKnee(p, w, knee))
}
