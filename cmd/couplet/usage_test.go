package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"couplet/engines"
)

// What is wrong with a command line is said in one line, which names the value
// and what would be right, and once who says it; the exit status is 2.
func TestBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	binaryFile := file(t, "binary", "ab\xff\xfe")
	plain := file(t, "plain", "text")
	old, strange := file(t, "old.json", `{"version": 99}`), file(t, "empty.json", "{}")
	dir := t.TempDir()
	sock := dir + "/taken"
	served, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	load := file(t, "load.yaml", "request: 200\nresponse: 512\nthink: 10ms\n")
	deep := file(t, "deep.yaml", "request: 200\nresponse: 512\ndepth: 2\n")
	misspelt := file(t, "misspelt.yaml", "request: 200\n\nreponse: 512\n")
	unit := file(t, "unit.yaml", "request: 4KB\nresponse: 512\n")
	tab := file(t, "tab.yaml", "request: 200\n\tresponse: 512\n")
	nothing := file(t, "nothing.json", `{"version": 1}`)
	long := file(t, "long.yaml", strings.Repeat("a", 50_000)+"\n")
	longKey := file(t, "key.yaml", strings.Repeat("a", 500)+": 1\n")
	empty := file(t, "empty.yaml", "")
	torn := file(t, "torn.yaml", "request: [200\n")

	for _, c := range []struct {
		args string
		says []string
	}{
		{"recite", []string{`"recite"`}},
		{"fech 10000", []string{`"fech"`, "; Did you mean this? fetch"}},
		{"--verbose", []string{"--verbose", "couplet --help"}},
		{"fetch --fast 1", []string{"--fast", "couplet fetch --help"}},
		{"doctor --engine turbo", []string{`"turbo"`, "--engine", "auto", "goroutine"}},
		{"fetch --engine= 1", []string{`""`, "auto"}},
		{"doctor --log-format xml", []string{`"xml"`, "text or json"}},
		{"doctor all", []string{`doctor takes no arguments; got "all"`}},
		{"doctor --engine epoll", []string{"--engine", "leave it out"}},
		{"version 1", []string{`version takes no arguments; got "1"`}},
		{"demo fast", []string{`demo takes no arguments; got "fast"`}},
		{"help nosuch", []string{`"nosuch"`, "couplet --help"}},
		{"help bench nosuch", []string{`"bench nosuch"`, "couplet --help"}},
		{"completion bash x", []string{`"x"`}},
		{"completion tcsh", []string{`"tcsh"`}},

		{"serve", []string{"poem or echo"}},
		{"serve transform", []string{`"transform"`, "poem or echo"}},
		{"serve poem a b", []string{"serve poem takes one poem", `"b"`, "ozymandias"}},
		{"serve poem --fast --delay 3s", []string{"--fast", "leave out --delay"}},
		{"serve poem --fast --num-bytes 3", []string{"--fast", "leave out --num-bytes"}},
		{"serve echo a", []string{`serve echo takes no arguments; got "a"`}},
		{"serve poem no-such-poem", []string{`"no-such-poem"`, "ozymandias"}},
		{"serve poem " + dir, []string{dir, "directory", "want a text file"}},
		{"serve poem " + binaryFile, []string{binaryFile, "byte 2", "UTF-8"}},
		{"serve poem --num-bytes 0", []string{`"0"`, "--num-bytes", "1 or more"}},
		{"serve poem --num-bytes ten", []string{`"ten"`, "1 or more"}},
		{"serve poem --delay soon", []string{`"soon"`, "100ms", "0.1"}},
		{"serve poem --delay -1", []string{`"-1"`, "not negative"}},
		{"serve poem --delay=-0.5", []string{`"-0.5"`, "not negative"}},
		{"serve poem --delay NaN", []string{`"NaN"`, "100ms"}},
		{"serve poem --delay 1e99", []string{`"1e99"`, "100ms"}},
		{"serve poem --port 65536", []string{`"65536"`, "from 0 to 65535"}},
		{"serve poem --port http", []string{`"http"`, "from 0 to 65535"}},
		{"serve poem --loops 0", []string{`"0"`, "from 1 to 256"}},
		{"serve poem --max-conns -1", []string{`"-1"`, "from 0"}},
		{"serve poem --drain-timeout x", []string{`"x"`, "10"}},
		{"serve echo --idle-timeout x", []string{`"x"`}},
		{"serve echo --num-bytes 3", []string{"--num-bytes"}},
		{"serve poem --unix /tmp/x --port 1", []string{"--unix", "--port"}},
		{"serve poem --unix=", []string{"--unix is empty", "leave it out"}},
		{"serve echo --iface=", []string{"--iface is empty"}}, // it listened on every address
		{"trace --html=", []string{"--html is empty"}},        // it wrote none, and so did these
		{"bench --json=", []string{"--json is empty"}},
		{"fetch --output= 1", []string{"--output is empty"}},
		{"serve echo --port 0 --iface [::1]", []string{`"[::1]"`, "without brackets"}},
		{"serve poem --port " + port, []string{port, "in use", "--port"}},
		{"serve poem --iface no.such.invalid", []string{`"no.such.invalid"`, "choose another --iface"}},
		{"serve poem --iface 192.0.2.1", []string{"192.0.2.1", "address of this machine"}},
		{"serve poem --unix " + plain, []string{plain + " exists and is not a socket", "choose another --unix"}},
		{"serve poem --unix " + dir, []string{dir + " exists and is not a socket", "choose another --unix"}},
		{"serve poem --unix " + sock, []string{sock + " is in use", "choose another --unix"}},
		{"serve poem --unix " + dir + "/no/such", []string{dir + "/no/such", "--unix"}},

		{"fetch", []string{"PORT", "HOST:PORT", "unix:/PATH"}},
		{"fetch 1 host", []string{`"host"`, "not a number", "HOST:PORT"}},
		{"fetch 70000", []string{`"70000"`, "from 1 to 65535"}},
		{"fetch ::1:80", []string{`"::1:80"`, "brackets"}},
		{"fetch unix:", []string{`"unix:"`, "path"}},
		{"fetch --timeout never 1", []string{`"never"`, "100ms"}},
		{"fetch --print --json 1", []string{"--json and --print are two things; use one of them"}},
		{"bench x", []string{`"x"`, "compare or agent", "--workload"}},
		{"bench --workload /dev/null", []string{"/dev/null", "no regular file"}},
		{"bench --workload knitting", []string{`"knitting"`, "slow-poems"}},
		{"bench --workload custom", []string{`"custom"`, "want a file", "slow-poems"}},
		{"bench --workload no/such.yaml", []string{`"no/such.yaml"`, "no file", "slow-poems"}},
		{"bench --workload " + dir, []string{dir, "directory", "want a workload file"}},
		{"bench --workload " + binaryFile, []string{binaryFile, "UTF-8", "YAML"}},
		{"bench --workload " + plain, []string{plain + ":1", `"text"`, "request", "lifetime"}},
		{"bench --workload " + empty, []string{empty, "empty", "request: 200"}},
		{"bench --workload " + torn, []string{torn + ":1", "not YAML"}},
		{"bench --workload " + tab, []string{tab + ":2", "not YAML", "indent with spaces"}},
		{"bench --workload " + misspelt, []string{misspelt + ":3", `"reponse"`, "response"}},
		{"bench --workload " + unit, []string{unit + ":1", `"4KB"`, "4KiB"}},
		{"bench --workload " + load + " --size 64", []string{load, "size", "request and response"}},
		{"bench --workload " + load + " --rate 50", []string{load, "rate", "think"}},
		{"bench --workload " + deep + " --rate 50", []string{deep, "rate", "depth"}},
		{"bench --engines uring", []string{`"uring"`, "uring,epoll"}},
		{"bench --engines uring,turbo", []string{`no engine "turbo"`, "gnet"}},
		{"bench --engines turbo", []string{`no engine "turbo"`, "uring", "epoll", "gnet"}},
		{"bench --engines=", []string{`--engines is ""`, "uring,epoll"}},
		{"bench --engines uring,uring", []string{"twice", "uring/2"}},
		{"bench --workload echo,pipelined --depth 16", []string{"--workload pipelined", "measured already", "name it once"}},
		{"bench --engines epoll,goroutine --workload slow-poems --size 65521 --duration 1m", []string{"over after 51", "smaller chunks", "shorter duration"}},
		{"bench --peers gnet --workload " + load, []string{"gnet does not serve load, 64 connections, #", "leave it out", "such as echo"}},
		{"bench --peers netpoll --workload slow-poems,broadcast", []string{"netpoll does not serve poems 1000 x 10 B", "broadcast 64 x 64 B", "leave it out"}},
		{"bench --engines uring,epoll,uring-x2 --workload broadcast", []string{"uring-x2 does not serve broadcast", "leave it out"}},
		{"bench --engine uring", []string{"--engines"}},
		{"bench --ablate --engines uring,epoll", []string{"--ablate", "--engines"}},
		{"bench --duration 100000h", []string{`"100000h"`, "--duration", "from 10ms to 10m;"}}, // it should take about 0 s
		{"bench --duration 1ns", []string{`"1ns"`, "from 10ms to 10m;"}},
		{"bench --duration 0", []string{`"0"`, "from 10ms to 10m;"}},
		{"bench --duration=-1s", []string{`"-1s"`, "not negative"}},
		{"bench --rounds 0", []string{`"0"`, "--rounds"}},
		{"bench --rate -1", []string{"--rate", `"-1"`, "messages per second, from 0"}},
		{"bench --rate abc", []string{"--rate", `"abc"`, "messages per second, from 0"}},
		{"bench --rate NaN", []string{"--rate", `"NaN"`, "100 million"}},
		{"bench --rate 1e9", []string{"--rate", `"1e9"`, "100 million"}},
		{"bench --seed -1", []string{"--seed", `"-1"`, "want a whole number, 0 or more"}},
		{"bench --seed abc", []string{"--seed", `"abc"`, "want a whole number, 0 or more"}},
		{"bench --quick=often", []string{"--quick", `"often"`, "want true or false", "couplet bench --help"}},
		{"serve echo -q=often", []string{"--quiet", `"often"`, "want true or false"}},
		{"bench --workload churn --rate 5", []string{"churn", "rate"}},
		{"bench --workload churn --depth 4", []string{"churn", "depth is for echo"}}, // it did nothing, and so did these
		{"bench --workload echo,slow-poems --depth 4", []string{"slow-poems", "depth is for echo"}},
		{"bench --workload stream --depth 4", []string{"stream", "depth is for echo"}},
		{"bench --workload stream --size 100", []string{"stream", "leave --size out"}},
		{"bench --json " + dir, []string{dir, "directory"}},
		{"bench --html " + dir + "/no/such", []string{dir + "/no/such", "cannot write", "want a file in a directory"}},
		{"bench compare " + dir + "/no " + plain, []string{dir + "/no", "couplet bench --json"}},
		{"bench compare " + nothing + " " + nothing, []string{nothing + " has no samples", "measure again"}},
		{"bench --workload " + long, []string{long + ":1", `"aaa`, `a"...; want`}},
		{"bench --workload " + longKey, []string{longKey + ":1", `a"...; want`}},
		{"bench compare a.json", []string{"A.json B.json"}},
		{"bench --workload=", []string{"--workload", "echo"}},
		{"bench --depth 4 --rate 100", []string{"a rate", "no depth"}},
		{"bench --workload pipelined --rate 100", []string{"pipelined", "no depth"}},
		{"bench --json " + dir + "/a --html " + dir + "/../" + filepath.Base(dir) + "/a", []string{"--json and --html are both"}}, // one was lost
		{"trace --json ./same --html same", []string{"--json and --html", "same"}},
		{"bench --json same --html same", []string{"--json and --html", "same"}},
		{"bench --token 00", []string{"--token", "--remote HOST:PORT"}},
		{"bench --remote 10.0.0.1:7070", []string{"--token", "COUPLET_BENCH_TOKEN"}},
		{"bench --remote unix:/tmp/x --token 00", []string{"unix:/tmp/x", "HOST:PORT"}},
		{"bench --remote 10.0.0.1 --token 00", []string{`"10.0.0.1"`, "HOST:PORT"}},
		{"bench --remote [fe80::1]:7070 --token 00", []string{`"[fe80::1]:7070"`, "link-local", "[fe80::1%eth0]:7070"}},
		{"bench --remote [fe80::1%none7]:7070 --token 00", []string{"%none7", "this machine's interface"}},
		{"bench agent --listen [fe80::1]:7070", []string{"--listen", "link-local", "[fe80::1%eth0]:7070"}},
		{"bench --remote 10.0.0.1:7070 --token 00 --peers gnet", []string{"gnet", "couplet's own engines"}},
		{"bench --remote 10.0.0.1:7070 --token 00 --engines uring,net", []string{`"net"`, "goroutine"}},
		{"bench --remote 10.0.0.1:7070 --token 00 --engines uring,epoll@/bin/sh", []string{"epoll@", "goroutine"}},
		{"bench agent 7070", []string{`bench agent takes no arguments; got "7070"`}},
		{"bench agent --listen 127.0.0.1:" + port, []string{port, "in use"}},
		{"bench agent --listen 192.0.2.1:0", []string{"192.0.2.1", "address of this machine"}},
		{"bench agent --listen 192.168.1.5", []string{`"192.168.1.5"`, "HOST:PORT"}},
		{"bench agent --listen 127.0.0.1:70000", []string{"70000", "from 0 to 65535"}},
		{"bench agent --time-limit 0", []string{"--time-limit", "second"}},
		{"bench agent --cpu 5000", []string{"--cpu", "5000"}},
		{"bench agent --server-port " + port, []string{port, "in use", "choose another"}},
		{"bench agent --server-port -1", []string{"--server-port", "65535"}},
		{"bench agent --engine uring", []string{"--engine"}},
		{"bench compare " + plain + " " + plain, []string{plain, "no report of couplet bench"}},
		{"bench compare " + strange + " " + strange, []string{strange, "no report of couplet bench"}},
		{"bench compare " + old + " " + old, []string{old, "version 99", "measure again"}},

		{"fetch --output " + plain + " 1", []string{plain, "directory"}},
	} {
		o := couple(t, strings.Fields(c.args)...)
		if o.status != 2 || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "couplet: ") {
			t.Errorf("couplet %s: status %d, stdout %q, stderr %q; want 2 and one line", c.args, o.status, o.stdout, o.stderr)
		}
		if prefix := regexp.MustCompile(`\b(bench|poetry|strconv[.\w]*): |: couplet: `); prefix.MatchString(o.stderr) {
			t.Errorf("couplet %s says %q, in which %q is the program's own affair", c.args, o.stderr, prefix.FindString(o.stderr))
		}
		if len(o.stderr) > 600 {
			t.Errorf("couplet %s says too much: %q", c.args, o.stderr)
		}
		for _, says := range c.says {
			if !strings.Contains(o.stderr, says) {
				t.Errorf("couplet %s says %q; want %q in it", c.args, o.stderr, says)
			}
		}
	}
}

// What could not be printed was lost with exit status 0.
func TestLostOutputIsAFailure(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	all := []string{
		"doctor", "doctor --json", "version", "--version", "demo --fast", "demo --fast --json",
		"--help", "help fetch", "bench --help", "completion bash", "fetch --print " + serve(t, "poem", "--fast").addr,
	}
	if slices.Contains(working(), engines.Uring) {
		all = append(all, "trace")
	}
	for _, args := range all {
		cmd := exec.Command(binary, strings.Fields(args)...)
		cmd.Stdout = full
		o := beginCmd(t, cmd).end().want(t, 1)
		if want := "couplet: write /dev/stdout: no space left on device; what was to be printed is lost, print it elsewhere\n"; !strings.HasSuffix(o.stderr, want) || strings.Count(o.stderr, "no space left") != 1 {
			t.Errorf("couplet %s: stderr %q", args, o.stderr)
		}
	}
}

func TestUnbuiltEnginesAreNamedAsSuch(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"poll", "select", "blocking", "process"} {
		if engines.Check(name) == nil {
			continue
		}
		for _, cmd := range []string{"serve poem", "serve echo", "fetch 1", "demo"} {
			o := couple(t, append(strings.Fields(cmd), "--engine", name)...).want(t, 2)
			for _, there := range append(engines.Names(), engines.Auto, name) {
				if !strings.Contains(o.stderr, there) {
					t.Errorf("%q does not name %s", o.stderr, there)
				}
			}
		}
	}
}

func TestVersionHelpAndCompletion(t *testing.T) {
	t.Parallel()
	v := couple(t, "version").want(t, 0)
	if flag := couple(t, "--version").want(t, 0); flag.stdout != v.stdout || !strings.Contains(v.stdout, "io_uring binding: "+engines.Binding) {
		t.Errorf("version says %q, --version %q", v.stdout, flag.stdout)
	}
	for _, args := range []string{"", "--help", "help", "serve --help", "serve poem -h", "fetch --help", "help demo", "completion --help"} {
		if o := couple(t, strings.Fields(args)...).want(t, 0); !strings.Contains(o.stdout, "Usage:") || o.stderr != "" {
			t.Errorf("couplet %s: stdout %q, stderr %q", args, o.stdout, o.stderr)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if o := couple(t, "completion", shell).want(t, 0); !strings.Contains(o.stdout, "couplet") {
			t.Errorf("no completion for %s", shell)
		}
	}
	if o := couple(t, "__complete", "serve", "poem", "the-r").want(t, 0); !strings.Contains(o.stdout, "the-raven") {
		t.Errorf("the poems are not completed: %q", o.stdout)
	}
}

// The help said "(default 0s)" beside "1s by default".
func TestHelpTellsOneDefault(t *testing.T) {
	t.Parallel()
	o := couple(t, "bench", "--help").want(t, 0)
	for line := range strings.Lines(o.stdout) {
		if strings.Contains(line, "by default") && strings.Contains(line, "(default ") || strings.Contains(line, "(default 0") {
			t.Errorf("the help says %q", line)
		}
	}
}

func TestFileWinsOverName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/raven", []byte("not by Poe"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serveIn(t, dir, "poem", "raven", "--fast")
	if got := readAll(t, s.dial()); got != "not by Poe" {
		t.Errorf("got %q", got)
	}
}
