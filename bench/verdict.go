package bench

import (
	"fmt"
	"slices"
	"strings"
)

// A Finding is what a Result says of two candidates on one workload.
type Finding struct {
	// Workload is what was done, Unit what one unit of it is called.
	Workload string `json:"workload"`
	Unit     string `json:"unit"`
	// Rate is that of an open loop, or 0.
	Rate float64 `json:"rate,omitempty"`
	// A and B are the candidates.
	A string `json:"a"`
	B string `json:"b"`
	// Figure is what was compared, such as "CPU", or "memory" for Idle.
	Figure string `json:"figure"`
	// Ratio is the figure of A to that of B, with its 95 % interval, over Rounds.
	Ratio  Interval `json:"ratio"`
	Rounds int      `json:"rounds"`
	// P is the probability of such a difference where there is none.
	P float64 `json:"p"`
	// Winner is A, B, or "" where no difference was shown.
	Winner string `json:"winner"`
	// Disturbed is how many of the samples behind it, two of each round, other
	// processes disturbed. Memory they do not disturb.
	Disturbed int `json:"disturbed,omitempty"`

	shape string // of the workload, whatever its rate is
}

// Findings compares a and b on every workload on which both gave good samples.
// There is a winner only where the interval excludes 1 and the Mann-Whitney test
// gives p < 0.05: "no difference" is a verdict too.
func (r *Result) Findings(a, b string) []Finding {
	var all []Finding
	for _, w := range r.Workloads {
		figure, value := "CPU", Sample.CPU
		if w.Kind == Idle {
			figure, value = "memory", Sample.memory
		}
		if f := r.finding(w, a, b, figure, value); f.Rounds > 0 {
			all = append(all, f)
		}
	}
	return all
}

// finding compares a and b on w by a figure.
func (r *Result) finding(w Workload, a, b, figure string, value func(Sample) float64) Finding {
	f := Finding{Workload: w.String(), Unit: w.Unit(), Rate: w.Rate, A: a, B: b, Figure: figure, shape: w.shape()}
	f.Ratio, f.P, f.Rounds = r.compare(f.Workload, a, b, value)
	f.Winner = winner(a, b, f.Ratio, f.P)
	for _, pair := range r.pairs(f.Workload, a, b, value) {
		for _, s := range pair {
			if s.disturbed() && w.Kind != Idle {
				f.Disturbed++
			}
		}
	}
	return f
}

// TooFew reports whether there are too few rounds to show any difference.
func (f Finding) TooFew() bool { return f.Rounds < LeastRounds }

// Samples is how many are behind it.
func (f Finding) Samples() int { return 2 * f.Rounds }

// Doubtful reports whether more than half of the samples behind it were disturbed.
func (f Finding) Doubtful() bool { return 2*f.Disturbed > f.Samples() }

const quieter = ": measure again on a quieter machine."

// Caveat is a sentence that says so where it is Doubtful, and else "".
func (f Finding) Caveat() string {
	if !f.Doubtful() {
		return ""
	}
	return fmt.Sprintf("Other processes disturbed %d of %s behind this", f.Disturbed, plural(f.Samples(), "sample")) + quieter
}

// caveat is a sentence that names those of findings that are Doubtful, with a space
// before it, or "" where none is.
func caveat(findings []Finding) string {
	var doubtful []string
	for _, f := range findings {
		if f.Doubtful() {
			doubtful = append(doubtful, fmt.Sprintf("%d of %s of %s", f.Disturbed, plural(f.Samples(), "sample"), f.Workload))
		}
	}
	switch {
	case len(doubtful) == 0:
		return ""
	case len(doubtful) > 3:
		doubtful = []string{fmt.Sprintf("most samples of %d of these workloads", len(doubtful))}
	}
	return " But other processes disturbed " + strings.Join(doubtful, "; ") + quieter
}

// once is findings without those at fixed rates of what has one in a closed loop:
// they are one workload over and over.
func once(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool {
		return f.Rate > 0 && slices.ContainsFunc(findings, func(o Finding) bool { return o.Rate == 0 && o.shape == f.shape })
	})
}

// winner is who of a and b has less by the ratio of a to b, or "" where no
// difference was shown.
func winner(a, b string, ratio Interval, p float64) string {
	switch {
	case !differ(ratio, p):
		return ""
	case ratio.Lo > 1:
		return b
	}
	return a
}

// LeastRounds is of how many the Mann-Whitney test can give p < 0.05.
const LeastRounds = 4

// differ reports whether a difference was shown.
func differ(ratio Interval, p float64) bool { return p < 0.05 && (ratio.Hi < 1 || ratio.Lo > 1) }

// String is the finding as a clause: "epoll uses 18 % less CPU than uring for echo
// 64 x 64 KiB, depth 1 (95 % CI 14..22 %)".
func (f Finding) String() string {
	if f.TooFew() {
		return fmt.Sprintf("%s of %s are too few to tell %s from %s in %s", plural(f.Rounds, "round"), f.Workload, f.A, f.B, f.Figure)
	}
	if f.Winner == "" {
		return fmt.Sprintf("no difference in %s between %s and %s for %s was shown (95 %% CI of the ratio %.2f..%.2f, %s)",
			f.Figure, f.A, f.B, f.Workload, f.Ratio.Lo, f.Ratio.Hi, plural(f.Rounds, "round"))
	}
	loser, ratio := f.B, f.Ratio
	if f.Winner == f.B {
		loser, ratio = f.A, Interval{1 / f.Ratio.Center, 1 / f.Ratio.Hi, 1 / f.Ratio.Lo}
	}
	less := func(ratio float64) float64 { return 100 * (1 - ratio) }
	return fmt.Sprintf("%s uses %.0f %% less %s than %s for %s (95 %% CI %.0f..%.0f %%)",
		f.Winner, less(ratio.Center), f.Figure, loser, f.Workload, less(ratio.Hi), less(ratio.Lo))
}

// Verdict is the answer in one sentence: which of a and b costs less for which
// workload on the kernel of the manifest, and for which there are too few rounds to
// tell: of CPU first, then of memory. What was measured in a closed loop takes no part
// at fixed rates once more. A second sentence names the workloads of which most samples
// were disturbed.
func (r *Result) Verdict(a, b string) string {
	findings := once(r.Findings(a, b))
	if len(findings) == 0 {
		return fmt.Sprintf("Nothing was measured that compares %s with %s.", a, b)
	}
	var cpu, memory []Finding
	for _, f := range findings {
		if f.Figure == "CPU" {
			cpu = append(cpu, f)
		} else {
			memory = append(memory, f)
		}
	}
	all := append(clauses(cpu, a, b, ""), clauses(memory, a, b, " in memory")...)
	var few []string
	for _, f := range findings {
		if f.TooFew() {
			few = append(few, f.Workload)
		}
	}
	switch {
	case len(few) > 0 && len(all) > 0:
		all = append(all, "too few rounds to tell: "+list(few, len(findings)))
	case len(few) > 0:
		all = append(all, fmt.Sprintf("%s and %s had too few rounds to tell: %s", a, b, list(few, len(findings))))
	}
	kernel, _, _ := strings.Cut(r.Manifest.Kernel, " ")
	return fmt.Sprintf("On Linux %s %s.", kernel, strings.Join(all, "; ")) + caveat(findings)
}

// clauses are what those of findings say, all of one figure, that have rounds enough.
func clauses(findings []Finding, a, b, figure string) (all []string) {
	var same []string
	for _, f := range findings {
		switch {
		case f.TooFew():
		case f.Winner == "":
			same = append(same, f.Workload)
		default:
			all = append(all, f.String())
		}
	}
	switch {
	case len(same) > 0 && len(all) > 0:
		all = append(all, fmt.Sprintf("no difference%s was shown for %s", figure, list(same, len(findings))))
	case len(same) > 0:
		all = append(all, fmt.Sprintf("no difference%s between %s and %s was shown for %s", figure, a, b, list(same, len(findings))))
	}
	return all
}

// list names workloads, of so many in all, or counts them where they are more than
// three.
func list(workloads []string, all int) string {
	switch n := len(workloads); {
	case n <= 3:
		return strings.Join(workloads, "; ")
	case n == all:
		return fmt.Sprintf("any of %d workloads", n)
	default:
		return fmt.Sprintf("%d other workloads", n)
	}
}

// Control tells, of a candidate and the same once more, whether the measurement
// finds a difference where there is none. A second sentence is that of Verdict.
func (r *Result) Control(name, again string) string {
	findings := r.Findings(name, again)
	var wrong, few []string
	for _, f := range findings {
		switch {
		case f.TooFew():
			few = append(few, f.Workload)
		case f.Winner != "":
			wrong = append(wrong, fmt.Sprintf("%s (ratio %s)", f.Workload, f.Ratio))
		}
	}
	rest := caveat(findings)
	if len(few) > 0 && len(few) < len(findings) {
		rest = fmt.Sprintf(" Too few rounds to tell: %s.", list(few, len(findings))) + rest
	}
	switch {
	case len(findings) == 0:
		return fmt.Sprintf("Control: %s was not measured against itself.", name)
	case len(few) == len(findings):
		return fmt.Sprintf("Control: %s was measured against itself, but no test can show a difference in fewer than %d rounds.%s", name, LeastRounds, rest)
	case len(wrong) > 0:
		return fmt.Sprintf("Control FAILED: %s against itself shows a difference for %s. Do not trust a difference of that size; more rounds, or a quieter machine, help.%s",
			name, strings.Join(wrong, "; "), rest)
	}
	where := "every workload"
	if len(few) > 0 {
		where = "every other workload"
	}
	return fmt.Sprintf("Control: %s against itself came out as no difference on %s, as it should.%s", name, where, rest)
}

// Pair is the two candidates that a verdict is about: the first two, in the order
// of the plan, that gave samples and are not one and the same; ok is false where
// there are fewer.
func (r *Result) Pair() (a, b string, ok bool) {
	gave := r.candidates("")
	names := r.Manifest.Candidates
	if len(names) == 0 {
		names = gave
	}
	for _, name := range names {
		switch {
		case !slices.Contains(gave, name):
		case a == "":
			a = name
		case original(name) != original(a):
			return a, name, true
		}
	}
	return "", "", false
}

// original is the name of a candidate without what tells it from the same once
// more: "uring" for "uring/2".
func original(candidate string) string {
	name, _, _ := strings.Cut(candidate, "/")
	return name
}
