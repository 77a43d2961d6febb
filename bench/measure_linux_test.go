package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"couplet"
	"couplet/bench"
	"couplet/engines"
)

// The test binary serves for a Plan as the real program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "server" {
		if err := bench.ServerMain(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// opened is an engine that is shut down with the test.
func opened(t *testing.T, name string) couplet.Engine {
	t.Helper()
	e, err := engines.Open(name, couplet.Config{})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
	})
	return e
}

// batches checks that the sizes of batches and the number of events can be of the
// same waits.
func batches(t *testing.T, s couplet.Stats) {
	t.Helper()
	least, most := int64(0), int64(0)
	for i, n := range s.Batches {
		least, most = least+n<<i, most+n<<(i+1)-n
	}
	if s.Events < least || s.Events > most {
		t.Errorf("%d events in batches of %d to %d: %v", s.Events, least, most, s.Batches)
	}
}

func TestEveryWorkloadOnEveryEngine(t *testing.T) {
	small := []bench.Workload{
		{Kind: bench.Echo, Connections: 20},
		{Kind: bench.Echo, Connections: 3, Size: 300_000, Depth: 2}, // more than a socket takes
		{Kind: bench.Echo, Connections: 4, Rate: 2000},
		{Kind: bench.Mixed, Connections: 40},
		{Kind: bench.Pipelined, Connections: 5, Size: 100},
		{Kind: bench.Stream, Connections: 3, Total: 3_000_000},
		{Kind: bench.Poems, Connections: 20, Delay: 5 * time.Millisecond},
		{Kind: bench.Churn, Connections: 5},
		{Kind: bench.Broadcast, Connections: 10, Size: 1000},
		{Kind: bench.Idle, Connections: 20},
	}
	for _, name := range engines.Names() {
		for _, w := range small {
			w, err := w.WithDefaults()
			if err != nil {
				t.Fatal(err)
			}
			t.Run(name+"/"+w.String(), func(t *testing.T) {
				e := opened(t, name)
				l, err := bench.Serve(e, w)
				if err != nil {
					t.Fatal(err)
				}
				f, err := bench.Measure(w, l.Addr().(*net.TCPAddr).Port, 20*time.Millisecond, 60*time.Millisecond,
					func() (bench.Report, error) { return bench.Usage(e), nil })
				if err != nil {
					t.Fatal(err)
				}
				if len(f.Errors) > 0 {
					t.Errorf("errors: %v", f.Errors)
				}
				if name != "goroutine" { // which has no waits for several, and no memory of its own
					batches(t, *f.After.Stats)
					if f.After.Stats.Held <= 0 {
						t.Error("it holds no memory to receive into")
					}
				}
				if w.Kind == bench.Idle {
					if open := f.After.Stats.Open; open != 20 {
						t.Errorf("%d connections are open, want 20", open)
					}
					return
				}
				if f.Units < 1 || f.Wall <= 0 || f.After.CPU() < f.Before.CPU() {
					t.Errorf("%v units in %v, CPU %d to %d us", f.Units, f.Wall, f.Before.CPU(), f.After.CPU())
				}
				if w.Kind != bench.Stream && f.Latency.TotalCount() != int64(f.Units) {
					t.Errorf("%d latencies of %v units", f.Latency.TotalCount(), f.Units)
				}
			})
		}
	}
}

// A server that loses or changes bytes must not look good.
func TestBadServersAreFound(t *testing.T) {
	for want, spoil := range map[string]func([]byte) []byte{
		"bytes wrong":   func(p []byte) []byte { p[len(p)/2]++; return p },
		"messages lost": func(p []byte) []byte { return p[:len(p)-1] },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				for buf := make([]byte, 64); ; {
					if _, err := io.ReadFull(c, buf); err != nil {
						return
					}
					c.Write(spoil(buf))
				}
			}()
			w, err := bench.Workload{Kind: bench.Echo, Connections: 1}.WithDefaults()
			if err != nil {
				t.Fatal(err)
			}
			f, err := bench.Measure(w, l.Addr().(*net.TCPAddr).Port, 0, 20*time.Millisecond,
				func() (bench.Report, error) { return bench.Usage(nil), nil })
			if err != nil || f.Errors[want] == 0 {
				t.Errorf("the ledger has %v (%v), want %s", f.Errors, err, want)
			}
		})
	}
}

func TestServerSpeaksTheProtocol(t *testing.T) {
	in, feed := io.Pipe()
	out := new(bytes.Buffer)
	go func() {
		io.WriteString(feed, "report\ngc\n")
		feed.Close()
	}()
	if err := bench.ServerMain([]string{"--engine", "goroutine", "--kind", "echo"}, in, out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %q", len(lines), out)
	}
	for i, line := range lines {
		var r bench.Report
		if err := json.Unmarshal([]byte(line), &r); err != nil || (r.Port > 0) != (i == 0) || (r.RSS > 0) != (i > 0) {
			t.Errorf("line %d is %s (%v)", i, line, err)
		}
	}
}

func TestPlan(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	plan := bench.Plan{
		Workloads:  []bench.Workload{{Kind: bench.Echo, Connections: 5}, {Kind: bench.Poems, Connections: 5, Delay: 5 * time.Millisecond}},
		Candidates: []string{"epoll", "goroutine", "gnet"},
		Rounds:     2, Duration: 50 * time.Millisecond, Seed: 7, Baseline: "goroutine",
		Peers: t.TempDir(), // without the module, so gnet is left out with a reason
	}
	saves := 0
	plan.Save = func(*bench.Result) { saves++ }
	r, err := plan.Run(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if saves != 4 {
		t.Errorf("saved %d times, want once a round", saves)
	}
	if len(r.Samples) != 8 || len(r.Errors()) > 0 {
		t.Errorf("%d samples, errors %v, skipped %v", len(r.Samples), r.Errors(), r.Skipped)
	}
	if len(r.Skipped) != 1 || r.Skipped[0].Candidate != "gnet" || !strings.Contains(r.Skipped[0].Why, "bench/peers") {
		t.Errorf("skipped: %v", r.Skipped)
	}
	// The second round has the order of the first, reversed.
	for i, s := range r.Samples[:2] {
		if back := r.Samples[3-i]; s.Candidate != back.Candidate || back.Round != 1 {
			t.Errorf("%v is not mirrored by %v", s, back)
		}
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := r.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	again, err := bench.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var table, report bytes.Buffer
	if err := again.WriteTable(&table); err != nil {
		t.Error(err)
	}
	if err := again.WriteMarkdown(&report, bench.Targets(), bench.Aims()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"echo 5 x 64 B, depth 1", "goroutine", "Error ledger: empty"} {
		if !strings.Contains(table.String(), want) || !strings.Contains(report.String(), want) {
			t.Errorf("%q is missing in\n%s\n%s", want, &table, &report)
		}
	}
}
