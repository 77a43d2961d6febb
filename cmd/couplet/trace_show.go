package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/cheggaaa/pb/v3/termutil"
)

// tag is the layer of e in a terminal's ledger.
func (e *traceEvent) tag() string {
	switch e.Layer {
	case layerEntry:
		return "ask "
	case layerCall:
		return "call"
	case layerTold:
		return "told"
	}
	return "===="
}

// The width of a ledger's column.
const (
	minColumn = 36
	maxColumn = 62
)

// terminalWidth is the number of w's columns, and enough where w is no terminal.
func terminalWidth(w io.Writer) int {
	if isTerminal(w) {
		if n, err := termutil.TerminalWidth(); err == nil {
			return n
		}
	}
	return 2*maxColumn + 3
}

// show writes the two ledgers for people, in a terminal of so many columns, and
// with notes how to read them.
func (s *traceStory) show(w io.Writer, width int, notes bool) {
	column := min(max((width-3)/2, minColumn), maxColumn)
	line := func(left, right string) {
		fmt.Fprintln(w, strings.TrimRight(fit(left, column)+" | "+fit(right, column), " "))
	}
	cell := func(e *traceEvent) string {
		if e == nil {
			return ""
		}
		return fmt.Sprintf("%8s %s %s", milliseconds(e.At), e.tag(), e)
	}
	a, b := s.Ledgers[0], s.Ledgers[1]
	fmt.Fprintf(w, "The server's side of %s, %d bytes, on two engines; ms.\n", s.Title, s.Bytes)
	if s.Partial != "" {
		fmt.Fprintln(w, s.Partial)
	}
	fmt.Fprintln(w)
	line(a.Engine, b.Engine)
	line(strings.Repeat("-", column), strings.Repeat("-", column))
	for _, row := range s.Rows {
		line(cell(row.Cells[0]), cell(row.Cells[1]))
	}
	fmt.Fprintf(w, "\n%-26s%16s%16s\n", "", a.Engine, b.Engine)
	right := b.sums()
	for i, sum := range a.sums() {
		fmt.Fprintf(w, "%-26s%16s%16s\n", sum[0], sum[1], right[i][1])
	}
	fmt.Fprintln(w)
	if notes {
		fmt.Fprintf(w, howToRead+"\n\n", s.Seen())
	}
	for _, l := range s.Ledgers {
		if l.Verified != "" {
			fmt.Fprintln(w, l.Verified)
		}
	}
	for _, l := range s.Ledgers {
		fmt.Fprintf(w, "%s: %s\n", l.Engine, l.Describe)
		if l.Missed > 0 {
			fmt.Fprintf(w, "%s: %d more events are in the sums only.\n", l.Engine, l.Missed)
		}
	}
}

const howToRead = `How to read it: "====" is the protocol, which %s.
Between such rows, "ask" is an entry that was queued and is no system call yet; "call"
is a system call and its result; "told" is a completion (it is done) or a readiness
event (it may be done), and what follows was done because of it. A wait is a call too;
on io_uring it also submits. Calls that no driver makes (addresses, socket options) are
in neither ledger, nor is the client.`

// fit is text in n columns, cut or filled up.
func fit(text string, n int) string {
	if have := utf8.RuneCountInString(text); have <= n {
		return text + strings.Repeat(" ", n-have)
	}
	return string([]rune(text)[:n-1]) + "…"
}
