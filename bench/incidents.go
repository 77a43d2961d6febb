package bench

import (
	"fmt"
	"slices"
	"strings"

	"couplet"
)

// incidents are what an engine counts that is no error: nothing is lost by it, but
// it costs a call, or time. Each has its name in JSON, and what it is called for one
// and for many.
var incidents = []struct {
	key, one, many string
	of             func(*couplet.Stats) int64
}{
	{"no_buffer", "receive found no buffer (ENOBUFS)", "receives found no buffer (ENOBUFS)", func(s *couplet.Stats) int64 { return s.BuffersExhausted }},
	{"overflow", "overflow of the completion queue", "overflows of the completion queue", func(s *couplet.Stats) int64 { return s.Overflows }},
	{"rearmed", "multishot operation armed again", "multishot operations armed again", func(s *couplet.Stats) int64 { return s.Rearmed }},
	{"short_send", "send taken in part", "sends taken in part", func(s *couplet.Stats) int64 { return s.ShortSends }},
	{"stale", "event for a connection that was gone", "events for connections that were gone", func(s *couplet.Stats) int64 { return s.Stale }},
	{"zero_copy", "send without a copy", "sends without a copy", func(s *couplet.Stats) int64 { return s.ZeroCopies }},
	{"zero_copy_copied", "of these copied by the kernel all the same", "of these copied by the kernel all the same", func(s *couplet.Stats) int64 { return s.ZeroCopiesCopied }},
}

// incidentsBetween is what of incidents there was from a to b, or nil.
func incidentsBetween(a, b *couplet.Stats) map[string]int64 {
	var counts map[string]int64
	for _, i := range incidents {
		if n := i.of(b) - i.of(a); n > 0 {
			if counts == nil {
				counts = make(map[string]int64)
			}
			counts[i.key] = n
		}
	}
	return counts
}

// happened says what incidents there were in the samples of a candidate, on one
// workload or, where that is "", on all; it is "" where there were none.
func (r *Result) happened(workload, candidate string) string {
	sum := map[string]int64{}
	for _, s := range r.Samples {
		if s.Candidate == candidate && (workload == "" || s.Workload == workload) {
			for k, n := range s.Incidents {
				sum[k] += n
			}
		}
	}
	var parts []string
	for _, i := range incidents {
		switch n := sum[i.key]; n {
		case 0:
		case 1:
			parts = append(parts, "1 "+i.one)
		default:
			parts = append(parts, fmt.Sprint(n, " ", i.many))
		}
	}
	return strings.Join(parts, ", ")
}

// An occurrence is the incidents of a candidate on a workload.
type occurrence struct{ Workload, Candidate, Text string }

// occurrences are what happened to whom, without those to whom nothing did.
func (r *Result) occurrences() (all []occurrence) {
	var told []string
	for _, w := range r.Workloads {
		name := w.String()
		if slices.Contains(told, name) {
			continue
		}
		told = append(told, name)
		for _, c := range r.candidates(name) {
			if text := r.happened(name, c); text != "" {
				all = append(all, occurrence{name, c, text})
			}
		}
	}
	return all
}

// counted is a line of what happened for each candidate to whom something did.
func (r *Result) counted() string {
	var b strings.Builder
	for _, c := range r.candidates("") {
		if text := r.happened("", c); text != "" {
			fmt.Fprintf(&b, "No errors, but counted: %s: %s.\n", c, text)
		}
	}
	return b.String()
}
