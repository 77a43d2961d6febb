package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"couplet"
	"couplet/engines"
	"couplet/poetry"
)

// A server whose listening socket had failed stayed, served nobody, and ended with status 0.
func TestAServerWithoutAListenerEnds(t *testing.T) {
	t.Parallel()
	for _, engine := range working() {
		s := serve(t, "poem", "--engine", engine, "--delay", "50ms", "--num-bytes", "100")
		c := s.dial()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		shutListeners(t, s.cmd.Process.Pid)
		if got := readAll(t, c); got != poem("ozymandias")[1:] {
			t.Errorf("%s: %d bytes came of the poem under way", engine, len(got))
		}
		if status := s.end(); status != 1 || !strings.Contains(s.stderr.text(), "couplet: the listener has failed") {
			t.Errorf("%s: exit status %d\n%s", engine, status, s.stderr.text())
		}
	}
}

// shutListeners shuts the listening sockets of a process down.
func shutListeners(t *testing.T, pid int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(pidfd)
	shut := 0
	for fd := range 100 {
		own, err := unix.PidfdGetfd(pidfd, fd, 0)
		switch err {
		case nil:
		case unix.EBADF:
			continue
		default:
			t.Skip("another process's sockets are out of reach: ", err)
		}
		if on, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			unix.Shutdown(own, unix.SHUT_RD)
			shut++
		}
		unix.Close(own)
	}
	if shut == 0 {
		t.Fatal("there is no listening socket")
	}
}

// fullPipe is the end to write to of a pipe that is full, and that nobody reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	fd := int(w.Fd())
	unix.SetNonblock(fd, true)
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 1))
	}
	unix.SetNonblock(fd, false)
	return w
}

// Where nobody read what it says, a server could not be ended but by SIGKILL.
func TestAServerThatNobodyReadsEnds(t *testing.T) {
	t.Parallel()
	for _, stuck := range []string{"stdout", "stderr"} {
		w := fullPipe(t)
		port := freePort(t)
		cmd := exec.Command(binary, "serve", "poem", "--delay", "1h", "--drain-timeout", "20ms", "--port", port)
		if stuck == "stdout" {
			cmd.Stdout = w
		} else {
			cmd.Stderr = w
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		var c net.Conn
		var err error
		for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if c, err = net.Dial("tcp", "127.0.0.1:"+port); err == nil || time.Now().After(until) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", stuck, err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if !kill.Stop() || cmd.ProcessState.ExitCode() != 1 { // the poem was cut
			t.Errorf("nobody reads %s: %v", stuck, cmd.ProcessState)
		}
	}
}

// timeout(1) sends its signal twice, at once: the drain was over before it began.
func TestASignalThatComesTwiceDrains(t *testing.T) {
	for _, second := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		e, err := engines.Open("auto", couplet.Config{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := e.Listen("tcp", "127.0.0.1:0", poetry.Echo{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		echo := func() error {
			c.Write([]byte("x"))
			_, err := io.ReadFull(c, make([]byte, 1))
			return err
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		signals, done := make(chan os.Signal), make(chan error, 1)
		go func() {
			done <- (&serving{drainTimeout: duration(patience)}).drain(e, syscall.SIGTERM, patience, signals)
		}()
		signals <- second
		if second != syscall.SIGTERM {
			if err := <-done; err == nil {
				t.Error("a second signal cut nobody")
			}
			continue
		}
		for range 3 {
			if err := echo(); err != nil {
				t.Error("the same signal was a second one: ", err)
			}
		}
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Where nobody read what it prints, a fetch did not end by a signal, but by two.
func TestAFetchThatNobodyReadsEnds(t *testing.T) {
	t.Parallel()
	s := serve(t, "poem", "--delay", "1h")
	cmd := exec.Command(binary, "fetch", s.addr)
	cmd.Stdout = fullPipe(t)
	stderr := newNotebook()
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	s.stderr.await(t, "somebody wants poetry", 1)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if !kill.Stop() || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.text(), "nobody reads") {
		t.Errorf("%v\n%s", cmd.ProcessState, stderr.text())
	}
	s.signal(syscall.SIGKILL)
}
