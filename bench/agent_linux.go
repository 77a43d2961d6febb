package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
)

// An Agent lets a Plan on another machine start servers here. It serves one client
// at a time, who must prove to know the token of the moment. All that a client can
// ask for is one of couplet's engines on a Workload, what that used, and its end;
// the server is this program once more, started without a shell, on the address at
// which the client reached the agent. Nothing outlives its session.
type Agent struct {
	// TimeLimit is how long a session may take (30 min by default), ServerLimit how
	// long one server may live (10 min), and TokenLife how long a token waits for a
	// session (15 min).
	TimeLimit, ServerLimit, TokenLife time.Duration
	// ServerPort is the port of servers; 0 is any that is free.
	ServerPort int
	// CPU is where servers of one loop are pinned.
	CPU int
	// Keep goes on after a session, with another token.
	Keep bool
	// Announce is called with each token, once it is good; its error ends Serve.
	Announce func(token string) error
	// Log, if not nil, gets who came and what was started.
	Log *slog.Logger
}

// Errors of Agent.Serve.
var (
	// ErrTokens says that three wrong tokens were tried.
	ErrTokens = errors.New("there were three wrong tokens; start the agent anew, with another one")
	// ErrUnused says that nobody came while the token was good.
	ErrUnused = errors.New("nobody used the token in time; start the agent anew")
)

// Serve takes clients from l until a session is over (see Keep), and closes l. The
// error is nil then, and where ctx ended it.
func (a Agent) Serve(ctx context.Context, l net.Listener) error {
	a.TimeLimit = cmp.Or(a.TimeLimit, 30*time.Minute)
	a.ServerLimit = min(cmp.Or(a.ServerLimit, 10*time.Minute), a.TimeLimit)
	a.TokenLife = cmp.Or(a.TokenLife, 15*time.Minute)
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &door{Agent: a, entered: make(chan guest, 1), shut: make(chan struct{}), broken: make(chan error, 1)}
	token := d.renew()
	d.all.Go(func() { d.accept(ctx, l) })
	defer d.all.Wait()
	defer cancel()
	defer l.Close()
	for ; ; token = d.renew() {
		if err := a.Announce(hex.EncodeToString(token)); err != nil {
			return fmt.Errorf("the token could not be told: %w", err)
		}
		late := time.NewTimer(a.TokenLife)
		var g guest
		select {
		case g = <-d.entered:
		case <-late.C:
			if d.withdraw() {
				if !a.Keep {
					return ErrUnused
				}
				continue
			}
			g = <-d.entered
		case <-d.shut:
			return ErrTokens
		case err := <-d.broken:
			return err
		case <-ctx.Done():
			return nil
		}
		late.Stop()
		a.session(ctx, g)
		if !a.Keep || ctx.Err() != nil {
			return nil
		}
	}
}

// A door lets in who knows the token.
type door struct {
	Agent
	all     sync.WaitGroup
	entered chan guest    // room for one
	shut    chan struct{} // closed after too many wrong tokens
	broken  chan error    // of the listener

	mu    sync.Mutex
	token []byte // nil: nobody is let in
	wrong int
}

// A guest is who was let in.
type guest struct {
	*wire
	mac string // to prove that the agent knows the token too
}

// renew lets in who knows the token that it returns.
func (d *door) renew() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.token = random(tokenBytes)
	return d.token
}

// withdraw takes the token back, and reports whether nobody had used it.
func (d *door) withdraw() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	unused := d.token != nil
	d.token = nil
	return unused
}

func (d *door) accept(ctx context.Context, l net.Listener) {
	// Who has not shown a token yet may be anybody: there are few at a time, and
	// not for long.
	const strangers = 16
	room := make(chan struct{}, strangers)
	for {
		conn, err := l.Accept()
		if err != nil {
			d.broken <- err
			return
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		d.all.Go(func() {
			defer func() { <-room }()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			if err := d.knock(conn); err != nil {
				d.Log.Warn("not let in", "client", conn.RemoteAddr().String(), "why", err)
				conn.Close()
			}
		})
	}
}

// knock lets conn in, or tells it and the caller why not.
func (d *door) knock(conn net.Conn) error {
	w := newWire(conn)
	d.mu.Lock()
	token := d.token
	d.mu.Unlock()
	hello := greeting{Agent: agentWord, Protocol: protocol, Nonce: hex.EncodeToString(random(tokenBytes))}
	busy := errors.New("the agent serves another session; try again when that is over")
	if token == nil {
		hello.Nonce, hello.Error = "", busy.Error()
		w.send(hello)
		return busy
	}
	if err := w.send(hello); err != nil {
		return err
	}
	var p proof
	if err := w.receive(&p, patience, false); err != nil {
		return err
	}
	refuse := func(err error, wrong bool) error {
		w.send(welcome{Error: err.Error(), WrongToken: wrong})
		return err
	}
	if p.Protocol != protocol {
		return refuse(otherVersion("the client", p.Protocol), false)
	}
	if !same(p.MAC, mac(token, "client", hello.Nonce, p.Nonce)) {
		err := refuse(errors.New("the token is wrong"), true)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.wrong++; d.wrong == 3 {
			close(d.shut)
		}
		return err
	}
	if !d.use(token) {
		return refuse(busy, false) // the token was good when the client came
	}
	d.entered <- guest{w, mac(token, "agent", hello.Nonce, p.Nonce)}
	return nil
}

// use reports whether token is the one of the moment, which it then is no more.
func (d *door) use(token []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !bytes.Equal(d.token, token) {
		return false
	}
	d.token = nil
	return true
}

// session answers g until it leaves, the time is over, or all is.
func (a Agent) session(all context.Context, g guest) {
	began := time.Now()
	log := a.Log.With("client", g.conn.RemoteAddr().String())
	log.Info("session begins")
	limited, cancel := context.WithTimeout(all, a.TimeLimit)
	ctx, leave := context.WithCancelCause(limited)
	room := &bay{Agent: a, log: log, addr: localIP(g.conn)}
	var reader sync.WaitGroup
	var why string
	defer func() {
		leave(nil)
		cancel()
		room.clear()
		g.conn.Close()
		reader.Wait()
		log.Info("session ends", "why", why, "took", time.Since(began).Round(time.Millisecond))
	}()
	hello := welcome{MAC: g.mac, Machine: namedMachine(), Card: cardOf(room.addr), Boot: bootID(), CPU: a.CPU, TimeLimit: a.TimeLimit, ServerLimit: a.ServerLimit}
	if err := g.send(hello); err != nil {
		why = a.why(err)
		return
	}
	requests := make(chan request)
	reader.Go(func() {
		for {
			var q request
			// By then the last server has been killed long ago.
			if err := g.receive(&q, a.ServerLimit+time.Minute, true); err != nil {
				leave(err)
				return
			}
			select {
			case requests <- q:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		var reply answer
		select {
		case q := <-requests:
			reply = room.answer(ctx, q)
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			why = a.why(context.Cause(ctx))
			if all.Err() != nil {
				why = "the agent was interrupted"
			}
			g.send(answer{Error: why, Over: true})
			return
		}
		if err := g.send(reply); err != nil {
			why = a.why(err)
			return
		}
	}
}

// why says what ended a session.
func (a Agent) why(cause error) string {
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Sprintf("the session's time limit of %v is over; start the agent with a longer --time-limit", a.TimeLimit)
	case errors.Is(cause, io.EOF):
		return "the client left"
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return "the client was silent for too long"
	}
	return cause.Error()
}

// localIP is the address at which the other side of conn reached this one.
func localIP(conn net.Conn) netip.Addr {
	return conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// A bay has room for one server.
type bay struct {
	Agent
	log    *slog.Logger
	addr   netip.Addr
	server *process
	free   context.CancelFunc
	limit  context.Context // of the server
}

// answer does what q asks for. Everything in q is somebody else's word.
func (b *bay) answer(ctx context.Context, q request) answer {
	switch q.Do {
	case "start":
		if err := b.start(ctx, q); err != nil {
			b.log.Warn("not started", "why", err)
			return answer{Error: err.Error()}
		}
		return answer{Report: &b.server.ready}
	case "report", "gc":
		if b.server == nil {
			return answer{Error: "there is no server to ask"}
		}
		r, err := b.server.ask(q.Do)
		if err != nil {
			return answer{Error: b.explain(b.limit, err).Error()}
		}
		r.MachineUS = taskTime() / 1000
		return answer{Report: &r}
	case "stop":
		b.clear()
		return answer{}
	case "load":
		return answer{Load: firstLine("/proc/loadavg"), BusyUS: taskTime() / 1000}
	}
	return answer{Error: fmt.Sprintf("there is no request %q", q.Do)}
}

func (b *bay) start(ctx context.Context, q request) error {
	if b.server != nil {
		return errors.New("there is a server already; stop that first")
	}
	c, err := findRemote(q.Candidate)
	if err != nil {
		return err
	}
	w, err := q.workload()
	if err != nil {
		return err
	}
	if !c.serves(w) {
		return fmt.Errorf("%s does not serve %s", c.Name, w)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv, err := c.build(&workshop{self: self})
	if err != nil {
		return err
	}
	argv = append(append(argv, w.args()...), "--listen", net.JoinHostPort(b.addr.String(), strconv.Itoa(b.ServerPort)))
	if q.Count {
		argv = append(argv, "--count")
	}
	cpu, procs := c.place(b.CPU, 1)
	limit, free := context.WithTimeout(ctx, b.ServerLimit)
	server, err := start(limit, argv, cpu, procs)
	if err != nil {
		defer free()
		return b.explain(limit, err)
	}
	b.server, b.limit, b.free = server, limit, free
	b.log.Info("server started", "candidate", c.Name, "workload", w.String(), "pid", server.cmd.Process.Pid)
	return nil
}

// explain names the cause of err where that is the end of limit.
func (b *bay) explain(limit context.Context, err error) error {
	if limit.Err() == nil {
		return err
	}
	return fmt.Errorf("the server was ended after %v, the longest that one may live", b.ServerLimit)
}

// clear ends the server, if there is one.
func (b *bay) clear() {
	if b.server != nil {
		b.server.stop()
		b.free()
		b.server = nil
	}
}

// workload is q's, if it is one that a client may ask for.
func (q request) workload() (Workload, error) {
	if q.Workload == nil {
		return Workload{}, errors.New("there is no workload")
	}
	w, err := q.Workload.WithDefaults()
	switch {
	case err != nil:
		return w, err
	case w.Total > 1<<40:
		return w, fmt.Errorf("total is %d; an agent streams at most 1 TiB", w.Total)
	case w.Delay != 0 && w.Delay < time.Millisecond, w.Delay > time.Minute:
		return w, fmt.Errorf("delay is %v; an agent takes 1ms to 1m", w.Delay)
	}
	return w, nil
}
