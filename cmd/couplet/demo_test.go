package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestFastDemo(t *testing.T) {
	t.Parallel()
	o := couple(t, "demo", "--fast", "--json").want(t, 0)
	if o.took > 5*time.Second {
		t.Errorf("it took %v", o.took)
	}
	var got struct {
		Fast    bool
		Engines []demoOutcome
	}
	if err := json.Unmarshal([]byte(o.stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, o.stdout)
	}
	if !got.Fast || len(got.Engines) != len(working()) {
		t.Errorf("%d engines, want %v", len(got.Engines), working())
	}
	for _, e := range got.Engines {
		for _, w := range []demoWay{e.AllAtOnce, e.OneByOne} {
			if w.Poems != 3 || w.Bytes != 3003+623+653 || w.Crossings <= 0 {
				t.Errorf("%s: %+v", e.Engine, w)
			}
			if (w.CPU == nil) != (e.Engine == "goroutine") {
				t.Errorf("%s: CPU %v", e.Engine, w.CPU)
			}
		}
		if e.AllAtOnce.Switches < 50 || e.OneByOne.Switches != 2 {
			t.Errorf("%s: %d turns from poem to poem at once, %d one by one", e.Engine, e.AllAtOnce.Switches, e.OneByOne.Switches)
		}
		if e.OneByOne.Seconds < 1.15 || e.AllAtOnce.Seconds < 0.505 {
			t.Errorf("%s: %.3f s and %.3f s are less than the pace allows", e.Engine, e.AllAtOnce.Seconds, e.OneByOne.Seconds)
		}
	}
}

func TestDemoOfOneEngine(t *testing.T) {
	t.Parallel()
	o := couple(t, "demo", "--fast", "--engine", "goroutine").want(t, 0)
	for _, want := range []string{"all at once: 3003 bytes of The Raven in 0:00:", "one by one: got 3 poems in 0:00:", "kernel crossings", "n/a"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %q in:\n%s", want, o.stdout)
		}
	}
	if strings.Contains(o.stdout, "epoll") {
		t.Errorf("other engines took part:\n%s", o.stdout)
	}
}

// Interrupted, the demo said so once for each engine, and its JSON was lost.
func TestInterruptedDemo(t *testing.T) {
	t.Parallel()
	j := begin(t, "demo", "--fast")
	j.stdout.await(t, "goroutine, all at once: got 3 poems", 1)
	j.cmd.Process.Signal(os.Interrupt)
	if o := j.end().want(t, 1); !strings.HasSuffix(o.stderr, "couplet: interrupted\n") || strings.Count(o.stderr, "interrupted") != 1 {
		t.Errorf("stderr %q", o.stderr)
	}

	done := demoWay{Seconds: 1, Poems: 3}
	for _, c := range []struct {
		outcomes []demoOutcome
		want     string
	}{
		{[]demoOutcome{{Engine: "uring"}}, ""},
		{[]demoOutcome{{Engine: "uring"}, {Engine: "epoll", AllAtOnce: done}}, `"partial":true,"engines":[{"engine":"epoll","description":"","all_at_once":`},
		{[]demoOutcome{{Engine: "epoll", AllAtOnce: done, OneByOne: done}}, `"one_by_one"`},
	} {
		var out bytes.Buffer
		d := &demo{common: &common{stdout: &out}, asJSON: true}
		if err := d.interrupted(c.outcomes); !errors.Is(err, errInterrupted) {
			t.Error(err)
		}
		var text bytes.Buffer
		json.Compact(&text, out.Bytes())
		all := len(c.outcomes) > 0 && c.outcomes[0].OneByOne.Poems > 0
		if !strings.Contains(text.String(), c.want) || strings.Contains(text.String(), "one_by_one") != all || (text.Len() == 0) != (c.want == "") {
			t.Errorf("%+v is written as %s", c.outcomes, &text)
		}
	}
}

func TestPartsAreTheTutorials(t *testing.T) {
	for i, size := range []int{3003, 623, 653} {
		if p := parts()[i]; len(p.text) != size || p.title == "" {
			t.Errorf("part %d is %q of %d bytes, want %d", i, p.title, len(p.text), size)
		}
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                             "0:00:00.000000",
		10133169 * time.Microsecond:   "0:00:10.133169",
		23065661499 * time.Nanosecond: "0:00:23.065661",
		25*time.Hour + 61*time.Second: "25:01:01.000000",
		999999999 * time.Nanosecond:   "0:00:01.000000",
	} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) is %s, want %s", d, got, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0.1": 100 * time.Millisecond, "5": 5 * time.Second, "100ms": 100 * time.Millisecond, "0": 0, "1e-3": time.Millisecond,
		".5": 500 * time.Millisecond, "1m30s": 90 * time.Second,
	} {
		var d duration
		if err := d.Set(in); err != nil || time.Duration(d) != want {
			t.Errorf("%q is %v, %v; want %v", in, time.Duration(d), err, want)
		}
	}
}
