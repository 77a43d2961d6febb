package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os/signal"
	"strings"
	"syscall"
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
there stays as it was until then. One that cannot be written, or is read-only, is
refused at the beginning; a pipe or a device is written as it is. An interrupt leaves
the first engine's ledger in them, if that is complete, and says so.`,
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
	var story traceStory
	files, err := openOutfiles(
		outfile{flag: "json", path: t.json, write: func(w io.Writer) error { return writeTraceEvents(w, &story) }},
		outfile{flag: "html", path: t.html, write: func(w io.Writer) error { return writeTracePage(w, &story) }},
	)
	if err != nil {
		return err
	}
	defer files.close()
	if len(files) > 0 {
		signal.Ignore(syscall.SIGPIPE) // whoever reads the ledger may go, which is no reason to lose the files
	}
	ctx, stop := t.interruptible()
	defer stop()
	story.Title, story.Bytes = name, len(text)
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
	// The files come first: the ledger may wait for a reader, such as a pager.
	lost := files.write(io.Discard)
	story.show(t.stdout, terminalWidth(t.stdout), !t.quiet)
	if lost != nil {
		return failure{lost}
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
		if err := fetchPlainly(ctx, l.Addr(), text, pace); err != nil {
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

// fetchPlainly greets the server and reads its poem, which comes at pace, with package net.
func fetchPlainly(ctx context.Context, from net.Addr, text []byte, pace poetry.Pace) error {
	c, err := net.Dial(from.Network(), from.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	limit := min(pace.Duration(len(text)), math.MaxInt64-patient) + patient
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
