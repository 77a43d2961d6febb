package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cheggaaa/pb/v3"
	"github.com/mattn/go-isatty"
)

// fileOf is the file behind w, or nil.
func fileOf(w io.Writer) *os.File {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	f, _ := w.(*os.File)
	return f
}

func isTerminal(w io.Writer) bool {
	f := fileOf(w)
	return f != nil && isatty.IsTerminal(f.Fd())
}

// isLive reports whether w is a terminal on which lines can change in place.
func isLive(w io.Writer) bool { return isTerminal(w) && os.Getenv("TERM") != "dumb" }

// A screen is lines at the end of a terminal that change in place. The cursor
// stands below them, so that whatever comes next, a signal's end of the program
// too, begins on a line of its own.
type screen struct {
	out   io.Writer
	size  func() (rows, cols int)
	cells []int // of each line that is there
	cols  int   // that the terminal had then
}

func newScreen(out io.Writer) *screen {
	return &screen{out: out, size: func() (rows, cols int) {
		if f := fileOf(out); f != nil {
			rows, cols = terminalSize(f.Fd())
		}
		if rows <= 0 || cols <= 0 {
			return 24, 80
		}
		return rows, cols
	}}
}

// room is how many lines of how many cells a screen can show now. The last column
// stays empty: terminals differ in what they do behind it.
func (s *screen) room() (lines, cells int) {
	rows, cols := s.size()
	return max(rows-1, 1), max(cols-1, 1)
}

// draw puts lines in the place of those before, cut to the width; of more than
// the terminal has room for, the last ones. It is one write, so that no half of
// it is seen.
func (s *screen) draw(lines []string) {
	most, width := s.room()
	rows, cols := s.size()
	lines = lines[max(0, len(lines)-most):]
	var b strings.Builder
	if len(s.cells) > 0 {
		// What was drawn on a wider terminal takes more rows by now.
		up := 0
		for _, n := range s.cells {
			up += max(1, (n+cols-1)/cols)
		}
		if up = min(up, rows-1); up > 0 { // 0 would be taken for 1
			fmt.Fprintf(&b, "\x1b[%dA", up)
		}
		b.WriteString("\r")
		if cols != s.cols {
			b.WriteString("\x1b[J")
		}
	}
	s.cells, s.cols = s.cells[:0], cols
	for _, line := range lines {
		line = strings.TrimRight(pb.StripString(line, width), " ")
		s.cells = append(s.cells, pb.CellCount(line))
		b.WriteString("\r\x1b[2K" + line + "\n")
	}
	b.WriteString("\x1b[J")
	io.WriteString(s.out, b.String())
}

// clear takes the lines away.
func (s *screen) clear() {
	if len(s.cells) > 0 {
		s.draw(nil)
	}
}
