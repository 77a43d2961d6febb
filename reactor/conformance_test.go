package reactor_test

import (
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

func TestModel(t *testing.T) { enginetest.Model(t, suite()) }
