package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
)

// ServerMain is the server process of couplet's engines. args are what follows
// the word "server" on the command line; in and out carry the control protocol.
// It returns when in ends.
func ServerMain(args []string, in io.Reader, out io.Writer) error {
	var w Workload
	fs := flag.NewFlagSet("server", flag.ContinueOnError)
	engine := fs.String("engine", engines.Auto, "")
	tier := fs.String("tier", "", "")
	fs.StringVar((*string)(&w.Kind), "kind", "", "")
	fs.IntVar(&w.Connections, "connections", 0, "")
	fs.IntVar(&w.Size, "size", 0, "")
	fs.IntVar(&w.Depth, "depth", 0, "")
	fs.DurationVar(&w.Delay, "delay", 0, "")
	loops := fs.Int("loops", 1, "")
	spread := fs.String("spread", "reuseport", "")
	listen := fs.String("listen", "127.0.0.1:0", "")
	total := fs.Int64("total", 0, "bytes to each reader")
	without := fs.String("without", "", "see couplet.Ablation: multishot, turns, level, lookup or copy")
	count := fs.Bool("count", false, "have the kernel count the loops' system calls")
	if err := fs.Parse(args); err != nil {
		return err
	}
	w.Total = *total * int64(w.Connections)
	if w.Kind == Custom {
		// Each request says what it wants; the server needs no more than the kind.
		w.Spec, w.Size = &Spec{Name: "any", Request: Dist{Constant: header}, Response: Dist{Constant: 1}}, 0
	}
	w, err := w.WithDefaults()
	if err != nil {
		return err
	}
	features := map[string]couplet.Features{"": 0, "u2": couplet.TierU2, "u3": couplet.TierU3, "u5": couplet.TierU5}[*tier]
	config := couplet.Config{Features: features, Loops: *loops, Ablation: couplet.Ablation{
		OneShot: *without == "multishot", Batched: *without == "turns", EdgeTriggered: *without == "level",
		RegisteredRing: *without == "lookup", ZeroCopy: *without == "copy",
	}}
	for _, s := range spreads {
		if s.name == *spread {
			config.Spread = s.way
		}
	}
	e, err := engines.Open(*engine, config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.Shutdown(ctx)
	}()
	l, err := ServeAt(e, w, *listen)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	if err := enc.Encode(Report{Port: l.Addr().(*net.TCPAddr).Port, Engine: e.Describe()}); err != nil {
		return err
	}
	var calls *callCounter
	notCounted := ""
	if *count {
		if calls, err = countCalls(e); err != nil {
			notCounted = err.Error()
		}
		defer calls.close()
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if lines.Text() == "gc" {
			collect()
		}
		r := Usage(e)
		r.KernelCrossings, r.NotCounted = calls.calls(), notCounted
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Usage is the Report of this process, with the counters of e, which may be nil.
func Usage(e couplet.Engine) Report {
	var u unix.Rusage
	var m runtime.MemStats
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	runtime.ReadMemStats(&m)
	r := Report{
		UserUS:      u.Utime.Nano() / 1000,
		SystemUS:    u.Stime.Nano() / 1000,
		Mallocs:     m.Mallocs,
		RSS:         resident(),
		Workers:     workers(),
		Voluntary:   int64(u.Nvcsw),
		Involuntary: int64(u.Nivcsw),
	}
	if e != nil {
		s := e.Stats()
		r.Stats, r.Crossings = &s, s.Crossings
	}
	return r
}

// collect gives the system back what is not in use.
func collect() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

// workers is how many threads of io_uring's this process has. It allocates little,
// since what is allocated between two reports counts as the engine's.
func workers() (n int) {
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return 0
	}
	defer dir.Close()
	threads, _ := dir.Readdirnames(-1)
	for _, thread := range threads {
		fd, err := unix.Open("/proc/self/task/"+thread+"/comm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var name [7]byte
		if k, _ := unix.Read(fd, name[:]); k == len(name) && string(name[:]) == "iou-wrk" {
			n++
		}
		unix.Close(fd)
	}
	return n
}

func resident() int64 {
	var size, pages int64
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if _, err := fmt.Fscan(strings.NewReader(string(b)), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
