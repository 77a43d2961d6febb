//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// traceHere skips where there are not both engines.
func traceHere(t *testing.T) {
	t.Helper()
	for _, name := range []string{engines.Uring, engines.Epoll} {
		if !slices.Contains(working(), name) {
			t.Skip("no " + name)
		}
	}
}

// callbacks are what the protocol saw, the timing of its own writes left out.
func callbacks(l *ledger) (out []string) {
	for _, e := range l.Events {
		if e.Layer == layerCallback {
			out = append(out, e.String())
		}
	}
	return out
}

func TestTraceShowsTwoWaysToTheSame(t *testing.T) {
	t.Parallel()
	traceHere(t)
	tr := &tracing{common: &common{stdout: io.Discard, stderr: io.Discard, logFormat: "text"}, numBytes: 24, delay: duration(200 * time.Millisecond)}
	text := opening()
	var both [2]*ledger
	for i, name := range []string{engines.Uring, engines.Epoll} {
		var err error
		if both[i], err = tr.trace(t.Context(), name, excerpt, text); err != nil {
			t.Fatal(err)
		}
		if l := both[i]; l.Sent != len(text) || l.Received != len(greeting) || l.Held == 0 || l.Missed != 0 {
			t.Errorf("%s: sent %d, received %d, holds %d, missed %d", name, l.Sent, l.Received, l.Held, l.Missed)
		}
	}
	uring, epoll := both[0], both[1]
	want := []string{"ConnectionMade()", "DataReceived(16)", "WriteClosed()", "ConnectionLost(ErrClosed)"}
	for _, l := range both {
		if got := callbacks(l); !slices.Equal(got, want) {
			t.Errorf("%s: the protocol saw %q, want %q", l.Engine, got, want)
		}
		last := l.Events[len(l.Events)-1]
		if !last.Open || l.Waits == 0 || l.Told == 0 {
			t.Errorf("%s: ends with %v, after %d waits and %d events", l.Engine, &last, l.Waits, l.Told)
		}
		for i := 1; i < len(l.Events); i++ {
			if l.Events[i].At < l.Events[i-1].At {
				t.Errorf("%s: event %d is before the one before", l.Engine, i)
			}
		}
	}
	has := func(l *ledger, layer, what string) bool {
		return slices.ContainsFunc(l.Events, func(e traceEvent) bool { return e.Layer == layer && e.What == what })
	}
	for _, never := range []string{"recvfrom", "sendto", "sendmsg", "accept4", "epoll_ctl add"} {
		if has(uring, layerCall, never) {
			t.Errorf("uring made a call: %s", never)
		}
	}
	for _, always := range []string{"accept multishot", "recv multishot", "send"} {
		if !has(uring, layerEntry, always) {
			t.Errorf("uring queued no %s", always)
		}
	}
	for _, always := range []string{"recvfrom", "sendto", "accept4", "epoll_ctl add", "shutdown", "close"} {
		if !has(epoll, layerCall, always) {
			t.Errorf("epoll made no %s", always)
		}
	}
	if has(epoll, layerCall, "io_uring_enter") || epoll.Entries != 0 || uring.Entries == 0 {
		t.Errorf("epoll submitted %d entries, uring %d", epoll.Entries, uring.Entries)
	}
	for _, row := range align(uring.Events, epoll.Events) {
		if a, b := row.Cells[0], row.Cells[1]; row.Same && a.String() != b.String() {
			t.Errorf("%v and %v are on one row", a, b)
		}
	}
}

func TestTraceWritesItsFiles(t *testing.T) {
	t.Parallel()
	traceHere(t)
	events, page := filepath.Join(t.TempDir(), "t.json"), filepath.Join(t.TempDir(), "t.html")
	o := couple(t, "trace", "--engines", "epoll,uring", "--delay", "200ms", "--json", events, "--html", page).want(t, 0)
	for _, want := range []string{"==== ConnectionMade()", "==== t.Write(24)", "==== ConnectionLost(ErrClosed)", "io_uring_enter", "recvfrom = 16", "to receive into, idle", "How to read it"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %q in:\n%s", want, o.stdout)
		}
	}
	for _, line := range strings.Split(o.stdout, "\n") {
		left, right, found := strings.Cut(line, " | ")
		if strings.Contains(left, "ConnectionLost") && (!found || !strings.Contains(right, "ConnectionLost")) {
			t.Errorf("the ends are on two rows: %q", line)
		}
	}

	var got struct{ TraceEvents []viewerEvent }
	text, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	type end struct {
		process, flow int
		phase         string
	}
	ends := map[end]int{}
	processes := map[int]bool{}
	for _, e := range got.TraceEvents {
		processes[e.Process] = true
		if e.Flow == 0 {
			continue
		}
		ends[end{e.Process, e.Flow, e.Phase}]++
		held := slices.ContainsFunc(got.TraceEvents, func(s viewerEvent) bool {
			return s.Phase == "X" && s.Process == e.Process && s.Track == e.Track && s.At <= e.At && e.At <= s.At+s.Took
		})
		if !held {
			t.Errorf("the end %s of arrow %d is in no span", e.Phase, e.Flow)
		}
	}
	if len(ends) == 0 || len(processes) != 2 {
		t.Errorf("%d ends of arrows, %d processes", len(ends), len(processes))
	}
	for e, n := range ends {
		e.phase = map[string]string{"s": "f", "f": "s"}[e.phase]
		if n != 1 || ends[e] != 1 {
			t.Errorf("arrow %d has %d and %d ends", e.flow, n, ends[e])
		}
	}

	// What stands for itself in a viewer was "Made = 0" and "Build".
	for _, want := range []string{"the connection is made", "the loop has the factory build a protocol", "the driver reports bytes sent, 24 bytes"} {
		if !slices.ContainsFunc(got.TraceEvents, func(e viewerEvent) bool { return e.Class == layerOperation && e.Name == want }) {
			t.Errorf("no event %q", want)
		}
	}

	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`https?://|src=|@import|url\(`).Find(html); m != nil {
		t.Errorf("the page asks for more: %q", m)
	}
	for _, want := range []string{"ConnectionMade()", "DataReceived(16)", "t.Write(24)", "recvfrom = 16", "recv multishot", "io_uring_enter", "epoll_pwait", "prefers-color-scheme", "ArrowRight"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("no %q in the page", want)
		}
	}
}

func TestTraceOfAClientOfOnesOwn(t *testing.T) {
	t.Parallel()
	traceHere(t)
	j := begin(t, "trace", "--listen", "--delay", "0", "ozymandias")
	for _, engine := range []string{"uring", "epoll"} {
		j.stderr.await(t, "on "+engine+", port ", 1)
		port := regexp.MustCompile(`on ` + engine + `, port (\d+)`).FindStringSubmatch(j.stderr.text())[1]
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if got := readAll(t, c); got != poem("ozymandias") {
			t.Errorf("%s: got %d bytes", engine, len(got))
		}
		c.Close()
	}
	o := j.end().want(t, 0)
	if n := strings.Count(o.stdout, "==== t.WriteBuffer("); n != 2 {
		t.Errorf("%d writes in:\n%s", n, o.stdout)
	}
}

// An interrupt while a client was waited for left a page that was there with no
// byte in it.
func TestTraceInterruptedLeavesNoEmptyFile(t *testing.T) {
	t.Parallel()
	traceHere(t)
	dir := t.TempDir()
	page, events := filepath.Join(dir, "t.html"), filepath.Join(dir, "t.json")
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	const old = "of last time"
	if err := os.WriteFile(page, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	interrupt := func(j *job) outcome {
		if err := j.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		o := j.end().want(t, 1)
		if !strings.HasSuffix(o.stderr, "couplet: interrupted\n") {
			t.Errorf("stderr %q", o.stderr)
		}
		return o
	}

	j := begin(t, "trace", "--listen", "--html", page, "--json", events)
	j.stderr.await(t, "on uring, port ", 1)
	interrupt(j)
	if got := read(page); got != old {
		t.Errorf("with nothing to write the page became %q", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}

	j = begin(t, "trace", "--listen", "--delay", "0", "--html", page, "--json", events)
	j.stderr.await(t, "on uring, port ", 1)
	port := regexp.MustCompile(`port (\d+)`).FindStringSubmatch(j.stderr.text())[1]
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	readAll(t, c)
	c.Close()
	j.stderr.await(t, "on epoll, port ", 1)
	o := interrupt(j)
	for what, text := range map[string]string{"text": o.stdout, "page": read(page), "JSON": read(events)} {
		if !strings.Contains(text, "Partial: interrupted before epoll") || !strings.Contains(text, "io_uring_enter: ") {
			t.Errorf("the %s is not marked, or lacks the first ledger:\n%s", what, text)
		}
	}
	if info, err := os.Stat(page); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the page has become %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// The ledger came first: whoever read no more of it, such as head, cost the files, and left
// their parts.
func TestTraceWritesItsFilesThoughNobodyReads(t *testing.T) {
	t.Parallel()
	traceHere(t)
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.Command(binary, "trace", "--delay", "0", "--html", filepath.Join(dir, "t.html"), "--json", filepath.Join(dir, "t.json"))
	cmd.Stdout = w
	j := beginCmd(t, cmd)
	w.Close()
	if o := j.end().want(t, 1); strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "broken pipe; what was to be printed is lost") {
		t.Errorf("stderr %q", o.stderr)
	}
	wantFiles(t, dir, "t.html", "t.json")
}

// A part was named after the process: what one had left was in the way of all that had its
// number later, as in a container every one has.
func TestTraceIsNotHeldUpByALeftOver(t *testing.T) {
	t.Parallel()
	traceHere(t)
	page := filepath.Join(t.TempDir(), "t.html")
	couple := exec.Command("sh", "-c", `touch "$1.$$.part" && exec "$0" trace --delay 0 --html "$1"`, binary, page)
	beginCmd(t, couple).end().want(t, 0)
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "ConnectionMade()") {
		t.Errorf("the page is %.40q, %v", text, err)
	}
}

// A file that could not be written cost the one after it.
func TestTraceOneFileDoesNotCostTheOther(t *testing.T) {
	t.Parallel()
	traceHere(t)
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	page := filepath.Join(t.TempDir(), "t.html")
	o := couple(t, "trace", "--delay", "0", "--json", full, "--html", page).want(t, 1)
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "ConnectionMade()") {
		t.Errorf("the page is %.40q, %v", text, err)
	}
	if !strings.Contains(o.stdout, "==== ConnectionMade()") || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, full) {
		t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
	}
}

// A link to a file that was not there yet became a file itself.
func TestTraceRefusesALinkToNothing(t *testing.T) {
	t.Parallel()
	traceHere(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "t.html")
	if err := os.Symlink("not-there", link); err != nil {
		t.Fatal(err)
	}
	o := couple(t, "trace", "--delay", "0", "--html", link).want(t, 2)
	if o.stdout != "" || !strings.HasPrefix(o.stderr, "couplet: --html: cannot write "+link+": it is a link to what is not there; ") || strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
	}
	if to, err := os.Readlink(link); err != nil || to != "not-there" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	wantFiles(t, dir, "t.html")
}

// A link to a file stays one.
func TestTraceFollowsALink(t *testing.T) {
	t.Parallel()
	traceHere(t)
	dir := t.TempDir()
	page, link := filepath.Join(dir, "page"), filepath.Join(dir, "link")
	if err := os.WriteFile(page, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("page", link); err != nil {
		t.Fatal(err)
	}
	couple(t, "trace", "--delay", "0", "--html", link).want(t, 0)
	if to, err := os.Readlink(link); err != nil || to != "page" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(page); err != nil || info.Size() == 0 {
		t.Errorf("the page is %v, %v", info, err)
	}
}

// Of two clients that behaved differently the trace said that the protocol saw the
// same; it did not say why a connection was lost, and its times were those of the
// wait for a client.
func TestTraceOfTwoClientsThatDiffer(t *testing.T) {
	t.Parallel()
	traceHere(t)
	const wait = time.Second
	j := begin(t, "trace", "--listen", "--delay", "20ms", "--engines", "epoll,uring")
	for _, engine := range []string{"epoll", "uring"} {
		j.stderr.await(t, "on "+engine+", port ", 1)
		port := regexp.MustCompile(`on ` + engine + `, port (\d+)`).FindStringSubmatch(j.stderr.text())[1]
		time.Sleep(wait)
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if engine == "epoll" {
			readAll(t, c)
		} else if _, err := io.ReadFull(c, make([]byte, 24)); err != nil {
			t.Error(err)
		} else {
			c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
	}
	o := j.end().want(t, 0)
	for _, want := range []string{"ConnectionLost(ErrClosed)", "ConnectionLost(ECONNRESET)", "did not see the same on both"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %q in:\n%s", want, o.stdout)
		}
	}
	m := regexp.MustCompile(`(?m)^time +([\d.]+) ms +([\d.]+) ms$`).FindStringSubmatch(o.stdout)
	if m == nil {
		t.Fatalf("no times in:\n%s", o.stdout)
	}
	for _, ms := range m[1:] {
		if d, err := time.ParseDuration(ms + "ms"); err != nil || d >= wait {
			t.Errorf("the time is %v, with the wait for a client: %v", d, err)
		}
	}
}

// The calls said that more was submitted than the sum below them, and the first of
// them more than was asked: an entry was queued before the trace.
func TestTraceSumsAddUp(t *testing.T) {
	r := newRecorder()
	at := time.Now()
	tell := func(layer, what string, n int) { r.hook(at, layer, what, n, "") }
	tell(layerEntry, "accept multishot", -1)
	tell(layerEnter, "io_uring_enter", 2)
	at = at.Add(time.Minute) // for a human
	tell(layerCall, "io_uring_enter", 1)
	tell(layerTold, "accept multishot, more to come", 13)
	tell(layerCallback, "ConnectionMade", -1)
	tell(layerEntry, "poll for the end", -1)
	tell(layerEnter, "io_uring_enter", 1)
	at = at.Add(time.Second)
	tell(layerCall, "io_uring_enter", 1)
	tell(layerTold, "poll for the end", 0x2010)
	tell(layerEntry, "cancel", -1)
	r.hook(at, layerCallback, "ConnectionLost", -1, "EPIPE")
	tell(layerEnter, "io_uring_enter", 1)
	<-r.done

	l := r.ledger(named{})
	if l.Entries != 4 || l.Calls != 2 || l.Took != time.Second {
		t.Errorf("%d entries, %d calls, %v", l.Entries, l.Calls, l.Took)
	}
	var got []string
	for _, e := range l.Events {
		got = append(got, e.tag()+" "+e.String())
	}
	want := []string{
		"ask  1 queued before the trace", "ask  accept multishot",
		"call io_uring_enter: 2 submitted, 1 completion", "told accept multishot, more to come = 13",
		"==== ConnectionMade()", "ask  poll for the end",
		"call io_uring_enter: 1 submitted, 1 completion, slept 1000.0 ms", "told poll for the end = POLLHUP|POLLRDHUP",
		"ask  cancel", "==== ConnectionLost(EPIPE)", "call io_uring_enter: 1 submitted, waits",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Of more events than are kept the time was 0, as ConnectionLost was among the others,
// of these a wait counted twice, and the sums were those of the events that are kept.
func TestTraceOfMoreThanItKeeps(t *testing.T) {
	r := newRecorder()
	at := time.Now()
	tell := func(layer, what string, n int) { r.hook(at, layer, what, n, "") }
	tell(layerTold, "listener", 1)
	tell(layerCallback, "ConnectionMade", -1)
	const turns = maxEvents // of a wait and an event each
	for range turns {
		tell(layerEnter, "epoll_pwait", 0)
		at = at.Add(time.Millisecond)
		tell(layerCall, "epoll_pwait", 1)
		tell(layerCall, "read fd", 100)
		tell(layerTold, "readable", 1)
		tell(layerOperation, "Received", 100)
		tell(layerOperation, "Sent", 10)
	}
	tell(layerCallback, "ConnectionLost", -1)
	tell(layerEnter, "epoll_pwait", 0)
	<-r.done

	l := r.ledger(named{})
	if l.Took != turns*time.Millisecond {
		t.Errorf("it took %v", l.Took)
	}
	if told := 2 + 5*turns + 2; len(l.Events)+l.Missed != told {
		t.Errorf("%d kept and %d left out, of %d", len(l.Events), l.Missed, told)
	}
	if l.Calls != 2*turns || l.Waits != turns || l.Told != turns+1 || l.Received != 100*turns || l.Sent != 10*turns {
		t.Errorf("%d calls, %d waits, %d told, %d bytes received and %d sent", l.Calls, l.Waits, l.Told, l.Received, l.Sent)
	}
	if says, ok := l.compare(map[string]int{"epoll_pwait": turns, "read": turns}); !ok {
		t.Errorf("the kernel saw what was told: %s", says)
	}
	if last := maxEvents - 1; l.Events[last].Layer != layerTold || l.until(last) != l.Events[last].At {
		t.Errorf("the last one before those left out, %v, lasts until %v", &l.Events[last], l.until(last))
	}
	s := traceStory{Ledgers: [2]*ledger{l, l}, Rows: align(l.Events, l.Events)}
	var text, page, events strings.Builder
	s.show(&text, 2*maxColumn, true)
	if err := errors.Join(writeTracePage(&page, &s), writeTraceEvents(&events, &s)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ text, want string }{
		"text":          {text.String(), "5000.000 ms"},
		"text's notes":  {text.String(), "the protocol, which saw more than is shown"},
		"page":          {page.String(), "5000.000 ms"},
		"text's remark": {text.String(), fmt.Sprintf("%d more events are in the sums only", l.Missed)},
		"page's remark": {page.String(), fmt.Sprintf("%d more events are in the sums only", l.Missed)},
		"JSON":          {events.String(), `"name":"ConnectionLost()","ts":5000000`},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("no %q in the %s", c.want, what)
		}
	}
}

// named is an engine that has a name and no more.
type named struct{ couplet.Engine }

func (named) Name() string     { return "uring" }
func (named) Describe() string { return "" }

func TestTraceRefusesInOneLine(t *testing.T) {
	t.Parallel()
	traceHere(t)
	dir := t.TempDir()
	for _, c := range []struct{ args, says string }{
		{"--engines uring,turbo", `"turbo"`},
		{"--engines uring,goroutine", "goroutine cannot be traced"},
		{"--engines epoll,epoll", "two different"},
		{"--engines epoll", "two different"},
		{"--engines uring,auto", "auto"},
		{"--engine uring", "--engines"},
		{"--num-bytes 0", "1 to"},
		{"--delay soon", "100ms"},
		{"no-such-poem", `"no-such-poem"`},
		{"ozymandias sonnet-18", `one poem, and not also "sonnet-18"; want one FILE or NAME`},
		{"--json " + dir + "/no/file", "--json: cannot write "},
		{"--html " + dir, "--html: cannot write "},
		{"--json " + dir + "/t --html " + dir + "/t", "two files"},
	} {
		o := couple(t, append([]string{"trace"}, strings.Fields(c.args)...)...).want(t, 2)
		if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, c.says) || o.stdout != "" {
			t.Errorf("trace %s: stdout %q, stderr %q; want one line with %q", c.args, o.stdout, o.stderr, c.says)
		}
	}
}

// With -q nothing was printed, not even the ledger, which is what trace is for.
func TestTraceQuietlyIsTheLedgerAlone(t *testing.T) {
	t.Parallel()
	traceHere(t)
	o := couple(t, "-q", "trace", "--delay", "0").want(t, 0)
	for _, want := range []string{"==== ConnectionMade()", "system calls (crossings)"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %q in %q", want, o.stdout)
		}
	}
	if strings.Contains(o.stdout, "How to read it") || o.stderr != "" {
		t.Errorf("stdout %q, stderr %q; want no notes", o.stdout, o.stderr)
	}
}

// On paper the bar of the buttons covered a row.
func TestTracePageOnPaperHasNoBar(t *testing.T) {
	_, rules, found := strings.Cut(tracePageText, "@media print {")
	rules, _, _ = strings.Cut(rules, "\n")
	if !found || !regexp.MustCompile(`#stepper[^{}]*\{ display: none;`).MatchString(rules) {
		t.Errorf("on paper: %q", rules)
	}
}

// What only one side has stands alone, and what is behind it meets again.
func TestAlign(t *testing.T) {
	seq := func(names ...string) (out []traceEvent) {
		for _, name := range names {
			e := traceEvent{Layer: layerCallback, What: name, N: -1}
			if strings.ToLower(name) == name {
				e.Layer = layerCall
			}
			out = append(out, e)
		}
		return out
	}
	a := seq("poll", "Made", "read", "Data", "poll", "Lost")
	b := seq("Made", "poll", "poll", "Other", "Data", "Lost", "close")
	var got []string
	for _, row := range align(a, b) {
		text := ""
		for _, e := range row.Cells {
			if e != nil {
				text += e.What
			}
			text += "|"
		}
		got = append(got, text)
	}
	want := []string{"poll||", "Made|Made|", "read|poll|", "|poll|", "|Other|", "Data|Data|", "poll||", "Lost|Lost|", "|close|"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The ledgers leave out no call of a driver, and invent none: what the kernel
// counts beyond them is not a driver's.
func TestTraceAgreesWithTheKernel(t *testing.T) {
	t.Parallel()
	traceHere(t)
	o := couple(t, "trace", "--verify", "--delay", "20ms")
	if why := regexp.MustCompile(`: not verified: .*`).FindString(o.stdout); why != "" {
		o.want(t, 1)
		t.Skip(why)
	}
	o.want(t, 0)
	if found := regexp.MustCompile(`(?m)^(uring|epoll): verified: the kernel saw all \d+ system calls of the ledger, and \d+ others, no driver's: Go's own \(.*\)`).FindAllString(o.stdout, -1); len(found) != 2 {
		t.Errorf("no conclusion in:\n%s", o.stdout)
	}
}

// The Go runtime asks its poller on whatever thread, also on the loop's: of a trace of some
// seconds the check failed by one epoll_pwait that no driver had made.
func TestTraceTookGosOwnPollerForADrivers(t *testing.T) {
	var trace strings.Builder
	for _, call := range []string{
		fmt.Sprintf("%d (1, 2, 3)", unix.SYS_READ), // before the first mark
		fmt.Sprintf("%d (0, 0, 0)", unix.SYS_GETPPID),
		fmt.Sprintf("%d (3, c000, 80, 0, 0, 0)", unix.SYS_EPOLL_PWAIT),
		fmt.Sprintf("%d (5, c000, 200, 0, 0, 0)", unix.SYS_EPOLL_PWAIT),
		fmt.Sprintf("%d (4, c000, 8, 0, 0, 0)", unix.SYS_WRITE),
		fmt.Sprintf("%d (4, c000, 9, 0, 0, 0)", unix.SYS_WRITE),
		"9999 (0)",
		fmt.Sprintf("%d (0, 0, 0)", unix.SYS_GETPPID),
		fmt.Sprintf("%d (1, 2, 3)", unix.SYS_READ),
	} {
		fmt.Fprintf(&trace, "  couplet-77 [000] .... 1.5: sys_enter: NR %s\n", call)
	}
	got, err := countEntered("# tracer: nop\n" + trace.String())
	want := map[string]int{"epoll_pwait of 128": 1, "epoll_pwait": 1, "write of a wake-up": 1, "write": 1, "number 9999": 1}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if _, err := countEntered("sys_enter: NR 39 (0)\n"); err == nil {
		t.Error("one mark is enough")
	}
	if _, err := countEntered("sys_enter: NR what (0)\n"); err == nil {
		t.Error("a call without a number is one")
	}
}

// A comparison gave figures and no conclusion, and was no failure whatever it found.
func TestTraceConcludes(t *testing.T) {
	l := &ledger{Engine: "epoll"}
	for _, call := range []string{"epoll_ctl add", "recvfrom", "close"} {
		l.call(call)
	}
	for _, c := range []struct {
		change map[string]int
		ok     bool
		says   string
	}{
		{map[string]int{"futex": 9, "ioctl": 1}, true, "verified: the kernel saw all 3 system calls of the ledger, and 10 others, no driver's: Go's own (futex 9), addresses and options (ioctl 1)"},
		{nil, true, "0 others, no driver's: Go's own (none), addresses and options (none)"},
		{map[string]int{"close": -1}, false, "the check failed: in the ledger but not seen by the kernel: close 1;"},
		{map[string]int{"sendto": 2, "futex": 1}, false, "seen but not in the ledger: sendto 2; and 1 others"},
	} {
		seen := map[string]int{"epoll_ctl": 1, "recvfrom": 1, "close": 1}
		for name, n := range c.change {
			seen[name] += n
		}
		if says, ok := l.compare(seen); ok != c.ok || !strings.Contains(says, c.says) {
			t.Errorf("%v: %v, %q; want %v, %q", c.change, ok, says, c.ok, c.says)
		}
	}
	for _, doubtful := range []bool{false, true} {
		s := traceStory{Ledgers: [2]*ledger{{Engine: "uring"}, {Engine: "epoll", Doubtful: doubtful}}}
		err := s.doubt()
		if failed := errors.As(err, new(failure)); failed != doubtful {
			t.Errorf("in doubt %v: %v", doubtful, err)
		}
	}
}

// A poem with a delay of centuries was to be there at once: the sum with what else it may
// take was negative.
func TestTraceWaitsForALongDelay(t *testing.T) {
	t.Parallel()
	within, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ctx, enough := context.WithCancelCause(within)
	defer enough(nil)
	errEnough := errors.New("enough")
	served := blockingServer(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(greeting)))
		enough(errEnough) // who is late already has said so before
		io.Copy(io.Discard, c)
	})
	addr, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+served)
	if err != nil {
		t.Fatal(err)
	}
	if err := fetchPlainly(ctx, addr, opening(), poetry.Pace{NumBytes: 24, Delay: math.MaxInt64}); !errors.Is(err, errEnough) {
		t.Errorf("got %v", err)
	}
}

// Who comes after the one client is turned away, and the ledger is of the first.
func TestTraceServesOneClient(t *testing.T) {
	t.Parallel()
	traceHere(t)
	j := begin(t, "trace", "--listen", "--delay", "20ms", "--engines", "epoll,uring")
	for _, engine := range []string{"epoll", "uring"} {
		j.stderr.await(t, "on "+engine+", port ", 1)
		addr := "127.0.0.1:" + regexp.MustCompile(`on ` + engine + `, port (\d+)`).FindStringSubmatch(j.stderr.text())[1]
		var all [2]net.Conn
		for i := range all {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			all[i] = c
		}
		if b, err := io.ReadAll(all[1]); len(b) != 0 || err != nil {
			t.Errorf("on %s the second one got %q, %v", engine, b, err)
		}
		readAll(t, all[0])
		all[0].Close()
	}
	o := j.end().want(t, 0)
	for _, what := range []string{"ConnectionMade()", "ConnectionLost(ErrClosed)"} {
		if n := strings.Count(o.stdout, what); n != 2 {
			t.Errorf("%s %d times in:\n%s", what, n, o.stdout)
		}
	}
}
