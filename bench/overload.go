package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// An overload is what two candidates do with a surge from a part of the knee, with
// the Finding of the times to recover. These can be twice as long for the one by
// chance, and many of them are 0: there is a test of them, and no ratio.
type overload struct {
	Finding
	Load        Workload
	Share, From string // of the knee: the surge, and the rate before it
	Sides       []overloadSide
}

// An overloadSide is the medians of one candidate.
type overloadSide struct {
	Name string
	Hue  int
	// Part is what part of the surge was achieved. ClientBound says that in most
	// samples that may have been the generator's limit.
	Part        float64
	ClientBound bool
	// Steady and Peak are the p99 before the surge and at its worst in it, in
	// microseconds, and After the milliseconds until latency was back, infinite where
	// that did not happen in most samples. Back of Samples came back.
	Steady, Peak, After float64
	Back, Samples       int
	Unsent              int64
}

// PartText is Part for people.
func (s overloadSide) PartText() string { return percent(s.Part) }

// AfterText is After for people.
func (s overloadSide) AfterText() string { return afterText(s.After) }

// surge is the Recovery of s, or nil where it has none that counts.
func (s Sample) surge() *Recovery {
	if s.Recovery == nil || s.Recovery.Held {
		return nil
	}
	return s.Recovery
}

// backAfter is the milliseconds until latency was back, and NaN without a surge. What
// never happened is the greatest number: a test of ranks needs no more.
func (s Sample) backAfter() float64 {
	if v := s.surge(); v != nil {
		return min(v.afterMS(), math.MaxFloat64)
	}
	return math.NaN()
}

// overloads are the surges from a part of the knee, in the order of the plan.
func (r *Result) overloads() (all []overload) {
	a, b, ok := r.Pair()
	if !ok {
		return nil
	}
	names := r.candidates("")
	for _, w := range r.Workloads {
		if w.Surge == 0 || w.Share == 0 {
			continue
		}
		o := overload{Load: w, Share: percent(w.Surge * w.Share / w.Rate), From: percent(w.Share)}
		if o.Finding = r.finding(w, a, b, "time to recover", Sample.backAfter); o.Rounds == 0 {
			continue
		}
		for _, c := range []string{a, b} {
			side := overloadSide{Name: c, Hue: hue(max(0, slices.Index(names, c)))}
			var surges []*Recovery
			for _, s := range r.Of(o.Workload, c) {
				if v := s.surge(); v != nil {
					surges = append(surges, v)
					side.Unsent += s.unsent()
				}
			}
			median := func(f func(*Recovery) float64) float64 {
				var values []float64
				for _, v := range surges {
					values = append(values, f(v))
				}
				return Median(values)
			}
			side.Part = median((*Recovery).part)
			side.ClientBound = mostly(surges, (*Recovery).clientBound)
			side.Steady = median(func(v *Recovery) float64 { return v.SteadyUS })
			side.Peak = orNone(median(func(v *Recovery) float64 { return v.PeakUS }))
			side.After = median((*Recovery).afterMS)
			side.Samples = len(surges)
			for _, v := range surges {
				if v.Back {
					side.Back++
				}
			}
			o.Sides = append(o.Sides, side)
		}
		o.Winner = "" // that of the ratio, which says nothing where one never came back
		switch one, two := o.Sides[0].After, o.Sides[1].After; {
		case !(o.P < 0.05):
		case one < two:
			o.Winner = a
		case two < one:
			o.Winner = b
		}
		all = append(all, o)
	}
	return all
}

// Sentence says whether the times to recover differ.
func (o overload) Sentence() string {
	switch {
	case o.TooFew():
		return "too few rounds to tell"
	case o.Winner == "":
		return "no difference was shown"
	}
	return o.Winner + " is back sooner"
}

func (r *Result) writeOverloads(out io.Writer) error {
	for _, o := range r.overloads() {
		var during, after []string
		for _, s := range o.Sides {
			text := fmt.Sprintf("%s %s / %s", s.Name, s.PartText(), microsText(s.Peak))
			if s.ClientBound {
				text += " (client-bound)"
			}
			if s.Unsent > 0 {
				text += fmt.Sprintf(" (%s unsent)", plural(s.Unsent, "message"))
			}
			during = append(during, text)
			text = s.Name + " " + s.AfterText()
			if s.Back < s.Samples {
				text += fmt.Sprintf(" (%d of %s)", s.Back, plural(s.Samples, "time"))
			}
			after = append(after, text)
		}
		_, err := fmt.Fprintf(out, "In a surge to %s of it (%.0f/s), achieved / worst p99 in us: %s.\n%s\n",
			o.Share, o.Load.Surge, strings.Join(during, ", "), strings.TrimSpace(fmt.Sprintf("After it, latency is back at that of %.0f/s after: %s; %s. %s",
				o.Load.Rate, strings.Join(after, ", "), o.Sentence(), o.Caveat())))
		if err != nil {
			return err
		}
	}
	return nil
}
