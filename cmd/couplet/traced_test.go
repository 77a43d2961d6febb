package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Seen from outside, neither engine leans on the other, nor on package net: the
// proactor moves its data through io_uring_enter alone, and the reactor opens no
// ring.
func TestSystemCallsAreTheEnginesOwn(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if o := couple(t, "doctor"); !regexp.MustCompile(`uring works`).MatchString(o.stdout) {
		t.Skip("io_uring does not work here")
	}
	for _, engine := range []struct {
		name      string
		must, not []string
	}{
		{"uring", []string{"io_uring_setup", "io_uring_enter"},
			[]string{"sendto", "sendmsg", "writev", "recvfrom", "recvmsg", "readv", "accept", "accept4"}},
		{"epoll", []string{"epoll_ctl", "recvfrom", "sendto", "accept4"},
			[]string{"io_uring_setup", "io_uring_enter", "io_uring_register"}},
	} {
		t.Run(engine.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "calls")
			calls := strings.Join(append(engine.must, engine.not...), ",")
			s := serveCmd(t, exec.Command("strace", "-f", "-o", log, "-e", "trace="+calls,
				binary, "serve", "echo", "--engine", engine.name))
			c := s.dial()
			for range 20 {
				io.WriteString(c, "ping")
				if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			// Each line begins with the number of a thread of the server.
			made, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(made), " ")
			thread, err := strconv.Atoi(first)
			if err != nil {
				t.Fatalf("strace wrote %q", made)
			}
			if err := syscall.Kill(thread, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if status := s.end(); status != 0 {
				t.Errorf("exit status %d: %s", status, s.stderr.text())
			}
			if made, err = os.ReadFile(log); err != nil {
				t.Fatal(err)
			}
			for _, call := range engine.must {
				if !strings.Contains(string(made), " "+call+"(") {
					t.Errorf("no %s was seen", call)
				}
			}
			for _, call := range engine.not {
				if i := strings.Index(string(made), " "+call+"("); i >= 0 {
					t.Errorf("%s was seen: %.80q", call, made[i:])
				}
			}
		})
	}
}

// While the kernel had no memory for entries, a loop of io_uring asked for nothing else,
// and gave up after a thousand times, which took a millisecond or two.
func TestAKernelWithoutMemoryIsLeftAlone(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if o := couple(t, "doctor"); !regexp.MustCompile(`uring works`).MatchString(o.stdout) {
		t.Skip("io_uring does not work here")
	}
	log := filepath.Join(t.TempDir(), "calls")
	s := serveCmd(t, exec.Command("strace", "-f", "-ttt", "-o", log, "-e", "trace=io_uring_enter",
		"-e", "inject=io_uring_enter:error=EAGAIN:when=20..220", binary, "serve", "echo", "--engine", "uring"))
	c := s.dial()
	for range 40 {
		io.WriteString(c, "ping")
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	made, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var at []float64
	thread := 0
	for line := range strings.Lines(string(made)) {
		if fields := strings.Fields(line); strings.Contains(line, "INJECTED") && len(fields) > 1 {
			thread, _ = strconv.Atoi(fields[0])
			seconds, _ := strconv.ParseFloat(fields[1], 64)
			at = append(at, seconds)
		}
	}
	if len(at) < 100 {
		t.Fatalf("%d calls were told EAGAIN", len(at))
	}
	if took := at[len(at)-1] - at[0]; took < float64(len(at)-1)/1000 {
		t.Errorf("%d calls in %.0f ms", len(at), 1000*took)
	}
	c.Close() // which the drain would wait for
	if err := syscall.Kill(thread, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := s.end(); status != 0 {
		t.Errorf("exit status %d: %s", status, s.stderr.text())
	}
}
