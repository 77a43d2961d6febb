package bench

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"couplet/engines"
)

// A site is where servers run: this machine, or that of an agent.
type site interface {
	// prepare makes ready what c needs, or tells why it cannot be measured.
	prepare(c Candidate) error
	// start starts c on w, and may have the kernel count its system calls. At an agent
	// there is one server at a time. The end of ctx ends it.
	start(ctx context.Context, c Candidate, w Workload, count bool) (subject, error)
	// awaitQuiet returns when the site has done next to nothing for a second, after
	// limit, or when ctx ends.
	awaitQuiet(ctx context.Context, limit time.Duration)
	// load is what else the site does: its /proc/loadavg.
	load() string
}

// A subject is a server under measurement.
type subject interface {
	// address is where it serves, and engine how it describes itself.
	address() netip.AddrPort
	engine() string
	// used is its CPU time until it slept last or, while it runs, the kernel's clock ticked last,
	// without a word to it.
	used() (time.Duration, error)
	// ask sends a line of the control protocol and gives the report that answers it.
	ask(line string) (Report, error)
	// said is what it wrote to standard error, as the end of an error's text.
	said() string
	// stop ends it, and does nothing the second time.
	stop() error
}

var (
	_ site    = (*here)(nil)
	_ site    = (*Remote)(nil)
	_ subject = (*process)(nil)
	_ subject = (*remoteServer)(nil)
)

// here is this machine.
type here struct {
	shop       *workshop
	cpu, procs int
	commands   map[string][]string
}

func (h *here) prepare(c Candidate) error {
	argv, err := c.build(h.shop)
	h.commands[c.Name] = argv
	return err
}

func (h *here) start(ctx context.Context, c Candidate, w Workload, count bool) (subject, error) {
	argv := append(slices.Clone(h.commands[c.Name]), w.args()...)
	if count {
		argv = append(argv, "--count")
	}
	cpu, procs := c.place(h.cpu, h.procs)
	p, err := start(ctx, argv, cpu, procs)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// place is the CPU, or -1, and the GOMAXPROCS of c's server.
func (c Candidate) place(cpu, procs int) (int, int) {
	if c.Loops > 1 {
		return -1, c.Loops
	}
	return cpu, procs
}

func (h *here) load() string { return firstLine("/proc/loadavg") }

func (h *here) awaitQuiet(ctx context.Context, limit time.Duration) {
	awaitQuiet(ctx, time.Now().Add(limit), func() (int64, error) { return busyTime(), nil })
}

// awaitQuiet returns when busy has hardly grown for a second, at end, when ctx ends,
// or when busy is not to be had.
func awaitQuiet(ctx context.Context, end time.Time, busy func() (int64, error)) {
	for time.Now().Before(end) {
		before, err := busy()
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		after, late := busy()
		if err != nil || late != nil || float64(after-before) < disturbed*float64(time.Second) {
			return
		}
	}
}

// machine is what there is to know of this one.
func machine() Machine {
	var u unix.Utsname
	unix.Uname(&u)
	m := Machine{
		Kernel:      unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:]),
		CPU:         cpuInfo("model name"),
		CPUs:        runtime.NumCPU(),
		Virtual:     strings.Contains(" "+cpuInfo("flags")+" ", " hypervisor "),
		Mitigations: map[string]string{},
		Sysctls:     map[string]string{},
		Steered:     steered("/sys/class/net/lo/queues"),
		Go:          runtime.Version(),
		Tier:        engines.Probe().Uring.Tier,
	}
	files, _ := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	for _, f := range files {
		if text := firstLine(f); text != "Not affected" {
			m.Mitigations[filepath.Base(f)] = text
		}
	}
	for _, name := range []string{
		"net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.ip_local_port_range",
		"net.ipv4.tcp_congestion_control", "kernel.io_uring_disabled",
	} {
		if text := firstLine("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); text != "" {
			m.Sysctls[name] = text
		}
	}
	return m
}

// steered is the CPUs that receive for the interface whose queues are in dir, where
// that is not left to the CPU that the packets come to: which of any queue.
func steered(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "rx-*", "rps_cpus"))
	for _, file := range files {
		if mask := firstLine(file); strings.Trim(mask, "0,") != "" {
			return mask
		}
	}
	return ""
}

func cpuInfo(key string) string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}
