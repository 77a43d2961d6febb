package bench

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteComparison writes how later differs from r, for every workload and
// candidate that both have good samples of: the ratio of the medians of CPU per unit
// (of memory for Idle) with its interval, and whether there is a difference, by the
// rule of Findings. The two were not measured in the same rounds, so what the machine
// did in between is part of it. After that comes what only one of them has, which
// was interrupted, and in what their manifests differ. The error is for results that
// have nothing in common.
func (r *Result) WriteComparison(out io.Writer, later *Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "workload\tcandidate\tfigure\tbefore\tafter\tafter/before\tp\t\n")
	rows := 0
	for _, l := range r.Workloads {
		name := l.String()
		figure, value, format := "CPU us per "+l.Unit(), Sample.CPU, "%.3g"
		if l.Kind == Idle {
			figure, value, format = "bytes per connection", Sample.memory, "%.0f"
		}
		for _, c := range r.candidates(name) {
			before, after := r.Values(name, c, value), later.Values(name, c, value)
			if len(before) == 0 || len(after) == 0 {
				continue
			}
			rows++
			ratio, p := RatioOfMedians(after, before), Differ(after, before)
			verdict := "no difference shown"
			switch {
			case min(len(before), len(after)) < LeastRounds:
				verdict = "too few rounds to tell"
			case !differ(ratio, p):
			case ratio.Center < 1:
				verdict = "less"
			default:
				verdict = "MORE"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t"+format+"\t"+format+"\t%s\t%.3f\t%s\n", name, c, figure, Median(before), Median(after), ratio, p, verdict)
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
	for _, side := range []struct {
		name       string
		one, other *Result
	}{{"before", r, later}, {"after", later, r}} {
		if alone := side.one.alone(side.other); len(alone) > 0 {
			fmt.Fprintf(out, "Not compared, since only the result %s has good samples of it: %s.\n", side.name, strings.Join(alone, "; "))
		}
		if side.one.Partial {
			fmt.Fprintf(out, "The result %s is partial: its run was interrupted.\n", side.name)
		}
	}
	before, after := r.Manifest.conditions(), later.Manifest.conditions()
	both := maps.Clone(before)
	maps.Copy(both, after)
	for _, k := range slices.Sorted(maps.Keys(both)) {
		if before[k] != after[k] {
			fmt.Fprintf(out, "The manifests differ in %s: %s, then %s.\n", k, cmp.Or(before[k], none), cmp.Or(after[k], none))
		}
	}
	return nil
}

// alone names what r has good samples of and other has not: candidates, workloads,
// and what is left of a candidate on a workload.
func (r *Result) alone(other *Result) (all []string) {
	has := func(r *Result, workload, candidate string) bool {
		return slices.ContainsFunc(r.Samples, func(s Sample) bool {
			return (workload == "" || s.Workload == workload) && (candidate == "" || s.Candidate == candidate) && len(s.Errors) == 0
		})
	}
	alone := func(workload, candidate string) bool {
		return has(r, workload, candidate) && !has(other, workload, candidate)
	}
	names := r.candidates("")
	for _, c := range names {
		if alone("", c) {
			all = append(all, c)
		}
	}
	for _, w := range r.Workloads {
		name := w.String()
		if alone(name, "") {
			if w.changed(other) == "" { // that is told already
				all = append(all, name)
			}
			continue
		}
		for _, c := range names {
			if alone(name, c) && !alone("", c) {
				all = append(all, c+" on "+name)
			}
		}
	}
	return all
}

// conditions are what should be the same in two results that are compared.
func (m Manifest) conditions() map[string]string {
	all := map[string]string{}
	for _, row := range m.rows() {
		all[row[0]] = row[1]
	}
	for _, k := range []string{"begun", "took", "baseline", "load before", "load after", "round trip", "server's machine", "generator's machine"} {
		delete(all, k)
	}
	for engine := range m.Engines {
		delete(all, "engine "+engine)
	}
	all["network"] = m.network()
	return all
}

// edited tells of each Custom that later has by the same name and with another
// description.
func (r *Result) edited(later *Result) (all []string) {
	for _, w := range r.Workloads {
		if is := w.changed(later); is != "" {
			all = append(all, fmt.Sprintf("%s has changed to %s", w, is))
		}
	}
	return all
}

// changed is the workload of r that has the name of w, a Custom, and another
// description, or "".
func (w Workload) changed(r *Result) string {
	same := func(o Workload) bool { return o.String() == w.String() }
	namesake := func(o Workload) bool { return w.Spec != nil && o.Spec != nil && o.Spec.Name == w.Spec.Name }
	if i := slices.IndexFunc(r.Workloads, namesake); i >= 0 && !slices.ContainsFunc(r.Workloads, same) {
		return r.Workloads[i].String()
	}
	return ""
}
