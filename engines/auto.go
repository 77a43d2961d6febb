package engines

import (
	"errors"
	"slices"
	"syscall"

	"couplet"
	"couplet/proactor/ring"
)

// opener makes an engine of one kind.
type opener func(couplet.Config) (couplet.Engine, error)

// builtin is an engine of this build.
type builtin struct {
	name string
	open opener
}

// machine is what a choice depends on; tests make their own.
type machine struct {
	engines []builtin // best first
	probe   func() (ring.Caps, error)
}

// floor is the least that Auto takes of io_uring: tier U3.
const floor = ring.CapMultishot | ring.CapDeferTaskrun

// open is Open on m.
func (m machine) open(name string, cfg couplet.Config) (couplet.Engine, error) {
	if name == Auto {
		return m.auto(cfg)
	}
	for _, b := range m.engines {
		if b.name == name {
			e, err := b.open(cfg)
			if err != nil {
				return nil, err
			}
			return &chosen{e, "asked for", false}, nil
		}
	}
	return nil, m.check(name)
}

// check is Check on m.
func (m machine) check(name string) error {
	known := []string{Auto}
	for _, b := range m.engines {
		known = append(known, b.name)
	}
	if slices.Contains(known, name) {
		return nil
	}
	return &UnknownError{name, known}
}

// auto opens the first engine that works. Every refusal leads on to the next
// engine and into its reason, except where descriptors ran out, which the next
// would meet too.
func (m machine) auto(cfg couplet.Config) (couplet.Engine, error) {
	// What is wrong with cfg is wrong for all, and no reason to step down.
	if _, err := cfg.WithDefaults(); err != nil {
		return nil, err
	}
	var last error
	why := "auto: "
	for i, b := range m.engines {
		e, reason, err := m.attempt(b, cfg)
		if err == nil {
			return &chosen{e, why + reason, i > 0}, nil
		}
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, err
		}
		why += "no " + b.name + " because " + err.Error() + "; "
		last = err
	}
	return nil, last
}

// attempt opens b for auto, and says what speaks for it.
func (m machine) attempt(b builtin, cfg couplet.Config) (e couplet.Engine, reason string, err error) {
	reason = b.name + " works here"
	if b.name == Uring {
		caps, err := m.probe()
		if err != nil {
			return nil, "", err
		}
		if !caps.Has(floor) {
			return nil, "", &tierError{features(caps).Tier()}
		}
		reason = "io_uring tier " + features(caps).Tier() + " works here"
	}
	e, err = b.open(cfg)
	return e, reason, err
}

// tierError says that io_uring works, but not well enough for Auto.
type tierError struct{ tier string }

// Error names the tier, what is missing and what to do.
func (e *tierError) Error() string {
	return "io_uring is of tier " + e.tier + " only, and auto wants U3; " + e.remedy()
}

func (e *tierError) remedy() string {
	return "run on Linux 6.1 or newer, or use --engine=uring knowingly"
}

// features is caps in the words of the contract, which are the same bits
// (package proactor does not compile where they are not).
func features(caps ring.Caps) couplet.Features { return couplet.Features(caps) }
