package bench_test

import (
	"math"
	"testing"

	"couplet/bench"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		if got := bench.Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(bench.Median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestRatioIsOfPairs(t *testing.T) {
	// The rounds drift by a factor of ten; within each a is half of b.
	b := []float64{1, 2, 4, 8, 10}
	a := []float64{.5, 1, 2, 4, 5}
	if got, want := bench.Ratio(a, b), (bench.Interval{Center: .5, Lo: .5, Hi: .5}); got != want {
		t.Errorf("Ratio = %v, want %v", got, want)
	}
}

func TestRatioInterval(t *testing.T) {
	// The median of n draws from n is at most the k-th least with the
	// probability that at least half of the draws are among the k least. For n =
	// 7 and k = 2 that is 0.10, for k = 1 it is 0.012: so the 2.5 % quantile of
	// the bootstrap is the second least, and by symmetry the second greatest.
	ones := []float64{1, 1, 1, 1, 1, 1, 1}
	got := bench.Ratio([]float64{7, 3, 1, 5, 2, 6, 4}, ones)
	if want := (bench.Interval{Center: 4, Lo: 2, Hi: 6}); got != want {
		t.Errorf("Ratio = %v, want %v", got, want)
	}
	// For five it is the least: 0.058.
	got = bench.Ratio([]float64{5, 3, 1, 2, 4}, ones[:5])
	if want := (bench.Interval{Center: 3, Lo: 1, Hi: 5}); got != want {
		t.Errorf("Ratio = %v, want %v", got, want)
	}
	if got := bench.Ratio(nil, nil); !math.IsNaN(got.Center) {
		t.Errorf("Ratio of nothing = %v", got)
	}
}

func TestDiffer(t *testing.T) {
	// All of a below all of b has the probability 2/C(8,4) by chance.
	if p := bench.Differ([]float64{1, 2, 3, 4}, []float64{5, 6, 7, 8}); math.Abs(p-2./70) > 1e-9 {
		t.Errorf("p = %v, want %v", p, 2./70)
	}
	if p := bench.Differ([]float64{1, 3, 5, 7}, []float64{2, 4, 6, 8}); p < 0.05 {
		t.Errorf("p = %v where nothing differs", p)
	}
}

func TestJudge(t *testing.T) {
	r := &bench.Result{}
	for round, cpu := range []float64{.8, .9, 1, 1.1, 1.2} {
		for name, v := range map[string]float64{"a": cpu, "b": 1} {
			r.Samples = append(r.Samples, bench.Sample{Workload: "w", Candidate: name, Round: round, UserUS: v})
		}
	}
	// What had errors takes no part.
	r.Samples = append(r.Samples,
		bench.Sample{Workload: "w", Candidate: "a", Round: 5, UserUS: 100, Errors: map[string]int64{"bytes wrong": 1}},
		bench.Sample{Workload: "w", Candidate: "b", Round: 5, UserUS: 1})
	for _, c := range []struct {
		limit float64
		want  string
	}{{1.05, "met"}, {.85, "met, barely"}, {.75, "NOT met"}} {
		v := r.Judge([]bench.Target{{Workload: "w", Engine: "a", Against: "b", Figure: "CPU", Limit: c.limit}})[0]
		if v.Word() != c.want || v.Rounds != 5 {
			t.Errorf("limit %v: %s in %d rounds (%v), want %s", c.limit, v.Word(), v.Rounds, v.Found, c.want)
		}
	}
	if n := r.Errors()["a: bytes wrong"]; n != 1 {
		t.Errorf("the ledger has %v", r.Errors())
	}
	v := r.Judge([]bench.Target{{Workload: "other", Engine: "a", Figure: "CPU"}})[0]
	if v.Word() != "not measured" || v.Met() {
		t.Error(v.Word())
	}
}

func TestTargetsAreOfTheTable(t *testing.T) {
	shapes, targets := map[string]bool{}, 0
	for _, w := range bench.Table() {
		w, err := w.WithDefaults()
		if err != nil {
			t.Error(err)
		}
		shapes[w.String()] = true
		switch w.Kind {
		case bench.Echo, bench.Poems, bench.Idle:
			targets++
		}
	}
	for _, bounds := range [][]bench.Target{bench.Targets(), bench.Aims()} {
		judged := map[string]bool{}
		for _, target := range bounds {
			if !shapes[target.Workload] {
				t.Errorf("%q is not in the table", target.Workload)
			}
			judged[target.Workload] = true
		}
		if len(judged) != targets || len(shapes) != len(bench.Table()) {
			t.Errorf("%d shapes of %d are judged", len(judged), targets)
		}
	}
}

func TestTheBetterCProgramIsTheCheaperOne(t *testing.T) {
	r := &bench.Result{}
	for name, cost := range map[string]float64{"uring": 12, "c-uring": 11, "c-epoll": 10} {
		for round := range 5 {
			r.Samples = append(r.Samples, bench.Sample{Workload: "w", Candidate: name, Round: round, UserUS: cost})
		}
	}
	v := r.Judge([]bench.Target{{Workload: "w", Engine: "uring", Against: bench.BetterC, Figure: "CPU", Limit: 1.15}})[0]
	if v.Found.Center != 1.2 || v.Met() {
		t.Errorf("the ratio is %v", v.Found)
	}
}
