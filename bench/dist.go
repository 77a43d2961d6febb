package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A Dist is a distribution of whole numbers: of bytes, nanoseconds or requests,
// as the field that holds it says. It has one form, told by which fields are set;
// the zero value is always 0.
type Dist struct {
	// Constant is a value that is always the same.
	Constant int64 `json:"constant,omitempty"`
	// Choices are values of which one is drawn, by their weights.
	Choices []Choice `json:"choices,omitempty"`
	// Min and Max bound a uniform distribution; both belong to it.
	Min int64 `json:"min,omitempty"`
	Max int64 `json:"max,omitempty"`
	// Mean is that of an exponential distribution.
	Mean int64 `json:"mean,omitempty"`
	// Median and P99 are those of a lognormal distribution.
	Median int64 `json:"median,omitempty"`
	P99    int64 `json:"p99,omitempty"`
	// Cap is what more than it is taken for, of an exponential or a lognormal
	// distribution; 0 is the greatest value that is allowed in its place.
	Cap int64 `json:"cap,omitempty"`
}

// A Choice is one value of a list, and how much it weighs among the others.
type Choice struct {
	Value  int64   `json:"value"`
	Weight float64 `json:"weight"`
}

// IsZero reports whether d is always 0, which stands for a Dist that was not given.
func (d Dist) IsZero() bool {
	return d.Constant == 0 && len(d.Choices) == 0 && d.Min == 0 && d.Max == 0 && d.Mean == 0 && d.Median == 0 && d.P99 == 0
}

// A quantity is what a Dist is of: its bounds, and how its values are written.
type quantity struct {
	least, most int64
	entry       string // the key of a value in a list of choices
	want        string // what a value looks like
	text        func(int64) string
	parse       func(string) (int64, bool)
}

// header is the bytes that a request of a Custom begins with; see dialogue.go.
const header = 12

// The quantities of a Spec. The bounds keep a measurement within what a machine
// has; nobody waits a day for an answer to a benchmark.
var (
	requestBytes  = quantity{header, 1 << 24, "bytes", wantBytes, bytesText, parseBytes}
	responseBytes = quantity{1, 1 << 24, "bytes", wantBytes, bytesText, parseBytes}
	thinkTime     = quantity{0, int64(time.Hour), "time", wantTime, timeText, parseTime}
	lifeTime      = quantity{int64(time.Millisecond), int64(24 * time.Hour), "time", wantTime, timeText, parseTime}
	lifeRequests  = quantity{1, 1_000_000_000, "requests", "want a whole number such as 100", countText, parseCount}
)

const (
	wantBytes = "want bytes such as 512, 4KiB or 1MiB"
	wantTime  = "want a duration with its unit, such as 10ms or 1.5s"
)

// bounds is nil if v is within them.
func (q quantity) bounds(v int64) error {
	if v < q.least || v > q.most {
		return fmt.Errorf("%s is out of bounds; want from %s to %s", q.text(v), q.text(q.least), q.text(q.most))
	}
	return nil
}

// check is nil if d can be drawn from, or says what cannot be right.
func (d Dist) check(q quantity) error {
	forms := 0
	for _, is := range []bool{d.Constant != 0, len(d.Choices) > 0, d.Min != 0 || d.Max != 0, d.Mean != 0, d.Median != 0 || d.P99 != 0} {
		if is {
			forms++
		}
	}
	if forms > 1 {
		return fmt.Errorf("it is several distributions at once; want one of a value, a list, min and max, mean, or median and p99")
	}
	values := []int64{d.Constant}
	switch {
	case len(d.Choices) > 0:
		values = values[:0]
		sum := 0.0
		for _, c := range d.Choices {
			if !(c.Weight >= 0) || math.IsInf(c.Weight, 1) {
				return fmt.Errorf("the weight %v cannot be; want 0 or more", c.Weight)
			}
			sum += c.Weight
			values = append(values, c.Value)
		}
		if sum == 0 || math.IsInf(sum, 1) {
			return fmt.Errorf("the weights add up to %v; want one of them more than 0", sum)
		}
	case d.Min != 0 || d.Max != 0:
		if values = []int64{d.Min, d.Max}; d.Min > d.Max {
			return fmt.Errorf("min is %s and max is %s; want min to be the smaller", q.text(d.Min), q.text(d.Max))
		}
	case d.Mean != 0:
		if d.Mean < 0 {
			return fmt.Errorf("mean is %s; want more than 0", q.text(d.Mean))
		}
		values = []int64{d.Mean}
	case d.Median != 0 || d.P99 != 0:
		if values = []int64{d.Median, d.P99}; d.Median < 1 || d.Median >= d.P99 {
			return fmt.Errorf("median is %s and p99 is %s; want p99 to be the greater", q.text(d.Median), q.text(d.P99))
		}
	}
	if d.Cap != 0 {
		if d.Mean == 0 && d.Median == 0 {
			return fmt.Errorf("cap goes with mean, or with median and p99, alone")
		}
		if values = append(values, d.Cap); d.Cap < max(d.Mean, d.Median) {
			return fmt.Errorf("cap is %s, below the middle of what it is to cap; want more than %s", q.text(d.Cap), q.text(max(d.Mean, d.Median)))
		}
	}
	for _, v := range values {
		if err := q.bounds(v); err != nil {
			return err
		}
	}
	return nil
}

// draw is the next value, for a d that check found good.
func (d *Dist) draw(r *rand.Rand, q *quantity) int64 {
	switch {
	case len(d.Choices) > 0:
		sum := 0.0
		for i := range d.Choices {
			sum += d.Choices[i].Weight
		}
		at := r.Float64() * sum
		for i := range d.Choices {
			if at -= d.Choices[i].Weight; at < 0 {
				return d.Choices[i].Value
			}
		}
		return d.Choices[len(d.Choices)-1].Value // rounding
	case d.Max != 0:
		return d.Min + r.Int64N(d.Max-d.Min+1)
	case d.Mean != 0:
		return d.within(r.ExpFloat64()*float64(d.Mean), q)
	case d.Median != 0:
		return d.within(float64(d.Median)*math.Exp(d.sigma()*r.NormFloat64()), q)
	}
	return d.Constant
}

func (d *Dist) within(v float64, q *quantity) int64 {
	return int64(math.Round(max(float64(q.least), min(v, float64(d.limit(q))))))
}

func (d *Dist) limit(q *quantity) int64 {
	if d.Cap != 0 {
		return d.Cap
	}
	return q.most
}

// sigma is the deviation of the logarithm: 99 % of a normal distribution lie
// below 2.326 deviations.
func (d *Dist) sigma() float64 {
	return math.Log(float64(d.P99)/float64(d.Median)) / 2.3263478740408408
}

// mean is what draws come to on average. What the least value of the quantity
// adds to it is left out.
func (d *Dist) mean(q *quantity) float64 {
	top := float64(d.limit(q))
	switch {
	case len(d.Choices) > 0:
		sum, weights := 0.0, 0.0
		for _, c := range d.Choices {
			sum, weights = sum+c.Weight*float64(c.Value), weights+c.Weight
		}
		return sum / weights
	case d.Max != 0:
		return (float64(d.Min) + float64(d.Max)) / 2
	case d.Mean != 0:
		return float64(d.Mean) * (1 - math.Exp(-top/float64(d.Mean)))
	case d.Median != 0:
		below := func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
		s, u := d.sigma(), math.Log(top/float64(d.Median))
		return float64(d.Median)*math.Exp(s*s/2)*below((u-s*s)/s) + top*below(-u/s)
	}
	return float64(d.Constant)
}

// describe is d in words.
func (d Dist) describe(q quantity) string {
	text := ""
	switch {
	case len(d.Choices) > 0:
		sum := 0.0
		for _, c := range d.Choices {
			sum += c.Weight
		}
		for i, c := range d.Choices {
			if i > 0 {
				text += ", "
			}
			text += fmt.Sprintf("%s (%.3g %%)", q.text(c.Value), 100*c.Weight/sum)
		}
		return text
	case d.Max != 0:
		return fmt.Sprintf("%s to %s", q.text(d.Min), q.text(d.Max))
	case d.Mean != 0:
		text = q.text(d.Mean) + " on average"
	case d.Median != 0:
		text = fmt.Sprintf("%s in the median and %s at the 99th percentile", q.text(d.Median), q.text(d.P99))
	default:
		return q.text(d.Constant)
	}
	if d.Cap != 0 {
		text += fmt.Sprintf(" (at most %s)", q.text(d.Cap))
	}
	return text
}

func timeText(v int64) string { return time.Duration(v).String() }

func countText(v int64) string { return fmt.Sprint(v) }

func parseBytes(s string) (int64, bool) {
	unit := int64(1)
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}} {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(number), u.size
			break
		}
	}
	n, ok := parseCount(s)
	if n > math.MaxInt64/unit || n < math.MinInt64/unit {
		return 0, false
	}
	return n * unit, ok
}

func parseTime(s string) (int64, bool) {
	d, err := time.ParseDuration(s)
	return int64(d), err == nil
}

func parseCount(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
