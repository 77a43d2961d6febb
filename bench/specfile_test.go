package bench_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"couplet/bench"
)

// workloadFile writes text to web.yaml in a directory of its own.
func workloadFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadWorkload(t *testing.T) {
	for _, c := range []struct {
		text, says string
		want       bench.Workload
	}{
		{
			"request: 200\nresponse: 4KiB",
			"request: 200 B; answer: 4 KiB",
			bench.Workload{Spec: &bench.Spec{Name: "web", Request: bench.Dist{Constant: 200}, Response: bench.Dist{Constant: 4096}}},
		},
		{
			`# all of it
name: "Web API, v2"
connections: 500
depth: 4
request: {median: 200, p99: 1500, cap: 8 KiB}
response:
  - {bytes: 512, weight: 9}
  - bytes: 64KiB
    weight: 1
think: {mean: 10ms}
lifetime: {requests: {min: 50, max: 150}}
`,
			"request: 200 B in the median and 1500 B at the 99th percentile (at most 8 KiB); answer: 512 B (90 %), 64 KiB (10 %); " +
				"in flight on each connection: 4; pause: 10ms on average; requests of a connection: 50 to 150",
			bench.Workload{Connections: 500, Depth: 4, Spec: &bench.Spec{
				Name: "Web API, v2", Request: bench.Dist{Median: 200, P99: 1500, Cap: 8192},
				Response: bench.Dist{Choices: []bench.Choice{{Value: 512, Weight: 9}, {Value: 65536, Weight: 1}}},
				Think:    bench.Dist{Mean: int64(10 * time.Millisecond)}, Requests: bench.Dist{Min: 50, Max: 150},
			}},
		},
		{
			"---\n{request: {min: 12B, max: \"1MiB\"}, ratio: 2.5, rate: 0.5, lifetime: {time: 1m30s}}",
			"request: 12 B to 1 MiB; answer: 2.5 times as much; by the clock: 0.5/s; life of a connection: 1m30s",
			bench.Workload{Rate: .5, Spec: &bench.Spec{
				Name: "web", Request: bench.Dist{Min: 12, Max: 1 << 20}, Ratio: 2.5, Life: bench.Dist{Constant: int64(90 * time.Second)},
			}},
		},
		{
			"request: 12\nresponse: 1\nthink: [{time: 0s, weight: 1}, {time: 5ms, weight: 1.5}]",
			"request: 12 B; answer: 1 B; pause: 0s (40 %), 5ms (60 %)",
			bench.Workload{Spec: &bench.Spec{
				Name: "web", Request: bench.Dist{Constant: 12}, Response: bench.Dist{Constant: 1},
				Think: bench.Dist{Choices: []bench.Choice{{Value: 0, Weight: 1}, {Value: int64(5 * time.Millisecond), Weight: 1.5}}},
			}},
		},
	} {
		w, err := bench.ReadWorkload(workloadFile(t, c.text))
		c.want.Kind = bench.Custom
		if err != nil || !reflect.DeepEqual(w, c.want) {
			t.Errorf("%s\nis %+v, %v; want %+v", c.text, w, err, c.want)
			continue
		}
		if w, err = w.WithDefaults(); err != nil || w.Description() != c.says {
			t.Errorf("%s\nis described as %s, %v; want %s", c.text, w.Description(), err, c.says)
		}
	}
}

// What is wrong with a file is said in one line with the place, the value, and
// what would be right.
func TestBadWorkloadFiles(t *testing.T) {
	const rest = "\nrequest: 200\nresponse: 512\n"
	for _, c := range []struct {
		text string
		says []string
	}{
		{"", []string{"web.yaml is empty", "request: 200"}},
		{"# only a comment\n", []string{"web.yaml is empty"}},
		{"---\n---\n", []string{"web.yaml is empty"}},
		{"--- {request: 200}\n--- {request: 300}", []string{"2 documents"}},
		{"\xff\xfe", []string{"web.yaml is not UTF-8 text"}},
		{strings.Repeat("# long\n", 20_000), []string{"web.yaml is longer than 64 KiB"}},
		{"request: 200\nresponse: [", []string{"web.yaml:2: this is not YAML"}},
		{"request: 200\n\tresponse: 1", []string{"web.yaml:2: this is not YAML", `'\t' that cannot start any token`, "indent with spaces"}},
		{"\trequest: 200\nresponse: 1", []string{"web.yaml:1: this is not YAML", "indent with spaces"}},
		{"request: 200\nlifetime:\n\trequests: 5", []string{"web.yaml:3: this is not YAML", "indent with spaces"}},
		{"request: 200\nresponse:\t- bytes: 5", []string{"web.yaml:2: this is not YAML", "indent with spaces"}},
		{"request: 200\nrequest: 300", []string{"web.yaml:2: ", `"request" already defined`}},
		{"hello", []string{`web.yaml:1: a workload is "hello"`, "want keys and values", "lifetime"}},
		{"- request: 200", []string{"web.yaml:1: a workload is a list", "lifetime"}},
		{"request: 200\nreponse: 512", []string{`web.yaml:2: a workload has no key "reponse"`, "response"}},
		{"response: 512", []string{"web.yaml has no request", "request: 200"}},
		{"request: 200", []string{"web.yaml has no response", "response: 4KiB", "ratio"}},

		{"name: ''" + rest, []string{`web.yaml:1: name: ""`, "1 to 40"}},
		{`name: "a\nb"` + rest, []string{`web.yaml:1: name: "a\nb"`, "printable"}},
		{"name: " + strings.Repeat("x", 41) + rest, []string{"web.yaml:1: name", "1 to 40"}},
		{"connections: many" + rest, []string{`web.yaml:1: connections is "many"`, "1 to 500000"}},
		{"connections: 0" + rest, []string{`web.yaml:1: connections is "0"`, "1 to 500000"}},
		{"connections: 1.5" + rest, []string{`web.yaml:1: connections is "1.5"`, "whole number"}},
		{"connections: [1]" + rest, []string{"web.yaml:1: connections is a list", "whole number"}},
		{"depth: 100000" + rest, []string{`web.yaml:1: depth is "100000"`, "1 to 65536"}},
		{"rate: fast" + rest, []string{`web.yaml:1: rate is "fast"`, "want a number"}},
		{"rate: .nan" + rest, []string{`web.yaml:1: rate is ".nan"`}},
		{"rate: NaN" + rest, []string{`web.yaml:1: rate is "NaN"`}},
		{"rate: -1" + rest, []string{"web.yaml:1: rate: -1", "more than 0"}},
		{"rate: 1e9" + rest, []string{"web.yaml:1: rate: 1e+09", "100 million"}},
		{"rate: 100\nthink: 1s" + rest, []string{"web.yaml:2: rate and think do not go together"}},
		{"depth: 4\nrate: 100" + rest, []string{"web.yaml:2: rate and depth do not go together"}},
		{"ratio: 2" + rest, []string{"web.yaml:3: response and ratio do not go together"}},
		{"request: 200\nratio: 0", []string{"web.yaml:2: ratio: 0", "more than 0"}},
		{"request: 200\nratio: 1e7", []string{"web.yaml:2: ratio: 1e+07", "at most 1000000"}},

		{"request:", []string{"web.yaml:1: request is empty", "4KiB"}},
		{"request: big", []string{`web.yaml:1: request is "big"`, "want bytes such as 512, 4KiB or 1MiB"}},
		{"request: 4KB", []string{`web.yaml:1: request is "4KB"`, "4KiB"}},
		{"request: 1.5KiB", []string{`web.yaml:1: request is "1.5KiB"`, "4KiB"}},
		{"request: 99999999999999MiB", []string{`web.yaml:1: request is "99999999999999MiB"`}},
		{"request: 10ms", []string{`web.yaml:1: request is "10ms"`, "want bytes"}},
		{"request: true", []string{`web.yaml:1: request is "true"`, "want bytes"}},
		{"request: &a 20", []string{"web.yaml:1: request is an anchor", "want bytes"}},
		{"request: |\n  200", []string{"web.yaml:1: request is a block of text", "want bytes"}},
		{"request: -5", []string{"web.yaml:1: request: -5 B is out of bounds", "12 B to 16 MiB"}},
		{"request: 11", []string{"web.yaml:1: request: 11 B is out of bounds", "12 B to 16 MiB"}},
		{"request: 17MiB", []string{"web.yaml:1: request: 17 MiB is out of bounds", "12 B to 16 MiB"}},
		{"request: 200\nresponse: 0", []string{"web.yaml:2: response: 0 B is out of bounds", "1 B to 16 MiB"}},
		{"request: []", []string{"web.yaml:1: request is an empty list", "weight: 1"}},
		{"request: [200, 300]", []string{`web.yaml:1: an entry of request is "200"`, "bytes, weight"}},
		{"request:\n  - {bytes: 200, weight: 0}", []string{"web.yaml:2: request: the weights add up to 0", "more than 0"}},
		{"request:\n  - {bytes: 200, weight: 1}\n  - {bytes: 300, weight: -1}", []string{"request: the weight -1 cannot be", "0 or more"}},
		{"request:\n  - {bytes: 200, weight: 1}\n  - {bytes: 300}", []string{"web.yaml:3: an entry of request lacks a key", "bytes and weight"}},
		{"request:\n  - {bytes: 200, weight: 1}\n  - {byte: 300, weight: 1}", []string{`web.yaml:3: an entry of request has no key "byte"`, "bytes, weight"}},
		{"request: {min: 200}", []string{"web.yaml:1: request has keys that make no distribution", "min and max"}},
		{"request: {min: 200, max: 300, cap: 400}", []string{"web.yaml:1: request has keys that make no distribution"}},
		{"request: {min: 300, max: 200}", []string{"web.yaml:1: request: min is 300 B and max is 200 B", "the smaller"}},
		{"request: {median: 300, p99: 200}", []string{"web.yaml:1: request: median is 300 B and p99 is 200 B", "the greater"}},
		{"request: {mean: 300, cap: 200}", []string{"web.yaml:1: request: cap is 200 B", "more than 300 B"}},
		{"request: {median: 300, sigma: 2}", []string{`web.yaml:1: request has no key "sigma"`, "p99"}},
		{"request: {mean:\n  big}", []string{`web.yaml:2: request mean is "big"`, "want bytes"}},

		{"think: 10" + rest, []string{`web.yaml:1: think is "10"`, "want a duration with its unit, such as 10ms"}},
		{"think: -1s" + rest, []string{"web.yaml:1: think: -1s is out of bounds", "0s to 1h"}},
		{"think: 2h" + rest, []string{"web.yaml:1: think: 2h0m0s is out of bounds", "0s to 1h"}},
		{"think: {mean: 0s}" + rest, []string{"web.yaml:1: think mean is 0"}},
		{"lifetime: 5" + rest, []string{`web.yaml:1: lifetime is "5"`, "requests, time"}},
		{"lifetime: {}" + rest, []string{"web.yaml:1: lifetime has 0 keys", "requests or time"}},
		{"lifetime: {requests: 5, time: 1s}" + rest, []string{"web.yaml:1: lifetime has 2 keys", "requests or time"}},
		{"lifetime:\n  requests: 0" + rest, []string{"web.yaml:2: lifetime requests: 0 is out of bounds", "from 1"}},
		{"lifetime:\n  requests: 5s" + rest, []string{`web.yaml:2: lifetime requests is "5s"`, "whole number"}},
		{"lifetime:\n  time: 5" + rest, []string{`web.yaml:2: lifetime time is "5"`, "duration"}},
		{"lifetime: {time: 1us}" + rest, []string{"web.yaml:1: lifetime time: 1µs is out of bounds", "from 1ms"}},
	} {
		w, err := bench.ReadWorkload(workloadFile(t, c.text))
		if err == nil {
			t.Errorf("%q is accepted as %+v", c.text, w)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\t") {
			t.Errorf("%q: %q is not one line of text", c.text, err)
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q says %q; want %q in it", c.text, err, says)
			}
		}
	}
	dir := t.TempDir()
	for path, says := range map[string]string{dir: "is a directory; want a workload file", dir + "/none.yaml": "no such file"} {
		if _, err := bench.ReadWorkload(path); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s says %v; want %q", path, err, says)
		}
	}
}

// What goes together in a file may not go together with what is said beside it.
func TestCustomsThatCannotBe(t *testing.T) {
	good := bench.Spec{Name: "web", Request: bench.Dist{Constant: 200}, Response: bench.Dist{Constant: 512}}
	for _, change := range []func(*bench.Workload){
		func(w *bench.Workload) { w.Spec = nil },
		func(w *bench.Workload) { w.Size = 64 },
		func(w *bench.Workload) { w.Rate, w.Spec.Think = 5, bench.Dist{Constant: 1} },
		func(w *bench.Workload) { w.Rate, w.Depth = 5, 2 },
		func(w *bench.Workload) { w.Connections = -1 },
		func(w *bench.Workload) { w.Spec.Name = "" },
		func(w *bench.Workload) { w.Spec.Request = bench.Dist{} },
		func(w *bench.Workload) { w.Spec.Response = bench.Dist{} },
		func(w *bench.Workload) { w.Spec.Ratio = 2 },
		func(w *bench.Workload) { w.Spec.Response, w.Spec.Ratio = bench.Dist{}, -1 },
		func(w *bench.Workload) {
			w.Spec.Requests, w.Spec.Life = bench.Dist{Constant: 5}, bench.Dist{Constant: 1e9}
		},
	} {
		spec := good
		w := bench.Workload{Kind: bench.Custom, Spec: &spec}
		if _, err := w.WithDefaults(); err != nil {
			t.Fatal(err)
		}
		if change(&w); true {
			if _, err := w.WithDefaults(); err == nil {
				t.Errorf("%+v with %+v is accepted", w, w.Spec)
			}
		}
	}
}

// The name of a Custom is that of its file, and tells it from every other; a result
// that is read again has the same.
func TestNamesOfCustoms(t *testing.T) {
	const text = "request: 200\nresponse: 512\nconnections: 5\n"
	names := map[string]string{}
	for _, more := range []string{
		"", "depth: 2", "rate: 10", "rate: 10.5", "think: 1s", "think: {mean: 1s}", "think: {max: 1s, min: 0s}",
		"lifetime: {requests: 5}", "lifetime: {time: 5s}", "name: web2",
	} {
		w, err := bench.ReadWorkload(workloadFile(t, text+more))
		if err == nil {
			w, err = w.WithDefaults()
		}
		if err != nil {
			t.Fatal(err)
		}
		name := w.String()
		if before, taken := names[name]; taken || !strings.HasPrefix(name, "web") || !strings.Contains(name, "5 connections") {
			t.Errorf("%q is called %s, as is %q", more, name, before)
		}
		names[name] = more
		w.Seed = 7
		encoded, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		var again bench.Workload
		if err := json.Unmarshal(encoded, &again); err != nil || again.String() != name || again.Description() != w.Description() {
			t.Errorf("%s is read back as %s, %v", encoded, again, err)
		}
	}
}
