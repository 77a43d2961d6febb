package bench

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// A Remote is a session with an Agent on another machine. One Plan at a time may
// use it.
type Remote struct {
	wire        *wire
	answers     chan answer
	session     context.Context // its cause is why it ended
	end         context.CancelCauseFunc
	server      netip.Addr // as this machine reaches it
	serverCard  string
	machine     Machine
	oneMachine  bool
	cpu         int
	timeLimit   time.Duration
	serverLimit time.Duration
}

// Tier is that of io_uring on the agent's machine, "none" where there is no io_uring.
func (r *Remote) Tier() string { return r.machine.Tier }

// ErrToken says that a token is not the agent's, or none at all.
var ErrToken = errors.New("want the token that the agent printed last; each is good for one session")

// Dial begins a session with the agent at address, host and port, which printed
// token. The session ends with Close.
func Dial(ctx context.Context, address, token string) (*Remote, error) {
	key, err := hex.DecodeString(token)
	if err != nil || len(key) != tokenBytes {
		return nil, fmt.Errorf("a token has %d hexadecimal digits, and this has %s: %w", 2*tokenBytes, plural(len(token), "character"), ErrToken)
	}
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", address)
	if unknown := new(net.DNSError); errors.As(err, &unknown) {
		return nil, fmt.Errorf("no address is known for %s: %w; name the agent's machine by its address", address, unknown)
	}
	if err != nil {
		return nil, fmt.Errorf("no agent at %s: %w; start \"couplet bench agent --listen HOST:PORT\" there, and let its port through the firewall", address, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r, err := shake(conn, address, key)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return r, nil
}

func shake(conn net.Conn, address string, key []byte) (*Remote, error) {
	w := newWire(conn)
	stranger := func(err error) error {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s closed the connection; if an agent is there, it has ended or is overrun: look at what it says", address)
		}
		return fmt.Errorf("%s does not answer as an agent: %w; want the address that \"couplet bench agent\" printed", address, err)
	}
	var hello greeting
	switch err := w.receive(&hello, patience, false); {
	case err != nil:
		return nil, stranger(err)
	case hello.Agent != agentWord:
		return nil, stranger(errors.New("its greeting is another"))
	case hello.Protocol != protocol:
		return nil, otherVersion("the agent at "+address, hello.Protocol)
	case hello.Error != "":
		return nil, errors.New(printable(hello.Error))
	}
	nonce := hex.EncodeToString(random(tokenBytes))
	if err := w.send(proof{protocol, nonce, mac(key, "client", hello.Nonce, nonce)}); err != nil {
		return nil, stranger(err)
	}
	var a welcome
	switch err := w.receive(&a, patience, false); {
	case err != nil:
		return nil, stranger(err)
	case a.WrongToken:
		return nil, fmt.Errorf("the agent at %s refuses the token: %w", address, ErrToken)
	case a.Error != "":
		return nil, fmt.Errorf("the agent at %s: %s", address, printable(a.Error))
	case !same(a.MAC, mac(key, "agent", hello.Nonce, nonce)):
		return nil, fmt.Errorf("what is at %s does not know the token, so it is not the agent that printed it", address)
	}
	r := &Remote{
		wire: w, answers: make(chan answer), machine: a.Machine, cpu: a.CPU, timeLimit: a.TimeLimit, serverLimit: a.ServerLimit,
		server:     conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(),
		serverCard: a.Card,
		oneMachine: a.Boot != "" && a.Boot == bootID(),
	}
	r.session, r.end = context.WithCancelCause(context.Background())
	go r.listen()
	return r, nil
}

// listen takes what the agent says until the session ends, of which it may tell at any
// time.
func (r *Remote) listen() {
	for r.session.Err() == nil {
		var a answer
		switch err := r.wire.receive(&a, forever, false); {
		case errors.Is(err, io.EOF):
			r.lose(errors.New("it closed the connection"))
		case err != nil:
			r.lose(err)
		case a.Over:
			r.end(fmt.Errorf("the agent ended the session: %s", printable(a.Error)))
		default:
			select {
			case r.answers <- a:
			case <-r.session.Done():
			}
		}
	}
}

// lose ends the session because of err.
func (r *Remote) lose(err error) {
	r.end(fmt.Errorf("the agent at %v is lost: %w", r.wire.conn.RemoteAddr(), err))
}

// Close ends the session, and with it whatever runs at the agent.
func (r *Remote) Close() error {
	r.lose(net.ErrClosed)
	return r.wire.conn.Close()
}

// String tells of the agent's machine and limits, in a line.
func (r *Remote) String() string {
	text := fmt.Sprintf("Servers run on %s (Linux %s, %s, io_uring tier %s), for at most %v in all.", r.machine.Host, r.machine.Kernel, plural(r.machine.CPUs, "CPU"), r.machine.Tier, r.timeLimit)
	if r.oneMachine {
		text += " That is this very machine."
	}
	if mine := program(); r.machine.Program != mine {
		text += fmt.Sprintf(" The agent is another build: %s, and this is %s.", r.machine.Program, mine)
	}
	return printable(text)
}

// printable is what another machine wrote, without what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, text)
}

func (r *Remote) network() *Network {
	local := localIP(r.wire.conn)
	n := &Network{
		Server: r.server.String(), ServerCard: printable(r.serverCard), Generator: local.String(), GeneratorCard: cardOf(local),
		OneMachine: r.oneMachine, GeneratorMachine: namedMachine(),
	}
	if c, err := r.wire.conn.(*net.TCPConn).SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
				n.RoundTrip, n.MTU = time.Duration(info.Min_rtt)*time.Microsecond, int(info.Pmtu)
			}
		})
	}
	return n
}

// answerLimit is how long the agent may take: it waits for its server for 20 s.
const answerLimit = time.Minute

// do asks for q.
func (r *Remote) do(q request) (answer, error) {
	if err := context.Cause(r.session); err != nil {
		return answer{}, err
	}
	r.wire.send(q) // where that fails, listen hears why
	late := time.NewTimer(answerLimit)
	defer late.Stop()
	select {
	case a := <-r.answers:
		if a.Error != "" {
			return answer{}, fmt.Errorf("on %s: %s", printable(r.machine.Host), printable(a.Error))
		}
		return a, nil
	case <-late.C:
		r.lose(fmt.Errorf("it did not answer within %v", answerLimit))
	case <-r.session.Done():
	}
	return answer{}, context.Cause(r.session)
}

func (r *Remote) prepare(c Candidate) error { return nil }

func (r *Remote) start(_ context.Context, c Candidate, w Workload, count bool) (subject, error) {
	a, err := r.do(request{Do: "start", Candidate: original(c.Name), Workload: &w, Count: count})
	if err != nil {
		return nil, err
	}
	if a.Report == nil || a.Report.Port < 1 || a.Report.Port > 65535 {
		return nil, errors.New("the agent told no port of the server")
	}
	return &remoteServer{r: r, ready: *a.Report}, nil
}

func (r *Remote) load() string {
	a, err := r.do(request{Do: "load"})
	if err != nil {
		return "unknown"
	}
	return a.Load
}

// awaitQuiet waits for both machines.
func (r *Remote) awaitQuiet(ctx context.Context, limit time.Duration) {
	end := time.Now().Add(limit)
	awaitQuiet(ctx, end, func() (int64, error) { return taskTime(), nil })
	awaitQuiet(ctx, end, func() (int64, error) {
		a, err := r.do(request{Do: "load"})
		return 1000 * a.BusyUS, err
	})
}

// A remoteServer is a process that an agent started.
type remoteServer struct {
	r       *Remote
	ready   Report
	stopped bool
}

func (s *remoteServer) address() netip.AddrPort {
	return netip.AddrPortFrom(s.r.server, uint16(s.ready.Port))
}

func (s *remoteServer) engine() string { return s.ready.Engine }

// used is not asked of an agent, which runs one server at a time.
func (s *remoteServer) used() (time.Duration, error) { return 0, errors.ErrUnsupported }

// said is empty: the agent's errors have it.
func (s *remoteServer) said() string { return "" }

func (s *remoteServer) ask(line string) (Report, error) {
	a, err := s.r.do(request{Do: line})
	if err != nil {
		return Report{}, err
	}
	if a.Report == nil {
		return Report{}, errors.New("the agent sent no report")
	}
	if s.r.oneMachine {
		a.Report.MachineUS = 0 // the generator's is the same
	}
	return *a.Report, nil
}

func (s *remoteServer) stop() error {
	if s.stopped {
		return nil
	}
	s.stopped = true
	_, err := s.r.do(request{Do: "stop"})
	return err
}
