package bench

import (
	"math"
	"math/rand/v2"
	"slices"

	"golang.org/x/perf/benchmath"
)

// An Interval is a value and its 95 % confidence interval.
type Interval struct {
	// Center is the estimate: a median.
	Center float64 `json:"center"`
	// Lo and Hi bound the interval.
	Lo float64 `json:"lo"`
	Hi float64 `json:"hi"`
}

// Median is the middle of values, or NaN where there are none. It does not
// change values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Ratio is the median of a[i]/b[i], where a[i] and b[i] were measured in the
// same round, with its bootstrap interval: the middle 95 % of the medians of
// 10,000 draws with replacement. The same input gives the same interval. a and
// b must be of one length; without any pair all is NaN.
//
// With few rounds that is a range between two of the ratios, and the chance that the
// true median is in it is not quite 95 %: of 7 rounds it is the 2nd to the 6th (88 %),
// of 9 the 2nd to the 8th (96 %), of 11 the 3rd to the 9th (93 %), of 15 the 4th to the
// 12th (96 %).
func Ratio(a, b []float64) Interval {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	if len(ratios) == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	r := rand.New(rand.NewPCG(uint64(len(ratios)), 1))
	draw := make([]float64, len(ratios))
	return middle(Median(ratios), func() float64 {
		for k := range draw {
			draw[k] = ratios[r.IntN(len(ratios))]
		}
		return Median(draw)
	})
}

// RatioOfMedians is the ratio of the median of a to that of b, which were not measured
// in the same rounds, with its bootstrap interval: the middle 95 % of 10,000 ratios,
// for each of which both are drawn from with replacement. The same input gives the
// same interval; where a or b is empty all is NaN.
func RatioOfMedians(a, b []float64) Interval {
	if len(a) == 0 || len(b) == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	r := rand.New(rand.NewPCG(uint64(len(a)), uint64(len(b))))
	drawn := func(values []float64) float64 {
		draw := make([]float64, len(values))
		for k := range draw {
			draw[k] = values[r.IntN(len(values))]
		}
		return Median(draw)
	}
	return middle(Median(a)/Median(b), func() float64 { return drawn(a) / drawn(b) })
}

// middle is center with the middle 95 % of 10,000 draws.
func middle(center float64, draw func() float64) Interval {
	const draws = 10_000
	all := make([]float64, draws)
	for i := range all {
		all[i] = draw()
	}
	slices.Sort(all)
	return Interval{center, all[draws*25/1000], all[draws*975/1000-1]}
}

// Differ is the probability, by the Mann-Whitney U test, that a and b differ as
// much as they do where nothing makes them differ. From 0.05 on "no difference"
// is the verdict.
func Differ(a, b []float64) (p float64) {
	sample := func(v []float64) *benchmath.Sample {
		return benchmath.NewSample(slices.Clone(v), &benchmath.DefaultThresholds)
	}
	return benchmath.AssumeNothing.Compare(sample(a), sample(b)).P
}
