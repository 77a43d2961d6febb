package bench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A Recovery is how a server came back from more than it can do. After the
// steady part of a sample, an open loop at Workload.Rate, the clock sends at
// Workload.Surge for as long again, and then at Workload.Rate as before. Latency
// is back with the first span of 50 ms (of a sample of a second, 37.5 by default; longer where
// that would be less than 50 messages) of which 95 % of the messages took, from
// the time at which they were to be sent, no longer than the p99 of the steady
// part. What is told is the beginning of that span, counted from the drop.
type Recovery struct {
	// Surge is the rate that was too much, per second, and SurgeMS how long it
	// lasted, in milliseconds.
	Surge   float64 `json:"surge_rate"`
	SurgeMS float64 `json:"surge_ms"`
	// Achieved is how many were answered in the surge, per second, and PeakUS the
	// greatest p99 of it, of those in P99US.
	Achieved float64 `json:"achieved_rate"`
	PeakUS   float64 `json:"peak_p99_us"`
	// GeneratorBusy is the share of the surge in which the generator had something to
	// do: where it is more than 80 %, what was achieved may be the generator's limit.
	GeneratorBusy float64 `json:"generator_busy"`
	// SteadyUS is the p99 of the steady part, in microseconds.
	SteadyUS float64 `json:"steady_p99_us"`
	// Back reports whether latency came back; AfterMS is how long after the drop
	// that was, or for how long it was waited for, in milliseconds. 0 is a server
	// that the surge was not too much for.
	Back    bool    `json:"back"`
	AfterMS float64 `json:"after_ms"`
	// Held says that the generator itself got no CPU for a while. What it saw is
	// then not the server's doing, and takes no part in a comparison.
	Held bool `json:"held,omitempty"`
	// Unsent is how many messages of the surge and after it the clock would have
	// sent, and the generator did not, because its limit was in flight. They count
	// as messages that took too long.
	Unsent int64 `json:"unsent,omitempty"`
	// P99US is the p99 of the messages that were to be sent in each StepMS from
	// the beginning of the surge on, in microseconds; 0 where none came back.
	P99US  []float64 `json:"p99_us"`
	StepMS float64   `json:"step_ms"`
}

// unsent is what was not sent of s, in its steady part and its surge.
func (s Sample) unsent() int64 {
	if s.Recovery != nil {
		return s.Unsent + s.Recovery.Unsent
	}
	return s.Unsent
}

// afterMS is AfterMS, and +Inf where latency did not come back.
func (r *Recovery) afterMS() float64 {
	if !r.Back {
		return math.Inf(1)
	}
	return r.AfterMS
}

// clientBound reports whether the generator may have been the limit in the surge.
func (r *Recovery) clientBound() bool {
	return Figures{GeneratorBusy: r.GeneratorBusy}.ClientBound()
}

// String is what was achieved and the time to recover, for people.
func (r *Recovery) String() string {
	if r.Held {
		return "the generator was held up in the surge"
	}
	text := fmt.Sprintf("%.0f %% of the surge achieved, ", 100*r.part())
	if r.Back && r.AfterMS > 0 {
		text += "back in "
	}
	return text + afterText(r.afterMS())
}

// part is what part of the surge was achieved.
func (r *Recovery) part() float64 { return r.Achieved / r.Surge }

// afterText is milliseconds as in afterMS for people.
func afterText(ms float64) string {
	switch {
	case math.IsNaN(ms):
		return none
	case math.IsInf(ms, 1):
		return "not back"
	case ms == 0:
		return "at once"
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}

// A follower takes down the messages of a surge, and of what comes after it, by
// the step in which each was to be sent.
type follower struct {
	step, began, drop time.Duration
	steady            time.Duration // what a message may take
	surge             int           // steps of it
	steps             []followed
	answers           []response
	served            int // by the drop
	unsent            int64
	next              int // the first step after the drop that may yet be the one
	back              bool
}

type followed struct{ due, good int }

type response struct {
	step int32
	us   float32
}

// A surge has up to surgeSteps. A span of spanSteps decides. Latency is followed
// for followTimes the surge after the drop.
const (
	surgeSteps  = 100
	spanSteps   = 5
	followTimes = 5
	mostAnswers = 1 << 22
)

// follow begins: a surge for d from began, and rate after it.
func follow(began, d, steady time.Duration, surge, rate float64) *follower {
	step := max(d/surgeSteps, time.Duration(10/rate*float64(time.Second)), 1)
	f := &follower{step: step, began: began, drop: began + d, steady: steady, surge: int((d + step - 1) / step)}
	after := max(int(followTimes*d/step), 2*spanSteps)
	f.steps = make([]followed, f.surge+after)
	f.next = f.surge
	all := surge*d.Seconds() + rate*float64(after)*step.Seconds()
	f.answers = make([]response, 0, int(min(all, mostAnswers)))
	return f
}

// place is the step of a message that was to be sent at a time.
func (f *follower) place(at time.Duration) int {
	if at < f.drop {
		return min(int((at-f.began)/f.step), f.surge-1)
	}
	return min(f.surge+int((at-f.drop)/f.step), len(f.steps)-1)
}

// due notes a message that is to be sent at a time, and whether it was.
func (f *follower) due(at time.Duration, sent bool) {
	f.steps[f.place(at)].due++
	if !sent {
		f.unsent++
	}
}

// answered notes that a message is back.
func (f *follower) answered(at, latency time.Duration) {
	i := f.place(at)
	if latency <= f.steady {
		f.steps[i].good++
	}
	if at+latency <= f.drop {
		f.served++
	}
	if len(f.answers) < mostAnswers {
		f.answers = append(f.answers, response{int32(i), float32(latency) / 1000})
	}
}

// over reports whether all is known by now: latency is back, or it was followed
// for long enough.
func (f *follower) over(now time.Duration) bool {
	for !f.back && f.next+spanSteps <= len(f.steps) {
		end := f.drop + time.Duration(f.next-f.surge+spanSteps)*f.step
		if now < end+f.steady { // its messages may yet come in time
			return false
		}
		var due, good int
		for _, s := range f.steps[f.next : f.next+spanSteps] {
			due, good = due+s.due, good+s.good
		}
		if due > 0 && 100*good >= 95*due {
			f.back = true
			break
		}
		f.next++
	}
	return true
}

// result is what was seen until now.
func (f *follower) result(surge float64, now time.Duration) *Recovery {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	r := &Recovery{
		Surge: surge, SurgeMS: ms(f.drop - f.began), Achieved: float64(f.served) / (f.drop - f.began).Seconds(), SteadyUS: float64(f.steady) / 1000,
		Back: f.back, AfterMS: ms(time.Duration(f.next-f.surge) * f.step), Unsent: f.unsent, StepMS: ms(f.step),
	}
	per := make([][]float32, min(f.place(now)+1, len(f.steps)))
	for _, a := range f.answers {
		if int(a.step) < len(per) {
			per[a.step] = append(per[a.step], a.us)
		}
	}
	for i, us := range per {
		slices.Sort(us)
		p99 := 0.
		if len(us) > 0 {
			p99 = math.Round(float64(us[(len(us)-1)*99/100]))
		}
		r.P99US = append(r.P99US, p99)
		if i < f.surge {
			r.PeakUS = max(r.PeakUS, p99)
		}
	}
	return r
}
