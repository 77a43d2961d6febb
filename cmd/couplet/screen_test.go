package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A terminal is what one shows that knows the few sequences that a screen uses.
// Anything else in what is written is remembered in odd.
type terminal struct {
	rows, cols int
	lines      []string // the last ones are in the window
	row, col   int      // of the cursor, in lines
	rest       string   // of a sequence that is not whole yet
	bold       bool     // was seen
	odd        []string
}

var sequence = regexp.MustCompile(`^\x1b\[([0-9]*)([A-Za-z])`)

func (t *terminal) Write(p []byte) (int, error) {
	text := t.rest + string(p)
	t.rest = ""
	for text != "" {
		switch c := text[0]; {
		case c == '\r':
			t.col, text = 0, text[1:]
		case c == '\n': // a terminal's driver returns, too
			t.row, t.col, text = t.row+1, 0, text[1:]
		case c == 0x1b:
			m := sequence.FindStringSubmatch(text)
			if m == nil {
				if len(text) < 8 {
					t.rest = text
					return len(p), nil
				}
				t.odd, text = append(t.odd, text[:8]), text[1:]
				continue
			}
			text = text[len(m[0]):]
			t.command(m[1], m[2])
		default:
			end := strings.IndexAny(text, "\r\n\x1b")
			if end < 0 {
				end = len(text)
			}
			for _, r := range text[:end] {
				if t.col == t.cols { // it wraps
					t.row, t.col = t.row+1, 0
				}
				t.put(r)
			}
			text = text[end:]
		}
		for len(t.lines) <= t.row {
			t.lines = append(t.lines, "")
		}
	}
	return len(p), nil
}

func (t *terminal) put(r rune) {
	for len(t.lines) <= t.row {
		t.lines = append(t.lines, "")
	}
	line := []rune(t.lines[t.row])
	for len(line) <= t.col {
		line = append(line, ' ')
	}
	line[t.col] = r
	t.lines[t.row] = string(line)
	t.col++
}

func (t *terminal) command(number, what string) {
	n, _ := strconv.Atoi(number)
	switch what + number {
	case "J":
		if len(t.lines) > t.row {
			t.lines = t.lines[:t.row+1]
			t.lines[t.row] = string([]rune(t.lines[t.row])[:min(t.col, len([]rune(t.lines[t.row])))])
		}
	case "K2":
		for len(t.lines) <= t.row {
			t.lines = append(t.lines, "")
		}
		t.lines[t.row] = ""
	case "m1":
		t.bold = true
	case "m0":
	default:
		if what == "A" && n > 0 {
			t.row = max(t.row-n, len(t.lines)-t.rows, 0)
			return
		}
		t.odd = append(t.odd, number+what)
	}
}

// resize makes it as wide as cols; what is longer takes more rows.
func (t *terminal) resize(rows, cols int) {
	var lines []string
	for _, line := range t.lines[:len(t.lines)-1] {
		for len(line) > cols {
			lines, line = append(lines, line[:cols]), line[cols:]
		}
		lines = append(lines, line)
	}
	t.lines = append(lines, t.lines[len(t.lines)-1])
	t.row = len(t.lines) - 1
	t.rows, t.cols = rows, cols
}

// shows are the lines, without empty ones at the end.
func (t *terminal) shows() []string {
	lines := slices.Clone(t.lines)
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func newTerminal(rows, cols int) (*terminal, *screen) {
	t := &terminal{rows: rows, cols: cols}
	return t, &screen{out: t, size: func() (int, int) { return t.rows, t.cols }}
}

func TestScreenChangesInPlace(t *testing.T) {
	term, s := newTerminal(10, 20)
	io.WriteString(term, "before\n")
	show := func(want ...string) {
		t.Helper()
		if got := term.shows(); !slices.Equal(got, append([]string{"before"}, want...)) || len(term.odd) > 0 {
			t.Errorf("the terminal shows %q (and %q), want %q", got, term.odd, want)
		}
	}
	s.draw([]string{"one", "two"})
	show("one", "two")
	s.draw([]string{"three", "4", "five"})
	show("three", "4", "five")
	s.draw([]string{"six"})
	show("six")
	s.draw([]string{strings.Repeat("long ", 10), "\x1b[1mbold and too long for it\x1b[0m", "··· ünï"})
	show("long long long long", "bold and too long f", "··· ünï")
	if !term.bold {
		t.Error("nothing was bold")
	}
	s.clear()
	show()
	s.clear()
	show()
	io.WriteString(term, "after\n")
	show("after")
}

// With fewer rows the last lines are shown, and what was above is not touched.
func TestScreenOnASmallTerminal(t *testing.T) {
	term, s := newTerminal(4, 30)
	io.WriteString(term, "before\n")
	for n := range 9 {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprint("line ", i, " of ", n))
		}
		s.draw(lines)
		if want := append([]string{"before"}, lines[max(0, n-3):]...); !slices.Equal(term.shows(), want) {
			t.Errorf("%d lines are %q", n, term.shows())
		}
	}
	for _, size := range [][2]int{{1, 30}, {1, 1}, {2, 2}} {
		term, s := newTerminal(size[0], size[1])
		s.draw([]string{"a", "b"})
		s.draw([]string{"c", "d"})
		s.clear()
		if len(term.odd) > 0 {
			t.Errorf("%v: %q", size, term.odd)
		}
	}
}

func TestScreenWhoseTerminalIsResized(t *testing.T) {
	term, s := newTerminal(20, 40)
	io.WriteString(term, "before\n")
	wide := []string{strings.Repeat("a", 36), strings.Repeat("b", 20), "c"}
	s.draw(wide)
	term.resize(20, 10)
	s.draw(wide)
	if want := []string{"before", "aaaaaaaaa", "bbbbbbbbb", "c"}; !slices.Equal(term.shows(), want) {
		t.Errorf("narrow: %q", term.shows())
	}
	term.resize(20, 60)
	s.draw(wide)
	if want := append([]string{"before"}, wide...); !slices.Equal(term.shows(), want) {
		t.Errorf("wide again: %q", term.shows())
	}
}

func TestBarsAreLinesOfAScreen(t *testing.T) {
	term, s := newTerminal(10, 79)
	b := newBars(nil)
	b.screen = s
	b.add("counted", 0)
	b.add("measured", 200)
	b.show()
	b.set(0, 30, "")
	b.set(1, 200, "done")
	b.end()
	got := term.shows()
	if len(got) != 2 || !strings.HasPrefix(got[0], "counted") || !strings.Contains(got[0], "30 bytes") ||
		!strings.Contains(got[1], "200 / 200") || !strings.Contains(got[1], "█|") || !strings.HasSuffix(strings.TrimSpace(got[1]), "done") {
		t.Errorf("%q", got)
	}
}

func TestDumbTerminalsAreNotLive(t *testing.T) {
	t.Setenv("TERM", "dumb")
	if isLive(new(bytes.Buffer)) {
		t.Error("a buffer is live")
	}
}
