package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet/poetry"
)

func poem(name string) string {
	p, _ := poetry.Find(name)
	return p.Text
}

// serveIn is serve in another directory.
func serveIn(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"serve"}, args...)...)
	cmd.Dir = dir
	return serveCmd(t, cmd)
}

func TestFirstLines(t *testing.T) {
	t.Parallel()
	port, sock := freePort(t), t.TempDir()+"/poem"
	for _, c := range []struct{ args, want string }{
		{"poem --port " + port, "Serving ozymandias on port " + port + "."},
		{"poem The-Raven --unix " + sock, "Serving The-Raven on " + sock + "."},
		{"echo --port " + freePort(t), "Serving echo on port "},
		{"poem -q", "Serving ozymandias on port "},
	} {
		s := serve(t, strings.Fields(c.args)...)
		if !strings.HasPrefix(s.first, c.want) {
			t.Errorf("serve %s begins with %q, want %q", c.args, s.first, c.want)
		}
		s.signal(os.Interrupt)
		if status := s.end(); status != 0 {
			t.Errorf("interrupted, serve %s ended with %d\n%s", c.args, status, s.stderr.text())
		}
		line, _, _ := strings.Cut(s.stderr.text(), "\n")
		if quiet := strings.Contains(c.args, "-q"); quiet == strings.HasPrefix(line, "Engine ") {
			t.Errorf("serve %s: standard error begins with %q", c.args, line)
		}
	}
	if _, err := os.Stat(sock); err == nil {
		t.Error("the socket is still there")
	}
}

func TestEngineLineTellsEngineLoopsAndWhy(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		s := serve(t, "poem", "--engine", engine, "--loops", "2")
		s.signal(syscall.SIGTERM)
		s.end()
		line, _, _ := strings.Cut(s.stderr.text(), "\n")
		for _, want := range []string{"Engine " + engine + ": ", "loops", "2", "asked for"} {
			if !strings.Contains(line, want) {
				t.Errorf("engine line %q lacks %q", line, want)
			}
		}
	}
	s := serve(t, "poem")
	s.signal(syscall.SIGTERM)
	s.end()
	if line, _, _ := strings.Cut(s.stderr.text(), "\n"); !strings.Contains(line, "auto: ") {
		t.Errorf("engine line %q does not say why", line)
	}
}

func TestLogIsJSONIfAsked(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--fast", "--log-format", "json")
	readAll(t, s.dial())
	s.stderr.await(t, "poem sent", 1)
	s.signal(syscall.SIGTERM)
	s.end()
	seen := map[string]bool{}
	for line := range strings.Lines(s.stderr.text()) {
		var record struct{ Msg, Timeout string }
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if record.Msg == "draining" && record.Timeout != "10s" {
			t.Errorf("%q: want the timeout as 10s", line)
		}
		seen[record.Msg] = true
	}
	for _, msg := range []string{"engine", "somebody wants poetry", "poem sent", "draining"} {
		if !seen[msg] {
			t.Errorf("no %q in %v", msg, seen)
		}
	}
}

// A raw client, as in the tutorial's first part: connect, send nothing, read
// to the end.
func TestRawClientsOnEveryEngineAndNetwork(t *testing.T) {
	t.Parallel()
	want := poem("guanque-tower")
	for _, engine := range working() {
		for _, where := range [][]string{nil, {"--iface", "::1"}, {"--unix", t.TempDir() + "/poem"}} {
			args := append([]string{"poem", "guanque-tower", "--engine", engine, "--num-bytes", "10", "--delay", "0.002"}, where...)
			s := serve(t, args...)
			first, second := s.dial(), s.dial()
			io.WriteString(first, "a word that is not asked for")
			for _, c := range []net.Conn{first, second} {
				if got := readAll(t, c); got != want {
					t.Errorf("%v: got %q", args, got)
				}
			}
			s.signal(syscall.SIGTERM)
			if status := s.end(); status != 0 {
				t.Errorf("%v: exit status %d\n%s", args, status, s.stderr.text())
			}
		}
	}
}

func TestEchoOnEveryEngine(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		for args, want := range map[string]string{"echo": "Io, più\n", "echo --upper": "IO, PIù\n"} {
			c := serve(t, append(strings.Fields(args), "--engine", engine)...).dial()
			io.WriteString(c, "Io, più\n")
			c.(*net.TCPConn).CloseWrite()
			if got := readAll(t, c); got != want {
				t.Errorf("%s on %s: got %q, want %q", args, engine, got, want)
			}
		}
	}
}

func TestDrainingFinishesPoems(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		// A second hangup is no second signal, which would cut.
		for _, signals := range [][]os.Signal{{syscall.SIGTERM}, {syscall.SIGHUP, syscall.SIGHUP}} {
			s := serve(t, "poem", "--engine", engine, "--num-bytes", "100", "--delay", "20ms")
			c := s.dial()
			s.stderr.await(t, "somebody wants poetry", 1)
			for _, sig := range signals {
				s.signal(sig)
			}
			if got := readAll(t, c); got != poem("ozymandias") {
				t.Errorf("%s, %v: got %d bytes", engine, signals, len(got))
			}
			if status := s.end(); status != 0 {
				t.Errorf("%s, %v: exit status %d\n%s", engine, signals, status, s.stderr.text())
			}
		}
	}
}

// A server that drains echoes until its clients are done; who never closes is cut at
// the deadline.
func TestDrainingEchoGoesOn(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		s := serve(t, "echo", "--engine", engine)
		c := s.dial()
		echo := func() {
			io.WriteString(c, "a line\n")
			if _, err := io.ReadFull(c, make([]byte, len("a line\n"))); err != nil {
				t.Errorf("%s: %v", engine, err)
			}
		}
		echo()
		s.signal(syscall.SIGTERM)
		for { // until the server listens no more
			another, err := net.Dial("tcp", "127.0.0.1:"+s.addr)
			if err != nil {
				break
			}
			another.Close()
		}
		echo()
		c.(*net.TCPConn).CloseWrite()
		if rest := readAll(t, c); rest != "" {
			t.Errorf("%s: then %q", engine, rest)
		}
		if status := s.end(); status != 0 {
			t.Errorf("%s: exit status %d\n%s", engine, status, s.stderr.text())
		}

		s = serve(t, "echo", "--engine", engine, "--drain-timeout", "20ms")
		c = s.dial()
		echo()
		s.signal(syscall.SIGTERM)
		if n, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("%s: read %d, %v; want a reset", engine, n, err)
		}
		if status := s.end(); status != 1 || !strings.Contains(s.stderr.text(), "couplet: 1 connection was cut") {
			t.Errorf("%s: exit status %d\n%s", engine, status, s.stderr.text())
		}
	}
}

// What nohup has a server ignore it goes on to ignore.
func TestNohupServerOutlivesItsTerminal(t *testing.T) {
	t.Parallel()
	s := serveCmd(t, exec.Command("sh", "-c", `trap "" HUP; exec "$0" serve poem --fast`, binary))
	s.signal(syscall.SIGHUP)
	if got := readAll(t, s.dial()); got != poem("ozymandias") {
		t.Errorf("got %d bytes", len(got))
	}
	s.signal(syscall.SIGTERM)
	if status := s.end(); status != 0 || strings.Contains(s.stderr.text(), "hangup") {
		t.Errorf("exit status %d\n%s", status, s.stderr.text())
	}
}

// Cut by the drain's deadline, or by a second signal, a poem looks cut, and the
// exit status and a line say how many were.
func TestCutPoemsLookCut(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		for name, drain := range map[string]string{"deadline": "20ms", "second signal": "1h"} {
			s := serve(t, "poem", "--engine", engine, "--delay", "1h", "--drain-timeout", drain)
			a, b := s.dial(), s.dial()
			for _, c := range []net.Conn{a, b} {
				if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
			}
			s.signal(syscall.SIGTERM)
			if name == "second signal" {
				s.stderr.await(t, "draining", 1)
				s.signal(os.Interrupt)
			}
			for _, c := range []net.Conn{a, b} {
				if n, err := c.Read(make([]byte, 10)); !isReset(err) {
					t.Errorf("%s, %s: read %d, %v; want a reset", engine, name, n, err)
				}
			}
			if status := s.end(); status != 1 || !strings.Contains(s.stderr.text(), "couplet: 2 connections were cut") {
				t.Errorf("%s, %s: exit status %d\n%s", engine, name, status, s.stderr.text())
			}
		}
	}
}

// Whoever goes away from the log ends nothing: its next line was a SIGPIPE, and every
// poem was cut.
func TestServerOutlivesTheReaderOfItsOutput(t *testing.T) {
	t.Parallel()
	log, logEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "serve", "poem", "--num-bytes", "100", "--delay", "20ms")
	cmd.Stderr = logEnd
	s := serveCmd(t, cmd)
	logEnd.Close()
	c := s.dial()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	log.Close()
	for range 3 { // each is two lines of the log
		if got := readAll(t, s.dial()); got != poem("ozymandias") {
			t.Errorf("got %d bytes", len(got))
		}
	}
	if got := readAll(t, c); got != poem("ozymandias")[1:] {
		t.Errorf("got %d bytes", len(got))
	}
	s.signal(syscall.SIGTERM)
	if status := s.end(); status != 0 {
		t.Errorf("exit status %d, %v", status, cmd.ProcessState)
	}
}

// Whoever does not read the log holds up no client.
func TestUnreadLogHoldsUpNobody(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(binary, "serve", "poem", "--fast")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	s := serveCmd(t, cmd)
	w.Close()
	args := []string{"fetch", "-q"}
	for range 600 { // two lines each, of a hundred bytes or more: twice a pipe
		args = append(args, s.addr)
	}
	o := couple(t, args...).want(t, 0)
	if !strings.Contains(o.stdout, "Got 600 poems in ") {
		t.Errorf("%q", o.stdout[max(0, len(o.stdout)-200):])
	}
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if status := s.end(); status != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("exit status %d after %v", status, time.Since(began))
	}
}
