package bench_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"couplet/bench"
)

// A result of a file that has changed since is not compared, and it is said why.
func TestAnEditedWorkloadIsNotCompared(t *testing.T) {
	of := func(response int64) bench.Workload {
		return bench.Workload{Kind: bench.Custom, Connections: 5, Depth: 1, Spec: &bench.Spec{
			Name: "mine", Request: bench.Dist{Constant: 20}, Response: bench.Dist{Constant: response},
		}}
	}
	a, b := compared(of(512), 1, 1, 1), compared(of(513), 1, 1, 1)
	changed := of(512).String() + " has changed to " + of(513).String()

	var out strings.Builder
	if err := a.WriteComparison(&out, b); err == nil || !strings.Contains(err.Error(), "in common; "+changed) {
		t.Errorf("%v, want %q", err, changed)
	}
	echo := compared(bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}, 1, 1, 1)
	a.Append(echo)
	b.Append(echo)
	out.Reset()
	if err := a.WriteComparison(&out, b); err != nil || !strings.Contains(out.String(), "Not compared: "+changed+".") || !strings.Contains(out.String(), "echo 64 x 64 B") {
		t.Errorf("%v:\n%s", err, &out)
	}
	out.Reset()
	if err := a.WriteComparison(&out, a); err != nil || strings.Contains(out.String(), "Not compared") || !strings.Contains(out.String(), "mine, 5 connections, #") {
		t.Errorf("%v:\n%s", err, &out)
	}
}

// A comparison gave a ratio without an interval, of a figure that it did not name.
func TestComparisonNamesFigureAndInterval(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	a := compared(echo, 1, 1, 1, 1, 1, 1, 1)
	b := compared(echo, .8, .8, .8, .8, .8, .8, .8)
	var out strings.Builder
	if err := a.WriteComparison(&out, b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`uring +CPU us per message +10\.3 +8\.24 +0\.80 \[0\.7\d, 0\.8\d\] +0\.00\d +less`,
		`epoll +CPU us per message +10\.3 +10\.3 +1\.00 \[0\.9\d, 1\.0\d\] +1\.000 +no difference shown`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s is not in\n%s", want, &out)
		}
	}
	out.Reset()
	if err := a.WriteComparison(&out, compared(echo, .5)); err != nil || strings.Count(out.String(), "too few rounds to tell") != 2 {
		t.Errorf("%v, one round is compared:\n%s", err, &out)
	}
}

// What one of the two lacks was left out without a word, and so was what differs in
// how they were measured.
func TestComparisonTellsWhatDiffersBesides(t *testing.T) {
	a, b := measured("uring", "epoll", "gnet"), measured("uring", "epoll")
	a.Workloads = a.Workloads[1:]
	a.Samples = slices.DeleteFunc(a.Samples, func(s bench.Sample) bool {
		return s.Workload == b.Workloads[0].String() || s.Workload == b.Workloads[1].String() && s.Candidate == "epoll"
	})
	b.Partial = true
	b.Manifest.Duration, b.Manifest.Rounds, b.Manifest.ServerCPU = 2*time.Second, 5, 3
	b.Manifest.Mitigations = map[string]string{"spectre_v2": "Vulnerable"}
	b.Manifest.Sysctls = nil
	b.Manifest.LoadBefore = "another" // as it always is
	var out strings.Builder
	if err := a.WriteComparison(&out, b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Not compared, since only the result before has good samples of it: gnet.\n",
		"only the result after has good samples of it: echo 64 x 64 B, depth 1; epoll on echo 1000 x 64 B, depth 16.\n",
		"The result after is partial: its run was interrupted.\n",
		"differ in mitigation of spectre_v2: Mitigation: IBRS, then Vulnerable.\n",
		"differ in net.core.somaxconn: 4096, then –.\n",
		"differ in pinned: server to CPU 0, generator to CPU 1, then server to CPU 3, generator to CPU 1.\n",
		"differ in rounds: 7, then 5.\n",
		"differ in warm-up, duration (longer with pauses; a stream, its length): 333ms, 1s, then 333ms, 2s.\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if n := strings.Count(out.String(), "The manifests differ"); n != 5 || strings.Contains(out.String(), "before is partial") {
		t.Errorf("%d lines of differences:\n%s", n, &out)
	}
}

// A file that is no report at all had "the format of version 0".
func TestWhatIsNoReportIsCalledThat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.json")
	for _, text := range []string{"{}", "[]", "no JSON"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := bench.ReadFile(path); err == nil || !strings.Contains(err.Error(), "is no report of couplet bench") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
