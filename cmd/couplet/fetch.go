package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"couplet"
	"couplet/bench"
	"couplet/poetry"
)

// fetching is the fetch command.
type fetching struct {
	*common
	sequential bool
	timeout    duration
	print      bool
	output     string
	asJSON     bool
}

func newFetch(c *common) *cobra.Command {
	f := &fetching{common: c}
	cmd := &cobra.Command{
		Use:   "fetch ADDR...",
		Short: "Fetch poems, all at once",
		Long: `Fetch poems, all at once, on one loop. An ADDR is PORT or :PORT (both on
127.0.0.1), HOST:PORT, [IPV6]:PORT or unix:/PATH.

A poem counts only if the server ended it in order. One that was reset, refused or
too slow is reported and does not hold up the others; the exit status is then 1.`,
		Example: `  couplet fetch 10000 10001 10002
  couplet fetch --sequential --timeout 30s 10000 unix:/run/poem
  couplet fetch --print 10000 > poem.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("fetch from where? want one ADDR or more: PORT, HOST:PORT, [IPV6]:PORT or unix:/PATH")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return f.run(args) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.sequential, "sequential", false, "one after the other")
	flags.Var(&f.timeout, "timeout", "the longest that each poem may take; 0 is no limit")
	flags.BoolVar(&f.print, "print", false, "print the poems on standard output, in the order of the arguments; all else goes to standard error")
	flags.StringVar(&f.output, "output", "", "write each whole poem to a file in this directory (N-ADDR.txt)")
	flags.BoolVar(&f.asJSON, "json", false, "print the outcome as JSON on standard output, and nothing else there")
	cmd.MarkFlagDirname("output")
	return cmd
}

// errInterrupted is why a fetch ends on SIGINT, SIGTERM or SIGHUP.
var errInterrupted = errors.New("interrupted")

// interruptible is done at the first SIGINT, SIGTERM or hangup, with cause
// errInterrupted; a second one, but for a hangup, ends the process as usual. From the
// first on nothing that is printed waits for who does not read.
func (c *common) interruptible() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	for _, w := range []io.Writer{c.stdout, c.stderr} {
		w.(*output).impatient = ctx.Done()
	}
	signals, gone := make(chan os.Signal, 1), hangups()
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-gone:
		case <-ctx.Done():
		}
		cancel(errInterrupted)
		time.Sleep(sameSignal)
		signal.Stop(signals)
	}()
	return ctx, func() { cancel(nil) }
}

// hangups catches SIGHUP to the end of the process: a terminal that is gone may tell it
// twice, which is nobody's impatience. Who ignores it, as by nohup, goes on to.
func hangups() <-chan os.Signal {
	gone := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(gone, syscall.SIGHUP)
	}
	return gone
}

func (f *fetching) run(args []string) error {
	if f.asJSON && f.print {
		return errors.New("--json and --print are two things; use one of them")
	}
	var addrs []poetry.Addr
	for _, arg := range args {
		a, err := poetry.ParseAddr(arg)
		if err != nil {
			return err
		}
		addrs = append(addrs, a)
	}
	if f.output != "" {
		if err := mayMake(f.output); err != nil {
			return fmt.Errorf("--output %q is no directory to write to: %w; want one that is or can be made", f.output, err)
		}
	}
	ctx, stop := f.interruptible()
	defer stop()
	log, said := f.logger()
	defer said.end()
	e, err := f.open(couplet.Config{Logger: log})
	if err != nil {
		return err
	}
	defer e.Shutdown(context.Background())
	f.introduce(f.stderr, e)

	var lines io.Writer = f.stdout
	switch {
	case f.asJSON:
		lines = io.Discard
	case f.print:
		lines = f.stderr
	}
	d := newDisplay(lines, f.stderr, f.quiet, f.sequential, addrs)
	r := newRelay()
	var report poetry.Report
	go func() {
		defer r.close()
		fetch := poetry.FetchAll
		if f.sequential {
			fetch = poetry.FetchEach
		}
		report = fetch(ctx, e, addrs, poetry.FetchOptions{
			Timeout: time.Duration(f.timeout),
			OnStart: func(task int, a poetry.Addr) { r.do(func() { d.start(task, a) }) },
			OnData:  func(a poetry.Arrival) { r.do(func() { d.data(a) }) },
			OnDone:  func(p poetry.Result) { r.do(func() { d.done(p) }) },
		})
	}()
	r.run()
	d.end(report)
	return f.deliver(e, report)
}

// deliver prints and writes the poems.
func (f *fetching) deliver(e couplet.Engine, r poetry.Report) error {
	var result error
	if r.Got() < len(r.Results) {
		result = errToldAlready
	}
	lost := 0
	for _, p := range r.Results {
		if p.Err != nil {
			continue
		}
		if f.print {
			f.stdout.Write(p.Poem) // which keeps its error
		}
		if f.output != "" {
			path := filepath.Join(f.output, fileName(p, len(r.Results)))
			err := os.MkdirAll(f.output, 0o777)
			if err == nil {
				err = writeWhole(path, p.Poem)
			}
			if err != nil { // the others are written all the same
				lost++
				result = failure{fmt.Errorf("%s cannot be written: %w; choose another --output", path, cause(err))}
			}
		}
	}
	if lost > 1 {
		result = failure{fmt.Errorf("%d poems are lost, the last: %w", lost, result)}
	}
	if f.asJSON {
		if err := writeJSON(f.stdout, f.summary(e, r)); err != nil {
			return err
		}
	}
	return result
}

// cause is what a call on a file failed of, without the name that it had there.
func cause(err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// fileName is "N-ADDR.txt", with what does not belong into a file's name made
// a dash.
func fileName(p poetry.Result, of int) string {
	addr := strings.Map(func(r rune) rune {
		if r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, p.Addr.String())
	return fmt.Sprintf("%0*d-%s.txt", len(fmt.Sprint(of)), p.Task, addr)
}

// mayMake is nil if the directory is there, or can be made, and files in it.
func mayMake(dir string) error {
	_, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		_, err = os.Stat(dir)
	}
	if err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".couplet-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// writeWhole writes a file whole or not at all.
func writeWhole(path string, text []byte) error {
	o, err := bench.OpenOutput(path)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Write(func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// fetchSummary is the JSON form of a fetch.
type fetchSummary struct {
	Engine     string        `json:"engine"`
	Describe   string        `json:"description"`
	Sequential bool          `json:"sequential"`
	Seconds    float64       `json:"seconds"`
	Got        int           `json:"got"`
	Of         int           `json:"of"`
	Tasks      []taskSummary `json:"tasks"`
}

type taskSummary struct {
	Task    int     `json:"task"`
	Addr    string  `json:"addr"`
	Bytes   int     `json:"bytes"`
	Seconds float64 `json:"seconds"`
	SHA256  string  `json:"sha256,omitempty"`
	Error   string  `json:"error,omitempty"`
}

func (f *fetching) summary(e couplet.Engine, r poetry.Report) fetchSummary {
	s := fetchSummary{
		Engine: e.Name(), Describe: e.Describe(), Sequential: f.sequential,
		Seconds: r.Elapsed.Seconds(), Got: r.Got(), Of: len(r.Results),
	}
	for _, p := range r.Results {
		t := taskSummary{Task: p.Task, Addr: p.Addr.String(), Bytes: len(p.Poem), Seconds: p.Elapsed.Seconds()}
		if p.Err != nil {
			t.Error = p.Err.Error()
		} else {
			sum := sha256.Sum256(p.Poem)
			t.SHA256 = hex.EncodeToString(sum[:])
		}
		s.Tasks = append(s.Tasks, t)
	}
	return s
}
