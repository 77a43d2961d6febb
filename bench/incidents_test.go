package bench_test

import (
	"bytes"
	"strings"
	"testing"

	"couplet/bench"
)

func TestIncidentsAreToldAndAreNoErrors(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, 1, 1.1)
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Candidate == r.Samples[0].Candidate {
			s.Incidents = map[string]int64{"no_buffer": 2, "zero_copy": 1}
		}
	}
	n := len(r.Of(echo.String(), r.Samples[0].Candidate))
	if n == 0 || len(r.Errors()) != 0 {
		t.Fatalf("%d good samples, errors %v", n, r.Errors())
	}
	var text bytes.Buffer
	if err := r.WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	page := pageOf(t, r)
	for _, where := range []string{text.String(), page} {
		if !strings.Contains(where, "receives found no buffer (ENOBUFS)") || !strings.Contains(where, "without a copy") {
			t.Errorf("incidents are not told in:\n%.3000s", where)
		}
	}
	if strings.Contains(pageOf(t, compared(echo, 1, 1.1)), "ENOBUFS") {
		t.Error("incidents are told where there were none")
	}
}
