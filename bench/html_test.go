package bench_test

import (
	"bytes"
	"encoding/json"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"couplet/bench"
)

// measured is a Result as a long plan leaves it: closed loops, poems, idle
// connections, a sweep of offered rates that the candidates follow up to 100,000,
// 80,000 and no rate a second, and two rates at a part of the second's knee. From a
// surge of twice the knee the first is back after 1.8 s, the second after 2.7, and the
// third never; of 1.2 times the knee the first takes no notice.
func measured(candidates ...string) *bench.Result {
	r := &bench.Result{Version: bench.Version, Manifest: bench.Manifest{
		Began: time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC), Took: 5 * time.Minute,
		Command: []string{"run", "--table", "--only", "echo 64"}, Commit: "0123abcd",
		Machine: bench.Machine{
			Kernel: "6.18.44 x86_64", CPU: "A CPU", CPUs: 2, Virtual: true,
			Mitigations: map[string]string{"spectre_v2": "Mitigation: IBRS"}, Sysctls: map[string]string{"net.core.somaxconn": "4096"},
			Go: "go1.26", Tier: "multishot",
		},
		GOMAXPROCS: 1, ClientCPU: 1, Engines: map[string]string{"uring": "tier multishot"},
		Seed: 1, Rounds: 7, Warm: time.Second / 3, Duration: time.Second, Baseline: candidates[len(candidates)-1],
		LoadBefore: "0.10 0.20 0.30", LoadAfter: "1.10 1.20 1.30",
	}}
	r.Workloads = []bench.Workload{
		{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1},
		{Kind: bench.Echo, Connections: 1000, Size: 64, Depth: 16},
		{Kind: bench.Poems, Connections: 10_000, Size: 10, Delay: 100 * time.Millisecond},
		{Kind: bench.Idle, Connections: 8000, Size: 64, Depth: 1},
	}
	for _, rate := range []float64{20e3, 40e3, 60e3, 80e3, 100e3, 120e3, 160e3} {
		r.Workloads = append(r.Workloads, bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: rate})
	}
	r.Knee = 80e3
	r.Workloads = append(r.Workloads,
		bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: 40e3, Surge: 96e3, Share: .5},
		bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: 40e3, Surge: 160e3, Share: .5},
		bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: 64e3, Share: .8},
	)
	for k, w := range r.Workloads {
		for round := range r.Manifest.Rounds {
			for i, c := range candidates {
				noise := 1 + .01*float64((round*3+i*5+k)%7)
				cost := (8 + 1.5*float64(i)) * noise
				if k == 1 {
					cost = .5 * noise // no difference here
				}
				s := bench.Sample{
					Workload: w.String(), Candidate: c, Round: round, Place: i, Seconds: 1, Units: 1e6 / cost,
					UserUS: .3 * cost, SystemUS: .7 * cost, Target: w.Rate, Mallocs: .01, Switches: .2 * noise,
					RSS: int64(20+i) << 20, GeneratorBusy: .6, Others: .02,
				}
				if i < 2 {
					s.Crossings, s.Batch = .4*float64(1+i), 12/float64(1+i)
					s.Batches = []int64{10, 0, 30, int64(60 * i)}
					s.Held = int64(16-15*i) << 18
				}
				if k == 1 {
					s.GeneratorBusy, s.ClientBound = .97, true
				}
				slow, limit := 1., []float64{100e3, 80e3, 10e3}[min(i, 2)]
				if w.Rate > 0 {
					s.Units = min(w.Rate, limit)
					slow = 1 + w.Rate/limit
					if w.Rate > limit {
						slow = 30 * w.Rate / limit
					}
				}
				if w.Kind == bench.Idle {
					s.BytesPerConn = 400 * noise * float64(1+i)
				} else {
					for _, q := range []float64{0, .1, .25, .5, .75, .9, .95, .975, .99, .995, .999, .9995, .9999, .99999, 1} {
						us := 100 * slow * cost * (1 + .6*math.Log10(1/(1-q+1e-6)))
						s.Percentiles = append(s.Percentiles, bench.Percentile{Share: q, US: us})
					}
					s.P50US, s.P99US, s.P999US, s.MaxUS = s.Percentiles[3].US, s.Percentiles[8].US, s.Percentiles[10].US, s.Percentiles[14].US
				}
				switch {
				case w.Surge > 100e3:
					s.Recovery = recovered(w.Surge, limit, s.P99US, 1800+float64(900*i+10*round), i < 2)
				case w.Surge > limit:
					s.Recovery = recovered(w.Surge, limit, s.P99US, float64(400*i+10*round), i < 2)
				case w.Surge > 0:
					s.Recovery = recovered(w.Surge, limit, s.P99US, 0, true)
				}
				r.Samples = append(r.Samples, s)
			}
		}
	}
	r.Samples[1].Errors = map[string]int64{"bytes wrong": 7}
	r.Samples[3].Others, r.Samples[3].Retries = .4, 2
	r.Audits = []bench.Audit{{Workload: r.Workloads[0].String(), Candidate: "uring", Counted: .5, Kernel: .51}}
	r.Skipped = []bench.Skipped{{Candidate: "c-uring", Why: "there is no C compiler"}}
	return r
}

// recovered is a surge of a second, of which no more than limit is achieved, and from
// which latency is back after some time, or not.
func recovered(surge, limit, steady, after float64, back bool) *bench.Recovery {
	r := &bench.Recovery{
		Surge: surge, SurgeMS: 1000, Achieved: min(surge, limit), GeneratorBusy: .6,
		SteadyUS: steady, PeakUS: steady, Back: back, AfterMS: after, StepMS: 10,
	}
	for at := -1000.; at < after+250; at += 10 {
		us := steady
		switch {
		case after == 0:
		case at < 0:
			us += (at + 1000) * 1000
			r.PeakUS = us
		case at < after:
			us += (after - at) / after * 1e6
		}
		r.P99US = append(r.P99US, us)
	}
	return r
}

func pageOf(t *testing.T, r *bench.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageShowsAllThatWasMeasured(t *testing.T) {
	r := measured("uring", "epoll", "gnet")
	page := pageOf(t, r)
	has := func(what, text string) {
		t.Helper()
		if !strings.Contains(page, html.EscapeString(text)) {
			t.Errorf("the page lacks %s: %q", what, text)
		}
	}
	verdict := r.Verdict("uring", "epoll")
	has("the verdict", verdict)
	for _, w := range r.Workloads {
		has("a workload", w.String())
	}
	for _, c := range []string{"uring", "epoll", "gnet", "c-uring"} {
		has("a candidate", c)
	}
	for _, text := range []string{
		"no difference", "bytes wrong", "client-bound", "there is no C compiler", "All offered rates", "100\u202f000",
		"below 20\u202f000", "Resident bytes per idle connection", "mitigation of spectre_v2", "net.core.somaxconn",
		"99.999 %", "The MIT License", "uPlot", "Batch sizes", "8–15", "75.0", "no worker thread",
		"registered with io_uring",
		"the kernel saw 1.02 to 1.02 times as many",
		"50 % of the knee", "80 % of the knee", "80\u202f000 per second", "Overload and recovery", "120 % of the knee", "200 % of the knee",
		"1.83 s", "2.73 s", "430 ms", "at once", "62 %", "uring is back sooner",
	} {
		has("a part", text)
	}
	// Of the process and of it to receive into: 20 MiB and 4, 21 and 1/4, 22 and none told.
	for _, w := range []bench.Workload{r.Workloads[0], r.Workloads[3]} { // active, and idle
		row := `<th scope="row">` + w.String() + `</th><td class="n">20.0</td><td class="n">4.00</td><td class="n">21.0</td><td class="n">0.250</td><td class="n">22.0</td><td class="n">–</td>`
		if !strings.Contains(page, row) {
			t.Errorf("the page lacks the memory of %s", w)
		}
	}
	if want := "go run ./bench/run --table --only 'echo 64'"; !strings.Contains(html.UnescapeString(page), want) {
		t.Errorf("the page lacks the command %q", want)
	}
	order := []string{verdict, `id="winners"`, `id="fixed"`, `id="overload"`, `id="workloads"`, `id="saturation"`, `id="memory"`, `id="ledger"`, `id="manifest"`, `id="repeat"`}
	at := 0
	for _, part := range order {
		i := strings.Index(page[at:], html.EscapeString(part))
		if i < 0 {
			if i = strings.Index(page[at:], part); i < 0 {
				t.Fatalf("%q is missing or not in its place", part)
			}
		}
		at += i
	}
	if strings.Contains(page, `class="partial"`) {
		t.Error("a complete result has the partial mark")
	}
	r.Partial = true
	if page := pageOf(t, r); !strings.Contains(page, `class="partial"`) || strings.Index(page, `class="partial"`) > strings.Index(page, `id="winners"`) {
		t.Error("a partial result has no mark at the top")
	}
}

// The page names no other place, but in the library's comments.
func TestPageAsksNoNetwork(t *testing.T) {
	page := pageOf(t, measured("uring", "epoll", "gnet"))
	page = regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(page, "")
	for _, m := range regexp.MustCompile(`.{0,60}(https?:)?//[a-zA-Z].{0,40}`).FindAllString(page, -1) {
		if strings.Contains(m, "http") {
			t.Errorf("the page names another place: %s", m)
		}
	}
	for _, m := range regexp.MustCompile(`<[a-z][^<>]*\s(?:src|href|action|srcset|data)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "#") && m[1] != "data:," {
			t.Errorf("the page loads %q", m[1])
		}
	}
	if regexp.MustCompile(`@import|url\(`).MatchString(page) {
		t.Error("the style loads something")
	}
}

func TestPageEscapesWhatOthersWrote(t *testing.T) {
	const hostile = `<script>alert(1)</script>`
	r := measured(hostile, `"' onload=x </title>`, "gnet")
	r.Manifest.CPU, r.Manifest.Commit = "</td><img>", "</code><b>"
	r.Manifest.Command = []string{"run", "$(x)'</pre><img>"}
	r.Manifest.Baseline = "<i>base"
	r.Skipped = append(r.Skipped, bench.Skipped{Workload: "<w>", Candidate: "<img>", Why: "</ul><img>"})
	r.Samples[5].Errors = map[string]int64{"</script><img>": 1}
	page := pageOf(t, r)
	if n := strings.Count(page, "<script"); n != 3 {
		t.Errorf("the page has %d script elements and not 3", n)
	}
	for _, text := range []string{"alert(1)</script>", "<img>", "<w>", "<i>base", "</title> "} {
		if strings.Contains(page, text) {
			t.Errorf("%q came into the page as it is", text)
		}
	}
	var data struct {
		Candidates  []string `json:"candidates"`
		Percentiles []struct {
			Shares []float64    `json:"shares"`
			US     [][]*float64 `json:"us"`
		} `json:"percentiles"`
	}
	m := regexp.MustCompile(`(?s)<script id="data" type="application/json">(.*?)</script>`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("the page has no data")
	}
	if err := json.Unmarshal([]byte(m[1]), &data); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range data.Candidates {
		found = found || c == hostile
	}
	if !found {
		t.Errorf("the data has the candidates %q", data.Candidates)
	}
	for _, d := range data.Percentiles {
		for _, us := range d.US {
			if len(us) != len(d.Shares) {
				t.Errorf("%d values at %d percentiles", len(us), len(d.Shares))
			}
		}
	}
}

// The knee is the last rate that was followed, of each candidate.
func TestPageMarksTheKnee(t *testing.T) {
	page := pageOf(t, measured("uring", "epoll", "gnet"))
	for _, want := range []string{
		`uring</th><td class="n"><b>100` + "\u202f" + `000</b>`,
		`epoll</th><td class="n"><b>80` + "\u202f" + `000</b>`,
		`gnet</th><td class="n same">below 20` + "\u202f" + `000</td>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// The knee was the last rate that was kept up with, whatever failed below it.
func TestKneeIsBeforeTheFirstRateThatFails(t *testing.T) {
	r := measured("uring", "epoll")
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Candidate == "uring" && s.Target == 60e3 {
			s.Units = 50e3
		}
	}
	if rate, who := r.SlowerKnee(r.Workloads[0], "uring", "epoll"); rate != 40e3 || who != "uring" {
		t.Errorf("the knee is %v of %s", rate, who)
	}
	page := pageOf(t, r)
	const again = "is not monotonic: after rates with which it did not keep up it kept up with 100\u202f000 per second"
	if strings.Count(page, "is not monotonic") != 1 || !strings.Contains(page, "The curve of uring "+again) {
		t.Errorf("the page lacks %q of uring alone", again)
	}
}

// A fixed rate was called 80 % of the knee, and nobody said that it was not achieved.
func TestFixedRateThatWasNotAchievedIsMarked(t *testing.T) {
	r := measured("uring", "epoll")
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Candidate == "epoll" && s.Target == 64e3 {
			s.Units = 59e3
		}
	}
	var text bytes.Buffer
	if err := r.WriteFixedRates(&text); err != nil || strings.Count(text.String(), "behind") != 1 || !strings.Contains(text.String(), " (behind: only 59000/s); ") {
		t.Errorf("%v:\n%s", err, &text)
	}
	if page := pageOf(t, r); strings.Count(page, "behind: only 59\u202f000 per s") != 1 {
		t.Error("the page does not mark it, or all")
	}
}

// The fixed rates and the overloads come before the other workloads, each with its
// chart. Two surges from one rate do not tell of its latency twice.
func TestPageShowsFixedRatesFirst(t *testing.T) {
	r := measured("uring", "epoll", "gnet")
	page := pageOf(t, r)
	rates := page[strings.Index(page, `<section id="fixed"`):strings.Index(page, `<section id="workloads"`)]
	for what, n := range map[string]int{`data-kind="percentiles"`: 2, `data-kind="recovery"`: 2, `<h3 id="fixed-`: 2, `<h3 id="overload-`: 2} {
		if got := strings.Count(rates, what); got != n {
			t.Errorf("%s is there %d times, want %d", what, got, n)
		}
	}
	if strings.Contains(rates, "gnet") {
		t.Error("a candidate takes part that the verdict is not about")
	}
	var text bytes.Buffer
	if err := r.WriteFixedRates(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	for i, want := range []string{
		`The knee of the slower engine is at 80000/s of echo 64 x 64 B\.`,
		`At 50 % of it \(40000/s\), p50 / p99 / p99\.9 in us: uring .*; the p99 of uring is lower \(ratio uring to epoll 0\..*`,
		`At 80 % of it \(64000/s\), p50 / p99 / p99\.9 in us: uring .*`,
		`In a surge to 120 % of it \(96000/s\), achieved / worst p99 in us: uring 100 % / \d{4}, epoll 83 % / 99\d{4}\.`,
		`After it, latency is back at that of 40000/s after: uring at once, epoll 430 ms; uring is back sooner\.`,
		`In a surge to 200 % of it \(160000/s\), achieved / worst p99 in us: uring 62 % / 99\d{4}, epoll 50 % / 99\d{4}\.`,
		`After it, latency is back at that of 40000/s after: uring 1\.83 s, epoll 2\.73 s; uring is back sooner\.`,
	} {
		if len(lines) != 7 || !regexp.MustCompile("^"+want+"$").MatchString(lines[i]) {
			t.Fatalf("line %d is not %q:\n%s", i, want, &text)
		}
	}
	r.Workloads = r.Workloads[:4]
	text.Reset()
	page = pageOf(t, r)
	if err := r.WriteFixedRates(&text); err != nil || text.Len() > 0 || strings.Contains(page, `id="fixed"`) || strings.Contains(page, `id="overload"`) {
		t.Errorf("without fixed rates there is %q (%v)", &text, err)
	}
}

// Fixed rates were workloads of their own in the tally.
func TestPageCountsWorkloadsOnce(t *testing.T) {
	r := measured("uring", "epoll")
	page := pageOf(t, r)
	tally := regexp.MustCompile(`<ul class="tally">.*?</ul>`).FindString(page)
	n := 0
	for _, m := range regexp.MustCompile(`<b>(\d+)</b>`).FindAllStringSubmatch(tally, -1) {
		one, _ := strconv.Atoi(m[1])
		n += one
	}
	if n != 4 || !strings.Contains(tally, "<b>3</b>") || !strings.Contains(tally, "<b>1</b> no difference") {
		t.Errorf("%d workloads of 4 are counted: %s", n, tally)
	}
}

// A server that does not come back, and one that never went.
func TestWhoIsNotBackIsTold(t *testing.T) {
	r := measured("gnet", "uring")
	for i := range r.Samples {
		if v := r.Samples[i].Recovery; v != nil && r.Samples[i].Round == 0 {
			v.Held = true // takes no part
		} else if v != nil && r.Samples[i].Candidate == "gnet" {
			v.Back, v.AfterMS, v.Unsent = false, 5000, 10
		} else if v != nil {
			v.AfterMS = 0
		}
	}
	r.Manifest.Candidates = []string{"gnet", "uring"}
	var text bytes.Buffer
	if err := r.WriteFixedRates(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" (60 messages unsent), uring ", "gnet not back (0 of 6 times), uring at once; uring is back sooner.\n"} {
		if strings.Count(text.String(), want) != 2 {
			t.Errorf("%q is not said of both surges:\n%s", want, &text)
		}
	}
}

// What is achieved in a surge may be as much as the generator can do, who had time
// enough before it.
func TestAnOverloadOfTheGeneratorIsMarked(t *testing.T) {
	r := measured("uring", "epoll")
	for i := range r.Samples {
		s := &r.Samples[i]
		s.Others = .4
		if s.Recovery != nil && s.Candidate == "epoll" && s.Recovery.Surge == 96e3 {
			s.Recovery.GeneratorBusy = .9
		}
	}
	var text bytes.Buffer
	if err := r.WriteFixedRates(&text); err != nil {
		t.Fatal(err)
	}
	const caveat = "Other processes disturbed 14 of 14 samples behind this"
	if n := strings.Count(text.String(), "(client-bound)"); n != 1 || !regexp.MustCompile(`epoll 83 % / \d+ \(client-bound\)\.`).Match(text.Bytes()) {
		t.Errorf("%d sides are marked:\n%s", n, &text)
	}
	if n := strings.Count(text.String(), " is back sooner. "+caveat); n != 2 {
		t.Errorf("%d overloads are told to be disturbed:\n%s", n, &text)
	}
	page := pageOf(t, r)
	page = page[strings.Index(page, `<section id="overload"`):strings.Index(page, `<section id="workloads"`)]
	if strings.Count(page, `<span class="mark">client-bound</span>`) != 1 || strings.Count(page, caveat) != 2 {
		t.Error("the page does not say so")
	}
}

// The knee of the pair is that of the slower one; where one has none, there is
// none.
func TestSlowerKnee(t *testing.T) {
	r := measured("uring", "epoll", "gnet")
	w := r.Workloads[0]
	if rate, who := r.SlowerKnee(w, "uring", "epoll"); rate != 80e3 || who != "epoll" {
		t.Errorf("the knee is %v of %s", rate, who)
	}
	for _, b := range []string{"gnet", "net"} {
		if rate, who := r.SlowerKnee(w, "uring", b); !math.IsNaN(rate) {
			t.Errorf("with %s the knee is %v of %s", b, rate, who)
		}
	}
	w.Connections = 1
	if rate, who := r.SlowerKnee(w, "uring", "epoll"); !math.IsNaN(rate) {
		t.Errorf("of what was not measured the knee is %v of %s", rate, who)
	}
}

// Where the servers ran on another machine, the page is about that one, and names
// the generator's.
func TestPageTellsOfTwoMachines(t *testing.T) {
	r := measured("uring", "epoll")
	r.Manifest.Host, r.Manifest.Program = "far", "couplet v2"
	r.Manifest.Network = &bench.Network{
		Server: "192.0.2.1", ServerCard: "eth0", Generator: "192.0.2.2", GeneratorCard: "eth1", RoundTrip: 53 * time.Microsecond, MTU: 9000,
		GeneratorMachine: bench.Machine{Host: "near", Kernel: "5.15.0 x86_64", CPU: "Another CPU", CPUs: 8, Program: "couplet v1"},
	}
	page := pageOf(t, r)
	for _, want := range []string{
		"Linux 6.18.44 x86_64", "over a network, from 192.0.2.2", "remote: generator at 192.0.2.2 (eth1), server at 192.0.2.1 (eth0)",
		"0.053 ms", "9000",
		"far, couplet v2", "near, 5.15.0 x86_64, Another CPU, 8 CPUs", "couplet v1",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	var said bytes.Buffer
	if err := measured("uring", "epoll").WriteComparison(&said, r); err != nil || !strings.Contains(said.String(), "The manifests differ in network: loopback, then remote.") ||
		!strings.Contains(said.String(), "The manifests differ in path MTU: –, then 9000.") || strings.Contains(said.String(), "round trip") {
		t.Errorf("the comparison says %v, %q", err, said.String())
	}
}

// A candidate and the same once more are a control, and not the verdict.
func TestPageTellsTheControl(t *testing.T) {
	r := measured("uring", "uring/2", "epoll")
	page := html.UnescapeString(pageOf(t, r))
	for _, want := range []string{r.Verdict("uring", "epoll"), r.Control("uring", "uring/2")} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestPageOfNextToNothing(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	zero := bench.Sample{Workload: echo.String(), Candidate: "uring"}
	bad := bench.Sample{Workload: echo.String(), Candidate: "epoll", Errors: map[string]int64{"resets": 1}}
	for name, c := range map[string]struct {
		r    *bench.Result
		want string
	}{
		"nothing":           {&bench.Result{}, "Nothing was measured."},
		"no samples":        {&bench.Result{Workloads: []bench.Workload{echo}, Partial: true}, "Nothing was measured."},
		"one candidate":     {&bench.Result{Workloads: []bench.Workload{echo}, Samples: []bench.Sample{zero}}, "Nothing was measured that compares two candidates."},
		"samples of zeros":  {&bench.Result{Workloads: []bench.Workload{echo}, Samples: []bench.Sample{zero, {Workload: echo.String(), Candidate: "epoll"}}}, "uring"},
		"only errors":       {&bench.Result{Workloads: []bench.Workload{echo}, Samples: []bench.Sample{bad}}, "no good sample"},
		"a lost workload":   {&bench.Result{Samples: []bench.Sample{zero, bad}}, "Nothing was measured that compares uring with epoll."},
		"not one candidate": {measured("uring"), "two candidates"},
	} {
		if page := pageOf(t, c.r); !strings.Contains(page, c.want) || !strings.Contains(page, "</html>") {
			t.Errorf("%s: the page lacks %q or its end", name, c.want)
		}
	}
}

// writePage makes a file of the page of r.
func writePage(t *testing.T, r *bench.Result) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(pageOf(t, r)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
