package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// candidates are those that gave samples on a workload, couplet's own first; ""
// is any workload.
func (r *Result) candidates(workload string) []string {
	found := map[string]bool{}
	for _, s := range r.Samples {
		if workload == "" || s.Workload == workload {
			found[s.Candidate] = true
		}
	}
	rank := []string{"uring", "epoll", "goroutine", "gnet", "nbio", "netpoll", "net", "c-uring", "c-epoll"}
	place := func(name string) int {
		return slices.IndexFunc(rank, func(s string) bool { return strings.HasPrefix(name, s) })
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}

// WriteTable writes one line per workload and candidate: medians, and the ratio
// to the baseline as Versus has it, and a mark where the generator was the limit in
// most samples, or other processes disturbed most of them.
func (r *Result) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	base := r.Manifest.Baseline
	fmt.Fprintf(w, "workload\tcandidate\tCPU us\tto %s\trate/s\tp50 us\tp99 us\tp99.9 us\tcalls\tmallocs\t\n", base)
	for _, l := range r.Workloads {
		name := l.String()
		if l.Kind == Idle {
			continue // it has a table of its own
		}
		for _, c := range r.candidates(name) {
			median := func(f func(Sample) float64) float64 { return Median(r.Values(name, c, f)) }
			var marks []string
			if r.clientBound(name, c) {
				marks = append(marks, "client-bound")
			}
			if mostly(r.Of(name, c), Sample.disturbed) {
				marks = append(marks, "disturbed")
			}
			fmt.Fprintf(w, "%s\t%s\t%.3g\t%s\t%.0f\t%s\t%s\t%s\t%s\t%.2f\t%s\n", name, c,
				median(Sample.CPU), r.Versus(name, c, base), median(Sample.Rate),
				microsText(median(Sample.p50)), microsText(median(Sample.p99)), microsText(median(Sample.p999)),
				callsText(median(func(s Sample) float64 { return s.Crossings })),
				median(func(s Sample) float64 { return s.Mallocs }), strings.Join(marks, ", "))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := r.writeIdle(out); err != nil {
		return err
	}
	if err := r.WriteLadders(out); err != nil {
		return err
	}
	for _, l := range r.Workloads {
		if text := l.Description(); text != "" {
			var moved []string
			for _, c := range r.candidates(l.String()) {
				moved = append(moved, c+" "+figureText(Median(r.Values(l.String(), c, Sample.Throughput))))
			}
			fmt.Fprintf(out, "%s: %s. MiB/s, both ways: %s.\n", l, text, strings.Join(moved, ", "))
		}
	}
	fmt.Fprintln(out)
	if mask := r.Manifest.Steered; mask != "" {
		fmt.Fprintf(out, "Steered: what arrived on loopback was processed on the CPUs of the mask %s, not on the sender's.\n", mask)
	}
	if text := r.Audited(); text != "" {
		fmt.Fprintln(out, text)
	}
	_, err := fmt.Fprint(out, r.ledger(), "\n", r.counted())
	return err
}

// writeIdle writes the memory of idle connections, where it was measured, that of the
// whole process, and what is held of it to receive into.
func (r *Result) writeIdle(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	base, head := r.Manifest.Baseline, false
	for _, l := range r.Workloads {
		name := l.String()
		if l.Kind != Idle {
			continue
		}
		for _, c := range r.candidates(name) {
			if !head {
				fmt.Fprintf(w, "\nworkload\tcandidate\tbytes per connection\tto %s\tMiB in all\tMiB to receive into\t\n", base)
				head = true
			}
			median := func(f func(Sample) float64) float64 { return Median(r.Values(name, c, f)) }
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%s\t%s\t\n", name, c, median(Sample.memory), r.versus(name, c, base, Sample.memory),
				mebibytesText(median(Sample.resident)), mebibytesText(median(Sample.held)))
		}
	}
	return w.Flush()
}

// microsText is a latency in microseconds.
func microsText(us float64) string {
	if math.IsNaN(us) {
		return none
	}
	return fmt.Sprintf("%.0f", us)
}

// callsText is how many system calls there were, where a server counts them.
func callsText(n float64) string {
	if math.IsNaN(orNone(n)) {
		return none
	}
	return fmt.Sprintf("%.2f", n)
}

// Versus is the ratio of a candidate's CPU per unit to the baseline's with its
// interval, for a table: "=" says that no difference was shown, by the rule of
// Findings, and "?" that there are too few rounds for an interval. It is "" where
// there is nothing to compare.
func (r *Result) Versus(workload, candidate, baseline string) string {
	return r.versus(workload, candidate, baseline, Sample.CPU)
}

func (r *Result) versus(workload, candidate, baseline string, value func(Sample) float64) string {
	if candidate == baseline {
		return ""
	}
	ratio, p, rounds := r.compare(workload, candidate, baseline, value)
	switch {
	case rounds == 0:
		return ""
	case rounds < LeastRounds:
		return fmt.Sprintf("%.2f ?", ratio.Center)
	case !differ(ratio, p):
		return ratio.String() + " ="
	}
	return ratio.String()
}

// clientBound reports whether the generator was the limit in most samples of a
// candidate on a workload.
func (r *Result) clientBound(workload, candidate string) bool {
	return mostly(r.Of(workload, candidate), Sample.clientBound)
}

// mostly reports whether more than half of samples are so.
func mostly[T any](samples []T, so func(T) bool) bool {
	n := 0
	for _, s := range samples {
		if so(s) {
			n++
		}
	}
	return 2*n > len(samples)
}

func (r *Result) ledger() string {
	bad, again, sliced, unsent := 0, 0, 0, int64(0)
	for _, s := range r.Samples {
		if s.Slices > 0 {
			sliced++
		}
		again += s.Retries
		unsent += s.unsent()
		if s.disturbed() {
			bad++
		}
	}
	text := plural(len(r.Samples), "sample")
	if sliced > 0 {
		text += fmt.Sprintf(", %d of them in slices", sliced)
	}
	text += fmt.Sprintf("; %d taken again because of other processes, %d disturbed all the same.", again, bad)
	if unsent > 0 {
		text += fmt.Sprintf(" Not sent because too many were in flight: %s.", plural(unsent, "message"))
	}
	if errors := r.Errors(); len(errors) > 0 {
		return fmt.Sprint("ERROR LEDGER: ", errors, ". ", text)
	}
	return "Error ledger: empty, every payload was compared. " + text
}

// WriteMarkdown writes the report that is kept: the manifest, medians, ratios,
// and what became of the targets and of the aims.
func (r *Result) WriteMarkdown(out io.Writer, targets, aims []Target) error {
	var b strings.Builder
	m := r.Manifest
	fmt.Fprintf(&b, "## Manifest\n\n")
	fmt.Fprintf(&b, "| | |\n|---|---|\n")
	row := func(k, v string) { fmt.Fprintf(&b, "| %s | %s |\n", k, v) }
	row("command", "`"+m.command()+"`")
	for _, pair := range m.rows() {
		row(pair[0], pair[1])
	}

	all := r.candidates("")
	fmt.Fprintf(&b, "\n## Server CPU per unit\n\nMicroseconds, medians. The unit is a message, for poems a chunk. * marks client-bound.\n\n| workload | %s |\n|---|%s\n",
		strings.Join(all, " | "), strings.Repeat("---|", len(all)))
	grid := func(kind func(Workload) bool, cell func(w Workload, c string) string) {
		for _, w := range r.Workloads {
			if !kind(w) {
				continue
			}
			cells := make([]string, len(all))
			for i, c := range all {
				if len(r.Of(w.String(), c)) > 0 {
					cells[i] = cell(w, c)
				}
			}
			fmt.Fprintf(&b, "| %s | %s |\n", w, strings.Join(cells, " | "))
		}
	}
	times := func(w Workload) bool { return w.Kind != Idle }
	grid(times, func(w Workload, c string) string {
		bound := ""
		if r.clientBound(w.String(), c) {
			bound = "*"
		}
		return fmt.Sprintf("%.3g%s", Median(r.Values(w.String(), c, Sample.CPU)), bound)
	})
	fmt.Fprintf(&b, "\n## Latency\n\nMicroseconds, medians of p50 / p99 / p99.9; of poems the lateness of a chunk.\n\n| workload | %s |\n|---|%s\n",
		strings.Join(all, " | "), strings.Repeat("---|", len(all)))
	grid(times, func(w Workload, c string) string {
		at := func(f func(Sample) float64) float64 { return Median(r.Values(w.String(), c, f)) }
		if math.IsNaN(at(Sample.p99)) {
			return none
		}
		return fmt.Sprintf("%.0f / %.0f / %.0f", at(Sample.p50), at(Sample.p99), at(Sample.p999))
	})
	if slices.ContainsFunc(r.Workloads, func(w Workload) bool { return w.Kind == Idle }) {
		fmt.Fprintf(&b, "\n## Resident bytes per idle connection\n\nWith what each server holds to receive into, where it has begun to use that.\n\n| workload | %s |\n|---|%s\n", strings.Join(all, " | "), strings.Repeat("---|", len(all)))
		grid(func(w Workload) bool { return w.Kind == Idle }, func(w Workload, c string) string {
			return fmt.Sprintf("%.0f", Median(r.Values(w.String(), c, Sample.memory)))
		})
	}

	fmt.Fprintf(&b, "\n## Targets\n\nA target is missed where the whole 95 %% bootstrap interval of the paired ratio (or of the\nfigure) is above it; \"barely\" says that the median is, and part of the interval is not: a wide interval helps. The last column is what the C program of the\nsame I/O model, which does nothing but this workload, reaches of it in the same rounds.\n\n")
	r.judged(&b, targets)
	fmt.Fprintf(&b, "\n## Aims\n\nWhere the engines are to go beyond that, judged by the same rule.\n\n")
	r.judged(&b, aims)
	fmt.Fprintf(&b, "\n%s\n%s", r.ledger(), r.counted())
	if len(r.Skipped) > 0 {
		fmt.Fprintf(&b, "\nNot measured:\n\n")
		for _, s := range r.Skipped {
			what := s.Workload
			if what == "" {
				what = "all"
			}
			fmt.Fprintf(&b, "- %s, %s: %s\n", s.Candidate, what, s.Why)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// reachedByC is what the C program of the same model reaches of a bound against
// another library, or "".
func (r *Result) reachedByC(v Verdict) string {
	if v.Against != "net" && v.Against != "gnet" {
		return ""
	}
	if ratio, _, rounds := r.Compare(v.Workload, "c-"+v.Engine, v.Against); rounds > 0 {
		return fmt.Sprintf("%.2f", ratio.Center)
	}
	return ""
}

// judged writes what became of targets.
func (r *Result) judged(b *strings.Builder, targets []Target) {
	verdicts := r.Judge(targets)
	words := map[string]int{}
	for _, v := range verdicts {
		words[v.Word()]++
	}
	fmt.Fprintf(b, "Of %d: %d met, %d met barely, %d not met, %d not measured.\n\n",
		len(verdicts), words["met"], words["met, barely"], words["NOT met"], words["not measured"])
	fmt.Fprintf(b, "| engine | workload | figure | limit | found | verdict | C |\n|---|---|---|---|---|---|---|\n")
	for _, v := range verdicts {
		figure := v.Figure
		if v.Against != "" {
			figure += " to " + v.Against
		}
		found := ""
		if !math.IsNaN(v.Found.Center) {
			found = v.Found.String()
		}
		word := v.Word()
		if v.Rounds > 0 && !v.Met() {
			word = fmt.Sprintf("**NOT met**, by %.0f %%", 100*(v.Found.Center/v.Limit-1))
		}
		fmt.Fprintf(b, "| %s | %s | %s | %g | %s | %s | %s |\n", v.Engine, v.Workload, figure, v.Limit, found, word, r.reachedByC(v))
	}
}

// plural is n with its word.
func plural[N int | int64](n N, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}
