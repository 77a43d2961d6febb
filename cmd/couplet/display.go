package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/cheggaaa/pb/v3"

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
	if quiet || !isLive(out) {
		return l
	}
	b := newBars(out)
	for i, a := range addrs {
		b.add(fmt.Sprintf("Task %d: %s", i+1, a), 0)
	}
	b.show()
	return &barDisplay{lineDisplay: l, bars: b}
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
		fmt.Fprintf(l.errs, "Task %d: failed: %s%s\n", r.Task, oneLine(r.Err.Error()), missingServer(r))
	case l.quiet:
	case l.sequential:
		fmt.Fprintf(l.out, "Task %d: got %d bytes of poetry from %s in %s\n", r.Task, len(r.Poem), r.Addr, clock(r.Elapsed))
	default:
		fmt.Fprintf(l.out, "Task %d finished\n", r.Task)
	}
}

// missingServer is how to start the server that r did not find, or "".
func missingServer(r poetry.Result) string {
	if !errors.Is(r.Err, syscall.ECONNREFUSED) && (r.Addr.Network != "unix" || !errors.Is(r.Err, syscall.ENOENT)) {
		return ""
	}
	where := "--unix " + r.Addr.Address
	if host, port, err := net.SplitHostPort(r.Addr.Address); err == nil && r.Addr.Network == "tcp" {
		where = "--port " + port
		if host != "127.0.0.1" && host != "localhost" {
			where = "--iface " + host + " " + where
		}
	}
	return "; is a server there? couplet serve poem " + where
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
	screen *screen
	all    []*pb.ProgressBar
	stop   chan struct{}
	drawer sync.WaitGroup
}

// Where a total is not known, as on the poem wire, there is no length to
// draw: the bytes count up.
const (
	countTemplate = `{{string . "label" | printf "%-32s"}} {{cycle . "·  " "·· " "···" " ··" "  ·" "   "}} {{counters . | printf "%10s"}} bytes  {{string . "state"}}`
	totalTemplate = `{{string . "label" | printf "%-32s"}} {{bar . "|" "█" "█" " " "|"}} {{counters . | printf "%11s"}}  {{string . "state" | printf "%-6s"}}`
)

func newBars(out io.Writer) *bars {
	return &bars{screen: newScreen(out), stop: make(chan struct{})}
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

// show draws the bars ten times a second, until end.
func (b *bars) show() {
	b.drawer.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			b.draw()
			select {
			case <-tick.C:
			case <-b.stop:
				return
			}
		}
	})
}

func (b *bars) draw() {
	_, width := b.screen.room()
	lines := make([]string, len(b.all))
	for i, bar := range b.all {
		lines[i] = bar.SetWidth(width).String()
	}
	b.screen.draw(lines)
}

// set moves bar i.
func (b *bars) set(i, current int, state string) {
	b.all[i].SetCurrent(int64(current)).Set("state", state)
}

// end draws the bars for the last time.
func (b *bars) end() {
	close(b.stop)
	b.drawer.Wait()
	b.draw()
}

// rename gives bar i another label.
func (b *bars) rename(i int, label string) { b.all[i].Set("label", label) }
