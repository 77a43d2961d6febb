package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"couplet"
)

// The layers of an engine's trace, as its loop names them.
const (
	layerEntry     = "entry"     // queued for the kernel
	layerEnter     = "enter"     // a call that may wait begins
	layerCall      = "call"      // a system call has returned
	layerTold      = "told"      // a completion or a readiness event
	layerHeld      = "held"      // memory to receive into
	layerOperation = "operation" // between loop and driver
	layerCallback  = "callback"  // the protocol is called
	layerAsked     = "asked"     // the protocol calls its transport
)

// traceEvent is one thing that happened.
type traceEvent struct {
	At     time.Duration // since the accept; 0 before it
	Layer  string        // an enter and its call are one
	What   string
	N      int    // negative: there is no number
	Failed string // the name of an error

	Wait bool
	Took time.Duration // by a wait
	In   int           // entries that went with it
	Open bool          // it has not returned
}

// protocol reports whether e is something that the protocol saw or did.
func (e *traceEvent) protocol() bool { return e.Layer == layerCallback || e.Layer == layerAsked }

// submits reports whether e's engine has a queue of entries.
func (e *traceEvent) submits() bool { return e.What == "io_uring_enter" }

// String is e in a ledger.
func (e *traceEvent) String() string {
	switch {
	case e.Wait:
		return e.What + ": " + e.waited()
	case e.Layer == layerCallback || e.Layer == layerAsked:
		text := e.What + "()"
		if e.N >= 0 {
			text = fmt.Sprintf("%s(%d)", e.What, e.N)
		} else if e.Failed != "" {
			text = fmt.Sprintf("%s(%s)", e.What, e.Failed)
		}
		if e.Layer == layerAsked {
			text = "t." + text
		}
		return text
	case e.Failed != "":
		return e.What + " = " + e.Failed
	case e.N < 0:
		return e.What
	case e.Layer == layerEntry:
		return fmt.Sprintf("%s, %d bytes", e.What, e.N)
	case e.Layer == layerTold && strings.HasPrefix(e.What, "poll"):
		return e.What + " = " + pollBits(e.N)
	}
	return fmt.Sprintf("%s = %d", e.What, e.N)
}

// pollNames are the bits of a poll's result, from the lowest on, as Linux numbers
// them.
var pollNames = [...]string{"IN", "PRI", "OUT", "ERR", "HUP", "NVAL", 13: "RDHUP"}

// pollBits names the bits of a poll's result.
func pollBits(mask int) string {
	var set []string
	for bit, name := range pollNames {
		if name != "" && mask&(1<<bit) != 0 {
			set = append(set, "POLL"+name)
			mask &^= 1 << bit
		}
	}
	if mask != 0 || set == nil {
		set = append(set, fmt.Sprintf("%#x", mask))
	}
	return strings.Join(set, "|")
}

// waited says what went into a wait and what came of it.
func (e *traceEvent) waited() string {
	var parts []string
	what := "event"
	if e.submits() {
		what = "completion"
		if e.In > 0 {
			parts = append(parts, fmt.Sprintf("%d submitted", e.In))
		}
	}
	switch {
	case e.Open:
		parts = append(parts, "waits")
	case e.Failed != "":
		parts = append(parts, e.Failed)
	default:
		parts = append(parts, plural(e.N, what))
	}
	if e.Took >= time.Millisecond {
		parts = append(parts, fmt.Sprintf("slept %.1f ms", e.Took.Seconds()*1000))
	}
	return strings.Join(parts, ", ")
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// milliseconds is d with three places.
func milliseconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()*1000) }

// maxEvents bounds a trace, but for its ConnectionLost: nobody reads more, and aligning
// takes its square.
const maxEvents = 5000

// totals are what adds up, also of the events that are left out.
type totals struct {
	Entries, Calls, Waits, Told int
	Sent, Received              int
	Took                        time.Duration // from the accept to ConnectionLost

	names map[string]int // of the calls
}

// call counts one that is over.
func (t *totals) call(what string) {
	if t.names == nil {
		t.names = make(map[string]int)
	}
	name, _, _ := strings.Cut(what, " ")
	t.names[name]++
	t.Calls++
}

// count counts what is no wait.
func (t *totals) count(e *traceEvent) {
	switch {
	case e.Layer == layerCall:
		t.call(e.What)
	case e.Layer == layerTold:
		t.Told++
	case e.Layer == layerOperation && e.What == "Sent":
		t.Sent += e.N
	case e.Layer == layerOperation && e.What == "Received":
		t.Received += e.N
	case e.What == "ConnectionLost":
		t.Took = e.At
	}
}

// recorder keeps what a loop tells, from its first event to the wait behind the
// first ConnectionLost. Until done is closed all of it belongs to the loop.
type recorder struct {
	totals
	done   chan struct{}
	began  time.Time
	events []traceEvent
	held   int
	missed int
	wait   string // one that has not returned, or ""
	made   bool   // ConnectionMade was called
	lost   bool   // ConnectionLost was called
	ended  bool
}

func newRecorder() *recorder { return &recorder{done: make(chan struct{})} }

// hook is a loop's hook. The first event and the last are marked by a system call
// that a loop never makes, for whoever counts them in the kernel.
func (r *recorder) hook(at time.Time, layer, what string, n int, failed string) {
	switch {
	case r.ended:
		return
	case layer == layerHeld:
		r.held = n
		os.Getppid()
		return
	case r.began.IsZero(), !r.made && layer == layerTold && ofListener(what):
		r.start(at)
	}
	e := traceEvent{At: at.Sub(r.began), Layer: layer, What: what, N: n, Failed: failed}
	switch {
	case layer == layerEnter:
		e.Layer, e.Wait, e.Open, e.In = layerCall, true, true, n
		r.Entries += n
		r.before(n)
		r.wait = what
		if r.lost {
			r.ended = true
			r.add(e)
			os.Getppid()
			close(r.done)
			return
		}
	case layer == layerCall && r.wait == what:
		r.wait = ""
		r.call(what)
		r.Waits++
		if w := &r.events[len(r.events)-1]; w.Open { // else it was left out
			w.Open, w.N, w.Failed, w.Took = false, n, failed, e.At-w.At
		}
		return
	case layer == layerCallback && what == "ConnectionMade":
		r.made = true
	case layer == layerCallback && what == "ConnectionLost":
		r.lost = true
	}
	if !e.Wait {
		r.count(&e)
	}
	r.add(e)
}

// ofListener reports whether what is told says that a client is there.
func ofListener(what string) bool {
	return strings.HasPrefix(what, "accept") || strings.HasPrefix(what, "listener")
}

// start starts the clock. What there is already was the wait for a client, who may
// be a human: it has no time.
func (r *recorder) start(at time.Time) {
	r.began = at
	for i := range r.events {
		r.events[i].At, r.events[i].Took = 0, 0
	}
}

// before makes good, at the first wait, for those of its n entries that were queued
// before there was anybody to tell of them.
func (r *recorder) before(n int) {
	for _, e := range r.events {
		switch {
		case e.Wait:
			return
		case e.Layer == layerEntry:
			n--
		}
	}
	if n > 0 {
		r.events = slices.Insert(r.events, 0, traceEvent{Layer: layerEntry, What: fmt.Sprintf("%d queued before the trace", n), N: -1})
	}
}

// add keeps e if there is room. For the end there always is: the time is told by it.
func (r *recorder) add(e traceEvent) {
	if len(r.events) < maxEvents || e.What == "ConnectionLost" {
		r.events = append(r.events, e)
	} else {
		r.missed++
	}
}

// ledger is what was recorded of e. It is called after done.
func (r *recorder) ledger(e couplet.Engine) *ledger {
	return &ledger{
		Engine: e.Name(), Describe: strings.TrimSuffix(e.Describe(), " (asked for)"),
		Events: r.events, totals: r.totals, Held: r.held, Missed: r.missed,
	}
}

// ledger is what happened on one engine, and its sums.
type ledger struct {
	Engine, Describe string
	Events           []traceEvent

	totals
	Held     int    // bytes to receive into, while idle
	Missed   int    // events beyond maxEvents
	Verified string // how it compares with the kernel's count
	Doubtful bool   // --verify found a difference, or could not look
	Absent   bool   // the engine was not traced to the end
}

// sums are the lines below a ledger.
func (l *ledger) sums() [][2]string {
	per := "0"
	if l.Waits > 0 {
		per = fmt.Sprintf("%.2f", float64(l.Told)/float64(l.Waits))
	}
	sums := [][2]string{
		{"system calls (crossings)", fmt.Sprint(l.Calls)},
		{"of them, waits", fmt.Sprint(l.Waits)},
		{"entries submitted", fmt.Sprint(l.Entries)},
		{"completions, or events", fmt.Sprint(l.Told)},
		{"of these, per wait", per},
		{"bytes received, sent", fmt.Sprintf("%d, %d", l.Received, l.Sent)},
		{"to receive into, idle", fmt.Sprintf("%d bytes", l.Held)},
		{"time", milliseconds(l.Took) + " ms"},
	}
	for i := range sums {
		if l.Absent {
			sums[i][1] = "-"
		}
	}
	return sums
}

// traceStory is both ledgers, aligned.
type traceStory struct {
	Title   string
	Bytes   int
	Ledgers [2]*ledger
	Rows    []traceRow
	Partial string // what is missing, and why
}

// Seen tells whether the protocols saw the same.
func (s *traceStory) Seen() string {
	if s.Partial != "" {
		return "was traced on one engine only"
	}
	if s.Ledgers[0].Missed > 0 || s.Ledgers[1].Missed > 0 {
		return "saw more than is shown; what was the same on both is on the same row"
	}
	for _, row := range s.Rows {
		for _, e := range row.Cells {
			if e != nil && e.protocol() && !row.Same {
				return "did not see the same on both: what it did is on one row"
			}
		}
	}
	return "saw the same on both, on the same row"
}

// traceRow is what stands side by side. Both sides are there and Same where the
// protocol saw the same; else they merely happened between the same two such rows.
type traceRow struct {
	Cells [2]*traceEvent
	Same  bool
}

// align puts two ledgers side by side, on what the protocols saw. What passes
// between a loop and its driver is left out: it is in the JSON.
func align(a, b []traceEvent) []traceRow {
	both := [2][]*traceEvent{visible(a), visible(b)}
	var rows []traceRow
	var at [2]int
	upTo := func(i, j int) { // fills rows with what is before these
		for at[0] < i || at[1] < j {
			var row traceRow
			for side, end := range [2]int{i, j} {
				if at[side] < end {
					row.Cells[side] = both[side][at[side]]
					at[side]++
				}
			}
			rows = append(rows, row)
		}
	}
	for _, m := range matches(both[0], both[1]) {
		upTo(m[0], m[1])
		rows = append(rows, traceRow{Cells: [2]*traceEvent{both[0][m[0]], both[1][m[1]]}, Same: true})
		at[0]++
		at[1]++
	}
	upTo(len(both[0]), len(both[1]))
	return rows
}

func visible(events []traceEvent) []*traceEvent {
	var out []*traceEvent
	for i := range events {
		if events[i].Layer != layerOperation {
			out = append(out, &events[i])
		}
	}
	return out
}

// matches are the indexes of a longest common subsequence of what the protocols
// saw.
func matches(a, b []*traceEvent) [][2]int {
	var pa, pb []int
	for i, e := range a {
		if e.protocol() {
			pa = append(pa, i)
		}
	}
	for j, e := range b {
		if e.protocol() {
			pb = append(pb, j)
		}
	}
	same := func(i, j int) bool { return a[pa[i]].String() == b[pb[j]].String() }
	longest := make([][]int32, len(pa)+1) // of the ends from i and j on
	for i := range longest {
		longest[i] = make([]int32, len(pb)+1)
	}
	for i := len(pa) - 1; i >= 0; i-- {
		for j := len(pb) - 1; j >= 0; j-- {
			if longest[i][j] = max(longest[i+1][j], longest[i][j+1]); same(i, j) {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	var out [][2]int
	for i, j := 0, 0; i < len(pa) && j < len(pb); {
		switch {
		case same(i, j):
			out = append(out, [2]int{pa[i], pb[j]})
			i++
			j++
		case longest[i+1][j] >= longest[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}
