package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"couplet"
)

// serving is what every server has: the flags, and the life between its first
// line and its end.
type serving struct {
	*common
	iface        string
	port         int
	unix         string
	loops        int
	maxConns     int
	idleTimeout  duration
	drainTimeout duration
}

func newServe(c *common) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a poem, or an echo, until interrupted",
		Long: `Serve until SIGINT, SIGTERM or SIGHUP. Then the server drains: it accepts no more,
poems under way are finished, and an echo goes on until its client closes. What is
not finished after --drain-timeout is reset, so that it looks cut; the exit status
is then 1. A second SIGINT or SIGTERM cuts at once; the same one within a tenth of a
second is still the first. A server whose listening socket fails drains, too, and its
exit status is 1.`,
	}
	services := []*cobra.Command{newServePoem(c), newServeEcho(c)}
	var known []string
	for _, s := range services {
		known = append(known, s.Name())
	}
	cmd.AddCommand(services...)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("serve what? want %s", names(known))
		}
		return fmt.Errorf("there is no service %q; want %s", args[0], names(known))
	}
	return cmd
}

// register adds the flags that every server has.
func (s *serving) register(cmd *cobra.Command) {
	s.iface, s.loops, s.drainTimeout = "127.0.0.1", 1, duration(10*time.Second)
	f := cmd.Flags()
	f.StringVar(&s.iface, "iface", s.iface, "the address to listen on; 0.0.0.0 is every one of IPv4, and :: of both")
	f.Var(&number{&s.port, 0, 65535}, "port", "the port to listen on; 0 is any that is free")
	f.StringVar(&s.unix, "unix", "", "listen on a unix socket at this path, instead of a port")
	f.Var(&number{&s.loops, 1, 256}, "loops", "event loops, each on a thread of its own")
	f.Var(&number{&s.maxConns, 0, 1 << 30}, "max-conns", "the most connections at once, more wait; 0 is no limit")
	f.Var(&s.idleTimeout, "idle-timeout", "end a connection on which nothing moves for so long; 0 is never")
	f.Var(&s.drainTimeout, "drain-timeout", "after a signal, how long connections may take to end")
	cmd.MarkFlagFilename("unix")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if f.Changed("unix") && (f.Changed("port") || f.Changed("iface")) {
			return errors.New("--unix goes without --port and --iface; want one or the other")
		}
		return nil
	}
}

// address is where to listen, as Engine.Listen takes it.
func (s *serving) address() (network, address string) {
	if s.unix != "" {
		return "unix", s.unix
	}
	return "tcp", net.JoinHostPort(s.iface, strconv.Itoa(s.port))
}

// run serves f under name until a signal or the engine's failure.
func (s *serving) run(name string, build func(log *slog.Logger) couplet.Factory) error {
	// Whoever reads the log may go away, and ends no client by it: what is written then is lost.
	signal.Ignore(syscall.SIGPIPE)
	// Caught from here on, so that a signal right after the first line drains.
	signals, gone := make(chan os.Signal, 2), hangups()
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	// Nor does who reads nothing hold up the server, or its end.
	log, lines := s.logger()
	defer lines.end()
	first := newPatientWriter(s.stdout, nil)
	defer first.end()
	e, err := s.open(couplet.Config{Loops: s.loops, Logger: log})
	if err != nil {
		return err
	}
	network, address := s.address()
	l, err := e.Listen(network, address, build(log), couplet.MaxConns(s.maxConns), couplet.IdleTimeout(time.Duration(s.idleTimeout)))
	if err != nil {
		e.Shutdown(context.Background())
		return s.explain(err)
	}
	if network == "unix" {
		fmt.Fprintf(first, "Serving %s on %s.\n", name, s.unix)
	} else {
		fmt.Fprintf(first, "Serving %s on port %d.\n", name, l.Addr().(*net.TCPAddr).Port)
	}
	s.introduce(lines, e)

	var sig os.Signal
	select {
	case <-e.Done():
		return failure{e.Err()}
	case <-l.Closed():
		if err := e.Err(); err != nil { // with the engine
			return failure{err}
		}
	case sig = <-signals:
	case sig = <-gone:
	}
	why := "the listener has failed"
	if sig != nil {
		why = sig.String()
	}
	log.Info("draining", "signal", why, "open", e.Stats().Open, "timeout", time.Duration(s.drainTimeout))
	err = s.drain(e, sig, sameSignal, signals)
	if err == nil && sig == nil { // whoever watches over it is to start it anew
		err = failure{errors.New(why + "; the log says of what")}
	}
	return err
}

// sameSignal is how soon after a signal its like is no second one: timeout(1), for one,
// sends it to its child, and to the group of processes that the child is in.
const sameSignal = 100 * time.Millisecond

// drain ends e in order, until the time is out or a signal comes that is not first's like,
// or not so soon.
func (s *serving) drain(e couplet.Engine, first os.Signal, soon time.Duration, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.drainTimeout))
	defer cancel()
	go func() {
		for began := time.Now(); ; {
			select {
			case sig := <-signals:
				if sig != first || time.Since(began) >= soon {
					cancel()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	d, err := e.Shutdown(ctx)
	switch {
	case d.Cut > 0 && d.Cut == 1:
		return failure{errors.New("1 connection was cut before its end")}
	case d.Cut > 0:
		return failure{fmt.Errorf("%d connections were cut before their end", d.Cut)}
	case err != nil:
		return failure{err}
	}
	return nil
}

// explain turns an error of Listen into what to change. It is the command line
// that was wrong, except where the machine ran out of something.
func (s *serving) explain(err error) error {
	where := "port " + strconv.Itoa(s.port) + " of " + s.iface
	change := "--port, or 0 for any that is free"
	if s.unix != "" {
		where, change = s.unix, "--unix"
	}
	var unknown *net.DNSError
	switch {
	case s.unix == "" && strings.HasPrefix(s.iface, "["):
		return fmt.Errorf("--iface is %q; want the address without brackets", s.iface)
	case errors.Is(err, syscall.EADDRINUSE) && s.unix != "" && !isSocket(s.unix):
		return fmt.Errorf("%s exists and is not a socket; choose another %s", where, change)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use; choose another %s", where, change)
	case errors.Is(err, syscall.EACCES) && s.unix == "":
		return fmt.Errorf("%s is not allowed to you; choose a --port from 1024 up", where)
	case errors.As(err, &unknown):
		return fmt.Errorf("--iface %q is no address: %s; choose another --iface, such as 127.0.0.1", s.iface, unknown.Err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("--iface %q is no address of this machine; choose one that is", s.iface)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOBUFS):
		return failure{err}
	}
	return fmt.Errorf("cannot listen on %s: %w; choose another %s", where, err, change)
}

// isSocket reports whether path is a socket, or is not there any more.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode()&os.ModeSocket != 0
}
