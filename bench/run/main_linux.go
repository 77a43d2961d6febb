// Command run measures engines against each other, as package bench says:
//
//	go run ./bench/run --candidates uring,epoll,gnet --workload echo --connections 64 --size 64
//	go run ./bench/run --table --json results.json
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"couplet/bench"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		if errors.As(err, new(usage)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// usage is an error of the command line.
type usage struct{ error }

func run() error {
	if len(os.Args) > 1 && os.Args[1] == "server" {
		return bench.ServerMain(os.Args[2:], os.Stdin, os.Stdout)
	}
	var w bench.Workload
	var plan bench.Plan
	candidates := flag.String("candidates", "uring,epoll,goroutine,gnet,net,c-uring,c-epoll", "who is measured, of "+names())
	kind := flag.String("workload", "echo", fmt.Sprintf("what is measured, of %v", bench.Kinds))
	flag.IntVar(&w.Connections, "connections", 0, "connections (64 by default)")
	flag.IntVar(&w.Size, "size", 0, "`bytes` of a message or chunk (64 by default, 10 for poems)")
	flag.IntVar(&w.Depth, "depth", 0, "messages in flight on each connection (1 by default)")
	flag.DurationVar(&w.Delay, "delay", 0, "time between two chunks of a poem (100ms by default)")
	flag.Int64Var(&w.Total, "total", 0, "`bytes` of a stream to all readers together (1 GiB by default)")
	flag.IntVar(&plan.Rounds, "rounds", 9, "how often each candidate is measured")
	flag.DurationVar(&plan.Duration, "duration", 0, "how long one measurement takes (1s by default)")
	flag.DurationVar(&plan.Warm, "warm", 0, "how long each runs before that (a third of it by default)")
	flag.Uint64Var(&plan.Seed, "seed", 1, "what the order is drawn from")
	flag.StringVar(&plan.Baseline, "baseline", "gnet", "the candidate that the table compares with")
	flag.IntVar(&plan.Procs, "gomaxprocs", 1, "GOMAXPROCS of every server written in Go")
	flag.IntVar(&plan.ServerCPU, "server-cpu", 0, "where the server is pinned (by default the first CPU that this process may have, and the generator to one of another core)")
	flag.IntVar(&plan.ClientCPU, "generator-cpu", 0, "where the generator is pinned")
	flag.IntVar(&plan.Retries, "retries", 3, "how often a sample is taken again that other processes disturbed")
	flag.StringVar(&plan.Peers, "peers-dir", "", "`directory` of the module bench/peers")
	table := flag.Bool("table", false, "measure all shapes that the project has targets for")
	only := flag.String("only", "", "with --table: only shapes whose name contains this `text`")
	jsonFile := flag.String("json", "", "write every sample to this `file`")
	markdown := flag.String("markdown", "", "write the report with the targets to this `file`")
	html := flag.String("html", "", "write the report as a self-contained page to this `file`")
	from := flag.String("from", "", "measure nothing: report what is in this JSON `file`")
	evenness := flag.Bool("evenness", false, "tell how evenly connections spread over several loops, and measure nothing else")
	flag.Parse()
	if flag.NArg() > 0 {
		return usage{fmt.Errorf("there is no argument %q; see --help", flag.Arg(0))}
	}

	if *evenness {
		return bench.WriteEvenness(os.Stdout, []string{"uring", "epoll"}, 4, 1000)
	}
	var result *bench.Result
	var err error
	if *from != "" {
		baseline := ""
		flag.Visit(func(f *flag.Flag) {
			switch f.Name {
			case "from", "markdown", "html":
			case "baseline":
				baseline = plan.Baseline
			default:
				err = usage{fmt.Errorf("--from measures nothing: --%s has no meaning with it", f.Name)}
			}
		})
		if err != nil {
			return err
		}
		if result, err = bench.ReadFile(*from); err != nil {
			return err
		}
		if baseline != "" {
			result.Manifest.Baseline = baseline
		}
	} else {
		plan.Candidates = strings.Split(*candidates, ",")
		w.Kind = bench.Kind(*kind)
		if _, err := w.WithDefaults(); err != nil {
			return usage{err}
		}
		plan.Workloads = []bench.Workload{w}
		if *table {
			plan.Workloads = nil
			for _, w := range bench.Table() {
				if strings.Contains(w.String(), *only) {
					plan.Workloads = append(plan.Workloads, w)
				}
			}
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		var saved error
		if *jsonFile != "" {
			plan.Save = func(r *bench.Result) { saved = r.WriteFile(*jsonFile) }
		}
		result, err = plan.Run(ctx, os.Stderr)
		if result == nil {
			return err
		}
		// What was measured before an interrupt is worth keeping.
		if saved != nil {
			return saved
		}
	}
	if *markdown != "" {
		e := write(*markdown, func(f io.Writer) error { return result.WriteMarkdown(f, bench.Targets(), bench.Aims()) })
		if e != nil {
			return e
		}
	}
	if *html != "" {
		if e := write(*html, result.WriteHTML); e != nil {
			return e
		}
	}
	if e := result.WriteTable(os.Stdout); e != nil {
		return e
	}
	if wrong := result.Errors(); len(wrong) > 0 && err == nil {
		err = fmt.Errorf("there were errors: %v; these samples took no part", wrong)
	}
	return err
}

// write makes the file path of what report writes.
func write(path string, report func(io.Writer) error) error {
	o, err := bench.OpenOutput(path)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Write(report)
}

func names() string {
	var all []string
	for _, c := range bench.Candidates() {
		all = append(all, c.Name)
	}
	return strings.Join(all, ", ")
}
