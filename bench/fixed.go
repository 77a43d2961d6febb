package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// SlowerKnee is the knee of w of the slower of two candidates: the last offered
// rate before the first of which it does not achieve 95 % with a p99 of at most 10
// times that at the lowest rate. It is NaN where one of them has no knee among the rates that
// were measured.
func (r *Result) SlowerKnee(w Workload, a, b string) (rate float64, slower string) {
	names := []string{a, b}
	views, _ := r.curves(names)
	rate = math.NaN()
	for _, v := range views {
		if v.Name != w.shape() {
			continue
		}
		for _, c := range v.Candidates {
			if !c.Found {
				return math.NaN(), ""
			}
			if math.IsNaN(rate) || c.Knee < rate {
				rate, slower = c.Knee, c.Name
			}
		}
		if len(v.Candidates) < len(names) {
			return math.NaN(), ""
		}
	}
	return rate, slower
}

// kneeBound reports whether the generator, and not a server, may have been the
// limit at the knee of w.
func (r *Result) kneeBound(w Workload) bool {
	w.Rate, w.Surge, w.Share = r.Knee, 0, 0
	for _, c := range r.candidates("") {
		if r.clientBound(w.String(), c) {
			return true
		}
	}
	return false
}

// A fixedRate is what two candidates do at one part of the knee, with the Finding
// of their p99.
type fixedRate struct {
	Finding
	Load  Workload
	Share string // of the knee, in per cent
	Sides []fixedSide
}

// A fixedSide is the medians of one candidate.
type fixedSide struct {
	Name           string
	Hue            int
	P50, P99, P999 float64
	// ClientBound says that in most samples the generator was the limit.
	ClientBound bool
	// Rate is what was achieved; Behind says that this is less than 95 % of the
	// fixed rate, so that latency is that of a server that falls behind.
	Rate   float64
	Behind bool
}

// fixedRates are the workloads at a part of the knee, in the order of the plan. Of
// those that differ only in the surge that comes after, the first is told.
func (r *Result) fixedRates() []fixedRate {
	a, b, ok := r.Pair()
	if !ok {
		return nil
	}
	all := r.candidates("")
	var rates []fixedRate
	for _, w := range r.Workloads {
		name := w.String()
		told := func(f fixedRate) bool { return f.shape == w.shape() && f.Load.Rate == w.Rate }
		if w.Share == 0 || slices.ContainsFunc(rates, told) {
			continue
		}
		f := fixedRate{Load: w, Share: percent(w.Share)}
		f.Finding = r.finding(w, a, b, "p99", func(s Sample) float64 { return s.P99US })
		if f.Rounds == 0 {
			continue
		}
		for _, c := range []string{a, b} {
			median := func(v func(Sample) float64) float64 { return Median(r.Values(name, c, v)) }
			s := fixedSide{
				Name: c, Hue: hue(max(0, slices.Index(all, c))),
				P50: median(func(s Sample) float64 { return s.P50US }), P99: median(func(s Sample) float64 { return s.P99US }),
				P999:        median(func(s Sample) float64 { return s.P999US }),
				ClientBound: r.clientBound(name, c), Rate: median(Sample.Rate),
			}
			s.Behind = s.Rate < achieved*w.Rate
			f.Sides = append(f.Sides, s)
		}
		rates = append(rates, f)
	}
	return rates
}

func percent(part float64) string { return fmt.Sprintf("%.0f %%", 100*part) }

// Sentence says whether the p99 differs.
func (f fixedRate) Sentence() string {
	switch {
	case f.TooFew():
		return "too few rounds to tell the p99 apart"
	case f.Winner == "":
		return fmt.Sprintf("no difference in p99 was shown (ratio %s to %s %s)", f.A, f.B, f.Ratio)
	}
	return fmt.Sprintf("the p99 of %s is lower (ratio %s to %s %s)", f.Winner, f.A, f.B, f.Ratio)
}

// WriteFixedRates writes what was measured at parts of the knee: a line for the
// latency at each, and two for each overload, what was achieved in it and the time to
// recover. Without such workloads it writes nothing.
func (r *Result) WriteFixedRates(out io.Writer) error {
	for i, f := range r.fixedRates() {
		if i == 0 && r.Knee > 0 {
			bound := "."
			if r.kneeBound(f.Load) {
				bound = ", where the generator had little time left: it may be the generator's."
			}
			if _, err := fmt.Fprintf(out, "The knee of the slower engine is at %.0f/s of %s%s\n", r.Knee, f.Load.shape(), bound); err != nil {
				return err
			}
		}
		var sides []string
		for _, s := range f.Sides {
			text := fmt.Sprintf("%s %.0f / %.0f / %.0f", s.Name, s.P50, s.P99, s.P999)
			if s.ClientBound {
				text += " (client-bound)"
			}
			if s.Behind {
				text += fmt.Sprintf(" (behind: only %.0f/s)", s.Rate)
			}
			sides = append(sides, text)
		}
		if _, err := fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintf("At %s of it (%.0f/s), p50 / p99 / p99.9 in us: %s; %s. %s",
			f.Share, f.Load.Rate, strings.Join(sides, ", "), f.Sentence(), f.Caveat()))); err != nil {
			return err
		}
	}
	return r.writeOverloads(out)
}
