package bench

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of the connections of a mixed workload each had one size, so a server that let the large
// messages wait had fewer of them among those that its CPU time was divided by.
func TestAMixIsTheSameForEverybody(t *testing.T) {
	w := Workload{Kind: Mixed, Connections: 40, Size: 64}
	want := map[int64]int{64: 14, 4 << 10: 5, 64 << 10: 1}
	for i, ends := range w.periods() {
		c := client{ends: ends}
		sizes := map[int64]int{}
		for k := range int64(20) {
			sizes[c.end(k+1)-c.end(k)]++
		}
		if !maps.Equal(sizes, want) {
			t.Errorf("the connections %d, %d ... send %v in a row, want %v", i, i+20, sizes, want)
		}
		for k := range int64(60) {
			at := c.end(k)
			if c.messages(at) != k || at > 0 && c.messages(at-1) != k-1 {
				t.Errorf("%d messages end after %d bytes, where there are %d, and before that %d", k, at, c.messages(at), c.messages(at-1))
			}
		}
	}
	if all := (Workload{Kind: Echo, Connections: 40, Size: 64}).periods(); len(all) != 1 || !slices.Equal(all[0], []int64{64}) {
		t.Errorf("the period of an echo is %v", all)
	}
}

// The CPUs were 0 and 1 wherever the process may run, and whatever they share.
func TestServerAndGeneratorAreOnCoresOfTheirOwn(t *testing.T) {
	pairs := func(cpu int) string { return fmt.Sprint(cpu / 2) } // as virtual machines have them
	halves := func(cpu int) string { return fmt.Sprint(cpu % 4) }
	own := func(cpu int) string { return fmt.Sprint(cpu) }
	for _, c := range []struct {
		may               []int
		core              func(int) string
		server, generator int
	}{
		{[]int{0, 1, 2, 3}, own, 0, 1},
		{[]int{0, 1, 2, 3}, pairs, 0, 2},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7}, halves, 0, 1},
		{[]int{0, 4, 5}, halves, 0, 5},
		{[]int{4, 6}, own, 4, 6},
		{[]int{2, 3}, pairs, 2, 3},
		{[]int{700}, own, 700, 700},
		{nil, own, 0, 0},
	} {
		var may unix.CPUSet
		for _, cpu := range c.may {
			may.Set(cpu)
		}
		if server, generator := apart(may, c.core); server != c.server || generator != c.generator {
			t.Errorf("of %v they are on %d and %d, want %d and %d", c.may, server, generator, c.server, c.generator)
		}
	}
}

// A poem of large chunks was over before its sample.
func TestPoemsLastAsLongAsTheirSamples(t *testing.T) {
	for _, c := range []struct {
		size     int
		duration time.Duration
		fits     bool
	}{
		{10, 10 * time.Minute, true},
		{65521, 10 * time.Second, true},
		{65521, time.Minute, false},
		{1000, 30 * time.Second, true},
		{1000, 2 * time.Minute, false},
	} {
		p, err := Plan{Workloads: []Workload{{Kind: Poems, Connections: 1, Size: c.size}}, Duration: c.duration}.withDefaults()
		if (err == nil) != c.fits {
			t.Errorf("%d bytes for %v: %v", c.size, c.duration, err)
			continue
		}
		if w := p.Workloads; err == nil && w[0].poemLasts() < p.Warm+p.Duration+beforePoems {
			t.Errorf("%d bytes for %v: the poem has only %d", c.size, c.duration, w[0].poemBytes())
		}
	}
}
