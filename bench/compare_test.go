package bench_test

import (
	"strings"
	"testing"

	"couplet/bench"
)

// A result of a file that has changed since is not compared, and it is said why.
func TestAnEditedWorkloadIsNotCompared(t *testing.T) {
	of := func(response int64) bench.Workload {
		return bench.Workload{Kind: bench.Custom, Connections: 5, Depth: 1, Spec: &bench.Spec{
			Name: "mine", Request: bench.Dist{Constant: 20}, Response: bench.Dist{Constant: response},
		}}
	}
	a, b := compared(of(512), 1, 1, 1), compared(of(513), 1, 1, 1)
	changed := of(512).String() + " has changed to " + of(513).String()

	var out strings.Builder
	if err := a.WriteComparison(&out, b); err == nil || !strings.Contains(err.Error(), "in common; "+changed) {
		t.Errorf("%v, want %q", err, changed)
	}
	echo := compared(bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}, 1, 1, 1)
	a.Append(echo)
	b.Append(echo)
	out.Reset()
	if err := a.WriteComparison(&out, b); err != nil || !strings.Contains(out.String(), "Not compared: "+changed+".") || !strings.Contains(out.String(), "echo 64 x 64 B") {
		t.Errorf("%v:\n%s", err, &out)
	}
	out.Reset()
	if err := a.WriteComparison(&out, a); err != nil || strings.Contains(out.String(), "Not compared") || !strings.Contains(out.String(), "mine, 5 connections, #") {
		t.Errorf("%v:\n%s", err, &out)
	}
}
