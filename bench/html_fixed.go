package bench

import (
	"cmp"
	"math"
	"slices"
)

// A fixedView is a fixedRate with the place of its chart in pageData, or -1.
type fixedView struct {
	fixedRate
	Shape string
	Plot  int
}

// An overloadView is an overload with the place of its chart in pageData, or -1.
type overloadView struct {
	overload
	Shape    string
	Recovery int
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
		v := fixedView{fixedRate: f, Shape: f.Load.shape(), Plot: -1}
		for _, w := range p.Workloads {
			if w.Name == f.Workload {
				v.Plot = w.Plot
			}
		}
		views = append(views, v)
	}
	return views
}

// overloadViews are the overloads of the page p.
func (r *Result) overloadViews(p *page) []overloadView {
	var views []overloadView
	for _, o := range r.overloads() {
		v := overloadView{overload: o, Shape: o.Load.shape(), Recovery: -1}
		if d := r.recoveryData(p, o); len(d.MS) > 0 {
			v.Recovery = len(p.Data.Recoveries)
			p.Data.Recoveries = append(p.Data.Recoveries, d)
		}
		views = append(views, v)
	}
	return views
}

// recoveryData has no steps where the surge of no candidate has any. A median over
// the rounds in every step would follow fewer and fewer of them, the slowest, as the
// others are back.
func (r *Result) recoveryData(p *page, o overload) (d recoveryData) {
	var step, surge float64
	for _, side := range o.Sides {
		var all []*Recovery
		for _, s := range r.Of(o.Workload, side.Name) {
			if v := s.surge(); v != nil && v.StepMS > 0 {
				all = append(all, v)
			}
		}
		if len(all) == 0 {
			continue
		}
		slices.SortStableFunc(all, func(a, b *Recovery) int { return cmp.Compare(a.afterMS(), b.afterMS()) })
		one := all[len(all)/2]
		step, surge = one.StepMS, one.SurgeMS
		var us []number
		for _, v := range one.P99US {
			us = append(us, number(v))
		}
		d.Candidates = append(d.Candidates, max(0, slices.Index(p.Candidates, side.Name)))
		d.US, d.Steady = append(d.US, us), append(d.Steady, number(one.SteadyUS))
	}
	steps := 0
	for _, us := range d.US {
		steps = max(steps, len(us))
	}
	before := math.Round(surge / step)
	for k := range steps {
		d.MS = append(d.MS, number((float64(k)-before)*step))
	}
	for i, us := range d.US {
		d.US[i] = append(us, make([]number, steps-len(us))...) // 0 is not drawn
	}
	return d
}
