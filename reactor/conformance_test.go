package reactor_test

import (
	"os"
	"testing"

	"couplet"
	"couplet/enginetest"
	"couplet/reactor"
)

func open(t testing.TB, cfg couplet.Config) couplet.Engine {
	e, err := reactor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func suite() enginetest.Suite {
	return enginetest.Suite{Name: "epoll", Server: open, Networks: []string{"tcp4", "tcp6", "unix"}}
}

func TestConformance(t *testing.T) { enginetest.Run(t, suite()) }

func TestConformanceTight(t *testing.T) {
	if os.Getenv("COUPLET_FULL") == "" {
		t.Skip("the whole suite runs so with COUPLET_FULL=1, as .ci/run full does")
	}
	enginetest.Run(t, suite().Tight())
}

func TestModel(t *testing.T) { enginetest.Model(t, suite()) }

// edge is the suite with what couplet.Ablation exchanges.
func edge() enginetest.Suite {
	skip := map[int]string{118: "takes long, and is the loop's"}
	return enginetest.Suite{Name: "epoll-edge", Networks: []string{"tcp4", "unix"}, Skip: skip, Server: func(t testing.TB, cfg couplet.Config) couplet.Engine {
		cfg.Ablation = couplet.Ablation{EdgeTriggered: true}
		return open(t, cfg)
	}}
}

func TestConformanceEdgeTriggered(t *testing.T) { enginetest.Run(t, edge()) }

func TestModelEdgeTriggered(t *testing.T) { enginetest.Model(t, edge()) }
