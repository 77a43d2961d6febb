package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// The tracks of an engine in a trace viewer.
const (
	trackLoop = iota + 1
	trackKernel
	trackProtocol
)

// viewerEvent is an event of the trace-event format, as Chrome and Perfetto read
// it: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
// Times are in microseconds.
type viewerEvent struct {
	Phase   string         `json:"ph"`
	Process int            `json:"pid"`
	Track   int            `json:"tid,omitempty"`
	Name    string         `json:"name"`
	At      float64        `json:"ts"`
	Took    float64        `json:"dur,omitempty"`
	Class   string         `json:"cat,omitempty"`
	Scope   string         `json:"s,omitempty"`
	Flow    int            `json:"id,omitempty"`
	Bind    string         `json:"bp,omitempty"`
	Args    map[string]any `json:"args,omitempty"`
}

// writeTraceEvents writes s for a trace viewer: a process for each engine, both
// from the time 0 on.
func writeTraceEvents(w io.Writer, s *traceStory) error {
	var events []viewerEvent
	flow := 0
	for i, l := range s.Ledgers {
		events = append(events, l.viewerEvents(i+1, &flow)...)
	}
	file := map[string]any{"displayTimeUnit": "ns", "traceEvents": events}
	if s.Partial != "" {
		file["otherData"] = map[string]string{"partial": s.Partial}
	}
	return json.NewEncoder(w).Encode(file)
}

// viewerEvents are those of one engine. From each wait an arrow goes to what was
// acted on after it; flow is the number of the last arrow.
func (l *ledger) viewerEvents(process int, flow *int) []viewerEvent {
	name := func(kind string, track int, name string) viewerEvent {
		return viewerEvent{Phase: "M", Process: process, Track: track, Name: kind, Args: map[string]any{"name": name}}
	}
	side := ", the server's side"
	if l.Absent {
		side = ", not traced"
	}
	out := []viewerEvent{
		name("process_name", 0, l.Engine+side),
		name("thread_name", trackLoop, "loop"),
		name("thread_name", trackKernel, "kernel"),
		name("thread_name", trackProtocol, "protocol"),
	}
	var wait *viewerEvent // the last
	for i := range l.Events {
		e := &l.Events[i]
		v := viewerEvent{Phase: "i", Scope: "t", Process: process, Track: trackLoop, Name: e.String(), Class: e.Layer, At: microseconds(e.At)}
		switch {
		case e.protocol():
			v.Track = trackProtocol
		case e.Layer == layerOperation:
			v.Name = e.operation()
		case e.Layer == layerCall:
			v.Track = trackKernel
			if e.Wait {
				v.span(e.Took)
				wait = &v
			}
		case e.Layer == layerTold:
			v.span(l.until(i) - e.At)
			if wait != nil {
				*flow++
				arrow := viewerEvent{Process: process, Name: "woke", Class: "flow", Flow: *flow}
				from, to := arrow, arrow
				from.Phase, from.Track, from.At = "s", wait.Track, wait.At+wait.Took
				to.Phase, to.Track, to.At, to.Bind = "f", v.Track, v.At, "e"
				out = append(out, from, to)
			}
		}
		out = append(out, v)
	}
	return out
}

// operations say what passes between a loop and its driver.
var operations = map[string]string{
	"Receive":         "the loop asks its driver to receive",
	"Received":        "the driver reports bytes received",
	"ReceiveEnded":    "the driver reports that no more will come",
	"Send":            "the loop asks its driver to send",
	"Sent":            "the driver reports bytes sent",
	"Connect":         "the loop asks its driver to connect",
	"Made":            "the connection is made",
	"Close":           "the loop asks its driver to close",
	"Closed":          "the driver reports the connection closed",
	"Build":           "the loop has the factory build a protocol",
	"posted function": "the loop runs a function that was posted to it",
	"timer":           "the loop runs a timer of the protocol",
}

// operation is e in a trace viewer.
func (e *traceEvent) operation() string {
	name := operations[e.What]
	if name == "" {
		name = "the loop: " + e.What
	}
	if e.N > 0 {
		name += fmt.Sprintf(", %d bytes", e.N)
	}
	if e.Failed != "" {
		name += ", " + e.Failed
	}
	return name
}

// until is when the loop had done what event i led to: when it turned to the
// next, or to a wait.
func (l *ledger) until(i int) time.Duration {
	for k := i + 1; k < len(l.Events); k++ {
		switch e := &l.Events[k]; {
		case k >= maxEvents: // ConnectionLost, behind those that are left out
			return l.Events[k-1].At
		case e.Layer == layerTold || e.Wait:
			return e.At
		}
	}
	return l.Events[len(l.Events)-1].At
}

// span makes v last.
func (v *viewerEvent) span(d time.Duration) {
	v.Phase, v.Scope, v.Took = "X", "", max(microseconds(d), 0.001)
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
