package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"couplet/bench"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// serving is an agent in this process.
type serving struct {
	t      *testing.T
	addr   string
	tokens chan string
	ended  chan error
	stop   context.CancelFunc
	pid    atomic.Int64 // of the server that was started last
	log    bytes.Buffer // to be read after the end
}

// serveAgent starts a, which the test's end stops.
func serveAgent(t *testing.T, a bench.Agent) *serving {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &serving{t: t, addr: l.Addr().String(), tokens: make(chan string, 100), ended: make(chan error, 1), stop: stop}
	a.Announce = func(token string) error {
		select {
		case s.tokens <- token:
		default: // nobody wants so many
		}
		return nil
	}
	a.Log = slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == "pid" {
			s.pid.Store(attr.Value.Int64())
		}
		return attr
	}}))
	go func() { s.ended <- a.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		s.end()
	})
	return s
}

func (s *serving) token() string {
	s.t.Helper()
	return bench.Await(s.t, "a token", s.tokens)
}

// end waits for Serve to return, and gives its error, as often as it is called.
func (s *serving) end() error {
	s.t.Helper()
	err := bench.Await(s.t, "the agent's end", s.ended)
	s.ended <- err
	return err
}

// dial begins a session as a program does.
func (s *serving) dial(token string) (*bench.Remote, error) {
	return bench.Dial(s.t.Context(), s.addr, token)
}

// A visitor is a client written by hand, who may say anything.
type visitor struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

// reply is all that an agent says, in one type.
type reply struct {
	Nonce, Error string
	Over         bool
	MAC          string
	Report       *bench.Report
}

func (s *serving) visit() *visitor {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &visitor{s.t, conn, bufio.NewReader(conn)}
}

func (v *visitor) say(line string) {
	v.t.Helper()
	if _, err := io.WriteString(v.conn, line+"\n"); err != nil {
		v.t.Fatal(err)
	}
}

func (v *visitor) hear() (r reply) {
	v.t.Helper()
	line, err := v.in.ReadBytes('\n')
	if err != nil {
		v.t.Fatal(err)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		v.t.Fatalf("%q: %v", line, err)
	}
	return r
}

// ask says a line and hears what answers it.
func (v *visitor) ask(line string) reply {
	v.t.Helper()
	v.say(line)
	return v.hear()
}

// hangup waits until the agent has closed the connection.
func (v *visitor) hangup() {
	v.t.Helper()
	if rest, err := io.ReadAll(v.in); errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
		v.t.Errorf("the agent went on with %q (%v)", rest, err)
	}
}

func prove(token, side, a, b string) string {
	key, _ := hex.DecodeString(token)
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "couplet bench 1 %s %q %q", side, a, b)
	return hex.EncodeToString(h.Sum(nil))
}

// enter shows the token, and checks that the agent knows it too.
func (v *visitor) enter(token string) {
	v.t.Helper()
	nonce := v.hear().Nonce
	if len(nonce) < 32 {
		v.t.Errorf("the nonce %q is short", nonce)
	}
	w := v.ask(fmt.Sprintf(`{"protocol":1,"nonce":"mine","mac":%q}`, prove(token, "client", nonce, "mine")))
	if w.Error != "" || w.MAC != prove(token, "agent", nonce, "mine") {
		v.t.Fatalf("not let in, or not by the agent: %+v", w)
	}
}

const startEcho = `{"do":"start","candidate":"epoll","workload":{"kind":"echo","connections":1,"size":64}}`

// exists reports whether there is such a process, a zombie among them.
func exists(pid int64) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil
}

func TestWrongTokensEndTheAgent(t *testing.T) {
	s := serveAgent(t, bench.Agent{Keep: true})
	token := s.token()
	if len(token) < 32 {
		t.Errorf("the token %q has less than 128 bits", token)
	}
	if _, err := s.dial("0123"); !errors.Is(err, bench.ErrToken) {
		t.Errorf("half a token: %v", err)
	}
	for range 2 {
		if _, err := s.dial(strings.Repeat("0", len(token))); !errors.Is(err, bench.ErrToken) {
			t.Errorf("a wrong token: %v", err)
		}
	}
	// An answer heard before is of no use.
	v := s.visit()
	v.hear()
	if r := v.ask(fmt.Sprintf(`{"protocol":1,"nonce":"b","mac":%q}`, prove(token, "client", "a", "b"))); r.Error == "" || r.MAC != "" {
		t.Errorf("the proof of another session is answered by %+v", r)
	}
	v.hangup()
	if err := s.end(); err != bench.ErrTokens {
		t.Errorf("the agent ends with %v", err)
	}
}

func TestATokenIsGoodForOneSession(t *testing.T) {
	s := serveAgent(t, bench.Agent{Keep: true})
	first := s.token()
	r, err := s.dial(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.dial(first); err == nil || !strings.Contains(err.Error(), "another session") {
		t.Errorf("while it is in use: %v", err)
	}
	r.Close()
	second := s.token()
	if _, err := s.dial(first); second == first || !errors.Is(err, bench.ErrToken) {
		t.Errorf("a used token: %v", err)
	}
	if r, err = s.dial(second); err != nil {
		t.Fatal(err)
	}
	r.Close()

	once := serveAgent(t, bench.Agent{})
	if r, err = once.dial(once.token()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := once.end(); err != nil {
		t.Errorf("after its session: %v", err)
	}
}

func TestATokenDoesNotWaitForever(t *testing.T) {
	if err := serveAgent(t, bench.Agent{TokenLife: time.Millisecond}).end(); err != bench.ErrUnused {
		t.Errorf("the agent ends with %v", err)
	}
	s := serveAgent(t, bench.Agent{TokenLife: time.Millisecond, Keep: true})
	if a, b := s.token(), s.token(); a == b {
		t.Error("the next token is the same")
	}
}

// Whatever a client writes, it gets couplet's own engines on known workloads.
func TestAgentKnowsAFixedList(t *testing.T) {
	s := serveAgent(t, bench.Agent{})
	v := s.visit()
	v.enter(s.token())
	for _, c := range []struct{ line, says string }{
		{`{"do":"report"}`, "no server"},
		{`{"do":"gc"}`, "no server"},
		{`{"do":"exec"}`, `no request "exec"`},
		{`{}`, `no request ""`},
		{`{"do":"start","workload":{"kind":"echo","connections":1,"size":1}}`, `does not serve for ""`},
		{`{"do":"start","candidate":"gnet","workload":{"kind":"echo","connections":1,"size":1}}`, `"gnet"`},
		{`{"do":"start","candidate":"c-uring","workload":{"kind":"echo","connections":1,"size":1}}`, `"c-uring"`},
		{`{"do":"start","candidate":"/bin/sh","workload":{"kind":"echo","connections":1,"size":1}}`, `"/bin/sh"`},
		{`{"do":"start","candidate":"epoll@/bin/sh","workload":{"kind":"echo","connections":1,"size":1}}`, `"epoll@/bin/sh"`},
		{`{"do":"start","candidate":"epoll; sh","workload":{"kind":"echo","connections":1,"size":1}}`, `"epoll; sh"`},
		{`{"do":"start","candidate":"epoll"}`, "no workload"},
		{`{"do":"start","candidate":"epoll","workload":{"kind":"$(sh)","connections":1,"size":1}}`, "there is no workload"},
		{`{"do":"start","candidate":"epoll","workload":{"kind":"echo","connections":1000000,"size":1}}`, "connections is 1000000"},
		{`{"do":"start","candidate":"epoll","workload":{"kind":"echo","connections":1,"size":-1}}`, "size is -1"},
		{`{"do":"start","candidate":"epoll","workload":{"kind":"stream","connections":1,"size":1,"total":9000000000000000000}}`, "1 TiB"},
		{`{"do":"start","candidate":"epoll","workload":{"kind":"slow-poems","connections":1,"size":1,"delay_ns":1}}`, "1ms"},
		{`{"do":"start","candidate":"epoll-x2","workload":{"kind":"broadcast","connections":1,"size":1}}`, "does not serve broadcast"},
	} {
		if r := v.ask(c.line); r.Over || r.Report != nil || !strings.Contains(r.Error, c.says) {
			t.Errorf("%s is answered by %+v, want %q", c.line, r, c.says)
		}
	}
	if pid := s.pid.Load(); pid != 0 {
		t.Errorf("process %d was started", pid)
	}
	// One server at a time.
	if r := v.ask(startEcho); r.Error != "" || r.Report == nil || r.Report.Port == 0 {
		t.Fatalf("%s is answered by %+v", startEcho, r)
	}
	if r := v.ask(startEcho); !strings.Contains(r.Error, "already") {
		t.Errorf("a second server: %+v", r)
	}
	if r := v.ask(`{"do":"report"}`); r.Report == nil || r.Report.RSS == 0 || r.Report.MachineUS == 0 {
		t.Errorf("a report: %+v", r)
	}
	pid := s.pid.Load()
	if r := v.ask(`{"do":"stop"}`); r.Error != "" || exists(pid) {
		t.Errorf("stop: %+v, process %d there: %v", r, pid, exists(pid))
	}
	v.conn.Close()
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// What is no request at all ends the session, before the token and after it.
func TestAgentHangsUpOnNonsense(t *testing.T) {
	long := `{"do":"` + strings.Repeat("x", 1<<17)
	for _, line := range []string{"GET / HTTP/1.1", `{"do":"load","shell":"sh"}`, `{"do":"load"}{"do":"load"}`, `[]`, "\x00", long} {
		s := serveAgent(t, bench.Agent{})
		token := s.token()
		v := s.visit()
		v.hear()
		// More than the agent reads may be refused while it is being written.
		io.WriteString(v.conn, line+"\n")
		if _, err := io.ReadAll(v.in); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q keeps the connection without a token", line)
		}

		v = s.visit()
		v.enter(token)
		if r := v.ask(startEcho); r.Report == nil {
			t.Fatalf("%+v", r)
		}
		pid := s.pid.Load()
		io.WriteString(v.conn, line+"\n")
		if r := v.hear(); !r.Over || r.Error == "" {
			t.Errorf("%.20q is answered by %+v", line, r)
		}
		v.hangup()
		if err := s.end(); err != nil || exists(pid) {
			t.Errorf("%.20q: %v, process %d there: %v", line, err, pid, exists(pid))
		}
	}
}

// Who leaves takes the server along, at whatever point.
func TestNothingOutlivesTheSession(t *testing.T) {
	for name, leave := range map[string]func(*serving, *visitor){
		"the client closes": func(_ *serving, v *visitor) { v.conn.Close() },
		"the client resets": func(_ *serving, v *visitor) { v.conn.(*net.TCPConn).SetLinger(0); v.conn.Close() },
		"the agent is interrupted": func(s *serving, v *visitor) {
			s.stop()
			if r := v.hear(); !r.Over || !strings.Contains(r.Error, "interrupted") {
				s.t.Errorf("the client is told %+v", r)
			}
		},
		"the client leaves while a server starts": func(_ *serving, v *visitor) {
			v.ask(`{"do":"stop"}`)
			v.say(startEcho)
			v.conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveAgent(t, bench.Agent{})
			v := s.visit()
			v.enter(s.token())
			if r := v.ask(startEcho); r.Report == nil {
				t.Fatalf("%+v", r)
			}
			leave(s, v)
			if err := s.end(); err != nil {
				t.Error(err)
			}
			if pid := s.pid.Load(); pid == 0 || exists(pid) {
				t.Errorf("process %d is there", pid)
			}
			if log := s.log.String(); strings.Count(log, "session") != 2 || !strings.Contains(log, `msg="session ends"`) || strings.Contains(log, `why=""`) {
				t.Errorf("of one session the log says\n%s", log)
			}
		})
	}
}

func TestASessionEndsInTime(t *testing.T) {
	s := serveAgent(t, bench.Agent{TimeLimit: 300 * time.Millisecond})
	v := s.visit()
	v.enter(s.token())
	v.say(startEcho)
	r := v.hear()
	for !r.Over {
		r = v.hear()
	}
	if !strings.Contains(r.Error, "time limit of 300ms") || !strings.Contains(r.Error, "--time-limit") {
		t.Errorf("the client is told %+v", r)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if pid := s.pid.Load(); pid != 0 && exists(pid) {
		t.Errorf("process %d is there", pid)
	}
}

func TestAServerEndsInTime(t *testing.T) {
	s := serveAgent(t, bench.Agent{ServerLimit: 300 * time.Millisecond})
	v := s.visit()
	v.enter(s.token())
	r := v.ask(startEcho)
	for end := time.Now().Add(patience); r.Error == "" && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		r = v.ask(`{"do":"report"}`)
	}
	if !strings.Contains(r.Error, "after 300ms, the longest that one may live") {
		t.Errorf("the client is told %+v", r)
	}
	// The session goes on.
	if r := v.ask(`{"do":"stop"}`); r.Error != "" {
		t.Errorf("%+v", r)
	}
	if pid := s.pid.Load(); pid != 0 && exists(pid) {
		t.Errorf("process %d is there", pid)
	}
}

func TestTwoVersionsSaySo(t *testing.T) {
	s := serveAgent(t, bench.Agent{})
	s.token()
	v := s.visit()
	v.hear()
	if r := v.ask(`{"protocol":2,"new":"field"}`); !strings.Contains(r.Error, "version 2") || !strings.Contains(r.Error, "same couplet on both") {
		t.Errorf("another version of the client: %+v", r)
	}
	v.hangup()

	for greeting, says := range map[string]string{
		`{"agent":"couplet bench","protocol":9,"new":"field"}`: "version 9",
		`{"protocol":1}`: "does not answer as an agent",
		"SSH-2.0-Other":  "does not answer as an agent",
		`{"agent":"couplet bench","protocol":1,"nonce":"a"}` + "\n" + `{"mac":"00"}`: "does not know the token",
		`{"agent":"couplet bench","protocol":1,"nonce":"a"}` + "\n" + `{}`:           "does not know the token",
		`{"agent":"couplet bench","protocol":1,"error":"it serves another session"}`: "another session",
		"": "closed the connection",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if greeting == "" {
				return
			}
			io.WriteString(c, greeting+"\n")
			io.Copy(io.Discard, c)
		}()
		_, err = bench.Dial(t.Context(), l.Addr().String(), strings.Repeat("ab", 16))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q gives %v, want %q", greeting, err, says)
		}
		l.Close()
		bench.Await(t, "the other's end", done)
	}
}
