package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"
	"unicode"
)

// A Spec is what the connections of a Custom workload do: each sends a request,
// waits for the answer, pauses, and begins again, until its lifetime is over and
// another connection takes its place. [ReadWorkload] reads one from a file.
type Spec struct {
	// Name is what tables call the workload: at most 40 printable characters.
	Name string `json:"name"`
	// Request is the bytes of a request, at least 12, of which the first 12 are a
	// header.
	Request Dist `json:"request_bytes"`
	// Response is the bytes of an answer. Without it an answer has Ratio bytes
	// for each of its request, rounded, and at least one.
	Response Dist    `json:"response_bytes,omitzero"`
	Ratio    float64 `json:"response_ratio,omitempty"`
	// Think is the nanoseconds between an answer and the next request, of a closed
	// loop.
	Think Dist `json:"think_ns,omitzero"`
	// Requests is how many requests a connection lives for, or Life how many
	// nanoseconds; without either it lives for ever. What is in flight when the
	// time is over is waited for.
	Requests Dist `json:"lifetime_requests,omitzero"`
	Life     Dist `json:"lifetime_ns,omitzero"`
}

// check is nil if s can be measured, or says what cannot be right.
func (s *Spec) check() error {
	if err := checkName(s.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	for _, part := range []struct {
		name  string
		d     Dist
		q     quantity
		given bool
	}{
		{"request", s.Request, requestBytes, true},
		{"response", s.Response, responseBytes, s.Ratio == 0},
		{"think", s.Think, thinkTime, true},
		{"lifetime requests", s.Requests, lifeRequests, !s.Requests.IsZero()},
		{"lifetime time", s.Life, lifeTime, !s.Life.IsZero()},
	} {
		if part.given {
			if err := part.d.check(part.q); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	switch {
	case s.Ratio != 0 && !s.Response.IsZero():
		return errors.New("response and ratio are two ways to say one thing; use one of them")
	case s.Ratio != 0:
		if err := checkRatio(s.Ratio); err != nil {
			return fmt.Errorf("ratio: %w", err)
		}
	}
	if !s.Requests.IsZero() && !s.Life.IsZero() {
		return errors.New("lifetime: requests and time are two ways to end a connection; use one of them")
	}
	return nil
}

func checkName(name string) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || len([]rune(name)) > 40 || strings.ContainsFunc(name, bad) || strings.TrimSpace(name) != name {
		return fmt.Errorf("%s cannot be a name; want 1 to 40 printable characters", quote(name))
	}
	return nil
}

func checkRatio(ratio float64) error {
	if !(ratio > 0) || ratio > 1e6 {
		return fmt.Errorf("%v is out of bounds; want bytes of answer per byte of request, more than 0 and at most 1000000", ratio)
	}
	return nil
}

// response is the bytes of the answer to a request.
func (s *Spec) response(request, drawn int64) int64 {
	if s.Ratio == 0 {
		return drawn
	}
	return max(1, min(responseBytes.most, int64(math.Round(s.Ratio*float64(request)))))
}

// digest tells Specs of one name apart, with what stands beside them.
func (w Workload) digest() string {
	text, err := json.Marshal(struct {
		Spec               *Spec
		Connections, Depth int
	}{w.Spec, w.Connections, w.Depth})
	if err != nil {
		panic(err) // a Spec is numbers and a name
	}
	h := fnv.New32a()
	h.Write(text)
	return fmt.Sprintf("#%06x", h.Sum32()&0xffffff)
}

// specText is the name of a Custom.
func (w Workload) specText() string {
	name := string(w.Kind)
	if w.Spec != nil {
		name = w.Spec.Name
	}
	if w.Rate > 0 {
		return fmt.Sprintf("%s, %s at %v/s, %s", name, plural(w.Connections, "connection"), w.Rate, w.digest())
	}
	return fmt.Sprintf("%s, %s, %s", name, plural(w.Connections, "connection"), w.digest())
}

// Description is in words what a Custom does, or "" of another kind: there the
// name says it all.
func (w Workload) Description() string {
	s := w.Spec
	if s == nil {
		return ""
	}
	text := "request: " + s.Request.describe(requestBytes) + "; answer: "
	if s.Ratio > 0 {
		text += fmt.Sprintf("%v times as much", s.Ratio)
	} else {
		text += s.Response.describe(responseBytes)
	}
	switch {
	case w.Rate > 0:
		text += fmt.Sprintf("; by the clock: %v/s", w.Rate)
	case w.Depth > 1:
		text += fmt.Sprintf("; in flight on each connection: %d", w.Depth)
	}
	if !s.Think.IsZero() {
		text += "; pause: " + s.Think.describe(thinkTime)
	}
	switch {
	case !s.Requests.IsZero():
		text += "; requests of a connection: " + s.Requests.describe(lifeRequests)
	case !s.Life.IsZero():
		text += "; life of a connection: " + s.Life.describe(lifeTime)
	}
	return text
}
