package bench

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// A fixedView is a fixedRate with the places of its charts in pageData, or -1.
type fixedView struct {
	fixedRate
	Shape, SurgeText string
	Plot, Recovery   int
}

// recoveryData is one surge of each candidate, the one of its rounds in which it
// took the median time to come back: MS is the beginning of each step, from the
// drop on, and US a list as long as that per candidate. Steady is the p99 before
// the surge.
type recoveryData struct {
	Candidates []int      `json:"candidates"`
	MS         []number   `json:"ms"`
	US         [][]number `json:"us"`
	Steady     []number   `json:"steady"`
}

// fixedViews are the fixed rates of the page p, which has its workloads already.
func (r *Result) fixedViews(p *page) []fixedView {
	var views []fixedView
	for _, f := range r.fixedRates() {
		v := fixedView{fixedRate: f, Shape: f.Load.shape(), Plot: -1, Recovery: -1}
		for _, w := range p.Workloads {
			if w.Name == f.Workload {
				v.Plot = w.Plot
			}
		}
		if d, surge := r.recoveryData(p, f); surge > 0 {
			v.Recovery, v.SurgeText = len(p.Data.Recoveries), surge.String()
			p.Data.Recoveries = append(p.Data.Recoveries, d)
		}
		views = append(views, v)
	}
	return views
}

// recoveryData is empty, and the surge 0, where no candidate was measured with
// one. A median over the rounds in every step would follow fewer and fewer of
// them, the slowest, as the others are back.
func (r *Result) recoveryData(p *page, f fixedRate) (d recoveryData, surge time.Duration) {
	var step float64
	for _, side := range f.Sides {
		var all []*Recovery
		for _, s := range r.Of(f.Workload, side.Name) {
			if s.Recovery != nil && !s.Recovery.Held && s.Recovery.StepMS > 0 {
				all = append(all, s.Recovery)
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.SortStableFunc(all, func(a, b *Recovery) int { return cmp.Compare(a.afterMS(), b.afterMS()) })
		one := all[len(all)/2]
		step, surge = one.StepMS, time.Duration(one.SurgeMS*float64(time.Millisecond))
		var us []number
		for _, v := range one.P99US {
			us = append(us, number(v))
		}
		d.Candidates = append(d.Candidates, max(0, slices.Index(p.Candidates, side.Name)))
		d.US, d.Steady = append(d.US, us), append(d.Steady, number(one.SteadyUS))
	}
	if surge <= 0 {
		return d, 0
	}
	steps := 0
	for _, us := range d.US {
		steps = max(steps, len(us))
	}
	before := math.Round(float64(surge) / float64(time.Millisecond) / step)
	for k := range steps {
		d.MS = append(d.MS, number((float64(k)-before)*step))
	}
	for i, us := range d.US {
		d.US[i] = append(us, make([]number, steps-len(us))...) // 0 is not drawn
	}
	return d, surge.Round(time.Millisecond)
}
