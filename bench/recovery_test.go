package bench

import (
	"testing"
	"time"
)

// A follower is told of messages that took what a table says, and finds where
// latency is back; no clock takes part.
func TestRecoveryIsWhereLatencyStaysLow(t *testing.T) {
	const (
		surge, rate = 2000, 1000 // per second
		steady      = time.Millisecond
		drop        = time.Second // a second's surge from 0 on
		end         = 6 * time.Second
		late, soon  = 10 * steady, steady
	)
	for name, c := range map[string]struct {
		latency func(at time.Duration, k int) time.Duration // of message k, to be sent at a time; 0: it is not sent
		back    bool
		after   time.Duration
		unsent  bool
	}{
		"it was never away": {func(time.Duration, int) time.Duration { return soon }, true, 0, false},
		"300 ms later": {func(at time.Duration, _ int) time.Duration {
			if at < drop+300*time.Millisecond {
				return late
			}
			return soon
		}, true, 300 * time.Millisecond, false},
		"one in a hundred stays late, as in any steady run": {func(at time.Duration, k int) time.Duration {
			if at < drop+200*time.Millisecond || k%100 == 0 {
				return late
			}
			return soon
		}, true, 200 * time.Millisecond, false},
		"a lull of 20 ms is not the end": {func(at time.Duration, _ int) time.Duration {
			if at < drop+100*time.Millisecond || at >= drop+120*time.Millisecond && at < drop+400*time.Millisecond {
				return late
			}
			return soon
		}, true, 400 * time.Millisecond, false},
		"what was not sent is late": {func(at time.Duration, _ int) time.Duration {
			if at < drop+100*time.Millisecond {
				return 0
			}
			return soon
		}, true, 100 * time.Millisecond, true},
		"never": {func(time.Duration, int) time.Duration { return late }, false, end - drop, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(0, drop, steady, surge, rate)
			k, served, worst := 0, 0, time.Duration(0)
			message := func(at time.Duration) {
				latency := c.latency(at, k)
				k++
				if at < drop {
					worst = max(worst, latency)
					if latency > 0 && at+latency <= drop {
						served++
					}
				}
				f.due(at, latency > 0)
				if latency > 0 {
					f.answered(at, latency)
				}
			}
			for at := time.Duration(0); at < drop; at += time.Second / surge {
				message(at)
			}
			now := drop
			for ; !f.over(now) && now < 2*end; now += time.Second / rate {
				message(now)
			}
			r := f.result(surge, now)
			// What was decided is the span's beginning, to a step.
			after := time.Duration(r.AfterMS * float64(time.Millisecond))
			if r.Back != c.back || after > c.after || c.back && after < c.after-f.step || !c.back && after < c.after-spanSteps*f.step {
				t.Errorf("back: %v, after %v; want %v, %v", r.Back, after, c.back, c.after)
			}
			if (r.Unsent > 0) != c.unsent {
				t.Errorf("%d messages are unsent", r.Unsent)
			}
			if r.Achieved != float64(served) || r.PeakUS != float64(worst)/1000 {
				t.Errorf("%v were achieved with a p99 of %v us; want %v, %v", r.Achieved, r.PeakUS, served, worst)
			}
			if now >= 2*end {
				t.Error("it was followed without an end")
			}
			if r.SurgeMS != 1000 || r.StepMS != 10 || r.SteadyUS != 1000 || r.Surge != surge {
				t.Errorf("%+v", r)
			}
			if want := int((now-1)/f.step) + 1; len(r.P99US) < want-1 || len(r.P99US) > want+1 {
				t.Errorf("%d steps until %v", len(r.P99US), now)
			}
		})
	}
}

// At a low rate a step is long enough for ten messages, and the end is not put
// off for that.
func TestRecoveryAtALowRate(t *testing.T) {
	f := follow(0, time.Second, time.Millisecond, 40, 20)
	if f.step != time.Second/2 || f.surge != 2 {
		t.Errorf("a step is %v; the surge has %d of them", f.step, f.surge)
	}
	now := f.drop
	for ; !f.over(now) && now < time.Minute; now += time.Second {
	}
	if f.back || now > 10*time.Second {
		t.Errorf("without a message it is back: %v, at %v", f.back, now)
	}
}

func TestRecoveryKeepsNoMoreThanItsLimit(t *testing.T) {
	f := follow(0, time.Second, time.Millisecond, 1e9, 1e8)
	if cap(f.answers) > mostAnswers {
		t.Errorf("room for %d answers", cap(f.answers))
	}
	f.answers = f.answers[:cap(f.answers)]
	f.answered(0, 0)
	if len(f.answers) > mostAnswers || f.steps[0].good != 1 {
		t.Errorf("%d answers, %d good", len(f.answers), f.steps[0].good)
	}
}
