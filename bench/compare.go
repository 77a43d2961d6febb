package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteComparison writes how later differs from r, for every workload and
// candidate that both have: the ratio of the medians of CPU per unit, and whether
// the Mann-Whitney test shows a difference (p < 0.05). The two were not measured
// in the same rounds, so what the machine did in between is part of it. The error
// is for results that have nothing in common.
func (r *Result) WriteComparison(out io.Writer, later *Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "workload\tcandidate\tbefore\tafter\tafter/before\tp\t\n")
	rows := 0
	for _, l := range r.Workloads {
		name := l.String()
		value, format := Sample.CPU, "%.3g us"
		if l.Kind == Idle {
			value, format = func(s Sample) float64 { return s.BytesPerConn }, "%.0f bytes"
		}
		for _, c := range r.candidates(name) {
			before, after := r.Values(name, c, value), later.Values(name, c, value)
			if len(before) == 0 || len(after) == 0 {
				continue
			}
			rows++
			verdict := "no difference shown"
			ratio, p := Median(after)/Median(before), Differ(after, before)
			if p < 0.05 && ratio < 1 {
				verdict = "less"
			} else if p < 0.05 {
				verdict = "MORE"
			}
			fmt.Fprintf(w, "%s\t%s\t"+format+"\t"+format+"\t%.2f\t%.3f\t%s\n", name, c, Median(before), Median(after), ratio, p, verdict)
		}
	}
	if rows == 0 {
		return fmt.Errorf("the two results have no workload and candidate in common%s", strings.Join(append([]string{""}, r.edited(later)...), "; "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range r.Workloads {
		if text := l.Description(); text != "" {
			fmt.Fprintf(out, "%s: %s\n", l, text)
		}
	}
	if edited := r.edited(later); len(edited) > 0 {
		fmt.Fprintf(out, "Not compared: %s.\n", strings.Join(edited, "; "))
	}
	for _, what := range []struct {
		name          string
		before, after string
	}{
		{"kernel", r.Manifest.Kernel, later.Manifest.Kernel},
		{"CPU", r.Manifest.CPU, later.Manifest.CPU},
		{"Go", r.Manifest.Go, later.Manifest.Go},
		{"commit", r.Manifest.Commit, later.Manifest.Commit},
		{"io_uring tier", r.Manifest.Tier, later.Manifest.Tier},
		{"network", r.Manifest.network(), later.Manifest.network()},
	} {
		if what.before != what.after {
			fmt.Fprintf(out, "The %s differs: %s, then %s.\n", what.name, what.before, what.after)
		}
	}
	return nil
}

// edited tells of each Custom that later has by the same name and with another
// description.
func (r *Result) edited(later *Result) (all []string) {
	for _, w := range r.Workloads {
		same := func(o Workload) bool { return o.String() == w.String() }
		namesake := func(o Workload) bool { return w.Spec != nil && o.Spec != nil && o.Spec.Name == w.Spec.Name }
		if i := slices.IndexFunc(later.Workloads, namesake); i >= 0 && !slices.ContainsFunc(later.Workloads, same) {
			all = append(all, fmt.Sprintf("%s has changed to %s", w, later.Workloads[i]))
		}
	}
	return all
}
