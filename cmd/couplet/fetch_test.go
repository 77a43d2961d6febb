package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServeAndFetchOnEveryEngineAndNetwork(t *testing.T) {
	t.Parallel()
	for _, from := range working() {
		var addrs []string
		for _, where := range [][]string{nil, {"--iface", "::1"}, {"--unix", t.TempDir() + "/poem"}} {
			s := serve(t, append([]string{"poem", "l-infinito", "--engine", from, "--num-bytes", "200", "--delay", "2ms"}, where...)...)
			addrs = append(addrs, s.addr)
		}
		for _, to := range working() {
			o := couple(t, append([]string{"fetch", "--engine", to, "--print"}, addrs...)...).want(t, 0)
			if want := strings.Repeat(poem("l-infinito"), 3); o.stdout != want {
				t.Errorf("%s to %s: got %d bytes, want %d", from, to, len(o.stdout), len(want))
			}
			if !strings.Contains(o.stderr, "Got 3 poems in 0:00:0") {
				t.Errorf("%s to %s: %s", from, to, o.stderr)
			}
		}
	}
}

var (
	arrival = regexp.MustCompile(`^Task (\d+): got \d+ bytes of poetry from 127\.0\.0\.1:\d+$`)
	lastOne = regexp.MustCompile(`^Got 3 poems in \d:\d\d:\d\d\.\d{6}$`)
)

// The lines are the tutorial's, and the arrivals of the three poems are
// interleaved: the total time alone would prove nothing.
func TestThreeSlowPoemsAtOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		var addrs []string
		for _, n := range []string{"60", "50", "40"} {
			addrs = append(addrs, serve(t, "poem", "--engine", engine, "--num-bytes", n, "--delay", "10ms").addr)
		}
		o := couple(t, append([]string{"fetch", "--engine", engine}, addrs...)...).want(t, 0)
		lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
		var order []string
		for _, line := range lines {
			if m := arrival.FindStringSubmatch(line); m != nil {
				order = append(order, m[1])
			}
		}
		if turns := len(slices.Compact(slices.Clone(order))) - 1; turns < 10 {
			t.Errorf("%s: the arrivals change between poems %d times: %v", engine, turns, order)
		}
		for _, want := range []string{"Task 1 finished", "Task 1: 628 bytes of poetry", "Task 2: 628 bytes of poetry", "Task 3: 628 bytes of poetry"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: no line %q in:\n%s", engine, want, o.stdout)
			}
		}
		if last := lines[len(lines)-1]; !lastOne.MatchString(last) {
			t.Errorf("%s: last line %q", engine, last)
		}
	}
}

func TestSequentialIsOneByOne(t *testing.T) {
	t.Parallel()
	a, b := serve(t, "poem", "--num-bytes", "200", "--delay", "2ms"), serve(t, "poem", "tyger", "--fast")
	o := couple(t, "fetch", "--sequential", a.addr, b.addr).want(t, 0)
	var order []string
	for line := range strings.Lines(o.stdout) {
		if m := arrival.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			order = append(order, m[1])
		}
	}
	if got := slices.Compact(order); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("order %v", got)
	}
	for _, want := range []string{
		"Task 1: get poetry from: 127.0.0.1:" + a.addr + "\n",
		"Task 2: got 779 bytes of poetry from 127.0.0.1:" + b.addr + " in 0:00:",
		"Got 2 poems in 0:00:",
	} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %q in:\n%s", want, o.stdout)
		}
	}
}

// The original servers send and sleep, one client at a time, and cut characters
// in two.
func TestFetchFromABlockingServer(t *testing.T) {
	t.Parallel()
	want := poem("guanque-tower")
	port := blockingServer(t, func(c net.Conn) {
		for rest := want; rest != ""; rest = rest[min(10, len(rest)):] {
			c.Write([]byte(rest[:min(10, len(rest))]))
			time.Sleep(time.Millisecond)
		}
	})
	for _, engine := range working() {
		o := couple(t, "fetch", "--print", "--engine", engine, port, "localhost:"+port, ":"+port).want(t, 0)
		if o.stdout != want+want+want {
			t.Errorf("%s: got %q", engine, o.stdout)
		}
	}
}

func TestOneFailureDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--num-bytes", "200", "--delay", "2ms")
	for _, engine := range working() {
		for _, flags := range []string{"", "--sequential"} {
			args := append([]string{"fetch", "--engine", engine, "--print"}, strings.Fields(flags)...)
			o := couple(t, append(args, s.addr, freePort(t), "unix:/no/such", s.addr)...).want(t, 1)
			if o.stdout != poem("ozymandias")+poem("ozymandias") {
				t.Errorf("%v: got %d bytes", args, len(o.stdout))
			}
			for _, want := range []string{"Task 2: failed: ", "connection refused; is a server there? couplet serve poem --port ", "Task 3: failed: ", "no such file", "Got 2 of 4 poems in "} {
				if !strings.Contains(o.stderr, want) {
					t.Errorf("%v: no %q in:\n%s", args, want, o.stderr)
				}
			}
		}
	}
}

// A killed server's poem is not taken for a whole one.
func TestKilledServerIsAFailure(t *testing.T) {
	t.Parallel()
	for _, from := range working() {
		for _, to := range working() {
			s := serve(t, "poem", "--engine", from, "--delay", "1h")
			f := begin(t, "fetch", "--engine", to, s.addr)
			f.stdout.await(t, "got 10 bytes", 1)
			s.signal(os.Kill)
			o := f.end().want(t, 1)
			if !strings.Contains(o.stderr, "Task 1: failed: cut short after 10 bytes: ") || !strings.Contains(o.stdout, "Got 0 of 1 poems") {
				t.Errorf("%s to %s: %s%s", from, to, o.stderr, o.stdout)
			}
		}
	}
}

func TestCutServerIsAFailure(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--delay", "1h", "--drain-timeout", "10ms")
	f := begin(t, "fetch", s.addr)
	f.stdout.await(t, "got 10 bytes", 1)
	s.signal(syscall.SIGTERM)
	if o := f.end().want(t, 1); !strings.Contains(o.stderr, "cut short after 10 bytes") {
		t.Error(o.stderr)
	}
	if status := s.end(); status != 1 {
		t.Errorf("the server's exit status is %d", status)
	}
}

func TestInterruptedFetchIsAFailure(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--delay", "1h")
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		f := begin(t, "fetch", s.addr, s.addr)
		f.stdout.await(t, "got 10 bytes", 2)
		f.cmd.Process.Signal(sig)
		if o := f.end().want(t, 1); strings.Count(o.stderr, "cut short after 10 bytes: interrupted") != 2 {
			t.Errorf("%v: %s", sig, o.stderr)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--delay", "1h")
	for _, engine := range working() {
		o := couple(t, "fetch", "--engine", engine, "--timeout", "0.05", s.addr).want(t, 1)
		if !strings.Contains(o.stderr, "Task 1: failed: cut short after 10 bytes: no whole poem within 50ms") {
			t.Errorf("%s: %s", engine, o.stderr)
		}
	}
}

func TestJSONAndOutput(t *testing.T) {
	t.Parallel()
	s, dir := serve(t, "poem", "--fast"), filepath.Join(t.TempDir(), "new", "poems")
	slow := serve(t, "poem", "--delay", "1h")
	o := couple(t, "fetch", "--json", "--timeout", "200ms", "--output", dir, s.addr, slow.addr).want(t, 1)
	var got fetchSummary
	if err := json.Unmarshal([]byte(o.stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, o.stdout)
	}
	if got.Got != 1 || got.Of != 2 || got.Seconds <= 0 || got.Engine == "" || got.Tasks[0].Bytes != 628 ||
		got.Tasks[0].SHA256 != "85a2cf4b69b61d98853de9e70e31da78278d8d29b5002d33d768c0c825ee03ff" || got.Tasks[1].Error == "" {
		t.Errorf("%+v", got)
	}
	files, _ := filepath.Glob(dir + "/*")
	if want := []string{dir + "/1-127.0.0.1-" + s.addr + ".txt"}; !slices.Equal(files, want) {
		t.Fatalf("files %v, want %v", files, want)
	}
	if text, _ := os.ReadFile(files[0]); string(text) != poem("ozymandias") {
		t.Errorf("the file has %d bytes", len(text))
	}
}

// A fetch of nothing made the directory for its poems.
func TestNoPoemNoDirectory(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	couple(t, "fetch", "--output", filepath.Join(top, "new", "poems"), freePort(t)).want(t, 1)
	if left, err := os.ReadDir(top); err != nil || len(left) > 0 {
		t.Errorf("there is %v, %v", left, err)
	}
}

func TestQuietFetchSaysWhatMatters(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--fast")
	o := couple(t, "fetch", "-q", "--engine", "goroutine", s.addr).want(t, 0)
	if !regexp.MustCompile(`^Task 1: 628 bytes of poetry\nGot 1 poems in \S+\n$`).MatchString(o.stdout) || o.stderr != "" {
		t.Errorf("stdout %q, stderr %q", o.stdout, o.stderr)
	}
}

// With the first poem that could not be written all after it were lost, and the outcome.
func TestAPoemThatCannotBeWrittenCostsNoOther(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--fast")
	dir := t.TempDir()
	name := func(task int) string { return filepath.Join(dir, fmt.Sprintf("%d-127.0.0.1-%s.txt", task, s.addr)) }
	if err := os.Mkdir(name(1), 0o777); err != nil {
		t.Fatal(err)
	}
	o := couple(t, "fetch", "-q", "--json", "--output", dir, s.addr, s.addr, s.addr).want(t, 1)
	for task := 2; task <= 3; task++ {
		if text, err := os.ReadFile(name(task)); err != nil || string(text) != poem("ozymandias") {
			t.Errorf("poem %d: %d bytes, %v", task, len(text), err)
		}
	}
	if got := (fetchSummary{}); json.Unmarshal([]byte(o.stdout), &got) != nil || got.Got != 3 {
		t.Errorf("the outcome is %q", o.stdout)
	}
	if want := name(1) + " cannot be written: "; !strings.Contains(o.stderr, want) || !strings.Contains(o.stderr, "--output") {
		t.Errorf("it says %q, not %q", o.stderr, want)
	}
}

// A poem's file was for everybody to read, whatever the umask said.
func TestAPoemsFileObeysTheUmask(t *testing.T) {
	t.Parallel()
	s, dir := serve(t, "poem", "--fast"), t.TempDir()
	beginCmd(t, exec.Command("sh", "-c", `umask 027; exec "$0" "$@"`, binary, "fetch", "-q", "--output", dir, s.addr)).end().want(t, 0)
	info, err := os.Stat(filepath.Join(dir, "1-127.0.0.1-"+s.addr+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode(); mode != 0o640 {
		t.Errorf("its mode is %v", mode)
	}
}

// Who fetches from a unix socket that is not there was not told how to start its server.
func TestAMissingUnixServerHasARemedy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	o := couple(t, "fetch", "-q", "unix:"+path).want(t, 1)
	if want := "couplet serve poem --unix " + path; !strings.Contains(o.stderr, want) {
		t.Errorf("it says %q, and not %q", o.stderr, want)
	}
}
