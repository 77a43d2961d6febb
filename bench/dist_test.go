package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var dists = []struct {
	name string
	d    Dist
	q    quantity
}{
	{"constant", Dist{Constant: 512}, responseBytes},
	{"nothing", Dist{}, thinkTime},
	{"choices", Dist{Choices: []Choice{{512, 90}, {64 << 10, 9.5}, {1 << 20, .5}, {7, 0}}}, responseBytes},
	{"uniform", Dist{Min: 20, Max: 400}, requestBytes},
	{"uniform from 0", Dist{Max: int64(time.Second)}, thinkTime},
	{"exponential", Dist{Mean: int64(10 * time.Millisecond)}, thinkTime},
	{"exponential with a cap", Dist{Mean: int64(10 * time.Millisecond), Cap: int64(15 * time.Millisecond)}, thinkTime},
	{"requests", Dist{Mean: 100}, lifeRequests},
	{"lognormal", Dist{Median: 2000, P99: 30000}, responseBytes},
	{"lognormal with a cap", Dist{Median: 2000, P99: 30000, Cap: 8 << 10}, responseBytes},
	{"wide lognormal", Dist{Median: 2000, P99: 1 << 24}, responseBytes},
}

// What is drawn has the mean that the distribution says, stays within its bounds,
// and is the same from the same seed.
func TestDraws(t *testing.T) {
	const n = 50_000
	for _, c := range dists {
		t.Run(c.name, func(t *testing.T) {
			if err := c.d.check(c.q); err != nil {
				t.Fatal(err)
			}
			draw := func(seed uint64) []int64 {
				r := rand.New(rand.NewPCG(seed, 0))
				values := make([]int64, n)
				for i := range values {
					values[i] = c.d.draw(r, &c.q)
				}
				return values
			}
			values := draw(7)
			sum, squares := 0.0, 0.0
			for _, v := range values {
				if err := c.q.bounds(v); err != nil || c.d.Cap > 0 && v > c.d.Cap || c.d.Max > 0 && (v < c.d.Min || v > c.d.Max) {
					t.Fatalf("drew %d (%v)", v, err)
				}
				sum, squares = sum+float64(v), squares+float64(v)*float64(v)
			}
			mean := sum / n
			// Five standard errors, and what rounding to the least value may add.
			allowed := 5*math.Sqrt(max(0, squares/n-mean*mean)/n) + 1
			if want := c.d.mean(&c.q); math.Abs(mean-want) > allowed {
				t.Errorf("the mean is %v, want %v within %v", mean, want, allowed)
			}
			if !slices.Equal(values, draw(7)) {
				t.Error("the same seed drew other values")
			}
			if varies := slices.Max(values) > slices.Min(values); varies && slices.Equal(values, draw(8)) {
				t.Error("another seed drew the same values")
			}
			if c.d.Median > 0 && c.d.Cap == 0 {
				for limit, want := range map[int64]float64{c.d.Median: .5, c.d.P99: .99} {
					below := 0.0
					for _, v := range values {
						if v < limit {
							below++
						}
					}
					if math.Abs(below/n-want) > 5*math.Sqrt(want*(1-want)/n)+.001 { // values are whole
						t.Errorf("%v of all are below %d, want %v", below/n, limit, want)
					}
				}
			}
		})
	}
}

// A program that makes a Spec of its own hears the same as the author of a file.
func TestDistsThatCannotBe(t *testing.T) {
	for _, d := range []Dist{
		{}, {Constant: -1}, {Constant: 11}, {Constant: 1<<24 + 1}, {Constant: 20, Mean: 20}, {Choices: []Choice{{20, 0}}},
		{Choices: []Choice{{20, -1}, {20, 2}}}, {Choices: []Choice{{20, math.NaN()}}}, {Choices: []Choice{{20, math.Inf(1)}}},
		{Choices: []Choice{{20, math.MaxFloat64}, {20, math.MaxFloat64}}}, {Choices: []Choice{{2, 1}}},
		{Min: 30, Max: 20}, {Min: 20}, {Min: -20, Max: 20}, {Mean: -20}, {Median: 20}, {P99: 20}, {Median: 30, P99: 20},
		{Median: -30, P99: 20}, {Constant: 20, Cap: 30}, {Mean: 20, Cap: 15}, {Mean: 20, Cap: 1 << 30}, {Mean: 20, Cap: -1},
	} {
		if err := d.check(requestBytes); err == nil {
			t.Errorf("%+v is accepted", d)
		}
	}
}
