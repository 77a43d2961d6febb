package bench

import "time"

// backlog is how many messages of w may be in flight in an open loop: a server
// that falls behind must not cost the generator memory without end, nor the
// time to wait for all that it owes. What is beyond it is not sent, and counted.
func (w Workload) backlog() int {
	largest := int64(1)
	if w.Kind == Custom { // of which sizes are drawn, so many messages are of the mean
		request := int64(w.Spec.Request.mean(&requestBytes))
		largest = request + w.Spec.response(request, int64(w.Spec.Response.mean(&responseBytes)))
	}
	for i := range w.row() {
		largest = max(largest, w.size(i))
	}
	return int(max(min(1<<20, 256<<20/largest), 4*int64(w.Connections)))
}

// heldUp is how long the generator, which never sleeps, may be without a CPU: what
// is longer is another process, and not the server's doing.
const heldUp = 100 * time.Millisecond

// overload drives the surge for d and follows the latency after it, until it is
// back and for a quarter of d longer.
func (g *generator) overload(d time.Duration) error {
	surge, rate := g.w.Surge, g.w.Rate
	g.w.Rate = surge
	g.launch()
	f := follow(g.pacing, d, time.Duration(g.Latency.ValueAtQuantile(99)), surge, rate)
	g.follower = f
	held := false
	run := func(d time.Duration) error {
		began, cpu := g.now(), cpuTime()
		err := g.run(d)
		held = held || g.now()-began-time.Duration(cpuTime()-cpu) > heldUp
		return err
	}
	idle := g.idle
	if err := run(d); err != nil {
		return err
	}
	busy := 1 - float64(g.idle-idle)/float64(g.now()-f.began)
	g.w.Rate = rate
	g.paced, g.pacing = 0, f.drop
	for !f.over(g.now()) && g.open > 0 {
		if err := run(f.step); err != nil {
			return err
		}
	}
	if err := g.run(d / 4); err != nil {
		return err
	}
	g.follower = nil
	g.Recovery = f.result(surge, g.now())
	g.Recovery.GeneratorBusy, g.Recovery.Held = busy, held
	if !f.back {
		return nil // what it owes may take long
	}
	return g.settle()
}
