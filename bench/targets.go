package bench

import "fmt"

// A Target is a bound that an engine is to keep: on a workload, a figure of
// Engine, or its ratio to Against.
type Target struct {
	// Workload is the shape's name, Engine who is judged.
	Workload, Engine string
	// Against is the candidate of the ratio of CPU per unit, or BetterC; where it is
	// "" the figure itself is bounded.
	Against string
	// Figure is "CPU", "p99 lateness, ms" or "bytes per connection".
	Figure string
	// Limit is the bound: at most this.
	Limit float64
}

// BetterC stands for that C program which costs less on the workload.
const BetterC = "the better C program"

// Targets are what couplet's engines must reach on the shapes of Table.
func Targets() []Target { return bounds(false) }

// Aims are where they are to go beyond that.
func Aims() []Target { return bounds(true) }

func bounds(aims bool) []Target {
	var all []Target
	for _, engine := range []string{"uring", "epoll"} {
		for _, w := range Table() {
			w, _ = w.WithDefaults()
			// What uring and epoll must reach, and both are to; 0 is no bound.
			add := func(against, figure string, uring, epoll, aim float64) {
				limit := uring
				if engine == "epoll" {
					limit = epoll
				}
				if aims {
					limit = aim
				}
				if limit > 0 {
					all = append(all, Target{w.String(), engine, against, figure, limit})
				}
			}
			switch {
			case w.Kind == Poems:
				add("net", "CPU", .70, .75, .60)
				add("", "p99 lateness, ms", 10, 6, 3)
				continue
			case w.Kind == Idle:
				add("", "bytes per connection", 500, 500, 250)
				continue
			case w.Kind != Echo:
				continue // measured, without a bound
			case w.Connections == 1:
				add("gnet", "CPU", 1.05, 1, 0)
				add(BetterC, "CPU", 0, 0, 1.15)
			case w.Size == 64 && w.Depth == 1:
				add("c-"+engine, "CPU", 1.15, 1.15, 1.05)
				add("gnet", "CPU", 1, 1, .88)
			case w.Size == 64:
				add("c-"+engine, "CPU", 1.15, 1.15, 1.05)
				add("gnet", "CPU", .90, .92, .80)
			case w.Size == 4<<10:
				add("gnet", "CPU", 1, 1, .92)
				add(BetterC, "CPU", 0, 0, 1.05)
			default:
				add("gnet", "CPU", 1.05, 1, .92)
				add("c-epoll", "CPU", 0, 0, 1.05)
			}
			add("net", "CPU", .85, .90, .75)
		}
	}
	return all
}

// A Verdict is what became of a Target.
type Verdict struct {
	Target
	// Found is the ratio or the figure.
	Found Interval
	// Rounds is how many rounds it is of; zero: it was not measured.
	Rounds int
}

// Judge finds out what became of the targets.
func (r *Result) Judge(targets []Target) []Verdict {
	var verdicts []Verdict
	for _, t := range targets {
		v := Verdict{Target: t}
		if t.Against == BetterC {
			t.Against = "c-uring"
			cost := func(c string) float64 { return Median(r.Values(t.Workload, c, Sample.CPU)) }
			if !(cost("c-uring") <= cost("c-epoll")) {
				t.Against = "c-epoll"
			}
		}
		if t.Against != "" {
			v.Found, _, v.Rounds = r.Compare(t.Workload, t.Engine, t.Against)
		} else {
			values := r.Values(t.Workload, t.Engine, func(s Sample) float64 {
				if t.Figure == "bytes per connection" {
					return s.BytesPerConn
				}
				return s.P99US / 1000
			})
			ones := make([]float64, len(values))
			for i := range ones {
				ones[i] = 1
			}
			v.Found, v.Rounds = Ratio(values, ones), len(values)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// Met reports whether the target counts as reached: not all of the interval is above it.
func (v Verdict) Met() bool { return v.Rounds > 0 && v.Found.Lo <= v.Limit }

// Word is the verdict in words; "met, barely" is where the median is above the
// limit and the beginning of the interval is not.
func (v Verdict) Word() string {
	switch {
	case v.Rounds == 0:
		return "not measured"
	case !v.Met():
		return "NOT met"
	case v.Found.Center > v.Limit:
		return "met, barely"
	}
	return "met"
}

// String is the interval as "0.91 [0.88, 0.95]".
func (i Interval) String() string {
	verb := "%.3g"
	switch {
	case i.Center < 10:
		verb = "%.2f"
	case i.Center >= 1000:
		verb = "%.0f"
	}
	return fmt.Sprintf(verb+" ["+verb+", "+verb+"]", i.Center, i.Lo, i.Hi)
}
