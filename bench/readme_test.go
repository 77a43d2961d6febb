package bench_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"couplet/bench"
)

// The figures in the README are those of results.json, also after it was measured anew.
func TestTheFiguresInTheReadmeAreTheMeasuredOnes(t *testing.T) {
	r, err := bench.ReadFile("results.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, w := range r.Workloads {
		switch name := w.String(); w.Kind {
		case bench.Echo, bench.Pipelined, bench.Poems, bench.Churn:
			row := "| " + name
			for _, engine := range []string{"uring", "epoll"} {
				row += fmt.Sprintf(" | %.3g", bench.Median(r.Values(name, engine, bench.Sample.CPU)))
				for _, other := range []string{"gnet", "net", "c-" + engine} {
					ratio, _, rounds := r.Compare(name, engine, other)
					if rounds == 0 {
						row += " | –"
					} else {
						row += fmt.Sprintf(" | %.2f", ratio.Center)
					}
				}
			}
			rows = append(rows, row+" |")
		}
	}
	if all := strings.Join(rows, "\n") + "\n"; len(rows) < 10 || !strings.Contains(string(text), all) {
		t.Errorf("the README wants this table:\n%s", all)
	}
}
