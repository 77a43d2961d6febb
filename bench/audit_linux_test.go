package bench_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"couplet/bench"
)

// Every rung of the ladders runs as what it is called, its counters fit together,
// and the kernel counts the system calls that it says it makes.
func TestEveryRungIsWhatItSays(t *testing.T) {
	r, err := bench.Plan{
		Workloads:  []bench.Workload{{Kind: bench.Echo, Connections: 8}},
		Candidates: bench.Rungs(), Rounds: 1, Duration: 50 * time.Millisecond, Audit: true,
	}.Run(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Skipped {
		t.Logf("%s: %s", s.Candidate, s.Why)
	}
	says := map[string]string{
		"uring-oneshot": "U2 (multishot), one-shot,", "uring-u2": "U2 (multishot),", "uring-u3": "U3 ",
		"uring-batched": "batched", "uring-registered": "registered ring", "uring-zerocopy": "zero-copy",
		"epoll":      "epoll, level-triggered, loops",
		"epoll-edge": "epoll, edge-triggered, loops",
	}
	for _, s := range r.Samples {
		if len(s.Errors) > 0 {
			t.Errorf("%s: %v", s.Candidate, s.Errors)
		}
		if engine := r.Manifest.Engines[s.Candidate]; !strings.Contains(engine, says[s.Candidate]) {
			t.Errorf("%s runs as %q", s.Candidate, engine)
		}
		waits := int64(0)
		for _, n := range s.Batches {
			waits += n
		}
		if waits == 0 {
			t.Errorf("%s counts no batches", s.Candidate)
		}
	}
	if r.Unaudited != "" {
		t.Skip(r.Unaudited)
	}
	if len(r.Audits) != len(r.Samples) {
		t.Errorf("%d audits of %d candidates", len(r.Audits), len(r.Samples))
	}
	for _, a := range r.Audits {
		if a.Kernel < .9*a.Counted || a.Kernel > 1.1*a.Counted+ownCalls {
			t.Errorf("%s counts %.3f calls per message, the kernel %.3f", a.Candidate, a.Counted, a.Kernel)
		}
	}
	if text := r.Audited(); !strings.Contains(text, "was checked") {
		t.Errorf("the report says %q", text)
	}
}
