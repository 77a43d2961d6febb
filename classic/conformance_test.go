package classic_test

import (
	"testing"

	"couplet"
	"couplet/classic"
	"couplet/enginetest"
)

func open(t testing.TB, cfg couplet.Config) couplet.Engine {
	e, err := classic.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func suite() enginetest.Suite {
	networks := []string{"tcp4", "unix"}
	if !testing.Short() {
		networks = append(networks, "tcp6")
	}
	return enginetest.Suite{Name: "goroutine", Server: open, Networks: networks,
		Skip: map[int]string{140: "package net leaves the socket open; TestGoexitInControl is the rest of it"}}
}

func TestConformance(t *testing.T) { enginetest.Run(t, suite()) }

func TestModel(t *testing.T) { enginetest.Model(t, suite()) }
