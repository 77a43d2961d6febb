package bench_test

import (
	"bytes"
	"strings"
	"testing"

	"couplet/bench"
)

func TestLadderComparesEachStepWithTheOneBefore(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	costs := map[string]float64{"uring-oneshot": 10, "uring-u2": 8, "uring-u3": 8, "epoll": 9, "epoll-edge": 12}
	r := &bench.Result{Workloads: []bench.Workload{echo}}
	for round := range 7 {
		for name, cost := range costs {
			r.Samples = append(r.Samples, bench.Sample{Workload: echo.String(), Candidate: name, Round: round, UserUS: cost * (1 + float64(round)/100)})
		}
	}
	var got []string
	for _, g := range r.Climb(echo.String()) {
		got = append(got, g.Candidate+" "+g.Word())
	}
	// uring was not measured: u3 is the last of its ladder.
	want := "uring-oneshot , uring-u2 less, uring-u3 no difference shown, epoll , epoll-edge more"
	if strings.Join(got, ", ") != want {
		t.Errorf("the ladder is %q, want %q", got, want)
	}
	var b bytes.Buffer
	if err := r.WriteLadders(&b); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"0.80 [0.80, 0.80] of uring-oneshot", "edge-triggered instead", echo.String()} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("the ladder lacks %q:\n%s", part, &b)
		}
	}
	if page := pageOf(t, r); !strings.Contains(page, "DEFER_TASKRUN (Linux 6.1)") {
		t.Error("the page has no ladder")
	}
}

func TestThereIsNoLadderOfTheEnginesAlone(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	if rungs := compared(echo, 1, 1.1).Climb(echo.String()); rungs != nil {
		t.Errorf("a ladder of %v", rungs)
	}
}
