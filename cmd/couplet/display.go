package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cheggaaa/pb/v3"
	"github.com/mattn/go-isatty"

	"couplet/poetry"
)

// A display shows fetches as they go.
type display interface {
	start(task int, addr poetry.Addr)
	data(a poetry.Arrival)
	done(r poetry.Result)
	end(r poetry.Report)
}

// newDisplay is live bars where out is a terminal, and the tutorial's lines
// elsewhere. Failures go to errs.
func newDisplay(out, errs io.Writer, quiet, sequential bool, addrs []poetry.Addr) display {
	l := &lineDisplay{out: out, errs: errs, quiet: quiet, sequential: sequential}
	if quiet || !isTerminal(out) {
		return l
	}
	b := newBars(out)
	for i, a := range addrs {
		b.add(fmt.Sprintf("Task %d: %s", i+1, a), 0)
	}
	if !b.show() {
		return l
	}
	return &barDisplay{lineDisplay: l, bars: b}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// lineDisplay writes the lines of the tutorial's clients.
type lineDisplay struct {
	out, errs         io.Writer
	quiet, sequential bool
}

func (l *lineDisplay) start(task int, addr poetry.Addr) {
	if l.sequential && !l.quiet {
		fmt.Fprintf(l.out, "Task %d: get poetry from: %s\n", task, addr)
	}
}

func (l *lineDisplay) data(a poetry.Arrival) {
	if !l.quiet {
		fmt.Fprintf(l.out, "Task %d: got %d bytes of poetry from %s\n", a.Task, a.Bytes, a.Addr)
	}
}

func (l *lineDisplay) done(r poetry.Result) {
	switch {
	case r.Err != nil:
		fmt.Fprintf(l.errs, "Task %d: failed: %s\n", r.Task, oneLine(r.Err.Error()))
	case l.quiet:
	case l.sequential:
		fmt.Fprintf(l.out, "Task %d: got %d bytes of poetry from %s in %s\n", r.Task, len(r.Poem), r.Addr, clock(r.Elapsed))
	default:
		fmt.Fprintf(l.out, "Task %d finished\n", r.Task)
	}
}

func (l *lineDisplay) end(r poetry.Report) {
	for _, p := range r.Results {
		if p.Err == nil {
			fmt.Fprintf(l.out, "Task %d: %d bytes of poetry\n", p.Task, len(p.Poem))
		}
	}
	of := ""
	if r.Got() < len(r.Results) {
		of = fmt.Sprintf(" of %d", len(r.Results))
	}
	fmt.Fprintf(l.out, "Got %d%s poems in %s\n", r.Got(), of, clock(r.Elapsed))
}

// clock is d as Python's timedelta prints it: 0:00:10.133169.
func clock(d time.Duration) string {
	d = d.Round(time.Microsecond)
	s := d / time.Second
	return fmt.Sprintf("%d:%02d:%02d.%06d", s/3600, s/60%60, s%60, d%time.Second/time.Microsecond)
}

// barDisplay shows a bar for each task. What must be said in lines is said
// below them.
type barDisplay struct {
	*lineDisplay
	bars   *bars
	failed []poetry.Result
}

func (b *barDisplay) start(task int, _ poetry.Addr) { b.bars.set(task-1, 0, "") }

func (b *barDisplay) data(a poetry.Arrival) { b.bars.set(a.Task-1, a.Total, "") }

func (b *barDisplay) done(r poetry.Result) {
	if r.Err != nil {
		b.failed = append(b.failed, r)
		b.bars.set(r.Task-1, len(r.Poem), "failed")
		return
	}
	b.bars.set(r.Task-1, len(r.Poem), clock(r.Elapsed))
}

func (b *barDisplay) end(r poetry.Report) {
	b.bars.end()
	for _, r := range b.failed {
		b.lineDisplay.done(r)
	}
	b.lineDisplay.end(r)
}

// bars are live bars on a terminal, one below the other.
type bars struct {
	pool *pb.Pool
	all  []*pb.ProgressBar
}

// Where a total is not known, as on the poem wire, there is no length to
// draw: the bytes count up.
const (
	countTemplate = `{{string . "label" | printf "%-32s"}} {{cycle . "·  " "·· " "···" " ··" "  ·" "   "}} {{counters . | printf "%10s"}} bytes  {{string . "state"}}`
	totalTemplate = `{{string . "label" | printf "%-32s"}} {{bar . "|" "█" "█" " " "|"}} {{counters . | printf "%11s"}}  {{string . "state" | printf "%-6s"}}`
)

func newBars(out io.Writer) *bars {
	p := pb.NewPool()
	p.Output = out
	return &bars{pool: p}
}

// add adds a bar; total is 0 where it is not known.
func (b *bars) add(label string, total int) {
	t := pb.ProgressBarTemplate(countTemplate)
	if total > 0 {
		t = totalTemplate
	}
	bar := t.New(total)
	bar.Set("label", label).Set("state", "")
	b.all = append(b.all, bar)
}

// show begins; it reports whether the terminal takes part.
func (b *bars) show() bool {
	if b.pool.Start() != nil {
		return false
	}
	b.pool.RefreshRate = 100 * time.Millisecond
	b.pool.Add(b.all...)
	return true
}

// set moves bar i.
func (b *bars) set(i, current int, state string) {
	b.all[i].SetCurrent(int64(current)).Set("state", state)
}

// end draws the bars for the last time.
func (b *bars) end() {
	for _, bar := range b.all {
		bar.Finish()
	}
	b.pool.Stop()
}

// rename gives bar i another label.
func (b *bars) rename(i int, label string) { b.all[i].Set("label", label) }
