package bench

import "time"

// times are how long a sample of w warms up, and how long it counts. A schedule
// of poems is known when some chunks have come, the storm in which all connected
// has to be over, which takes the longer the more they are, and each client counts
// only a few of them in a second. With Brief both are given the least of that which
// says something.
func (p Plan) times(w Workload) (warm, duration time.Duration) {
	warm, duration = p.Warm, p.Duration
	first, chunks := min(30, 10+w.Connections/500), 20
	warmest, longest := 10*time.Second, 30*time.Second
	if p.Brief {
		first, chunks, warmest, longest = 10, 10, time.Second, 2*time.Second
	}
	switch w.Kind {
	case Poems:
		warm, duration = max(warm, time.Duration(first)*w.Delay), max(duration, time.Duration(chunks)*w.Delay)
	case Custom:
		// Each connection is to get through some pauses, within reason.
		think := time.Duration(w.Spec.Think.mean(&thinkTime))
		warm, duration = max(warm, min(think, warmest)), max(duration, min(5*think, longest))
	}
	return warm, duration
}

// SampleTakes is about how long a sample of w takes, where the machine is quiet:
// with its process and its connections, and with the time that recovery is
// likely to need.
func (p Plan) SampleTakes(w Workload) time.Duration {
	if q, err := p.withDefaults(); err == nil {
		p = q
	}
	if full, err := w.WithDefaults(); err == nil {
		w = full
	}
	warm, duration := p.times(w)
	takes := 100*time.Millisecond + time.Duration(w.Connections)*50*time.Microsecond
	switch {
	case w.Kind == Idle:
		return 2*takes + 200*time.Millisecond // they come a few at a time
	case w.Kind == Stream:
		return takes + time.Duration(w.Total) // a nanosecond for a byte
	case w.Surge > 0:
		over := 1. // how much more than the knee it is: that is left undone
		if w.Share > 0 {
			over = w.Surge*w.Share/w.Rate - 1
		}
		return takes + warm + 2*duration + time.Duration(2*over*float64(duration))
	}
	if p.sliced(w, len(p.Candidates)) {
		n, _, lead := slicesOf(w, duration)
		takes += time.Duration(n) * lead
	}
	return takes + warm + duration
}

// Takes is about how long all samples of p take, and how many there are. It is
// told before it is known which candidates can be built.
func (p Plan) Takes() (takes time.Duration, samples int) {
	if q, err := p.withDefaults(); err == nil {
		p = q
	}
	for _, w := range p.Workloads {
		for _, name := range p.Candidates {
			if c, err := find(name); err == nil && c.serves(w) {
				takes += time.Duration(p.Rounds) * p.SampleTakes(w)
				samples += p.Rounds
				if p.audits(w, c) {
					takes += p.auditing().SampleTakes(w)
				}
			}
		}
	}
	return takes, samples
}

// A spare is the time that is there for samples that are taken again.
type spare struct{ limit, used time.Duration }

// await waits for a quiet machine before a sample is taken again that takes so
// long, and reports whether there is time for both: for the waiting never more
// than 30 s, nor more than a quarter of what is left, so that one noisy minute
// does not use it up.
func (s *spare) await(takes time.Duration, quiet func(limit time.Duration)) bool {
	wait := 30 * time.Second
	if s.limit > 0 {
		wait = min(wait, (s.limit-s.used-takes)/4)
	}
	if wait < time.Second {
		return false
	}
	began := time.Now()
	quiet(wait)
	s.used += time.Since(began) + takes
	return true
}
