package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"couplet/bench"
	"couplet/poetry"
)

// tokenEnv is where a token may be instead of on the command line.
const tokenEnv = "COUPLET_BENCH_TOKEN"

// checkRemote is nil if the flags for a measurement between two machines make
// sense.
func (b *benchmark) checkRemote(cmd *cobra.Command, candidates []string) error {
	if b.remote == "" {
		for _, name := range []string{"remote", "token"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s goes with --remote HOST:PORT, which names an agent", name)
			}
		}
		return nil
	}
	if len(b.peers) > 0 {
		return fmt.Errorf("--peers is %q; with --remote only couplet's own engines are measured", strings.Join(b.peers, ","))
	}
	if err := bench.CheckRemote(candidates); err != nil {
		return err
	}
	a, err := poetry.ParseAddr(b.remote)
	if err != nil || a.Network != "tcp" {
		return fmt.Errorf("--remote is %q; want HOST:PORT, as \"couplet bench agent\" printed it", b.remote)
	}
	if err := checkZone("--remote", a.Address); err != nil {
		return err
	}
	if b.token = cmp.Or(b.token, os.Getenv(tokenEnv)); b.token == "" {
		return fmt.Errorf("--remote wants the token that the agent printed: --token, or %s in the environment", tokenEnv)
	}
	return nil
}

// checkZone is nil unless address has a numeric host that is link-local, and does not name
// an interface of this machine: nobody else knows which one is meant.
func checkZone(flag, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsLinkLocalUnicast() || at.Addr().Unmap().Is4() {
		return nil
	}
	zone := at.Addr().Zone()
	if _, err := net.InterfaceByName(zone); err == nil {
		return nil
	}
	if i, err := strconv.Atoi(zone); err == nil {
		if _, err := net.InterfaceByIndex(i); err == nil {
			return nil
		}
	}
	example := netip.AddrPortFrom(at.Addr().WithZone("eth0"), at.Port())
	return fmt.Errorf("%s is %q; a link-local address wants the name of this machine's interface, such as %v", flag, address, example)
}

// dial begins the session with the agent. A wrong token is wrong input; all else
// is the agent's or the network's doing.
func (b *benchmark) dial(ctx context.Context) (*bench.Remote, error) {
	a, err := poetry.ParseAddr(b.remote)
	if err != nil {
		return nil, err
	}
	r, err := bench.Dial(ctx, a.Address, b.token)
	switch {
	case ctx.Err() != nil:
		return nil, failure{context.Cause(ctx)}
	case errors.Is(err, bench.ErrToken):
		return nil, fmt.Errorf("--token: %w", err)
	case err != nil:
		return nil, failure{err}
	}
	if !b.quiet {
		fmt.Fprintln(b.stderr, r)
	}
	return r, nil
}

// agent is couplet bench agent.
type agent struct {
	*common
	listen          string
	timeLimit       duration
	cpu, serverPort int
	keep            bool
}

func newBenchAgent(c *common) *cobra.Command {
	a := &agent{common: c, timeLimit: duration(30 * time.Minute)}
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the servers of a measurement that another machine drives",
		Long: `Agent waits for one "couplet bench --remote" on another machine, runs the servers
that it measures, and ends with it. It prints a token, which is good for one session
and has to be used within 15 minutes. Use the same couplet on both machines.

It listens on loopback unless --listen says otherwise. Who knows the token can start
couplet's own engines on the workloads of couplet bench, and nothing else: no other
program, and no shell. One server runs at a time, for at most 10 minutes, the session
lasts for at most --time-limit, and nothing is left of it afterwards. Three wrong
tokens end the agent.

The token does not cross the network, but nothing is encrypted, and while a sample is
taken everybody who reaches the address can connect to the server. Use it in a
network that you trust.`,
		Example: `  couplet bench agent --listen 192.168.1.5:7070 --server-port 7071
  COUPLET_BENCH_TOKEN=... couplet bench --remote 192.168.1.5:7070    # on the other machine`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&a.listen, "listen", "127.0.0.1:0", "the address to listen on, `HOST:PORT`; port 0 is any that is free")
	f.Var(&a.timeLimit, "time-limit", "the longest that a session may take")
	f.Var(&number{&a.serverPort, 0, 65535}, "server-port", "the port of the servers, for a firewall to let through; 0 is any that is free")
	f.Var(&number{&a.cpu, 0, 1 << 16}, "cpu", "the CPU that the servers are pinned to")
	f.BoolVar(&a.keep, "keep", false, "go on after a session, with another token")
	return cmd
}

func (a *agent) run(cmd *cobra.Command) error {
	if cmd.Flags().Changed("engine") {
		return errors.New("--engine is for one engine; whoever drives the agent says which are measured")
	}
	if a.timeLimit < duration(time.Second) {
		return fmt.Errorf("--time-limit is %v; want a second or more", time.Duration(a.timeLimit))
	}
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err == nil && !may.IsSet(a.cpu) {
		return fmt.Errorf("--cpu is %d; that is none of the %d that this process may use", a.cpu, may.Count())
	}
	host, port, err := splitListen(a.listen)
	if err != nil {
		return err
	}
	if err := checkZone("--listen", net.JoinHostPort(host, port)); err != nil {
		return err
	}
	// Whoever reads the output may go away, and ends no session by it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := a.interruptible()
	defer stop()
	network := "tcp"
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		network = "tcp4" // else 0.0.0.0 would take in all of IPv6
	}
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // which does not tell a zone
	l, err := plain.Listen(ctx, network, net.JoinHostPort(host, port))
	if err != nil {
		return a.explain(err)
	}
	if a.serverPort > 0 {
		probe, err := net.Listen(network, net.JoinHostPort(host, strconv.Itoa(a.serverPort)))
		if err != nil {
			l.Close()
			return fmt.Errorf("--server-port %d cannot be had: %w; choose another", a.serverPort, err)
		}
		probe.Close()
	}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	hosts := reachable(at.Addr())
	if !at.Addr().IsLoopback() {
		where := at.Addr().String()
		if at.Addr().IsUnspecified() {
			where = "every address of this machine: " + strings.Join(hosts, ", ")
		}
		fmt.Fprintf(a.stderr, "couplet: the agent and the servers that it starts can be reached over the network at %s.\n", where)
	}
	log, lines := a.logger()
	defer lines.end()
	err = bench.Agent{
		TimeLimit: time.Duration(a.timeLimit), ServerPort: a.serverPort, CPU: a.cpu, Keep: a.keep, Log: log,
		Announce: func(token string) error {
			text := fmt.Sprintf("Agent on %s, token %s\n", at, token)
			if !a.quiet {
				text += fmt.Sprintf("  %s=%s couplet bench --remote %s\n", tokenEnv, token, net.JoinHostPort(hosts[0], strconv.Itoa(int(at.Port()))))
			}
			_, err := io.WriteString(a.stdout, text)
			return err
		},
	}.Serve(ctx, l)
	if err != nil {
		return failure{err}
	}
	return nil
}

// splitListen takes what the other commands take as an address, and port 0.
func splitListen(s string) (host, port string, err error) {
	host, port = "", s
	if strings.Contains(s, ":") {
		host, port, err = net.SplitHostPort(s)
	}
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n > 65535 {
		return "", "", fmt.Errorf("--listen is %q; want HOST:PORT, such as 192.168.1.5:7070, with a port from 0 to 65535", s)
	}
	return cmp.Or(host, "127.0.0.1"), port, nil
}

// reachable are the hosts as which another machine may name ip.
func reachable(ip netip.Addr) (all []string) {
	if ip.IsLinkLocalUnicast() && ip.Is6() {
		return []string{ip.WithZone("INTERFACE").String()} // which is the other machine's
	}
	if !ip.IsUnspecified() {
		return []string{ip.String()}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() && (p.Addr().Is4() || ip.Is6()) {
			all = append(all, p.Addr().String())
		}
	}
	if len(all) == 0 {
		all = []string{"HOST"}
	}
	return all
}

// explain turns an error of listening into what to change.
func (a *agent) explain(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--listen %s is in use; choose another port, or 0 for any that is free", a.listen)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("--listen %s is not allowed to you; choose a port from 1024 up", a.listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("--listen %s is no address of this machine; choose one that is, or 0.0.0.0:PORT for all of them", a.listen)
	}
	return fmt.Errorf("cannot listen on %s: %w; choose another --listen", a.listen, err)
}
