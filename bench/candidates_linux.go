package bench

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Candidate is a server that can be measured.
type Candidate struct {
	// Name is what a Plan calls it.
	Name string
	// Model is the C program of the same I/O model, or "".
	Model string
	// Kinds are the workloads that it serves.
	Kinds []Kind
	// Loops is how many event loops it has. With more than one it is not pinned,
	// and GOMAXPROCS is their number: it shares the generator's CPU where there
	// are but two.
	Loops int

	build func(*workshop) ([]string, error) // what to run
}

// everything is all workloads, those of a file too.
func everything() []Kind { return append(slices.Clone(Kinds), Custom) }

// engineCandidates are couplet's own: this program serves for them.
func engineCandidates() []Candidate {
	own := func(name, model string, args ...string) Candidate {
		return Candidate{name, model, everything(), 1, func(w *workshop) ([]string, error) {
			return append([]string{w.self, "server"}, args...), nil
		}}
	}
	several := func(name, engine, spread string, loops int) Candidate {
		c := own(name, "", "--engine", engine, "--spread", spread, "--loops", strconv.Itoa(loops))
		c.Kinds, c.Loops = []Kind{Echo, Mixed, Stream, Poems, Churn, Idle, Custom}, loops // the members of a broadcast share a loop
		return c
	}
	return []Candidate{
		own("uring", "c-uring", "--engine", "uring"),
		own("uring-u2", "c-uring", "--engine", "uring", "--tier", "u2"),
		own("uring-u3", "c-uring", "--engine", "uring", "--tier", "u3"),
		own("uring-oneshot", "c-uring", "--engine", "uring", "--tier", "u2", "--without", "multishot"),
		own("uring-batched", "c-uring", "--engine", "uring", "--without", "turns"),
		own("uring-registered", "c-uring", "--engine", "uring", "--without", "lookup"),
		own("uring-zerocopy", "c-uring", "--engine", "uring", "--without", "copy"),
		own("epoll", "c-epoll", "--engine", "epoll"),
		own("epoll-edge", "c-epoll", "--engine", "epoll", "--without", "level"),
		own("goroutine", "", "--engine", "goroutine"),
		several("uring-x2", "uring", "reuseport", 2),
		several("uring-x2-rr", "uring", "roundrobin", 2),
		several("uring-x2-least", "uring", "least", 2),
		several("epoll-x2", "epoll", "reuseport", 2),
		several("epoll-x2-rr", "epoll", "roundrobin", 2),
		several("epoll-x2-least", "epoll", "least", 2),
	}
}

// Candidates are all that there are. That one is listed does not mean that it
// can be built or run here.
func Candidates() []Candidate {
	echoes := []Kind{Echo, Mixed, Churn, Idle}
	peer := func(name string, kinds []Kind, args ...string) Candidate {
		return Candidate{name, "", kinds, 1, func(w *workshop) ([]string, error) {
			path, err := w.peers()
			library, _, _ := strings.Cut(name, "-")
			return append([]string{path, "-peer", library}, args...), err
		}}
	}
	c := func(name, source string, libs ...string) Candidate {
		return Candidate{name, "", append([]Kind{Poems}, echoes...), 1, func(w *workshop) ([]string, error) {
			path, err := w.compile(source, libs...)
			if err != nil {
				return nil, err
			}
			text, err := w.text()
			return []string{path, "--text", text, "--period", strconv.Itoa(patternPeriod)}, err
		}}
	}
	return append(engineCandidates(),
		peer("gnet", echoes),
		peer("nbio", echoes),
		peer("netpoll", echoes),
		peer("net", everything()),
		peer("net-4k", echoes, "-buffer", "4096"),
		peer("net-16k", echoes, "-buffer", "16384"),
		peer("net-splice", echoes, "-splice"),
		c("c-uring", "uring.c", "-luring"),
		c("c-epoll", "epoll.c"),
	)
}

// CheckRemote is nil if an agent serves for every one of names: for couplet's own
// engines, and for no other program.
func CheckRemote(names []string) error {
	for _, name := range names {
		if _, err := findRemote(original(name)); err != nil {
			return err
		}
	}
	return nil
}

// findRemote returns the candidate of exactly that name that an agent serves for.
func findRemote(name string) (Candidate, error) {
	var known []string
	for _, c := range engineCandidates() {
		if c.Name == name {
			return c, nil
		}
		known = append(known, c.Name)
	}
	return Candidate{}, fmt.Errorf("an agent does not serve for %q; it does for %s", name, strings.Join(known, ", "))
}

// find returns the candidate of that name. "name/2" is name once more, under a
// name of its own: an engine against itself must come out as no difference.
// "name@program" is name as another build of this program has it, to compare with
// how it was before.
func find(name string) (Candidate, error) {
	base, program, other := strings.Cut(name, "@")
	if !other {
		base = original(name)
	}
	var known []string
	for _, c := range Candidates() {
		if c.Name == base {
			c.Name = name
			if build := c.build; other {
				c.build = func(w *workshop) ([]string, error) {
					before := *w
					before.self = program
					return build(&before)
				}
			}
			return c, nil
		}
		known = append(known, c.Name)
	}
	return Candidate{}, fmt.Errorf("there is no engine %q; there are %s", name, strings.Join(known, ", "))
}

// CheckCandidates is nil if there is a candidate of each name, each named once.
func CheckCandidates(names []string) error {
	for i, name := range names {
		if _, err := find(name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%s is named twice; %s/2 is the same once more", name, name)
		}
	}
	return nil
}

// counts reports whether c counts its system calls, and the kernel can do so for it.
func (c Candidate) counts() bool {
	return c.Name == "epoll" || c.Name == "uring" || strings.HasPrefix(c.Name, "epoll-") || strings.HasPrefix(c.Name, "uring-")
}

func (c Candidate) serves(w Workload) bool { return slices.Contains(c.Kinds, w.Kind) }

// args tell a server its workload.
func (w Workload) args() []string {
	kind, size := w.Kind, int64(w.Size)
	if kind == Churn || kind == Idle || kind == Mixed {
		kind = Echo // as far as a server can see
	}
	if w.Kind == Mixed {
		size = w.size(0) // the largest
	}
	return []string{
		"--kind", string(kind),
		"--connections", strconv.Itoa(w.Connections),
		"--size", strconv.FormatInt(size, 10),
		"--depth", strconv.Itoa(w.Depth),
		"--delay", w.Delay.String(),
		"--total", strconv.FormatInt(w.Total/int64(w.Connections), 10),
	}
}

// A workshop builds what candidates are made of, once each, in a directory of
// its own, until ctx ends.
type workshop struct {
	ctx                 context.Context
	self, dir, peersDir string
	built               map[string]error
}

//go:embed c/*.c c/*.h
var sources embed.FS

func newWorkshop(ctx context.Context, peersDir string) (*workshop, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "couplet-bench-")
	if err != nil {
		return nil, err
	}
	return &workshop{ctx, self, dir, peersDir, map[string]error{}}, nil
}

func (w *workshop) close() { os.RemoveAll(w.dir) }

func (w *workshop) once(name string, f func(path string) error) (string, error) {
	path := filepath.Join(w.dir, name)
	err, done := w.built[name]
	if !done {
		err = f(path)
		w.built[name] = err
	}
	return path, err
}

// compile builds a C program of package bench.
func (w *workshop) compile(source string, libs ...string) (string, error) {
	return w.once(strings.TrimSuffix(source, ".c"), func(path string) error {
		if _, err := exec.LookPath("gcc"); err != nil {
			return errors.New("there is no gcc; apt-get install gcc liburing-dev")
		}
		for _, name := range []string{"control.h", "poems.h", source} {
			text, err := sources.ReadFile("c/" + name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(w.dir, name), text, 0o644); err != nil {
				return err
			}
		}
		args := append([]string{"-O2", "-o", path, filepath.Join(w.dir, source)}, libs...)
		if out, err := exec.CommandContext(w.ctx, "gcc", args...).CombinedOutput(); err != nil {
			if strings.Contains(string(out), "liburing.h: No such file") {
				return errors.New("there is no liburing.h; apt-get install liburing-dev")
			}
			return fmt.Errorf("gcc: %w: %s", err, out)
		}
		return nil
	})
}

// text is a file of what poems consist of, for programs that cannot make it.
func (w *workshop) text() (string, error) {
	return w.once("text", func(path string) error { return os.WriteFile(path, pattern(), 0o644) })
}

// peers builds the module bench/peers.
func (w *workshop) peers() (string, error) {
	return w.once("peers", func(path string) error {
		if _, err := os.Stat(filepath.Join(w.peersDir, "go.mod")); err != nil {
			return fmt.Errorf("the module bench/peers is not at %q; run in a checkout, or name its place with --peers-dir", w.peersDir)
		}
		if out, err := exec.CommandContext(w.ctx, "go", "build", "-C", w.peersDir, "-o", path, ".").CombinedOutput(); err != nil {
			return fmt.Errorf("go build -C %s: %w: %s", w.peersDir, err, out)
		}
		return nil
	})
}
