package bench_test

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"couplet/bench"
)

// compared is a result in which uring costs what ratios say of epoll's 10 us, a
// sample each round.
func compared(w bench.Workload, ratios ...float64) *bench.Result {
	r := &bench.Result{Workloads: []bench.Workload{w}, Manifest: bench.Manifest{Machine: bench.Machine{Kernel: "6.18.44 x86_64"}}}
	for round, ratio := range ratios {
		for _, s := range []bench.Sample{{Candidate: "uring", UserUS: 10 * ratio}, {Candidate: "epoll", UserUS: 10}} {
			s.Workload, s.Round, s.UserUS = w.String(), round, s.UserUS*(1+float64(round)/100)
			r.Samples = append(r.Samples, s)
		}
	}
	return r
}

func TestVerdictNamesWinnerIntervalAndKernel(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, .80, .82, .81, .79, .80, .81, .80)
	got := r.Verdict("uring", "epoll")
	want := "On Linux 6.18.44 uring uses 20 % less CPU than epoll for echo 64 x 64 B, depth 1 (95 % CI 19..20 %)."
	if got != want {
		t.Errorf("verdict %q\nwant    %q", got, want)
	}
	// Seen from the other side it is the same.
	if f := r.Findings("epoll", "uring"); len(f) != 1 || f[0].Winner != "uring" || !strings.HasPrefix(f[0].String(), "uring uses 20 % less") {
		t.Errorf("findings %v", f)
	}
}

func TestVerdictSaysNoDifference(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, 1.02, .98, 1.01, .99, 1, 1.03, .97)
	if f := r.Findings("uring", "epoll"); len(f) != 1 || f[0].Winner != "" {
		t.Errorf("findings %v", f)
	}
	if got := r.Verdict("uring", "epoll"); !strings.Contains(got, "no difference between uring and epoll was shown for echo") {
		t.Errorf("verdict %q", got)
	}
	if got := compared(echo).Verdict("uring", "epoll"); got != "Nothing was measured that compares uring with epoll." {
		t.Errorf("verdict %q", got)
	}
}

// An interrupted run said "no difference" of a workload with one round, since another
// had seven, and the control came out well on it.
func TestTooFewRoundsAreNoVerdict(t *testing.T) {
	done := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	begun := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 16}
	r := compared(done, 1.02, .98, 1.01, .99, 1, 1.03, .97)
	r.Append(compared(begun, .5))
	r.Manifest.Baseline = "epoll"
	want := "no difference between uring and epoll was shown for echo 64 x 64 B, depth 1; too few rounds to tell: echo 64 x 64 B, depth 16."
	if got := r.Verdict("uring", "epoll"); !strings.HasSuffix(got, want) {
		t.Errorf("verdict %q", got)
	}
	want = "no difference on every other workload, as it should. Too few rounds to tell: echo 64 x 64 B, depth 16."
	if got := r.Control("uring", "epoll"); !strings.HasSuffix(got, want) {
		t.Errorf("control %q", got)
	}
	page := pageOf(t, r)
	for _, want := range []string{"<b>1</b> no difference", "<b>1</b> too few rounds to tell"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(page, `<span class="same">too few rounds to tell</span>`); n != 2 {
		t.Errorf("the grid and the panel say it %d times", n)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "0.50 ?") {
		t.Errorf("%v, the table has an interval of one round:\n%s", err, &table)
	}
	few := compared(begun, .5, .6) // large, but two rounds show nothing
	if got := few.Verdict("uring", "epoll"); !strings.HasSuffix(got, "uring and epoll had too few rounds to tell: echo 64 x 64 B, depth 16.") {
		t.Errorf("verdict %q", got)
	}
	if got := few.Control("uring", "epoll"); !strings.Contains(got, "fewer than 4 rounds") {
		t.Errorf("control %q", got)
	}
}

// With each sample disturbed the verdict was said as if none were.
func TestDisturbedSamplesAreInTheVerdict(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, .80, .82, .81, .79, .80, .81)
	for i := range r.Samples {
		r.Samples[i].Others = .4
	}
	const caveat = " But other processes disturbed 12 of 12 samples of echo 64 x 64 B, depth 1: measure again on a quieter machine."
	if got := r.Verdict("uring", "epoll"); !strings.HasSuffix(got, caveat) {
		t.Errorf("verdict %q", got)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil || strings.Count(table.String(), " disturbed\n") != 2 {
		t.Errorf("%v, the rows are not marked:\n%s", err, &table)
	}
	page := pageOf(t, r)
	if n := strings.Count(page, `<span class="mark">disturbed</span>`); n != 4 || !strings.Contains(page, "disturbed 12 of 12 samples behind this") {
		t.Errorf("%d marks in the grid, the panel and its two rows", n)
	}
	for i := range r.Samples {
		r.Samples[i].Others = .4 * float64(i%2)
	}
	if got := r.Verdict("uring", "epoll"); strings.Contains(got, "disturbed") {
		t.Errorf("of half of the samples: %q", got)
	}
}

// With each sample disturbed the control and the fixed rates were told as if none were.
func TestDisturbedSamplesAreInTheControlAndTheFixedRates(t *testing.T) {
	fixed := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: 1000, Share: .5}
	r := compared(fixed, 1, 1, 1, 1, 1, 1)
	for i := range r.Samples {
		s := &r.Samples[i]
		s.Target, s.P99US = 1000, 10
		if s.Candidate == "uring" {
			again := *s
			again.Candidate = "uring/2"
			r.Samples = append(r.Samples, again)
		}
	}
	told := func() (control, rates, page string) {
		t.Helper()
		var b bytes.Buffer
		if err := r.WriteFixedRates(&b); err != nil || strings.Count(b.String(), "\n") != 1 {
			t.Errorf("%v: %q", err, &b)
		}
		page = pageOf(t, r)
		from, to := strings.Index(page, `<section id="fixed"`), strings.Index(page, `<section id="workloads"`)
		return r.Control("uring", "uring/2"), b.String(), page[from:to]
	}
	for i := range r.Samples {
		r.Samples[i].Others = .4 * float64(r.Samples[i].Round%2)
	}
	if control, rates, page := told(); strings.Contains(control+rates+page, "disturbed") {
		t.Errorf("of half of the samples: %q, %q", control, rates)
	}
	for i := range r.Samples {
		r.Samples[i].Others = .4
	}
	control, rates, page := told()
	if want := ", as it should. But other processes disturbed 12 of 12 samples of " + fixed.String() + ": measure again on a quieter machine."; !strings.HasSuffix(control, want) {
		t.Errorf("control %q", control)
	}
	const caveat = "Other processes disturbed 12 of 12 samples behind this: measure again on a quieter machine."
	if !strings.HasSuffix(rates, "). "+caveat+"\n") || !strings.Contains(page, caveat) {
		t.Errorf("the fixed rates %q, or their page, lack it", rates)
	}
}

// The generator was the limit of half of the samples: the table, which took the median
// of how busy it was, said client-bound, and the page did not.
func TestTableAndPageAgreeOnClientBound(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1, Rate: 1000, Share: .5}
	for bound, want := range map[int][]int{2: {0, 0, 0}, 3: {2, 2, 6}} { // of four samples
		r := compared(echo, 1, 1, 1, 1)
		for i := range r.Samples {
			s := &r.Samples[i]
			if s.GeneratorBusy = .75; s.Round < bound {
				s.GeneratorBusy, s.ClientBound = .99, true
			}
			s.Target, s.Units, s.Seconds, s.P99US = 1000, 1000, 1, 10
		}
		var table, rates bytes.Buffer
		if err := errors.Join(r.WriteTable(&table), r.WriteFixedRates(&rates)); err != nil {
			t.Fatal(err)
		}
		marks := []int{
			strings.Count(table.String(), " client-bound\n"), strings.Count(rates.String(), "(client-bound)"),
			strings.Count(pageOf(t, r), `<span class="mark">client-bound</span>`), // of the fixed rates, the panel and the curve
		}
		if !slices.Equal(marks, want) {
			t.Errorf("%d of 4 samples: table, fixed rates and page have %v marks, want %v", bound, marks, want)
		}
	}
}

// The table showed a difference where the test alone does, of which the verdict knew
// nothing: two rounds say the contrary.
func TestTableAndVerdictAgree(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, 1, 1, 1, 1, 1, 1, 1)
	r.Manifest.Baseline = "epoll"
	cost := map[string][]float64{"uring": {1, 2, 3, 4, 5, 9, 10}, "epoll": {11, 12, 13, 14, 8, 6, 7}}
	for i := range r.Samples {
		r.Samples[i].UserUS = cost[r.Samples[i].Candidate][r.Samples[i].Round]
	}
	if _, p, _ := r.Compare(echo.String(), "uring", "epoll"); p >= .05 {
		t.Fatalf("p is %v", p)
	}
	if got := r.Verdict("uring", "epoll"); !strings.Contains(got, "no difference") {
		t.Errorf("verdict %q", got)
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil || !strings.Contains(table.String(), "] =") {
		t.Errorf("the table has no =:\n%s", &table)
	}
}

// A stream had latencies of 0, and the memory of idle connections stood under CPU.
func TestWhatWasNotMeasuredIsNotShown(t *testing.T) {
	stream, err := bench.Workload{Kind: bench.Stream, Connections: 1}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	idle := bench.Workload{Kind: bench.Idle, Connections: 8000, Size: 64}
	r := compared(stream, 1, 1, 1, 1, 1, 1, 1)
	r.Append(compared(idle, .80, .82, .81, .79, .80, .81, .80))
	r.Manifest.Baseline = "epoll"
	for i := range r.Samples {
		s := &r.Samples[i]
		s.Units, s.Seconds = 1024, 1
		if s.Workload == idle.String() {
			s.BytesPerConn, s.UserUS = 40*s.UserUS, 0
			s.RSS, s.Held = 12<<20, 1<<20
		}
	}
	var table bytes.Buffer
	if err := r.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`(?m)^stream .* uring .* 1024 +– +– +– +– `,
		`(?m)^workload +candidate +bytes per connection +to epoll +MiB in all +MiB to receive into`,
		`(?m)^idle .* uring +331 +0\.80 \[0\.80, 0\.81\] +12\.0 +1\.00`,
	} {
		if !regexp.MustCompile(want).Match(table.Bytes()) {
			t.Errorf("the table lacks %s:\n%s", want, &table)
		}
	}
	page := pageOf(t, r)
	if !strings.Contains(page, "Rate</h4>") || strings.Contains(page, "p99.9</th>") || strings.Contains(page, `data-kind="percentiles"`) {
		t.Error("the page has a panel of the latency of a stream")
	}
}

// Samples with errors in their ledger decide nothing.
func TestVerdictIgnoresSamplesWithErrors(t *testing.T) {
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	r := compared(echo, .80, .82, .81, .79, .80, .81, .80)
	for i := range r.Samples {
		if r.Samples[i].Candidate == "uring" {
			r.Samples[i].Errors = map[string]int64{"bytes wrong": 1}
		}
	}
	if f := r.Findings("uring", "epoll"); len(f) != 0 {
		t.Errorf("findings %v", f)
	}
}

// A load by the clock took no part beside a closed loop, though it was no rate of
// that one.
func TestVerdictIsAboutOpenLoopsToo(t *testing.T) {
	shape := bench.Workload{Kind: bench.Echo, Connections: 1, Size: 64, Depth: 1}
	r := compared(shape, 1.02, .98, 1.01, .99, 1, 1.03, .97)
	rate := shape
	rate.Rate, rate.Share = 1000, .5
	r.Append(compared(rate, .80, .82, .81, .79, .80, .81, .80))
	if got := r.Verdict("uring", "epoll"); !strings.HasSuffix(got, "no difference between uring and epoll was shown for echo 1 x 64 B, depth 1.") {
		t.Errorf("verdict %q", got)
	}
	other := rate
	other.Connections, other.Share = 5, 0
	r.Append(compared(other, .80, .82, .81, .79, .80, .81, .80))
	if got := r.Verdict("uring", "epoll"); !strings.Contains(got, "uring uses 20 % less CPU than epoll for echo 5 x 64 B at 1000/s") || strings.Contains(got, "knee") {
		t.Errorf("verdict %q", got)
	}
}

// Beside workloads without a difference in CPU, a sentence on the memory of idle
// connections left it open what "no difference" was of.
func TestVerdictTellsMemoryFromCPU(t *testing.T) {
	idle := bench.Workload{Kind: bench.Idle, Connections: 8000, Size: 64}
	echo := bench.Workload{Kind: bench.Echo, Connections: 64, Size: 64, Depth: 1}
	for _, c := range []struct {
		memory float64
		want   string
	}{
		{.8, "uring uses 20 % less memory than epoll for idle 8000 x 64 B (95 % CI 20..20 %)."},
		{1, "no difference in memory between uring and epoll was shown for idle 8000 x 64 B."},
	} {
		r := compared(idle, c.memory, c.memory, c.memory, c.memory)
		for i := range r.Samples {
			r.Samples[i].BytesPerConn, r.Samples[i].UserUS = r.Samples[i].UserUS, 0
		}
		r.Manifest.Kernel = "6.18"
		if got := r.Verdict("uring", "epoll"); got != "On Linux 6.18 "+c.want {
			t.Errorf("verdict %q", got)
		}
		r.Append(compared(echo, 1, 1, 1, 1))
		if got := r.Verdict("uring", "epoll"); got != "On Linux 6.18 no difference between uring and epoll was shown for "+echo.String()+"; "+c.want {
			t.Errorf("verdict %q", got)
		}
	}
}

// Too few rounds were told twice over, of CPU and of memory.
func TestTooFewRoundsAreToldOnce(t *testing.T) {
	r := compared(bench.Workload{Kind: bench.Echo, Connections: 1, Size: 64, Depth: 1}, 1)
	r.Append(compared(bench.Workload{Kind: bench.Idle, Connections: 8000, Size: 64}, 1))
	r.Manifest.Kernel = "6.18"
	if got := r.Verdict("uring", "epoll"); got != "On Linux 6.18 uring and epoll had too few rounds to tell: echo 1 x 64 B, depth 1; idle 8000 x 64 B." {
		t.Errorf("verdict %q", got)
	}
}

// Many workloads without a difference are counted, not listed.
func TestVerdictStaysASentence(t *testing.T) {
	r := compared(bench.Workload{Kind: bench.Echo, Connections: 1, Size: 64, Depth: 1}, .80, .82, .81, .79, .80, .81, .80)
	for n := range 4 {
		more := compared(bench.Workload{Kind: bench.Echo, Connections: 2 + n, Size: 64, Depth: 1}, 1.02, .98, 1.01, .99, 1, 1.03, .97)
		r.Append(more)
	}
	if got := r.Verdict("uring", "epoll"); !strings.HasSuffix(got, "; no difference was shown for 4 other workloads.") {
		t.Errorf("verdict %q", got)
	}
	r.Workloads = r.Workloads[1:]
	if got := r.Verdict("uring", "epoll"); !strings.HasSuffix(got, "no difference between uring and epoll was shown for any of 4 workloads.") {
		t.Errorf("verdict %q", got)
	}
}

// Reports said "1 samples" and "1 rounds".
func TestOneIsNoPlural(t *testing.T) {
	r := compared(bench.Workload{Kind: bench.Echo, Connections: 1, Size: 64, Depth: 1, Rate: 100, Surge: 200, Share: .5}, 1)
	r.Manifest.Rounds, r.Manifest.Baseline = 1, "epoll"
	r.Manifest.Network = &bench.Network{GeneratorMachine: bench.Machine{CPUs: 1}}
	for i := range r.Samples {
		r.Samples[i].Workers, r.Samples[i].Retries = 1, 1
		r.Samples[i].Recovery = &bench.Recovery{Surge: 200, SurgeMS: 1, StepMS: 1, P99US: []float64{1, 1}, Unsent: 1}
	}
	r.Audits = []bench.Audit{{Counted: 1, Kernel: 1}}
	var said bytes.Buffer
	said.WriteString(bench.Workload{Kind: bench.Custom, Connections: 1, Spec: &bench.Spec{Name: "web"}}.String())
	for _, write := range []func(io.Writer) error{r.WriteTable, r.WriteFixedRates, r.WriteHTML} {
		if err := write(&said); err != nil {
			t.Fatal(err)
		}
	}
	said.WriteString(r.Verdict("uring", "epoll") + r.Findings("uring", "epoll")[0].String())
	r.Samples = r.Samples[:1]
	r.Samples[0].Errors = map[string]int64{"bytes wrong": 1}
	r.WriteTable(&said)
	r.WriteHTML(&said)
	ones := regexp.MustCompile(`\b1 (samples?|rounds?|times?|messages?|connections?|CPUs?|worker threads?)\b`)
	found := ones.FindAllString(said.String(), -1)
	for _, text := range found {
		if strings.HasSuffix(text, "s") {
			t.Errorf("%q is said", text)
		}
	}
	for _, want := range []string{"1 sample", "1 round", "1 time", "1 message", "1 connection", "1 CPU", "1 worker thread"} {
		if !slices.Contains(found, want) {
			t.Errorf("%q is said nowhere", want)
		}
	}
}
