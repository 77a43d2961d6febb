//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet/bench"
	"couplet/engines"
)

// tiny is a measurement that says nothing and takes no time.
var tiny = tinyOf("goroutine,epoll")

func tinyOf(engines string) []string {
	return []string{"bench", "--quick", "--engines", engines, "--connections", "3", "--rounds", "2", "--duration", "20ms"}
}

func TestBenchMeasuresAndJudges(t *testing.T) {
	t.Parallel()
	json, page := filepath.Join(t.TempDir(), "a.json"), filepath.Join(t.TempDir(), "a.html")
	o := couple(t, append(tiny, "--json", json, "--html", page)...).want(t, 0)
	for _, says := range []string{"echo 3 x 64 B, depth 1", "goroutine/2", "Control", "On Linux ", "Error ledger: empty"} {
		if !strings.Contains(o.stdout, says) {
			t.Errorf("%q is not in the report:\n%s", says, o.stdout)
		}
	}
	for _, path := range []string{json, page} {
		if !strings.Contains(o.stderr, "couplet: wrote "+path+"\n") {
			t.Errorf("it is not said that %s was written:\n%s", path, o.stderr)
		}
	}
	if n := strings.Count(o.stderr, "round "); n != 6 {
		t.Errorf("%d lines of progress, want one for each of 6 samples:\n%s", n, o.stderr)
	}
	r, err := bench.ReadFile(json)
	if err != nil || len(r.Samples) != 6 || r.Partial || r.Manifest.Rounds != 2 {
		t.Errorf("the result: %+v, %v", r, err)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), r.Verdict("goroutine", "epoll")) {
		t.Errorf("the page lacks the verdict (%v)", err)
	}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		cmd := exec.Command(binary, "bench", "compare", json, json)
		cmd.Stdout = full
		beginCmd(t, cmd).end().want(t, 1)
		full.Close()
	}
	if o := couple(t, "bench", "compare", json, json).want(t, 0); strings.Count(o.stdout, "too few rounds to tell") != 3 {
		t.Errorf("a result compared with itself:\n%s", o.stdout)
	}
}

// A run without flags is planned to end well before its limit, so that there is time
// for samples that are taken again, and overloads the pair by 120 % and 200 %.
func TestTheDefaultRunLeavesTime(t *testing.T) {
	b, p := planned(t)
	takes, most, _ := b.limit(&p)
	if most != runLimit || takes > 8*time.Minute || p.Spare < 30*time.Second {
		t.Errorf("it should take %v of %v, and has %v for samples that are taken again", takes, most, p.Spare)
	}
	var shares, surges []float64
	for _, w := range atKnee(p, p.Workloads[0], 1000).Workloads {
		shares, surges = append(shares, w.Rate), append(surges, w.Surge)
	}
	if !slices.Equal(shares, []float64{500, 500, 800}) || !slices.Equal(surges, []float64{1200, 2000, 0}) {
		t.Errorf("of a knee of 1000 the rates are %v, with surges to %v", shares, surges)
	}
}

// Who was asked for and cannot be had was left out of a run that said it was well.
func TestBenchTellsWhoCannotBeMeasured(t *testing.T) {
	t.Parallel()
	broken := filepath.Dir(file(t, "go.mod", "module\n"))
	for _, c := range []struct{ dir, says string }{{t.TempDir(), "name its place with --peers-dir"}, {"/no/such", "/no/such"}, {broken, "go build"}} {
		o := couple(t, append(tiny, "--peers", "gnet,net", "--peers-dir", c.dir)...).want(t, 2)
		if o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "couplet: gnet cannot be measured: ") ||
			!strings.Contains(o.stderr, c.says) || !strings.Contains(o.stderr, "leave it out") {
			t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
		}
	}
}

// Who does not serve a workload was told when all was over.
func TestBenchTellsAtOnceWhoIsLeftOut(t *testing.T) {
	t.Parallel()
	several := append(tiny, "--engines", "epoll-x2", "--rounds", "1", "--workload")
	o := couple(t, append(several, "echo,broadcast")...).want(t, 0)
	before, _, _ := strings.Cut(o.stderr, "round 1")
	if want := "couplet: epoll-x2 is left out of what it does not serve: broadcast 3 x 64 B\n"; strings.Count(before, want) != 1 {
		t.Errorf("stderr %q, want %q at its beginning", o.stderr, want)
	}
	if o := couple(t, append(several, "echo")...).want(t, 0); strings.Contains(o.stderr, "does not serve") {
		t.Errorf("stderr %q", o.stderr)
	}
}

// A load of one's own gets the same report as the built-in ones, and the flags go
// before what its file says.
func TestBenchMeasuresAWorkloadFile(t *testing.T) {
	t.Parallel()
	load := file(t, "load.yaml", `
name: mine
connections: 500
request: {min: 20, max: 400}
response: [{bytes: 512, weight: 9}, {bytes: 64KiB, weight: 1}]
think: {mean: 1ms}
lifetime: {requests: 5}
`)
	json, page := filepath.Join(t.TempDir(), "a.json"), filepath.Join(t.TempDir(), "a.html")
	o := couple(t, "bench", "--quick", "--workload", load, "--engines", "goroutine,epoll", "--connections", "7", "--depth", "2",
		"--rounds", "1", "--duration", "30ms", "--json", json, "--html", page).want(t, 0)
	r, err := bench.ReadFile(json)
	if err != nil || len(r.Samples) != 3 {
		t.Fatalf("the result: %+v, %v", r, err)
	}
	w := r.Workloads[0]
	if w.Spec == nil || w.Connections != 7 || w.Depth != 2 || !strings.HasPrefix(w.String(), "mine, 7 connections, #") {
		t.Errorf("measured was %+v", w)
	}
	for _, s := range r.Samples {
		if s.Units < 1 || float64(s.Bytes) < s.Units*(20+512) || len(s.Errors) > 0 {
			t.Errorf("a sample: %+v", s)
		}
		// Of a goroutine's calls it counted some and not the waits, beside all of epoll's.
		if counted := s.Candidate == "epoll"; counted != (s.Crossings > 0) || counted != (s.Batch > 0) {
			t.Errorf("%s: %v calls a message, %v events a turn", s.Candidate, s.Crossings, s.Batch)
		}
	}
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{w.String(), "request: 20 B to 400 B; answer: 512 B (90 %), 64 KiB (10 %)", "requests of a connection: 5"} {
		if !strings.Contains(o.stdout, says) || !strings.Contains(string(html), says) {
			t.Errorf("%q is not in the report, or not on the page:\n%s", says, o.stdout)
		}
	}
	if !strings.Contains(o.stdout, r.Verdict("goroutine", "epoll")) || !strings.Contains(o.stdout, "MiB/s, both ways: ") {
		t.Errorf("the report:\n%s", o.stdout)
	}
	if o := couple(t, "bench", "compare", json, json).want(t, 0); strings.Count(o.stdout, "too few rounds to tell") != 3 || !strings.Contains(o.stdout, w.Description()) {
		t.Errorf("a result compared with itself:\n%s", o.stdout)
	}
}

// A file that is there wins over a workload of that name, and a directory does not.
func TestWorkloadFileWinsOverName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "echo"), []byte("reponse: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "churn"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"echo": `"reponse"`, "churn": "cannot write"} {
		cmd := exec.Command(binary, "bench", "--workload", name, "--json", "no/such.json")
		cmd.Dir = dir
		if o := beginCmd(t, cmd).end().want(t, 2); !strings.Contains(o.stderr, want) {
			t.Errorf("%s: stderr %q, want %q", name, o.stderr, want)
		}
	}
}

// To read a pipe waited for ever.
func TestAPipeIsNoWorkloadFile(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if o := couple(t, "bench", "-w", pipe).want(t, 2); o.stderr != "couplet: --workload: "+pipe+" is no regular file; want a workload file\n" {
		t.Errorf("stderr %q", o.stderr)
	}
}

// A file that could not be written cost the one after it.
func TestOneFileDoesNotCostTheOther(t *testing.T) {
	t.Parallel()
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	json, page := filepath.Join(t.TempDir(), "a.json"), filepath.Join(t.TempDir(), "a.html")
	for _, c := range []struct{ json, page, bad, good string }{{full, page, full, page}, {json, full, full, json}} {
		o := couple(t, append(tiny, "--rounds", "1", "--json", c.json, "--html", c.page)...).want(t, 1)
		if info, err := os.Stat(c.good); err != nil || info.Size() == 0 || !strings.Contains(o.stdout, "On Linux ") || !strings.Contains(o.stderr, c.bad) || strings.Count(o.stderr, "couplet: wrote ") != 1 {
			t.Errorf("with %s: %v, stdout %q, stderr %q", c.bad, err, o.stdout, o.stderr)
		}
	}
}

// The earlier report was cut to nothing before the new one was written: a full disk or a
// kill in between left neither.
func TestBenchReplacesAReportWhole(t *testing.T) {
	t.Parallel()
	const good = "a report of yesterday"
	dir := t.TempDir()
	json, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html")
	for _, path := range []string{json, page} {
		if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(path, path+".kept"); err != nil { // which shows what became of the old file
			t.Skip(err)
		}
	}
	couple(t, append(tiny, "--rounds", "1", "--json", json, "--html", page)...).want(t, 0)
	for _, path := range []string{json, page} {
		if kept, err := os.ReadFile(path + ".kept"); err != nil || string(kept) != good {
			t.Errorf("the earlier file has become %.40q, %v", kept, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() == int64(len(good)) || info.Mode().Perm() != 0o600 {
			t.Errorf("the new one is %v, %v", info, err)
		}
	}
	wantFiles(t, dir, "a.html", "a.html.kept", "a.json", "a.json.kept")
}

// The check before the measurement looked at the directory alone: what was measured for
// minutes was lost to a file that could not be written.
func TestBenchRefusesAtOnceWhatItCannotWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lost, locked := filepath.Join(dir, "lost"), filepath.Join(dir, "locked")
	if err := os.Symlink("not-there", lost); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(locked, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	cases := []struct{ path, says string }{
		{dir, "is a directory"},
		{filepath.Join(dir, "no", "such"), "want a file in a directory that is there"},
		{lost, "a link to what is not there"},
		{"/proc/no-such", "want a file in a directory"},
	}
	if os.Getuid() != 0 {
		cases = append(cases, struct{ path, says string }{locked, "permission denied"})
	}
	for _, c := range cases {
		o := couple(t, append(tiny, "--rounds", "1", "--html", c.path)...).want(t, 2)
		if o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "couplet: --html: cannot write "+c.path+": ") || !strings.Contains(o.stderr, c.says) {
			t.Errorf("stdout %q, stderr %q; want one line with %q", o.stdout, o.stderr, c.says)
		}
	}
	wantFiles(t, dir, "locked", "lost")
}

// /dev/null was refused to whoever may not make files in /dev.
func TestBenchWritesDevicesAndPipesAsTheyAre(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	j := begin(t, append(tiny, "--rounds", "1", "--json", os.DevNull, "--html", pipe)...)
	page := make(chan string, 1)
	go func() {
		text, err := os.ReadFile(pipe)
		if err != nil {
			t.Error(err)
		}
		page <- string(text)
	}()
	j.end().want(t, 0)
	if text := await(t, "the page", page); !strings.Contains(text, "</html>") {
		t.Errorf("the pipe had %d bytes", len(text))
	}
	for _, path := range []string{pipe, os.DevNull} {
		if info, err := os.Stat(path); err != nil || info.Mode().IsRegular() {
			t.Errorf("%s has become %v, %v", path, info, err)
		}
	}
	wantFiles(t, dir, "pipe")
}

// What failed here, and not in the command line, ended with the status of wrong input.
func TestBenchThatCannotBeginHereFails(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(binary, append(tiny, "--rounds", "1")...)
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(t.TempDir(), "none"))
	o := beginCmd(t, cmd).end().want(t, 1)
	if o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "no such file or directory") {
		t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
	}
}

// wantFiles checks what is in a directory.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("in the directory are %q, %v; want %q", got, err, want)
	}
}

// A workload file with a comma in its name was taken for two workloads.
func TestACommaInTheNameOfAWorkloadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "echo,churn"), []byte("reponse: 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"-w echo,churn", `"reponse"`},
		{"-w echo -w echo,churn", `"reponse"`},
		{"-w churn,echo", "cannot write"},
		{"-w echo,knitting", `"knitting"`},
		{"-w churn -w knitting", `"knitting"`},
	} {
		cmd := exec.Command(binary, append([]string{"bench", "--json", "no/such.json"}, strings.Fields(c.args)...)...)
		cmd.Dir = dir
		if o := beginCmd(t, cmd).end().want(t, 2); !strings.Contains(o.stderr, c.want) {
			t.Errorf("%s: stderr %q, want %q", c.args, o.stderr, c.want)
		}
	}
}

// What was measured before an interrupt is written, and marked. A ^C is for all
// processes of the terminal: the server under measurement died of it, and what was
// measured of a dead server was a sample.
func TestAnInterruptedBenchWritesWhatItHas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sig   syscall.Signal
		times int
	}{{syscall.SIGTERM, 1}, {syscall.SIGHUP, 2}} { // of a terminal that is gone both the kernel and the shell tell
		json := filepath.Join(t.TempDir(), "a.json")
		cmd := exec.Command(binary, "bench", "--quick", "--engines", "goroutine,epoll", "--connections", "3", "--rounds", "1000", "--duration", "300ms", "--json", json)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		j := beginCmd(t, cmd)
		j.stderr.await(t, "round 2", 1)
		for range c.times {
			syscall.Kill(-j.cmd.Process.Pid, c.sig)
		}
		o := j.end().want(t, 1)
		if !strings.Contains(o.stderr, "partial") || strings.Contains(o.stderr, "NaN") {
			t.Errorf("%v: stderr %q", c.sig, o.stderr)
		}
		r, err := bench.ReadFile(json)
		if err != nil || !r.Partial || len(r.Samples) == 0 || len(r.Skipped) > 0 || len(r.Errors()) > 0 {
			t.Errorf("%v: the result: %+v, %v", c.sig, r, err)
		}
	}
}

// A ^C waited for the end of the sample, and one of many hours could not be ended
// but by a second one, which lost everything.
func TestAnInterruptEndsASample(t *testing.T) {
	t.Parallel()
	for name, remote := range map[string]bool{"here": false, "at an agent": true} {
		t.Run(name, func(t *testing.T) {
			args := []string{"bench", "--engines", "goroutine,epoll", "--connections", "3"}
			servers := func(j *job) []string { return children(j.cmd.Process.Pid) }
			if remote {
				a := beginAgent(t)
				servers = func(*job) []string { return a.pids() }
				args = append(args, "--remote", a.addr, "--token", a.token)
				defer func() {
					a.end().want(t, 0)
					a.awaitNone()
				}()
			}
			const good = "a report of yesterday"
			json, page := file(t, "a.json", good), file(t, "a.html", good)
			j := begin(t, append(args, "--duration", "3m", "--json", json, "--html", page)...)
			// A server that has worked for so long is in the sample.
			for end := time.Now().Add(patience); !slices.ContainsFunc(servers(j), func(pid string) bool { return cpuTime(pid) > 100*time.Millisecond }); {
				if time.Now().After(end) {
					t.Fatalf("no server works; stderr %q", j.stderr.text())
				}
				time.Sleep(5 * time.Millisecond)
			}
			j.cmd.Process.Signal(syscall.SIGINT)
			o := j.end().want(t, 1)
			if strings.Count(o.stderr, "interrupted") != 1 || o.took > time.Minute || o.stdout != "" {
				t.Errorf("after %v: stdout %q, stderr %q", o.took, o.stdout, o.stderr)
			}
			wantLeft(t, o, good, json, page)
		})
	}
}

// children are the child processes of one.
func children(pid int) (all []string) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range threads {
		b, _ := os.ReadFile(path)
		all = append(all, strings.Fields(string(b))...)
	}
	return all
}

// cpuTime is what a process has used so far, zero if it is gone.
func cpuTime(pid string) time.Duration {
	b, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11]) // in ticks of 10 ms
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// wantLeft checks that a run left files as they were, and said so.
func wantLeft(t *testing.T, o outcome, text string, files ...string) {
	t.Helper()
	for _, path := range files {
		if got, err := os.ReadFile(path); err != nil || string(got) != text || !strings.Contains(o.stderr, "couplet: "+path+" left as it was\n") {
			t.Errorf("%s is %.40q, %v; stderr %q", path, got, err, o.stderr)
		}
	}
}

// A run in which every sample failed replaced a good report by one of nothing.
func TestARunOfNothingLeavesAReport(t *testing.T) {
	t.Parallel()
	const good = "a report of yesterday"
	json, page := file(t, "a.json", good), file(t, "a.html", good)
	// Such a program is no server.
	o := couple(t, append(tinyOf("epoll@/bin/false,goroutine@/bin/false"), "--control=false", "--json", json, "--html", page)...).want(t, 1)
	if o.stdout != "" || !strings.Contains(o.stderr, "couplet: nothing could be measured") {
		t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
	}
	wantLeft(t, o, good, json, page)
}

// A run of which one engine gave no sample ended as if all were well.
func TestARunWithoutOneEngineFails(t *testing.T) {
	t.Parallel()
	o := couple(t, tinyOf("epoll@/bin/false,goroutine")...).want(t, 1)
	if !strings.Contains(o.stderr, "couplet: epoll@/bin/false could not be measured") {
		t.Errorf("stderr %q", o.stderr)
	}
}

func TestAblationTakesTheTiers(t *testing.T) {
	t.Parallel()
	if p := engines.Probe(); p.Uring.Tier != "U5" {
		t.Skip("the kernel's tier is", p.Uring.Tier)
	}
	o := couple(t, "bench", "--quick", "--ablate", "--connections", "3", "--rounds", "1", "--duration", "20ms").want(t, 0)
	for _, says := range []string{"uring ", "uring-u3", "uring-u2"} {
		if !strings.Contains(o.stdout, says) {
			t.Errorf("%q is not in the report:\n%s", says, o.stdout)
		}
	}
}
