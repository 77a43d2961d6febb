// Package engines knows every engine by its name.
//
// # Basics
//
// [Open] makes a running couplet.Engine of a name and a couplet.Config:
//
//	e, err := engines.Open("auto", couplet.Config{})
//	if err != nil {
//		return err
//	}
//	defer e.Shutdown(context.Background())
//	log.Print(e.Describe())
//
// "auto" takes io_uring where the kernel has what it needs (tier U3, Linux
// 6.1), else epoll, else goroutines. The choice is never silent: Describe
// tells it and the reason, and [Choice] gives both to programs.
//
// [Probe] finds out what this machine can do and what stands in the way.
//
// # Caveats
//
// An engine that was named is that engine or an error, never another one.
package engines

import (
	"errors"
	"fmt"
	"strings"

	"couplet"
	"couplet/proactor/ring"
)

// The names that Open takes. Not every build has every engine: see Names.
const (
	// Auto is the best engine that works here.
	Auto = "auto"
	// Uring is the proactor on Linux io_uring.
	Uring = "uring"
	// Epoll is the reactor on Linux epoll.
	Epoll = "epoll"
	// Goroutine is a goroutine per connection on package net.
	Goroutine = "goroutine"
)

// Binding is what this build speaks to io_uring through: "native", "giouring"
// or "none".
const Binding = ring.Binding

// Names are the engines of this build, best first. That one is built does not
// mean that the kernel allows it. Open takes these and Auto.
func Names() []string {
	var names []string
	for _, b := range here.engines {
		names = append(names, b.name)
	}
	return names
}

// Check reports whether Open knows name: its error, an *UnknownError, or nil.
func Check(name string) error { return here.check(name) }

// Open makes an engine, which runs from now on until its Shutdown. An
// *UnknownError says that this build has no engine of that name. Where the
// kernel refuses io_uring to Uring, the error is a *ring.SetupError, whose
// text says what to change.
func Open(name string, cfg couplet.Config) (couplet.Engine, error) {
	return here.open(name, cfg)
}

// NoUring reports whether err is of a machine on which io_uring cannot be used: another
// engine can.
func NoUring(err error) bool { return errors.As(err, new(*ring.SetupError)) }

// UnknownError says that a name is not an engine of this build.
type UnknownError struct {
	// Name is what was asked for.
	Name string
	// Known are the names that would have done, Auto first.
	Known []string
}

// Error names what was asked for and lists what there is.
func (e *UnknownError) Error() string {
	return fmt.Sprintf("there is no engine %q in this build; there are %s", e.Name, strings.Join(e.Known, ", "))
}

// Choice tells how e came to be chosen: why, in words, and whether it was by
// Auto for want of a better one. An engine that Open did not make has no why.
func Choice(e couplet.Engine) (why string, fallback bool) {
	if c, ok := e.(*chosen); ok {
		return c.why, c.fallback
	}
	return "", false
}

// chosen is an engine that knows why it is the one. Loops and transports are
// the engine's own, so nothing of it is on any hot path.
type chosen struct {
	couplet.Engine
	why      string
	fallback bool
}

// Describe adds the reason of the choice to the engine's own words.
func (c *chosen) Describe() string { return c.Engine.Describe() + " (" + c.why + ")" }
