package bench_test

import (
	"slices"
	"testing"

	"couplet"
	"couplet/bench"
	"couplet/engines"
)

// Dealt out in turn, or to the loop that has the fewest, connections are even; by
// the kernel's hash they are only roughly so, and each is served by somebody.
func TestSpreadIsAsEvenAsItSays(t *testing.T) {
	for _, engine := range engines.Names() {
		for _, c := range []struct {
			spread couplet.Spread
			apart  int
		}{
			{couplet.RoundRobin, 1},
			{couplet.LeastConnections, 1},
			{couplet.ReusePort, 90},
		} {
			per, err := bench.Evenness(engine, c.spread, 3, 90)
			if err != nil {
				t.Fatal(engine, err)
			}
			if slices.Max(per)-slices.Min(per) > c.apart || per[0]+per[1]+per[2] != 90 {
				t.Errorf("%s, spread %d: %v", engine, c.spread, per)
			}
		}
	}
}
