package bench

import (
	"maps"
	"math"
	"slices"
)

// A curveView is the saturation of one shape: what was offered, and what became
// of it.
type curveView struct {
	Name string
	// Plot is the place in pageData.Curves.
	Plot       int
	Candidates []kneeRow
	Rates      []rateRow
}

type kneeRow struct {
	Name string
	Hue  int
	// Knee is the last rate that was kept up with, P99 the latency at it; where
	// not even Lowest was, Found is false. Again is a higher one that was kept up
	// with after one that was not, or 0.
	Found     bool
	Knee, P99 float64
	Lowest    float64
	Again     float64
}

type rateRow struct {
	Target float64
	Points []curvePoint
}

// A curvePoint is the medians of one candidate at one offered rate; NaN where it
// has no good sample.
type curvePoint struct {
	Target, Rate, P99 float64
	ClientBound       bool
	Knee              bool
}

// curveData is what the page's script draws of a curveView: for every candidate a
// list as long as Targets.
type curveData struct {
	Candidates []int      `json:"candidates"`
	Targets    []float64  `json:"targets"`
	Rates      [][]number `json:"rates"`
	P99        [][]number `json:"p99"`
	Knees      []number   `json:"knees"`
}

// achieved is what part of an offered rate must be achieved for it to be kept up with.
const achieved = .95

// knee is the last offered rate before the first that was not kept up with, or NaN:
// of a rate that is, at least 95 % was achieved with a p99 of not more than 10 times
// that at the lowest rate. The points must be in order of their rates. Where a higher
// one was kept up with again, which is chance or a disturbance, again is the highest
// of these, and else 0.
func knee(points []curvePoint) (found, again float64) {
	found = math.NaN()
	first, behind := math.NaN(), false
	for _, p := range points {
		if math.IsNaN(p.Rate) {
			continue
		}
		if math.IsNaN(first) {
			first = p.P99
		}
		switch keptUp := p.Rate >= achieved*p.Target && p.P99 <= 10*first; {
		case !keptUp:
			behind = true
		case behind:
			again = p.Target
		default:
			found = p.Target
		}
	}
	return found, again
}

// curves are the saturation curves of every shape that was measured in an open
// loop, in the order of the plan.
func (r *Result) curves(candidates []string) (views []curveView, data []curveData) {
	type key struct {
		shape, candidate string
		target           float64
	}
	samples := map[key][]Sample{}
	targets := map[string]map[float64]bool{}
	var shapes []string
	for _, w := range r.Workloads {
		shape := w.String()
		if w.Rate > 0 {
			shape = w.shape()
		}
		for _, c := range candidates {
			for _, s := range r.Of(w.String(), c) {
				if s.Target <= 0 {
					continue
				}
				if targets[shape] == nil {
					targets[shape] = map[float64]bool{}
					shapes = append(shapes, shape)
				}
				targets[shape][s.Target] = true
				k := key{shape, c, s.Target}
				samples[k] = append(samples[k], s)
			}
		}
	}
	for _, shape := range shapes {
		v := curveView{Name: shape, Plot: len(data)}
		d := curveData{Targets: slices.Sorted(maps.Keys(targets[shape]))}
		for _, target := range d.Targets {
			v.Rates = append(v.Rates, rateRow{Target: target})
		}
		for i, c := range candidates {
			points := make([]curvePoint, len(d.Targets))
			measured := false
			for k, target := range d.Targets {
				points[k] = pointOf(target, samples[key{shape, c, target}])
				measured = measured || !math.IsNaN(points[k].Rate)
			}
			if !measured {
				continue
			}
			row := kneeRow{Name: c, Hue: hue(i), P99: math.NaN(), Lowest: d.Targets[0]}
			row.Knee, row.Again = knee(points)
			row.Found = !math.IsNaN(row.Knee)
			var rates, p99 []number
			for k := range points {
				p := &points[k]
				if p.Target == row.Knee {
					p.Knee, row.P99 = true, p.P99
				}
				rates, p99 = append(rates, number(p.Rate)), append(p99, number(p.P99))
				v.Rates[k].Points = append(v.Rates[k].Points, *p)
			}
			v.Candidates = append(v.Candidates, row)
			d.Candidates = append(d.Candidates, i)
			d.Rates, d.P99, d.Knees = append(d.Rates, rates), append(d.P99, p99), append(d.Knees, number(row.Knee))
		}
		views, data = append(views, v), append(data, d)
	}
	return views, data
}

func pointOf(target float64, samples []Sample) curvePoint {
	var rates, p99 []float64
	for _, s := range samples {
		rates, p99 = append(rates, s.Rate()), append(p99, s.P99US)
	}
	return curvePoint{Target: target, Rate: Median(rates), P99: Median(p99), ClientBound: mostly(samples, Sample.clientBound)}
}
