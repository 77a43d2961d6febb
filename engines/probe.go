package engines

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"couplet"
	"couplet/proactor/ring"
)

// A Report is what Probe found out. Its JSON form is an interface that scripts
// may rely on.
type Report struct {
	// OS and Arch are Go's names; Kernel is the release, where there is one.
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	// CPUs are those that this process may use.
	CPUs int `json:"cpus"`
	// OpenFiles and LockedMemory are the limits of this process.
	OpenFiles    Limit `json:"open_files"`
	LockedMemory Limit `json:"locked_memory_bytes"`
	// Uring is what was found of io_uring.
	Uring UringReport `json:"io_uring"`
	// Engines tells, of each engine of this build, whether it works here: each
	// was opened and shut down again.
	Engines []EngineReport `json:"engines"`
	// Chosen is what Auto takes (empty: nothing works), and Why.
	Chosen string `json:"chosen"`
	Why    string `json:"why"`
	// Obstacles are what stands in the way of more.
	Obstacles []Obstacle `json:"obstacles"`
}

// A Limit is a resource limit. Unlimited is the largest uint64; both are zero
// where the system has no such limit.
type Limit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// String is "soft" or "soft (up to hard)".
func (l Limit) String() string {
	text := func(n uint64) string {
		if n == ^uint64(0) {
			return "unlimited"
		}
		return strconv.FormatUint(n, 10)
	}
	if l.Soft == l.Hard {
		return text(l.Soft)
	}
	return text(l.Soft) + " (up to " + text(l.Hard) + ")"
}

// UringReport is what was found of io_uring by trying it.
type UringReport struct {
	// Binding is the constant of that name.
	Binding string `json:"binding"`
	// Sysctl is kernel.io_uring_disabled, empty where there is no such thing.
	Sysctl string `json:"io_uring_disabled"`
	// Tier is "U5", "U3", "U2" or "none".
	Tier string `json:"tier"`
	// Caps are the abilities that were tried and work.
	Caps []string `json:"capabilities"`
	// Error says why there is no io_uring; it is empty where there is.
	Error string `json:"error,omitempty"`
}

// EngineReport tells of one engine.
type EngineReport struct {
	// Name is the name as Open takes it.
	Name string `json:"name"`
	// Works tells whether it could be opened.
	Works bool `json:"works"`
	// Detail is its description, or the error.
	Detail string `json:"detail"`
}

// An Obstacle is something that stands in the way, and what removes it.
type Obstacle struct {
	// What says what is in the way, and of what.
	What string `json:"what"`
	// Remedy is a command, or an advice where no command helps.
	Remedy string `json:"remedy"`
}

// Probe finds out what this machine can do, by trying it. It takes some
// milliseconds, opens each engine once, and leaves nothing behind.
func Probe() Report {
	r := Report{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Kernel: kernelRelease(), CPUs: runtime.GOMAXPROCS(0),
		OpenFiles: openFiles(), LockedMemory: lockedMemory(),
		Uring:     UringReport{Binding: Binding, Sysctl: sysctl("kernel/io_uring_disabled"), Tier: "none", Caps: []string{}},
		Obstacles: []Obstacle{},
	}
	r.probeUring(ring.Probe())
	for _, name := range Names() {
		r.Engines = append(r.Engines, try(name))
	}
	e, err := Open(Auto, couplet.Config{})
	if err != nil {
		r.Why = err.Error()
	} else {
		r.Chosen = e.Name()
		r.Why, _ = Choice(e)
		e.Shutdown(context.Background())
	}
	r.probeLimits()
	return r
}

// try opens an engine and shuts it down.
func try(name string) EngineReport {
	e, err := Open(name, couplet.Config{})
	if err != nil {
		return EngineReport{name, false, err.Error()}
	}
	defer e.Shutdown(context.Background())
	return EngineReport{name, true, strings.TrimSuffix(e.Describe(), " (asked for)")}
}

// probeUring takes in the answer of ring.Probe.
func (r *Report) probeUring(caps ring.Caps, err error) {
	if err != nil {
		r.Uring.Error = err.Error()
		o := Obstacle{"io_uring: " + err.Error(), "use the epoll engine"}
		var setup *ring.SetupError
		if errors.As(err, &setup) {
			o = Obstacle{"io_uring: " + setup.Reason + " (" + setup.Op + ")", setup.Remedy}
		}
		r.Obstacles = append(r.Obstacles, o)
		return
	}
	r.Uring.Tier = features(caps).Tier()
	if s := caps.String(); s != "none" {
		r.Uring.Caps = strings.Split(s, ",")
	}
	switch {
	case !caps.Has(floor):
		t := &tierError{r.Uring.Tier}
		r.Obstacles = append(r.Obstacles, Obstacle{"io_uring is of tier " + t.tier + " only, and auto wants U3", t.remedy()})
	case r.Uring.Tier != "U5":
		r.Obstacles = append(r.Obstacles, Obstacle{
			"io_uring is of tier " + r.Uring.Tier + ", without the incremental buffers of U5",
			"run on Linux 6.12 or newer",
		})
	}
}

// What servers of many connections want.
const (
	wantOpenFiles    = 65536
	wantLockedMemory = 8 << 20
	wantBacklog      = 4096
)

// probeLimits looks for limits that bound a server.
func (r *Report) probeLimits() {
	add := func(remedy, what string, args ...any) {
		r.Obstacles = append(r.Obstacles, Obstacle{fmt.Sprintf(what, args...), remedy})
	}
	if n := r.OpenFiles.Soft; n > 0 && n < wantOpenFiles {
		add(fmt.Sprintf("ulimit -n %d (LimitNOFILE=%[1]d in systemd)", wantOpenFiles),
			"at most %d descriptors, and a connection takes one", n)
	}
	// Rings count against this limit from Linux 6.14 on, except for who has CAP_IPC_LOCK.
	if n := r.LockedMemory.Soft; r.OS == "linux" && n < wantLockedMemory && !mayLockMemory() {
		add(fmt.Sprintf("ulimit -l %d (LimitMEMLOCK=%d in systemd)", wantLockedMemory>>10, wantLockedMemory),
			"at most %d bytes of locked memory, and io_uring's rings may count as such", n)
	}
	if n, err := strconv.Atoi(sysctl("net/core/somaxconn")); err == nil && n < wantBacklog {
		add(fmt.Sprintf("sysctl net.core.somaxconn=%d", wantBacklog),
			"net.core.somaxconn=%d bounds the backlog of listeners", n)
	}
}

// mayLockMemory reports whether this process has CAP_IPC_LOCK in effect.
func mayLockMemory() bool {
	const capIPCLock = 14
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, _ := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return set&(1<<capIPCLock) != 0
		}
	}
	return false
}

// sysctl reads a value under /proc/sys, or is empty.
func sysctl(path string) string {
	b, _ := os.ReadFile("/proc/sys/" + path)
	return strings.TrimSpace(string(b))
}
