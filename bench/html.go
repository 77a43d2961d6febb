package bench

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// web is the page's template with its style, its script and the chart library
// uPlot, which stands under the licence beside it.
//
//go:embed web
var web embed.FS

var reportPage = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"figure": figureText, "whole": wholeText, "mib": mebibytesText, "p": probabilityText,
	"share": shareText, "hue": hue, "plural": plural[int],
}).ParseFS(web, "web/report.html"))

// WriteHTML writes r as one page that needs nothing else: style, script, charts
// and data are in it, and it asks no network for anything. All of the figures are
// in its tables too, which need no script. Figures are medians over good samples.
// A Result without samples gives a page that says so.
func (r *Result) WriteHTML(out io.Writer) error {
	return reportPage.Execute(out, r.page())
}

// A page is what the template shows.
type page struct {
	Title, Verdict string
	Partial        bool
	Facts          []string
	A, B           string
	Tally          []tally
	Findings       []findingRow
	Controls       []string
	Candidates     []string
	Baseline       string
	Rounds         int
	LeastRounds    int
	Workloads      []workloadView
	Knee           float64
	KneeBound      bool
	Fixed          []fixedView
	Overloads      []overloadView
	Curves         []curveView
	Idle           []memoryRow
	Resident       []residentRow
	Totals         markRow
	Audited        string
	Workers        int
	Errors         []count
	Incidents      []occurrence
	Marks          []markRow
	Skipped        []Skipped
	Manifest       [][2]string
	Commit         string
	Command        string
	Data           pageData
	Style, Charts  template.CSS
	Library        template.JS
	Script         template.JS
	Licence        string
}

// pageData is what the page's script draws.
type pageData struct {
	Candidates  []string          `json:"candidates"`
	Percentiles []percentilesData `json:"percentiles"`
	Curves      []curveData       `json:"curves"`
	Recoveries  []recoveryData    `json:"recoveries"`
}

// percentilesData is the distributions of one workload: a list in US per
// candidate, as long as Shares.
type percentilesData struct {
	Candidates []int      `json:"candidates"`
	Shares     []float64  `json:"shares"`
	US         [][]number `json:"us"`
}

// A number is a float64 that JSON shows as null where it has no finite value.
type number float64

// MarshalJSON writes NaN and the infinities as null.
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

type tally struct {
	Name string
	N    int
	Hue  int
}

// A findingRow is a Finding with the places of its interval on a strip, in per
// cent from the left; 50 is the ratio 1.
type findingRow struct {
	Finding
	ID               string
	Less             string
	Drawn            bool
	From, Width, Mid float64
}

// A workloadView is the section of one workload.
type workloadView struct {
	ID, Name, Unit, Latency string
	// Timed reports whether there are figures of latency.
	Timed       bool
	Description string
	// Finding is nil where the pair of the verdict was not compared.
	Finding            *findingRow
	Open               bool
	Candidates         []candidateRow
	Batches, Crossings bool
	// Waits is how many events a wait brought, and BatchSizes the heads of its
	// columns.
	BatchSizes []string
	Waits      []waitsRow
	Ladder     []Rung
	Bytes      bool
	// Plot is the place in pageData.Percentiles; Shares and the candidates'
	// Percentiles are the same as a table.
	Plot   int
	Shares []shareRow
}

type candidateRow struct {
	Name                   string
	Hue                    int
	Samples                int
	User, System, CPU      float64
	UserBar, SystemBar     float64
	Ratio                  string
	Rate, Throughput       float64
	Crossings, Batch       float64
	Mallocs, Switches      float64
	P50, P99, P999, Max    float64
	ClientBound, Disturbed bool
}

// A waitsRow is the share of a candidate's waits that brought so many events, in
// per cent.
type waitsRow struct {
	Name   string
	Hue    int
	Shares []float64
}

type shareRow struct {
	Share float64
	US    []float64
}

type memoryRow struct {
	Name   string
	Values []float64
}

// A residentRow has a pair for each candidate.
type residentRow struct {
	Name  string
	Pairs []struct{ RSS, Held float64 }
}

type count struct {
	What string
	N    int64
}

// A markRow counts the samples that are to be read with care.
type markRow struct {
	Workload, Candidate                                  string
	Samples, WithErrors, ClientBound, Disturbed, Retaken int
	Unsent                                               int64
}

func (r *Result) page() page {
	text := func(name string) string {
		b, err := web.ReadFile("web/" + name)
		if err != nil {
			panic(err) // it is part of the program
		}
		return string(b)
	}
	p := page{
		Title: "couplet bench", Partial: r.Partial, Baseline: r.Manifest.Baseline, Rounds: r.Manifest.Rounds, LeastRounds: LeastRounds,
		Candidates: r.candidates(""),
		Commit:     r.Manifest.Commit, Command: r.Manifest.command(), Manifest: r.Manifest.rows(),
		Charts: template.CSS(text("uPlot.min.css")), Style: template.CSS(text("report.css")),
		Library: template.JS(text("uPlot.iife.min.js")), Script: template.JS(text("report.js")),
		Licence: text("uPlot.LICENSE"),
		Verdict: "Nothing was measured that compares two candidates.",
	}
	if len(r.Samples) == 0 {
		p.Verdict = "Nothing was measured."
	}
	p.Facts = r.facts()
	p.Data.Candidates = p.Candidates
	if a, b, ok := r.Pair(); ok {
		p.A, p.B, p.Verdict = a, b, r.Verdict(a, b)
		p.Title = fmt.Sprintf("%s and %s · couplet bench", a, b)
		p.Findings = r.findingRows(a, b)
		won, few := map[string]int{}, 0
		for _, f := range once(r.Findings(a, b)) {
			if f.TooFew() {
				few++
			} else {
				won[f.Winner]++
			}
		}
		p.Tally = []tally{{a, won[a], p.hue(a)}, {b, won[b], p.hue(b)}, {"no difference", won[""], -1}}
		if few > 0 {
			p.Tally = append(p.Tally, tally{"too few rounds to tell", few, -1})
		}
	}
	p.Controls = r.controls()
	p.Audited = r.Audited()
	for _, s := range r.Samples {
		p.Workers = max(p.Workers, s.Workers)
	}
	rated := 0
	for _, w := range r.Workloads {
		if w.Rate > 0 {
			rated++
		}
	}
	for i, w := range r.Workloads {
		all := r.candidates(w.String())
		if len(all) == 0 {
			continue
		}
		resident, idle := residentRow{Name: w.String()}, memoryRow{Name: w.String()}
		for _, c := range p.Candidates {
			median := func(f func(Sample) float64) float64 { return Median(r.Values(w.String(), c, f)) }
			resident.Pairs = append(resident.Pairs, struct{ RSS, Held float64 }{median(Sample.resident), median(Sample.held)})
			idle.Values = append(idle.Values, median(Sample.memory))
		}
		p.Resident = append(p.Resident, resident)
		if w.Kind == Idle {
			p.Idle = append(p.Idle, idle)
			for k := range p.Findings {
				if f := &p.Findings[k]; f.Workload == w.String() {
					f.ID = "memory"
				}
			}
			continue
		}
		v := r.workloadView(&p, w, all)
		v.ID, v.Open = workloadID(i), w.Rate == 0 || rated < 3
		for k := range p.Findings {
			if f := &p.Findings[k]; f.Workload == v.Name {
				f.ID, v.Finding = v.ID, f
			}
		}
		p.Workloads = append(p.Workloads, v)
	}
	p.Curves, p.Data.Curves = r.curves(p.Candidates)
	p.Knee = r.Knee
	p.Fixed, p.Overloads = r.fixedViews(&p), r.overloadViews(&p)
	p.KneeBound = len(p.Fixed) > 0 && r.kneeBound(p.Fixed[0].Load)
	errors := r.Errors()
	for _, k := range slices.Sorted(maps.Keys(errors)) {
		p.Errors = append(p.Errors, count{k, errors[k]})
	}
	p.Incidents = r.occurrences()
	p.Marks, p.Totals = r.marks()
	p.Skipped = r.Skipped
	return p
}

func workloadID(i int) string { return fmt.Sprintf("workload-%d", i+1) }

// hues is how many colours the style has for candidates.
const hues = 9

// hue is the number of a candidate's colour.
func hue(i int) int { return i % hues }

func (p *page) hue(candidate string) int { return hue(max(0, slices.Index(p.Candidates, candidate))) }

// Hue is the number of a candidate's colour, for the template.
func (p page) Hue(candidate string) int { return p.hue(candidate) }

// facts are what to know of a Result at first sight.
func (r *Result) facts() []string {
	m := r.Manifest
	var facts []string
	if m.Kernel != "" {
		facts = append(facts, "Linux "+m.Kernel)
	}
	if m.CPU != "" {
		cpu := m.CPU
		if m.Virtual {
			cpu += ", virtual"
		}
		facts = append(facts, cpu)
	}
	if n := m.Network; n != nil && !n.OneMachine {
		facts = append(facts, "over a network, from "+n.Generator)
	}
	if m.Rounds > 0 {
		facts = append(facts, fmt.Sprintf("%s of %v", plural(m.Rounds, "round"), m.Duration))
	}
	if !m.Began.IsZero() {
		facts = append(facts, m.Began.Format("2 January 2006, 15:04 MST"))
	}
	return append(facts, plural(len(r.Samples), "sample"))
}

// controls tell what became of candidates that were measured against themselves.
func (r *Result) controls() []string {
	var all []string
	names := r.candidates("")
	for _, c := range names {
		if name := original(c); name != c && slices.Contains(names, name) {
			all = append(all, r.Control(name, c))
		}
	}
	return all
}

// findingRows are the findings with their intervals on a logarithmic strip that
// is as wide as the widest of them needs, within limits.
func (r *Result) findingRows(a, b string) []findingRow {
	var rows []findingRow
	span := math.Log(1.25)
	for _, f := range r.Findings(a, b) {
		row := findingRow{Finding: f, Drawn: positive(f.Ratio.Lo) && positive(f.Ratio.Center) && positive(f.Ratio.Hi)}
		if row.Drawn {
			span = max(span, math.Abs(math.Log(f.Ratio.Lo)), math.Abs(math.Log(f.Ratio.Hi)))
			ratio := f.Ratio.Center
			if f.Winner == f.B {
				ratio = 1 / ratio
			}
			row.Less = fmt.Sprintf("%.0f %%", 100*(1-ratio))
		}
		rows = append(rows, row)
	}
	span = min(span, math.Log(10)) * 1.05
	place := func(ratio float64) float64 {
		return math.Round(10*min(100, max(0, 50+50*math.Log(ratio)/span))) / 10
	}
	for i := range rows {
		if f := &rows[i]; f.Drawn {
			f.From, f.Mid = place(f.Ratio.Lo), place(f.Ratio.Center)
			f.Width = max(0, place(f.Ratio.Hi)-f.From)
		}
	}
	return rows
}

func positive(v float64) bool { return v > 0 && !math.IsInf(v, 1) }

// workloadView makes the section of w and adds its distributions to what is
// drawn.
func (r *Result) workloadView(p *page, w Workload, candidates []string) workloadView {
	name := w.String()
	v := workloadView{Name: name, Description: w.Description(), Unit: w.Unit(), Latency: "Latency", Plot: -1}
	if w.Kind == Poems {
		v.Latency = "Lateness"
	}
	widest := 0.0
	for _, c := range candidates {
		good := r.Of(name, c)
		if len(good) == 0 {
			continue
		}
		median := func(f func(Sample) float64) float64 { return Median(r.Values(name, c, f)) }
		row := candidateRow{
			Name: c, Hue: p.hue(c), Samples: len(good),
			User: median(func(s Sample) float64 { return s.UserUS }), System: median(func(s Sample) float64 { return s.SystemUS }),
			CPU: median(Sample.CPU), Rate: median(Sample.Rate),
			Throughput: median(Sample.Throughput),
			Crossings:  orNone(median(func(s Sample) float64 { return s.Crossings })),
			Batch:      orNone(median(func(s Sample) float64 { return s.Batch })),
			Mallocs:    median(func(s Sample) float64 { return s.Mallocs }),
			Switches:   median(func(s Sample) float64 { return s.Switches }),
			P50:        median(Sample.p50), P99: median(Sample.p99), P999: median(Sample.p999),
			Max: median(func(s Sample) float64 { return s.latency(s.MaxUS) }),
		}
		row.ClientBound = r.clientBound(name, c)
		row.Disturbed = mostly(good, Sample.disturbed)
		row.Ratio = r.Versus(name, c, p.Baseline)
		if sum := row.User + row.System; positive(sum) {
			widest = max(widest, sum)
		}
		v.Timed = v.Timed || !math.IsNaN(row.P99)
		v.Bytes = v.Bytes || row.Throughput > 0
		v.Batches = v.Batches || !math.IsNaN(row.Batch)
		v.Crossings = v.Crossings || !math.IsNaN(row.Crossings)
		v.Candidates = append(v.Candidates, row)
	}
	for i := range v.Candidates {
		if c := &v.Candidates[i]; widest > 0 && c.User >= 0 && c.System >= 0 {
			c.UserBar, c.SystemBar = math.Round(1000*c.User/widest)/10, math.Round(1000*c.System/widest)/10
		}
	}
	if !v.Timed {
		v.Latency = "Rate"
	}
	v.Ladder = r.Climb(name)
	v.waits(r)
	v.distributions(r, p)
	return v
}

// waits adds up the batch sizes of all good samples.
func (v *workloadView) waits(r *Result) {
	most := 0
	for _, c := range v.Candidates {
		row := waitsRow{Name: c.Name, Hue: c.Hue}
		all := 0.0
		for _, s := range r.Of(v.Name, c.Name) {
			row.Shares = append(row.Shares, make([]float64, max(0, len(s.Batches)-len(row.Shares)))...)
			for i, n := range s.Batches {
				row.Shares[i] += float64(n)
				all += float64(n)
			}
		}
		if all == 0 {
			continue
		}
		for i := range row.Shares {
			row.Shares[i] *= 100 / all
		}
		most = max(most, len(row.Shares))
		v.Waits = append(v.Waits, row)
	}
	for i := range v.Waits {
		row := &v.Waits[i]
		row.Shares = append(row.Shares, make([]float64, most-len(row.Shares))...)
	}
	for i := range most {
		size := strconv.Itoa(1 << i)
		if i > 0 {
			size += "–" + strconv.Itoa(2<<i-1)
		}
		v.BatchSizes = append(v.BatchSizes, size)
	}
}

// distributions takes the median over the rounds at each share of all values.
func (v *workloadView) distributions(r *Result, p *page) {
	at := make([]map[float64][]float64, len(v.Candidates))
	shares := map[float64]bool{}
	for i, c := range v.Candidates {
		at[i] = map[float64][]float64{}
		for _, s := range r.Of(v.Name, c.Name) {
			for _, q := range s.Percentiles {
				at[i][q.Share] = append(at[i][q.Share], q.US)
				shares[q.Share] = true
			}
		}
	}
	if len(shares) == 0 {
		return
	}
	sorted := slices.Sorted(maps.Keys(shares))
	var d percentilesData
	for _, c := range v.Candidates {
		d.Candidates = append(d.Candidates, slices.Index(p.Candidates, c.Name))
		d.US = append(d.US, nil)
	}
	for _, share := range sorted {
		row := shareRow{Share: share}
		for i := range v.Candidates {
			row.US = append(row.US, Median(at[i][share]))
		}
		v.Shares = append(v.Shares, row)
		// The greatest value has no place on a scale of 1/(1-share).
		if share >= 0 && share < 1 {
			d.Shares = append(d.Shares, share)
			for i, us := range row.US {
				d.US[i] = append(d.US[i], number(us))
			}
		}
	}
	v.Plot = len(p.Data.Percentiles)
	p.Data.Percentiles = append(p.Data.Percentiles, d)
}

// orNone makes NaN of the zero that stands for "does not count this".
func orNone(v float64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return v
}

// marks are the workloads and candidates of which a sample has errors, was
// client-bound, disturbed or taken again, in the order of the plan, and the totals
// of all samples.
func (r *Result) marks() (rows []markRow, totals markRow) {
	for _, s := range r.Samples {
		i := slices.IndexFunc(rows, func(m markRow) bool { return m.Workload == s.Workload && m.Candidate == s.Candidate })
		if i < 0 {
			i = len(rows)
			rows = append(rows, markRow{Workload: s.Workload, Candidate: s.Candidate})
		}
		for _, m := range []*markRow{&rows[i], &totals} {
			m.Samples++
			m.Retaken += s.Retries
			m.Unsent += s.unsent()
			if len(s.Errors) > 0 {
				m.WithErrors++
			}
			if s.ClientBound {
				m.ClientBound++
			}
			if s.disturbed() {
				m.Disturbed++
			}
		}
	}
	rows = slices.DeleteFunc(rows, func(m markRow) bool {
		return m.WithErrors+m.ClientBound+m.Disturbed+m.Retaken == 0
	})
	return rows, totals
}

// rows are the manifest as a table.
func (m Manifest) rows() [][2]string {
	var rows [][2]string
	row := func(k, format string, v ...any) { rows = append(rows, [2]string{k, fmt.Sprintf(format, v...)}) }
	row("begun", "%s", m.Began.Format("2006-01-02 15:04:05 MST"))
	row("took", "%v, of which %v for samples that were taken again", m.Took.Round(time.Second), m.Again.Round(time.Second))
	if m.Commit != "" {
		row("commit", "%s", m.Commit)
	}
	if n := m.Network; n != nil {
		g := n.GeneratorMachine
		at := func(addr, card string) string {
			if card != "" {
				addr += " (" + card + ")"
			}
			return addr
		}
		row("network", "%s: generator at %s, server at %s", m.network(), at(n.Generator, n.GeneratorCard), at(n.Server, n.ServerCard))
		if n.RoundTrip > 0 {
			row("round trip", "%.3g ms", float64(n.RoundTrip)/float64(time.Millisecond))
		}
		if n.MTU > 0 {
			row("path MTU", "%d", n.MTU)
		}
		row("server's machine", "%s, %s", m.Host, m.Program)
		row("generator's machine", "%s, %s, %s, %s, virtual: %v; %s, %s", g.Host, g.Kernel, g.CPU, plural(g.CPUs, "CPU"), g.Virtual, g.Go, g.Program)
	}
	if m.Steered != "" {
		row("loopback received", "on the CPUs of the mask %s, not on the sender's", m.Steered)
	}
	row("kernel", "%s", m.Kernel)
	row("CPU", "%s", m.CPU)
	row("CPUs", "%d, virtual: %v", m.CPUs, m.Virtual)
	core := ""
	if m.OneCore {
		core = ", which are one core: they slow each other down"
	}
	row("pinned", "server to CPU %d, generator to CPU %d%s", m.ServerCPU, m.ClientCPU, core)
	row("Go", "%s", m.Go)
	row("GOMAXPROCS of servers", "%d", m.GOMAXPROCS)
	row("io_uring tier", "%s", m.Tier)
	row("rounds", "%d", m.Rounds)
	row("warm-up, duration (longer with pauses; a stream, its length)", "%v, %v", m.Warm.Round(time.Millisecond), m.Duration)
	row("seed", "%d", m.Seed)
	row("baseline", "%s", m.Baseline)
	row("load before", "%s", m.LoadBefore)
	row("load after", "%s", m.LoadAfter)
	for _, k := range slices.Sorted(maps.Keys(m.Engines)) {
		row("engine "+k, "%s", m.Engines[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.Sysctls)) {
		row(k, "%s", strings.ReplaceAll(m.Sysctls[k], "\t", " "))
	}
	for _, k := range slices.Sorted(maps.Keys(m.Mitigations)) {
		row("mitigation of "+k, "%s", m.Mitigations[k])
	}
	return rows
}

// network names what lies between generator and server.
func (m Manifest) network() string {
	switch {
	case m.Network == nil:
		return "loopback"
	case m.Network.OneMachine:
		return "remote, on one machine"
	}
	return "remote"
}

// command is the command line for a shell, in the directory of the module.
func (m Manifest) command() string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./:=,@%+", c)
	}
	var words []string
	for i, arg := range m.Command {
		switch {
		case i == 0 && arg == "run":
			words = append(words, "go run ./bench/run")
		case arg != "" && strings.IndexFunc(arg, func(c rune) bool { return !plain(c) }) < 0:
			words = append(words, arg)
		default:
			words = append(words, "'"+strings.ReplaceAll(arg, "'", `'\''`)+"'")
		}
	}
	return strings.Join(words, " ")
}

// none is what a table shows where there is no figure.
const none = "–"

// figureText is v with three digits that count.
func figureText(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return none
	case math.Abs(v) >= 1000:
		return wholeText(v)
	case v == 0:
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', min(max(digits, 0), 4), 64)
}

// wholeText is v without a fraction, its thousands apart.
func wholeText(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return none
	}
	digits := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	if v < 0 && digits != "0" {
		return "−" + digits
	}
	return digits
}

func mebibytesText(v float64) string { return figureText(v / (1 << 20)) }

func probabilityText(p float64) string {
	switch {
	case math.IsNaN(p):
		return none
	case p < 0.001:
		return "< 0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

// shareText names a percentile.
func shareText(share float64) string {
	switch share {
	case 0:
		return "least"
	case 1:
		return "greatest"
	}
	return strconv.FormatFloat(100*share, 'g', 7, 64) + " %"
}
