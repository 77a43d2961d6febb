package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a server that speaks the control protocol.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports chan Report
	ready   Report
	errors  tail
}

// start runs argv on one CPU, or on any if that is negative, and waits until it
// listens. The end of ctx kills it.
func start(ctx context.Context, argv []string, cpu, procs int) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), reports: make(chan Report)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	p.cmd.Stderr = &p.errors
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(p.cmd, cpu); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.reports)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r Report
			if json.Unmarshal(lines.Bytes(), &r) == nil {
				p.reports <- r
			}
		}
	}()
	if p.ready, err = p.next(); err == nil && p.ready.Port == 0 {
		err = errors.New("it told no port")
	}
	if err != nil {
		p.stop()
		p.awaitSignal(ctx)
		return nil, fmt.Errorf("%s did not start: %w%s", argv[0], err, p.errors.text())
	}
	return p, nil
}

// awaitSignal waits a moment for the end of ctx if a signal ended the process: one for all
// of the terminal's processes also reaches one that is not yet in a group of its own.
func (p *process) awaitSignal(ctx context.Context) {
	if w, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() && w.Signal() != syscall.SIGKILL {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (p *process) next() (Report, error) {
	select {
	case r, ok := <-p.reports:
		if !ok {
			return r, errors.New("the server ended")
		}
		return r, nil
	case <-time.After(20 * time.Second):
		return Report{}, errors.New("the server did not answer within 20 s")
	}
}

// ask sends a line and returns the report that answers it.
func (p *process) ask(line string) (Report, error) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return Report{}, fmt.Errorf("the server: %w%s", err, p.errors.text())
	}
	return p.next()
}

// used asks the kernel for the CPU-time clock of the process, whose id is made as the
// kernel's headers do.
func (p *process) used() (time.Duration, error) {
	const sched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|sched), &t); err != nil {
		return 0, fmt.Errorf("the CPU time of the server: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

func (p *process) address() netip.AddrPort {
	return netip.AddrPortFrom(loopback, uint16(p.ready.Port))
}

func (p *process) engine() string { return p.ready.Engine }
func (p *process) said() string   { return p.errors.text() }

// stop ends the process by the end of its input, or else by force.
func (p *process) stop() error {
	p.in.Close()
	force := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	defer force.Stop()
	for range p.reports {
	}
	p.cmd.Wait()
	return nil
}

// allowed are the CPUs that this process had when it began; Pin leaves it one.
var allowed = func() (set unix.CPUSet) {
	unix.SchedGetaffinity(0, &set)
	return set
}()

// places are where the server and the generator are pinned if nobody says where.
var places = sync.OnceValues(func() (server, generator int) { return apart(allowed, coreOf) })

// apart is a CPU of those that may be had for the server, and one for the generator: of another core, or
// else another of the same core, or else the same.
func apart(may unix.CPUSet, core func(cpu int) string) (server, generator int) {
	var all []int
	for cpu := 0; len(all) < may.Count(); cpu++ {
		if may.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	if len(all) == 0 { // it could not be asked for
		return 0, 0
	}
	for _, cpu := range all[1:] {
		if core(cpu) != core(all[0]) {
			return all[0], cpu
		}
	}
	return all[0], all[min(1, len(all)-1)]
}

// coreOf tells the core of a CPU, by all that are of it.
func coreOf(cpu int) string {
	own := strconv.Itoa(cpu)
	return cmp.Or(firstLine("/sys/devices/system/cpu/cpu"+own+"/topology/thread_siblings_list"), own)
}

// startOn starts cmd pinned to one CPU, or to none if that is negative: a new
// process takes over the affinity of the thread that makes it.
func startOn(cmd *exec.Cmd, cpu int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	only := allowed
	if cpu >= 0 {
		only.Zero()
		only.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("the server cannot be pinned to CPU %d: %w; taskset -p %d tells which it may have", cpu, err, os.Getpid())
	}
	defer unix.SchedSetaffinity(0, &before)
	// A ^C is for this process, which then drops the sample and ends the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

// Pin keeps every thread of this process on one CPU from now on.
func Pin(cpu int) error {
	var only unix.CPUSet
	only.Set(cpu)
	// Twice: a thread may have been made meanwhile by one not yet pinned.
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, _ := strconv.Atoi(t.Name())
			if err := unix.SchedSetaffinity(id, &only); err != nil && err != unix.ESRCH {
				return fmt.Errorf("the generator cannot be pinned to CPU %d: %w; taskset -p %d tells which it may have", cpu, err, os.Getpid())
			}
		}
	}
	return nil
}

// tail keeps the end of what a server says on standard error.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > 1<<16 {
		t.b.Reset()
	}
	return t.b.Write(p)
}

// text is valid once the process has ended, and a hint before.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := bytes.TrimSpace(t.b.Bytes())
	if len(b) == 0 {
		return ""
	}
	return ": " + string(b[max(0, len(b)-600):])
}
