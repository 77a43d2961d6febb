package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"couplet/bench"
)

// A liveTable shows a measurement as it goes: a line for each workload and
// candidate, which one is being measured, and how far all of it is. It is drawn
// between samples only: to draw takes time of the CPU that the generator has.
type liveTable struct {
	screen   *screen
	baseline string
	plain    bool // no bold type
	result   bench.Result
	lines    []*liveLine
	now      []*liveLine
	began    time.Time

	done, total int           // samples
	known       int           // of total, those of plans before this one
	later       int           // of total, those of plans after this one
	past, ahead time.Duration // what samples should have taken, and will
	taking      time.Duration // what those that are measured should
}

// A liveLine is the figures of a candidate on a workload.
type liveLine struct {
	workload, candidate string
	idle                bool
	cpu, to, rate, p99  string
	have, want          int // rounds
}

func newLiveTable(s *screen, baseline string) *liveTable {
	return &liveTable{screen: s, baseline: baseline, plain: os.Getenv("NO_COLOR") != "", began: time.Now()}
}

// plan makes the table follow p, after which come others.
func (t *liveTable) plan(p *bench.Plan, others []bench.Plan) {
	t.known = t.done
	t.ahead, _ = p.Takes()
	t.later = 0
	for _, o := range others {
		takes, n := o.Takes()
		t.ahead += takes
		t.later += n
	}
	rounds := p.Rounds
	p.Next = func(done, total int, w bench.Workload, candidates []string) {
		t.next(done, total, w, candidates, rounds, p.SampleTakes(w))
	}
	p.Each = func(_, _ int, s bench.Sample) { t.each(s) }
}

// next shows what is measured from now on. takes is what one sample takes.
func (t *liveTable) next(done, total int, w bench.Workload, candidates []string, rounds int, takes time.Duration) {
	t.past, t.ahead = t.past+t.taking, max(0, t.ahead-t.taking)
	t.taking = time.Duration(len(candidates)) * takes
	t.done, t.total = t.known+done, t.known+total+t.later
	t.now = t.now[:0]
	for _, candidate := range candidates {
		l := t.lineOf(w, candidate)
		l.want = rounds
		t.now = append(t.now, l)
	}
	t.screen.draw(t.text())
}

// lineOf is the line of a candidate on w, which it makes if need be.
func (t *liveTable) lineOf(w bench.Workload, candidate string) *liveLine {
	name := w.String()
	l := t.line(name, candidate)
	if l == nil {
		l = &liveLine{workload: name, candidate: candidate, idle: w.Kind == bench.Idle}
		// The candidates of a workload stand together.
		at := len(t.lines)
		for at > 0 && t.lines[at-1].workload != name && t.line(name, "") != nil {
			at--
		}
		t.lines = slices.Insert(t.lines, at, l)
	}
	return l
}

// line is that of a candidate on a workload, or nil; "" is any candidate.
func (t *liveTable) line(workload, candidate string) *liveLine {
	for _, l := range t.lines {
		if l.workload == workload && (candidate == "" || l.candidate == candidate) {
			return l
		}
	}
	return nil
}

// each takes a sample up.
func (t *liveTable) each(s bench.Sample) {
	t.result.Samples = append(t.result.Samples, s)
	for _, l := range t.lines {
		if l.workload == s.Workload && (l.candidate == s.Candidate || s.Candidate == t.baseline) {
			l.update(&t.result, t.baseline)
		}
	}
}

// update takes the medians of what there is.
func (l *liveLine) update(r *bench.Result, baseline string) {
	median := func(f func(bench.Sample) float64) float64 {
		return bench.Median(r.Values(l.workload, l.candidate, f))
	}
	l.have = len(r.Of(l.workload, l.candidate))
	if l.have == 0 {
		return // all had errors
	}
	if l.idle {
		l.cpu = fmt.Sprintf("%.0f B/conn", median(func(s bench.Sample) float64 { return s.BytesPerConn }))
		return
	}
	l.cpu = fmt.Sprintf("%.3g", median(bench.Sample.CPU))
	l.rate = fmt.Sprintf("%.0f", median(bench.Sample.Rate))
	if p99 := median(func(s bench.Sample) float64 { return s.P99US }); p99 > 0 { // a stream has none
		l.p99 = fmt.Sprintf("%.0f", p99)
	}
	if l.candidate == baseline {
		return
	}
	base := r.Values(l.workload, baseline, bench.Sample.CPU)
	switch {
	case len(base) == 0:
	case min(l.have, len(base)) < bench.LeastRounds: // an interval would say nothing
		l.to = fmt.Sprintf("%.2f", median(bench.Sample.CPU)/bench.Median(base))
	default:
		l.to = cmp.Or(r.Versus(l.workload, l.candidate, baseline), l.to)
	}
}

// text is the table as lines: as many of its own as there is room for, those
// that changed last.
func (t *liveTable) text() []string {
	rows := [][]string{{"workload", "candidate", "CPU us", "to " + t.baseline, "rate/s", "p99 us", "rounds"}}
	at := 0 // the last that is measured
	for i, l := range t.lines {
		rows = append(rows, []string{l.workload, l.candidate, l.cpu, l.to, l.rate, l.p99, fmt.Sprintf("%d/%d", l.have, l.want)})
		if slices.Contains(t.now, l) {
			at = i + 1
		}
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for k, cell := range row {
			widths[k] = max(widths[k], len(cell))
		}
	}
	var table []string
	for i, row := range rows {
		mark := "  "
		if i > 0 && slices.Contains(t.now, t.lines[i-1]) {
			mark = "> "
		}
		line := mark
		for k, cell := range row {
			if k == 2 || k > 3 {
				line += fmt.Sprintf("%*s  ", widths[k], cell)
			} else {
				line += fmt.Sprintf("%-*s  ", widths[k], cell)
			}
		}
		if mark == "> " && !t.plain {
			line = "\x1b[1m" + line + "\x1b[0m"
		}
		table = append(table, line)
	}
	room, _ := t.screen.room()
	if most := room - 2; len(table) > most && most > 1 { // the head and the last line take one each
		from := min(max(1, at-most+2), len(table)-most+1)
		table = append([]string{table[0]}, table[from:from+most-1]...)
	}
	return append(table, t.progress())
}

// progress is how far the measurement is.
func (t *liveTable) progress() string {
	left := t.taking + max(0, t.ahead-t.taking)
	took := time.Since(t.began)
	// What samples take here is known better after some of them.
	if t.past > 5*time.Second {
		left = time.Duration(float64(left) * min(3, max(.5, float64(took)/float64(t.past))))
	}
	return fmt.Sprintf("%d of %s, %s gone, about %s left", t.done, plural(t.total, "sample"), roundly(took), roundly(left))
}

// end takes the table away: the report comes in its place.
func (t *liveTable) end() { t.screen.clear() }

// roundly is d for people: "12 s", "7 min".
func roundly(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%.0f s", max(0, d.Seconds()))
	case d < 10*time.Minute:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Minutes()), ".0") + " min"
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}
