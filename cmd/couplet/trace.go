package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// tracing is the trace command.
type tracing struct {
	*common
	engines  []string
	numBytes int
	delay    duration
	listen   bool
	verify   bool
	json     string
	html     string
}

// excerpt is what trace recites where nothing else is asked for: two lines.
const excerpt = "the first lines of The Tyger"

// greeting is what the traced server's client says, so that the server has
// something to receive.
const greeting = "A poem, please.\n"

func newTrace(c *common) *cobra.Command {
	t := &tracing{common: c, engines: []string{engines.Uring, engines.Epoll}, numBytes: 24, delay: duration(100 * time.Millisecond)}
	cmd := &cobra.Command{
		Use:   "trace [FILE or NAME]",
		Short: "Show, side by side, what two engines say to the kernel and it to them",
		Long: `Serve the same poem on two engines, one after the other, fetch it, and show all
that happened on the server's side: what the engine asked of the kernel, what the
kernel told it, and what the protocol saw, of which the same on both stands on the
same row. The clock starts when the client is accepted. The client is not traced. It
is package net in this process, or with --listen one of your own.

The poem is as for couplet serve poem; without one it is ` + excerpt + `.
--json writes a file for a trace viewer such as ui.perfetto.dev, --html a page to
step through, which needs nothing else. They are written at the end: a file that is
there stays as it was until then. An interrupt leaves the first engine's ledger in
them, if that is complete, and says so.`,
		Example: `  couplet trace
  couplet trace ozymandias --num-bytes 200 --html trace.html
  couplet trace --listen --engines epoll,uring`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("trace takes one poem, and not also %q; want one FILE or NAME, such as ozymandias", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("engine") {
				return errors.New("trace takes two engines, and not --engine; want --engines uring,epoll")
			}
			return t.run(args)
		},
	}
	f := cmd.Flags()
	f.Var(&pair{&t.engines}, "engines", "the two engines, in this order")
	f.Var(&number{&t.numBytes, 1, 1 << 20}, "num-bytes", "bytes to send at a time")
	f.Var(&t.delay, "delay", "time between sends, such as 100ms; without a unit it is seconds")
	f.BoolVar(&t.listen, "listen", false, "wait, on each engine, for one client of your own")
	f.BoolVar(&t.verify, "verify", false, "check the ledgers against the kernel's own count of system calls; needs root")
	f.StringVar(&t.json, "json", "", "write the trace to this file, as trace-event JSON")
	f.StringVar(&t.html, "html", "", "write the trace to this file, as a page")
	cmd.MarkFlagFilename("json")
	cmd.MarkFlagFilename("html")
	return cmd
}

// A pair is two different engines that can be traced.
type pair struct{ value *[]string }

func (p *pair) Type() string { return "names" }

func (p *pair) String() string {
	if p.value == nil {
		return ""
	}
	return strings.Join(*p.value, ",")
}

func (p *pair) Set(s string) error {
	chosen := strings.Split(s, ",")
	for _, name := range chosen {
		switch err := engines.Check(name); {
		case err != nil:
			return err
		case name == engines.Goroutine:
			return errors.New("goroutine cannot be traced: its calls are the Go runtime's own; want uring,epoll")
		case name == engines.Auto:
			return errors.New("auto is one of them; want uring,epoll")
		}
	}
	if len(chosen) != 2 || chosen[0] == chosen[1] {
		return errors.New("want two different ones, such as uring,epoll")
	}
	*p.value = chosen
	return nil
}

func (t *tracing) run(args []string) error {
	for _, name := range t.engines { // the default was not checked
		if err := engines.Check(name); err != nil {
			return err
		}
	}
	name, text := excerpt, opening()
	if len(args) > 0 {
		var err error
		if text, err = readPoem(args[0]); err != nil {
			return err
		}
		name = args[0]
	}
	if samePath(t.json, t.html) {
		return fmt.Errorf("--json and --html are both %q; want two files", t.json)
	}
	outputs := []*traceOutput{{flag: "json", path: t.json, write: writeTraceEvents}, {flag: "html", path: t.html, write: writeTracePage}}
	outputs = slices.DeleteFunc(outputs, func(o *traceOutput) bool { return o.path == "" })
	for _, o := range outputs {
		if err := o.open(); err != nil {
			return err
		}
		defer o.end()
	}
	ctx, stop := interruptible()
	defer stop()
	story := traceStory{Title: name, Bytes: len(text)}
	for i, engine := range t.engines {
		l, err := t.trace(ctx, engine, name, text)
		switch {
		case err != nil && i > 0 && ctx.Err() != nil:
			l = &ledger{Engine: engine, Describe: "not traced", Absent: true}
			story.Partial = fmt.Sprintf("Partial: %v before %s was traced to the end.", context.Cause(ctx), engine)
		case err != nil:
			return failure{err}
		}
		story.Ledgers[i] = l
	}
	story.Rows = align(story.Ledgers[0].Events, story.Ledgers[1].Events)
	story.show(t.stdout, terminalWidth(t.stdout), !t.quiet)
	for _, o := range outputs {
		if err := o.finish(&story); err != nil {
			return failure{fmt.Errorf("writing --%s %q: %w", o.flag, o.path, err)}
		}
	}
	if story.Partial != "" {
		return failure{context.Cause(ctx)}
	}
	return story.doubt()
}

// doubt is nil if --verify found what it should, or was not asked for.
func (s *traceStory) doubt() error {
	var of []string
	for _, l := range s.Ledgers {
		if l.Doubtful {
			of = append(of, l.Engine)
		}
	}
	if of == nil {
		return nil
	}
	return failure{fmt.Errorf("--verify: the ledger of %s is not verified; why is said below it", strings.Join(of, " and of "))}
}

// opening is the excerpt.
func opening() []byte {
	p, _ := poetry.Find("the-tyger")
	lines := strings.SplitAfterN(p.Text, "\n", 3)
	return []byte(lines[0] + lines[1])
}

// traceOutput is a file to be written, opened before there is anything to write
// so that one that cannot be is found out first. What is there already stays until
// finish puts the whole of the new one in its place.
type traceOutput struct {
	flag, path string
	write      func(io.Writer, *traceStory) error
	file       *os.File
	part       string // file's own name until finish, or "": a pipe or a device is written as it is
}

func (o *traceOutput) open() error {
	mode, err := os.FileMode(0o666), o.check()
	if err == nil && o.file == nil {
		if info, err := os.Stat(o.path); err == nil {
			mode = info.Mode().Perm()
		}
		o.part = fmt.Sprintf("%s.%d.part", o.path, os.Getpid())
		o.file, err = os.OpenFile(o.part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	}
	if err != nil {
		if p := new(fs.PathError); errors.As(err, &p) {
			err = p.Err
		}
		return fmt.Errorf("--%s cannot be written: %s: %w; want a file that can be", o.flag, o.path, err)
	}
	return nil
}

// check is nil if what is at path, if anything, can be written. It keeps open what
// is no plain file, and follows a link to one.
func (o *traceOutput) check() error {
	f, err := os.OpenFile(o.path, os.O_WRONLY, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		o.file = f
		return err
	}
	f.Close()
	o.path, err = filepath.EvalSymlinks(o.path)
	return err
}

// finish writes s.
func (o *traceOutput) finish(s *traceStory) error {
	err := errors.Join(o.write(o.file, s), o.file.Close())
	if err == nil && o.part != "" {
		err = os.Rename(o.part, o.path)
	}
	return err
}

// end leaves nothing behind that finish has not finished.
func (o *traceOutput) end() {
	o.file.Close()
	if o.part != "" {
		os.Remove(o.part)
	}
}

// traced is a couplet.Loop that can be traced.
type traced interface {
	TraceTo(hook func(at time.Time, layer, what string, n int, failed string)) bool
}

// patient is how long what the pace does not explain may take.
const patient = 10 * time.Second

// trace serves the poem on an engine to one client, and gives the server's
// ledger.
func (t *tracing) trace(ctx context.Context, engine, name string, text []byte) (*ledger, error) {
	log, lines := t.logger()
	defer lines.end()
	e, err := engines.Open(engine, couplet.Config{Loops: 1, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("--engines: %s cannot run here: %w", engine, advised(err, "which trace cannot show alone"))
	}
	short, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	defer e.Shutdown(short)
	loop, ok := e.Loops()[0].(traced)
	if !ok {
		return nil, fmt.Errorf("--engines: %s cannot be traced", engine)
	}
	pace := poetry.Pace{NumBytes: t.numBytes, Delay: time.Duration(t.delay)}
	server, err := poetry.NewServer(text, pace)
	if err != nil {
		return nil, err
	}
	r := newRecorder()
	verify := func(*ledger) (string, bool) { return "", true }
	if t.verify {
		kernel := countCalls(e.Loops()[0])
		defer kernel.end()
		verify = kernel.verify
	}
	loop.TraceTo(r.hook)
	defer loop.TraceTo(nil)
	l, err := e.Listen("tcp", "127.0.0.1:0", &oneClient{Factory: server})
	if err != nil {
		return nil, err
	}
	var late <-chan time.Time
	if t.listen {
		port := l.Addr().(*net.TCPAddr).Port
		fmt.Fprintf(t.stderr, "Serving %s on %s, port %d: connect one client, for example nc 127.0.0.1 %[3]d\n", name, engine, port)
	} else {
		if err := fetchPlainly(ctx, l.Addr(), text, pace.Duration(len(text))+patient); err != nil {
			return nil, fmt.Errorf("fetching from %s: %w", engine, err)
		}
		late = time.After(patient)
	}
	select {
	case <-r.done:
		book := r.ledger(e)
		var agrees bool
		book.Verified, agrees = verify(book)
		book.Doubtful = !agrees
		return book, nil
	case <-e.Done():
		return nil, fmt.Errorf("%s: %w", engine, e.Err())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-late:
		return nil, fmt.Errorf("%s: the connection did not end within %v of the poem", engine, patient)
	}
}

// oneClient turns away who comes after the first: with MaxConns the trace would show how
// a limit is kept, and not how a server accepts.
type oneClient struct {
	couplet.Factory
	came bool
}

func (o *oneClient) Build(remote net.Addr) couplet.Protocol {
	if o.came {
		return nil
	}
	o.came = true
	return o.Factory.Build(remote)
}

// fetchPlainly greets the server and reads its poem with package net.
func fetchPlainly(ctx context.Context, from net.Addr, text []byte, limit time.Duration) error {
	c, err := net.Dial(from.Network(), from.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, greeting); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case !bytes.Equal(got, text):
		return errors.New("the poem came back changed")
	}
	return nil
}

// samePath reports whether two names, if both are given, are of one file.
func samePath(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	x, errX := filepath.Abs(a)
	y, errY := filepath.Abs(b)
	if errX == nil && errY == nil && x == y {
		return true
	}
	i, errI := os.Stat(a)
	j, errJ := os.Stat(b)
	return errI == nil && errJ == nil && os.SameFile(i, j)
}
