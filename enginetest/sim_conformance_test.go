//go:build linux

package enginetest

import (
	"sync"
	"testing"

	"couplet"
)

// TestSimConformance runs the suite over the simulated network in real time,
// with drivers in the manner of a proactor and of a reactor.
func TestSimConformance(t *testing.T) {
	for _, style := range []struct {
		name     string
		config   SimConfig
		networks []string
	}{
		{"proactor", SimConfig{Seed: 1, WaitAll: true, Whole: 64}, []string{"tcp4", "unix"}},
		{"reactor", SimConfig{Seed: 2, AtOnce: true, Chunks: 4, Whole: 64}, []string{"tcp4"}},
	} {
		if testing.Short() && style.name != "proactor" {
			continue
		}
		t.Run(style.name, func(t *testing.T) {
			// All engines of a case are on one network.
			var mu sync.Mutex
			nets := make(map[couplet.Engine]*SimNet)
			cases := make(map[testing.TB]*SimNet)
			Run(t, Suite{
				Name:     "sim " + style.name,
				Networks: style.networks,
				Server: func(t testing.TB, config couplet.Config) couplet.Engine {
					mu.Lock()
					defer mu.Unlock()
					n := cases[t]
					if n == nil {
						style.config.Seed++
						n = NewSimNet(style.config)
						cases[t] = n
					}
					e, err := n.Engine(config)
					if err != nil {
						t.Fatal(err)
					}
					nets[e] = n
					return e
				},
				Peers: func(server, _ couplet.Engine) Network {
					mu.Lock()
					defer mu.Unlock()
					return nets[server]
				},
			})
		})
	}
}
