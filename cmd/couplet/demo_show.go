package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"couplet"
	"couplet/poetry"
)

// A stage shows the demo as it goes: on a terminal a bar for each poem of each
// engine, elsewhere a line for each poem that has come.
type stage struct {
	out     io.Writer
	parts   []part
	engines []couplet.Engine
	bars    *bars // nil: lines
}

func newStage(out io.Writer, parts []part, engines []couplet.Engine) *stage {
	s := &stage{out: out, parts: parts, engines: engines}
	if !isLive(out) {
		return s
	}
	b := newBars(out)
	for _, e := range engines {
		for _, p := range parts {
			b.add(label(e, allAtOnce, p), len(p.text))
		}
	}
	b.show()
	s.bars = b
	return s
}

func label(e couplet.Engine, way string, p part) string {
	return fmt.Sprintf("%-9s %-11s %s", e.Name(), way, p.title)
}

// begin empties the bars of engine i for the next way.
func (s *stage) begin(i int, way string) {
	if s.bars == nil {
		return
	}
	for k, p := range s.parts {
		s.bars.rename(i*len(s.parts)+k, label(s.engines[i], way, p))
		s.bars.set(i*len(s.parts)+k, 0, "")
	}
}

func (s *stage) data(i int, a poetry.Arrival) {
	if s.bars != nil {
		s.bars.set(i*len(s.parts)+a.Task-1, a.Total, "")
	}
}

func (s *stage) done(i int, way string, r poetry.Result) {
	if s.bars != nil {
		state := clock(r.Elapsed)
		if r.Err != nil {
			state = "failed"
		}
		s.bars.set(i*len(s.parts)+r.Task-1, len(r.Poem), state)
		return
	}
	if r.Err == nil {
		fmt.Fprintf(s.out, "%s, %s: %d bytes of %s in %s\n", s.engines[i].Name(), way, len(r.Poem), s.parts[r.Task-1].title, clock(r.Elapsed))
	}
}

func (s *stage) finish(i int, way string, r poetry.Report) {
	if s.bars == nil {
		fmt.Fprintf(s.out, "%s, %s: got %d poems in %s\n", s.engines[i].Name(), way, r.Got(), clock(r.Elapsed))
	}
}

func (s *stage) end() {
	if s.bars != nil {
		s.bars.end()
	}
}

// table writes the engines side by side.
func (d *demo) table(outcomes []demoOutcome) {
	row := func(way, what string, value func(o demoOutcome) string) {
		line := fmt.Sprintf("%-13s%-24s", way, what)
		for _, o := range outcomes {
			line += fmt.Sprintf("%12s", value(o))
		}
		fmt.Fprintln(d.stdout, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(d.stdout)
	row("", "", func(o demoOutcome) string { return o.Engine })
	for _, way := range []struct {
		name string
		of   func(o demoOutcome) demoWay
	}{
		{allAtOnce, func(o demoOutcome) demoWay { return o.AllAtOnce }},
		{oneByOne, func(o demoOutcome) demoWay { return o.OneByOne }},
	} {
		number := func(get func(demoWay) int64) func(demoOutcome) string {
			return func(o demoOutcome) string { return fmt.Sprint(get(way.of(o))) }
		}
		row(way.name, "time", func(o demoOutcome) string { return fmt.Sprintf("%.2f s", way.of(o).Seconds) })
		row("", "bytes", number(func(w demoWay) int64 { return w.Bytes }))
		row("", "kernel crossings", number(func(w demoWay) int64 { return w.Crossings }))
		row("", "CPU", func(o demoOutcome) string { return cpuText(way.of(o).CPU) })
		row("", "turns from poem to poem", number(func(w demoWay) int64 { return int64(w.Switches) }))
	}
	fmt.Fprint(d.stdout, `
Servers and client share one loop. All at once takes as long as the slowest poem,
one by one takes the sum. Crossings are system calls; for goroutines only those that
move bytes are counted, not the Go runtime's own waiting, and there is no one thread
whose CPU time could be told.

`)
	for _, o := range outcomes {
		fmt.Fprintf(d.stdout, "%s: %s\n", o.Engine, o.Describe)
	}
}

func cpuText(seconds *float64) string {
	if seconds == nil {
		return "n/a"
	}
	return time.Duration(*seconds * 1e9).Round(100 * time.Microsecond).String()
}
