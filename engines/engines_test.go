package engines

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"couplet"
	"couplet/proactor/ring"
)

// fake is an engine that only has a name.
type fake struct {
	couplet.Engine
	name string
}

func (f fake) Name() string     { return f.name }
func (f fake) Describe() string { return f.name + ", loops 1" }

func opens(name string) builtin {
	return builtin{name, func(couplet.Config) (couplet.Engine, error) { return fake{name: name}, nil }}
}

func fails(name string, err error) builtin {
	return builtin{name, func(couplet.Config) (couplet.Engine, error) { return nil, err }}
}

func probes(caps ring.Caps, err error) func() (ring.Caps, error) {
	return func() (ring.Caps, error) { return caps, err }
}

func setup(errno syscall.Errno, reason, remedy string) error {
	return &ring.SetupError{Op: "io_uring_setup", Errno: errno, Reason: reason, Remedy: remedy}
}

func TestAutoChoosesByTheErrorMatrix(t *testing.T) {
	u2 := ring.CapMultishot
	u5 := floor | ring.CapIncremental
	all := []builtin{opens(Uring), opens(Epoll), opens(Goroutine)}
	for _, c := range []struct {
		name     string
		m        machine
		want     string // the engine, or "" for an error
		fallback bool
		says     string // in Describe, or in the error
	}{
		{"U5", machine{all, probes(u5, nil)}, Uring, false, "io_uring tier U5 works here"},
		{"U3", machine{all, probes(floor, nil)}, Uring, false, "tier U3"},
		{"U2 is too little", machine{all, probes(u2, nil)}, Epoll, true, "tier U2 only"},
		{"ENOSYS", machine{all, probes(0, setup(syscall.ENOSYS, "no io_uring", "newer Linux"))}, Epoll, true, "newer Linux"},
		{"EPERM by sysctl", machine{all, probes(0, setup(syscall.EPERM, "disabled by sysctl", "run `sysctl kernel.io_uring_disabled=0`"))},
			Epoll, true, "run `sysctl kernel.io_uring_disabled=0`"},
		{"EACCES", machine{all, probes(0, setup(syscall.EACCES, "denied", "allow"))}, Epoll, true, "denied"},
		{"ENOMEM", machine{all, probes(0, setup(syscall.ENOMEM, "no memory", "raise `ulimit -l`"))}, Epoll, true, "ulimit -l"},
		{"probe works but opening does not",
			machine{[]builtin{fails(Uring, setup(syscall.ENOMEM, "no memory", "fewer loops")), opens(Epoll)}, probes(u5, nil)},
			Epoll, true, "fewer loops"},
		{"EMFILE at the probe fails", machine{all, probes(0, setup(syscall.EMFILE, "out of descriptors", "raise `ulimit -n`"))}, "", false, "ulimit -n"},
		{"ENFILE at the probe fails", machine{all, probes(0, setup(syscall.ENFILE, "out of descriptors", "raise fs.file-max"))}, "", false, "fs.file-max"},
		{"EMFILE at opening fails", machine{[]builtin{fails(Uring, syscall.EMFILE), opens(Epoll)}, probes(u5, nil)}, "", false, "too many open files"},
		{"EMFILE at epoll fails", machine{[]builtin{fails(Uring, syscall.EPERM), fails(Epoll, syscall.EMFILE), opens(Goroutine)}, probes(u5, nil)}, "", false, "too many"},
		{"neither", machine{[]builtin{fails(Uring, syscall.EPERM), fails(Epoll, syscall.ENOSYS), opens(Goroutine)}, probes(u5, nil)},
			Goroutine, true, "no epoll because function not implemented"},
		{"goroutine alone is no fallback", machine{[]builtin{opens(Goroutine)}, probes(0, syscall.ENOSYS)}, Goroutine, false, "goroutine works here"},
		{"nothing", machine{[]builtin{fails(Epoll, syscall.ENOSYS)}, probes(0, syscall.ENOSYS)}, "", false, "not implemented"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := c.m.open(Auto, couplet.Config{})
			if c.want == "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("opened %v, error %v; want an error that says %q", e, err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			why, fallback := Choice(e)
			if e.Name() != c.want || fallback != c.fallback || !strings.Contains(e.Describe(), c.says) || !strings.Contains(e.Describe(), why) {
				t.Errorf("%s (fallback %v): %s; want %s (%v), saying %q", e.Name(), fallback, e.Describe(), c.want, c.fallback, c.says)
			}
		})
	}
}

func TestAutoDoesNotBlameAnEngineForABadConfig(t *testing.T) {
	m := machine{[]builtin{fails(Uring, errors.New("opened")), fails(Epoll, errors.New("opened"))}, probes(floor, nil)}
	_, err := m.open(Auto, couplet.Config{Loops: -1})
	if err == nil || !strings.Contains(err.Error(), "Config.Loops is -1") {
		t.Errorf("error %v; want one that names the field", err)
	}
}

func TestNamedEngineIsThatOneOrAnError(t *testing.T) {
	refused := setup(syscall.EPERM, "disabled by sysctl", "run `sysctl kernel.io_uring_disabled=0`")
	m := machine{[]builtin{fails(Uring, refused), opens(Epoll)}, probes(0, refused)}
	if _, err := m.open(Uring, couplet.Config{}); err != refused {
		t.Errorf("error %v; want the setup error as it is", err)
	}
	e, err := m.open(Epoll, couplet.Config{})
	if err != nil || e.Describe() != "epoll, loops 1 (asked for)" {
		t.Errorf("%v, %v", e, err)
	}
}

func TestUnknownNameListsWhatThereIs(t *testing.T) {
	for _, name := range []string{"", "AUTO", "select", "poll", "blocking", "process", "io_uring"} {
		_, err := Open(name, couplet.Config{})
		var unknown *UnknownError
		if !errors.As(err, &unknown) || unknown.Name != name {
			t.Fatalf("Open(%q): %v; want *UnknownError", name, err)
		}
		if again := Check(name); again == nil || again.Error() != err.Error() {
			t.Errorf("Check(%q): %v; want what Open says", name, again)
		}
		if want := append([]string{Auto}, Names()...); !slices.Equal(unknown.Known, want) {
			t.Errorf("known %v, want %v", unknown.Known, want)
		}
		for _, name := range unknown.Known {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%q does not list %s", err, name)
			}
		}
	}
}

func TestEveryNameOpensOrSaysWhatToDo(t *testing.T) {
	for _, name := range append([]string{Auto}, Names()...) {
		if err := Check(name); err != nil {
			t.Error(err)
		}
		began := time.Now()
		e, err := Open(name, couplet.Config{})
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if err != nil {
			var setup *ring.SetupError
			if name != Uring || !errors.As(err, &setup) || setup.Remedy == "" {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %s", e.Name(), e.Describe())
		if name != Auto && e.Name() != name {
			t.Errorf("Open(%q) gave %s", name, e.Name())
		}
		if _, err := e.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestProbeAgreesWithOpen(t *testing.T) {
	r := Probe()
	if text, err := json.MarshalIndent(r, "", "  "); err != nil {
		t.Error(err)
	} else {
		t.Logf("%s", text)
	}
	e, err := Open(Auto, couplet.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown(context.Background())
	if r.Chosen != e.Name() || r.Why == "" || len(r.Engines) != len(Names()) {
		t.Errorf("probe says %s because %q with %d engines; Open says %s with %d", r.Chosen, r.Why, len(r.Engines), e.Name(), len(Names()))
	}
	if r.Uring.Binding != ring.Binding {
		t.Errorf("binding %q, want %q", r.Uring.Binding, ring.Binding)
	}
	for _, o := range r.Obstacles {
		if o.What == "" || o.Remedy == "" {
			t.Errorf("obstacle %+v has an empty half", o)
		}
	}
}

func TestObstaclesNameTheirRemedy(t *testing.T) {
	var r Report
	r.probeUring(0, setup(syscall.EPERM, "io_uring is disabled", "run `sysctl kernel.io_uring_disabled=0`"))
	if len(r.Obstacles) != 1 || r.Obstacles[0].Remedy != "run `sysctl kernel.io_uring_disabled=0`" || r.Uring.Error == "" {
		t.Errorf("%+v", r)
	}
	r = Report{}
	r.probeUring(ring.CapMultishot, nil)
	if r.Uring.Tier != "U2" || len(r.Obstacles) != 1 || !strings.Contains(r.Obstacles[0].Remedy, "6.1") {
		t.Errorf("%+v", r)
	}
	r = Report{}
	r.probeUring(floor|ring.CapIncremental, nil)
	if r.Uring.Tier != "U5" || len(r.Obstacles) != 0 || len(r.Uring.Caps) != 3 {
		t.Errorf("%+v", r)
	}
	r = Report{OS: "linux", OpenFiles: Limit{1024, 4096}}
	r.probeLimits()
	if len(r.Obstacles) == 0 || !strings.Contains(r.Obstacles[0].Remedy, "ulimit -n 65536") {
		t.Errorf("%+v", r.Obstacles)
	}
}
