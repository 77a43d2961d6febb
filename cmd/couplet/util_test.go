package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/engines"
)

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// binary is the command under test, built once.
var binary string

func TestMain(m *testing.M) {
	if confined() {
		return // never: the process is the command now
	}
	if signal.Ignored(syscall.SIGHUP) { // these tests run under nohup: what they start is not to inherit it
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "couplet")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "couplet")
		// The race detector would sleep for a second at the end of each process.
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		build := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", binary, ".")...)
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot build the command:", err)
			return 1
		}
		return m.Run()
	}())
}

// outcome is what a run of the command left.
type outcome struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

// A job is a run of the command under way.
type job struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *notebook
	began          time.Time
	late           *time.Timer
}

// begin starts the command.
func begin(t *testing.T, args ...string) *job {
	t.Helper()
	return beginCmd(t, exec.Command(binary, args...))
}

func beginCmd(t *testing.T, cmd *exec.Cmd) *job {
	t.Helper()
	j := &job{t: t, cmd: cmd, stdout: newNotebook(), stderr: newNotebook(), began: time.Now()}
	if cmd.Stdout == nil {
		cmd.Stdout = j.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = j.stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	j.late = time.AfterFunc(patience, func() { cmd.Process.Kill() })
	return j
}

// end waits for the end.
func (j *job) end() outcome {
	j.t.Helper()
	j.cmd.Wait()
	if !j.late.Stop() {
		j.t.Errorf("%v took longer than %v", j.cmd.Args, patience)
	}
	return outcome{j.stdout.text(), j.stderr.text(), j.cmd.ProcessState.ExitCode(), time.Since(j.began)}
}

// couple runs the command to its end.
func couple(t *testing.T, args ...string) outcome {
	t.Helper()
	return begin(t, args...).end()
}

// want checks an exit status.
func (o outcome) want(t *testing.T, status int) outcome {
	t.Helper()
	if o.status != status {
		t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s", o.status, status, o.stdout, o.stderr)
	}
	return o
}

// A server is the command, serving.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	first  string // line on stdout
	addr   string // as fetch takes it
	stderr *notebook
	ended  chan struct{}
}

var firstLine = regexp.MustCompile(`^Serving (.+) on (?:port (\d+)|(.+))\.$`)

// serve starts a server and waits for its first line. Where the arguments name
// no engine, or no address, it is the default one.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	return serveCmd(t, exec.Command(binary, append([]string{"serve"}, args...)...))
}

func serveCmd(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, stderr: newNotebook(), ended: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = s.stderr
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		lines <- strings.TrimSuffix(line, "\n")
		io.Copy(io.Discard, r)
		cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		await(t, "the server's end", s.ended)
	})
	s.first = await(t, "the server's first line", lines)
	m := firstLine.FindStringSubmatch(s.first)
	if m == nil {
		await(t, "the server's end", s.ended)
		t.Fatalf("first line %q\nstderr: %s", s.first, s.stderr.text())
	}
	if s.addr = m[2]; m[3] != "" {
		s.addr = "unix:" + m[3]
	} else if strings.Contains(strings.Join(cmd.Args, " "), "::1") {
		s.addr = "[::1]:" + m[2]
	}
	return s
}

// signal sends one.
func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

// end waits for the server's end, and gives its exit status.
func (s *server) end() int {
	s.t.Helper()
	await(s.t, "the server's end", s.ended)
	return s.cmd.ProcessState.ExitCode()
}

// dial connects to the server as a blocking client.
func (s *server) dial() net.Conn {
	s.t.Helper()
	network, address := "tcp", s.addr
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	} else if !strings.Contains(address, ":") {
		address = "127.0.0.1:" + address
	}
	c, err := net.Dial(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// A notebook collects what is written, and tells when it says something.
type notebook struct {
	mu   sync.Mutex
	more sync.Cond
	b    bytes.Buffer
}

func newNotebook() *notebook {
	n := new(notebook)
	n.more.L = &n.mu
	return n
}

func (n *notebook) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.more.Broadcast()
	return n.b.Write(p)
}

func (n *notebook) text() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// await waits until the notebook says s, n times.
func (n *notebook) await(t *testing.T, s string, times int) {
	t.Helper()
	late := false
	timer := time.AfterFunc(patience, func() {
		n.mu.Lock()
		late = true
		n.mu.Unlock()
		n.more.Broadcast()
	})
	defer timer.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	for strings.Count(n.b.String(), s) < times {
		if late {
			t.Fatalf("no %q within %v in:\n%s", s, patience, n.b.String())
		}
		n.more.Wait()
	}
}

func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("no sign of %s within %v", what, patience)
	}
	return v
}

// working are the engines that work here.
var working = sync.OnceValue(func() []string {
	var list []string
	for _, name := range engines.Names() {
		if e, err := engines.Open(name, couplet.Config{}); err == nil {
			e.Shutdown(context.Background())
			list = append(list, name)
		}
	}
	return list
})

// blockingServer is a server as in the tutorial's first part: for each client
// it calls f, one at a time, and closes.
func blockingServer(t *testing.T, f func(c net.Conn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		await(t, "the blocking server's end", done)
	})
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// freePort is one that nobody listens on. The kernel gives it to nobody either, as it would one
// of those from 32768 on: then a server of another test had it, and served.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// readAll reads to a clean end.
func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("after %d bytes: %v; want a clean end", len(b), err)
	}
	return string(b)
}

// file writes a file for a test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// isReset reports whether err is a reset.
func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
