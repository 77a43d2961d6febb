package bench_test

import (
	"testing"
	"time"

	"couplet/bench"
)

func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		w    bench.Workload
		want string
	}{
		{bench.Workload{Kind: bench.Echo}, "echo 64 x 64 B, depth 1"},
		{bench.Workload{Kind: bench.Pipelined, Size: 4096}, "echo 64 x 4 KiB, depth 16"},
		{bench.Workload{Kind: bench.Stream, Connections: 1}, "stream 1 GiB to 1"},
		{bench.Workload{Kind: bench.Poems, Connections: 3}, "poems 3 x 10 B per 100ms"},
		{bench.Workload{Kind: bench.Churn}, "churn 64 x 64 B"},
	} {
		w, err := c.w.WithDefaults()
		if err != nil || w.String() != c.want {
			t.Errorf("%+v is %q, %v; want %q", c.w, w, err, c.want)
		}
	}
	for _, w := range []bench.Workload{
		{}, {Kind: "no"}, {Kind: bench.Echo, Connections: -1}, {Kind: bench.Echo, Size: 1 << 30},
		{Kind: bench.Poems, Delay: -time.Second}, {Kind: bench.Poems, Size: 1 << 20},
	} {
		if _, err := w.WithDefaults(); err == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
}
