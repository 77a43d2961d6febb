//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package proactor_test

import (
	"os"
	"testing"

	"couplet"
	"couplet/enginetest"
	"couplet/proactor"
)

// tiers are what the engine is tested on: every network on the top one, and
// TCP on those for older kernels.
var tiers = []struct {
	features couplet.Features
	networks []string
}{
	{couplet.TierU5, []string{"tcp4", "tcp6", "unix"}},
	{couplet.TierU3, []string{"tcp4"}},
	{couplet.TierU2, []string{"tcp4"}},
}

// loops are cases that take long and are the loop's alone: the whole suite of the top tier
// tries them.
var loops = map[int]string{118: "takes long, and is the loop's"}

// ablated is the suite with all that couplet.Ablation takes away or exchanges.
func ablated(t *testing.T) enginetest.Suite {
	proactor.ZeroCopyFrom(t, 1)
	s := suite(t, couplet.TierU5, []string{"tcp4", "unix"})
	whole := s.Server
	s.Name += "-ablated"
	s.Skip = loops
	s.Server = func(t testing.TB, cfg couplet.Config) couplet.Engine {
		cfg.Ablation = couplet.Ablation{OneShot: true, RegisteredRing: true, ZeroCopy: true}
		return whole(t, cfg)
	}
	return s
}

func TestConformanceAblated(t *testing.T) { enginetest.Run(t, ablated(t)) }

func TestModelAblated(t *testing.T) { enginetest.Model(t, ablated(t)) }

// bulk are the suites of engines that receive from connections one by one, from the
// first byte on or to and fro.
func bulk(t *testing.T, run func(*testing.T, enginetest.Suite), all bool) {
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			if tier.features != couplet.TierU5 && !all {
				t.Skip("the older tiers' whole suite runs with COUPLET_FULL=1, as .ci/run full does")
			}
			proactor.BulkFrom(t, 1, 1)
			s := suite(t, tier.features, tier.networks[:1])
			s.Name += "-bulk"
			s.Skip = loops
			run(t, s)
		})
	}
	t.Run("to and fro", func(t *testing.T) {
		if !all {
			t.Skip("the whole suite runs so with COUPLET_FULL=1, as .ci/run full does")
		}
		proactor.BulkFrom(t, 100, 1)
		s := suite(t, couplet.TierU5, []string{"tcp4", "unix"})
		s.Name += "-to-and-fro"
		s.Skip = loops
		run(t, s)
	})
}

func TestConformanceBulk(t *testing.T) { bulk(t, enginetest.Run, os.Getenv("COUPLET_FULL") != "") }

func TestModelBulk(t *testing.T) { bulk(t, enginetest.Model, true) }

func TestConformanceTight(t *testing.T) {
	if os.Getenv("COUPLET_FULL") == "" {
		t.Skip("the whole suite runs so with COUPLET_FULL=1, as .ci/run full does")
	}
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			enginetest.Run(t, suite(t, tier.features, []string{"tcp4", "unix"}).Tight())
		})
	}
}

// suite is a suite of engines limited to features, or a skip where the kernel
// does not have them.
func suite(t *testing.T, features couplet.Features, networks []string) enginetest.Suite {
	probe, err := proactor.New(couplet.Config{Features: features})
	if err != nil {
		t.Skipf("tier %s: %v", features.Tier(), err)
	}
	probe.Shutdown(t.Context())
	return enginetest.Suite{
		Name: features.Tier(),
		Server: func(t testing.TB, cfg couplet.Config) couplet.Engine {
			if cfg.Features == 0 {
				cfg.Features = features
			}
			e, err := proactor.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
		Networks: networks,
	}
}

func TestConformance(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			s := suite(t, tier.features, tier.networks)
			if tier.features != couplet.TierU5 {
				s.Skip = loops
			}
			enginetest.Run(t, s)
		})
	}
}

func TestModel(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.features.Tier(), func(t *testing.T) {
			enginetest.Model(t, suite(t, tier.features, tier.networks[:1]))
		})
	}
}
