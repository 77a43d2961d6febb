//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"couplet/bench"
	"couplet/engines"
)

// tiny is a measurement that says nothing and takes no time.
var tiny = []string{"bench", "--quick", "--engines", "goroutine,epoll", "--connections", "3", "--rounds", "2", "--duration", "20ms"}

func TestBenchMeasuresAndJudges(t *testing.T) {
	t.Parallel()
	json, page := filepath.Join(t.TempDir(), "a.json"), filepath.Join(t.TempDir(), "a.html")
	o := couple(t, append(tiny, "--json", json, "--html", page)...).want(t, 0)
	for _, says := range []string{"echo 3 x 64 B, depth 1", "goroutine/2", "Control", "On Linux ", "Error ledger: empty"} {
		if !strings.Contains(o.stdout, says) {
			t.Errorf("%q is not in the report:\n%s", says, o.stdout)
		}
	}
	if n := strings.Count(o.stderr, "round "); n != 6 {
		t.Errorf("%d lines of progress, want one for each of 6 samples:\n%s", n, o.stderr)
	}
	r, err := bench.ReadFile(json)
	if err != nil || len(r.Samples) != 6 || r.Partial || r.Manifest.Rounds != 2 {
		t.Errorf("the result: %+v, %v", r, err)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), r.Verdict("goroutine", "epoll")) {
		t.Errorf("the page lacks the verdict (%v)", err)
	}
	if o := couple(t, "bench", "compare", json, json).want(t, 0); strings.Count(o.stdout, "no difference shown") != 3 {
		t.Errorf("a result compared with itself:\n%s", o.stdout)
	}
}

func TestBenchTellsWhoCannotBeMeasured(t *testing.T) {
	t.Parallel()
	o := couple(t, append(tiny, "--peers", "gnet", "--peers-dir", t.TempDir())...).want(t, 0)
	if !strings.Contains(o.stderr, "couplet: gnet was not measured on every workload: the module bench/peers is not at") {
		t.Errorf("stderr %q", o.stderr)
	}
}

// What was measured before an interrupt is written, and marked.
func TestAnInterruptedBenchWritesWhatItHas(t *testing.T) {
	t.Parallel()
	json := filepath.Join(t.TempDir(), "a.json")
	j := begin(t, "bench", "--quick", "--engines", "goroutine,epoll", "--connections", "3", "--rounds", "1000", "--duration", "20ms", "--json", json)
	j.stderr.await(t, "round 2", 1)
	j.cmd.Process.Signal(syscall.SIGINT)
	o := j.end().want(t, 1)
	if !strings.Contains(o.stderr, "partial") {
		t.Errorf("stderr %q", o.stderr)
	}
	r, err := bench.ReadFile(json)
	if err != nil || !r.Partial || len(r.Samples) == 0 {
		t.Errorf("the result: %+v, %v", r, err)
	}
}

func TestAblationTakesTheTiers(t *testing.T) {
	t.Parallel()
	if p := engines.Probe(); p.Uring.Tier != "U5" {
		t.Skip("the kernel's tier is", p.Uring.Tier)
	}
	o := couple(t, "bench", "--quick", "--ablate", "--connections", "3", "--rounds", "1", "--duration", "20ms").want(t, 0)
	for _, says := range []string{"uring ", "uring-u3", "uring-u2"} {
		if !strings.Contains(o.stdout, says) {
			t.Errorf("%q is not in the report:\n%s", says, o.stdout)
		}
	}
}
