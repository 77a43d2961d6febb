package main

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed trace.html
var tracePageText string

var tracePage = template.Must(template.New("trace").Funcs(template.FuncMap{"ms": milliseconds}).Parse(tracePageText))

// writeTracePage writes s as a page that needs nothing but itself.
func writeTracePage(w io.Writer, s *traceStory) error { return tracePage.Execute(w, s) }

// lanes of an engine on the page, from left to right.
var lanes = [...]string{"submission", "kernel", "completion or readiness", "protocol"}

// Lanes are the names of the page's lanes.
func (s *traceStory) Lanes() []string { return lanes[:] }

// Lane is the index of e's lane.
func (e *traceEvent) Lane() int {
	switch e.Layer {
	case layerEntry:
		return 0
	case layerCall:
		return 1
	case layerTold:
		return 2
	}
	return 3
}

// Meaning explains e to whoever steps through the page.
func (e *traceEvent) Meaning() string {
	switch {
	case e.Layer == layerEntry:
		return "An entry is put into the submission queue. That is no system call: the next enter takes it along."
	case e.Wait && e.submits():
		return "One system call hands over the entries and collects what is done, or sleeps until something is."
	case e.Wait:
		return "One system call asks which descriptors may be read or written, or sleeps until one may."
	case e.Layer == layerCall:
		return "A system call of its own, with its result."
	case e.Layer == layerTold:
		return "The kernel has said this; the loop acts on it now."
	case e.Layer == layerCallback:
		return "The engine calls the protocol."
	}
	return "The protocol asks this of its transport."
}

// Sums are both ledgers' sums, row by row: a name and two values.
func (s *traceStory) Sums() [][3]string {
	var rows [][3]string
	right := s.Ledgers[1].sums()
	for i, sum := range s.Ledgers[0].sums() {
		rows = append(rows, [3]string{sum[0], sum[1], right[i][1]})
	}
	return rows
}
