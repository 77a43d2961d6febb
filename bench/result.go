package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"
)

// A Sample is one measurement: one candidate on one workload in one round.
type Sample struct {
	// Workload is the shape's name and Candidate who served it.
	Workload  string `json:"workload"`
	Candidate string `json:"candidate"`
	// Round counts from 0; Place is the sample's in its round.
	Round int `json:"round"`
	Place int `json:"place"`
	// Slices is in how many slices it was taken, by turns with the other samples of
	// its round; 0 is in one piece.
	Slices int `json:"slices,omitempty"`
	// Unit is what was counted: a message, chunk, MiB or connection. Units is how
	// many there were, in Seconds.
	Unit    string  `json:"unit"`
	Units   float64 `json:"units"`
	Seconds float64 `json:"seconds"`
	// Bytes is what the requests and answers of a Custom came to.
	Bytes int64 `json:"bytes,omitempty"`
	// UserUS and SystemUS are the server's CPU microseconds per unit.
	UserUS   float64 `json:"user_us_per_unit"`
	SystemUS float64 `json:"system_us_per_unit"`
	// P50US, P99US, P999US and MaxUS are the latency, or a chunk's lateness, in
	// microseconds; 0 of a workload that has none, such as a Stream.
	P50US  float64 `json:"p50_us"`
	P99US  float64 `json:"p99_us"`
	P999US float64 `json:"p999_us"`
	MaxUS  float64 `json:"max_us"`
	// Percentiles is the whole distribution of latency, for drawing.
	Percentiles []Percentile `json:"percentiles,omitempty"`
	// Target is the rate that an open loop was to reach, per second; 0 in a closed
	// loop.
	Target float64 `json:"target_rate,omitempty"`
	// Unsent is how many messages the clock would have sent, and the generator did
	// not, because its limit was in flight; they are in no figure of latency.
	Unsent int64 `json:"unsent,omitempty"`
	// Recovery is how latency came back after a Surge, of workloads with one.
	Recovery *Recovery `json:"recovery,omitempty"`
	// Batch is how many completions or readiness events a turn of the server's
	// loops brought, where it counts them.
	Batch float64 `json:"batch,omitempty"`
	// Batches counts the waits that brought 1, 2 to 3, 4 to 7 ... completions or
	// readiness events.
	Batches []int64 `json:"batches,omitempty"`
	// Workers is how many worker threads io_uring had made in the server by the
	// end.
	Workers int `json:"io_workers,omitempty"`
	// Crossings, Mallocs and Switches are the server's system calls (where it
	// counts them), allocated objects and context switches, per unit.
	Crossings float64 `json:"crossings_per_unit,omitempty"`
	Mallocs   float64 `json:"mallocs_per_unit,omitempty"`
	Switches  float64 `json:"switches_per_unit"`
	// RSS is the server's resident memory at the end, in bytes. Held is the part of it
	// that it holds ready to receive into, where it tells that (couplet.Stats).
	RSS  int64 `json:"rss_bytes"`
	Held int64 `json:"held_bytes,omitempty"`
	// BytesPerConn is the resident memory of an idle connection, of Idle only.
	BytesPerConn float64 `json:"bytes_per_connection"`
	// GeneratorBusy is the share of the time in which the generator had something
	// to do; ClientBound marks a sample in which that was more than 80 %.
	GeneratorBusy float64 `json:"generator_busy"`
	ClientBound   bool    `json:"client_bound"`
	// Others is the share of one CPU that everything else on the server's machine
	// used, or that other machines of its host took from it, and GeneratorOthers
	// that of the generator's where that is another.
	// Retries is how often the sample was thrown away and taken again because
	// that was too much (Figures.Disturbed).
	Others          float64 `json:"others_cpu"`
	GeneratorOthers float64 `json:"generator_others_cpu,omitempty"`
	Retries         int     `json:"retries,omitempty"`
	// Errors is the ledger of what went wrong; a good sample has none.
	Errors map[string]int64 `json:"errors,omitempty"`
	// Incidents count what is no error and lost nothing, but cost something, such as
	// a receive that found no buffer; a good sample may have many.
	Incidents map[string]int64 `json:"incidents,omitempty"`

	kernel     float64 // see Audit
	notCounted string
}

// A Percentile is one point of a distribution: Share of all values (0 to 1) are at
// most US microseconds.
type Percentile struct {
	Share float64 `json:"share"`
	US    float64 `json:"us"`
}

// CPU is the server's CPU microseconds per unit, of both kinds: the main figure.
func (s Sample) CPU() float64 { return s.UserUS + s.SystemUS }

// latency is us, a figure of the latency of s, or NaN where none was measured.
func (s Sample) latency(us float64) float64 {
	if len(s.Percentiles) == 0 && s.P99US == 0 {
		return math.NaN()
	}
	return us
}

// The latency of s, or NaN where none was measured.
func (s Sample) p50() float64  { return s.latency(s.P50US) }
func (s Sample) p99() float64  { return s.latency(s.P99US) }
func (s Sample) p999() float64 { return s.latency(s.P999US) }

// clientBound is ClientBound.
func (s Sample) clientBound() bool { return s.ClientBound }

// disturbed reports what Figures.Disturbed does.
func (s Sample) disturbed() bool { return s.othersMost() > disturbed }

// othersMost is the greater of Others and GeneratorOthers.
func (s Sample) othersMost() float64 { return max(s.Others, s.GeneratorOthers) }

// memory is BytesPerConn, resident RSS, and held Held or NaN.
func (s Sample) memory() float64   { return s.BytesPerConn }
func (s Sample) resident() float64 { return float64(s.RSS) }
func (s Sample) held() float64     { return orNone(float64(s.Held)) }

// Rate is units per second.
func (s Sample) Rate() float64 { return s.Units / s.Seconds }

// Throughput is MiB per second of a Custom, both ways together.
func (s Sample) Throughput() float64 { return float64(s.Bytes) / (1 << 20) / s.Seconds }

// quantiles are those that are kept, in per cent: closer together towards the end,
// as an HDR plot wants them.
var quantiles = []float64{0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100}

// sample makes a Sample of figures.
func sample(w Workload, candidate string, f Figures) Sample {
	units := f.Units // that the reports are of
	if f.CPU > 0 {
		units = f.All
	}
	per := func(v int64) float64 {
		if units == 0 {
			return 0
		}
		return float64(v) / units
	}
	a, b := f.After, f.Before
	user, system := per(a.UserUS-b.UserUS), per(a.SystemUS-b.SystemUS)
	if both := user + system; f.CPU > 0 && f.Units > 0 && both > 0 {
		cpu := f.CPU.Seconds() * 1e6 / f.Units
		user, system = cpu*user/both, cpu*system/both
	}
	us := func(q float64) float64 { return float64(f.Latency.ValueAtQuantile(q)) / 1000 }
	s := Sample{
		Workload: w.String(), Candidate: candidate,
		Unit: w.Unit(), Units: f.Units, Seconds: f.Wall.Seconds(), Bytes: f.Bytes,
		UserUS: user, SystemUS: system,
		P50US: us(50), P99US: us(99), P999US: us(99.9), MaxUS: us(100),
		Crossings: per(a.Crossings - b.Crossings), Mallocs: per(int64(a.Mallocs - b.Mallocs)),
		Switches: per(a.Voluntary + a.Involuntary - b.Voluntary - b.Involuntary),
		RSS:      a.RSS, Others: f.Others, GeneratorOthers: f.GeneratorOthers, GeneratorBusy: f.GeneratorBusy, ClientBound: f.ClientBound(),
	}
	if f.Latency.TotalCount() > 0 {
		for _, q := range quantiles {
			s.Percentiles = append(s.Percentiles, Percentile{q / 100, us(q)})
		}
		s.Percentiles[0].US = float64(f.Latency.Min()) / 1000
	}
	s.Target, s.Unsent, s.Recovery = w.Rate, f.Unsent, f.Recovery
	if a.Stats != nil {
		s.Held = a.Stats.Held
	}
	counted := a.Stats != nil && b.Stats != nil
	if counted {
		s.Incidents = incidentsBetween(b.Stats, a.Stats)
	}
	if counted && a.Stats.Turns > b.Stats.Turns {
		s.Batch = float64(a.Stats.Events-b.Stats.Events) / float64(a.Stats.Turns-b.Stats.Turns)
		for i, n := range a.Stats.Batches {
			if n -= b.Stats.Batches[i]; n > 0 {
				s.Batches = append(s.Batches, make([]int64, i-len(s.Batches))...)
				s.Batches = append(s.Batches, n)
			}
		}
	}
	s.Workers = a.Workers
	s.kernel, s.notCounted = per(a.KernelCrossings-b.KernelCrossings), a.NotCounted
	if w.Kind == Idle {
		s.BytesPerConn = float64(a.RSS-b.RSS) / float64(w.Connections)
	}
	if len(f.Errors) > 0 {
		s.Errors = f.Errors
	}
	return s
}

// Skipped tells why a candidate was not measured on a workload.
type Skipped struct {
	// Workload is the shape's name, or "" for all of them.
	Workload  string `json:"workload,omitempty"`
	Candidate string `json:"candidate"`
	// Why is the reason.
	Why string `json:"why"`
}

// An Audit is a check of an engine's count of its system calls: one more sample,
// of which nothing else is used, since to count makes each call dearer.
type Audit struct {
	Workload  string `json:"workload"`
	Candidate string `json:"candidate"`
	// Counted is what the engine counted, Kernel what the kernel saw its loops make,
	// per unit: Go's own calls on these threads are among them.
	Counted float64 `json:"counted"`
	Kernel  float64 `json:"kernel"`
}

// Version is that of the format of a Result as JSON.
const Version = 1

// A Result is everything that a Plan gave.
type Result struct {
	// Version is the format's.
	Version int `json:"version"`
	// Partial says that the plan was interrupted.
	Partial bool `json:"partial,omitempty"`
	// Manifest says where and how.
	Manifest Manifest `json:"manifest"`
	// Workloads are what was measured, in order, and Samples every measurement.
	Workloads []Workload `json:"workloads"`
	Samples   []Sample   `json:"samples"`
	// Audits are the checks that Plan.Audit asks for; Unaudited says why there are
	// none.
	Audits    []Audit `json:"audits,omitempty"`
	Unaudited string  `json:"unaudited,omitempty"`
	// Knee is the rate of which the fixed rates of Workload.Share are parts, per
	// second, or 0.
	Knee float64 `json:"knee_rate,omitempty"`
	// Skipped is what the plan asked for and did not get.
	Skipped []Skipped `json:"skipped,omitempty"`
}

// A Manifest says where and how a Result was measured.
type Manifest struct {
	// Began is when, Took how long all of it took.
	Began time.Time     `json:"began"`
	Took  time.Duration `json:"took_ns"`
	// Again is the part of it that samples cost that were taken again.
	Again time.Duration `json:"again_ns,omitempty"`
	// Command is the program's arguments, without a token; Commit is what it was
	// built from, or "".
	Command []string `json:"command"`
	Commit  string   `json:"commit"`
	// Machine is the server's.
	Machine
	// Network tells of two machines; it is nil where all was on one, on loopback.
	Network *Network `json:"network,omitempty"`
	// GOMAXPROCS is that of every server.
	GOMAXPROCS int `json:"gomaxprocs"`
	// ServerCPU and ClientCPU are where server and generator were pinned.
	ServerCPU int `json:"server_cpu"`
	ClientCPU int `json:"generator_cpu"`
	// OneCore says that both were on one core, whose parts slow each other down.
	OneCore bool `json:"one_core,omitempty"`
	// Engines is how each engine describes itself.
	Engines map[string]string `json:"engines"`
	// Candidates are the plan's, in its order.
	Candidates []string `json:"candidates"`
	// Seed, Rounds, Warm, Duration and Baseline are the plan's.
	Seed     uint64        `json:"seed"`
	Rounds   int           `json:"rounds"`
	Warm     time.Duration `json:"warm_ns"`
	Duration time.Duration `json:"duration_ns"`
	Baseline string        `json:"baseline"`
	// LoadBefore and LoadAfter are /proc/loadavg: what else the server's machine
	// did.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

// A Machine is where a part of a measurement ran.
type Machine struct {
	// Host is its name, and Program the build of couplet on it. Both are told
	// where there are two machines.
	Host    string `json:"host,omitempty"`
	Program string `json:"program,omitempty"`
	// Kernel is its release and machine, CPU the model, of which there are CPUs;
	// Virtual says that they are a hypervisor's.
	Kernel  string `json:"kernel"`
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"`
	Virtual bool   `json:"virtual"`
	// Mitigations are the kernel's against the CPU's vulnerabilities; Sysctls the
	// settings that matter here.
	Mitigations map[string]string `json:"mitigations"`
	Sysctls     map[string]string `json:"sysctls"`
	// Steered are the CPUs that process what arrives on loopback, as the mask of
	// receive packet steering; "" is that of who sends it.
	Steered string `json:"steered,omitempty"`
	// Go is the toolchain, Tier that of io_uring there.
	Go   string `json:"go"`
	Tier string `json:"tier"`
}

// A Network is what lies between the generator and the servers.
type Network struct {
	// Server and Generator are the addresses of the two ends, and the cards the network
	// interfaces that have them, each by its own machine's name for it.
	Server        string `json:"server"`
	ServerCard    string `json:"server_card,omitempty"`
	Generator     string `json:"generator"`
	GeneratorCard string `json:"generator_card,omitempty"`
	// RoundTrip is the shortest that the generator's kernel saw when the session began,
	// and MTU the bytes of the largest packet that it sends there whole; 0 is unknown.
	RoundTrip time.Duration `json:"round_trip_ns,omitempty"`
	MTU       int           `json:"path_mtu,omitempty"`
	// OneMachine says that both ends are on one machine all the same.
	OneMachine bool `json:"one_machine,omitempty"`
	// GeneratorMachine is where the generator ran.
	GeneratorMachine Machine `json:"generator_machine"`
}

// Of returns the good samples of a candidate on a workload, by round.
func (r *Result) Of(workload, candidate string) []Sample {
	var found []Sample
	for _, s := range r.Samples {
		if s.Workload == workload && s.Candidate == candidate && len(s.Errors) == 0 {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b Sample) int { return a.Round - b.Round })
	return found
}

// Values are f of each good sample of a candidate on a workload.
func (r *Result) Values(workload, candidate string, f func(Sample) float64) []float64 {
	var values []float64
	for _, s := range r.Of(workload, candidate) {
		values = append(values, f(s))
	}
	return values
}

// Compare is the paired ratio of the server's CPU per unit between two
// candidates on a workload, over the rounds in which both gave a good sample,
// and the probability that there is no difference.
func (r *Result) Compare(workload, candidate, baseline string) (ratio Interval, p float64, rounds int) {
	return r.compare(workload, candidate, baseline, Sample.CPU)
}

func (r *Result) compare(workload, candidate, baseline string, value func(Sample) float64) (ratio Interval, p float64, rounds int) {
	var a, b []float64
	for _, s := range r.pairs(workload, candidate, baseline, value) {
		a, b = append(a, value(s[0])), append(b, value(s[1]))
	}
	if len(a) == 0 {
		return Ratio(nil, nil), math.NaN(), 0
	}
	return Ratio(a, b), Differ(a, b), len(a)
}

// pairs are the good samples of a and b of each round in which both gave one that has
// the value.
func (r *Result) pairs(workload, a, b string, value func(Sample) float64) (all [][2]Sample) {
	second := map[int]Sample{}
	for _, s := range r.Of(workload, b) {
		second[s.Round] = s
	}
	for _, s := range r.Of(workload, a) {
		if o, ok := second[s.Round]; ok && !math.IsNaN(value(s)) && !math.IsNaN(value(o)) {
			all = append(all, [2]Sample{s, o})
		}
	}
	return all
}

// Audited says in one sentence what became of the audits, or "" where nothing was
// to be audited.
func (r *Result) Audited() string {
	if r.Unaudited != "" {
		return "The engines' count of their system calls was not checked: " + r.Unaudited + "."
	}
	if len(r.Audits) == 0 {
		return ""
	}
	least, most := math.Inf(1), 0.0
	for _, a := range r.Audits {
		ratio := a.Kernel / a.Counted
		least, most = min(least, ratio), max(most, ratio)
	}
	return fmt.Sprintf("The engines' count of their system calls was checked %s: the kernel saw %.2f to %.2f times as many, with Go's own on these threads and those that only ask a socket something.",
		plural(len(r.Audits), "time"), least, most)
}

// skip notes s, once: what fails in one round often fails in all.
func (r *Result) skip(s Skipped) {
	if !slices.Contains(r.Skipped, s) {
		r.Skipped = append(r.Skipped, s)
	}
}

// Append adds what another plan of the same place and time gave.
func (r *Result) Append(more *Result) {
	r.Audits = append(r.Audits, more.Audits...)
	r.Workloads = append(r.Workloads, more.Workloads...)
	r.Samples = append(r.Samples, more.Samples...)
	for _, s := range more.Skipped {
		r.skip(s)
	}
	r.Partial = r.Partial || more.Partial
	r.Manifest.Took += more.Manifest.Took
	r.Manifest.Again += more.Manifest.Again
	r.Manifest.LoadAfter = more.Manifest.LoadAfter
}

// Errors adds up the ledgers of all samples.
func (r *Result) Errors() map[string]int64 {
	all := map[string]int64{}
	for _, s := range r.Samples {
		for k, n := range s.Errors {
			all[s.Candidate+": "+k] += n
		}
	}
	return all
}

// WriteFile writes r as JSON, as an Output: a report that is there is replaced whole, or
// stays.
func (r *Result) WriteFile(path string) error {
	o, err := OpenOutput(path)
	if err != nil {
		return err
	}
	defer o.Close()
	return o.Write(r.WriteJSON)
}

// WriteJSON writes r as ReadFile reads it.
func (r *Result) WriteJSON(out io.Writer) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	_, err = out.Write(append(text, '\n'))
	return err
}

// ReadFile reads what WriteFile wrote, of this version.
func ReadFile(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w; want a report that couplet bench --json wrote", err)
	}
	r := new(Result)
	switch err := json.Unmarshal(text, r); {
	case err != nil:
		return nil, fmt.Errorf("%s is no report of couplet bench (%w)", path, err)
	case r.Version == 0:
		return nil, fmt.Errorf("%s is no report of couplet bench (--json writes one)", path)
	case r.Version != Version:
		return nil, fmt.Errorf("%s has the format of version %d, and this program reads version %d; measure again", path, r.Version, Version)
	}
	return r, nil
}
