package bench

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The protocol between a Remote and an Agent is lines of JSON over TCP:
//
//	agent   greeting   a nonce
//	client  proof      a nonce, and the HMAC of both under the token
//	agent   welcome    its own HMAC of both, and what its machine is
//	client  request    one of a closed set
//	agent   answer     to each request; the last one may come unasked
//
// The two must be of one version of it.
const protocol = 1

const (
	maxLine    = 64 << 10         // bytes of a line
	patience   = 10 * time.Second // for a line that is due at once
	forever    = 0                // for one that may come at any time
	tokenBytes = 16
)

type greeting struct {
	// Agent is the word by which a client knows that this is one.
	Agent    string `json:"agent"`
	Protocol int    `json:"protocol"`
	Nonce    string `json:"nonce,omitempty"`
	Error    string `json:"error,omitempty"`
}

// agentWord is what every greeting has.
const agentWord = "couplet bench"

type proof struct {
	Protocol int    `json:"protocol"`
	Nonce    string `json:"nonce"`
	MAC      string `json:"mac"`
}

type welcome struct {
	Error string `json:"error,omitempty"`
	// WrongToken says that this was the Error.
	WrongToken bool    `json:"wrong_token,omitempty"`
	MAC        string  `json:"mac,omitempty"`
	Machine    Machine `json:"machine"`
	// Card is the network interface at which the client reached this machine.
	Card string `json:"card,omitempty"`
	// Boot is what tells this machine, since it was started, from all others.
	Boot string `json:"boot,omitempty"`
	// CPU is where servers are pinned.
	CPU int `json:"cpu"`
	// TimeLimit is that of the session, and ServerLimit of each server.
	TimeLimit   time.Duration `json:"time_limit_ns"`
	ServerLimit time.Duration `json:"server_limit_ns"`
}

// A request asks for one thing: "start" a Candidate on a Workload, a "report" of
// it, the same after garbage collections ("gc"), to "stop" it, or the "load" of the
// machine.
type request struct {
	Do        string    `json:"do"`
	Candidate string    `json:"candidate,omitempty"`
	Workload  *Workload `json:"workload,omitempty"`
	// Count has the kernel count the server's system calls.
	Count bool `json:"count,omitempty"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	// Over says that this is the end of the session.
	Over   bool    `json:"over,omitempty"`
	Report *Report `json:"report,omitempty"`
	// Load is /proc/loadavg, and BusyUS the CPU time that processes have used.
	Load   string `json:"load,omitempty"`
	BusyUS int64  `json:"busy_us,omitempty"`
}

// A wire carries lines.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

// silence is for how long the other machine may be silent before the kernel says that it
// is gone.
var silence = 30 * time.Second

// newWire has conn fail after silence: keep-alive asks only where nothing is on its way,
// and for what is there is a limit of its own.
func newWire(conn net.Conn) *wire {
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 6, Count: 3})
		if raw, err := c.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
			})
		}
	}
	return &wire{conn, bufio.NewReaderSize(conn, maxLine)}
}

func (w *wire) send(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err = w.conn.Write(append(line, '\n'))
	return err
}

// badLine is an error of what a line says, not of its coming.
type badLine struct{ error }

// receive reads a line into v, which must have all its fields where it is strict.
func (w *wire) receive(v any, within time.Duration, strict bool) error {
	deadline := time.Time{}
	if within != forever {
		deadline = time.Now().Add(within)
	}
	w.conn.SetReadDeadline(deadline)
	line, err := w.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull:
		return badLine{fmt.Errorf("a line of more than %d bytes", maxLine)}
	case err == io.EOF && len(line) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		if op := new(net.OpError); errors.As(err, &op) {
			return op.Err // who speaks to whom is known
		}
		return err
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return badLine{fmt.Errorf("a line that is not understood: %w", err)}
	}
	if _, err := d.Token(); err != io.EOF {
		return badLine{errors.New("a line that is not understood: more than one value")}
	}
	return nil
}

// mac proves the knowledge of the token, to the other side, in this session only.
func mac(token []byte, side, agentNonce, clientNonce string) string {
	h := hmac.New(sha256.New, token)
	fmt.Fprintf(h, "couplet bench %d %s %q %q", protocol, side, agentNonce, clientNonce)
	return hex.EncodeToString(h.Sum(nil))
}

// same compares without telling how far the two agree.
func same(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// otherVersion is for a side that speaks another version of the protocol.
func otherVersion(who string, theirs int) error {
	return fmt.Errorf("%s speaks version %d of the protocol and this couplet version %d; use the same couplet on both machines", who, theirs, protocol)
}

// program tells this build from others: its version, and the beginning of the
// SHA-256 of the executable.
var program = sync.OnceValue(func() string {
	words := []string{"couplet"}
	if info, ok := debug.ReadBuildInfo(); ok {
		words = append(words, info.Main.Version)
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				words = append(words, s.Value)
			}
		}
	}
	if path, err := os.Executable(); err == nil {
		if f, err := os.Open(path); err == nil {
			defer f.Close()
			h := sha256.New()
			if _, err := io.Copy(h, f); err == nil {
				words = append(words, fmt.Sprintf("sha256 %.6x", h.Sum(nil)))
			}
		}
	}
	return strings.Join(words, " ")
})

// namedMachine is machine with what tells it from another.
func namedMachine() Machine {
	m := machine()
	m.Host, _ = os.Hostname()
	m.Program = program()
	return m
}

func bootID() string { return firstLine("/proc/sys/kernel/random/boot_id") }
