package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pty runs the command on a terminal.
type pty struct {
	*job
	term   *terminal
	mu     sync.Mutex // guards term and raw
	raw    strings.Builder
	said   chan struct{} // a token whenever something was written
	master *os.File
	ended  chan struct{}
}

// onTerminal starts the command with a terminal for what it says on standard
// error, and of standard output too where all is set.
func onTerminal(t *testing.T, all bool, env []string, args ...string) *pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("there is no /dev/ptmx: ", err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		t.Skip("there are no pseudo terminals: ", err)
	}
	p := &pty{term: &terminal{rows: 30, cols: 100}, said: make(chan struct{}, 1), master: master, ended: make(chan struct{})}
	p.job = &job{t: t, cmd: exec.Command(binary, args...), stdout: newNotebook(), stderr: newNotebook(), began: time.Now()}
	p.cmd.Env = append(append(os.Environ(), "TERM=xterm", "NO_COLOR="), env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, p.stdout, slave
	if all {
		p.cmd.Stdout = slave
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = p.cmd.Start()
	slave.Close()
	if err != nil {
		master.Close()
		t.Fatal(err)
	}
	p.late = time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	go func() {
		defer close(p.ended)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.raw.Write(buf[:n])
			p.term.Write(buf[:n])
			p.mu.Unlock()
			select {
			case p.said <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

// await waits until the terminal shows s.
func (p *pty) await(s string) {
	p.t.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		now := strings.Join(p.term.shows(), "\n")
		p.mu.Unlock()
		if strings.Contains(now, s) {
			return
		}
		select {
		case <-p.said:
		case <-p.ended:
			p.t.Fatalf("it ended without %q on the terminal:\n%s", s, now)
		case <-late:
			p.t.Fatalf("no %q within %v on the terminal:\n%s", s, patience, now)
		}
	}
}

// end waits for the end; the outcome's stderr is what the terminal shows then.
func (p *pty) end() outcome {
	p.t.Helper()
	o := p.job.end()
	await(p.t, "the terminal's end", p.ended) // it has no more writers
	p.master.Close()
	if len(p.term.odd) > 0 {
		p.t.Errorf("the terminal was told %q", p.term.odd)
	}
	o.stderr = strings.Join(p.term.shows(), "\n")
	return o
}
