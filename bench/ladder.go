package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A Step is a rung of an ablation ladder: a candidate, and what it has or lacks
// against the candidate that it is compared with.
type Step struct {
	// What says it, such as "+ multishot (Linux 6.0)".
	What string
	// Candidate is who has it. Before is who has it not, or "" at a ladder's foot.
	Candidate, Before string
}

// Ladders are the two ladders: io_uring's features, each added to those before it, and
// what it may do besides; and what epoll may do otherwise.
func Ladders() []Step {
	return []Step{
		{"io_uring, one accept or receive per entry, buffer ring", "uring-oneshot", ""},
		{"+ multishot accept and receive (Linux 6.0)", "uring-u2", "uring-oneshot"},
		{"+ DEFER_TASKRUN (Linux 6.1)", "uring-u3", "uring-u2"},
		{"+ incremental buffers (Linux 6.12)", "uring", "uring-u3"},
		{"all of it, and bulk received in batches, too", "uring-batched", "uring"},
		{"all of it, and a registered ring", "uring-registered", "uring"},
		{"all of it, and zero-copy sends from 16 KiB on", "uring-zerocopy", "uring"},
		{"epoll, level-triggered", "epoll", ""},
		{"edge-triggered instead", "epoll-edge", "epoll"},
	}
}

// Rungs are the candidates of the ladders. The first two are the engines as they
// are.
func Rungs() []string {
	names := []string{"uring", "epoll"}
	for _, s := range Ladders() {
		if !slices.Contains(names, s.Candidate) {
			names = append(names, s.Candidate)
		}
	}
	return names
}

// A Rung is what a Result says of a Step on one workload.
type Rung struct {
	Step
	// CPU is the median of the server's microseconds per unit.
	CPU float64
	// Ratio is that to the step before, with its 95 % interval, over Rounds; there
	// is none where Rounds is 0.
	Ratio  Interval
	Rounds int
	// Shown reports whether there is a difference.
	Shown bool
}

// Word is "less", "more", "no difference shown" or "too few rounds", or "" at the
// foot.
func (g Rung) Word() string {
	switch {
	case g.Rounds == 0:
		return ""
	case g.Rounds < LeastRounds:
		return "too few rounds"
	case !g.Shown:
		return "no difference shown"
	case g.Ratio.Center < 1:
		return "less"
	}
	return "more"
}

// Climb is the ladders on one workload, as far as their candidates were measured;
// it is nil if nothing but the engines as they are was.
func (r *Result) Climb(workload string) []Rung {
	var rungs []Rung
	compared := false
	for _, s := range Ladders() {
		if len(r.Of(workload, s.Candidate)) == 0 {
			continue
		}
		g := Rung{Step: s, CPU: Median(r.Values(workload, s.Candidate, Sample.CPU))}
		if s.Before != "" {
			var p float64
			g.Ratio, p, g.Rounds = r.Compare(workload, s.Candidate, s.Before)
			g.Shown = differ(g.Ratio, p)
			compared = compared || g.Rounds > 0
		}
		rungs = append(rungs, g)
	}
	if !compared {
		return nil
	}
	return rungs
}

// WriteLadders writes the ladders of every workload on which they were measured.
func (r *Result) WriteLadders(out io.Writer) error {
	for _, l := range r.Workloads {
		rungs := r.Climb(l.String())
		if rungs == nil || l.Kind == Idle {
			continue
		}
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "%s\tcandidate\tCPU us\tto the one before\t\n", l)
		for _, g := range rungs {
			ratio := ""
			if g.Rounds > 0 {
				ratio = fmt.Sprintf("%s of %s", g.Ratio, g.Before)
			}
			fmt.Fprintf(w, "%s\t%s\t%.3g\t%s\t%s\n", g.What, g.Candidate, g.CPU, ratio, g.Word())
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
